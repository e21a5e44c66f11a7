//! Hardware heartbeats: the power state and the sensors of other hosts, asked of their BMCs by an agent that has the credentials. A
//! host that is silent and seen switched off is dead; switched on proves nothing. Only reads: nothing here switches a host. Read on in
//! `ask`; docs/guide/heartbeats.md is for operators.

mod ask;
mod board;
mod config;
mod redfish;

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::ask::Asker;
pub use self::board::BmcBoards;
pub(super) use self::config::check;
pub use self::config::{Bmc, CheckHardwareError, RawBmc, Way};
use crate::error_chain::chain;

/// Sensors change slowly, and reading them keeps a BMC busy for seconds.
const SENSORS_EVERY: Duration = Duration::from_secs(60);
/// Children and files at once: with more BMCs some wait, rather than all of them starting a child in the same second.
const BLOCKING_THREADS_MAX: usize = 8;

/// The thread that asks all BMCs.
pub struct HardwareHeartbeats {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    boards: BmcBoards,
}

impl HardwareHeartbeats {
    /// Starts asking; does nothing where the config names no BMC.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(bmcs: Vec<Bmc>) -> io::Result<HardwareHeartbeats> {
        let (stop, boards) = (CancellationToken::new(), BmcBoards::new(&bmcs));
        if bmcs.is_empty() {
            return Ok(HardwareHeartbeats { stop, thread: None, boards });
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .build()?;
        let (token, shown) = (stop.clone(), boards.clone());
        let body = move || {
            runtime.block_on(async {
                let mut asking = tokio::task::JoinSet::new();
                for (place, bmc) in bmcs.into_iter().enumerate() {
                    asking.spawn(watch(place, bmc, shown.clone(), token.clone()));
                }
                token.cancelled().await;
                asking.shutdown().await;
            });
            // A call that is under way ends by its own deadline; nobody waits for it.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("bmc".to_owned()).spawn(body)?;
        Ok(HardwareHeartbeats { stop, thread: Some(thread), boards })
    }

    /// What is to be told as metrics.
    pub fn boards(&self) -> BmcBoards {
        self.boards.clone()
    }

    /// Ends the thread.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                warn!("thread of hardware heartbeats ended badly");
            }
        }
    }
}

/// Whoever drops the agent without `stop` leaves no thread behind.
impl Drop for HardwareHeartbeats {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn watch(place: usize, bmc: Bmc, boards: BmcBoards, stop: CancellationToken) {
    let (host, within) = (bmc.host.clone(), bmc.timeout * 2);
    let mut ticks = interval(bmc.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut asker, mut sensed_at, mut told) = (Asker::new(bmc), None::<Instant>, None::<String>);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let begun = Instant::now();
        // Two requests at most, each with its own deadline; this one is for what neither of them sees.
        let answer = tokio::time::timeout(within, async {
            asker.open().await?;
            asker.power().await
        });
        let problem = match answer.await {
            Ok(Ok(power_on)) => {
                let now = Instant::now();
                boards.with(place, |board| board.answered(power_on, now - begun, now));
                None
            }
            Ok(Err(error)) => Some(chain(&error)),
            Err(_) => Some(format!("it gave no answer within {} s", within.as_secs())),
        };
        if let Some(problem) = problem {
            boards.with(place, board::Board::failed);
            if told.as_ref() != Some(&problem) {
                warn!(host, problem, "BMC cannot be asked");
            }
            told = Some(problem);
            continue;
        }
        if told.take().is_some() {
            info!(host, "BMC answers again");
        }
        if sensed_at.is_none_or(|at| at.elapsed() >= SENSORS_EVERY) {
            sensed_at = Some(Instant::now());
            match asker.sensors().await {
                Ok(families) => boards.with(place, |board| board.sensed(families, Instant::now())),
                Err(error) => {
                    warn!(host, error = chain(&error), "sensors of the BMC cannot be read");
                    boards.with(place, board::Board::not_sensed);
                }
            }
        }
    }
}
