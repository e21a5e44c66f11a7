//! The way to the blocking threads: so many evaluations at one time, some more that wait, the rest is turned away. When
//! the client leaves, its evaluation is told to stop.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::query::{Cancel, DoorLimits, Limits};
use crate::telemetry::{QUERIES, QUERIES_ACTIVE};

use super::json::Failure;

/// Requests that may wait for each that runs: a dashboard of many panels comes all at once.
const WAITING_PER_RUNNING: usize = 10;

/// Lets requests through.
pub(super) struct Gate {
    running: Arc<Semaphore>,
    /// Running and waiting.
    admitted: Arc<Semaphore>,
    /// The other limits at the door.
    pub(super) door: DoorLimits,
}

/// Cancels when the handler's future goes, which is what happens when the client leaves.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Counts a client that leaves before its turn.
struct Waiting {
    counts: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.counts {
            QUERIES.with_label_values(&["canceled"]).inc();
        }
    }
}

/// An evaluation that is shown as active.
struct Active;

impl Active {
    fn begin() -> Active {
        QUERIES_ACTIVE.inc();
        Active
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        QUERIES_ACTIVE.dec();
    }
}

impl Gate {
    pub(super) fn new(door: DoorLimits) -> Gate {
        // More than this many permits no semaphore gives out.
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        let admitted_max = door.concurrent_max.saturating_mul(1 + WAITING_PER_RUNNING);
        Gate { running: places(door.concurrent_max), admitted: places(admitted_max), door }
    }

    /// Runs `work` on a blocking thread as soon as there is room, within the time of `limits`.
    pub(super) async fn run<T, E>(
        &self,
        limits: Limits,
        work: impl FnOnce(&Limits) -> Result<T, E> + Send + 'static,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        E: Into<Failure> + Send + 'static,
    {
        let Ok(admitted) = Arc::clone(&self.admitted).try_acquire_owned() else {
            return Err(self.refused("concurrent_max", "too many queries wait; try again later"));
        };
        let mut waiting = Waiting { counts: true };
        let patience = self.door.queue_timeout.min(limits.timeout);
        let turn = timeout(patience, Arc::clone(&self.running).acquire_owned()).await;
        waiting.counts = false;
        let Ok(Ok(running)) = turn else {
            return Err(self.refused("queue_timeout", "query timed out in query queue"));
        };
        let _left = CancelOnDrop(limits.cancel.clone());
        let done = spawn_blocking(move || {
            // The places are held until the thread is free again, whether or not anybody still listens, and so is the count.
            let _places = (admitted, running, Active::begin());
            let result: Result<T, Failure> = work(&limits).map_err(Into::into);
            QUERIES.with_label_values(&[result.as_ref().err().map_or("ok", |failure| failure.kind)]).inc();
            result
        });
        done.await.unwrap_or_else(|_| {
            QUERIES.with_label_values(&["internal"]).inc();
            Err(Failure { kind: "internal", text: "the evaluation panicked".to_owned() })
        })
    }

    fn refused(&self, key: &'static str, text: &str) -> Failure {
        QUERIES.with_label_values(&["refused"]).inc();
        let DoorLimits { concurrent_max, queue_timeout, .. } = self.door;
        Failure::limit(
            "timeout",
            key,
            &format!("{text}; {concurrent_max} run at one time and wait at most {queue_timeout:?}"),
        )
    }
}
