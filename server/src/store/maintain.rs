//! Maintenance, off the commit path: heads into chunks (`seal`), journals and days unlinked (`expire`), days merged (`compact`).
//! One pass at a time; each step can fail and is tried again by the next pass, and nothing is dropped from memory before it is
//! on disk.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::control::ControlError;
use super::days::DayError;
use super::engine::{RetireError, Store};
use super::expire::{Expiry, Leaving};
use super::head::Day;
use super::journal::{self, Position};
use super::rollup::Rolling;
use super::unlinked::UnlinkDayError;
use crate::series::Timestamp;

/// Age at which a journal file is sealed whatever its heads hold: bounds the replay of a fleet that sends little.
const JOURNAL_AGE_MS_MAX: i64 = 2 * 3_600_000;
/// Age at which a journal file is ended, so that its age can be known.
const JOURNAL_OPEN_MS_MAX: i64 = 30 * 60_000;
/// One day's file is unlinked in this time at most, by the monotonic clock. In the ordinary way one a day is due; where many are due
/// at once the wall clock may have jumped, and this leaves hours to set it right before much is lost.
const EXPIRE_EVERY: Duration = Duration::from_secs(3600);

/// One day's file is unlinked for its size in this time at most: often enough for an import of years, and an operator who sets a
/// wrong limit has the time to see the log.
const SHRINK_EVERY: Duration = Duration::from_secs(60);

/// What passes of maintenance remember.
#[derive(Debug)]
pub struct Maintenance {
    /// When each journal file was first seen ended.
    ended: BTreeMap<u64, Timestamp>,
    active: (u64, Timestamp),
    /// When the retention by time last unlinked a day's file.
    expired: Option<Instant>,
    /// When the retention by size last did.
    shrunk: Option<Instant>,
    /// Whether there may be series that have nothing left.
    pub(super) forget_due: bool,
    /// The day whose rollups are being built.
    pub(super) rolling: Option<Rolling>,
    /// When the building of each day's rollups was last begun.
    pub(super) rolls: BTreeMap<Day, Instant>,
    /// When each day was last compacted.
    pub(super) compacted: BTreeMap<Day, Instant>,
    /// The day that is about to be unlinked: it takes no samples, and may stay after all.
    pub(super) closing: Option<Day>,
    /// Days whose unlinking was begun: each pass tries to end it, and until then they take no samples.
    pub(super) leaving: BTreeMap<Day, Leaving>,
    /// Whether a backup is being taken: heads are sealed and journals unlinked, and nothing else is changed.
    pub(super) is_resting: bool,
}

impl Maintenance {
    /// Nothing seen yet.
    pub fn new(now: Timestamp) -> Maintenance {
        Maintenance {
            ended: BTreeMap::new(),
            active: (0, now),
            expired: None,
            shrunk: None,
            forget_due: false,
            rolling: None,
            rolls: BTreeMap::new(),
            compacted: BTreeMap::new(),
            closing: None,
            leaving: BTreeMap::new(),
            is_resting: false,
        }
    }

    /// Days that are being unlinked: they take no samples.
    pub(super) fn closed(&self) -> impl Iterator<Item = Day> {
        self.closing.into_iter().chain(self.leaving.keys().copied())
    }

    /// A file goes: the next one of its kind waits, also where this one cannot be unlinked at once.
    pub(super) fn goes(&mut self, expiry: Expiry) {
        match expiry {
            Expiry::Age => self.expired = Some(Instant::now()),
            Expiry::Size { .. } => self.shrunk = Some(Instant::now()),
        }
        self.forget_due = true;
    }
}

/// Why a step of maintenance failed. It is tried again by the next pass.
#[derive(Debug, thiserror::Error)]
pub enum MaintainError {
    /// A samples file.
    #[error(transparent)]
    Day(#[from] DayError),
    /// A journal file.
    #[error(transparent)]
    Retire(#[from] RetireError),
    /// The control database.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A backup is being taken.
    #[error("a backup is being taken, and what it copies must not change; ask again when it is done")]
    Resting,
    /// A day that the retention ended.
    #[error(transparent)]
    Unlink(#[from] UnlinkDayError),
    /// The directory or a file of it.
    #[error("data directory cannot be maintained")]
    Directory(#[from] std::io::Error),
}

impl Store {
    /// One pass: seals what is due, unlinks journals whose samples are sealed and days that the retention ended, merges a day that
    /// is over. While a backup is taken it only seals and unlinks journals. Blocks on disk; call it every few seconds from a thread that may block.
    /// Returns what failed, for the caller to tell.
    pub fn maintain(&self, now: Timestamp) -> Vec<MaintainError> {
        let mut maintenance = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems = Vec::new();
        self.shared.write_metadata();
        let force = self.force_position(&mut maintenance, now).unwrap_or_else(|error| {
            problems.push(error.into());
            0
        });
        self.seal(force, &mut problems);
        problems.extend(self.retire_journals().err());
        if !maintenance.is_resting {
            self.expire(&mut maintenance, now, &mut problems);
            problems.extend(self.compact_one(&mut maintenance, now).err());
            problems.extend(self.roll_one(&mut maintenance, now).err());
        }
        problems
    }

    /// Seals and compacts all there is and unlinks all journals. For measurements and a slow, complete stop. While a backup is taken
    /// nothing is compacted.
    pub fn flush(&self) -> Vec<MaintainError> {
        let maintenance = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems = Vec::new();
        self.shared.write_metadata();
        let before = self.shared.active_journal();
        self.rotate();
        self.seal(Position::MAX, &mut problems);
        // The writer ends its file when it comes to the message; a pass that is too early leaves one file to the next.
        for _ in 0..100 {
            if self.shared.active_journal() != before || !journal::path(&self.shared.dir, before).exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.seal(Position::MAX, &mut problems);
        problems.extend(self.retire_journals().err());
        let stays = |day| !maintenance.is_resting && !maintenance.leaving.contains_key(&day);
        for file in self.shared.days.all().iter().filter(|file| stays(file.day)) {
            problems.extend(self.compact(file).err().map(Into::into));
        }
        problems.extend(self.shared.control.fold_log().err().map(Into::into));
        problems
    }

    /// Ends what was begun, unlinks what the retention ended, one file of a kind at a time, and forgets series that have nothing left.
    fn expire(&self, maintenance: &mut Maintenance, now: Timestamp, problems: &mut Vec<MaintainError>) {
        let is_due = |last: Option<Instant>, every| last.is_none_or(|last| last.elapsed() >= every);
        self.finish_leaving(maintenance, problems);
        let closing = maintenance.closing.take();
        if is_due(maintenance.expired, EXPIRE_EVERY) {
            problems.extend(self.expire_one(maintenance, now).err());
        }
        if is_due(maintenance.shrunk, SHRINK_EVERY) {
            problems.extend(self.shrink_to_size(maintenance, now).err());
        }
        if closing.is_some() && maintenance.closing.is_none() {
            // It stays after all, and takes samples again.
            self.shared.close_days(maintenance.closed());
        }
        if maintenance.forget_due {
            match self.forget_series() {
                Ok(done) => maintenance.forget_due = !done,
                Err(error) => problems.push(error),
            }
        }
    }

    /// The position up to which everything must be sealed now, because the journals are too many or too old.
    fn force_position(&self, maintenance: &mut Maintenance, now: Timestamp) -> std::io::Result<Position> {
        let active = self.shared.active_journal();
        if maintenance.active.0 != active {
            maintenance.active = (active, now);
        } else if now - maintenance.active.1 > JOURNAL_OPEN_MS_MAX {
            maintenance.active.1 = now;
            self.rotate();
        }
        let journals = journal::list(&self.shared.dir)?;
        maintenance.ended.retain(|number, _| journals.iter().any(|(listed, _)| listed == number));
        let mut force = 0;
        let mut bytes = 0;
        let sealed = self.shared.journal_sealed.load(Ordering::SeqCst);
        for (number, path) in journals.iter().rev().take_while(|(number, _)| *number > sealed) {
            bytes += super::sqlite::bytes(path);
            if *number >= active {
                continue;
            }
            let seen = *maintenance.ended.entry(*number).or_insert(now);
            if bytes > self.shared.options.journal_bytes_max || now - seen > JOURNAL_AGE_MS_MAX {
                force = force.max(journal::first_position(number + 1) - 1);
            }
        }
        Ok(force)
    }
}
