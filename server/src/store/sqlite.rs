//! How the store opens its SQLite files, in one place: page size, write-ahead log, sync at every commit.

use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

/// Fewer, larger pages: chunks are hundreds of bytes and commits are large.
pub const PAGE_BYTES: u64 = 16_384;
/// How long one connection waits for another one of the same file; only checkpoints and merges hold a file's lock.
const BUSY: std::time::Duration = std::time::Duration::from_secs(10);

/// Opens or creates a file for writing; a commit returns once it is on disk.
pub fn open_writer(path: &Path, schema: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(16);
    connection.execute_batch(&format!(
        "PRAGMA page_size = {PAGE_BYTES}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {schema}"
    ))?;
    Ok(connection)
}

/// Opens an existing file for reading.
pub fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

/// Leaves the write-ahead log as it is, now and at the end: a file that will be unlinked need not be written twice.
pub fn never_checkpoint(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("PRAGMA wal_autocheckpoint = 0;")?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(())
}

/// The files that SQLite keeps for one database.
pub fn files(path: &Path) -> [PathBuf; 3] {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    [path.to_owned(), with("-wal"), with("-shm")]
}

/// Unlinks a database. The database file goes last: a log without its database would be taken for damage.
pub fn unlink(path: &Path) -> std::io::Result<()> {
    let [database, log, shared] = files(path);
    for file in [shared, log, database] {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Bytes on disk of a database with its log.
pub fn bytes(path: &Path) -> u64 {
    files(path).iter().filter_map(|file| std::fs::metadata(file).ok()).map(|metadata| metadata.len()).sum()
}

/// Whether SQLite failed for want of space.
pub fn is_disk_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
}
