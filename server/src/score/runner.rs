//! The thread around the scorer: takes accepted samples, ticks, saves at the end. It decides nothing.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Scorer;
use crate::clock::Clock;
use crate::series::Timestamp;
use crate::store::control::ControlError;
use crate::store::{Accepted, Batch};

/// Why the scorer's thread ended badly.
#[derive(Debug, thiserror::Error)]
pub enum RunScorerError {
    /// Its timer could not be made.
    #[error("timer of the scorer cannot be made; nothing is scored")]
    Timer(#[source] std::io::Error),
    /// What was learned since the last save is lost.
    #[error("detectors cannot be saved at the end; they start from the last save")]
    Save(#[source] ControlError),
}

/// Scores what `feed` brings until `stop` or the feed's end, and gives what is to be stored to `sink`, which may block.
/// Blocks: run it on a thread of its own and join that. Saves before it returns.
///
/// # Errors
/// The thread's timer could not be made, or the last save failed.
pub fn run(
    mut scorer: Scorer,
    mut feed: mpsc::Receiver<Accepted>,
    mut sink: impl FnMut(Batch, Timestamp),
    clock: &Clock,
    stop: &CancellationToken,
) -> Result<(), RunScorerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(RunScorerError::Timer)?;
    runtime.block_on(async {
        let period = Duration::from_millis(u64::try_from(scorer.tick_ms()).unwrap_or(0).max(1));
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {
                    let now = clock();
                    let batch = scorer.tick(now);
                    if !batch.series.is_empty() {
                        sink(batch, now);
                    }
                }
                accepted = feed.recv() => {
                    let Some(accepted) = accepted else { break };
                    scorer.observe(&accepted, clock());
                }
            }
        }
    });
    scorer.save(clock()).map_err(RunScorerError::Save)
}
