//! The Prometheus text format and OpenMetrics, read: one line in, one sample, a word about a metric, or what is wrong with
//! the line. Our own parser, because the one that is kept elsewhere is wrong on commas, braces and escapes in label values.
//! Pure; borrows from the text, but for what stands in escapes. `families` makes metrics of a whole body.

mod families;

use std::borrow::Cow;

use petrel_models::Timestamp;

pub use self::families::{BodyError, Grouping, Reader, families};

/// The label that is a series' name.
pub const NAME: &str = "__name__";
/// Longest line; more is no metrics.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Most labels of one sample, three times what any exporter is known to send.
const LABELS_MAX: usize = 128;
/// Most of a wrong word that is repeated in an error.
const FOUND_CHARS_MAX: usize = 60;

/// Which of the two it is: they differ in the unit of timestamps, and in that OpenMetrics says where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format: milliseconds.
    Prometheus,
    /// OpenMetrics: seconds, with a fraction.
    OpenMetrics,
}

/// What a line says.
#[derive(Debug, Clone, PartialEq)]
pub enum Line<'a> {
    /// A sample.
    Sample(Sample<'a>),
    /// The type of a metric.
    Type {
        /// The metric.
        name: Cow<'a, str>,
        /// Its type.
        kind: &'a str,
    },
    /// What a metric is.
    Help {
        /// The metric.
        name: Cow<'a, str>,
        /// In words.
        help: Cow<'a, str>,
    },
    /// The end mark of OpenMetrics.
    End,
    /// A comment or an empty line.
    Nothing,
}

/// A name or a value and where it was: most lie in the text as they are.
pub type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// The series' name.
    pub name: Cow<'a, str>,
    /// Label names and values, sorted, none twice, no value empty.
    pub labels: Vec<Pair<'a>>,
    /// The value.
    pub value: f64,
    /// When, in milliseconds, where the line says so.
    pub t: Option<Timestamp>,
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
    /// Too many labels.
    #[error("more than {LABELS_MAX} labels")]
    Labels,
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

/// Reads one line, with or without its end.
///
/// # Errors
/// The line is neither a sample nor a comment.
pub fn line(text: &str, format: Format) -> Result<Line<'_>, LineError> {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    if text.is_empty() {
        return Ok(Line::Nothing);
    }
    match text.strip_prefix('#') {
        Some(comment) => Ok(told(comment)),
        None => sample(text, format).map(Line::Sample),
    }
}

fn told(comment: &str) -> Line<'_> {
    let comment = comment.trim_start_matches([' ', '\t']);
    if comment == "EOF" {
        return Line::End;
    }
    let Some((word, rest)) = comment.split_once([' ', '\t']) else { return Line::Nothing };
    if !matches!(word, "TYPE" | "HELP") {
        return Line::Nothing;
    }
    let mut scan = Scan { text: rest, at: 0 };
    scan.blanks();
    let name = if scan.rest().starts_with('"') {
        let Ok(name) = scan.quoted() else { return Line::Nothing };
        name
    } else {
        Cow::Borrowed(scan.word(|c, _| c != ' ' && c != '\t'))
    };
    let rest = scan.rest().trim_start_matches([' ', '\t']);
    match word {
        "HELP" if !name.is_empty() => Line::Help { name, help: unescaped(rest) },
        // OpenMetrics says `unknown` where Prometheus says `untyped`.
        "TYPE" if !name.is_empty() && !rest.is_empty() => {
            Line::Type { name, kind: if rest == "untyped" { "unknown" } else { rest } }
        }
        _ => Line::Nothing,
    }
}

fn sample(text: &str, format: Format) -> Result<Sample<'_>, LineError> {
    let mut scan = Scan { text, at: 0 };
    let name = scan.word(|c, first| c == '_' || c == ':' || c.is_ascii_alphabetic() || (!first && c.is_ascii_digit()));
    let mut name = (!name.is_empty()).then_some(Cow::Borrowed(name));
    let mut labels = Vec::new();
    scan.blanks();
    if scan.take('{') {
        scan.labels(&mut name, &mut labels)?;
    }
    let name = name.ok_or(LineError::Name)?;
    labels.sort_unstable();
    if let Some(pair) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(LineError::Twice { name: shown(&pair[0].0) });
    }
    // An exemplar follows a `#` of its own; there is no place for it yet.
    let rest = scan.rest();
    let rest = rest.split_once(" # ").map_or(rest, |(before, _)| before);
    let mut words = rest.split([' ', '\t']).filter(|word| !word.is_empty());
    let found = words.next().unwrap_or_default();
    let value = found.parse().map_err(|_| LineError::Value { found: shown(found) })?;
    let t = words.next().map(|word| timestamp(word, format)).transpose()?;
    match words.next() {
        Some(found) => Err(LineError::Rest { found: shown(found) }),
        None => Ok(Sample { name, labels, value, t }),
    }
}

fn timestamp(word: &str, format: Format) -> Result<Timestamp, LineError> {
    let wrong = || LineError::Timestamp { found: shown(word) };
    match format {
        Format::Prometheus => word.parse().map_err(|_| wrong()),
        Format::OpenMetrics => {
            let ms = word.parse::<f64>().map_err(|_| wrong())? * 1000.0;
            // Beyond this floats have no milliseconds; no such time is accepted anyway.
            (ms.abs() < 9e15).then(|| ms.round() as Timestamp).ok_or_else(wrong)
        }
    }
}

fn shown(found: &str) -> String {
    found.chars().take(FOUND_CHARS_MAX).collect()
}

/// Text with `\\`, `\"` and `\n` as they are meant; another backslash is itself.
fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, letters.clone().next()) {
            ('\\', Some(next @ ('\\' | '"' | 'n'))) => {
                plain.push(if next == 'n' { '\n' } else { next });
                letters.next();
            }
            _ => plain.push(letter),
        }
    }
    Cow::Owned(plain)
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
    fn labels(&mut self, of: &mut Option<Cow<'a, str>>, labels: &mut Vec<Pair<'a>>) -> Result<(), LineError> {
        loop {
            self.blanks();
            if self.take('}') {
                return Ok(());
            }
            let quoted = self.rest().starts_with('"');
            let name = if quoted {
                self.quoted()?
            } else {
                let belongs =
                    |c: char, first: bool| c == '_' || c.is_ascii_alphabetic() || (!first && c.is_ascii_digit());
                Cow::Borrowed(self.word(belongs))
            };
            self.blanks();
            let (name, value) = if self.take('=') {
                self.blanks();
                (name, self.quoted()?)
            } else if quoted {
                (Cow::Borrowed(NAME), name)
            } else {
                return Err(self.wrong());
            };
            if name.is_empty() {
                return Err(self.wrong());
            }
            if value.is_empty() {
                // An empty value is no label.
            } else if name == NAME {
                if of.replace(value).is_some() {
                    return Err(LineError::Twice { name: NAME.to_owned() });
                }
            } else if labels.len() == LABELS_MAX {
                return Err(LineError::Labels);
            } else {
                labels.push((name, value));
            }
            self.blanks();
            if !self.take(',') && !self.rest().starts_with('}') {
                return Err(self.wrong());
            }
        }
    }

    fn quoted(&mut self) -> Result<Cow<'a, str>, LineError> {
        if !self.take('"') {
            return Err(self.wrong());
        }
        let rest = self.rest();
        let mut escaped = false;
        for (at, byte) in rest.bytes().enumerate() {
            if byte == b'"' && !escaped {
                self.at += at + 1;
                return Ok(unescaped(&rest[..at]));
            }
            escaped = byte == b'\\' && !escaped;
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
            Ok(Line::Sample(Sample { name, labels, value, t })) => {
                let labels: Vec<String> = labels.iter().map(|(name, value)| format!(" {name}={value:?}")).collect();
                format!("{name}{} {value} {t:?}", labels.concat())
            }
            Ok(other) => format!("{other:?}"),
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&words);
    }

    #[test]
    fn lines_are_read_as_they_are_meant() {
        use Format::{OpenMetrics, Prometheus};
        check("up 1", Prometheus, expect!["up 1 None"]);
        check("up{} 1 1700000000123", Prometheus, expect!["up 1 Some(1700000000123)"]);
        check("up 1 1700000000.1234", OpenMetrics, expect!["up 1 Some(1700000000123)"]);
        check("a:b{ x = \"1\" , b=\"\", } +Inf -5", Prometheus, expect![[r#"a:b x="1" inf Some(-5)"#]]);
        check(
            r#"m{path="C:\\x, \"}\" \n # é",le="0.5"} 3e4 # {trace="1"} 1"#,
            OpenMetrics,
            expect![[r#"m le="0.5" path="C:\\x, \"}\" \n # é" 30000 None"#]],
        );
        check(r#"{"my.metric", "a b"="c"} NaN"#, Prometheus, expect![[r#"my.metric a b="c" NaN None"#]]);
        check(r#"{__name__="up",a="\\n\t"} 1"#, Prometheus, expect![[r#"up a="\\n\\t" 1 None"#]]);
        check("# TYPE up untyped", Prometheus, expect![[r#"Type { name: "up", kind: "unknown" }"#]]);
        check("# TYPE \"my.metric\" gauge", Prometheus, expect![[r#"Type { name: "my.metric", kind: "gauge" }"#]]);
        check("# HELP up Is it\\nup? \\\\n", Prometheus, expect![[r#"Help { name: "up", help: "Is it\nup? \\n" }"#]]);
        check("# EOF", OpenMetrics, expect!["End"]);
        check("# UNIT x seconds", OpenMetrics, expect!["Nothing"]);
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
            ("up{\"down\"} 1", "`__name__` stands twice"),
            ("{a=\"b\"} 1", "metric name"),
        ] {
            assert!(wrong(text).contains(words), "{text}: {}", wrong(text));
        }
        let many: Vec<String> = (0..200).map(|n| format!("l{n}=\"x\"")).collect();
        assert_eq!(wrong(&format!("up{{{}}} 1", many.join(","))), "more than 128 labels");
        assert!(wrong(&format!("up {}", "x".repeat(1 << 16))).len() < 100);
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
