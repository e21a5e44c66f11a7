//! Sends one class: the oldest batch, until it is delivered or refused for good, then the next. One batch is in flight.
//! What to do after each attempt is decided by `delivery`; this file waits, asks and logs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::client::{Attempt, Client, Delivered};
use super::delivery::{Delivery, Next, RetryReason};
use super::dictionary::{Agreed, Outgoing};
use super::pace::{self, Pending};
use super::protocol::Class;
use super::skew::{ClockSkew, Exchange};
use crate::clock::Clock;
use crate::error_chain::chain;
use crate::rounds::blocking;
use crate::spool::{Batch, SharedSpool};

/// A line that could repeat with every batch is logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Wait before the spool is read again after the disk failed.
const SPOOL_WAIT: Duration = Duration::from_secs(5);

/// What the stream counts, for the agent's own metrics.
#[derive(Debug, Default)]
pub struct StreamCounters {
    /// Batches that the server took, by class in the order of [`Class::ALL`].
    pub delivered: [AtomicU64; 3],
    /// Attempts that failed and are made again.
    pub retried: [AtomicU64; 3],
    /// Samples or records that the server took out of batches it accepted.
    pub rejected: [AtomicU64; 3],
    /// Bytes of request bodies as sent, each attempt.
    pub sent_bytes: [AtomicU64; 3],
    /// How far the clock is from the server's.
    pub skew: Mutex<ClockSkew>,
    /// Batches that the server could not take against a dictionary and got plain.
    pub dictionary_misses: AtomicU64,
}

/// How a sender is told to stop.
#[derive(Debug, Clone)]
pub struct Stop {
    /// Send what is there, each batch at most once, and return.
    pub draining: CancellationToken,
    /// Return now.
    pub now: CancellationToken,
}

/// The sender of one class.
pub struct Sender {
    /// Which class.
    pub class: Class,
    /// The way to the server.
    pub client: Arc<Client>,
    /// Where batches come from.
    pub spool: SharedSpool,
    /// The place between attempts.
    pub delivery: Delivery,
    /// The dictionary that the server holds.
    pub agreed: Agreed,
    /// What is counted.
    pub counters: Arc<StreamCounters>,
    /// Spreads the waits between batches.
    pub rng: StdRng,
    /// The time.
    pub clock: Clock,
    /// Wakes classes that wait for a server that was away.
    pub reached: Arc<Notify>,
}

impl Sender {
    /// Sends until told to stop. Batches that are left stay in the spool.
    pub async fn run(mut self, stop: Stop) {
        let mut log = DeliveryLog::default();
        loop {
            let class = self.class;
            let front = self.spool.with(move |spool| (spool.front(class), spool.pending(class))).await;
            let wait = match front {
                (Ok(Some(batch)), pending) => {
                    let delivered = tokio::select! {
                        () = stop.now.cancelled() => return,
                        delivered = self.attempt(&batch, pending.saturating_sub(1)) => delivered,
                    };
                    self.settle(&batch, &delivered, &mut log).await
                }
                (Ok(None), _) => {
                    tokio::select! {
                        () = stop.draining.cancelled() => return,
                        () = self.spool.arrived(class) => {}
                    }
                    continue;
                }
                (Err(error), _) => {
                    if log.may_say() {
                        error!(class = class.as_str(), error = chain(&error), "spool cannot be read");
                    }
                    Some(SPOOL_WAIT)
                }
            };
            if let Some(wait) = wait {
                if stop.draining.is_cancelled() {
                    return;
                }
                tokio::select! {
                    () = stop.draining.cancelled() => {}
                    () = self.reached.notified(), if log.failing == Some(RetryReason::Unreachable) => {}
                    () = sleep(wait) => {}
                }
            }
        }
    }

    /// Sends a batch once: against the dictionary that the server holds, and plain at once where that is not to be had.
    async fn attempt(&mut self, batch: &Batch, pending: u64) -> Delivered {
        let (agreed, frozen) = (std::mem::take(&mut self.agreed), batch.body.clone());
        let (outgoing, agreed) = blocking(move || (agreed.prepare(&frozen), agreed)).await;
        self.agreed = agreed;
        let delivered = self.send(batch, &outgoing, pending).await;
        if !self.agreed.step(batch.seq, outgoing, &delivered.reply, delivered.dictionary) {
            return delivered;
        }
        debug!(
            seq = batch.seq,
            answer = delivered.message,
            "server does not hold the dictionary; batch goes out plain"
        );
        self.counters.dictionary_misses.fetch_add(1, Ordering::Relaxed);
        let outgoing = Outgoing::plain(&batch.body);
        let delivered = self.send(batch, &outgoing, pending).await;
        self.agreed.step(batch.seq, outgoing, &delivered.reply, delivered.dictionary);
        delivered
    }

    /// One request, and what it shows of the clocks.
    async fn send(&self, batch: &Batch, outgoing: &Outgoing, pending: u64) -> Delivered {
        let (now, begun) = ((self.clock)(), Instant::now());
        let delivered = self.client.deliver(Attempt { batch, outgoing, pending, now }).await;
        self.counters.sent_bytes[place(self.class)].fetch_add(outgoing.body.len() as u64, Ordering::Relaxed);
        if let Some((received, answered)) = delivered.times {
            let returned = now + begun.elapsed().as_millis() as i64;
            let mut skew = self.counters.skew.lock().unwrap_or_else(PoisonError::into_inner);
            skew.take(Exchange { sent: now, received, answered, returned });
        }
        delivered
    }

    /// How long to wait until the next batch, now that one was taken.
    async fn pace(&mut self, asked: Duration) -> Option<Duration> {
        if asked.is_zero() {
            return None;
        }
        let pending: Pending = self.spool.with(|spool| Class::ALL.map(|class| spool.pending(class))).await;
        Some(pace::wait(self.class, asked, pending, &mut self.rng)).filter(|wait| !wait.is_zero())
    }

    /// Does what `delivery` says about one attempt; returns how long to wait before the next.
    async fn settle(&mut self, batch: &Batch, delivered: &Delivered, log: &mut DeliveryLog) -> Option<Duration> {
        let (class, seq) = (batch.class, batch.seq);
        let counter = |counters: &[AtomicU64; 3], n| counters[place(class)].fetch_add(n, Ordering::Relaxed);
        let noted = match self.delivery.step(&delivered.reply) {
            Next::Advance => {
                counter(&self.counters.delivered, 1);
                counter(&self.counters.rejected, delivered.rejected);
                if log.delivered(batch, delivered) {
                    self.reached.notify_waiters();
                }
                self.spool.with(move |spool| spool.acknowledge(class, seq)).await
            }
            Next::Refuse => {
                error!(
                    class = class.as_str(),
                    seq,
                    records = batch.records,
                    answer = delivered.message,
                    "server refused a batch for good; it is dropped"
                );
                self.spool.with(move |spool| spool.refuse(class, seq)).await
            }
            Next::Retry { after, because } => {
                counter(&self.counters.retried, 1);
                log.failed(class, because, &delivered.message, after);
                return Some(after);
            }
        };
        if let Err(error) = noted {
            warn!(
                class = class.as_str(),
                error = chain(&error),
                "acknowledgement cannot be noted; batches may be sent again"
            );
        }
        self.pace(delivered.pace).await
    }
}

/// Index of a class in [`StreamCounters`].
pub(crate) fn place(class: Class) -> usize {
    Class::ALL.iter().position(|other| *other == class).unwrap_or(0)
}

/// Says when delivery begins to fail, why, now and then that it still does, and when it works again.
#[derive(Default)]
struct DeliveryLog {
    failing: Option<RetryReason>,
    said_at: Option<Instant>,
}

impl DeliveryLog {
    fn failed(&mut self, class: Class, because: RetryReason, message: &str, after: Duration) {
        let changed = self.failing.replace(because) != Some(because);
        if !self.may_say() && !changed {
            debug!(class = class.as_str(), ?because, message, ?after, "delivery failed again");
            return;
        }
        let class = class.as_str();
        match because {
            RetryReason::Unauthorized => {
                error!(
                    class,
                    message,
                    ?after,
                    "server does not accept this agent's token; check token_file here and there"
                );
            }
            RetryReason::Unexpected => {
                error!(class, message, ?after, "what answers is not a Petrel server; check servers in the config");
            }
            RetryReason::Unreachable | RetryReason::Busy => {
                warn!(class, ?because, message, ?after, "server takes nothing now; batches wait in the spool");
            }
        }
    }

    /// Returns whether this is the first one after a failure.
    fn delivered(&mut self, batch: &Batch, delivered: &Delivered) -> bool {
        let is_back = self.failing.take().is_some();
        if is_back {
            info!(class = batch.class.as_str(), seq = batch.seq, "server takes batches again");
        }
        if delivered.rejected > 0 && self.may_say() {
            warn!(
                class = batch.class.as_str(),
                seq = batch.seq,
                rejected = delivered.rejected,
                reason = delivered.message,
                "server left out a part of a batch"
            );
        }
        is_back
    }

    fn may_say(&mut self) -> bool {
        let now = Instant::now();
        let due = self.said_at.is_none_or(|at| now.duration_since(at) >= LOG_EVERY);
        if due {
            self.said_at = Some(now);
        }
        due
    }
}
