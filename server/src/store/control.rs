//! `control.db`: alerts, notices, ledger, runs and their journal, models, log lines kept, agents' marks. Small, synced at
//! every commit, one writer. Each part of the server owns its tables and brings their migrations.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

/// A named step of the schema, applied once and for ever. Names are unique across the server, for example `decide-1`.
pub type Migration = (&'static str, &'static str);

/// How long a connection waits for another one's lock before it gives up. Only backups hold one for longer than a commit.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The control database. Share it as `Arc<Control>`; calls block on disk.
pub struct Control {
    path: PathBuf,
    writer: Mutex<Connection>,
    reader: Mutex<Connection>,
}

/// Why the control database failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It could not be opened or brought to this version's schema.
    #[error(
        "control database {path} cannot be opened; check the data directory's owner and free space, or restore a backup"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// A migration failed.
    #[error("control database {path} cannot be migrated to `{migration}`")]
    Migrate {
        /// The file.
        path: PathBuf,
        /// The step's name.
        migration: &'static str,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// A read or write failed; nothing of the write was kept.
    #[error("control database {path} cannot be used")]
    Use {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
}

impl Control {
    /// Opens or creates the database and applies the migrations that are missing, in the order given.
    ///
    /// # Errors
    /// The file cannot be opened, is damaged, or a migration fails.
    pub fn open(path: &Path, migrations: &[Migration]) -> Result<Control, ControlError> {
        let open_failed = |source| ControlError::Open { path: path.to_owned(), source };
        let mut writer = Connection::open(path).map_err(open_failed)?;
        writer.busy_timeout(BUSY_TIMEOUT).map_err(open_failed)?;
        writer
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
                 CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY) STRICT;",
            )
            .map_err(open_failed)?;
        for (name, sql) in migrations {
            migrate(&mut writer, name, sql).map_err(|source| ControlError::Migrate {
                path: path.to_owned(),
                migration: name,
                source,
            })?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let reader = Connection::open_with_flags(path, flags).map_err(open_failed)?;
        reader.busy_timeout(BUSY_TIMEOUT).map_err(open_failed)?;
        Ok(Control { path: path.to_owned(), writer: Mutex::new(writer), reader: Mutex::new(reader) })
    }

    /// Runs `body` in one transaction and syncs it to disk; if it fails nothing of it stays.
    ///
    /// # Errors
    /// What `body` returns, or the commit fails (disk full, I/O error).
    pub fn write<T>(&self, body: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T, ControlError> {
        let mut connection = lock(&self.writer);
        let run = |connection: &mut Connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = body(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        run(&mut connection).map_err(|source| ControlError::Use { path: self.path.clone(), source })
    }

    /// Folds the write-ahead log into the file, as far as no reader needs it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn fold_log(&self) -> Result<(), ControlError> {
        let folded = lock(&self.writer).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        folded.map_err(|source| ControlError::Use { path: self.path.clone(), source })
    }

    /// Runs `body` on a connection that cannot write and sees every commit made before.
    ///
    /// # Errors
    /// What `body` returns.
    pub fn read<T>(&self, body: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, ControlError> {
        body(&lock(&self.reader)).map_err(|source| ControlError::Use { path: self.path.clone(), source })
    }
}

fn migrate(connection: &mut Connection, name: &str, sql: &str) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let known: bool =
        transaction.query_row("SELECT EXISTS (SELECT 1 FROM migration WHERE name = ?1)", [name], |row| row.get(0))?;
    if !known {
        transaction.execute_batch(sql)?;
        transaction.execute("INSERT INTO migration (name) VALUES (?1)", [name])?;
    }
    transaction.commit()
}

/// A panic in a closure rolls its transaction back, so the connection behind a poisoned lock is sound.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_run_once_and_a_failed_write_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.db");
        let migrations: &[Migration] = &[("test-1", "CREATE TABLE word (text TEXT NOT NULL) STRICT")];
        for _ in 0..2 {
            let control = Control::open(&path, migrations).unwrap();
            control.write(|tx| tx.execute("INSERT INTO word VALUES ('petrel')", [])).unwrap();
            let failed = control.write(|tx| {
                tx.execute("INSERT INTO word VALUES ('lost')", [])?;
                tx.execute("INSERT INTO nowhere VALUES (1)", [])
            });
            assert!(failed.is_err());
        }
        let control = Control::open(&path, migrations).unwrap();
        let words: i64 =
            control.read(|c| c.query_row("SELECT count(*) FROM word WHERE text = 'petrel'", [], |r| r.get(0))).unwrap();
        let all: i64 = control.read(|c| c.query_row("SELECT count(*) FROM word", [], |r| r.get(0))).unwrap();
        assert_eq!((words, all), (2, 2));
    }
}
