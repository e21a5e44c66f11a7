//! Rounds: what collectors and log tails read, frozen in the spool. A round of samples is made at every interval; log lines
//! are frozen together with where reading stands after them, so a crash neither loses nor repeats one. Decides nothing else.

mod told;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::clock::Clock;
use crate::collect::{CollectConfig, Collectors};
use crate::drive::InventoryHandle;
use crate::error_chain::chain;
use crate::heartbeat::BeatBoards;
use crate::limits::Limits;
use crate::logs::{LogCounts, LogRound, LogState, LogTails, Severity};
use crate::probes::ProbeBoard;
use crate::probes::scrape::Reading;
use crate::rounds::told::{Told, in_batches};
use crate::spool::{AppendError, Owned, SharedSpool};
use crate::stream::encode;
use crate::stream::protocol::Class;
use crate::stream::sender::StreamCounters;
use crate::telemetry;

/// Without records, where reading stands is kept this often; after a crash so many lines are counted again at most.
const STATE_EVERY: Duration = Duration::from_secs(60);
/// Wait before a round of log lines is offered again to a disk that is full. The lines wait in their own files.
const DISK_WAIT: Duration = Duration::from_secs(5);
/// The largest state of log tails that is read back: a thousand files take a tenth of it.
const STATE_BYTES_MAX: usize = 4 << 20;

/// What those who make rounds share. Cheap to clone.
#[derive(Clone)]
pub struct Rounds {
    /// The agent's id, `instance` of its series.
    pub agent: Arc<str>,
    /// Where rounds go.
    pub spool: SharedSpool,
    /// What the stream counted.
    pub counters: Arc<StreamCounters>,
    /// What is counted of logs.
    pub logs: LogCounts,
    /// What heartbeats on storage have seen.
    pub beats: BeatBoards,
    /// What checks and scrapes have found.
    pub probes: ProbeBoard,
    /// How far the agent gives way to its host.
    pub limits: Limits,
    /// The time.
    pub clock: Clock,
}

impl Rounds {
    /// Collects at every interval until told to stop. `hands` are asked for what they counted.
    pub async fn collect(self, config: CollectConfig, hands: Option<InventoryHandle>, stop: CancellationToken) {
        let mut ticks = interval(config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut collectors = Collectors::new(&config);
        let mut told = Told::default();
        let (mut lost, mut left_out) = (0u64, 0);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if left_out + 1 < self.limits.rounds(config.interval) {
                left_out += 1;
                self.limits.left_out_round();
                continue;
            }
            left_out = 0;
            let now = (self.clock)();
            let counters = Arc::clone(&self.counters);
            let mut own = self.spool.with(move |spool| telemetry::families(spool, &counters)).await;
            own.extend(self.logs.families());
            own.extend(self.beats.families(std::time::Instant::now()));
            own.extend(self.limits.families());
            collectors.rest_slow(self.limits.slow_sources_rest());
            if let Some(hands) = &hands {
                own.extend(hands.families());
            }
            own.extend(self.probes.families());
            let families;
            (collectors, families) = blocking(move || {
                let mut families = collectors.collect();
                families.extend(own);
                (collectors, Arc::new(families))
            })
            .await;
            let agent = || Arc::clone(&self.agent);
            let host = Reading { target: None, job: "node".into(), instance: agent(), at: now, families };
            for batch in in_batches([vec![host], self.probes.take_readings()].concat()) {
                told = self.keep(told, batch, &mut lost).await;
            }
        }
    }

    /// Appends samples to the spool; `lost` counts batches since it last worked.
    async fn keep(&self, told: Told, batch: Vec<Reading>, lost: &mut u64) -> Told {
        let encode = move || {
            let encoded = told.encode(&batch);
            (told, batch, encoded)
        };
        let (mut told, batch, encoded) = blocking(encode).await;
        let frozen = Owned { records: encoded.records, state: Vec::new(), body: encoded.body };
        match self.spool.append(Class::Metrics, frozen, (self.clock)()).await {
            Ok(_) => {
                told.keep(batch);
                if *lost > 0 {
                    warn!(rounds = *lost, "samples are kept again; rounds in between are lost");
                    *lost = 0;
                }
            }
            Err(error) => {
                if *lost == 0 {
                    error!(error = chain(&error), samples = encoded.records, "a round of samples is lost");
                }
                *lost += 1;
            }
        }
        told
    }

    /// Freezes what the tails read until told to stop.
    pub async fn follow(self, mut tails: LogTails, stop: CancellationToken) {
        let mut kept_at = Instant::now();
        let mut unkept = None;
        loop {
            let mut round = tokio::select! {
                () = stop.cancelled() => break,
                round = tails.next() => round,
            };
            self.give_way(&mut round).await;
            if round.records.is_empty() && kept_at.elapsed() < STATE_EVERY {
                unkept = Some(round);
                continue;
            }
            unkept = None;
            self.freeze(&round, &stop).await;
            kept_at = Instant::now();
        }
        if let Some(round) = unkept {
            self.freeze(&round, &stop).await;
        }
    }

    /// Above the agent's own limits only severe lines travel whole, and the next round waits; all are counted as ever.
    async fn give_way(&self, round: &mut LogRound) {
        if self.limits.lines_as_counts() {
            let lines = round.records.len();
            round.records.retain(|record| record.severity >= Severity::Error);
            self.limits.left_out_lines(lines - round.records.len());
        }
        sleep(self.limits.log_pause()).await;
    }

    /// Keeps a round. While the disk is full it waits, which holds up the tails and loses nothing.
    async fn freeze(&self, round: &LogRound, stop: &CancellationToken) {
        let now = (self.clock)();
        let encoded = encode::logs(&self.agent, &round.records, now);
        let frozen = Owned { records: encoded.records, state: encode_state(&round.state), body: encoded.body };
        loop {
            match self.spool.append(Class::Logs, frozen.clone(), now).await {
                // What finds no room the spool counts, and says once that its budget is met.
                Ok(_) | Err(AppendError::Full { .. }) => return,
                Err(error @ AppendError::Io(_)) => warn!(error = chain(&error), "log lines wait for the disk"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(DISK_WAIT) => {}
            }
        }
    }
}

/// Runs what blocks on a thread where it may.
pub(crate) async fn blocking<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(body).await.map_err(JoinError::try_into_panic) {
        Ok(value) => value,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down and began no more work: whoever waits here is dropped next.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// Where reading stands, as it goes into the spool: JSON compressed with zstd.
fn encode_state(state: &LogState) -> Vec<u8> {
    let json =
        serde_json::to_vec(state).expect("a state has string keys only, and paths came from a directory as UTF-8");
    zstd::bulk::compress(&json, 1).expect("the output buffer is sized by zstd's own bound, and the level exists")
}

/// Reads it back; `None` where there was none. One that cannot be read is reported, and reading starts as on a new host.
pub(crate) fn decode_state(bytes: &[u8]) -> Option<LogState> {
    if bytes.is_empty() {
        return None;
    }
    let json = zstd::bulk::decompress(bytes, STATE_BYTES_MAX).ok();
    let state = json.and_then(|json| serde_json::from_slice(&json).ok());
    if state.is_none() {
        warn!("where reading of log files stood cannot be read back; they are followed anew");
    }
    state
}

#[cfg(test)]
mod tests;
