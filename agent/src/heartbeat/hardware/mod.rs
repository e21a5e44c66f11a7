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
    let (mut asker, mut sensed_at) = (Asker::new(bmc), None::<Instant>);
    let (mut power_told, mut sensors_told) = (Told::default(), Told::default());
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
        let is_bad = problem.is_some();
        match power_told.news(problem) {
            Some(News::Problem(problem)) => warn!(host, problem, "BMC cannot be asked"),
            Some(News::Over) => info!(host, "BMC answers again"),
            None => {}
        }
        if is_bad {
            boards.with(place, board::Board::failed);
            continue;
        }
        if sensed_at.is_none_or(|at| at.elapsed() >= SENSORS_EVERY) {
            sensed_at = Some(Instant::now());
            let (families, error) = asker.sensors().await;
            boards.with(place, |board| {
                if error.is_some() {
                    board.not_sensed();
                }
                // A part is better than the whole of a minute ago: what is not told any more ends.
                if error.is_none() || !families.is_empty() {
                    board.sensed(families, Instant::now());
                }
            });
            match sensors_told.news(error.map(|error| chain(&error))) {
                Some(News::Problem(problem)) => warn!(host, problem, "sensors of the BMC cannot be read"),
                Some(News::Over) => info!(host, "sensors of the BMC are read again"),
                None => {}
            }
        }
    }
}

/// The problem that was told last, so that each is told once, and when it is another one or over.
#[derive(Debug, Default)]
struct Told(Option<String>);

/// What is worth telling.
#[derive(Debug, PartialEq, Eq)]
enum News<'a> {
    Problem(&'a str),
    Over,
}

impl Told {
    fn news(&mut self, problem: Option<String>) -> Option<News<'_>> {
        if self.0 == problem {
            return None;
        }
        self.0 = problem;
        Some(self.0.as_deref().map_or(News::Over, News::Problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_once_and_when_it_changes() {
        let mut told = Told::default();
        assert_eq!(told.news(None), None);
        assert_eq!(told.news(Some("a".to_owned())), Some(News::Problem("a")));
        assert_eq!(told.news(Some("a".to_owned())), None);
        assert_eq!(told.news(Some("b".to_owned())), Some(News::Problem("b")));
        assert_eq!(told.news(None), Some(News::Over));
        assert_eq!(told.news(None), None);
    }
}
