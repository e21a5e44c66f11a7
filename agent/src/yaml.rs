//! Reading YAML that people wrote: config, rules, runbooks, fleet facts. A mistake is told as file:line:column and what is
//! allowed there. Shared by agent and server.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// One mistake in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub path: PathBuf,
    /// Line and column from 1 on, where known.
    pub at: Option<(u64, u64)>,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Problem {
    /// A mistake with no place of its own.
    pub fn new(path: &Path, message: impl Into<String>) -> Problem {
        Problem { path: path.to_owned(), at: None, message: message.into() }
    }
}

/// `file:line:column: message`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((line, column)) = self.at {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for Problem {}

/// Reads one YAML document. An empty document reads as an empty mapping, so that a file of comments is a valid config.
///
/// # Errors
/// The first mistake, with its place. The file's text is not repeated in it: it may hold secrets.
pub fn read<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Problem> {
    let is_empty = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
    serde_saphyr::from_str(if is_empty { "{}" } else { text }).map_err(|error| {
        let at = error.location().map(|location| (location.line(), location.column()));
        let message = error.without_snippet().to_string();
        // The place stands in front already; the library repeats it behind.
        let message = message.split(" at line ").next().unwrap_or(&message).trim().to_owned();
        Problem { path: path.to_owned(), at, message }
    })
}

/// Reads and parses a file.
///
/// # Errors
/// The file cannot be read, or its first mistake.
pub fn read_file<T: DeserializeOwned>(path: &Path) -> Result<T, Problem> {
    let text = std::fs::read_to_string(path).map_err(|error| Problem::new(path, format!("cannot be read: {error}")))?;
    read(path, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    #[derive(Default)]
    struct Example {
        interval: Option<crate::units::Span>,
        port: u16,
    }

    fn check(text: &str, expected: &expect_test::Expect) {
        let told = match read::<Example>(Path::new("a.yaml"), text) {
            Ok(example) => format!("{:?} {}", example.interval, example.port),
            Err(problem) => problem.to_string(),
        };
        expected.assert_eq(&told);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        check("# nothing\n", &expect_test::expect!["None 0"]);
        check(
            "port: 1\nintervall: 5s\n",
            &expect_test::expect!["a.yaml:2:1: unknown field `intervall`, expected one of interval, port"],
        );
        check(
            "interval: soon\n",
            &expect_test::expect!["a.yaml:1:11: `soon` is not a duration; write for example 30s, 5m, 1h30m or 15d"],
        );
        check("port: many\n", &expect_test::expect!["a.yaml:1:7: invalid u16"]);
        check("port: [\n", &expect_test::expect!["a.yaml:1:7: expected string scalar"]);
    }
}
