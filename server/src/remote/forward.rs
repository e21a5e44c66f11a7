//! Sends what the journals have, in order: reads a window of records, sends its parcels shard by shard, and only when all of it is
//! settled moves the cursor and lets the journals go. While the remote engine takes nothing everything waits in the journals, up to
//! a bound. Samples go at least once: after a crash the last window goes again.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use petrel_agent::error_chain::chain;
use reqwest::Url;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Post, RequestError};
use super::config::RemoteConfig;
use super::cursor::Cursor;
use super::delivery::{Backoff, Became, Delivery, Outcome, outcome};
use super::parcel::{Packer, Parcel};
use crate::store::Store;
use crate::store::backlog::{Backlog, Position, ReplayError};
use crate::telemetry;

/// Parcels of a shard in one window: enough that the end of a window, where shards wait for each other, is rare.
const PARCELS_PER_WINDOW: usize = 4;
/// Between looks for new records.
const IDLE: Duration = Duration::from_millis(200);
/// Least time between two log lines of the same kind.
const TOLD_EVERY: Duration = Duration::from_secs(60);
const HEADERS: &[(&str, &str)] = &[
    ("Content-Type", "application/x-protobuf"),
    ("Content-Encoding", "snappy"),
    ("X-Prometheus-Remote-Write-Version", "0.1.0"),
];

/// The sending side.
pub struct Forwarder {
    sender: Sender,
    cursor: Cursor,
    /// Away only while it is read on a blocking thread.
    backlog: Option<Backlog>,
    window_samples: usize,
    queue_bytes_max: u64,
    linger: Duration,
    backoff: Backoff,
    /// When everything committed had been sent.
    caught_up: Instant,
    is_failing: bool,
    told: Option<Instant>,
}

struct Sender {
    client: Arc<Client>,
    url: Url,
    timeout: Duration,
    batch_samples: usize,
    shards: usize,
    /// When a refusal was told last.
    told: Cell<Option<Instant>>,
}

/// Records on their way.
struct Window {
    shards: Vec<VecDeque<(Arc<Parcel>, Delivery)>>,
    samples: usize,
    /// The record it ends with.
    through: Position,
}

/// What one reading of the journals found.
struct Found {
    packer: Packer,
    samples: usize,
    through: Option<Position>,
    /// Samples given up, and the record up to which they are.
    dropped: Option<(u64, Position)>,
    problems: Vec<ReplayError>,
    bytes: u64,
}

/// What became of an attempt at a window.
enum Attempt {
    Settled,
    Failed { after: Option<Duration>, error: RequestError },
}

impl Forwarder {
    /// Begins at the cursor; `None` where nothing is to be sent.
    pub fn new(config: &RemoteConfig, client: Arc<Client>, store: &Store, cursor: Cursor) -> Option<Forwarder> {
        let url = config.write_url.clone()?;
        let (batch_samples, shards) = (config.batch_samples, config.shards);
        Some(Forwarder {
            sender: Sender { client, url, timeout: config.write_timeout, batch_samples, shards, told: Cell::new(None) },
            backlog: Some(store.backlog(cursor.position)),
            cursor,
            window_samples: batch_samples * shards * PARCELS_PER_WINDOW,
            queue_bytes_max: config.queue_bytes_max,
            linger: config.linger,
            backoff: Backoff::default(),
            caught_up: Instant::now(),
            is_failing: false,
            told: None,
        })
    }

    /// Sends until `cancel`. What is under way then goes again after the next start.
    pub async fn run(mut self, cancel: &CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.send_for_ever() => {}
        }
    }

    async fn send_for_ever(&mut self) {
        let mut window: Option<Window> = None;
        loop {
            // Also while a window waits: the queue has its bound whatever the remote engine does.
            let Some(found) = self.look(window.is_none()).await else { return };
            if window.is_none() {
                window = self.take(found);
            }
            telemetry::REMOTE_LAG_SECONDS.set(self.caught_up.elapsed().as_secs() as i64);
            let Some(open) = &mut window else {
                tokio::time::sleep(IDLE).await;
                continue;
            };
            match self.sender.attempt(open).await {
                Attempt::Settled => {
                    let (through, is_small) = (open.through, open.samples < self.sender.batch_samples);
                    window = None;
                    self.settled(through);
                    if is_small {
                        tokio::time::sleep(self.linger).await;
                    }
                }
                Attempt::Failed { after, error } => {
                    let pause = self.failed(&error, after);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Keeps the queue within its bound, and reads the next records where `read`. `None` after a defect of ours.
    async fn look(&mut self, read: bool) -> Option<Found> {
        let mut backlog = self.backlog.take()?;
        let (queue_bytes_max, samples_max) = (self.queue_bytes_max, if read { self.window_samples } else { 0 });
        let packer = Packer::new(self.sender.batch_samples, self.sender.shards);
        let looked = tokio::task::spawn_blocking(move || {
            let mut found = Found {
                packer,
                samples: 0,
                through: None,
                dropped: None,
                problems: Vec::new(),
                bytes: backlog.bytes(),
            };
            found.shorten(&mut backlog, queue_bytes_max);
            found.gather(&mut backlog, samples_max);
            (backlog, found)
        });
        match looked.await {
            Ok((backlog, found)) => {
                self.backlog = Some(backlog);
                self.account(&found);
                Some(found)
            }
            Err(error) => {
                tracing::error!(%error, "samples are not sent to the remote engine any more; please report what stands above");
                None
            }
        }
    }

    /// Counts and tells what reading found.
    fn account(&mut self, found: &Found) {
        telemetry::REMOTE_QUEUE_BYTES.set(i64::try_from(found.bytes).unwrap_or(i64::MAX));
        for problem in &found.problems {
            tracing::error!(error = chain(problem), "samples in a journal cannot be sent to the remote engine");
        }
        if let Some((samples, through)) = found.dropped {
            count("dropped", samples);
            tracing::error!(
                samples,
                queue_max = self.queue_bytes_max,
                "queue of the remote engine is full; its oldest samples are not sent, the local store has them until its retention ends"
            );
            self.move_to(through);
        }
    }

    fn take(&mut self, found: Found) -> Option<Window> {
        let Some(through) = found.through else {
            if found.problems.is_empty() {
                self.caught_up = Instant::now();
            }
            return None;
        };
        let deliver = |parcel: Parcel| {
            let delivery = Delivery::new(parcel.len());
            (Arc::new(parcel), delivery)
        };
        let shards = found.packer.finish().into_iter().map(|parcels| parcels.into_iter().map(deliver).collect());
        Some(Window { shards: shards.collect(), samples: found.samples, through })
    }

    fn settled(&mut self, through: Position) {
        self.backoff.reset();
        if std::mem::take(&mut self.is_failing) {
            tracing::info!("remote engine takes samples again");
        }
        self.move_to(through);
    }

    fn move_to(&mut self, position: Position) {
        if self.cursor.position.is_some_and(|at| at >= position) {
            return;
        }
        match self.cursor.advance(position) {
            Ok(()) => {
                if let Some(backlog) = &self.backlog {
                    backlog.release(position);
                }
            }
            // The next window moves it past this one; until then a restart sends this one again.
            Err(error) => tracing::warn!(error = chain(&error), "cursor of the remote engine is not saved yet"),
        }
    }

    /// Tells of a failure, and how long to wait.
    fn failed(&mut self, error: &RequestError, after: Option<Duration>) -> Duration {
        telemetry::REMOTE_WRITE_FAILURES.inc();
        let is_due = self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY);
        if !self.is_failing || is_due {
            tracing::warn!(error = chain(error), "remote engine takes no samples; they wait in the journals");
            self.told = Some(Instant::now());
        }
        self.is_failing = true;
        self.backoff.pause(after)
    }
}

impl Found {
    /// Gives up the oldest files while more waits than may. The file that is being written is never given up.
    fn shorten(&mut self, backlog: &mut Backlog, queue_bytes_max: u64) {
        while self.bytes > queue_bytes_max && backlog.is_behind() {
            match backlog.drop_file() {
                Ok(samples) => {
                    let before = self.dropped.map_or(0, |(samples, _)| samples);
                    self.dropped = Some((before + samples, backlog.position()));
                }
                Err(error) => {
                    self.problems.push(error);
                    return;
                }
            }
            self.bytes = backlog.bytes();
        }
    }

    fn gather(&mut self, backlog: &mut Backlog, samples_max: usize) {
        while self.samples < samples_max {
            match backlog.read() {
                Ok(Some(record)) => {
                    for (labels, samples) in &record.series {
                        self.samples += samples.len();
                        self.packer.add(labels, samples);
                    }
                    self.through = Some(record.position);
                }
                Ok(None) => return,
                Err(error) => {
                    let goes_on = matches!(error, ReplayError::Record { .. });
                    self.problems.push(error);
                    if !goes_on {
                        return;
                    }
                }
            }
        }
    }
}

impl Sender {
    /// Sends what is left of a window, all shards at the same time, each until its first failure.
    async fn attempt(&self, window: &mut Window) -> Attempt {
        let shards = join_all(window.shards.iter_mut().map(|shard| self.send_shard(shard))).await;
        let mut worst: Option<(Option<Duration>, RequestError)> = None;
        for (after, error) in shards.into_iter().flatten() {
            if worst.as_ref().is_none_or(|(longest, _)| after > *longest) {
                worst = Some((after, error));
            }
        }
        worst.map_or(Attempt::Settled, |(after, error)| Attempt::Failed { after, error })
    }

    /// Returns the failure that stopped it.
    async fn send_shard(
        &self,
        shard: &mut VecDeque<(Arc<Parcel>, Delivery)>,
    ) -> Option<(Option<Duration>, RequestError)> {
        while let Some((parcel, delivery)) = shard.front_mut() {
            let Some(part) = delivery.next() else {
                shard.pop_front();
                continue;
            };
            let (whole, wanted) = (Arc::clone(parcel), part.clone());
            // Encoding is work for a processor; the runtime's one thread carries all requests.
            let body = match aside(move || whole.body(wanted)).await {
                Ok(body) => body,
                // It stays, and so does what is behind it; the failure is counted and told with the next pause.
                Err(error) => return Some((None, error)),
            };
            let post = Post { url: self.url.clone(), headers: HEADERS, body, timeout: self.timeout };
            let sent = self.client.post(post).await;
            let said = match &sent {
                Ok(_) => Outcome::Taken,
                Err(RequestError::Status { status, retry_after, .. }) => outcome(*status, *retry_after),
                Err(_) => Outcome::Failed { after: None },
            };
            match (delivery.step(said), sent) {
                (Became::Sent(samples), _) => count("sent", samples as u64),
                (Became::Refused(samples), sent) => {
                    count("refused", samples as u64);
                    self.tell_refused(samples, sent.err().as_ref());
                }
                (Became::Kept, Err(error)) => {
                    let Outcome::Failed { after } = said else { return Some((None, error)) };
                    return Some((after, error));
                }
                (Became::Split | Became::Kept, _) => {}
            }
        }
        None
    }

    /// One refusal a minute stands for those that follow it; the counter has them all.
    fn tell_refused(&self, samples: usize, error: Option<&RequestError>) {
        if self.told.get().is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            return;
        }
        self.told.set(Some(Instant::now()));
        if let Some(error) = error {
            tracing::error!(
                samples,
                error = chain(error),
                "samples are refused by the remote engine and not sent again"
            );
        }
    }
}

/// Runs work on a thread of its own.
///
/// # Errors
/// It panicked, or the runtime ends.
async fn aside(work: impl FnOnce() -> Vec<u8> + Send + 'static) -> Result<Vec<u8>, RequestError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| RequestError::NotEncoded { why: error.to_string() })
}

fn count(outcome: &str, samples: u64) {
    telemetry::REMOTE_SAMPLES.with_label_values(&[outcome]).inc_by(samples);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_that_cannot_be_made_is_an_error_and_not_an_empty_one() {
        assert_eq!(aside(|| vec![1]).await.unwrap(), [1]);
        let error = aside(|| panic!("of a test")).await.unwrap_err();
        assert!(matches!(&error, RequestError::NotEncoded { why } if why.contains("panic")), "{error}");
    }
}
