//! The thread around the predictor: ticks, and hands on what comes. It decides nothing.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Predictor, Tick};
use crate::clock::Clock;
use crate::query::source::Source;
use crate::series::Timestamp;

/// Why the predictor's thread could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunPredictorError {
    /// Its timer could not be made.
    #[error("timer of the predictions cannot be made; nothing is predicted")]
    Timer(#[source] std::io::Error),
}

/// Ticks every interval until `stop` and gives what comes to `sink`, which may block. Blocks: run it on a thread of its
/// own and join that. A tick that takes longer than the interval delays the next.
///
/// # Errors
/// The thread's timer could not be made.
pub fn run(
    mut predictor: Predictor,
    source: &Arc<dyn Source>,
    mut sink: impl FnMut(Tick, Timestamp),
    clock: &Clock,
    stop: &CancellationToken,
) -> Result<(), RunPredictorError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(RunPredictorError::Timer)?;
    runtime.block_on(async {
        let mut ticks = tokio::time::interval(predictor.config().interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {
                    let now = clock();
                    let tick = predictor.tick(&**source, now);
                    for problem in &tick.problems {
                        tracing::warn!(error = %problem, cause = ?std::error::Error::source(problem), "prediction incomplete");
                    }
                    sink(tick, now);
                }
            }
        }
    });
    Ok(())
}
