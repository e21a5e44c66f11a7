//! Settings of predictions, as written and as checked.

use std::time::Duration;

use petrel_agent::units::Span;
use serde::{Deserialize, Serialize};

/// The predictions' part of the config, as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawPredictConfig {
    /// Whether anything is predicted.
    pub enabled: bool,
    /// How often outlooks are made.
    pub interval: Span,
    /// How far ahead; each horizon has its own history, outlook and ledger entries. Short to long.
    pub horizons: Vec<Span>,
    /// Where resources count as run out.
    pub limits: RawLimits,
    /// A prediction is written to the ledger every tenth of its horizon, but not more often than this.
    pub ledger_interval_min: Span,
    /// How long settled predictions are kept; what they say of calibration is kept for ever.
    pub ledger_keep: Span,
    /// Entries in the ledger at most: the oldest settled ones go first.
    pub ledger_entries_max: usize,
    /// File systems, hosts' memories and processors that are forecast at most; further ones are counted and left out.
    pub subjects_max: usize,
}

/// Limits, as shares of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    /// A file system has run out when this share of its size is left.
    pub filesystem_avail_ratio: f64,
    /// Memory has run out when this share of it is available.
    pub memory_available_ratio: f64,
    /// Processors have run out when this share of their time is used, over a minute.
    pub cpu_busy_ratio: f64,
}

/// The predictions' settings, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictConfig {
    /// Whether anything is predicted.
    pub enabled: bool,
    /// How often outlooks are made.
    pub interval: Duration,
    /// How far ahead, short to long; never empty.
    pub horizons: Vec<Span>,
    /// Where resources count as run out.
    pub limits: RawLimits,
    pub(super) ledger_interval_min_ms: i64,
    pub(super) ledger_keep_ms: i64,
    pub(super) ledger_entries_max: usize,
    pub(super) subjects_max: usize,
}

/// Which setting is wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CheckPredictConfigError {
    /// A span is out of its range.
    #[error("predict.{key}: {value} is not allowed; write {min} to {max}")]
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
    /// The list of horizons is not usable.
    #[error("predict.horizons: write one to eight spans, each once and longer than the one before it")]
    Horizons,
    /// A limit is not a share.
    #[error("predict.limits.{key}: {value} is not allowed; write a share between 0 and 1")]
    Limit {
        /// The key.
        key: &'static str,
        /// What was written.
        value: f64,
    },
    /// A number is zero.
    #[error("predict.{key}: 0 is not allowed; write 1 or more")]
    Zero {
        /// The key.
        key: &'static str,
    },
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

impl Default for RawPredictConfig {
    fn default() -> RawPredictConfig {
        let span = |seconds| Span(Duration::from_secs(seconds));
        RawPredictConfig {
            enabled: true,
            interval: span(MINUTE),
            horizons: vec![span(HOUR), span(6 * HOUR), span(24 * HOUR), span(7 * DAY)],
            limits: RawLimits::default(),
            ledger_interval_min: span(5 * MINUTE),
            ledger_keep: span(30 * DAY),
            ledger_entries_max: 1_000_000,
            subjects_max: 20_000,
        }
    }
}

impl Default for RawLimits {
    fn default() -> RawLimits {
        RawLimits { filesystem_avail_ratio: 0.01, memory_available_ratio: 0.05, cpu_busy_ratio: 0.95 }
    }
}

impl RawPredictConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the first wrong key, its value and what is allowed.
    pub fn check(&self) -> Result<PredictConfig, CheckPredictConfigError> {
        let in_range = |key, value: Span, (min, max): (u64, u64)| {
            let (min, max) = (Span(Duration::from_secs(min)), Span(Duration::from_secs(max)));
            let allowed = (min..=max).contains(&value);
            if allowed { Ok(value) } else { Err(CheckPredictConfigError::Span { key, value, min, max }) }
        };
        let rising = self.horizons.windows(2).all(|pair| pair[0] < pair[1]);
        if self.horizons.is_empty() || self.horizons.len() > 8 || !rising {
            return Err(CheckPredictConfigError::Horizons);
        }
        for &horizon in &self.horizons {
            in_range("horizons", horizon, (MINUTE, 90 * DAY))?;
        }
        let limits = &self.limits;
        for (key, value) in [
            ("filesystem_avail_ratio", limits.filesystem_avail_ratio),
            ("memory_available_ratio", limits.memory_available_ratio),
            ("cpu_busy_ratio", limits.cpu_busy_ratio),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(CheckPredictConfigError::Limit { key, value });
            }
        }
        for (key, value) in [("ledger_entries_max", self.ledger_entries_max), ("subjects_max", self.subjects_max)] {
            if value == 0 {
                return Err(CheckPredictConfigError::Zero { key });
            }
        }
        Ok(PredictConfig {
            enabled: self.enabled,
            interval: in_range("interval", self.interval, (1, HOUR))?.0,
            horizons: self.horizons.clone(),
            limits: self.limits,
            ledger_interval_min_ms: in_range("ledger_interval_min", self.ledger_interval_min, (1, DAY))?.as_ms(),
            ledger_keep_ms: in_range("ledger_keep", self.ledger_keep, (DAY, 3650 * DAY))?.as_ms(),
            ledger_entries_max: self.ledger_entries_max,
            subjects_max: self.subjects_max,
        })
    }
}

impl PredictConfig {
    pub(super) fn interval_ms(&self) -> i64 {
        Span(self.interval).as_ms()
    }
}
