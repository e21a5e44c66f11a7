//! The clock as a value. Only `run_loop`, `main` and the command line make one that reads the machine's time; request handlers
//! and background tasks are given one, so that a replay or a simulation can run the same code on a time of its own.

use std::sync::Arc;

use crate::series::Timestamp;

/// Tells the time in milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's wall clock.
pub fn wall() -> Clock {
    Arc::new(|| chrono::Utc::now().timestamp_millis())
}

/// A clock that stands still at `at`, for replays of one instant and for tests.
pub fn fixed(at: Timestamp) -> Clock {
    Arc::new(move || at)
}
