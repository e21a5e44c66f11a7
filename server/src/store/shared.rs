//! What the writer thread, sealing and queries share, and the limits at the door.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::mpsc;

use super::days::Days;
use super::head::{Day, day_of};
use super::index::{Index, Series};
use super::journal::{Position, first_position};
use super::metadata::Metadata;
use super::options::StoreOptions;
use super::rollup::Rollups;
use super::{Accepted, Batch, RefusedReason, Row};
use crate::query::source::MetricMetadata;
use crate::series::{Labels, Sample, Timestamp};
use crate::store::control::Control;
use crate::telemetry;

/// Batches that may wait for the writer.
pub const QUEUE_BATCHES_MAX: usize = 1_024;
/// Samples, with every series counted as 32 of them for its labels, that may wait for the writer: about 128 MiB.
const QUEUE_WEIGHT_MAX: usize = 8 << 20;

/// What a sample weighs in a waiting batch, and what the bytes of labels and metadata are measured by.
const SAMPLE_BYTES: usize = 16;

/// Why a batch was not accepted. Nothing of it was stored.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Too much waits to be committed.
    #[error("{batches} batches wait to be committed; send again later")]
    QueueFull {
        /// How many.
        batches: usize,
    },
    /// The disk has no room.
    #[error("disk of {dir} is full; free space or shorten the retention, and send again later")]
    DiskFull {
        /// The data directory.
        dir: PathBuf,
        /// SQLite's word.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The disk has less room than is kept for alerts and runs.
    #[error(
        "disk of {dir} has {free_bytes} bytes free, less than the reserve of {reserve_bytes}; free space or shorten the retention, and send again later"
    )]
    DiskReserve {
        /// The data directory.
        dir: PathBuf,
        /// Free bytes.
        free_bytes: u64,
        /// `store.disk_reserve`.
        reserve_bytes: u64,
    },
    /// The journal could not be written.
    #[error("journal in {dir} cannot be written; check the disk")]
    Journal {
        /// The data directory.
        dir: PathBuf,
        /// SQLite's word.
        #[source]
        source: Arc<rusqlite::Error>,
    },
    /// The batch could not be compressed.
    #[error("batch cannot be compressed")]
    Encode {
        /// zstd's word.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// More agents than any fleet has, most likely one that makes up ids.
    #[error("too many agent ids are known; find the sender that makes up new ones")]
    TooManyAgents,
    /// The store is being closed.
    #[error("server is stopping; send again later")]
    Closed,
}

impl AppendError {
    /// Whether the same batch may be accepted later as it is.
    pub fn is_transient(&self) -> bool {
        !matches!(self, AppendError::TooManyAgents)
    }
}

/// Instants that are accepted now.
#[derive(Debug, Clone)]
pub struct Allowed {
    from: Timestamp,
    to: Timestamp,
    /// Days that take no samples any more.
    closed: Arc<BTreeSet<Day>>,
}

impl Allowed {
    /// Why an instant is refused, `None` where it is not.
    pub fn check(&self, t: Timestamp) -> Option<RefusedReason> {
        if t < self.from {
            Some(RefusedReason::TooOld)
        } else if t > self.to {
            Some(RefusedReason::Future)
        } else if self.closed.last().is_some_and(|newest| day_of(t) <= *newest) && self.closed.contains(&day_of(t)) {
            Some(RefusedReason::Closed)
        } else {
            None
        }
    }
}

/// The state that threads share. Locks are taken in the order `gate`, `index`, a series' head; none is held across a read or
/// write of a file except `gate`, which queries never take.
pub struct Shared {
    /// The data directory.
    pub dir: PathBuf,
    /// Settings.
    pub options: StoreOptions,
    /// The control database.
    pub control: Arc<Control>,
    /// Which series there are.
    pub index: RwLock<Index>,
    /// Samples files.
    pub days: Days,
    /// Rollups' files.
    pub rollups: Rollups,
    /// Held by the writer from finding series to applying samples, and by whoever forgets series.
    pub gate: Mutex<()>,
    /// What senders told about metrics.
    pub metadata: Mutex<Metadata>,
    /// Number of the journal file that is being written, or will be with the next commit.
    journal_active: AtomicU64,
    /// Journal files up to this number hold nothing that is not sealed, and their marks are in `control.db`.
    pub journal_sealed: AtomicU64,
    /// Journal files from this number on are kept although they are sealed, for whoever reads them in order (`backlog`).
    pub journal_kept: AtomicU64,
    /// End of the newest day that was unlinked, as far as this start knows.
    pub unlinked_before: AtomicI64,
    /// Days that take no samples any more (`unlinked`).
    pub closed: RwLock<Arc<BTreeSet<Day>>>,
    /// Memory is scarce: no series are added, and heads are sealed while they are shorter.
    pub memory_tight: AtomicBool,
    /// Every record up to this position is in the heads, whole.
    applied: AtomicU64,
    queue_batches: AtomicUsize,
    queue_weight: AtomicUsize,
    taps: Mutex<Vec<mpsc::Sender<Accepted>>>,
}

impl Shared {
    /// The state at the start; `journal` is the number of the first file to be written.
    pub fn new(dir: PathBuf, options: StoreOptions, control: Arc<Control>, (days, rollups): (Days, Rollups)) -> Shared {
        Shared {
            dir,
            options,
            control,
            index: RwLock::default(),
            days,
            rollups,
            gate: Mutex::default(),
            metadata: Mutex::default(),
            journal_active: AtomicU64::new(1),
            journal_sealed: AtomicU64::new(0),
            journal_kept: AtomicU64::new(u64::MAX),
            unlinked_before: AtomicI64::new(i64::MIN),
            closed: RwLock::default(),
            memory_tight: AtomicBool::new(false),
            applied: AtomicU64::new(0),
            queue_batches: AtomicUsize::new(0),
            queue_weight: AtomicUsize::new(0),
            taps: Mutex::default(),
        }
    }

    /// Number of the journal file that is being written or comes next.
    pub fn active_journal(&self) -> u64 {
        self.journal_active.load(Ordering::SeqCst)
    }

    /// The active journal file gets no more records.
    pub fn next_journal(&self) {
        self.journal_active.fetch_add(1, Ordering::SeqCst);
    }

    /// Sets the number of the first file, before the writer starts; what was replayed is in the heads.
    pub fn set_active_journal(&self, number: u64) {
        self.journal_active.store(number, Ordering::SeqCst);
        self.applied.store(first_position(number) - 1, Ordering::SeqCst);
    }

    /// The position up to which every record is in the heads, whole. A head that has samples of a later one may get more of it.
    pub fn applied(&self) -> Position {
        self.applied.load(Ordering::SeqCst)
    }

    /// All of a record is in the heads.
    pub fn set_applied(&self, position: Position) {
        self.applied.fetch_max(position, Ordering::SeqCst);
    }

    /// Takes room in the queue for a batch.
    pub fn enter_queue(&self, batch: &Batch) -> Result<(), AppendError> {
        let weight = weight(batch);
        let batches = self.queue_batches.fetch_add(1, Ordering::Relaxed) + 1;
        let waiting = self.queue_weight.fetch_add(weight, Ordering::Relaxed) + weight;
        // A batch that alone is above the limit still passes when nothing waits.
        if batches > QUEUE_BATCHES_MAX || (waiting > QUEUE_WEIGHT_MAX && batches > 1) {
            self.give_back(weight);
            return Err(AppendError::QueueFull { batches: batches - 1 });
        }
        Ok(())
    }

    /// How full the queue is, 0 to 1.
    pub fn queue_share(&self) -> f64 {
        let share = |waiting: &AtomicUsize, most: usize| waiting.load(Ordering::Relaxed) as f64 / most as f64;
        share(&self.queue_batches, QUEUE_BATCHES_MAX).max(share(&self.queue_weight, QUEUE_WEIGHT_MAX))
    }

    /// Gives the room back; returns the batch's number of samples.
    pub fn leave_queue(&self, batch: &Batch) -> usize {
        self.give_back(weight(batch));
        batch.rows.len() + batch.series.iter().map(|(_, samples)| samples.len()).sum::<usize>()
    }

    fn give_back(&self, weight: usize) {
        self.queue_batches.fetch_sub(1, Ordering::Relaxed);
        self.queue_weight.fetch_sub(weight, Ordering::Relaxed);
    }

    /// Refuses while the disk has less than the reserve.
    pub fn check_disk(&self) -> Result<(), AppendError> {
        // Where the file system does not tell, the commit itself will.
        let Some(free_bytes) = self.free_bytes() else { return Ok(()) };
        let reserve_bytes = self.options.disk_reserve_bytes;
        if free_bytes < reserve_bytes {
            return Err(AppendError::DiskReserve { dir: self.dir.clone(), free_bytes, reserve_bytes });
        }
        Ok(())
    }

    /// Bytes that the data directory's disk has left for us.
    pub fn free_bytes(&self) -> Option<u64> {
        rustix::fs::statvfs(&self.dir).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Whether the disk has room for some bytes beside the reserve and a quarter of it, so that samples are taken on.
    pub fn has_room(&self, bytes: u64) -> bool {
        let reserve = self.options.disk_reserve_bytes;
        self.free_bytes().is_none_or(|free| free >= bytes.saturating_add(reserve).saturating_add(reserve / 4))
    }

    /// Bytes of all files of the data directory.
    pub fn disk_bytes(&self) -> u64 {
        let files = std::fs::read_dir(&self.dir).into_iter().flatten().filter_map(Result::ok);
        files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// Which instants are accepted.
    pub fn allowed(&self, now: Timestamp, future_ms_max: i64) -> Allowed {
        let from = match self.options.retention {
            None => 0,
            Some(retention) => now.saturating_sub(i64::try_from(retention.as_millis()).unwrap_or(i64::MAX)).max(0),
        };
        let closed = Arc::clone(&self.closed.read().unwrap_or_else(PoisonError::into_inner));
        Allowed { from, to: now.saturating_add(future_ms_max), closed }
    }

    /// Finds each label set's series, making it where the limits leave room for one more; the limit that was met where not. The
    /// server's own have room however scarce memory is.
    pub fn resolve(&self, series: &[(Labels, Vec<Sample>)], is_own: bool) -> Vec<Result<Arc<Series>, RefusedReason>> {
        let mut found: Vec<Result<Arc<Series>, RefusedReason>> = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            series.iter().map(|(labels, _)| index.get(labels).cloned().ok_or(RefusedReason::SeriesLimit)).collect()
        };
        if found.iter().any(Result::is_err) {
            let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
            for (found, (labels, _)) in found.iter_mut().zip(series) {
                if found.is_err() {
                    *found = self.admit(&mut index, labels, is_own);
                }
            }
        }
        found
    }

    /// The series with these labels, made where the limits leave room.
    fn admit(&self, index: &mut Index, labels: &Labels, is_own: bool) -> Result<Arc<Series>, RefusedReason> {
        if index.get(labels).is_none() {
            if !is_own && self.memory_tight.load(Ordering::Relaxed) {
                return Err(RefusedReason::MemoryLimit);
            }
            if index.len() >= self.options.series_max {
                return Err(RefusedReason::SeriesLimit);
            }
            // Series without an instance, such as those of guests, count in all alone.
            let instance = labels.get("instance").unwrap_or_default();
            if !instance.is_empty() && index.count("instance", instance) >= self.options.series_per_source_max {
                return Err(RefusedReason::SourceLimit);
            }
        }
        Ok(index.get_or_add(labels))
    }

    /// Takes what a batch told about metrics.
    pub fn learn(&self, told: Vec<(String, MetricMetadata)>) {
        if !told.is_empty() {
            let left_out = self.metadata.lock().unwrap_or_else(PoisonError::into_inner).learn(told);
            telemetry::STORE_METADATA_DROPPED.inc_by(left_out);
        }
    }

    /// Adds a reader of what is accepted from now on.
    pub fn add_tap(&self, groups_max: usize) -> mpsc::Receiver<Accepted> {
        let (sender, receiver) = mpsc::channel(groups_max);
        self.taps.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        receiver
    }

    /// Passes accepted samples on; a reader that is behind misses them, which is counted.
    pub fn feed_taps(&self, accepted: Vec<Row>) {
        let mut taps = self.taps.lock().unwrap_or_else(PoisonError::into_inner);
        if taps.is_empty() || accepted.is_empty() {
            return;
        }
        let fed: Accepted = Arc::new(accepted);
        taps.retain(|tap| match tap.try_send(Arc::clone(&fed)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                telemetry::STORE_TAP_DROPPED.inc_by(fed.len() as u64);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
    }
}

fn weight(batch: &Batch) -> usize {
    let series =
        batch.series.iter().map(|(labels, samples)| samples.len() + 32 + labels.as_wire().len() / SAMPLE_BYTES);
    let told =
        batch.metadata.iter().map(|(name, told)| (name.len() + told.help.len() + told.unit.len()) / SAMPLE_BYTES + 8);
    batch.rows.len() + series.sum::<usize>() + told.sum::<usize>()
}
