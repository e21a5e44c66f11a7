//! The watch over one area: asks its child at every interval, judges it from outside, and never waits for it. A child that does
//! not answer in time is told to end and left alone; while it hangs there is no other, since a second would hang too.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::board::{Board, StorageBoards};
use super::child::{Ask, Told};
use super::claim::{Claim, Claimant, Step};
use super::config::StoragePath;
use super::record::{Record, Slot};
use crate::clock::Clock;
use crate::heartbeat::Identity;
use crate::heartbeat::codec::BeatClass;

/// Wait before a child that ended is followed by another.
const RESTART_WAIT: Duration = Duration::from_secs(5);
/// What writing the goodbye may take: a clean stop as a whole has two seconds.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(300);
/// What a child without pipes may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest answer: 256 records with ids of 255 bytes, as JSON, take half of it.
const ANSWER_BYTES_MAX: u64 = 256 << 10;

/// The watch over one area.
pub(super) struct Watch {
    pub(super) place: usize,
    pub(super) path: StoragePath,
    pub(super) identity: Identity,
    pub(super) clock: Clock,
    pub(super) boards: StorageBoards,
    /// The program that serves as the child, and the file that it locks.
    pub(super) program: PathBuf,
    pub(super) lock: PathBuf,
    pub(super) number: u64,
    /// What was said last, so that it is said once.
    pub(super) told: Option<String>,
}

/// Why a child is of no use any more.
enum Trouble {
    /// It does not answer.
    Silent,
    /// It said what failed, or its pipes broke.
    Failed(String),
}

/// A child and its pipes.
struct Talk {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Watch {
    /// Watches until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            match self.start() {
                Ok(talk) => self.live_with(talk, &stop).await,
                Err(error) => self.failed(format!("the child process cannot be started: {error}")),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(RESTART_WAIT) => {}
            }
        }
    }

    fn start(&self) -> io::Result<Talk> {
        let mut command = Command::new(&self.program);
        command.arg("storage-child").arg("--path").arg(&self.path.path).arg("--lock").arg(&self.lock);
        // A group of its own: a Ctrl-C in the agent's terminal is the agent's to answer, with a goodbye.
        command.current_dir("/").process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (input, output) = pipes.ok_or_else(|| io::Error::other("it has no pipes"))?;
        Ok(Talk { child, input, output: BufReader::new(output) })
    }

    /// The life of one child, until it is gone or the agent stops.
    async fn live_with(&mut self, mut talk: Talk, stop: &CancellationToken) {
        let Err(trouble) = self.rounds(&mut talk, stop).await else { return };
        self.board(|board| {
            board.is_up = false;
            board.slot = None;
            board.sightings.forget();
        });
        let Talk { mut child, input, output } = talk;
        match trouble {
            Trouble::Silent => {
                // It ends when the storage answers; until then a process in an uninterruptible sleep takes no signal.
                let _ = child.start_kill();
                self.board(|board| {
                    board.counts.stalls += 1;
                    board.is_stuck = true;
                });
                let seconds = self.path.timeout.as_secs();
                self.say(Some(format!("the storage did not answer within {seconds} s")));
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = child.wait() => {}
                }
                self.board(|board| {
                    board.asked_at = None;
                    board.is_stuck = false;
                });
            }
            Trouble::Failed(problem) => {
                self.failed(problem);
                drop((input, output));
                if timeout(END_TIMEOUT, child.wait()).await.is_err() {
                    let _ = child.start_kill();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = child.wait() => {}
                    }
                }
            }
        }
    }

    /// One round after the other. Ends well only because the agent stops.
    async fn rounds(&mut self, talk: &mut Talk, stop: &CancellationToken) -> Result<(), Trouble> {
        let opened = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            opened = self.answer(talk) => opened?,
        };
        let Told::Opened { hosts_max } = opened else { return Err(out_of_turn()) };
        let mut claim = Claim::new(self.claimant(), hosts_max);
        let mut ticks = interval(self.path.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            let round = self.round(talk, &mut claim);
            tokio::pin!(round);
            let done = tokio::select! {
                done = &mut round => done,
                // A round ends in milliseconds, if it ends; whatever the child is at, the agent does not wait for long.
                () = stop.cancelled() => match timeout(GOODBYE_TIMEOUT, round).await {
                    Ok(done) => done,
                    Err(_) => return Ok(()),
                },
            };
            done?;
        }
        let _ = timeout(GOODBYE_TIMEOUT, self.goodbye(talk, &mut claim)).await;
        Ok(())
    }

    /// Leaves the slot to others, if it is still ours.
    async fn goodbye(&mut self, talk: &mut Talk, claim: &mut Claim) -> Result<(), Trouble> {
        let Some(owned) = claim.slot() else { return Ok(()) };
        let Told::Slots(slots) = self.ask(talk, &Ask::Read).await? else { return Err(out_of_turn()) };
        let now_ms = self.board(|board| board.ms(Instant::now().into_std()));
        if claim.step(&slots, now_ms) == (Step::Write { slot: owned }) {
            let record = self.record(BeatClass::Goodbye);
            self.ask(talk, &Ask::Write { slot: owned, record }).await?;
        }
        Ok(())
    }

    async fn round(&mut self, talk: &mut Talk, claim: &mut Claim) -> Result<(), Trouble> {
        let Told::Slots(slots) = self.ask(talk, &Ask::Read).await? else { return Err(out_of_turn()) };
        let now = Instant::now().into_std();
        let (host, collisions) = (self.identity.agent.clone(), claim.collisions());
        let now_ms = self.board(|board| {
            let now_ms = board.ms(now);
            board.sightings.look(&slots, &host, now_ms);
            board.looked_at = Some(now);
            board.unreadable = slots.iter().filter(|(_, slot)| *slot == Slot::Unreadable).count();
            now_ms
        });
        let step = claim.step(&slots, now_ms);
        let collided = claim.collisions() - collisions;
        self.board(|board| {
            board.slot = claim.slot();
            board.counts.collisions += collided;
        });
        match step {
            Step::Wait(why) => {
                self.board(|board| {
                    board.is_up = false;
                    board.counts.errors += 1;
                });
                self.say(Some(why.to_string()));
            }
            Step::Write { slot } => {
                let record = self.record(BeatClass::Beat);
                claim.wrote(record.number);
                let begun = Instant::now();
                let Told::Written = self.ask(talk, &Ask::Write { slot, record }).await? else {
                    return Err(out_of_turn());
                };
                let took = begun.elapsed();
                self.board(|board| {
                    board.is_up = true;
                    board.write_took = Some(took);
                    board.counts.writes += 1;
                });
                self.say(None);
            }
        }
        Ok(())
    }

    async fn ask(&self, talk: &mut Talk, ask: &Ask) -> Result<Told, Trouble> {
        let mut line = serde_json::to_vec(ask).map_err(|error| Trouble::Failed(error.to_string()))?;
        line.push(b'\n');
        // A pipe takes a request at once: the child reads each before it answers.
        talk.input
            .write_all(&line)
            .await
            .map_err(|error| Trouble::Failed(format!("the child process is gone: {error}")))?;
        self.answer(talk).await
    }

    async fn answer(&self, talk: &mut Talk) -> Result<Told, Trouble> {
        let asked = Instant::now();
        self.board(|board| board.asked_at = Some(asked.into_std()));
        let mut line = Vec::new();
        let mut bounded = (&mut talk.output).take(ANSWER_BYTES_MAX);
        let read =
            timeout(self.path.timeout, bounded.read_until(b'\n', &mut line)).await.map_err(|_| Trouble::Silent)?;
        self.board(|board| board.answered(asked.elapsed()));
        read.map_err(|error| Trouble::Failed(error.to_string()))?;
        if line.is_empty() {
            return Err(Trouble::Failed("the child process ended".to_owned()));
        }
        match serde_json::from_slice(&line) {
            Ok(Told::Failed(problem)) => Err(Trouble::Failed(problem)),
            Ok(told) => Ok(told),
            Err(error) => Err(Trouble::Failed(format!("the child process gave no answer that is understood: {error}"))),
        }
    }

    fn claimant(&self) -> Claimant {
        Claimant {
            host: self.identity.agent.clone(),
            boot_id: self.identity.boot_id,
            slot: self.path.slot,
            interval_ms: i64::try_from(self.path.interval.as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn record(&mut self, class: BeatClass) -> Record {
        self.number += 1;
        Record {
            class,
            host: self.identity.agent.clone(),
            boot_id: self.identity.boot_id,
            number: self.number,
            written_at: (self.clock)(),
            interval_ms: u32::try_from(self.path.interval.as_millis()).unwrap_or(u32::MAX),
        }
    }

    fn board<T>(&self, body: impl FnOnce(&mut Board) -> T) -> T {
        self.boards.with(self.place, body)
    }

    fn failed(&mut self, problem: String) {
        self.board(|board| {
            board.is_up = false;
            board.counts.errors += 1;
        });
        self.say(Some(problem));
    }

    /// Says what changed: a problem when it is another one than last time, and once that it is over.
    fn say(&mut self, problem: Option<String>) {
        let path = self.path.path.display();
        match (&problem, &self.told) {
            (Some(new), old) if old.as_ref() != Some(new) => warn!(%path, problem = new, "no storage heartbeats"),
            (None, Some(_)) => info!(%path, "storage heartbeats are written"),
            _ => {}
        }
        self.told = problem;
    }
}

fn out_of_turn() -> Trouble {
    Trouble::Failed("the child process answered something else than it was asked".to_owned())
}
