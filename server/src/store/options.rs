//! What can be set about the store, as written and as checked.

use std::time::Duration;

use petrel_agent::units::{Bytes, Span};
use serde::{Deserialize, Serialize};

use super::rollup::Level;

/// Defaults of the rollups' retention; [`Level::kept_default`] says the same.
const ROLLUP_5M: &str = "60d";
const ROLLUP_1H: &str = "403d";
/// Least `store.size_max`: below it `control.db` and a journal alone are more.
const SIZE_BYTES_MIN: u64 = 16 << 20;

/// The `store` section of the server's config, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawStoreOptions {
    /// How long samples are kept: a duration such as `15d`, or `off` to keep them all and take samples of any age.
    pub retention: String,
    /// Most bytes of the data directory: above it the oldest day's samples are unlinked, never today's. A size such as `100GiB`,
    /// or `off`.
    pub size_max: String,
    /// How long rows of five minutes are kept, for queries where raw samples are gone: a duration longer than `retention`, or `off`.
    pub rollup_5m: String,
    /// How long rows of an hour are kept: a duration longer than `retention` and `rollup_5m`, or `off`.
    pub rollup_1h: String,
    /// Free space on the data directory's disk below which samples are refused, so that alerts and runs can still be recorded.
    pub disk_reserve: Bytes,
    /// Most series that are kept; samples of further ones are refused.
    pub series_max: u64,
    /// Most series that have the same `instance` label, whatever their job; samples of further ones are refused.
    pub series_per_source_max: u64,
    /// Most bytes of journals; above it the oldest are sealed early. It bounds the time of a start after a crash.
    pub journal_bytes_max: Bytes,
    /// Most log lines that are kept.
    pub log_lines_max: u64,
    /// Most bytes of log lines that are kept.
    pub log_bytes_max: Bytes,
}

impl Default for RawStoreOptions {
    fn default() -> RawStoreOptions {
        RawStoreOptions {
            retention: "15d".to_owned(),
            size_max: "off".to_owned(),
            rollup_5m: ROLLUP_5M.to_owned(),
            rollup_1h: ROLLUP_1H.to_owned(),
            disk_reserve: Bytes(256 << 20),
            series_max: 2_000_000,
            // An exporter of a large host has a few thousand: far above what is right, far below what hurts the others.
            series_per_source_max: 100_000,
            journal_bytes_max: Bytes(256 << 20),
            log_lines_max: 1_000_000,
            log_bytes_max: Bytes(256 << 20),
        }
    }
}

/// A value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreOptionsError {
    /// Not a duration and not `off`.
    #[error("store.retention: `{found}` is neither a duration of at least 1h nor `off`; write for example 15d")]
    Retention {
        /// What was written.
        found: String,
    },
    /// Not a duration and not `off`, or not longer than what is finer.
    #[error("store.{key}: `{found}` is neither `off` nor a duration longer than {than}; write for example {example}")]
    Rollup {
        /// Which key.
        key: &'static str,
        /// What was written.
        found: String,
        /// What it must be longer than.
        than: &'static str,
        /// The default.
        example: &'static str,
    },
    /// Not a size and not `off`.
    #[error("store.size_max: `{found}` is neither a size of at least 16MiB nor `off`; write for example 100GiB")]
    SizeMax {
        /// What was written.
        found: String,
    },
    /// A limit of nothing.
    #[error("store.{key} must be at least {min}")]
    TooSmall {
        /// Which key.
        key: &'static str,
        /// The least that is allowed.
        min: u64,
    },
}

/// Checked settings of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// How long samples are kept; `None` keeps all and takes samples of any age.
    pub retention: Option<Duration>,
    /// Bytes of the data directory above which the oldest day is unlinked; `None` for no limit.
    pub size_bytes_max: Option<u64>,
    /// How long rows of five minutes are kept; `None` for none.
    pub rollup_5m: Option<Duration>,
    /// How long rows of an hour are kept; `None` for none.
    pub rollup_1h: Option<Duration>,
    /// Free bytes on disk below which samples are refused.
    pub disk_reserve_bytes: u64,
    /// Most series.
    pub series_max: usize,
    /// Most series with the same `instance`.
    pub series_per_source_max: usize,
    /// Bytes of journals above which the oldest are sealed early.
    pub journal_bytes_max: u64,
    /// Most log lines kept.
    pub log_lines_max: u64,
    /// Most bytes of log lines kept.
    pub log_bytes_max: u64,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        RawStoreOptions::default().check().expect("the defaults are allowed, as a test shows")
    }
}

impl StoreOptions {
    /// How long rows of a level are kept; `None` where none are built because they are switched off or raw samples never go.
    pub fn rollup(&self, level: Level) -> Option<Duration> {
        let may_expire = self.retention.is_some() || self.size_bytes_max.is_some();
        match level {
            Level::FiveMinutes => self.rollup_5m.filter(|_| may_expire),
            Level::Hour => self.rollup_1h.filter(|_| may_expire),
        }
    }
}

impl RawStoreOptions {
    /// Checks what was written.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(&self) -> Result<StoreOptions, StoreOptionsError> {
        let at_least = |key, value: u64, min| {
            if value < min { Err(StoreOptionsError::TooSmall { key, min }) } else { Ok(value) }
        };
        let retention = parse_retention(&self.retention)?;
        let rollup_5m = parse_rollup(("rollup_5m", &self.rollup_5m, ROLLUP_5M), ("retention", retention))?;
        let finer = if rollup_5m > retention { ("rollup_5m", rollup_5m) } else { ("retention", retention) };
        let rollup_1h = parse_rollup(("rollup_1h", &self.rollup_1h, ROLLUP_1H), finer)?;
        Ok(StoreOptions {
            retention,
            rollup_5m,
            rollup_1h,
            size_bytes_max: parse_size_max(&self.size_max)?,
            disk_reserve_bytes: self.disk_reserve.0,
            series_max: at_least("series_max", self.series_max, 1)? as usize,
            series_per_source_max: at_least("series_per_source_max", self.series_per_source_max, 1)? as usize,
            journal_bytes_max: at_least("journal_bytes_max", self.journal_bytes_max.0, 1 << 20)?,
            log_lines_max: at_least("log_lines_max", self.log_lines_max, 1)?,
            log_bytes_max: at_least("log_bytes_max", self.log_bytes_max.0, 1 << 16)?,
        })
    }
}

/// Reads how long a level is kept. A default that is not longer than what is finer is no mistake of the operator's: there is
/// nothing to keep then.
fn parse_rollup(
    (key, text, default): (&'static str, &str, &'static str),
    (than, finer): (&'static str, Option<Duration>),
) -> Result<Option<Duration>, StoreOptionsError> {
    if text == "off" {
        return Ok(None);
    }
    match text.parse::<Span>() {
        Ok(Span(kept)) if finer.is_none_or(|finer| kept > finer) => Ok(Some(kept)),
        Ok(_) if text == default => Ok(None),
        _ => Err(StoreOptionsError::Rollup { key, found: text.to_owned(), than, example: default }),
    }
}

fn parse_size_max(text: &str) -> Result<Option<u64>, StoreOptionsError> {
    if text == "off" {
        return Ok(None);
    }
    match text.parse::<Bytes>() {
        Ok(Bytes(bytes)) if bytes >= SIZE_BYTES_MIN => Ok(Some(bytes)),
        _ => Err(StoreOptionsError::SizeMax { found: text.to_owned() }),
    }
}

/// Reads `off` or a duration of at least an hour, as `--retention` and `store.retention` take it.
///
/// # Errors
/// It is neither.
pub fn parse_retention(text: &str) -> Result<Option<Duration>, StoreOptionsError> {
    if text == "off" {
        return Ok(None);
    }
    match text.parse::<Span>() {
        Ok(Span(span)) if span >= Duration::from_secs(3600) => Ok(Some(span)),
        _ => Err(StoreOptionsError::Retention { found: text.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let options = StoreOptions::default();
        assert_eq!((options.retention, options.series_max), (Some(Duration::from_secs(15 * 86_400)), 2_000_000));
        assert_eq!(parse_retention("off"), Ok(None));
        for wrong in ["", "5m", "never", "-1d"] {
            assert!(parse_retention(wrong).unwrap_err().to_string().contains("store.retention"), "{wrong}");
        }
        for wrong in ["", "1MiB", "much", "-1GiB"] {
            assert!(parse_size_max(wrong).unwrap_err().to_string().contains("store.size_max"), "{wrong}");
        }
        assert_eq!((parse_size_max("off"), parse_size_max("1GiB")), (Ok(None), Ok(Some(1 << 30))));
        let rollups = |retention: &str, rollup_5m: &str, rollup_1h: &str| {
            let [retention, rollup_5m, rollup_1h] = [retention, rollup_5m, rollup_1h].map(str::to_owned);
            let raw = RawStoreOptions { retention, rollup_5m, rollup_1h, ..RawStoreOptions::default() };
            raw.check().map(|options| [options.rollup(Level::FiveMinutes), options.rollup(Level::Hour)])
        };
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        assert_eq!(rollups("15d", "60d", "403d"), Ok([days(60), days(403)]));
        assert_eq!([Level::FiveMinutes, Level::Hour].map(|level| Some(level.kept_default())), [days(60), days(403)]);
        assert_eq!(rollups("90d", "60d", "403d"), Ok([None, days(403)]), "a default too short is not needed");
        assert_eq!(rollups("off", "60d", "403d"), Ok([None, None]), "raw samples never go");
        for (retention, rollup_5m, rollup_1h) in [("15d", "15d", "off"), ("15d", "90d", "80d"), ("1h", "soon", "off")] {
            assert!(rollups(retention, rollup_5m, rollup_1h).unwrap_err().to_string().contains("store.rollup_"));
        }
        let none = RawStoreOptions { series_max: 0, ..RawStoreOptions::default() };
        assert_eq!(none.check(), Err(StoreOptionsError::TooSmall { key: "series_max", min: 1 }));
    }
}
