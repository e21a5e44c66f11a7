//! What an evaluation holds and how long it may go on. Shared by the threads that work on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::query::error::QueryError;
use crate::query::limits::Limits;
use crate::query::stats::Counter;

use super::grid::is_absent;

/// The limits of one evaluation and what it has used of them.
pub(crate) struct Meter<'a> {
    pub(crate) limits: &'a Limits,
    started: Instant,
    /// Samples held now.
    held: AtomicU64,
    /// Samples kept for later nodes, beside those held.
    kept: AtomicU64,
    /// Work since the last look at the clock.
    work: AtomicU64,
    pub(super) counter: Counter,
}

impl<'a> Meter<'a> {
    /// Counts the samples of so many steps.
    pub(super) fn new(limits: &'a Limits, counted_steps: usize) -> Meter<'a> {
        let [held, kept, work] = [const { AtomicU64::new(0) }; 3];
        Meter { limits, started: Instant::now(), held, kept, work, counter: Counter::new(counted_steps) }
    }

    /// Counts samples as held until the node that asks is done.
    pub(crate) fn hold(&self, samples: u64) -> Result<(), QueryError> {
        let held = self.held.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        let held = held.saturating_add(self.kept.load(Ordering::Relaxed));
        self.counter.held(held);
        if held > self.limits.samples_max {
            return Err(QueryError::TooManySamples { samples_max: self.limits.samples_max });
        }
        self.worked(samples)
    }

    /// Samples that may still be held.
    pub(crate) fn samples_left(&self) -> u64 {
        self.limits.samples_max.saturating_sub(self.held()).saturating_sub(self.kept.load(Ordering::Relaxed))
    }

    /// Samples that are held stay so after the node that asks.
    pub(super) fn keep(&self, samples: u64) {
        self.held.fetch_sub(samples, Ordering::Relaxed);
        self.kept.fetch_add(samples, Ordering::Relaxed);
    }

    /// Samples that were kept are held until the node that asks is done.
    pub(super) fn end_keeping(&self, samples: u64) {
        self.kept.fetch_sub(samples, Ordering::Relaxed);
        self.held.fetch_add(samples, Ordering::Relaxed);
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Back to what was held before a node; no other thread works between two nodes.
    pub(super) fn let_go(&self, before: u64) {
        self.held.store(before, Ordering::Relaxed);
    }

    /// Counts one sample for each value that is there.
    pub(super) fn count_present(&self, values: &[f64]) {
        if self.counter.is_on() {
            let present = values.iter().enumerate().filter(|(_, value)| !is_absent(**value));
            present.for_each(|(step, _)| self.counter.count(Some(step), 1));
        }
    }

    /// Counts work and looks now and then whether to go on.
    pub(crate) fn worked(&self, samples: u64) -> Result<(), QueryError> {
        // About a tenth of a millisecond of work lies between two looks.
        const BETWEEN_LOOKS: u64 = 1 << 16;
        if self.work.fetch_add(samples, Ordering::Relaxed).saturating_add(samples) < BETWEEN_LOOKS {
            return Ok(());
        }
        self.check_stop()
    }

    /// Fails once the asker is gone or the time is over.
    pub(super) fn check_stop(&self) -> Result<(), QueryError> {
        self.work.store(0, Ordering::Relaxed);
        if self.limits.cancel.is_cancelled() {
            return Err(QueryError::Cancelled);
        }
        if self.started.elapsed() > self.limits.timeout {
            return Err(QueryError::TimedOut { timeout: self.limits.timeout });
        }
        Ok(())
    }
}
