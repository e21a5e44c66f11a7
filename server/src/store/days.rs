//! Samples files: one per UTC day, each with the labels of its series, so that a day can be read without any other file and
//! unlinked whole. Written by sealing alone; read by queries through a few pooled connections.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use chrono::{DateTime, NaiveDate};
use petrel_agent::error_chain::chain;
use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior, params};

use super::head::{DAY_MS, Day};
use super::index::SeriesId;
use super::journal::Position;
use super::varint::{self, DecodeError, Reader};
use super::{packed, record, sqlite};
use crate::series::Labels;
use crate::telemetry;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS series (block INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS chunk (key INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS sealed (series INTEGER PRIMARY KEY, through INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS compacted (at INTEGER PRIMARY KEY) STRICT;
    CREATE TABLE IF NOT EXISTS rolled (done INTEGER PRIMARY KEY) STRICT;";

/// Bits of a chunk's key below the series' number. Merging keeps the numbers small: a day has 17,280 ticks of sealing at most.
const CHUNK_BITS: u32 = 20;
/// Idle connections kept per day.
const READERS_PER_DAY: usize = 2;
/// zstd level of label lists: written once, and text that repeats itself.
const SERIES_LEVEL: i32 = 6;

/// Keys of all chunks of a series, first to last. Later keys override earlier ones where times are equal.
pub fn chunk_keys(id: SeriesId) -> (i64, i64) {
    let first = (id << CHUNK_BITS) as i64;
    (first, first | ((1 << CHUNK_BITS) - 1))
}

/// The series that a chunk's key belongs to.
pub fn series_of(key: i64) -> SeriesId {
    key as u64 >> CHUNK_BITS
}

/// Why a samples file failed.
#[derive(Debug, thiserror::Error)]
pub enum DayError {
    /// SQLite refused.
    #[error("samples file {path} cannot be used")]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// Something in it does not decode.
    #[error("samples file {path} is damaged at {what} {key}; stop the server and run `petrel repair`")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Table.
        what: &'static str,
        /// Row.
        key: i64,
        /// What is wrong.
        #[source]
        source: DecodeError,
    },
}

impl DayError {
    /// Whether it says that what is in a file is damaged, which no other try changes.
    pub fn is_damage_of(&self, file: &Path) -> bool {
        match self {
            DayError::Damaged { path, .. } => path == file,
            DayError::Sqlite { path, source } => {
                let code = source.sqlite_error_code();
                path == file && matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
            }
        }
    }
}

/// What to do where something in a file is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDamage {
    /// Fail: the file stays, and can be repaired.
    Fail,
    /// Go on without it: the file goes.
    Skip,
}

/// One day's file.
#[derive(Debug)]
pub struct DayFile {
    /// The day.
    pub day: Day,
    /// Where it is.
    pub path: PathBuf,
    readers: Mutex<Vec<Connection>>,
    /// Open between the transactions of one pass of maintenance: closing folds the log into the file.
    writer: Mutex<Option<Connection>>,
    /// Whether the log has it that the file is damaged.
    is_damage_told: AtomicBool,
    /// Its unlinking was begun.
    is_going: AtomicBool,
}

impl DayFile {
    /// Runs `body` on a connection that sees all commits made before.
    ///
    /// # Errors
    /// The file cannot be opened, or what `body` returns.
    pub fn read<T>(&self, body: impl FnOnce(&Connection) -> Result<T, DayError>) -> Result<T, DayError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => sqlite::open_reader(&self.path).map_err(|source| self.failed(source))?,
        };
        let value = body(&connection)?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_PER_DAY {
            readers.push(connection);
        }
        Ok(value)
    }

    /// Runs `body` in one synced transaction; if it fails nothing of it stays. Only sealing calls this, one at a time.
    ///
    /// # Errors
    /// The file cannot be written, or what `body` returns.
    pub fn write<T>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T, DayError>) -> Result<T, DayError> {
        let mut slot = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out of its place: after a failure it is closed, and the next call opens anew.
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => sqlite::open_writer(&self.path, SCHEMA).map_err(|source| self.failed(source))?,
        };
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| self.failed(source))?;
        let value = body(&transaction)?;
        transaction.commit().map_err(|source| self.failed(source))?;
        *slot = Some(connection);
        Ok(value)
    }

    /// Rewrites the file without the room that merging left. Needs as much free space as the file has.
    ///
    /// # Errors
    /// The disk is full; the file stays as it was.
    pub fn shrink(&self) -> Result<(), DayError> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let connection = sqlite::open_writer(&self.path, SCHEMA).map_err(|source| self.failed(source))?;
        connection.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);").map_err(|source| self.failed(source))
    }

    /// Whether all tables are there. They come before the first chunk, so a file without them, as `kill -9` or a full disk in its
    /// first moment leaves it, holds nothing.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn is_born(&self) -> Result<bool, DayError> {
        // Opened for writing: a crash can leave a log that SQLite first has to recover.
        let connection = Connection::open(&self.path).map_err(|source| self.failed(source))?;
        connection
            .query_row(
                "SELECT count(*) = 4 FROM sqlite_schema WHERE name IN ('series', 'chunk', 'sealed', 'compacted')",
                [],
                |row| row.get(0),
            )
            .map_err(|source| self.failed(source))
    }

    /// Puts an error of SQLite into ours.
    pub fn failed(&self, source: rusqlite::Error) -> DayError {
        DayError::Sqlite { path: self.path.clone(), source }
    }

    /// Puts damage into our error.
    pub fn damaged(&self, what: &'static str, key: i64, source: DecodeError) -> DayError {
        DayError::Damaged { path: self.path.clone(), what, key, source }
    }

    /// Counts damage that a step goes on without, and tells of it once for each file.
    pub fn skip_damage(&self, step: &'static str, error: &DayError) {
        telemetry::STORE_DAMAGE_SKIPPED.with_label_values(&[step]).inc();
        if !self.is_damage_told.swap(true, Ordering::Relaxed) {
            tracing::error!(error = chain(error), step, "a samples file is damaged; what is whole in it is still used");
        }
    }

    /// The series that have chunks here, in the order in which they came.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn series(&self) -> Result<Vec<(SeriesId, Labels)>, DayError> {
        self.listed(OnDamage::Fail)
    }

    /// As [`DayFile::series`], where some of them may be left out.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged where that must not be.
    pub fn listed(&self, on_damage: OnDamage) -> Result<Vec<(SeriesId, Labels)>, DayError> {
        self.read(|connection| {
            let failed = |source| self.failed(source);
            let mut statement = connection.prepare("SELECT block, body FROM series ORDER BY block").map_err(failed)?;
            let mut rows = statement.query([]).map_err(failed)?;
            let mut all = Vec::new();
            while let Some(row) = rows.next().map_err(failed)? {
                let block: i64 = row.get(0).map_err(failed)?;
                let body: Vec<u8> = row.get(1).map_err(failed)?;
                match decode_series(&body, &mut all).map_err(|source| self.damaged("series", block, source)) {
                    Err(error) if on_damage == OnDamage::Skip => self.skip_damage("rollup", &error),
                    decoded => decoded?,
                }
            }
            Ok(all)
        })
    }

    /// The last journal position that was sealed into this file; 0 where none is known.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn sealed_last(&self) -> Result<Position, DayError> {
        self.read(|connection| {
            connection
                .query_row("SELECT coalesce(max(through), 0) FROM sealed", [], |row| row.get::<_, i64>(0))
                .map(|through| through as u64)
                .map_err(|source| self.failed(source))
        })
    }

    /// How far each series is sealed, where that is at or after a position.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn sealed(&self, from: Position) -> Result<HashMap<SeriesId, Position>, DayError> {
        self.read(|connection| {
            let mut statement = connection
                .prepare("SELECT series, through FROM sealed WHERE through >= ?1")
                .map_err(|source| self.failed(source))?;
            let rows = statement
                .query_map(params![from as i64], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64)))
                .and_then(Iterator::collect);
            rows.map_err(|source| self.failed(source))
        })
    }
}

/// Notes that a day's samples were changed, so that what was made of them is made anew. Part of every transaction that does.
pub fn touch(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    tx.execute_batch("DELETE FROM compacted; DELETE FROM rolled;")
}

/// Appends a list of series to a file.
pub fn put_series(tx: &Transaction<'_>, series: &[(SeriesId, &Labels)]) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO series (body) VALUES (?1)")?.execute([pack_series(series)?])?;
    Ok(())
}

/// A list of series as bytes.
pub fn pack_series(series: &[(SeriesId, &Labels)]) -> rusqlite::Result<Vec<u8>> {
    let mut body = Vec::new();
    for (id, labels) in series {
        varint::put(&mut body, *id);
        record::put_labels(&mut body, labels);
    }
    packed::pack(&body, SERIES_LEVEL).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Reads what [`pack_series`] wrote.
///
/// # Errors
/// The bytes are damaged.
pub fn decode_series(packed: &[u8], all: &mut Vec<(SeriesId, Labels)>) -> Result<(), DecodeError> {
    let body = packed::unpack(packed)?;
    let mut reader = Reader(&body);
    while !reader.is_empty() {
        all.push((reader.unsigned()?, record::labels(&mut reader)?));
    }
    Ok(())
}

/// All days' files of a directory.
#[derive(Debug)]
pub struct Days {
    dir: PathBuf,
    files: RwLock<BTreeMap<Day, Arc<DayFile>>>,
}

impl Days {
    /// Finds the files of a directory.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn open(dir: &Path) -> std::io::Result<Days> {
        let days = Days { dir: dir.to_owned(), files: RwLock::default() };
        for entry in std::fs::read_dir(dir)? {
            if let Some(day) = entry?.file_name().to_str().and_then(parse_name) {
                days.get_or_create(day);
            }
        }
        Ok(days)
    }

    /// The file of a day, where there is one.
    pub fn get(&self, day: Day) -> Option<Arc<DayFile>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).get(&day).cloned()
    }

    /// The file of a day for a query: not one that is being unlinked, whose rollups stand for it.
    pub fn readable(&self, day: Day) -> Option<Arc<DayFile>> {
        self.get(day).filter(|file| !file.is_going.load(Ordering::SeqCst))
    }

    /// Days from one to another whose files queries can read.
    pub fn readable_between(&self, from: Day, to: Day) -> BTreeSet<Day> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let between = files.range(from..=to.max(from)).filter(|(_, file)| !file.is_going.load(Ordering::SeqCst));
        between.map(|(day, _)| *day).collect()
    }

    /// The newest day that has a file.
    pub fn newest(&self) -> Option<Day> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).keys().next_back().copied()
    }

    /// The file of a day; it comes into being at its first write.
    pub fn get_or_create(&self, day: Day) -> Arc<DayFile> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let file = files.entry(day).or_insert_with(|| {
            Arc::new(DayFile {
                day,
                path: self.dir.join(name(day)),
                readers: Mutex::default(),
                writer: Mutex::default(),
                is_damage_told: AtomicBool::new(false),
                is_going: AtomicBool::new(false),
            })
        });
        Arc::clone(file)
    }

    /// All files, oldest first.
    pub fn all(&self) -> Vec<Arc<DayFile>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Unlinks a day's file. From now on no query opens it.
    ///
    /// # Errors
    /// The file system refuses; the file stays listed and the next call tries again.
    pub fn unlink(&self, day: Day) -> std::io::Result<()> {
        let Some(file) = self.get(day) else { return Ok(()) };
        file.is_going.store(true, Ordering::SeqCst);
        file.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        file.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        sqlite::unlink(&file.path)?;
        self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&day);
        Ok(())
    }

    /// Closes the connections that transactions were written on.
    pub fn close_writers(&self) {
        for file in self.all() {
            file.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// Closes idle connections, which lets SQLite fold the logs into the files.
    pub fn close_idle(&self) {
        self.close_writers();
        for file in self.all() {
            file.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

fn name(day: Day) -> String {
    let date = DateTime::from_timestamp_millis(i64::from(day) * DAY_MS).map(|time| time.date_naive());
    match date {
        Some(date) => format!("samples-{date}.db"),
        // Beyond the calendar; no sample is accepted there.
        None => format!("samples-day{day}.db"),
    }
}

/// The day that a file of this name holds, where it is a samples file.
pub(super) fn parse_name(name: &str) -> Option<Day> {
    let date: NaiveDate = name.strip_prefix("samples-")?.strip_suffix(".db")?.parse().ok()?;
    let seconds = date.and_hms_opt(0, 0, 0)?.and_utc().timestamp();
    Day::try_from(seconds.div_euclid(DAY_MS / 1000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_dates() {
        for (day, text) in [(0, "samples-1970-01-01.db"), (20_779, "samples-2026-11-22.db")] {
            assert_eq!((name(day).as_str(), parse_name(text)), (text, Some(day)));
        }
        for other in ["samples-.db", "samples-2026-11-22.db-wal", "journal-1.db", "samples-2026-13-01.db"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }

    #[test]
    fn chunk_keys_of_series_do_not_overlap() {
        let (first, last) = chunk_keys(7);
        assert!(last < chunk_keys(8).0 && first > chunk_keys(6).1);
        assert_eq!((series_of(first), series_of(last)), (7, 7));
    }
}
