//! Spool: frozen batches on disk, within a budget, until the server has acknowledged them. A batch that `append` returned
//! for is synced: it survives `kill -9` and power loss, is sent with the same bytes and number each time, and leaves only
//! by acknowledgement, by the budget (metrics first, then logs, never answers), or because the server refused it for good.
//! docs/formats/spool.md specifies the files. All calls block on disk: use [`SharedSpool`] from async code.

mod disk;
mod dropped;
mod queue;
mod segment;
mod shared;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use petrel_models::Timestamp;
use tracing::{info, warn};

use crate::stream::protocol::Class;
use disk::{Disk, Folder, Mode, read_all};
pub use dropped::Dropped;
use dropped::{Episode, News};
use queue::{Front, Queue};
pub use segment::hostile;
pub use shared::{Owned, SharedSpool};

/// A segment is full at a sixteenth of the budget, so that dropping the oldest one takes little; never above this, so that
/// acknowledged space comes back soon.
const SEGMENT_BYTES_MAX: u64 = 4 << 20;
/// Below this the files' own headers and syncs would cost more than they hold.
const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// What a batch's frame and a segment's header take beside body and state; rounded up.
const FRAMES_BYTES: u64 = 64;
/// Answers that may wait. One order makes two; more than this means that the server takes none, and the agent refuses orders.
const ANSWERS_PENDING_MAX: u64 = 256;

/// The spool of one agent. One process at a time: the directory is locked.
pub struct Spool {
    epoch: String,
    budget_bytes: u64,
    segment_bytes_max: u64,
    queues: [Queue; 3],
    /// Since the start, but for what the budget dropped: that is with the queues.
    dropped: BTreeMap<(Class, DropReason), Dropped>,
    episode: Episode,
    /// Held for as long as the spool is open.
    _lock: Option<File>,
}

/// What is to be kept: never changed afterwards.
#[derive(Debug, Clone, Copy)]
pub struct Frozen<'a> {
    /// Samples, log records or answers in `body`.
    pub records: u32,
    /// Where the reader of the source stands once this batch is kept; comes back from [`Spool::state`] after a restart.
    pub state: &'a [u8],
    /// The request body as it will be sent.
    pub body: &'a [u8],
}

/// A batch as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its class.
    pub class: Class,
    /// Its number in the class.
    pub seq: u64,
    /// When it was spooled.
    pub spooled_at: Timestamp,
    /// Samples, log records or answers in it.
    pub records: u32,
    /// The request body.
    pub body: Bytes,
}

/// Why a batch left without the server having taken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// It was among the oldest when the disk budget was met.
    Budget,
    /// It came when the disk budget was full of what must not go for it.
    Full,
    /// It could not be written: disk full or failing.
    Disk,
    /// What was read back is not what was written.
    Damaged,
    /// The server refused it for good.
    Refused,
}

/// The spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenSpoolError {
    /// Another agent runs on the directory.
    #[error("spool {path} is in use by another petrel-agent; stop it, or give this one a state_dir of its own")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Its files cannot be read or written.
    #[error("spool {path} cannot be opened; check the directory's owner and free space")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
}

/// A batch was not kept, and was counted as dropped.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The budget is full of what must not be dropped for this batch.
    #[error("spool budget of {budget_bytes} bytes is full; raise spool.budget, or see why the server takes nothing")]
    Full {
        /// The budget.
        budget_bytes: u64,
    },
    /// The disk is full or fails.
    #[error("spool cannot be written; check free space of state_dir")]
    Io(#[source] io::Error),
}

impl DropReason {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            DropReason::Budget => "budget",
            DropReason::Full => "full",
            DropReason::Disk => "disk",
            DropReason::Damaged => "damaged",
            DropReason::Refused => "refused",
        }
    }
}

impl Spool {
    /// Opens the spool in `dir`, or gives birth to one, whose epoch is then `epoch_at_birth`.
    ///
    /// # Errors
    /// Another process has it open, or its files cannot be read or written.
    pub fn open(dir: &Path, budget_bytes: u64, epoch_at_birth: &str) -> Result<Spool, OpenSpoolError> {
        let failed = |source| OpenSpoolError::Io { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(failed)?;
        let lock = File::create(dir.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenSpoolError::InUse { path: dir.to_owned() },
            TryLockError::Error(source) => failed(source),
        })?;
        let disk: Arc<dyn Disk> = Arc::new(Folder(dir.to_owned()));
        let spool = Spool::open_on(&disk, budget_bytes, epoch_at_birth).map_err(failed)?;
        Ok(Spool { _lock: Some(lock), ..spool })
    }

    fn open_on(disk: &Arc<dyn Disk>, budget_bytes: u64, epoch_at_birth: &str) -> io::Result<Spool> {
        let epoch = read_or_write_epoch(&**disk, epoch_at_birth)?;
        // A file that an earlier process renamed is found, and may yet be gone after a power failure: what it replaces, and carries on
        // the numbers of, may not be unlinked before.
        disk.sync_names()?;
        let mut dropped = BTreeMap::new();
        let mut open = |class| -> io::Result<Queue> {
            let (queue, lost) = Queue::open(Arc::clone(disk), class)?;
            if lost > 0 {
                dropped.insert((class, DropReason::Damaged), Dropped { batches: lost, records: 0 });
            }
            Ok(queue)
        };
        let queues = [open(Class::Answers)?, open(Class::Logs)?, open(Class::Metrics)?];
        let segment_bytes_max = (budget_bytes / 16).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        let episode = Episode::new(by_budget(&queues));
        Ok(Spool { epoch, budget_bytes, segment_bytes_max, queues, dropped, episode, _lock: None })
    }

    /// Random number of this spool, in lower-case hexadecimal; the header `Petrel-Epoch`.
    pub fn epoch(&self) -> &str {
        &self.epoch
    }

    /// Keeps a batch and syncs it to disk; returns its number. Makes room within the budget by dropping the oldest metrics,
    /// then the oldest logs. What cannot be kept is counted.
    ///
    /// # Errors
    /// The batch was not kept.
    pub fn append(&mut self, class: Class, frozen: &Frozen<'_>, now: Timestamp) -> Result<u64, AppendError> {
        // The state may be written twice: with the batch, and in the header of a segment that it starts.
        let bytes = FRAMES_BYTES + frozen.body.len() as u64 + 2 * frozen.state.len() as u64;
        let room = self.make_room(class, bytes, frozen.records);
        self.tell();
        let segment_bytes_max = self.segment_bytes_max;
        let kept =
            room.and_then(|()| self.queue(class).append(frozen, now, segment_bytes_max).map_err(AppendError::Io));
        if matches!(kept, Err(AppendError::Io(_))) {
            self.count(class, DropReason::Disk, Dropped::one(frozen.records));
        }
        kept
    }

    /// The oldest batch of a class that is not acknowledged. Damaged ones are skipped and counted.
    ///
    /// # Errors
    /// The file cannot be read now.
    pub fn front(&mut self, class: Class) -> io::Result<Option<Batch>> {
        loop {
            match self.queue(class).front()? {
                Front::Batch(batch) => return Ok(Some(batch)),
                Front::Empty => return Ok(None),
                Front::Damaged(dropped) => self.count(class, DropReason::Damaged, dropped),
            }
        }
    }

    /// The server has committed everything up to `seq`: forget it.
    ///
    /// # Errors
    /// The note of it cannot be written; after a restart the batches are sent again and the server ignores them.
    pub fn acknowledge(&mut self, class: Class, seq: u64) -> io::Result<()> {
        let segment_bytes_max = self.segment_bytes_max;
        let noted = self.queue(class).acknowledge(seq, segment_bytes_max);
        self.tell();
        noted
    }

    /// The server refused the oldest batch for good: forget it and count it.
    ///
    /// # Errors
    /// As [`Spool::acknowledge`].
    pub fn refuse(&mut self, class: Class, seq: u64) -> io::Result<()> {
        let records = self.queue(class).front_records();
        self.count(class, DropReason::Refused, Dropped::one(records));
        self.acknowledge(class, seq)
    }

    /// The state that came with the last batch kept of this class, acknowledged or not; empty before the first.
    pub fn state(&self, class: Class) -> &[u8] {
        self.queues[index(class)].state()
    }

    /// Batches of a class that wait for their acknowledgement.
    pub fn pending(&self, class: Class) -> u64 {
        self.queues[index(class)].pending()
    }

    /// Whether no further order may be taken, because its answers might not be kept.
    pub fn answers_full(&self) -> bool {
        self.pending(Class::Answers) >= ANSWERS_PENDING_MAX
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.queues.iter().map(Queue::bytes).sum()
    }

    /// What left without the server having taken it: for the budget since the spool was born, else since the start.
    pub fn dropped(&self) -> BTreeMap<(Class, DropReason), Dropped> {
        let mut all = self.dropped.clone();
        for class in Class::ALL {
            let (oldest, newest) = self.queues[index(class)].dropped();
            for (reason, dropped) in [(DropReason::Budget, oldest), (DropReason::Full, newest)] {
                if dropped.batches > 0 {
                    all.insert((class, reason), dropped);
                }
            }
        }
        all
    }

    fn make_room(&mut self, class: Class, bytes: u64, records: u32) -> Result<(), AppendError> {
        // Answers are bounded by their number and always find room.
        if class == Class::Answers {
            return Ok(());
        }
        // Logs may push out metrics; metrics never push out logs.
        let victims: &[Class] = if class == Class::Logs { &[Class::Metrics, Class::Logs] } else { &[Class::Metrics] };
        let mut fits = bytes <= self.budget_bytes && bytes <= segment::FRAME_BYTES_MAX as u64;
        while fits && self.bytes() + bytes > self.budget_bytes {
            fits = false;
            for victim in victims {
                let dropped = self.queue(*victim).drop_oldest_segment().map_err(AppendError::Io)?;
                fits = dropped.batches > 0;
                if fits {
                    break;
                }
            }
        }
        if !fits {
            self.queue(class).refuse(records);
            return Err(AppendError::Full { budget_bytes: self.budget_bytes });
        }
        Ok(())
    }

    /// Says that the budget begins or ends to drop.
    fn tell(&mut self) {
        let has_room = self.bytes() <= self.budget_bytes / 4 * 3;
        match self.episode.step(by_budget(&self.queues), has_room) {
            Some(News::Begins) => warn!(
                budget_bytes = self.budget_bytes,
                "spool budget is met: the oldest samples go, then the oldest log lines"
            ),
            Some(News::Ends(Dropped { batches, records })) => {
                info!(batches, records, "spool has room again; so much was dropped");
            }
            None => {}
        }
    }

    fn count(&mut self, class: Class, reason: DropReason, dropped: Dropped) {
        self.dropped.entry((class, reason)).or_default().add(dropped);
    }

    fn queue(&mut self, class: Class) -> &mut Queue {
        &mut self.queues[index(class)]
    }
}

fn index(class: Class) -> usize {
    match class {
        Class::Answers => 0,
        Class::Logs => 1,
        Class::Metrics => 2,
    }
}

/// All that the budget dropped.
fn by_budget(queues: &[Queue]) -> Dropped {
    let mut total = Dropped::default();
    for (oldest, newest) in queues.iter().map(Queue::dropped) {
        total.add(oldest);
        total.add(newest);
    }
    total
}

/// The epoch stands before the first batch does: written beside, synced, then renamed.
fn read_or_write_epoch(disk: &dyn Disk, epoch_at_birth: &str) -> io::Result<String> {
    match read_all(disk, "epoch").map(String::from_utf8) {
        Ok(Ok(epoch)) if is_epoch(&epoch) => return Ok(epoch),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = disk.open("epoch.fresh", Mode::Fresh)?;
    file.write_at(epoch_at_birth.as_bytes(), 0)?;
    file.sync()?;
    disk.rename("epoch.fresh", "epoch")?;
    disk.sync_names()?;
    Ok(epoch_at_birth.to_owned())
}

fn is_epoch(text: &str) -> bool {
    !text.is_empty() && text.len() <= 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod faults_tests;

#[cfg(test)]
mod tests;
