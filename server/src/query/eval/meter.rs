//! What an evaluation holds and how long it may go on. Shared by the threads that work on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::query::error::QueryError;
use crate::query::limits::Limits;

/// The limits of one evaluation and what it has used of them.
pub(crate) struct Meter<'a> {
    pub(crate) limits: &'a Limits,
    started: Instant,
    /// Samples held now.
    held: AtomicU64,
    /// Work since the last look at the clock.
    work: AtomicU64,
}

impl<'a> Meter<'a> {
    pub(super) fn new(limits: &'a Limits) -> Meter<'a> {
        Meter { limits, started: Instant::now(), held: AtomicU64::new(0), work: AtomicU64::new(0) }
    }

    /// Counts samples as held until the node that asks is done.
    pub(crate) fn hold(&self, samples: u64) -> Result<(), QueryError> {
        let held = self.held.fetch_add(samples, Ordering::Relaxed).saturating_add(samples);
        if held > self.limits.samples_max {
            return Err(QueryError::TooManySamples { samples_max: self.limits.samples_max });
        }
        self.worked(samples)
    }

    /// Samples that may still be held.
    pub(crate) fn samples_left(&self) -> u64 {
        self.limits.samples_max.saturating_sub(self.held())
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Back to what was held before a node; no other thread works between two nodes.
    pub(super) fn let_go(&self, before: u64) {
        self.held.store(before, Ordering::Relaxed);
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
