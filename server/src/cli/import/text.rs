//! The Prometheus text format and OpenMetrics, read: one line in, one sample, a word about a metric, or what is wrong with the line.
//! Our own parser, because the one that is kept elsewhere is wrong on commas, braces and escapes in label values. Pure.

use crate::series::{NAME, Timestamp};

/// Which of the two it is: they differ in the unit of timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format: milliseconds.
    Prometheus,
    /// OpenMetrics: seconds, with a fraction.
    OpenMetrics,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// A sample; without a timestamp of its own the time is `None`.
    Sample {
        /// Label names and values, `__name__` among them, sorted.
        labels: Vec<(String, String)>,
        /// The value.
        value: f64,
        /// When, in milliseconds.
        t: Option<Timestamp>,
    },
    /// The type of a metric.
    Type {
        /// The metric.
        name: String,
        /// Its type.
        kind: String,
    },
    /// What a metric is.
    Help {
        /// The metric.
        name: String,
        /// In words.
        help: String,
    },
    /// A comment, an empty line, or the end of an OpenMetrics text.
    Nothing,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// No metric name.
    #[error("expected a metric name")]
    Name,
    /// A label is not `name="value"`.
    #[error("expected label=\"value\", a comma or `}}` at column {column}")]
    Label {
        /// From 1 on.
        column: usize,
    },
    /// A label twice.
    #[error("label `{name}` stands twice")]
    Twice {
        /// The label.
        name: String,
    },
    /// No number.
    #[error("`{found}` is not a value")]
    Value {
        /// What stands there.
        found: String,
    },
    /// No time.
    #[error("`{found}` is not a timestamp")]
    Timestamp {
        /// What stands there.
        found: String,
    },
    /// Too much.
    #[error("`{found}` after the timestamp")]
    Rest {
        /// What stands there.
        found: String,
    },
}

/// Reads one line without its end.
///
/// # Errors
/// The line is neither a sample nor a comment.
pub fn line(text: &str, format: Format) -> Result<Line, LineError> {
    let text = text.trim_matches([' ', '\t', '\r']);
    if text.is_empty() {
        return Ok(Line::Nothing);
    }
    match text.strip_prefix('#') {
        Some(comment) => Ok(told(comment)),
        None => sample(text, format),
    }
}

fn told(comment: &str) -> Line {
    let mut words = comment.trim_start().splitn(3, [' ', '\t']);
    match (words.next(), words.next(), words.next()) {
        (Some("TYPE"), Some(name), Some(kind)) => {
            // OpenMetrics says `unknown` where Prometheus says `untyped`.
            let kind = if kind.trim() == "untyped" { "unknown" } else { kind.trim() };
            Line::Type { name: name.to_owned(), kind: kind.to_owned() }
        }
        (Some("HELP"), Some(name), Some(help)) => {
            Line::Help { name: name.to_owned(), help: help.replace("\\n", "\n").replace("\\\\", "\\") }
        }
        _ => Line::Nothing,
    }
}

fn sample(text: &str, format: Format) -> Result<Line, LineError> {
    let mut scan = Scan { text, at: 0 };
    let mut labels = Vec::new();
    let name = scan.word(|c, first| c == '_' || c == ':' || c.is_ascii_alphabetic() || (!first && c.is_ascii_digit()));
    if !name.is_empty() {
        labels.push((NAME.to_owned(), name.to_owned()));
    }
    scan.blanks();
    if scan.take('{') {
        scan.labels(&mut labels)?;
    }
    if !labels.iter().any(|(name, _)| name == NAME) {
        return Err(LineError::Name);
    }
    labels.sort_unstable();
    if let Some(pair) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(LineError::Twice { name: pair[0].0.clone() });
    }
    // An exemplar follows a `#` of its own; there is no place for it yet.
    let rest = scan.rest();
    let rest = rest.split_once(" # ").map_or(rest, |(before, _)| before);
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let found = words.next().unwrap_or_default();
    let value = found.parse().map_err(|_| LineError::Value { found: found.to_owned() })?;
    let t = words.next().map(|word| timestamp(word, format)).transpose()?;
    match words.next() {
        Some(found) => Err(LineError::Rest { found: found.to_owned() }),
        None => Ok(Line::Sample { labels, value, t }),
    }
}

fn timestamp(word: &str, format: Format) -> Result<Timestamp, LineError> {
    let wrong = || LineError::Timestamp { found: word.to_owned() };
    match format {
        Format::Prometheus => word.parse().map_err(|_| wrong()),
        Format::OpenMetrics => {
            let ms = word.parse::<f64>().map_err(|_| wrong())? * 1000.0;
            // Beyond this floats have no milliseconds; no such time is accepted anyway.
            (ms.abs() < 9e15).then(|| ms.round() as Timestamp).ok_or_else(wrong)
        }
    }
}

/// A place in a line.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    fn take(&mut self, wanted: char) -> bool {
        let is_there = self.rest().starts_with(wanted);
        self.at += if is_there { wanted.len_utf8() } else { 0 };
        is_there
    }

    fn word(&mut self, belongs: impl Fn(char, bool) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.char_indices().find(|(at, c)| !belongs(*c, *at == 0)).map_or(rest.len(), |(at, _)| at);
        self.at += end;
        &rest[..end]
    }

    fn wrong(&self) -> LineError {
        LineError::Label { column: self.text[..self.at].chars().count() + 1 }
    }

    /// Everything after `{` up to and with `}`. A quoted word alone is the metric's name.
    fn labels(&mut self, labels: &mut Vec<(String, String)>) -> Result<(), LineError> {
        loop {
            self.blanks();
            if self.take('}') {
                return Ok(());
            }
            let quoted = self.rest().starts_with('"');
            let name = if quoted {
                self.quoted()?
            } else {
                self.word(|c, first| c == '_' || c.is_ascii_alphabetic() || (!first && c.is_ascii_digit())).to_owned()
            };
            self.blanks();
            if self.take('=') {
                self.blanks();
                let value = self.quoted()?;
                if name.is_empty() {
                    return Err(self.wrong());
                }
                // An empty value is no label.
                if !value.is_empty() {
                    labels.push((name, value));
                }
            } else if quoted {
                labels.push((NAME.to_owned(), name));
            } else {
                return Err(self.wrong());
            }
            self.blanks();
            if !self.take(',') && !self.rest().starts_with('}') {
                return Err(self.wrong());
            }
        }
    }

    fn quoted(&mut self) -> Result<String, LineError> {
        if !self.take('"') {
            return Err(self.wrong());
        }
        let mut value = String::new();
        let mut escaped = false;
        for (at, c) in self.rest().char_indices() {
            match (escaped, c) {
                (true, 'n') => value.push('\n'),
                (true, '"' | '\\') => value.push(c),
                (true, _) => value.extend(['\\', c]),
                (false, '\\') => {}
                (false, '"') => {
                    self.at += at + 1;
                    return Ok(value);
                }
                (false, _) => value.push(c),
            }
            escaped = !escaped && c == '\\';
        }
        Err(self.wrong())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "expectations are written in place")]
    fn check(text: &str, format: Format, expected: Expect) {
        let words = match line(text, format) {
            Ok(Line::Sample { labels, value, t }) => {
                let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                format!("{} {value} {t:?}", labels.join(" "))
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&words);
    }

    #[test]
    fn lines_are_read_as_they_are_meant() {
        use Format::{OpenMetrics, Prometheus};
        check("up 1", Prometheus, expect![[r#"__name__="up" 1 None"#]]);
        check("up{} 1 1700000000123", Prometheus, expect![[r#"__name__="up" 1 Some(1700000000123)"#]]);
        check("up 1 1700000000.1234", OpenMetrics, expect![[r#"__name__="up" 1 Some(1700000000123)"#]]);
        check("a:b{ x = \"1\" , b=\"\", } +Inf -5", Prometheus, expect![[r#"__name__="a:b" x="1" inf Some(-5)"#]]);
        check(
            r#"m{path="C:\\x, \"}\" \n # é",le="0.5"} 3e4 # {trace="1"} 1"#,
            OpenMetrics,
            expect![[r#"__name__="m" le="0.5" path="C:\\x, \"}\" \n # é" 30000 None"#]],
        );
        check(r#"{"my.metric", "a b"="c"} NaN"#, Prometheus, expect![[r#"__name__="my.metric" a b="c" NaN None"#]]);
        check("# TYPE up untyped", Prometheus, expect![[r#"Type { name: "up", kind: "unknown" }"#]]);
        check("# HELP up Is it\\nup?", Prometheus, expect![[r#"Help { name: "up", help: "Is it\nup?" }"#]]);
        check("# EOF", OpenMetrics, expect!["Nothing"]);
        check("  ", Prometheus, expect!["Nothing"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |text: &str| line(text, Format::Prometheus).unwrap_err().to_string();
        for (text, words) in [
            ("1up 1", "metric name"),
            ("up", "`` is not a value"),
            ("up one", "`one`"),
            ("up 1 1.5", "`1.5` is not a timestamp"),
            ("up 1 2 3", "`3` after"),
            ("up{a} 1", "column 5"),
            ("up{a=\"b 1", "column 7"),
            ("up{a=\"b\" c=\"d\"} 1", "column 10"),
            ("up{=\"b\"} 1", "column"),
            ("up{a=\"b\",a=\"c\"} 1", "`a` stands twice"),
            ("{a=\"b\"} 1", "metric name"),
        ] {
            assert!(wrong(text).contains(words), "{text}: {}", wrong(text));
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(text in "\\PC*", plain in "[a-z{}\",=# \\\\0-9.]{0,40}") {
            for text in [text, plain] {
                let _ = line(&text, Format::Prometheus);
                let _ = line(&text, Format::OpenMetrics);
            }
        }
    }
}
