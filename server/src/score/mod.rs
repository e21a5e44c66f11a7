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
use crate::store::control::{Control, ControlError};
use crate::store::{Batch, Row, SeriesId};
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
    series: Detectors,
    /// What an earlier process learned of series that were not seen since: they have no number yet.
    unseen: HashMap<Labels, Tracked>,
    pending: Vec<(Labels, Vec<Sample>)>,
    memory: memory::Memory,
    outcomes: Outcomes,
}

/// Detectors in the order in which their series came, so that a host's, which come together, lie together.
#[derive(Default)]
struct Detectors {
    all: Vec<Scored>,
    /// Where each series is in `all`.
    places: HashMap<SeriesId, u32, foldhash::fast::RandomState>,
    /// The place after the one last asked for: most likely the next one.
    next: usize,
}

/// A series and its detector.
struct Scored {
    id: SeriesId,
    labels: Labels,
    tracked: Tracked,
}

/// What became of samples since it was last told to telemetry.
#[derive(Debug, Default)]
struct Outcomes {
    scored: u64,
    warmup: u64,
    late: u64,
    unusable: u64,
    series_limit: u64,
    dropped_scores: u64,
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
        let (memory, unseen) = memory::Memory::open(control, config.series_max)?;
        let (series, pending, outcomes) = (Detectors::default(), Vec::new(), Outcomes::default());
        Ok(Scorer { config, series, unseen, pending, memory, outcomes })
    }

    /// Judges accepted samples. Samples older than their series' last one are late and not scored; samples older than `fresh` are
    /// learned from, but what they say is no longer told.
    pub fn observe(&mut self, rows: &[Row], now: Timestamp) {
        for Row { series, sample } in rows {
            if let Some(told) = self.judge(series.id, &series.labels, sample, now) {
                if self.pending.len() >= PENDING_MAX {
                    self.outcomes.dropped_scores += 1;
                } else {
                    self.pending.push((score_labels(&series.labels), vec![told]));
                }
            }
        }
        self.outcomes.tell();
    }

    fn judge(&mut self, id: SeriesId, labels: &Labels, sample: &Sample, now: Timestamp) -> Option<Sample> {
        if let Some(tracked) = self.series.get(id) {
            return tracked.judge(sample, now, &self.config, &mut self.outcomes);
        }
        let kind = kind_of(labels.name())?;
        let restored = self.unseen.remove(labels);
        if restored.is_none() && self.series_len() >= self.config.series_max {
            self.outcomes.series_limit += 1;
            return None;
        }
        let tracked = restored.unwrap_or_else(|| Tracked::starting(kind));
        let tracked = self.series.add(Scored { id, labels: labels.clone(), tracked });
        tracked.judge(sample, now, &self.config, &mut self.outcomes)
    }

    /// Every quarter of a minute: the scores since the last tick and each host's rate, to be stored. Also forgets series that
    /// ended long ago and saves a part of what was learned; all of it is saved once per `save_interval`.
    pub fn tick(&mut self, now: Timestamp) -> Batch {
        // A detector of a clock that was ahead would take everything for late until that time comes: it learns anew.
        let is_kept = |t: Timestamp| t >= now - self.config.forget_after_ms && t - now <= AHEAD_MS_MAX;
        let is_current = |tracked: &Tracked| tracked.detector.last_t().is_none_or(is_kept);
        self.series.retain(is_current);
        self.unseen.retain(|_, tracked| is_current(tracked));
        telemetry::SCORE_SERIES.set(self.series_len() as i64);
        let mut series = std::mem::take(&mut self.pending);
        series.extend(hosts::rates(self.detectors(), now, self.config.host_window_ms));
        let parts = self.config.save_interval_ms / self.config.tick_ms.max(1);
        let shards = self.memory.next_shards(parts);
        self.memory.save_some(self.detectors(), shards, now);
        Batch { series, ..Batch::default() }
    }

    /// Saves everything; call it before the control database closes.
    ///
    /// # Errors
    /// The control database cannot be written.
    pub fn save(&mut self, now: Timestamp) -> Result<(), ControlError> {
        self.memory.save_all(self.detectors(), now)
    }

    /// Number of series that have a detector.
    pub fn series_len(&self) -> usize {
        self.series.all.len() + self.unseen.len()
    }

    fn detectors(&self) -> impl Iterator<Item = (&Labels, &Tracked)> {
        self.series.all.iter().map(|scored| (&scored.labels, &scored.tracked)).chain(&self.unseen)
    }

    /// Time between two ticks.
    pub fn tick_ms(&self) -> i64 {
        self.config.tick_ms
    }
}

impl Detectors {
    fn get(&mut self, id: SeriesId) -> Option<&mut Tracked> {
        let place = match self.all.get(self.next) {
            Some(next) if next.id == id => self.next,
            _ => *self.places.get(&id)? as usize,
        };
        self.next = place + 1;
        Some(&mut self.all[place].tracked)
    }

    fn add(&mut self, scored: Scored) -> &mut Tracked {
        let place = self.all.len();
        self.places.insert(scored.id, place as u32);
        self.next = place + 1;
        self.all.push(scored);
        &mut self.all[place].tracked
    }

    fn retain(&mut self, is_kept: impl Fn(&Tracked) -> bool) {
        let before = self.all.len();
        self.all.retain(|scored| is_kept(&scored.tracked));
        if self.all.len() < before {
            self.places = self.all.iter().enumerate().map(|(place, scored)| (scored.id, place as u32)).collect();
        }
    }
}

impl Tracked {
    fn starting(kind: Kind) -> Tracked {
        Tracked { detector: Detector::new(kind), interval_ms: 0, warm: false, strange_at: Timestamp::MIN, told: false }
    }

    /// The sample to store for this one: its score where small, the marker that ends the last score, or nothing.
    fn judge(
        &mut self,
        sample: &Sample,
        now: Timestamp,
        config: &ScoreConfig,
        outcomes: &mut Outcomes,
    ) -> Option<Sample> {
        let last_t = self.detector.last_t();
        if last_t.is_some_and(|last| sample.t <= last) {
            outcomes.late += 1;
            return None;
        }
        if sample.is_stale() {
            return std::mem::take(&mut self.told).then(|| Sample::stale(sample.t));
        }
        let Some(score) = self.detector.observe(sample.t, sample.v) else {
            outcomes.unusable += 1;
            return None;
        };
        if let Some(last) = last_t {
            self.interval_ms = sample.t - last;
        }
        self.warm = !score.warmup;
        *(if score.warmup { &mut outcomes.warmup } else { &mut outcomes.scored }) += 1;
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

impl Outcomes {
    fn tell(&mut self) {
        let Outcomes { scored, warmup, late, unusable, series_limit, dropped_scores } = std::mem::take(self);
        for (outcome, samples) in [
            ("scored", scored),
            ("warmup", warmup),
            ("late", late),
            ("unusable", unusable),
            ("series_limit", series_limit),
            ("dropped_scores", dropped_scores),
        ] {
            if samples > 0 {
                telemetry::SCORE_SAMPLES.with_label_values(&[outcome]).inc_by(samples);
            }
        }
    }
}

#[cfg(test)]
mod tests;
