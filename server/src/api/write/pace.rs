//! How fast agents may send what waited for the server: each answer to an agent says how long to wait before the next batch of a
//! backlog. Agents of the present never wait for it: who has nothing left waits for its next round anyway. Decides by the time that
//! storing takes, which grows with the load, and by how full the places are where requests wait.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use petrel_agent::stream::protocol::{HEADER_PACE, HEADER_PENDING, HEADER_TIME};

use super::Receiver;
use super::headers::text;
use crate::series::Timestamp;
use crate::store::Mark;

/// An agent counts as catching up for between one and two of these after its last batch of a backlog.
const GENERATION_MS: i64 = 15_000;
/// Agents counted; what is beyond is as many.
const AGENTS_MAX: usize = 100_000;
/// Weight of one batch in the mean time that storing takes: an eighth, so that it follows the load within a few batches.
const MEAN_OF: f64 = 8.0;
/// The share of the machine that backlogs leave for the present: half.
const LEAVE: f64 = 2.0;
/// Longest wait while there is room. At half of an agent's usual interval its backlog still shrinks by one batch in each.
const PACE_MAX: Duration = Duration::from_secs(5);
/// From this share of a place's limit on the server is busy, and backlogs wait several times as long.
const BUSY_SHARE: f64 = 0.5;
const BUSY_MIN: Duration = Duration::from_secs(2);
const BUSY_MAX: Duration = Duration::from_secs(30);
const BUSY_FACTOR: u32 = 4;

/// What an agent's request says of the agent, beside its batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Visit {
    agent: u64,
    pending: u64,
    sent: Option<Timestamp>,
    received: Timestamp,
}

impl Visit {
    /// Of a request that came at `received`; nothing where the sender is no agent.
    pub(super) fn of(headers: &HeaderMap, mark: Option<&Mark>, received: Timestamp) -> Option<Visit> {
        let mut hasher = DefaultHasher::new();
        mark?.agent.hash(&mut hasher);
        let number = |name| text(headers, name).parse::<i64>().ok();
        let pending = number(HEADER_PENDING).map_or(0, i64::unsigned_abs);
        Some(Visit { agent: hasher.finish(), pending, sent: number(HEADER_TIME), received })
    }

    /// Whether more waits behind this batch.
    pub(super) fn is_backlog(&self) -> bool {
        self.pending > 0
    }

    /// The agent's clock less ours in milliseconds, too little by the time on the network; of requests of the present only, one a round.
    pub(super) fn clock_offset_ms(&self) -> Option<i64> {
        self.sent.filter(|_| self.pending == 0).map(|sent| sent.saturating_sub(self.received))
    }
}

impl Receiver {
    /// Tells an agent when its request came, when this answer leaves, and how long to wait before the next batch of a backlog.
    pub(super) fn pace(&self, visit: Option<&Visit>, response: &mut Response) {
        let Some(visit) = visit else { return };
        let now = (self.clock)();
        let (agents, batch_ms) = self.pacer.take(visit.agent, visit.pending, now - visit.received, now);
        let fullest = self.budget.share().max(self.store.queue_share());
        let cores = available_parallelism().map_or(1, usize::from);
        let pace = Load { agents, batch_ms, cores, fullest }.pace();
        let headers = response.headers_mut();
        headers.insert(HEADER_PACE, HeaderValue::from(pace.as_millis() as u64));
        if let Ok(times) = HeaderValue::try_from(format!("{},{now}", visit.received)) {
            headers.insert(HEADER_TIME, times);
        }
    }
}

/// What a pace is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Agents with a backlog.
    pub agents: usize,
    /// Mean time from a batch's last byte until it is durable.
    pub batch_ms: f64,
    /// What works at once.
    pub cores: usize,
    /// The fullest of the places where requests wait, 0 to 1.
    pub fullest: f64,
}

impl Load {
    /// How long an agent waits between two batches of its backlog.
    pub(super) fn pace(self) -> Duration {
        let fair_ms = self.batch_ms * self.agents as f64 * LEAVE / self.cores.max(1) as f64;
        let fair = Duration::from_secs_f64((fair_ms / 1_000.0).clamp(0.0, BUSY_MAX.as_secs_f64()));
        if self.fullest >= BUSY_SHARE {
            return (fair * BUSY_FACTOR).clamp(BUSY_MIN, BUSY_MAX);
        }
        fair.min(PACE_MAX)
    }
}

/// Who catches up, and how long storing takes.
#[derive(Debug, Default)]
pub(super) struct Pacer {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    now: HashSet<u64>,
    before: usize,
    turned_at: Timestamp,
    batch_ms: f64,
}

impl Pacer {
    /// Takes a batch that is durable: a hash of who sent it, how many wait behind it there, and how long it took; returns how many
    /// agents have a backlog, and the mean time.
    pub(super) fn take(&self, agent: u64, pending: u64, took_ms: i64, now: Timestamp) -> (usize, f64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back turns, too.
        let age = now.saturating_sub(seen.turned_at);
        if !(0..GENERATION_MS).contains(&age) {
            seen.before = if age < 2 * GENERATION_MS { seen.now.len() } else { 0 };
            seen.now.clear();
            seen.turned_at = now;
        }
        if pending > 0 && seen.now.len() < AGENTS_MAX {
            seen.now.insert(agent);
        }
        seen.batch_ms += (took_ms.clamp(0, 60_000) as f64 - seen.batch_ms) / MEAN_OF;
        (seen.now.len().max(seen.before), seen.batch_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace_ms(agents: usize, batch_ms: f64, fullest: f64) -> u128 {
        Load { agents, batch_ms, cores: 4, fullest }.pace().as_millis()
    }

    #[test]
    fn one_agent_is_quick_and_a_fleet_leaves_half_of_the_server() {
        assert_eq!(pace_ms(0, 10.0, 0.0), 0);
        assert_eq!(pace_ms(1, 4.0, 0.1), 2, "an hour of rounds within seconds");
        assert_eq!(pace_ms(1_000, 4.0, 0.1), 2_000, "two of four cores");
        assert_eq!(pace_ms(100_000, 4.0, 0.1), 5_000, "no slower, or backlogs would never end");
        assert_eq!(pace_ms(1, 4.0, 0.5), 2_000, "where requests wait all give way");
        assert_eq!((pace_ms(2_000, 4.0, 0.9), pace_ms(usize::MAX, f64::MAX, 1.0)), (16_000, 30_000));
    }

    #[test]
    fn agents_count_while_they_catch_up() {
        let pacer = Pacer::default();
        let agents = |agent, pending, now| pacer.take(agent, pending, 8, 1_000_000 + now).0;
        assert_eq!((agents(1, 5, 0), agents(2, 0, 0), agents(3, 9, 10), agents(1, 4, 20)), (1, 1, 2, 2));
        assert_eq!(agents(2, 0, GENERATION_MS), 2, "the last ones count on");
        assert_eq!(agents(2, 0, 2 * GENERATION_MS), 0, "and no longer");
        agents(1, 5, 2 * GENERATION_MS);
        assert_eq!(agents(2, 0, 10 * GENERATION_MS), 0, "nor after silence");
    }

    #[test]
    fn the_mean_follows_the_load() {
        let pacer = Pacer::default();
        let mut mean = 0.0;
        for _ in 0..40 {
            mean = pacer.take(1, 1, 100, 0).1;
        }
        assert!((99.0..=100.0).contains(&mean), "{mean}");
        assert!(pacer.take(1, 1, i64::MAX, 0).1 < 8_000.0 && pacer.take(1, 1, i64::MIN, 0).1 >= 0.0);
    }
}
