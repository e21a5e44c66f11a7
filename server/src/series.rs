//! The vocabulary of series that every part of the server shares: labels, samples, matchers. No behaviour beyond that.

use std::fmt;
use std::sync::Arc;

pub use petrel_models::Timestamp;

/// The label that holds a series' metric name.
pub const NAME: &str = "__name__";

/// The bit pattern that Prometheus writes where a series ends; every other NaN is an ordinary value.
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// One value of a series at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When, in milliseconds since the Unix epoch.
    pub t: Timestamp,
    /// The value; any bit pattern is kept as it came.
    pub v: f64,
}

impl Sample {
    /// The marker that ends a series at `t`.
    pub fn stale(t: Timestamp) -> Sample {
        Sample { t, v: f64::from_bits(STALE_NAN_BITS) }
    }

    /// Whether this is the marker of [`Sample::stale`].
    pub fn is_stale(&self) -> bool {
        self.v.to_bits() == STALE_NAN_BITS
    }
}

/// A label set: names are unique and sorted, empty values are absent. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The empty set.
    pub fn empty() -> Labels {
        Labels(Arc::from([]))
    }

    /// Sorts the pairs by name and leaves out empty values. Of a name given twice the last value stands.
    pub fn new<N: Into<Arc<str>>, V: Into<Arc<str>>>(pairs: impl IntoIterator<Item = (N, V)>) -> Labels {
        let mut pairs: Vec<(Arc<str>, Arc<str>)> =
            pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        // A stable sort of the reversed list puts the last value given first among equals, where dedup keeps it.
        pairs.reverse();
        pairs.sort_by(|a, b| a.0.cmp(&b.0));
        pairs.dedup_by(|later, kept| later.0 == kept.0);
        pairs.retain(|(_, value)| !value.is_empty());
        Labels(pairs.into())
    }

    /// The value of a label, `None` where absent. O(log n).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.binary_search_by(|(n, _)| (**n).cmp(name)).ok().map(|i| &*self.0[i].1)
    }

    /// The metric name, empty where absent.
    pub fn name(&self) -> &str {
        self.get(NAME).unwrap_or("")
    }

    /// All pairs in the order of names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// The pairs as shared strings, for building other sets without copying text.
    pub fn pairs(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.0
    }

    /// The set without the labels that `drop` names. O(n).
    pub fn without(&self, drop: impl Fn(&str) -> bool) -> Labels {
        Labels(self.0.iter().filter(|(name, _)| !drop(name)).cloned().collect())
    }

    /// The set with one label set, or removed where `value` is empty. O(n).
    pub fn with(&self, name: &str, value: &str) -> Labels {
        Labels::new(self.0.iter().cloned().chain(std::iter::once((Arc::from(name), Arc::from(value)))))
    }

    /// Number of labels.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Prometheus' notation: `name{label="value", …}`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let mut rest = self.iter().filter(|(name, _)| *name != NAME).peekable();
        if rest.peek().is_none() && !self.name().is_empty() {
            return Ok(());
        }
        f.write_str("{")?;
        for (i, (name, value)) in rest.enumerate() {
            write!(f, "{}{name}={value:?}", if i == 0 { "" } else { ", " })?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A condition on one label, as in a PromQL selector. An absent label counts as the empty string.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    /// The condition on its value.
    pub op: MatchOp,
}

/// The four kinds of conditions.
#[derive(Debug, Clone)]
pub enum MatchOp {
    /// `=`
    Equal(String),
    /// `!=`
    NotEqual(String),
    /// `=~`; the expression is anchored at both ends.
    Regex(regex::Regex),
    /// `!~`; the expression is anchored at both ends.
    NotRegex(regex::Regex),
}

impl Matcher {
    /// `name="value"`.
    pub fn equal(name: &str, value: &str) -> Matcher {
        Matcher { name: name.to_owned(), op: MatchOp::Equal(value.to_owned()) }
    }

    /// Compiles `=~` and `!~` as Prometheus does: anchored, `.` matches newlines.
    ///
    /// # Errors
    /// The expression does not compile, or would need too much memory.
    pub fn regex(name: &str, pattern: &str, negated: bool) -> Result<Matcher, regex::Error> {
        let regex = regex::RegexBuilder::new(&format!("^(?s:{pattern})$")).size_limit(1 << 20).build()?;
        let op = if negated { MatchOp::NotRegex(regex) } else { MatchOp::Regex(regex) };
        Ok(Matcher { name: name.to_owned(), op })
    }

    /// Whether a label value fulfils the condition.
    pub fn matches_value(&self, value: &str) -> bool {
        match &self.op {
            MatchOp::Equal(want) => value == want,
            MatchOp::NotEqual(want) => value != want,
            MatchOp::Regex(regex) => regex.is_match(value),
            MatchOp::NotRegex(regex) => !regex.is_match(value),
        }
    }

    /// Whether a label set fulfils the condition.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matches_value(labels.get(&self.name).unwrap_or(""))
    }
}
