//! The store's life: open (lock, load, replay), append, close. Maintenance is in `maintain`, reading in `select`.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::control::{Control, ControlError, Migration};
use super::days::{DayError, Days};
use super::head::DAY_MS;
use super::index::{Finder, Index, Series, SeriesId};
use super::journal::{self, ReplayError};
use super::lock::{self, DirectoryLock, LockError};
use super::maintain::Maintenance;
use super::marks;
use super::metadata::{self, Metadata};
use super::options::StoreOptions;
use super::rollup::Rollups;
use super::shared::{AppendError, QUEUE_BATCHES_MAX, Shared};
use super::unlinked::{self, UnlinkDayError};
use super::writer::{Message, Request, Writer};
use super::{Accepted, Batch, Committed, agents, backup, load, log_templates, loglines, restore, sqlite};
use crate::query::source::SelectError;
use crate::series::{Sample, Timestamp};

/// Highest number of a journal file that nothing needs any more but a backlog: all its samples are sealed and its marks are in
/// `control.db`. It is not replayed. Numbers, and so positions, never come twice.
const MIGRATION_FLOOR: Migration = (
    "store-journal-floor-1",
    "CREATE TABLE journal_floor (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL) STRICT;",
);

/// Room for the writer's other messages beside a full queue.
const QUEUE_SPARE: usize = 16;

/// Samples, log lines and the control database of one data directory. Share it as `Arc<Store>`.
pub struct Store {
    pub(super) shared: Arc<Shared>,
    pub(super) maintenance: Mutex<Maintenance>,
    queue: RwLock<Option<SyncSender<Message>>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<DirectoryLock>>,
}

/// The series that the store has at one time. No series comes or goes while this is held: hold it for one request, never across
/// a wait.
pub struct Known<'a> {
    index: RwLockReadGuard<'a, Index>,
    store: &'a Store,
}

impl Known<'_> {
    /// Finds series by the bytes of their labels (`Labels::as_wire`).
    pub fn finder(&self) -> Finder<'_> {
        self.index.finder()
    }

    /// The last sample of a series, from memory or from the newest day that has any of it.
    ///
    /// # Errors
    /// The day cannot be read.
    pub fn last(&self, series: &Arc<Series>) -> Result<Option<Sample>, SelectError> {
        self.store.last_sample(series)
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// Another process uses the directory, or it cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The control database failed.
    #[error("the data directory cannot be opened; if a file is damaged, `petrel repair` saves what can be read of it")]
    Control(#[from] ControlError),
    /// A samples file failed.
    #[error("the data directory cannot be opened; if a file is damaged, `petrel repair` saves what can be read of it")]
    Day(#[from] DayError),
    /// A day that the retention took could not be unlinked.
    #[error("the data directory cannot be opened")]
    Unlink(#[from] UnlinkDayError),
    /// A journal failed.
    #[error("the data directory cannot be opened; if a file is damaged, `petrel repair` saves what can be read of it")]
    Replay(#[from] ReplayError),
    /// The directory cannot be listed, or the writer thread cannot be started.
    #[error("data directory {dir} cannot be used")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// SQLite would drop transactions that were synced.
    #[error(
        "the log of {path} is damaged at frame {frame}; a start would drop {commits} commits behind it. `petrel repair` saves what can be read"
    )]
    DamagedLog {
        /// The database.
        path: PathBuf,
        /// Which frame.
        frame: u64,
        /// How many transactions.
        commits: u64,
    },
    /// A restore was cut off.
    #[error("a restore of a backup into {dir} did not finish; run `petrel restore FILE --replace` again")]
    RestoreUnfinished {
        /// The directory.
        dir: PathBuf,
    },
    /// Two files disagree about a series' number.
    #[error(
        "{path} gives number {id} to a series that has another one elsewhere; the data directory mixes files of two servers"
    )]
    SeriesConflict {
        /// The file.
        path: PathBuf,
        /// The number.
        id: SeriesId,
    },
}

/// Sizes of a store, for telemetry and the console.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Series known.
    pub series: u64,
    /// Samples in memory.
    pub head_samples: u64,
    /// Journal files.
    pub journals: u64,
    /// Bytes of all files of the data directory.
    pub disk_bytes: u64,
    /// Bytes that the disk has left.
    pub disk_bytes_free: u64,
    /// Free bytes below which samples are refused.
    pub disk_bytes_reserved: u64,
}

impl Store {
    /// Locks the directory, opens or creates its files, applies the store's own migrations and then those given, and replays the
    /// journals. `now` is only used to leave alone what retention will unlink.
    ///
    /// # Errors
    /// The directory is in use, or a file cannot be read.
    pub fn open(
        dir: &Path,
        options: StoreOptions,
        migrations: &[Migration],
        now: Timestamp,
    ) -> Result<Arc<Store>, OpenStoreError> {
        let lock = lock::lock(dir)?;
        let unusable = |source| OpenStoreError::Directory { dir: dir.to_owned(), source };
        if restore::is_unfinished(dir) {
            return Err(OpenStoreError::RestoreUnfinished { dir: dir.to_owned() });
        }
        backup::remove_staged(dir).map_err(unusable)?;
        load::check_logs(dir)?;
        let mut own = vec![MIGRATION_FLOOR, agents::MIGRATION, marks::MIGRATION, metadata::MIGRATION];
        own.extend(loglines::MIGRATIONS);
        own.extend([log_templates::MIGRATION, unlinked::MIGRATION]);
        own.extend(migrations);
        let control = Arc::new(Control::open(&dir.join("control.db"), &own)?);
        let days = Days::open(dir).map_err(unusable)?;
        for file in days.all() {
            if !file.is_born()? {
                days.unlink(file.day).map_err(unusable)?;
            }
        }
        let shared = Shared::new(dir.to_owned(), options, control, (days, Rollups::open(dir)?));
        if let (Some(_), Some(oldest)) = (shared.options.size_bytes_max, shared.days.all().first()) {
            // Days before it may have been unlinked for their size by an earlier start.
            shared.unlinked_before.store(i64::from(oldest.day) * DAY_MS, Ordering::SeqCst);
        }
        unlinked::resume(&shared)?;
        load::days(&shared)?;
        let journals = journal::list(dir).map_err(unusable)?;
        let marks = load::journals(&shared, &journals)?;
        *shared.metadata.lock().unwrap_or_else(PoisonError::into_inner) = Metadata::load(&shared.control)?;
        let shared = Arc::new(shared);
        let (sender, receiver) = sync_channel(QUEUE_BATCHES_MAX + QUEUE_SPARE);
        let writer = Writer::new(Arc::clone(&shared), marks);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(unusable)?;
        Ok(Arc::new(Store {
            shared,
            maintenance: Mutex::new(Maintenance::new(now)),
            queue: RwLock::new(Some(sender)),
            writer: Mutex::new(Some(thread)),
            lock: Mutex::new(Some(lock)),
        }))
    }

    /// Commits a batch; returns once it is synced to disk and visible to queries. Never blocks the caller's thread: a full
    /// queue is refused.
    ///
    /// # Errors
    /// Nothing of the batch was stored; [`AppendError::is_transient`] says whether to send it again.
    pub async fn append(&self, batch: Batch, now: Timestamp) -> Result<Committed, AppendError> {
        let (reply, answer) = oneshot::channel();
        self.submit(batch, now, move |result| {
            // A caller that went away does not need the answer.
            let _ = reply.send(result);
        })?;
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// As [`Store::append`], for threads that may block.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_blocking(&self, batch: Batch, now: Timestamp) -> Result<Committed, AppendError> {
        let (reply, answer) = sync_channel(1);
        self.submit(batch, now, move |result| {
            let _ = reply.send(result);
        })?;
        answer.recv().unwrap_or(Err(AppendError::Closed))
    }

    fn submit(
        &self,
        batch: Batch,
        now: Timestamp,
        reply: impl FnOnce(Result<Committed, AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = queue.as_ref() else { return Err(AppendError::Closed) };
        self.shared.enter_queue(&batch)?;
        let request = Request { batch, now, reply: Box::new(reply) };
        queue.try_send(Message::Append(request)).map_err(|refused| match refused {
            TrySendError::Full(message) => {
                self.leave_queue(&message);
                AppendError::QueueFull { batches: QUEUE_BATCHES_MAX }
            }
            TrySendError::Disconnected(message) => {
                self.leave_queue(&message);
                AppendError::Closed
            }
        })
    }

    fn leave_queue(&self, message: &Message) {
        if let Message::Append(request) = message {
            self.shared.leave_queue(&request.batch);
        }
    }

    /// Ends the journal file that is being written, when the writer comes to it.
    pub(super) fn rotate(&self) {
        if let Some(queue) = self.queue.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            // A writer that is gone has no file to end.
            let _ = queue.send(Message::Rotate);
        }
    }

    /// The series there are, for finding those of many samples at once.
    pub fn known(&self) -> Known<'_> {
        Known { index: self.shared.index.read().unwrap_or_else(PoisonError::into_inner), store: self }
    }

    /// The control database.
    pub fn control(&self) -> &Arc<Control> {
        &self.shared.control
    }

    /// Says whether memory is scarce. While it is, no series are added and heads are sealed while they are shorter; samples of known
    /// series are accepted as ever.
    pub fn set_memory_tight(&self, is_tight: bool) {
        self.shared.memory_tight.store(is_tight, Ordering::Relaxed);
    }

    /// How full the queue of the journal is, 0 to 1.
    pub fn queue_share(&self) -> f64 {
        self.shared.queue_share()
    }

    /// Whether memory is scarce.
    pub fn is_memory_tight(&self) -> bool {
        self.shared.memory_tight.load(Ordering::Relaxed)
    }

    /// Settings in force.
    pub fn options(&self) -> &StoreOptions {
        &self.shared.options
    }

    /// A feed of what is accepted from now on, each item after its commit. It never delays a commit: a reader that is more than
    /// `groups_max` items behind misses some, which `petrel_store_tap_dropped_samples_total` counts. Late samples are
    /// in it too; the reader compares their times with what it has seen.
    pub fn tap(&self, groups_max: usize) -> mpsc::Receiver<Accepted> {
        self.shared.add_tap(groups_max)
    }

    /// Sizes as they are now. O(series).
    pub fn stats(&self) -> StoreStats {
        let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
        let series = index.len() as u64;
        let head_samples = index.iter().map(|series| series.head().len() as u64).sum();
        drop(index);
        StoreStats {
            series,
            head_samples,
            journals: journal::list(&self.shared.dir).map_or(0, |journals| journals.len() as u64),
            disk_bytes: self.shared.disk_bytes(),
            disk_bytes_free: self.shared.free_bytes().unwrap_or(0),
            disk_bytes_reserved: self.shared.options.disk_reserve_bytes,
        }
    }

    /// Stops accepting, finishes what is queued, closes the files and gives the directory free. What is in memory is in the
    /// journals and comes back at the next start. Further calls do nothing.
    pub fn close(&self) {
        drop(self.queue.write().unwrap_or_else(PoisonError::into_inner).take());
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::error!("store writer ended by a panic; what it acknowledged is in the journals");
        }
        self.shared.write_metadata();
        self.shared.days.close_idle();
        self.shared.rollups.close_idle();
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Writes what senders told about metrics; on failure it is written at the next call.
    pub(super) fn write_metadata(&self) {
        let rows = self.metadata.lock().unwrap_or_else(PoisonError::into_inner).take_unwritten();
        if let Err(error) = metadata::write(&self.control, &rows) {
            tracing::warn!(error = &error as &dyn std::error::Error, "metric metadata is not written yet");
            self.metadata.lock().unwrap_or_else(PoisonError::into_inner).not_written(rows);
        }
    }
}

/// Moves the marks of a journal file to `control.db` and unlinks the file, unless a backlog still needs it. In this order: at
/// every instant a file holds them.
pub(super) fn retire(shared: &Shared, number: u64, path: &Path) -> Result<(), RetireError> {
    if number > shared.journal_sealed.load(Ordering::SeqCst) {
        move_marks(shared, number, path)?;
        shared.journal_sealed.store(number, Ordering::SeqCst);
    }
    if number >= shared.journal_kept.load(Ordering::SeqCst) {
        return Ok(());
    }
    sqlite::unlink(path).map_err(|source| RetireError::Unlink { path: path.to_owned(), source })
}

fn move_marks(shared: &Shared, number: u64, path: &Path) -> Result<(), RetireError> {
    let marks = journal::load_marks(path).map_err(|source| RetireError::Marks { path: path.to_owned(), source })?;
    shared.control.write(|tx| {
        for mark in &marks {
            marks::raise(tx, mark)?;
            marks::forget_epochs(tx, mark)?;
        }
        unlinked::forget(tx, number)?;
        tx.execute(
            "INSERT INTO journal_floor (one, number) VALUES (1, ?1)
             ON CONFLICT (one) DO UPDATE SET number = max(number, excluded.number)",
            [number as i64],
        )
    })?;
    Ok(())
}

/// Why a journal file could not be unlinked; it stays and is tried again.
#[derive(Debug, thiserror::Error)]
pub enum RetireError {
    /// Its marks cannot be read.
    #[error("marks of journal {path} cannot be read")]
    Marks {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// Its marks cannot be written.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The file system refuses.
    #[error("journal {path} cannot be unlinked")]
    Unlink {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
}
