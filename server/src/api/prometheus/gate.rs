//! The way to the blocking threads: so many evaluations at one time, some more that wait, the rest is turned away. When
//! the client leaves, or the server's memory is at its limit, an evaluation is told to stop.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::memory::Level;
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
    memory: watch::Receiver<Level>,
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
    pub(super) fn new(door: DoorLimits, memory: watch::Receiver<Level>) -> Gate {
        // More than this many permits no semaphore gives out.
        let places = |count: usize| Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS)));
        let admitted_max = door.concurrent_max.saturating_mul(1 + WAITING_PER_RUNNING);
        Gate { running: places(door.concurrent_max), admitted: places(admitted_max), memory, door }
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
        // Looked at last: what waited may have waited for memory, too.
        if *self.memory.borrow() == Level::Over {
            QUERIES.with_label_values(&["refused"]).inc();
            return Err(Failure::memory());
        }
        let cancel = limits.cancel.clone();
        let _left = CancelOnDrop(cancel.clone());
        let mut done = spawn_blocking(move || {
            // The places are held until the thread is free again, whether or not anybody still listens, and so is the count.
            let _places = (admitted, running, Active::begin());
            let result: Result<T, Failure> = work(&limits).map_err(Into::into);
            QUERIES.with_label_values(&[result.as_ref().err().map_or("ok", |failure| failure.kind)]).inc();
            result
        });
        let (result, is_ended) = tokio::select! {
            result = &mut done => (result, false),
            () = self.memory_over() => {
                cancel.cancel();
                (done.await, true)
            }
        };
        let result = result.unwrap_or_else(|_| {
            QUERIES.with_label_values(&["internal"]).inc();
            Err(Failure { kind: "internal", text: "the evaluation panicked".to_owned() })
        });
        if is_ended && result.is_err() { Err(Failure::memory()) } else { result }
    }

    /// Returns when memory is at its limit, at once or later.
    async fn memory_over(&self) {
        let mut memory = self.memory.clone();
        if memory.wait_for(|level| *level == Level::Over).await.is_err() {
            // Nobody measures any more.
            std::future::pending::<()>().await;
        }
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

/// Memory that always has room.
#[cfg(test)]
pub(super) fn roomy() -> watch::Receiver<Level> {
    watch::channel(Level::Normal).1
}
