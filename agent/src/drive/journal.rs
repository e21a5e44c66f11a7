//! The order journal: what was ordered here and how it ended, so that no order is ever begun twice.
//! docs/formats/order-journal.md specifies the file. `started` is synced to disk before the driver applies; a line is
//! never changed; only compaction leaves lines out, and never one of an order that has not ended.

use crc32c::crc32c;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use petrel_models::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Checked, Seen};
use crate::stream::protocol::{Order, OrderAnswer, OrderKey};

/// Answers kept for orders that have ended. A server repeats an order within its time to live, a minute; a thousand
/// orders are many days of a busy host.
const ENDED_MAX: usize = 1_024;
/// The file is rewritten without the forgotten lines when it has grown by this much.
const COMPACT_BYTES: u64 = 1 << 20;
/// A larger file was not written by this program.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// How long to wait for the lock.
const LOCK_WITHIN: Duration = Duration::from_millis(500);
/// The format that this program writes.
const VERSION: u32 = 1;

/// The order journal of one agent.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Length up to which the file is whole lines.
    bytes: u64,
    compact_at: u64,
    entries: BTreeMap<OrderKey, Entry>,
    /// Keys of ended orders, oldest first.
    ended: VecDeque<OrderKey>,
    fencing_high: u64,
}

/// What is known of one order.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    fingerprint: u32,
    state: State,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Started(Box<Started>),
    Ended { answer: Box<OrderAnswer>, sent: bool },
}

/// An order that was begun, as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The order.
    pub order: Order,
    /// When it was begun.
    pub at: Timestamp,
    /// What it runs.
    pub command: String,
    /// What the platform looked like before.
    pub before: super::Object,
}

impl Started {
    /// What the driver said before it began.
    pub fn checked(&self) -> Checked {
        Checked { command: self.command.clone(), before: self.before.clone() }
    }
}

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Record {
    Version(u32),
    Fencing(u64),
    Started(Box<Started>),
    Ended { fingerprint: u32, answer: Box<OrderAnswer> },
    Sent(OrderKey),
}

/// Why the journal cannot be opened. The agent must not act without it.
#[derive(Debug, thiserror::Error)]
pub enum OpenJournalError {
    /// Reading or making the file failed.
    #[error("cannot open the order journal {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("the order journal {path} is in use; is another agent running on this state directory?")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A line in its midst is not what was written.
    #[error(
        "the order journal {path} is damaged at line {line}; move it away to begin a new one, then orders that are under way now end as unknown"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first bad line, from 1.
        line: usize,
    },
    /// Written by a later program.
    #[error(
        "the order journal {path} has version {found}, this program reads version {VERSION}; use the program that wrote it"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// Why a line could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the order journal {path}")]
pub struct WriteJournalError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Journal {
    /// Opens the journal at `path`, making it where there is none, and locks it. A torn tail, as a power failure
    /// leaves it, is cut off: what it said was not synced, so nothing was begun on its word.
    ///
    /// # Errors
    /// When it cannot be read and written, is in use, or is damaged elsewhere than in its tail.
    pub fn open(path: &Path) -> Result<Journal, OpenJournalError> {
        let io = |source| OpenJournalError::Io { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io)?;
        lock(&file, path)?;
        let mut text = Vec::new();
        (&file).take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(io)?;
        let (records, whole) =
            parse(&text).map_err(|line| OpenJournalError::Damaged { path: path.to_owned(), line })?;
        let mut journal = Journal {
            path: path.to_owned(),
            file,
            bytes: whole as u64,
            compact_at: COMPACT_BYTES,
            entries: BTreeMap::new(),
            ended: VecDeque::new(),
            fencing_high: 0,
        };
        if whole < text.len() {
            tracing::warn!(path = %path.display(), bytes = text.len() - whole, "cut a torn tail off the order journal");
            journal.file.set_len(whole as u64).map_err(io)?;
        }
        if records.is_empty() {
            journal.append(&Record::Version(VERSION), true).map_err(|error| io(error.source))?;
            sync_folder(path).map_err(io)?;
        }
        for record in records {
            if let Record::Version(found) = record
                && found != VERSION
            {
                return Err(OpenJournalError::Version { path: path.to_owned(), found });
            }
            journal.remember(record);
        }
        Ok(journal)
    }

    /// What is known of the order's key.
    pub fn seen(&self, order: &Order) -> Seen {
        match self.entries.get(&order.key) {
            None => Seen::Never,
            Some(entry) if entry.fingerprint != fingerprint(order) => Seen::Other,
            Some(Entry { state: State::Started(_), .. }) => Seen::Started,
            Some(Entry { state: State::Ended { answer, .. }, .. }) => Seen::Ended(answer.clone()),
        }
    }

    /// The highest fencing epoch that gave an order.
    pub fn fencing_high(&self) -> u64 {
        self.fencing_high
    }

    /// Orders that were begun and have no end.
    pub fn unfinished(&self) -> Vec<Started> {
        let started = |entry: &Entry| match &entry.state {
            State::Started(started) => Some(Started::clone(started)),
            State::Ended { .. } => None,
        };
        self.entries.values().filter_map(started).collect()
    }

    /// Answers that may not have reached the spool, oldest first.
    pub fn unsent(&self) -> Vec<OrderAnswer> {
        let unsent = |key: &OrderKey| match &self.entries.get(key)?.state {
            State::Ended { answer, sent: false } => Some(OrderAnswer::clone(answer)),
            _ => None,
        };
        self.ended.iter().filter_map(unsent).collect()
    }

    /// Keeps the highest fencing epoch, synced.
    ///
    /// # Errors
    /// When it could not be written; then the order must be refused.
    pub fn raise_fencing(&mut self, epoch: u64) -> Result<(), WriteJournalError> {
        if epoch <= self.fencing_high {
            return Ok(());
        }
        self.write(Record::Fencing(epoch), true)
    }

    /// Writes that the order begins, synced: after this it may be applied.
    ///
    /// # Errors
    /// When it could not be written; then the order must not be begun.
    pub fn start(&mut self, order: &Order, checked: &Checked, at: Timestamp) -> Result<(), WriteJournalError> {
        let (command, before) = (checked.command.clone(), checked.before.clone());
        self.write(Record::Started(Box::new(Started { order: order.clone(), at, command, before })), true)
    }

    /// Writes how the order ended, synced. It is remembered even where writing failed.
    ///
    /// # Errors
    /// When it could not be written; after a restart the driver looks it up.
    pub fn end(&mut self, order: &Order, answer: &OrderAnswer) -> Result<(), WriteJournalError> {
        let (fingerprint, answer) = (fingerprint(order), Box::new(answer.clone()));
        self.write(Record::Ended { fingerprint, answer }, true)
    }

    /// Notes that the answer was handed on. Not synced: at worst it is handed on twice.
    ///
    /// # Errors
    /// When it could not be written.
    pub fn sent(&mut self, key: OrderKey) -> Result<(), WriteJournalError> {
        self.write(Record::Sent(key), false)
    }

    fn write(&mut self, record: Record, sync: bool) -> Result<(), WriteJournalError> {
        let written = self.append(&record, sync);
        // An end is true whether or not the disk takes it; a start that is not on disk did not happen.
        if written.is_ok() || matches!(record, Record::Ended { .. }) {
            self.remember(record);
        }
        if self.bytes >= self.compact_at
            && let Err(error) = self.compact()
        {
            tracing::warn!(path = %self.path.display(), %error, "the order journal could not be compacted");
            self.compact_at = self.bytes + COMPACT_BYTES;
        }
        written
    }

    fn append(&mut self, record: &Record, sync: bool) -> Result<(), WriteJournalError> {
        let line = line(record);
        // What a failed write left behind is cut off first, so that the next line never follows half of one.
        let written = self
            .file
            .set_len(self.bytes)
            .and_then(|()| self.file.write_all(&line))
            .and_then(|()| if sync { self.file.sync_data() } else { Ok(()) });
        match written {
            Ok(()) => {
                self.bytes += line.len() as u64;
                Ok(())
            }
            Err(source) => {
                if let Err(error) = self.file.set_len(self.bytes) {
                    tracing::warn!(path = %self.path.display(), %error, "half a line stays at the order journal's end");
                }
                Err(WriteJournalError { path: self.path.clone(), source })
            }
        }
    }

    fn remember(&mut self, record: Record) {
        match record {
            Record::Version(_) => {}
            Record::Fencing(epoch) => self.fencing_high = self.fencing_high.max(epoch),
            Record::Started(started) => {
                let entry = Entry { fingerprint: fingerprint(&started.order), state: State::Started(started) };
                self.entries.entry(entry.key()).or_insert(entry);
            }
            Record::Ended { fingerprint, answer } => {
                let key = answer.key;
                let state = State::Ended { answer, sent: false };
                let before = self.entries.insert(key, Entry { fingerprint, state });
                if !matches!(before, Some(Entry { state: State::Ended { .. }, .. })) {
                    self.ended.push_back(key);
                }
                while self.ended.len() > ENDED_MAX {
                    if let Some(oldest) = self.ended.pop_front() {
                        self.entries.remove(&oldest);
                    }
                }
            }
            Record::Sent(key) => {
                if let Some(Entry { state: State::Ended { sent, .. }, .. }) = self.entries.get_mut(&key) {
                    *sent = true;
                }
            }
        }
    }

    /// Rewrites the file with what is remembered: a new file beside it, synced, then renamed over it.
    fn compact(&mut self) -> io::Result<()> {
        let mut text = line(&Record::Version(VERSION));
        text.extend(line(&Record::Fencing(self.fencing_high)));
        for entry in self.entries.values() {
            if let State::Started(started) = &entry.state {
                text.extend(line(&Record::Started(started.clone())));
            }
        }
        for key in &self.ended {
            if let Some(Entry { fingerprint, state: State::Ended { answer, sent } }) = self.entries.get(key) {
                text.extend(line(&Record::Ended { fingerprint: *fingerprint, answer: answer.clone() }));
                if *sent {
                    text.extend(line(&Record::Sent(*key)));
                }
            }
        }
        let beside = self.path.with_extension("compacting");
        // A crash may have left one; it was never in use.
        drop(std::fs::remove_file(&beside));
        let mut file = OpenOptions::new().read(true).append(true).create_new(true).open(&beside)?;
        file.lock()?;
        file.write_all(&text)?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        // From here on the old file is gone: the rename decides, whatever the sync of the folder says.
        self.file = file;
        self.bytes = text.len() as u64;
        self.compact_at = self.bytes + COMPACT_BYTES;
        sync_folder(&self.path)
    }
}

impl Entry {
    fn key(&self) -> OrderKey {
        match &self.state {
            State::Started(started) => started.order.key,
            State::Ended { answer, .. } => answer.key,
        }
    }
}

/// The lines of a file and the length of its whole part; `Err` is the number of a line that is bad though good ones
/// follow it.
fn parse(text: &[u8]) -> Result<(Vec<Record>, usize), usize> {
    let (mut records, mut whole, mut at, mut bad) = (Vec::new(), 0, 0, None);
    for (number, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
        at += line.len();
        match (decode(line), bad) {
            // What follows in a later version is not for this program to judge.
            (Some(record @ Record::Version(found)), None) if found != VERSION => return Ok((vec![record], text.len())),
            (Some(record), None) => {
                records.push(record);
                whole = at;
            }
            (Some(_), Some(line)) => return Err(line),
            (None, _) => bad = bad.or(Some(number + 1)),
        }
    }
    Ok((records, whole))
}

fn line(record: &Record) -> Vec<u8> {
    let json = serde_json::to_vec(record).expect("records are maps with text keys, which JSON can always carry");
    let mut line = format!("{:08x} ", crc32c(&json)).into_bytes();
    line.extend(json);
    line.push(b'\n');
    line
}

fn decode(line: &[u8]) -> Option<Record> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, json) = (line.get(..8)?, line.get(9..)?);
    let sum = u32::from_str_radix(std::str::from_utf8(sum).ok()?, 16).ok()?;
    (line[8] == b' ' && sum == crc32c(json)).then(|| serde_json::from_slice(json).ok()).flatten()
}

/// Tells whether two orders with one key are the same: everything but the epoch and the times, which a server may
/// renew when it repeats an order.
fn fingerprint(order: &Order) -> u32 {
    let undone = order.undo_of.as_ref().map(|answer| (answer.key, &answer.before));
    let what = (&order.action, &order.with, &order.expect, undone);
    crc32c(&serde_json::to_vec(&what).expect("an order came as JSON and goes as JSON"))
}

/// Locks the file. A child that was forked and has not begun its own program yet still shares the lock of an agent that
/// has ended, so the lock is asked for a few times.
fn lock(file: &File, path: &Path) -> Result<(), OpenJournalError> {
    let end = Instant::now() + LOCK_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(LOCK_WITHIN / 50),
            Err(TryLockError::WouldBlock) => return Err(OpenJournalError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => return Err(OpenJournalError::Io { path: path.to_owned(), source }),
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::protocol::OrderOutcome;

    fn order(run: u64) -> Order {
        let json = serde_json::json!({
            "key": {"run": run, "step": 0}, "fencing_epoch": 1, "action": "haproxy.drain",
            "with": {"backend": "vms", "server": "a"}, "ttl_ms": 1000, "timeout_ms": 1000,
        });
        serde_json::from_value(json).unwrap()
    }

    fn done(order: &Order) -> OrderAnswer {
        OrderAnswer {
            key: order.key,
            fencing_epoch: 1,
            at: 10,
            outcome: OrderOutcome::Done,
            command: "set server vms/a state drain".to_owned(),
            before: super::super::Object::new(),
        }
    }

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orders.journal");
        (folder, path)
    }

    #[test]
    fn remembers_across_restarts() {
        let (_folder, path) = place();
        let mut journal = Journal::open(&path).unwrap();
        journal.raise_fencing(9).unwrap();
        journal.start(&order(1), &Checked::default(), 5).unwrap();
        journal.start(&order(2), &Checked::default(), 6).unwrap();
        journal.end(&order(1), &done(&order(1))).unwrap();
        drop(journal);

        let mut journal = Journal::open(&path).unwrap();
        assert_eq!(journal.fencing_high(), 9);
        assert_eq!(journal.seen(&order(1)), Seen::Ended(Box::new(done(&order(1)))));
        assert_eq!(journal.seen(&order(2)), Seen::Started);
        assert_eq!(journal.seen(&order(3)), Seen::Never);
        assert_eq!(journal.unfinished().len(), 1);
        assert_eq!(journal.unsent(), vec![done(&order(1))]);
        journal.sent(order(1).key).unwrap();
        assert!(journal.unsent().is_empty());

        let mut other = order(1);
        other.with.insert("server".to_owned(), "b".into());
        assert_eq!(journal.seen(&other), Seen::Other);
        let mut later = order(1);
        later.fencing_epoch = 10;
        assert!(matches!(journal.seen(&later), Seen::Ended(_)), "the same order from a later epoch is the same order");
    }

    #[test]
    fn one_agent_at_a_time() {
        let (_folder, path) = place();
        let _journal = Journal::open(&path).unwrap();
        assert!(matches!(Journal::open(&path), Err(OpenJournalError::InUse { .. })));
    }

    #[test]
    fn a_torn_tail_is_cut_and_damage_elsewhere_refused() {
        let (_folder, path) = place();
        let mut journal = Journal::open(&path).unwrap();
        journal.start(&order(1), &Checked::default(), 5).unwrap();
        let two_lines = journal.bytes;
        journal.start(&order(2), &Checked::default(), 6).unwrap();
        drop(journal);
        let whole = std::fs::read(&path).unwrap();

        for cut in two_lines as usize..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut journal = Journal::open(&path).unwrap();
            assert_eq!(journal.seen(&order(2)), Seen::Never, "cut at {cut}");
            journal.start(&order(3), &Checked::default(), 7).unwrap();
            drop(journal);
            assert_eq!(Journal::open(&path).unwrap().unfinished().len(), 2, "cut at {cut}");
        }

        let mut damaged = whole;
        damaged[two_lines as usize - 10] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        assert!(matches!(Journal::open(&path), Err(OpenJournalError::Damaged { line: 2, .. })));
    }

    #[test]
    fn it_stays_small_and_forgets_no_order_that_runs() {
        let (_folder, path) = place();
        let mut journal = Journal::open(&path).unwrap();
        journal.raise_fencing(4).unwrap();
        journal.start(&order(0), &Checked::default(), 5).unwrap();
        journal.compact_at = 50_000;
        for run in 1..=(ENDED_MAX as u64 + 100) {
            // Not synced, for speed.
            let (fingerprint, answer) = (fingerprint(&order(run)), Box::new(done(&order(run))));
            journal.write(Record::Ended { fingerprint, answer }, false).unwrap();
        }
        journal.compact().unwrap();
        let bytes = journal.bytes;
        drop(journal);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
        let journal = Journal::open(&path).unwrap();
        assert_eq!((journal.ended.len(), journal.fencing_high()), (ENDED_MAX, 4));
        assert_eq!(journal.seen(&order(0)), Seen::Started);
        assert_eq!(journal.seen(&order(1)), Seen::Never);
        assert!(matches!(journal.seen(&order(ENDED_MAX as u64 + 100)), Seen::Ended(_)));
    }

    /// A file of version 1 as written on the day the format was made; it must be read for ever.
    #[test]
    fn the_golden_file_is_read() {
        let (_folder, path) = place();
        std::fs::write(&path, include_str!("../../testdata/orders-v1.journal")).unwrap();
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.fencing_high(), 9);
        assert_eq!(journal.seen(&order(1)), Seen::Ended(Box::new(done(&order(1)))));
        assert_eq!(journal.seen(&order(2)), Seen::Started);
        assert!(journal.unsent().is_empty());
    }

    #[test]
    fn a_later_version_is_named() {
        let (_folder, path) = place();
        std::fs::write(&path, [line(&Record::Version(2)), b"what version 2 writes\n".to_vec()].concat()).unwrap();
        assert!(matches!(Journal::open(&path), Err(OpenJournalError::Version { found: 2, .. })));
    }

    #[test]
    fn a_disk_that_takes_nothing_starts_nothing() {
        let (_folder, path) = place();
        let mut journal = Journal::open(&path).unwrap();
        // A read-only descriptor stands for a full disk.
        journal.file = File::open(&journal.path).unwrap();
        assert!(journal.start(&order(1), &Checked::default(), 5).is_err());
        assert_eq!(journal.seen(&order(1)), Seen::Never);
        assert!(journal.end(&order(1), &done(&order(1))).is_err());
        assert!(matches!(journal.seen(&order(1)), Seen::Ended(_)));
    }
}
