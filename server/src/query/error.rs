//! Why a query has no answer. The words are those of Prometheus where its users know them.

use std::time::Duration;

use crate::query::parse::literal::quoted;
use crate::query::source::SelectError;

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The step of a range query is zero or negative.
    #[error("zero or negative query resolution step widths are not accepted. Try a positive integer")]
    StepNotPositive,
    /// The range of a range query ends before it starts.
    #[error("end timestamp must not be before start time")]
    EndBeforeStart,
    /// More steps than allowed.
    #[error(
        "exceeded maximum resolution of {steps_max} points per timeseries. Try decreasing the query resolution (?step=XX)"
    )]
    TooManySteps {
        /// The limit.
        steps_max: usize,
    },
    /// A range query over an expression that is no scalar and no instant vector.
    #[error("invalid expression type \"{kind}\" for range query, must be Scalar or instant Vector")]
    NotRangeable {
        /// What it is.
        kind: &'static str,
    },
    /// An operand or argument is of another type than its place needs.
    #[error("expected {expected}, got {got}")]
    Mistyped {
        /// Type needed.
        expected: &'static str,
        /// Type given.
        got: &'static str,
    },
    /// A duration expression has no value that a duration can have.
    #[error("{start}:{end}: {reason}")]
    Duration {
        /// Offset of its first byte.
        start: u32,
        /// Offset of the byte after it.
        end: u32,
        /// What is wrong.
        reason: &'static str,
    },
    /// The evaluation holds more samples than allowed.
    #[error("query processing would load too many samples into memory in query execution; the limit is {samples_max}")]
    TooManySamples {
        /// The limit.
        samples_max: u64,
    },
    /// The evaluation took too long.
    #[error("query timed out in expression evaluation after {timeout:?}")]
    TimedOut {
        /// The limit.
        timeout: Duration,
    },
    /// Whoever asked is gone.
    #[error("query was canceled in expression evaluation")]
    Cancelled,
    /// The source has no samples to give.
    #[error("samples cannot be selected")]
    Select(#[source] SelectError),
    /// Two results would have the same labels.
    #[error("vector cannot contain metrics with the same labelset")]
    SameLabels,
    /// Two series of the «one» side match.
    #[error(
        "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{first}, {second}];many-to-many matching not allowed: matching labels must be unique on one side"
    )]
    ManyToMany {
        /// The labels that match.
        group: String,
        /// `left` or `right`.
        side: &'static str,
        /// One series.
        first: String,
        /// The other.
        second: String,
    },
    /// Several series of one side match one of the other without `group_left` or `group_right`.
    #[error("multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)")]
    ImplicitGroup,
    /// Grouping gives two results the same labels.
    #[error("multiple matches for labels: grouping labels must ensure unique matches")]
    GroupNotUnique,
    /// Two info series that describe the same are equally new.
    #[error("found duplicate series for info metric: existing {existing} @ {at_ms}, new {new} @ {at_ms}")]
    DuplicateInfo {
        /// One series.
        existing: String,
        /// The other.
        new: String,
        /// The time of both samples.
        at_ms: i64,
    },
    /// Two info series disagree on a label.
    #[error("conflicting label: {label}")]
    ConflictingInfo {
        /// The label.
        label: String,
    },
    /// A function cannot work on samples beyond the edges of a window.
    #[error("{modifier} modifier can only be used with: {allowed} - not with {function}")]
    EdgesUnsafe {
        /// `anchored` or `smoothed`.
        modifier: &'static str,
        /// Functions that can.
        allowed: &'static str,
        /// The function.
        function: String,
    },
    /// The parameter of `topk`, `bottomk` or `limitk` is no number.
    #[error("Parameter value is NaN")]
    ParameterNan,
    /// The parameter of `topk`, `bottomk` or `limitk` is too large.
    #[error("Scalar value {value} overflows int64")]
    ParameterOverflow {
        /// The value.
        value: f64,
    },
    /// The parameter of `limit_ratio` is no number.
    #[error("Ratio value is NaN")]
    RatioNan,
    /// A function would make a label with this name.
    #[error("invalid label name {}", quoted(.name))]
    LabelName {
        /// The name.
        name: String,
    },
    /// The regular expression of `label_replace` does not compile.
    #[error("invalid regular expression in label_replace(): {pattern}")]
    Regex {
        /// The expression.
        pattern: String,
        /// Where it fails.
        #[source]
        source: Box<regex::Error>,
    },
    /// A factor of `double_exponential_smoothing` is not between 0 and 1.
    #[error("invalid {name} factor. Expected: 0 < {symbol} < 1, got: {value:.6}")]
    Factor {
        /// `smoothing` or `trend`.
        name: &'static str,
        /// `sf` or `tf`.
        symbol: &'static str,
        /// The value.
        value: f64,
    },
}

impl QueryError {
    /// The word of the Prometheus API for this kind of error.
    pub fn kind(&self) -> &'static str {
        match self {
            QueryError::StepNotPositive
            | QueryError::EndBeforeStart
            | QueryError::TooManySteps { .. }
            | QueryError::NotRangeable { .. }
            | QueryError::Mistyped { .. } => "bad_data",
            QueryError::TimedOut { .. } => "timeout",
            QueryError::Cancelled => "canceled",
            QueryError::Select(SelectError::Read(_)) => "internal",
            _ => "execution",
        }
    }
}
