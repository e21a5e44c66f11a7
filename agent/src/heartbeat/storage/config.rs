//! The `heartbeat.storage` section of the agent's config.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::record::HOSTS_MAX;
use crate::units::Span;

/// Shared storage is written at this rhythm by every host of a cluster; faster ones load it for nothing.
const INTERVAL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
/// A path to shared storage may take seconds to fail over; beyond minutes the guests on it have long noticed.
const TIMEOUT_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// Areas that one host may beat on.
const PATHS_MAX: usize = 4;

/// One area as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawStoragePath {
    /// A file on shared storage or a block device, made by `petrel-agent storage-format`.
    pub path: PathBuf,
    /// This host's slot, from 1 on; without one, a free slot is found and kept.
    #[serde(default)]
    pub slot: Option<u16>,
    /// Time between two records.
    #[serde(default = "default_interval")]
    pub interval: Span,
    /// A read or write that takes longer counts as stalled storage.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

/// One area, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePath {
    /// Where it is.
    pub path: PathBuf,
    /// This host's slot, if the config names one.
    pub slot: Option<u16>,
    /// Time between two records.
    pub interval: Duration,
    /// What a read or write may take.
    pub timeout: Duration,
}

/// What is wrong with the section.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckStorageError {
    /// Too many.
    #[error("heartbeat.storage: {0} areas; at most 4 are allowed")]
    TooMany(usize),
    /// Not absolute.
    #[error("heartbeat.storage.path: {} is not an absolute path; write it from / on", .0.display())]
    Relative(PathBuf),
    /// Twice.
    #[error("heartbeat.storage.path: {} is written twice; one record in each area is enough", .0.display())]
    Twice(PathBuf),
    /// The slot.
    #[error("heartbeat.storage.slot: {0} is not allowed; use 1 to 256, or leave it out to have a slot found")]
    Slot(u16),
    /// The interval.
    #[error("heartbeat.storage.interval: {0} is out of range; allowed are 1s to 1m")]
    Interval(Span),
    /// The time-out.
    #[error("heartbeat.storage.timeout: {0} is out of range; allowed are 1s to 5m")]
    Timeout(Span),
}

/// Checks the section.
///
/// # Errors
/// A value is not allowed.
pub fn check(written: Vec<RawStoragePath>) -> Result<Vec<StoragePath>, CheckStorageError> {
    if written.len() > PATHS_MAX {
        return Err(CheckStorageError::TooMany(written.len()));
    }
    let mut paths: Vec<StoragePath> = Vec::new();
    for raw in written {
        if !raw.path.is_absolute() {
            return Err(CheckStorageError::Relative(raw.path));
        }
        if paths.iter().any(|other| other.path == raw.path) {
            return Err(CheckStorageError::Twice(raw.path));
        }
        if let Some(slot) = raw.slot.filter(|slot| !(1..=HOSTS_MAX).contains(slot)) {
            return Err(CheckStorageError::Slot(slot));
        }
        if !INTERVAL_RANGE.contains(&raw.interval.0) {
            return Err(CheckStorageError::Interval(raw.interval));
        }
        if !TIMEOUT_RANGE.contains(&raw.timeout.0) {
            return Err(CheckStorageError::Timeout(raw.timeout));
        }
        let (interval, timeout) = (raw.interval.0, raw.timeout.0);
        paths.push(StoragePath { path: raw.path, slot: raw.slot, interval, timeout });
    }
    Ok(paths)
}

fn default_interval() -> Span {
    Span(Duration::from_secs(5))
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(yaml: &str) -> String {
        match check(serde_saphyr::from_str::<Vec<RawStoragePath>>(yaml).unwrap()) {
            Ok(paths) => format!("{paths:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn values_are_checked_and_wrong_ones_named() {
        let defaults = told("[{path: /shared/beats}]");
        assert_eq!(defaults, "[StoragePath { path: \"/shared/beats\", slot: None, interval: 5s, timeout: 10s }]");
        for (yaml, part) in [
            ("[{path: beats}]", "path: beats is not an absolute path"),
            ("[{path: /a}, {path: /a}]", "path: /a is written twice"),
            ("[{path: /a, slot: 0}]", "slot: 0 is not allowed; use 1 to 256"),
            ("[{path: /a, slot: 257}]", "slot: 257 is not allowed"),
            ("[{path: /a, interval: 100ms}]", "interval: 100ms is out of range; allowed are 1s to 1m"),
            ("[{path: /a, timeout: 10m}]", "timeout: 10m is out of range; allowed are 1s to 5m"),
            ("[{path: /a}, {path: /b}, {path: /c}, {path: /d}, {path: /e}]", "5 areas; at most 4"),
        ] {
            assert!(told(yaml).contains(part), "{yaml}: {}", told(yaml));
        }
    }
}
