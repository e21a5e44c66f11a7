//! What queries may cost, as written and as checked, and the handle that ends one early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use petrel_agent::units::{Bytes, Span};
use serde::{Deserialize, Serialize};

use super::parse::TEXT_BYTES_MAX;

/// The `query` section of the server's config, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawQueryOptions {
    /// Most samples that one query holds in memory at a time.
    pub samples_max: u64,
    /// Longest time that one query may take.
    pub timeout: Span,
    /// How far an instant selector looks back for the last sample of a series.
    pub lookback: Span,
    /// Most steps of a range query.
    pub steps_max: usize,
    /// Most queries that run at one time; ten times as many wait.
    pub concurrent_max: usize,
    /// Longest time that a query waits for its turn.
    pub queue_timeout: Span,
    /// Longest text of a query.
    pub text_max: Bytes,
    /// Largest answer; an estimate, made before the answer is written.
    pub answer_max: Bytes,
    /// Most series that one request for series, labels or label values looks at.
    pub series_max: usize,
}

/// Checked settings of queries.
#[derive(Debug, Clone)]
pub struct QueryOptions {
    /// Bounds of each evaluation.
    pub limits: Limits,
    /// Bounds at the door of the API.
    pub door: DoorLimits,
}

/// What the API lets in and out, whatever an evaluation may cost.
#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    /// Most evaluations at one time.
    pub concurrent_max: usize,
    /// Longest time that a query waits for its turn.
    pub queue_timeout: Duration,
    /// Longest text of a query, in bytes.
    pub text_bytes_max: usize,
    /// Largest answer, in bytes.
    pub answer_bytes_max: u64,
    /// Most series that one request for series, labels or label values looks at.
    pub series_max: usize,
}

impl Default for DoorLimits {
    fn default() -> DoorLimits {
        RawQueryOptions::default().door()
    }
}

/// A value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryOptionsError {
    /// Nothing could be asked.
    #[error("query.{key} must not be zero; leave it out for the default")]
    Zero {
        /// Which key.
        key: &'static str,
    },
    /// More than the parser reads.
    #[error("query.text_max: {found} is not allowed; a query has at most {TEXT_BYTES_MAX} bytes")]
    TextTooLong {
        /// What was written.
        found: Bytes,
    },
}

/// The defaults of Prometheus.
impl Default for RawQueryOptions {
    fn default() -> RawQueryOptions {
        let limits = Limits::default();
        RawQueryOptions {
            samples_max: limits.samples_max,
            timeout: Span(limits.timeout),
            lookback: Span(Duration::from_millis(limits.lookback_ms.unsigned_abs())),
            steps_max: limits.steps_max,
            concurrent_max: 20,
            queue_timeout: Span(Duration::from_secs(30)),
            text_max: Bytes(16 << 10),
            answer_max: Bytes(256 << 20),
            series_max: 2_000_000,
        }
    }
}

impl RawQueryOptions {
    /// Checks what was written.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self) -> Result<QueryOptions, QueryOptionsError> {
        let values = [
            ("samples_max", self.samples_max),
            ("timeout", self.timeout.as_ms().unsigned_abs()),
            ("lookback", self.lookback.as_ms().unsigned_abs()),
            ("steps_max", self.steps_max as u64),
            ("concurrent_max", self.concurrent_max as u64),
            ("queue_timeout", self.queue_timeout.as_ms().unsigned_abs()),
            ("text_max", self.text_max.0),
            ("answer_max", self.answer_max.0),
            ("series_max", self.series_max as u64),
        ];
        if let Some((key, _)) = values.into_iter().find(|(_, value)| *value == 0) {
            return Err(QueryOptionsError::Zero { key });
        }
        if self.text_max.0 > TEXT_BYTES_MAX as u64 {
            return Err(QueryOptionsError::TextTooLong { found: self.text_max });
        }
        let limits = Limits {
            samples_max: self.samples_max,
            timeout: self.timeout.0,
            lookback_ms: self.lookback.as_ms(),
            steps_max: self.steps_max,
            cancel: Cancel::default(),
            counts_samples: false,
        };
        Ok(QueryOptions { limits, door: self.door() })
    }

    fn door(&self) -> DoorLimits {
        DoorLimits {
            concurrent_max: self.concurrent_max,
            queue_timeout: self.queue_timeout.0,
            text_bytes_max: self.text_max.0 as usize,
            answer_bytes_max: self.answer_max.0,
            series_max: self.series_max,
        }
    }
}

/// Bounds of one evaluation.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Samples held at one time: loaded ones and those of results in between.
    pub samples_max: u64,
    /// Time an evaluation may take.
    pub timeout: Duration,
    /// How far an instant selector looks back for the last sample.
    pub lookback_ms: i64,
    /// Steps of a range query.
    pub steps_max: usize,
    /// Ends the evaluation when the asker is gone.
    pub cancel: Cancel,
    /// Whether the answer tells how many samples were looked at.
    pub counts_samples: bool,
}

/// The limits of Prometheus: 50 million samples, two minutes, a lookback of five minutes, 11,000 steps.
impl Default for Limits {
    fn default() -> Limits {
        Limits {
            samples_max: 50_000_000,
            timeout: Duration::from_secs(120),
            lookback_ms: 300_000,
            steps_max: 11_000,
            cancel: Cancel::default(),
            counts_samples: false,
        }
    }
}

/// A flag shared between the one who asks and the evaluation. Clones are the same flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the evaluations that were given this flag, at their next look.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody called [`Cancel::cancel`].
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_allowed_and_zero_is_not() {
        let checked = RawQueryOptions::default().check().unwrap();
        assert_eq!((checked.limits.lookback_ms, checked.door.concurrent_max), (300_000, 20));
        let wrong = RawQueryOptions { steps_max: 0, ..RawQueryOptions::default() };
        assert_eq!(
            wrong.check().unwrap_err().to_string(),
            "query.steps_max must not be zero; leave it out for the default"
        );
    }
}
