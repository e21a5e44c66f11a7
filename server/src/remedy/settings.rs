//! How remedy is set: budgets and times. Raw as written in the server's config, checked before anything uses it.

use std::path::PathBuf;

use petrel_agent::units::{Bytes, Span};
use serde::{Deserialize, Serialize};

/// The section `remedy` of the server's config, as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRemedy {
    /// Runbook files, and folders of them (every `*.yaml` in it).
    pub runbooks: Vec<PathBuf>,
    /// The fleet's facts; without the file every failure domain is unknown, which forbids evacuations in `auto`.
    pub fleet: Option<PathBuf>,
    /// An inventory older than this is stale: nothing is done on its word.
    pub stale_after: Span,
    /// How long after a start no order leaves, so that all agents have reported once; they do every ten seconds.
    pub settle: Span,
    /// How long an order may wait to be pulled and started.
    pub order_ttl: Span,
    /// How long a leg waits for a guard that says «not now» before the run stops.
    pub patience: Span,
    /// Runs that act at the same time, at most.
    pub runs_max: u32,
    /// Hosts that are evacuated automatically in one day, at most.
    pub evacuations_per_day: u32,
    /// Migrations into one host at the same time, at most.
    pub migrations_per_target: u32,
    /// Bandwidth of one migration in MiB/s, where the runbook gives none.
    pub bandwidth_mib_s: u32,
    /// Memory of each host that guests may not use.
    pub memory_reserve: Bytes,
    /// Virtual processors per logical processor that guests may use.
    pub cpu_overcommit: f64,
}

impl Default for RawRemedy {
    fn default() -> RawRemedy {
        RawRemedy {
            runbooks: Vec::new(),
            fleet: None,
            // Three of the agents' ten-second reports.
            stale_after: seconds(30),
            settle: seconds(30),
            order_ttl: seconds(60),
            patience: seconds(120),
            runs_max: 4,
            evacuations_per_day: 1,
            migrations_per_target: 2,
            // A third of a gigabit link: users of the same link still get most of it.
            bandwidth_mib_s: 40,
            memory_reserve: Bytes(1 << 30),
            cpu_overcommit: 8.0,
        }
    }
}

fn seconds(seconds: u64) -> Span {
    Span(std::time::Duration::from_secs(seconds))
}

/// The settings as checked; times in milliseconds.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "each field is the field of RawRemedy of the same name, documented there")]
pub struct Settings {
    pub stale_after_ms: i64,
    pub settle_ms: i64,
    pub order_ttl_ms: i64,
    pub patience_ms: i64,
    pub runs_max: u32,
    pub evacuations_per_day: u32,
    pub migrations_per_target: u32,
    pub bandwidth_mib_s: u32,
    pub memory_bytes_reserve: u64,
    pub cpu_overcommit: f64,
}

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("remedy.{key}: {value} is not allowed; {allowed}")]
pub struct SettingsError {
    /// The key.
    pub key: &'static str,
    /// As written.
    pub value: String,
    /// What is.
    pub allowed: &'static str,
}

impl RawRemedy {
    /// Checks the values.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn check(&self) -> Result<Settings, SettingsError> {
        let refuse = |key, value: String, allowed| Err(SettingsError { key, value, allowed });
        if self.stale_after.as_ms() < 1000 {
            return refuse("stale_after", self.stale_after.to_string(), "at least 1s");
        }
        if self.order_ttl.as_ms() < 1000 {
            return refuse("order_ttl", self.order_ttl.to_string(), "at least 1s");
        }
        if self.bandwidth_mib_s == 0 {
            return refuse("bandwidth_mib_s", "0".to_owned(), "at least 1: migrations always have a cap");
        }
        if !(self.cpu_overcommit >= 1.0 && self.cpu_overcommit <= 100.0) {
            return refuse("cpu_overcommit", self.cpu_overcommit.to_string(), "from 1 to 100");
        }
        Ok(Settings {
            stale_after_ms: self.stale_after.as_ms(),
            settle_ms: self.settle.as_ms(),
            order_ttl_ms: self.order_ttl.as_ms(),
            patience_ms: self.patience.as_ms(),
            runs_max: self.runs_max,
            evacuations_per_day: self.evacuations_per_day,
            migrations_per_target: self.migrations_per_target,
            bandwidth_mib_s: self.bandwidth_mib_s,
            memory_bytes_reserve: self.memory_reserve.0,
            cpu_overcommit: self.cpu_overcommit,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_hold_and_wrong_values_are_told() {
        assert!(RawRemedy::default().check().is_ok());
        let uncapped = RawRemedy { bandwidth_mib_s: 0, ..RawRemedy::default() };
        assert!(uncapped.check().unwrap_err().to_string().contains("remedy.bandwidth_mib_s: 0"));
    }
}
