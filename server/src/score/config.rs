//! Settings of the scorer, as written and as checked.

use std::time::Duration;

use petrel_agent::units::Span;
use serde::{Deserialize, Serialize};

/// The scorer's part of the config, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawScoreConfig {
    /// Whether series are scored at all.
    pub enabled: bool,
    /// Series that have a detector at most; further ones are not scored, and counted.
    pub series_max: usize,
    /// A score is told only of samples younger than this.
    pub fresh: Span,
    /// A host's series counts as strange for this long after a strange sample.
    pub host_window: Span,
    /// What was learned of a series is forgotten when no sample came for this long.
    pub forget_after: Span,
    /// How often what was learned is saved.
    pub save_interval: Span,
}

/// The scorer's settings, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoreConfig {
    /// Whether series are scored at all.
    pub enabled: bool,
    /// Series that have a detector at most.
    pub series_max: usize,
    pub(super) fresh_ms: i64,
    pub(super) host_window_ms: i64,
    pub(super) forget_after_ms: i64,
    pub(super) save_interval_ms: i64,
    pub(super) tick_ms: i64,
}

/// Which setting is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckScoreConfigError {
    /// A span is out of its range.
    #[error("score.{key}: {value} is not allowed; write {min} to {max}")]
    Span {
        /// The key.
        key: &'static str,
        /// What was written.
        value: Span,
        /// Least allowed.
        min: Span,
        /// Most allowed.
        max: Span,
    },
    /// No series would be scored.
    #[error("score.series_max: 0 is not allowed; write 1 or more, or enabled: false")]
    NoSeries,
}

/// Scores and rates are stored this often: the usual evaluation interval of rules.
const TICK_MS: i64 = 15_000;

impl Default for RawScoreConfig {
    fn default() -> RawScoreConfig {
        RawScoreConfig {
            enabled: true,
            series_max: 200_000,
            fresh: Span(Duration::from_secs(300)),
            host_window: Span(Duration::from_secs(300)),
            forget_after: Span(Duration::from_secs(86_400)),
            save_interval: Span(Duration::from_secs(300)),
        }
    }
}

impl RawScoreConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the first wrong key, its value and what is allowed.
    pub fn check(&self) -> Result<ScoreConfig, CheckScoreConfigError> {
        const MINUTE: u64 = 60;
        const DAY: u64 = 86_400;
        if self.series_max == 0 {
            return Err(CheckScoreConfigError::NoSeries);
        }
        let in_range = |key, value: Span, (min, max): (u64, u64)| {
            let (min, max) = (Span(Duration::from_secs(min)), Span(Duration::from_secs(max)));
            if (min..=max).contains(&value) {
                Ok(value.as_ms())
            } else {
                Err(CheckScoreConfigError::Span { key, value, min, max })
            }
        };
        Ok(ScoreConfig {
            enabled: self.enabled,
            series_max: self.series_max,
            fresh_ms: in_range("fresh", self.fresh, (10, DAY))?,
            host_window_ms: in_range("host_window", self.host_window, (10, DAY))?,
            forget_after_ms: in_range("forget_after", self.forget_after, (10 * MINUTE, 365 * DAY))?,
            save_interval_ms: in_range("save_interval", self.save_interval, (15, DAY))?,
            tick_ms: TICK_MS,
        })
    }
}
