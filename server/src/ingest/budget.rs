//! How much the bodies of requests may hold in memory together, as they came and decompressed: a number that all of them share.
//! Nobody waits for room here: who finds none is refused, keeps what it has and comes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::telemetry;

/// The bytes that all bodies share.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    held: AtomicUsize,
}

/// There is no room for one more body, or for more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write.in_flight_max: bodies of other requests take {held} of {bytes_max} bytes; send again later")]
pub struct ExhaustedError {
    /// Bytes held when room was asked for.
    held: usize,
    /// The limit.
    bytes_max: usize,
}

/// What one request holds; given back when this goes.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    /// So many bytes for all.
    pub fn new(bytes_max: usize) -> Arc<Budget> {
        Arc::new(Budget { bytes_max, held: AtomicUsize::new(0) })
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// How much of it is held, 0 to 1.
    pub fn share(&self) -> f64 {
        self.held() as f64 / self.bytes_max.max(1) as f64
    }

    /// A request that holds nothing yet.
    pub fn enter(self: &Arc<Budget>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Held {
    /// Takes more bytes.
    ///
    /// # Errors
    /// Others have taken them; then nothing more is taken.
    pub fn take(&mut self, bytes: usize) -> Result<(), ExhaustedError> {
        let bytes_max = self.budget.bytes_max;
        let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= bytes_max);
        let taken = self.budget.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map_err(|held| ExhaustedError { held, bytes_max })?;
        self.bytes += bytes;
        telemetry::INGEST_IN_FLIGHT_BYTES.add(bytes as i64);
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
        telemetry::INGEST_IN_FLIGHT_BYTES.sub(self.bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back_and_no_more_than_the_limit_is() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.enter(), budget.enter());
        assert_eq!((one.take(60), two.take(40)), (Ok(()), Ok(())));
        let refused = two.take(1).unwrap_err();
        assert!(refused.to_string().starts_with("write.in_flight_max: bodies of other requests take 100 of 100 bytes"));
        assert!(one.take(usize::MAX).is_err(), "the sum must not wrap");
        drop(one);
        assert_eq!((budget.held(), two.take(60), budget.held()), (40, Ok(()), 100));
        drop(two);
        assert_eq!(budget.held(), 0);
    }
}
