//! Reading YAML that people wrote: config, rules, runbooks, fleet facts. A mistake is told as file:line:column and what is
//! allowed there. Shared by agent and server.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

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

/// Where the keys of a document stand, so that a mistake that is found only when values are checked can be told with its place.
#[derive(Debug, Default)]
pub struct Places(BTreeMap<String, (u64, u64)>);

impl Places {
    /// The keys of a document; none where it cannot be read.
    pub fn read(text: &str) -> Places {
        let mut places = Places::default();
        if let Ok(root) = serde_saphyr::from_str::<Spanned<Keys>>(text) {
            places.add("", &root.value);
        }
        places
    }

    /// Where the value of `key` (`store.retention`) stands, or of the nearest key above it that was written.
    pub fn nearest(&self, key: &str) -> Option<(u64, u64)> {
        let ends = key.match_indices('.').map(|(end, _)| end).chain([key.len()]);
        ends.filter_map(|end| self.0.get(&key[..end]).copied()).reduce(|_, deeper| deeper)
    }

    fn add(&mut self, above: &str, keys: &Keys) {
        for (key, value) in &keys.0 {
            let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
            self.add(&path, &value.value);
            self.0.insert(path, (value.referenced.line(), value.referenced.column()));
        }
    }
}

/// The keys of a mapping with their values' places; empty for everything else.
#[derive(Debug, Default)]
struct Keys(Vec<(String, Spanned<Keys>)>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Keys, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("YAML")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    keys.push(entry);
                }
                Ok(Keys(keys))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Keys, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Keys::default())
            }

            fn visit_bool<E>(self, _: bool) -> Result<Keys, E> {
                Ok(Keys::default())
            }

            fn visit_i64<E>(self, _: i64) -> Result<Keys, E> {
                Ok(Keys::default())
            }

            fn visit_u64<E>(self, _: u64) -> Result<Keys, E> {
                Ok(Keys::default())
            }

            fn visit_f64<E>(self, _: f64) -> Result<Keys, E> {
                Ok(Keys::default())
            }

            fn visit_str<E>(self, _: &str) -> Result<Keys, E> {
                Ok(Keys::default())
            }

            fn visit_unit<E>(self) -> Result<Keys, E> {
                Ok(Keys::default())
            }
        }
        deserializer.deserialize_any(Any)
    }
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
    fn keys_are_found_by_their_path_or_the_nearest_above() {
        let text =
            "listen: x\nstore:\n  retention: 15d\n  sizes: {a: 1, b: [1, {c: 2}]}\nempty:\nyes: true\n\"2\": 0.5\n";
        let places = Places::read(text);
        let at = |key| places.nearest(key);
        assert_eq!(
            (at("listen"), at("store.retention"), at("store.sizes.a")),
            (Some((1, 9)), Some((3, 14)), Some((4, 14)))
        );
        assert_eq!((at("store.sizes.x"), at("store.absent"), at("absent")), (Some((4, 10)), Some((3, 3)), None));
        assert_eq!(Places::read("[").nearest("a"), None);
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
