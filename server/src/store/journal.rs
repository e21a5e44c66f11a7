//! Journal files: accepted batches as they came, one record per group commit, with the marks of the agents in the same
//! transaction. A file is written by the writer thread alone, replayed at the start, and unlinked when all its samples are
//! sealed. It is never checkpointed: its write-ahead log is the journal.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior, params};

use super::record::{self, Record};
use super::sqlite::PAGE_BYTES;
use super::varint::DecodeError;
use super::{Mark, marks, sqlite};

const SCHEMA_RECORD: &str = "CREATE TABLE record (row INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;";
/// Bits of a position below the number of its file.
const ROW_BITS: u32 = 32;

/// The place of a record among all records ever written: the file's number, then the row.
pub type Position = u64;

/// The first position of a file.
pub fn first_position(number: u64) -> Position {
    number << ROW_BITS
}

/// The number of the file that a position lies in.
pub fn file_of(position: Position) -> u64 {
    position >> ROW_BITS
}

/// Why a journal file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// SQLite refused.
    #[error("journal {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// A record is damaged.
    #[error("record {row} of journal {path} is damaged; `petrel repair` saves what can be read of it")]
    Record {
        /// The file.
        path: PathBuf,
        /// The record.
        row: i64,
        /// What is wrong.
        #[source]
        source: DecodeError,
    },
}

/// A journal file that is being written.
#[derive(Debug)]
pub struct Journal {
    /// Number of the file.
    pub number: u64,
    /// Bytes that the records take in the log: whole pages, and two more for each commit.
    pub bytes: u64,
    connection: Connection,
    row: u64,
}

impl Journal {
    /// Creates a file; its number must be above all that ever were.
    pub fn create(dir: &Path, number: u64) -> rusqlite::Result<Journal> {
        let path = path(dir, number);
        let connection = sqlite::open_writer(&path, &format!("{SCHEMA_RECORD} {}", marks::TABLE))?;
        sqlite::never_checkpoint(&connection)?;
        Ok(Journal { number, bytes: 0, connection, row: 0 })
    }

    /// Commits a record and marks, synced to disk. On an error nothing of it stays.
    pub fn append(&mut self, body: &[u8], marks: &[Mark]) -> rusqlite::Result<Position> {
        let row = self.row + 1;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if !body.is_empty() {
            transaction
                .prepare_cached("INSERT INTO record (row, body) VALUES (?1, ?2)")?
                .execute(params![row as i64, body])?;
        }
        for mark in marks {
            marks::raise(&transaction, mark)?;
        }
        transaction.commit()?;
        self.row = row;
        self.bytes += (body.len() as u64).next_multiple_of(PAGE_BYTES) + 2 * PAGE_BYTES;
        Ok(first_position(self.number) + row)
    }
}

/// The journal files of a directory, oldest first.
pub fn list(dir: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("journal-")?.strip_suffix(".db")?.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort_unstable();
    Ok(found)
}

/// Where a journal file is.
pub fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("journal-{number}.db"))
}

/// Reads a file whole: every record in order into the memory of an earlier one, then its marks.
///
/// # Errors
/// The file cannot be read or a record is damaged; what was read before has been passed on.
pub fn replay(
    path: &Path,
    mut spare: impl FnMut() -> Record,
    mut each: impl FnMut(Position, Record),
) -> Result<Vec<Mark>, ReplayError> {
    let failed = |source| ReplayError::Read { path: path.to_owned(), source };
    let number =
        path.file_stem().and_then(|stem| stem.to_str()?.strip_prefix("journal-")?.parse().ok()).unwrap_or_default();
    // Opened for writing: a crash can leave a log that SQLite first has to recover.
    let connection = Connection::open(path).map_err(failed)?;
    sqlite::never_checkpoint(&connection).map_err(failed)?;
    if !has_records(&connection).map_err(failed)? {
        // A crash between creating the file and its first commit; nothing in it was acknowledged.
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare("SELECT row, body FROM record ORDER BY row").map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    while let Some(columns) = rows.next().map_err(failed)? {
        let row: i64 = columns.get(0).map_err(failed)?;
        let body = columns.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(failed)?;
        let mut record = spare();
        record::decode_into(body, &mut record).map_err(|source| ReplayError::Record {
            path: path.to_owned(),
            row,
            source,
        })?;
        each(first_position(number) + row as u64, record);
    }
    marks::load(&connection).map_err(failed)
}

/// Whether a file has its tables.
pub fn has_records(connection: &Connection) -> rusqlite::Result<bool> {
    connection
        .query_row("SELECT count(*) = 2 FROM sqlite_schema WHERE name IN ('record', 'mark')", [], |row| row.get(0))
}

/// The marks of a file.
///
/// # Errors
/// The file cannot be read.
pub fn load_marks(path: &Path) -> rusqlite::Result<Vec<Mark>> {
    let connection = Connection::open(path)?;
    sqlite::never_checkpoint(&connection)?;
    let exists: bool =
        connection
            .query_row("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'mark')", [], |row| row.get(0))?;
    if exists { marks::load(&connection) } else { Ok(Vec::new()) }
}
