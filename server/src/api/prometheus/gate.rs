//! The way to the blocking threads: so many evaluations at one time, some more that wait, the rest is turned away. When
//! the client leaves, its evaluation is told to stop.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::query::{Cancel, Limits};
use crate::telemetry::QUERIES;

use super::json::Failure;

/// Requests that may wait for each that runs: a dashboard of many panels comes all at once.
const WAITING_PER_RUNNING: usize = 10;

/// Lets requests through.
pub(super) struct Gate {
    running: Arc<Semaphore>,
    /// Running and waiting.
    admitted: Arc<Semaphore>,
}

/// Cancels when the handler's future goes, which is what happens when the client leaves.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Gate {
    pub(super) fn new(concurrent_max: usize) -> Gate {
        Gate {
            running: Arc::new(Semaphore::new(concurrent_max)),
            admitted: Arc::new(Semaphore::new(concurrent_max * (1 + WAITING_PER_RUNNING))),
        }
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
            return Err(refused("too many queries wait; try again later"));
        };
        let Ok(Ok(running)) = timeout(limits.timeout, Arc::clone(&self.running).acquire_owned()).await else {
            return Err(refused("query timed out in query queue"));
        };
        let _left = CancelOnDrop(limits.cancel.clone());
        let done = spawn_blocking(move || {
            // The places are held until the thread is free again, whether or not anybody still listens.
            let _places = (admitted, running);
            work(&limits)
        });
        let result = done.await.map_err(|_| Failure { kind: "internal", text: "the evaluation panicked".to_owned() });
        let result = result.and_then(|result| result.map_err(Into::into));
        QUERIES.with_label_values(&[result.as_ref().err().map_or("ok", |failure| failure.kind)]).inc();
        result
    }
}

fn refused(text: &str) -> Failure {
    QUERIES.with_label_values(&["refused"]).inc();
    Failure { kind: "timeout", text: text.to_owned() }
}
