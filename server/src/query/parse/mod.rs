//! From text to tree: PromQL as Prometheus 3 reads it, its experimental parts included, by recursive descent. What it
//! refuses, it refuses with Prometheus' words and place. No text makes it panic or recurse deeper than [`DEPTH_MAX`].
//!
//! `lex` cuts the text, `expr` reads expressions, `selector` selectors and what follows them, `duration` durations that are
//! computed, `signature` knows the functions, `types` what fits where.

mod duration;
mod expr;
mod lex;
pub(super) mod literal;
mod selector;
mod signature;
mod types;

use crate::query::ast::{Expr, Place};

use lex::{Kind, Token, lex};
pub use signature::{Type, function_names, signature};

/// Longest text of a query that any setting allows: dashboards' longest are a few KiB, lists of a fleet's hosts in a regular
/// expression some hundred.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Deepest nesting of brackets and operators. The deepest query that passes is evaluated within a stack of 2 MiB even
/// without optimisation (test `deep_queries_fit_a_small_stack`).
pub(super) const DEPTH_MAX: usize = 120;

/// Why a text is no query.
#[derive(Debug, thiserror::Error)]
pub enum ParseQueryError {
    /// Too long.
    #[error("query has {bytes} bytes, at most {TEXT_BYTES_MAX} are read; split it or use recording rules")]
    TooLong {
        /// Length.
        bytes: usize,
    },
    /// Too deep.
    #[error(
        "query nests more than {DEPTH_MAX} brackets and operators; split it, or use a matcher with =~ in place of many `or`"
    )]
    TooDeep,
    /// Not PromQL. The words are those of Prometheus.
    #[error("{place}: parse error: {reason}")]
    Syntax {
        /// Where in the text.
        place: Place,
        /// What is wrong.
        reason: String,
    },
}

/// Parses PromQL.
///
/// # Errors
/// The text is too long, too deep or no PromQL.
pub fn parse(text: &str) -> Result<Expr, ParseQueryError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(ParseQueryError::TooLong { bytes: text.len() });
    }
    let lexed = lex(text);
    let mut parser = Parser {
        text,
        tokens: lexed.tokens,
        next: 0,
        lex_error: lexed.error,
        depth: 0,
        is_info: false,
        type_error: None,
    };
    if parser.peek().kind == Kind::End {
        return Err(parser.syntax(0, "no expression found in input"));
    }
    let node = parser.expression()?;
    if parser.peek().kind != Kind::End {
        return Err(parser.unexpected("", ""));
    }
    // Types are looked at only where the syntax is sound.
    parser.type_error.map_or(Ok(node.expr), Err)
}

/// An expression with what its parents need to know.
struct Node {
    expr: Expr,
    /// Offset of its first byte.
    start: usize,
    kind: Type,
    /// Levels below it that recursion has to walk.
    depth: usize,
}

struct Parser<'a> {
    text: &'a str,
    /// Never empty; the last is the end or an error.
    tokens: Vec<Token<'a>>,
    next: usize,
    lex_error: Option<String>,
    /// Expressions that are being read.
    depth: usize,
    /// The second argument of `info` is being read: a selector that may match all.
    is_info: bool,
    /// The first thing of a type that does not fit its place.
    type_error: Option<ParseQueryError>,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        self.peek_after(0)
    }

    /// The token after `skip` others; the last one for ever.
    fn peek_after(&self, skip: usize) -> Token<'a> {
        self.tokens[(self.next + skip).min(self.tokens.len() - 1)]
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        token
    }

    /// Takes the sign, operator or keyword if it is next.
    fn accept(&mut self, text: &str) -> bool {
        let found = self.peek().is(text);
        if found {
            self.take();
        }
        found
    }

    /// Takes the sign that has to come next.
    fn expect(&mut self, text: &str, context: &str, expected: &str) -> Result<Token<'a>, ParseQueryError> {
        if self.peek().is(text) { Ok(self.take()) } else { Err(self.unexpected(context, expected)) }
    }

    /// The next token stands where nothing like it can.
    fn unexpected(&self, context: &str, expected: &str) -> ParseQueryError {
        let token = self.peek();
        if let (Kind::Error, Some(error)) = (token.kind, &self.lex_error) {
            return self.syntax(token.at, error);
        }
        let context = if context.is_empty() { String::new() } else { format!(" in {context}") };
        let expected = if expected.is_empty() { String::new() } else { format!(", expected {expected}") };
        self.syntax(token.at, &format!("unexpected {}{context}{expected}", token.described()))
    }

    fn syntax(&self, at: usize, reason: &str) -> ParseQueryError {
        ParseQueryError::Syntax { place: self.place(at), reason: reason.to_owned() }
    }

    /// Notes that something has the wrong type; the first note counts.
    fn mistyped(&mut self, at: usize, reason: &str) {
        if self.type_error.is_none() {
            self.type_error = Some(self.syntax(at, reason));
        }
    }

    fn place(&self, at: usize) -> Place {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = before.split(|&b| b == b'\n').count();
        let column = before.iter().rev().take_while(|&&b| b != b'\n').count() + 1;
        Place { line: line as u32, column: column as u32 }
    }

    /// Runs `read` one level deeper.
    fn deeper<T>(
        &mut self,
        read: impl FnOnce(&mut Parser<'a>) -> Result<T, ParseQueryError>,
    ) -> Result<T, ParseQueryError> {
        if self.depth > DEPTH_MAX {
            return Err(ParseQueryError::TooDeep);
        }
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }
}

#[cfg(test)]
mod tests;
