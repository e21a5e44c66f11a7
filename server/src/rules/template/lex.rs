//! Cuts a template into text and the tokens between `{{` and `}}`. Knows nothing of their meaning.

use super::{Fault, TemplateError};

/// One piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Text outside of actions, already trimmed by `{{-` and `-}}`.
    Text(String),
    /// `{{`
    Open,
    /// `}}`
    Close,
    /// A bare word: keyword, function, `true`, `nil`.
    Word(String),
    /// `$name`, without the dollar sign; empty for `$` alone.
    Variable(String),
    /// `.name`; empty for `.` alone. The flag says whether it follows the token before it without a space.
    Field(String, bool),
    /// A quoted string.
    Quoted(String),
    /// A number as written.
    Number(String),
    /// `|`, `(`, `)`, `,`, `=` or `:=`.
    Mark(&'static str),
}

/// Tokens with the byte at which each begins.
pub(super) type Tokens = Vec<(usize, Token)>;

const MARKS: [&str; 6] = [":=", "=", "|", "(", ")", ","];

pub(super) fn lex(text: &str) -> Result<Tokens, TemplateError> {
    let mut tokens = Tokens::new();
    let (mut at, mut trim_next) = (0, false);
    while at < text.len() {
        let open = text[at..].find("{{").map(|i| at + i);
        let mut plain = &text[at..open.unwrap_or(text.len())];
        if trim_next {
            plain = plain.trim_start();
        }
        let Some(open) = open else {
            tokens.push((at, Token::Text(plain.to_owned())));
            break;
        };
        let inner = &text[open + 2..];
        let trim_before = inner.starts_with('-') && inner[1..].starts_with(char::is_whitespace);
        if trim_before {
            plain = plain.trim_end();
        }
        if !plain.is_empty() {
            tokens.push((at, Token::Text(plain.to_owned())));
        }
        let start = open + 2 + usize::from(trim_before);
        (at, trim_next) = action(text, open, start, &mut tokens)?;
    }
    Ok(tokens)
}

/// Cuts one action; returns where it ends and whether it ends with ` -}}`.
fn action(text: &str, open: usize, start: usize, tokens: &mut Tokens) -> Result<(usize, bool), TemplateError> {
    let not_closed = TemplateError { at: open, fault: Fault::NotClosed("{{") };
    if text[start..].trim_start().starts_with("/*") {
        let end = text[start..].find("*/").map(|i| start + i + 2).ok_or(not_closed.clone())?;
        return closing(text, end + blanks(&text[end..])).ok_or(not_closed);
    }
    tokens.push((open, Token::Open));
    let mut at = start;
    let mut spaced = true;
    loop {
        let skipped = blanks(&text[at..]);
        spaced = spaced || skipped > 0;
        at += skipped;
        if at >= text.len() {
            return Err(not_closed);
        }
        if let Some((end, trim)) = closing(text, at) {
            tokens.push((at, Token::Close));
            return Ok((end, trim));
        }
        let (length, token) = token(&text[at..], spaced).map_err(|fault| TemplateError { at, fault })?;
        tokens.push((at, token));
        at += length;
        spaced = false;
    }
}

fn closing(text: &str, at: usize) -> Option<(usize, bool)> {
    let rest = &text[at..];
    if rest.starts_with("}}") {
        return Some((at + 2, false));
    }
    let spaced = text[..at].ends_with(char::is_whitespace);
    (spaced && rest.starts_with("-}}")).then_some((at + 3, true))
}

fn blanks(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len())
}

fn token(rest: &str, spaced: bool) -> Result<(usize, Token), Fault> {
    let first = rest.chars().next().unwrap_or(' ');
    let second = rest[first.len_utf8()..].chars().next().unwrap_or(' ');
    if let Some(mark) = MARKS.iter().find(|mark| rest.starts_with(**mark)) {
        return Ok((mark.len(), Token::Mark(mark)));
    }
    match first {
        '"' | '`' => quoted(rest, first),
        '$' => {
            let length = 1 + word_length(&rest[1..]);
            Ok((length, Token::Variable(rest[1..length].to_owned())))
        }
        '.' if !second.is_ascii_digit() => {
            let length = 1 + word_length(&rest[1..]);
            Ok((length, Token::Field(rest[1..length].to_owned(), !spaced)))
        }
        _ if first.is_ascii_digit()
            || (matches!(first, '+' | '-' | '.') && (second.is_ascii_digit() || second == '.')) =>
        {
            let mut before = ' ';
            let length = rest
                .find(|c: char| {
                    let sign = matches!(c, '+' | '-') && matches!(before, ' ' | 'e' | 'E');
                    let part = c.is_ascii_alphanumeric() || c == '.' || sign;
                    before = c;
                    !part
                })
                .unwrap_or(rest.len());
            Ok((length, Token::Number(rest[..length].to_owned())))
        }
        _ if first.is_alphabetic() || first == '_' => {
            let length = word_length(rest);
            Ok((length, Token::Word(rest[..length].to_owned())))
        }
        _ => Err(Fault::Unexpected(first.to_string())),
    }
}

/// A string in double quotes with Go's escapes, or in back quotes as it stands.
fn quoted(rest: &str, quote: char) -> Result<(usize, Token), Fault> {
    let mut out = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        if c == quote {
            return Ok((at + 1, Token::Quoted(out)));
        }
        if c != '\\' || quote == '`' {
            out.push(c);
            continue;
        }
        let (_, escaped) = chars.next().ok_or(Fault::NotClosed("\""))?;
        match escaped {
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            '"' | '\\' | '\'' => out.push(escaped),
            'x' | 'u' => {
                let digits = if escaped == 'x' { 2 } else { 4 };
                let hex: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                let code = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
                out.push(code.ok_or_else(|| Fault::Unexpected(format!("\\{escaped}{hex}")))?);
            }
            other => return Err(Fault::Unexpected(format!("\\{other}"))),
        }
    }
    Err(Fault::NotClosed(if quote == '`' { "`" } else { "\"" }))
}
