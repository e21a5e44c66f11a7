//! The clock as a value: `run_loop` makes the one that reads the machine's time and hands it down, so that tests and
//! simulations can run the same code on a time of their own.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use petrel_models::Timestamp;

/// Tells the time in milliseconds since the Unix epoch.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's wall clock; 0 where it stands before 1970.
pub fn wall() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::try_from(since.as_millis()).unwrap_or(Timestamp::MAX)
    })
}
