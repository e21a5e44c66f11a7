//! Predict: what runs out when, for every file system, memory and processor of the fleet, with a ledger of all that was said.
//!
//! [`Predictor::tick`] reads the last minutes through a [`Source`] (`feed`), keeps each subject's past (`history`, `track`),
//! forecasts the horizons whose time has come, yields series and rows (`emit`) and keeps the ledger (`ledger`, `entry`). It alerts
//! nobody: rules over `petrel_limit_probability` and `petrel_time_to_limit_seconds` do. `runner` is the thread around it.

mod config;
mod emit;
mod entry;
mod feed;
mod history;
mod ledger;
mod resource;
mod runner;
mod track;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::query::source::{SelectError, Source, TimeRange};
use crate::series::{Sample, Timestamp};
use crate::store::Batch;
use crate::store::control::{Control, ControlError};
use crate::telemetry;

pub use config::{CheckPredictConfigError, PredictConfig, RawLimits, RawPredictConfig};
pub use emit::OutlookRow;
pub use entry::{CalibrationBucket, Due, Entry, EntryFilter, Outcome, Settlement, Statement};
pub use ledger::{Ledger, MIGRATIONS};
pub use resource::{Resource, Subject};
pub use runner::{RunPredictorError, run};

use feed::{Part, Reading};
use track::{Summary, Track};

/// Each tick reads at least this much of the past: processor time needs a minute, and samples may come a minute late.
const RECENT_MS_MIN: i64 = 150_000;
/// A subject without samples for this long is forgotten; its open predictions are then censored.
const FORGET_MS: i64 = 86_400_000;
/// Samples may be this far ahead of our clock, as at the store's door.
const AHEAD_MS_MAX: i64 = 600_000;
/// Samples per select of a tick at most: a thousand hosts of 64 processors stay below.
const RECENT_SAMPLES_MAX: u64 = 20_000_000;
/// Samples per select of one subject's past at most; where it holds more, a shorter past is read.
const PAST_SAMPLES_MAX: u64 = 2_000_000;
/// The longest past that is ever read: raw samples are kept for fifteen days.
const PAST_MS: i64 = 14 * 86_400_000;
/// Samples of the past that are read of each resource in one tick, so that a start does not hold the store up: two weeks of
/// 200 file systems, or a few minutes of thousands.
const PAST_SAMPLES_PER_TICK: usize = 25_000_000;
/// Reading one subject's past costs at least as much as this many samples.
const PAST_COST_MIN: usize = 1_000;
/// Samples behind one point of processor time: a minute of some ten processors. Elsewhere a point is a sample.
const SAMPLES_PER_CPU_POINT: usize = 64;
/// Entries settled per tick at most.
const DUE_MAX: usize = 20_000;
/// Share of the truth that may be missing.
const MISSING_MAX: f64 = 0.1;

/// Watches subjects and predicts. One per server; blocks on the source and the ledger.
pub struct Predictor {
    config: PredictConfig,
    ledger: Arc<Ledger>,
    tracks: BTreeMap<Subject, Track>,
    seed: u64,
}

/// What a tick yields.
#[derive(Debug, Default)]
pub struct Tick {
    /// Series to store.
    pub batch: Batch,
    /// What runs out when: all subjects, soonest first.
    pub outlooks: Arc<Vec<OutlookRow>>,
    /// What could not be read or written; the rest of the tick stands.
    pub problems: Vec<TickError>,
}

/// What went wrong in a tick. All of it is tried again at the next.
#[derive(Debug, thiserror::Error)]
pub enum TickError {
    /// A resource could not be read; its subjects keep their last outlooks.
    #[error("series of {} cannot be read; its outlooks grow old", resource.as_str())]
    Read {
        /// Which.
        resource: Resource,
        /// The source's word.
        #[source]
        source: SelectError,
    },
    /// The ledger could not be read or written.
    #[error("ledger of predictions cannot be kept")]
    Ledger(#[source] ControlError),
}

impl Predictor {
    /// A predictor that has seen nothing; the ledger goes on where it was. `seed` is of the sample paths.
    pub fn open(control: Arc<Control>, config: PredictConfig, seed: u64) -> Predictor {
        let ledger = Arc::new(Ledger::over(control, config.ledger_keep_ms, config.ledger_entries_max));
        Predictor { config, ledger, tracks: BTreeMap::new(), seed }
    }

    /// The ledger, for the API, the console and remedy.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// Settings in force.
    pub fn config(&self) -> &PredictConfig {
        &self.config
    }

    /// Reads, forecasts, settles, records. Blocks; about a millisecond per forecast.
    pub fn tick(&mut self, source: &dyn Source, now: Timestamp) -> Tick {
        let mut tick = Tick::default();
        for resource in Resource::ALL {
            if let Err(problem) = self.take_recent(source, resource, now, &mut tick.problems) {
                tick.problems.push(problem);
            }
        }
        // A track of a clock that was ahead would take nothing until that time comes: it begins anew.
        let is_kept = |t: Timestamp| now - t < FORGET_MS && t - now <= AHEAD_MS_MAX;
        self.tracks.retain(|_, track| track.last.is_some_and(|last| is_kept(last.t)));
        self.look_ahead(&mut tick, now);
        if let Err(error) = self.keep_ledger(now) {
            tick.problems.push(TickError::Ledger(error));
        }
        telemetry::PREDICT_SUBJECTS.set(self.tracks.len() as i64);
        tick
    }

    /// Brings the tracks of one resource up to `now`; limits newly met go to the ledger.
    fn take_recent(
        &mut self,
        source: &dyn Source,
        resource: Resource,
        now: Timestamp,
        problems: &mut Vec<TickError>,
    ) -> Result<(), TickError> {
        let recent_ms = RECENT_MS_MIN.max(2 * self.config.interval_ms());
        let range = TimeRange { from: now - recent_ms, to: now };
        let part = Part { range, only: None, samples_max: RECENT_SAMPLES_MAX };
        let readings = feed::read(source, resource, part, &self.config.limits)
            .map_err(|source| TickError::Read { resource, source })?;
        let mut pasts = PAST_SAMPLES_PER_TICK;
        for reading in readings.into_iter().filter(|reading| !reading.points.is_empty()) {
            let known = self.tracks.get(&reading.subject).and_then(|track| track.last);
            let joins = known.is_some_and(|last| reading.points[0].t - last.t <= recent_ms);
            if !joins {
                if pasts == 0 || (known.is_none() && !self.has_room()) {
                    continue;
                }
                pasts = pasts.saturating_sub(self.start(source, &reading, now)?);
            }
            let Some(track) = self.tracks.get_mut(&reading.subject) else { continue };
            if let Some(at) = track.take(&reading) {
                let told = self.ledger.happened(&track.subject, track.limit, at, now);
                problems.extend(told.err().map(TickError::Ledger));
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let room = self.tracks.len() < self.config.subjects_max;
        if !room {
            telemetry::PREDICT_LEFT_OUT.inc();
        }
        room
    }

    /// Begins a track with the past that is stored. Where that is too large a shorter part of it must do. Returns about
    /// how many samples were read.
    fn start(&mut self, source: &dyn Source, reading: &Reading, now: Timestamp) -> Result<usize, TickError> {
        let resource = reading.subject.resource;
        let mut track = Track::starting(reading, &self.config.horizons);
        let mut past_ms = PAST_MS;
        let per_point = if resource == Resource::Cpu { SAMPLES_PER_CPU_POINT } else { 1 };
        let mut cost = PAST_COST_MIN;
        loop {
            let range = TimeRange { from: now - past_ms, to: now };
            let part = Part { range, only: Some(&reading.subject), samples_max: PAST_SAMPLES_MAX };
            match feed::read(source, resource, part, &self.config.limits) {
                Ok(past) => {
                    // What was met in the past is settled by the ledger when its entries are due.
                    for past in past.iter().filter(|past| past.subject == reading.subject) {
                        cost += past.points.len() * per_point;
                        track.take(past);
                    }
                    break;
                }
                Err(SelectError::TooManySamples { .. }) if past_ms > RECENT_MS_MIN => past_ms /= 2,
                Err(source) => return Err(TickError::Read { resource, source }),
            }
        }
        // After a restart the ledger goes on in its rhythm.
        for (horizon_ms, issued) in self.ledger.last_said(&reading.subject).map_err(TickError::Ledger)? {
            let said = track.views.iter_mut().filter(|view| view.horizon.as_ms() == horizon_ms);
            said.for_each(|view| view.recorded_at = Some(issued));
        }
        self.tracks.insert(reading.subject.clone(), track);
        Ok(cost)
    }

    /// Forecasts what is due and collects what all subjects have to say.
    fn look_ahead(&mut self, tick: &mut Tick, now: Timestamp) {
        let mut rows: Vec<OutlookRow> = Vec::with_capacity(self.tracks.len());
        for track in self.tracks.values_mut() {
            let fresh = track.is_fresh(now);
            if fresh {
                telemetry::PREDICT_FORECASTS.inc_by(track.forecast(now, self.seed));
            } else if !track.told {
                continue;
            }
            let summary = track.summary(now);
            let series = summary.as_ref().map_or_else(Vec::new, |summary| emit::series(track, summary, now));
            track.told = fresh && !series.is_empty();
            if fresh {
                rows.push(emit::row(track, summary.as_ref()));
                tick.batch.series.extend(series);
            } else {
                let ended = series.into_iter().map(|(labels, _)| (labels, vec![Sample::stale(now)]));
                tick.batch.series.extend(ended);
            }
        }
        rows.sort_by(|a, b| urgency(a).total_cmp(&urgency(b)));
        tick.outlooks = Arc::new(rows);
    }

    fn keep_ledger(&mut self, now: Timestamp) -> Result<(), ControlError> {
        self.settle(now)?;
        let statements = self.statements(now);
        self.ledger.record(&statements, now)?;
        // Only what is written counts as said.
        for statement in &statements {
            let views = self.tracks.get_mut(&statement.subject).into_iter().flat_map(|track| &mut track.views);
            views
                .filter(|view| view.horizon.as_ms() == statement.horizon_ms)
                .for_each(|view| view.recorded_at = Some(now));
        }
        self.ledger.prune(now)?;
        Ok(())
    }

    /// What is to be written down now: per subject and horizon every tenth of the horizon. Where the limit is met already
    /// there is nothing to predict.
    fn statements(&self, now: Timestamp) -> Vec<Statement> {
        let mut statements = Vec::new();
        for track in self.tracks.values().filter(|track| !track.is_met() && track.is_fresh(now)) {
            let Some(summary) = track.summary(now) else { continue };
            for (horizon, probability) in &summary.probabilities {
                let every_ms = (horizon.as_ms() / 10).max(self.config.ledger_interval_min_ms);
                let recorded =
                    track.views.iter().find(|view| view.horizon == *horizon).and_then(|view| view.recorded_at);
                if recorded.is_some_and(|at| (0..every_ms).contains(&(now - at))) {
                    continue;
                }
                statements.push(Statement {
                    subject: track.subject.clone(),
                    horizon_ms: horizon.as_ms(),
                    probability: *probability,
                    lead_seconds: lead(&summary, horizon.as_ms()),
                    limit: track.limit,
                });
            }
        }
        statements
    }

    /// Settles entries whose deadline has passed, by the histories. A while is waited for late samples, longer for a
    /// subject that is not seen at all: its past may not have been read yet.
    fn settle(&self, now: Timestamp) -> Result<(), ControlError> {
        let grace_ms = (2 * self.config.interval_ms()).max(30_000);
        let due = self.ledger.due(now - grace_ms, DUE_MAX)?;
        let settlements: Vec<Settlement> = due.iter().filter_map(|due| self.settlement(due, now)).collect();
        self.ledger.settle(&settlements, now)
    }

    fn settlement(&self, due: &Due, now: Timestamp) -> Option<Settlement> {
        const UNSEEN_MS: i64 = 3_600_000;
        let settled =
            |outcome, happened_at, reason: String| Some(Settlement { id: due.id, outcome, happened_at, reason });
        let view = self.tracks.get(&due.subject).and_then(|track| {
            // The horizon may be gone from the config: any history that is long enough tells the truth as well.
            track.views.iter().find(|view| view.horizon.as_ms() >= due.horizon_ms)
        });
        let Some(view) = view else {
            let waited = now - due.deadline > UNSEEN_MS;
            return if waited { settled(Outcome::Censored, None, "no samples came".to_owned()) } else { None };
        };
        let range = (due.issued, due.deadline);
        if let Some(at) = view.history.first_crossing(range, due.limit) {
            return settled(Outcome::Happened, Some(at), String::new());
        }
        let missing = view.history.missing_share(range);
        if missing > MISSING_MAX {
            return settled(Outcome::Censored, None, format!("{:.0} % of the truth is missing", missing * 100.0));
        }
        settled(Outcome::DidNot, None, String::new())
    }
}

/// The median time left, where it lies within the horizon.
fn lead(summary: &Summary, horizon_ms: i64) -> Option<f64> {
    summary.seconds[1].filter(|seconds| *seconds * 1000.0 <= horizon_ms as f64)
}

/// Soonest first; among those that do not run out, the likelier first.
fn urgency(row: &OutlookRow) -> f64 {
    let likeliest = row.probabilities.last().map_or(0.0, |(_, probability)| *probability);
    row.seconds_to_limit[1].unwrap_or(1e12 * (2.0 - likeliest))
}

#[cfg(test)]
mod tests;
