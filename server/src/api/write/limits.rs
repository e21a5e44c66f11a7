//! What requests that bring samples or log lines may hold, as written and as checked.

use std::time::Duration;

use petrel_agent::units::{Bytes, Span};
use serde::{Deserialize, Serialize};

use crate::ingest::labels::LabelLimits;
use crate::ingest::otlp::StreamLimits;

/// Limits of the receivers, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawWriteLimits {
    /// Largest request body as sent.
    pub body_max: Bytes,
    /// Largest request body when decompressed.
    pub decoded_max: Bytes,
    /// Most bytes of all request bodies that are received and decoded at one time, as sent and decompressed; beyond it requests get
    /// 503 and senders come again.
    pub in_flight_max: Bytes,
    /// Longest time from the head of a request, on any path, to the end of its body.
    pub body_timeout: Span,
    /// Most memory for the last batch of each agent, against which its next one is compressed: about 150 bytes a series, and a third
    /// of the bytes on the wire; agents beyond it send whole batches. 0B offers it to nobody.
    pub dictionaries_max: Bytes,
    /// Most labels of a series, its name among them; others are refused.
    pub labels_max: u64,
    /// Longest name of a label.
    pub label_name_bytes_max: Bytes,
    /// Longest value of a label, also of a metric's name.
    pub label_value_bytes_max: Bytes,
    /// Most series that OTLP deltas are added up for, a histogram counting with its buckets; deltas of further streams are refused.
    pub delta_series_max: u64,
    /// A stream of OTLP deltas without a point for longer is forgotten; its next sum goes on from the store, its next histogram at 0.
    pub delta_stale_after: Span,
}

impl Default for RawWriteLimits {
    fn default() -> RawWriteLimits {
        let LabelLimits { labels_max, name_bytes_max, value_bytes_max } = LabelLimits::default();
        let StreamLimits { series_max, stale_after_ms } = StreamLimits::default();
        RawWriteLimits {
            body_max: Bytes(32 << 20),
            decoded_max: Bytes(64 << 20),
            // Two of the largest and some room; a fleet's ordinary requests take less than a megabyte each.
            in_flight_max: Bytes(256 << 20),
            // Prometheus gives a request up after 30 s, an agent of ours after 30 s.
            body_timeout: Span(Duration::from_secs(60)),
            // Seventeen hundred hosts with a thousand series each.
            dictionaries_max: Bytes(256 << 20),
            labels_max: labels_max as u64,
            label_name_bytes_max: Bytes(name_bytes_max as u64),
            label_value_bytes_max: Bytes(value_bytes_max as u64),
            delta_series_max: series_max as u64,
            delta_stale_after: Span(Duration::from_millis(stale_after_ms.unsigned_abs())),
        }
    }
}

/// Limits of the receivers, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteLimits {
    /// Largest request body as sent, in bytes.
    pub body_bytes_max: usize,
    /// Largest request body when decompressed, in bytes.
    pub decoded_bytes_max: usize,
    /// Most bytes of all bodies at one time.
    pub in_flight_bytes_max: usize,
    /// Longest time that a body may take to arrive.
    pub body_timeout: Duration,
    /// Most bytes of agents' dictionaries; 0 for none.
    pub dictionaries_bytes_max: usize,
    /// What labels may be.
    pub labels: LabelLimits,
    /// What is kept of streams of deltas.
    pub streams: StreamLimits,
}

/// A limit that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteLimitsError {
    /// Too small to be useful or too large for a server.
    #[error("write.{key}: {value} is not allowed; write {min} to {max}")]
    Size {
        /// Which key.
        key: &'static str,
        /// What was written.
        value: Bytes,
        /// The least.
        min: Bytes,
        /// The most.
        max: Bytes,
    },
    /// The largest request that is allowed would never find room.
    #[error("write.in_flight_max: {value} is not allowed; write at least {min}, body_max and decoded_max together")]
    InFlight {
        /// What was written.
        value: Bytes,
        /// The least.
        min: Bytes,
    },
    /// Too few or too many.
    #[error("write.labels_max: {value} is not allowed; write 8 to 1024")]
    Labels {
        /// What was written.
        value: u64,
    },
    /// Too short or too long.
    #[error("write.body_timeout: {value} is not allowed; write 1s to 1h")]
    Timeout {
        /// What was written.
        value: Span,
    },
    /// More than memory holds.
    #[error("write.delta_series_max: {value} is not allowed; write 0 (no deltas) to 100000000")]
    DeltaSeries {
        /// What was written.
        value: u64,
    },
    /// Shorter than senders pause, or longer than anybody waits.
    #[error("write.delta_stale_after: {value} is not allowed; write 10s to 7d")]
    DeltaStale {
        /// What was written.
        value: Span,
    },
}

impl RawWriteLimits {
    /// Checks what was written.
    ///
    /// # Errors
    /// A limit is too small for one host's batch, or too large for a server.
    pub fn check(&self) -> Result<WriteLimits, WriteLimitsError> {
        let within = |key, value: Bytes, (min, max): (u64, u64)| {
            let fits = (min..=max).contains(&value.0);
            let error = WriteLimitsError::Size { key, value, min: Bytes(min), max: Bytes(max) };
            fits.then_some(value.0 as usize).ok_or(error)
        };
        let body = (64 << 10, 1 << 30);
        let body_bytes_max = within("body_max", self.body_max, body)?;
        let decoded_bytes_max = within("decoded_max", self.decoded_max, body)?;
        let min = Bytes(self.body_max.0 + self.decoded_max.0);
        if self.in_flight_max < min {
            return Err(WriteLimitsError::InFlight { value: self.in_flight_max, min });
        }
        if !(8..=1024).contains(&self.labels_max) {
            return Err(WriteLimitsError::Labels { value: self.labels_max });
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&self.body_timeout.0) {
            return Err(WriteLimitsError::Timeout { value: self.body_timeout });
        }
        if self.delta_series_max > 100_000_000 {
            return Err(WriteLimitsError::DeltaSeries { value: self.delta_series_max });
        }
        if !(Duration::from_secs(10)..=Duration::from_secs(7 * 86_400)).contains(&self.delta_stale_after.0) {
            return Err(WriteLimitsError::DeltaStale { value: self.delta_stale_after });
        }
        Ok(WriteLimits {
            body_bytes_max,
            decoded_bytes_max,
            in_flight_bytes_max: usize::try_from(self.in_flight_max.0).unwrap_or(usize::MAX),
            body_timeout: self.body_timeout.0,
            dictionaries_bytes_max: within("dictionaries_max", self.dictionaries_max, (0, 1 << 40))?,
            labels: LabelLimits {
                labels_max: self.labels_max as usize,
                name_bytes_max: within("label_name_bytes_max", self.label_name_bytes_max, (32, 64 << 10))?,
                value_bytes_max: within("label_value_bytes_max", self.label_value_bytes_max, (64, 1 << 20))?,
            },
            streams: StreamLimits {
                series_max: self.delta_series_max as usize,
                stale_after_ms: self.delta_stale_after.0.as_millis() as i64,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked() {
        let limits = RawWriteLimits::default().check().unwrap();
        assert_eq!((limits.body_bytes_max, limits.decoded_bytes_max), (32 << 20, 64 << 20));
        assert_eq!(limits.labels, LabelLimits::default());
        let told = |change: &dyn Fn(&mut RawWriteLimits)| {
            let mut raw = RawWriteLimits::default();
            change(&mut raw);
            raw.check().unwrap_err().to_string()
        };
        let within = "is not allowed; write";
        for (said, expected) in [
            (told(&|raw| raw.body_max = Bytes(1)), format!("write.body_max: 1B {within} 64KiB to 1GiB")),
            (told(&|raw| raw.decoded_max = Bytes(2 << 30)), format!("write.decoded_max: 2GiB {within} 64KiB to 1GiB")),
            (
                told(&|raw| raw.in_flight_max = Bytes(95 << 20)),
                format!("write.in_flight_max: 95MiB {within} at least 96MiB, body_max and decoded_max together"),
            ),
            (
                told(&|raw| raw.dictionaries_max = Bytes(2 << 40)),
                format!("write.dictionaries_max: 2TiB {within} 0B to 1TiB"),
            ),
            (told(&|raw| raw.labels_max = 7), format!("write.labels_max: 7 {within} 8 to 1024")),
            (
                told(&|raw| raw.label_name_bytes_max = Bytes(0)),
                format!("write.label_name_bytes_max: 0B {within} 32B to 64KiB"),
            ),
            (
                told(&|raw| raw.label_value_bytes_max = Bytes(2 << 20)),
                format!("write.label_value_bytes_max: 2MiB {within} 64B to 1MiB"),
            ),
            (
                told(&|raw| raw.delta_series_max = 1 << 40),
                format!("write.delta_series_max: 1099511627776 {within} 0 (no deltas) to 100000000"),
            ),
            (
                told(&|raw| raw.delta_stale_after = Span(Duration::from_secs(1))),
                format!("write.delta_stale_after: 1s {within} 10s to 7d"),
            ),
            (told(&|raw| raw.body_timeout = Span(Duration::ZERO)), format!("write.body_timeout: 0s {within} 1s to 1h")),
        ] {
            assert_eq!(said, expected);
        }
    }
}
