//! The vocabulary of series that every part of the server shares: labels, samples, matchers. No behaviour beyond that.

mod labels;

pub use labels::{Labels, Pairs};
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
