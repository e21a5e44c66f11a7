//! What one query may cost, and the handle that ends it early.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Bounds of one evaluation.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Samples held at one time: loaded ones and those of results in between.
    pub samples_max: u64,
    /// Time an evaluation may take.
    pub timeout: Duration,
    /// How far an instant selector looks back for the last sample.
    pub lookback_ms: i64,
    /// Steps of a range query.
    pub steps_max: usize,
    /// Ends the evaluation when the asker is gone.
    pub cancel: Cancel,
}

/// The limits of Prometheus: 50 million samples, two minutes, a lookback of five minutes, 11,000 steps.
impl Default for Limits {
    fn default() -> Limits {
        Limits {
            samples_max: 50_000_000,
            timeout: Duration::from_secs(120),
            lookback_ms: 300_000,
            steps_max: 11_000,
            cancel: Cancel::default(),
        }
    }
}

/// A flag shared between the one who asks and the evaluation. Clones are the same flag.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends the evaluations that were given this flag, at their next look.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody called [`Cancel::cancel`].
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
