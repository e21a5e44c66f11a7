//! What a query cost: samples it looked at, at each step, the most it held at a time, and how long its parts took. Counting
//! changes no answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::series::Timestamp;

/// The cost of one query.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Samples looked at, at each step: one for each series of an instant selector, all in the window of a range.
    pub per_step: Vec<(Timestamp, u64)>,
    /// The most samples held at a time.
    pub peak: u64,
    /// Time to prepare: computing durations, planning.
    pub preparation: Duration,
    /// Time to evaluate.
    pub evaluation: Duration,
    /// Time to put the answer in order.
    pub sorting: Duration,
}

impl Stats {
    /// Samples looked at over all steps.
    pub fn total(&self) -> u64 {
        self.per_step.iter().map(|(_, samples)| samples).sum()
    }
}

/// Takes the times of a query's parts.
pub(super) struct Clock {
    started: Instant,
    prepared: Duration,
    evaluated: Duration,
}

impl Clock {
    pub(super) fn start() -> Clock {
        Clock { started: Instant::now(), prepared: Duration::ZERO, evaluated: Duration::ZERO }
    }

    pub(super) fn prepared(&mut self) {
        self.prepared = self.started.elapsed();
    }

    pub(super) fn evaluated(&mut self) {
        self.evaluated = self.started.elapsed();
    }

    /// The cost of a query that ends now.
    pub(super) fn stats(self, per_step: Vec<(Timestamp, u64)>, peak: u64) -> Stats {
        let total = self.started.elapsed();
        // A range vector at one time is put in order while it is read.
        let evaluated = if self.evaluated.is_zero() { total } else { self.evaluated };
        Stats {
            per_step,
            peak,
            preparation: self.prepared,
            evaluation: evaluated.saturating_sub(self.prepared),
            sorting: total.saturating_sub(evaluated),
        }
    }
}

/// Counts while a query runs, on all threads that work on it.
#[derive(Default)]
pub(super) struct Counter {
    /// Samples at each step of the query; empty where nobody asks.
    per_step: Vec<AtomicU64>,
    /// Subqueries that are being evaluated: their samples are counted where their windows are used.
    muted: AtomicU64,
    peak: AtomicU64,
}

impl Counter {
    /// Counts samples of each of `steps` steps; of none if nobody asks.
    pub(super) fn new(steps: usize) -> Counter {
        let per_step = std::iter::repeat_with(AtomicU64::default).take(steps).collect();
        Counter { per_step, ..Counter::default() }
    }

    /// Whether samples are to be counted now.
    pub(super) fn is_on(&self) -> bool {
        !self.per_step.is_empty() && self.muted.load(Ordering::Relaxed) == 0
    }

    /// Counts samples at one step, or at all where one window stands for all.
    pub(super) fn count(&self, step: Option<usize>, samples: u64) {
        let steps = match step {
            Some(step) => self.per_step.get(step..=step).unwrap_or_default(),
            None => &self.per_step,
        };
        for count in steps {
            count.fetch_add(samples, Ordering::Relaxed);
        }
    }

    /// Notes how much is held.
    pub(super) fn held(&self, samples: u64) {
        if !self.per_step.is_empty() {
            self.peak.fetch_max(samples, Ordering::Relaxed);
        }
    }

    /// Runs `inner` without counting its samples.
    pub(super) fn muted<T>(&self, inner: impl FnOnce() -> T) -> T {
        self.muted.fetch_add(1, Ordering::Relaxed);
        let result = inner();
        self.muted.fetch_sub(1, Ordering::Relaxed);
        result
    }

    /// The samples of each step and the most held.
    pub(super) fn result(&self) -> (Vec<u64>, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (self.per_step.iter().map(load).collect(), load(&self.peak))
    }
}
