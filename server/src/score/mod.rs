//! Score: every series is judged as its samples arrive, and each host by how many of its series are strange at once.
//!
//! [`Scorer`] is fed what the store accepted and yields series to store: `petrel_anomaly_score` where small, and
//! `petrel_host_anomaly_rate`. It judges no limit and alerts nobody. The models are in `petrel_models::detect`; `memory`
//! keeps what they learned in control.db, `hosts` counts per host, `runner` is the thread around it all.

mod config;
mod hosts;
mod memory;
mod runner;

use std::collections::HashMap;
use std::sync::Arc;

use petrel_models::detect::{Detector, Kind};
use serde::{Deserialize, Serialize};

use crate::series::{Labels, NAME, Sample, Timestamp};
use crate::store::Batch;
use crate::store::control::{Control, ControlError};
use crate::telemetry;

pub use config::{CheckScoreConfigError, RawScoreConfig, ScoreConfig};
pub use memory::MIGRATIONS;
pub use runner::{RunScorerError, run};

/// Scores at or below this are stored; all others would double the store for nothing.
const STORED_MAX: f64 = 0.01;
/// A series is strange for its host when a score comes that a normal series shows once in a hundred windows.
const STRANGE_PER_WINDOW: f64 = 0.01;
/// Scores between two ticks beyond this are dropped and counted; the host's rate still tells.
const PENDING_MAX: usize = 50_000;
/// Samples may be this far ahead of our clock, as at the store's door.
const AHEAD_MS_MAX: i64 = 600_000;

/// The detectors of all series.
pub struct Scorer {
    config: ScoreConfig,
    series: HashMap<Labels, Tracked>,
    pending: Vec<(Labels, Vec<Sample>)>,
    memory: memory::Memory,
}

/// One series and what was last said of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Tracked {
    detector: Detector,
    /// Time between its last two samples, milliseconds.
    interval_ms: i64,
    /// Whether scores are told yet.
    warm: bool,
    /// The last time it was strange for its host.
    strange_at: Timestamp,
    /// A stored score stands that the next normal sample must end.
    told: bool,
}

impl Scorer {
    /// Opens with what was learned before, as far as it can be read.
    ///
    /// # Errors
    /// The control database cannot be read.
    pub fn open(control: Arc<Control>, config: ScoreConfig) -> Result<Scorer, ControlError> {
        let (memory, series) = memory::Memory::open(control, config.series_max)?;
        Ok(Scorer { config, series, pending: Vec::new(), memory })
    }

    /// Judges accepted samples of one series. Samples older than the series' last one are late and not scored; samples
    /// older than `fresh` are learned from, but what they say is no longer told.
    pub fn observe(&mut self, labels: &Labels, samples: &[Sample], now: Timestamp) {
        let Some(kind) = kind_of(labels.name()) else { return };
        if !self.series.contains_key(labels) {
            if self.series.len() >= self.config.series_max {
                count("series_limit", samples.len());
                return;
            }
            self.series.insert(labels.clone(), Tracked::starting(kind));
        }
        let Some(tracked) = self.series.get_mut(labels) else { return };
        let mut told = Vec::new();
        for sample in samples {
            told.extend(tracked.judge(sample, now, &self.config));
        }
        if told.is_empty() {
            return;
        }
        if self.pending.len() >= PENDING_MAX {
            count("dropped_scores", told.len());
            return;
        }
        self.pending.push((score_labels(labels), told));
    }

    /// Every quarter of a minute: the scores since the last tick and each host's rate, to be stored. Also forgets series that
    /// ended long ago and saves a part of what was learned; all of it is saved once per `save_interval`.
    pub fn tick(&mut self, now: Timestamp) -> Batch {
        // A detector of a clock that was ahead would take everything for late until that time comes: it learns anew.
        let is_kept = |t: Timestamp| t >= now - self.config.forget_after_ms && t - now <= AHEAD_MS_MAX;
        self.series.retain(|_, tracked| tracked.detector.last_t().is_none_or(is_kept));
        telemetry::SCORE_SERIES.set(self.series.len() as i64);
        let mut series = std::mem::take(&mut self.pending);
        series.extend(hosts::rates(&self.series, now, self.config.host_window_ms));
        let parts = self.config.save_interval_ms / self.config.tick_ms.max(1);
        self.memory.save_some(&self.series, parts, now);
        Batch { series, ..Batch::default() }
    }

    /// Saves everything; call it before the control database closes.
    ///
    /// # Errors
    /// The control database cannot be written.
    pub fn save(&mut self, now: Timestamp) -> Result<(), ControlError> {
        self.memory.save_all(&self.series, now)
    }

    /// Number of series that have a detector.
    pub fn series_len(&self) -> usize {
        self.series.len()
    }

    /// Time between two ticks.
    pub fn tick_ms(&self) -> i64 {
        self.config.tick_ms
    }
}

impl Tracked {
    fn starting(kind: Kind) -> Tracked {
        Tracked { detector: Detector::new(kind), interval_ms: 0, warm: false, strange_at: Timestamp::MIN, told: false }
    }

    /// The sample to store for this one: its score where small, the marker that ends the last score, or nothing.
    fn judge(&mut self, sample: &Sample, now: Timestamp, config: &ScoreConfig) -> Option<Sample> {
        let last_t = self.detector.last_t();
        if last_t.is_some_and(|last| sample.t <= last) {
            count("late", 1);
            return None;
        }
        if sample.is_stale() {
            return std::mem::take(&mut self.told).then(|| Sample::stale(sample.t));
        }
        let Some(score) = self.detector.observe(sample.t, sample.v) else {
            count("unusable", 1);
            return None;
        };
        if let Some(last) = last_t {
            self.interval_ms = sample.t - last;
        }
        self.warm = !score.warmup;
        count(if score.warmup { "warmup" } else { "scored" }, 1);
        if now - sample.t > config.fresh_ms {
            return None;
        }
        let share_of_window = (self.interval_ms as f64 / config.host_window_ms as f64).min(1.0);
        if score.tail_probability <= STRANGE_PER_WINDOW * share_of_window {
            self.strange_at = sample.t;
        }
        let small = score.tail_probability <= STORED_MAX;
        let ended = std::mem::replace(&mut self.told, small) && !small;
        if small {
            Some(Sample { t: sample.t, v: score.tail_probability })
        } else {
            ended.then(|| Sample::stale(sample.t))
        }
    }
}

/// What the name says of the values by convention; `None` for series that are not scored: our own, what rules made of
/// others, buckets (their sums and counts are scored), and facts.
fn kind_of(name: &str) -> Option<Kind> {
    if name.starts_with("petrel_") || name.starts_with("ALERTS") || name.contains(':') {
        return None;
    }
    if name.ends_with("_bucket") || name.ends_with("_info") {
        return None;
    }
    let counts = name.ends_with("_total") || name.ends_with("_count") || name.ends_with("_sum");
    Some(if counts { Kind::Counter } else { Kind::Gauge })
}

fn score_labels(source: &Labels) -> Labels {
    source.with("of", source.name()).with(NAME, "petrel_anomaly_score")
}

fn count(outcome: &str, samples: usize) {
    telemetry::SCORE_SAMPLES.with_label_values(&[outcome]).inc_by(samples as u64);
}

#[cfg(test)]
mod tests;
