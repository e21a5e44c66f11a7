//! Selectors, and what may follow an operand: ranges and subqueries, `offset`, `@`, `anchored`, `smoothed`.

use crate::query::ast::{At, DurationExpr, DurationNode, Edges, Expr, Range, Selector, Subquery};
use crate::series::{MatchOp, Matcher, NAME};

use super::lex::{Kind, Token};
use super::literal::{SECONDS_MAX, literal_braces, quoted, unquote};
use super::{Node, ParseQueryError, Parser, Type};

/// Farthest time after `@`, in seconds: sums with ranges and offsets stay far from overflow.
const AT_S_MAX: f64 = 9e12;

/// The parts of a selector, range or subquery that modifiers set.
struct Modified<'e> {
    offset: (&'e mut i64, &'e mut Option<DurationExpr>),
    at: &'e mut Option<At>,
    edges: Option<&'e mut Edges>,
}

fn modified(expr: &mut Expr) -> Option<Modified<'_>> {
    let selector = match expr {
        Expr::Selector(selector) => selector,
        Expr::Range(range) => &mut range.selector,
        Expr::Subquery(subquery) => {
            let offset = (&mut subquery.offset_ms, &mut subquery.offset_expr);
            return Some(Modified { offset, at: &mut subquery.at, edges: None });
        }
        _ => return None,
    };
    let offset = (&mut selector.offset_ms, &mut selector.offset_expr);
    Some(Modified { offset, at: &mut selector.at, edges: Some(&mut selector.edges) })
}

impl Parser<'_> {
    /// `name{…}`, of which either may be missing; the name has been taken.
    pub(super) fn selector(&mut self, name: Option<Token<'_>>) -> Result<Node, ParseQueryError> {
        let start = name.map_or(self.peek().at, |name| name.at);
        let mut matchers = Vec::new();
        if self.peek().is("{") {
            self.matchers(&mut matchers)?;
        }
        if let Some(name) = name {
            if let Some(twice) = matchers.iter().find(|matcher| matcher.name == NAME) {
                let reason =
                    format!("metric name must not be set twice: {:?} or {}", name.text, quoted(value_of(twice)));
                self.mistyped(start, &reason);
            }
            matchers.insert(0, Matcher::equal(NAME, name.text));
        } else if !self.is_info && matchers.iter().all(|matcher| matcher.matches_value("")) {
            self.mistyped(start, "vector selector must contain at least one non-empty matcher");
        }
        let selector = Selector { matchers, offset_ms: 0, offset_expr: None, at: None, edges: Edges::default() };
        Ok(Node { expr: Expr::Selector(selector), start, kind: Type::Vector, depth: 0 })
    }

    fn matchers(&mut self, matchers: &mut Vec<Matcher>) -> Result<(), ParseQueryError> {
        const CONTEXT: &str = "label matching";
        self.take();
        while !self.accept("}") {
            let label = self.peek();
            if !matches!(label.kind, Kind::Identifier | Kind::Text) {
                return Err(self.unexpected(CONTEXT, "identifier or \"}\""));
            }
            self.take();
            let quoted_name = label.kind == Kind::Text;
            let name = if quoted_name { unquote(label.text) } else { label.text.to_owned() };
            let op = self.peek();
            if ["=", "!=", "=~", "!~"].iter().any(|text| op.is(text)) {
                self.take();
                if self.peek().kind != Kind::Text {
                    return Err(self.unexpected(CONTEXT, "string"));
                }
                let value = unquote(self.take().text);
                matchers.push(self.matcher(label, name, op.text, value)?);
            } else if quoted_name && (op.is(",") || op.is("}")) {
                matchers.push(Matcher::equal(NAME, &name));
            } else if quoted_name {
                return Err(self.unexpected(CONTEXT, "\",\" or \"}\""));
            } else {
                return Err(self.unexpected(CONTEXT, "label matching operator"));
            }
            if !self.accept(",") && !self.peek().is("}") {
                return Err(self.unexpected(CONTEXT, "\",\" or \"}\""));
            }
        }
        Ok(())
    }

    fn matcher(&self, label: Token<'_>, name: String, op: &str, value: String) -> Result<Matcher, ParseQueryError> {
        match op {
            "=" => Ok(Matcher { name, op: MatchOp::Equal(value) }),
            "!=" => Ok(Matcher { name, op: MatchOp::NotEqual(value) }),
            _ => {
                let negated = op == "!~";
                let compiled = Matcher::regex(&name, &value, negated);
                compiled.or_else(|_| Matcher::regex(&name, &literal_braces(&value), negated)).map_err(|error| {
                    let text = error.to_string();
                    // The last line tells what is wrong; those before it draw the expression.
                    let last = text.lines().last().unwrap_or_default();
                    self.syntax(label.at, &format!("error parsing regexp: {}", last.trim_start_matches("error: ")))
                })
            }
        }
    }

    /// Ranges and modifiers after an operand, as many as there are.
    pub(super) fn modifiers(&mut self, mut node: Node) -> Result<Node, ParseQueryError> {
        loop {
            let token = self.peek();
            if token.is("[") {
                node = self.range(node)?;
            } else if token.is("offset") {
                self.take();
                self.offset(&mut node)?;
            } else if token.is("@") {
                self.take();
                self.at(&mut node)?;
            } else if token.is("anchored") || token.is("smoothed") {
                self.take();
                let edges = if token.is("anchored") { Edges::Anchored } else { Edges::Smoothed };
                self.edges(&mut node, edges)?;
            } else {
                return Ok(node);
            }
        }
    }

    fn range(&mut self, node: Node) -> Result<Node, ParseQueryError> {
        let open = self.take();
        let range = self.positive_duration("subquery or range selector", "number, duration, step(), or range()")?;
        if self.accept("]") {
            return self.range_selector(node, open.at, range);
        }
        self.expect(":", "subquery or range", "\":\" or \"]\"")?;
        let step = if self.peek().is("]") {
            None
        } else {
            Some(self.positive_duration("subquery selector", "number, duration, step(), range(), or \"]\"")?)
        };
        self.expect("]", "subquery selector", "\"]\"")?;
        if node.kind != Type::Vector {
            let reason = format!("subquery is only allowed on instant vector, got {} instead", node.kind.short());
            self.mistyped(node.start, &reason);
        }
        let (range_ms, range_expr) = split(range);
        let (step_ms, step_expr) = step.map_or((None, None), |step| {
            let (ms, expr) = split(step);
            (Some(ms), expr)
        });
        let subquery = Subquery {
            expr: Box::new(node.expr),
            range_ms,
            range_expr,
            step_ms,
            step_expr,
            offset_ms: 0,
            offset_expr: None,
            at: None,
        };
        Ok(Node { expr: Expr::Subquery(subquery), kind: Type::Matrix, ..node })
    }

    fn range_selector(&self, node: Node, open: usize, range: DurationExpr) -> Result<Node, ParseQueryError> {
        let Expr::Selector(selector) = node.expr else {
            return Err(self.syntax(open, "ranges only allowed for vector selectors"));
        };
        if selector.offset_ms != 0 || selector.offset_expr.is_some() {
            return Err(self.syntax(open, "no offset modifiers allowed before range"));
        }
        if selector.at.is_some() {
            return Err(self.syntax(open, "no @ modifiers allowed before range"));
        }
        let (range_ms, range_expr) = split(range);
        let expr = Expr::Range(Range { selector, range_ms, range_expr });
        Ok(Node { expr, start: node.start, kind: Type::Matrix, depth: node.depth })
    }

    fn offset(&mut self, node: &mut Node) -> Result<(), ParseQueryError> {
        let offset = self.offset_duration()?;
        let Some(Modified { offset: (ms, expr), .. }) = modified(&mut node.expr) else {
            let reason =
                "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            return Err(self.syntax(node.start, reason));
        };
        if *ms != 0 || expr.is_some() {
            return Err(self.syntax(node.start, "offset may not be set multiple times"));
        }
        (*ms, *expr) = split(offset);
        Ok(())
    }

    fn at(&mut self, node: &mut Node) -> Result<(), ParseQueryError> {
        let token = self.peek();
        let word = token.text.to_ascii_lowercase();
        let is_preprocessor = matches!(word.as_str(), "start" | "end");
        let at = if is_preprocessor && self.peek_after(1).is("(") && self.peek_after(2).is(")") {
            self.take();
            self.take();
            self.take();
            if word == "start" { At::Start } else { At::End }
        } else {
            let negative = token.is("-");
            if negative || token.is("+") {
                self.take();
            }
            if !matches!(self.peek().kind, Kind::Number | Kind::Duration) {
                return Err(self.unexpected("@", "timestamp"));
            }
            let seconds = self.number()? * if negative { -1.0 } else { 1.0 };
            if !seconds.is_finite() || seconds.abs() >= 9_223_372_036_854_775_807.0 {
                let text = if seconds.is_finite() { format!("{seconds:.6}") } else { crate::query::number(seconds) };
                return Err(self.syntax(node.start, &format!("timestamp out of bounds for @ modifier: {text}")));
            }
            At::Time((seconds.clamp(-AT_S_MAX, AT_S_MAX) * 1000.0).round() as i64)
        };
        let Some(Modified { at: slot, .. }) = modified(&mut node.expr) else {
            let reason =
                "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery";
            return Err(self.syntax(node.start, reason));
        };
        if slot.is_some() {
            return Err(self.syntax(node.start, "@ <timestamp> may not be set multiple times"));
        }
        *slot = Some(at);
        Ok(())
    }

    fn edges(&mut self, node: &mut Node, edges: Edges) -> Result<(), ParseQueryError> {
        let word = if edges == Edges::Anchored { "anchored" } else { "smoothed" };
        match modified(&mut node.expr) {
            Some(Modified { edges: Some(slot), .. }) => {
                if *slot != Edges::Open && *slot != edges {
                    let reason = "anchored and smoothed modifiers cannot be used together";
                    return Err(self.syntax(node.start, reason));
                }
                *slot = edges;
                Ok(())
            }
            Some(_) => Err(self.syntax(node.start, &format!("{word} modifier is not supported for subqueries"))),
            None => Err(self.syntax(node.start, &format!("{word} modifier not implemented"))),
        }
    }

    /// A duration that, where it can be told already, is above zero.
    fn positive_duration(&mut self, context: &str, expected: &str) -> Result<DurationExpr, ParseQueryError> {
        let duration = self.duration(context, expected)?;
        match duration.node {
            DurationNode::Seconds { value, .. } if value.is_nan() || value <= 0.0 => {
                Err(self.syntax(duration.place.0 as usize, "duration must be greater than 0"))
            }
            _ => Ok(duration),
        }
    }
}

/// A duration in milliseconds or, where it has to be computed first, the expression.
fn split(duration: DurationExpr) -> (i64, Option<DurationExpr>) {
    match duration.node {
        // Prometheus rounds to nanoseconds and then cuts to milliseconds.
        DurationNode::Seconds { value, .. } => {
            (((value.clamp(-SECONDS_MAX, SECONDS_MAX) * 1e9).round() / 1e6).trunc() as i64, None)
        }
        _ => (0, Some(duration)),
    }
}

fn value_of(matcher: &Matcher) -> &str {
    match &matcher.op {
        MatchOp::Equal(value) | MatchOp::NotEqual(value) => value,
        MatchOp::Regex(regex) | MatchOp::NotRegex(regex) => crate::query::print::pattern(regex.as_str()),
    }
}
