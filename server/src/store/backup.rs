//! A backup of a store that runs: every database copied by SQLite itself, so that each is whole, in an order that keeps them true
//! together. It holds every sample that was acknowledged before it began, and may hold later ones; nothing that was deleted before is in
//! it. While it is taken heads are sealed and journals unlinked; nothing else of the store changes, and it never changes a database itself.
//!
//! Files are copied one after the other into a temporary one, because reading a database of ours past SQLite would drop SQLite's
//! locks on it in this process.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::backup::Backup;

use super::archive::ArchiveWriter;
use super::engine::Store;
use super::{journal, sqlite};
use crate::series::Timestamp;
use crate::telemetry;

/// The copy that is being sent; removed afterwards, and at the next start where the process ended in between.
const STAGED: &str = "backup.tmp";
/// Pages copied by one step: all of them, under one snapshot.
const STEP_PAGES: i32 = i32::MAX;
/// Longest time of a backup. Nothing is unlinked, merged or deleted meanwhile, so a reader that is slow without end would fill the disk; at
/// the speed of one old disk this is 4 TB.
const LASTS_MAX: Duration = Duration::from_secs(12 * 3600);

/// Why a backup failed. The store goes on as before.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A database cannot be copied.
    #[error("database {path} cannot be copied; `petrel verify` tells whether it is damaged")]
    Copy {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// The copy cannot be kept or passed on.
    #[error("the backup cannot be passed on")]
    Write(#[from] io::Error),
    /// No room for the copy of one file.
    #[error(
        "the disk of {dir} has no room for a copy of {path} ({bytes} bytes) beside the reserve; free space and try again"
    )]
    NoRoom {
        /// The data directory.
        dir: PathBuf,
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
}

impl Store {
    /// Bytes of all databases: what a backup of now comes to, roughly.
    pub fn backup_bytes(&self) -> u64 {
        databases(&self.shared.dir).map_or(0, |paths| paths.iter().map(|path| sqlite::bytes(path)).sum())
    }

    /// Writes a backup to `out`. Blocks on disk and on `out`; ingest and queries go on. One at a time: the caller sees to that.
    ///
    /// # Errors
    /// A database cannot be read, or `out` refuses; what was written is no backup.
    pub fn backup(&self, made_at: Timestamp, out: &mut dyn Write) -> Result<(), BackupError> {
        let dir = &self.shared.dir;
        let staged = Staged { path: dir.join(STAGED) };
        let is_tight = || !self.shared.has_room(0);
        let mut out = Limited { out, begun: Instant::now(), lasts_max: LASTS_MAX, is_tight: &is_tight };
        let mut archive = ArchiveWriter::new(&mut out, made_at)?;
        self.shared.write_metadata();
        let _rest = Rest { store: self };
        telemetry::STORE_RESTING.inc();
        let mut maintenance = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        // From now until the end, so that what is copied late fits what was copied early: no day goes before it is copied, none is cut
        // after its journals were, and no file drops the notes that keep journals of the backup from being replayed.
        maintenance.is_resting = true;
        // What was about to go stays for now, perhaps for hours, and takes samples.
        if maintenance.closing.take().is_some() {
            self.shared.close_days(maintenance.closed());
        }
        // Under the lock no journal is unlinked either, so agents' marks and acknowledged samples are caught together.
        let control = dir.join("control.db");
        self.stage(&staged, &control, &sqlite::open_reader(&control).map_err(failed(&control))?)?;
        let journals = snapshots(dir)?;
        drop(maintenance);
        staged.send(&mut archive, &control)?;
        for (path, connection) in &journals {
            self.stage(&staged, path, connection)?;
            staged.send(&mut archive, path)?;
        }
        drop(journals);
        // Listed after the journals: what sealing moves meanwhile is then in both, and never in none.
        for path in databases(dir)? {
            if path == control || is_journal(&path) {
                continue;
            }
            self.stage(&staged, &path, &sqlite::open_reader(&path).map_err(failed(&path))?)?;
            staged.send(&mut archive, &path)?;
        }
        Ok(archive.finish()?)
    }

    fn stage(&self, staged: &Staged, path: &Path, connection: &Connection) -> Result<(), BackupError> {
        let bytes = sqlite::bytes(path);
        if !self.shared.has_room(bytes) {
            return Err(BackupError::NoRoom { dir: self.shared.dir.clone(), path: path.to_owned(), bytes });
        }
        staged.copy(connection).map_err(failed(path))
    }
}

/// Lets maintenance go on.
struct Rest<'a> {
    store: &'a Store,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        self.store.maintenance.lock().unwrap_or_else(PoisonError::into_inner).is_resting = false;
        telemetry::STORE_RESTING.dec();
    }
}

/// Passes on for a limited time, and while the disk has room: the retention waits meanwhile.
struct Limited<'a> {
    out: &'a mut dyn Write,
    begun: Instant,
    lasts_max: Duration,
    /// Whether the disk nears the reserve.
    is_tight: &'a dyn Fn() -> bool,
}

impl Write for Limited<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.begun.elapsed() > self.lasts_max {
            let hours = self.lasts_max.as_secs() / 3600;
            let why = format!("a backup may last {hours} hours, because the store rests meanwhile; read it faster");
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        if (self.is_tight)() {
            let why = "the disk nears store.disk_reserve, and the retention waits for the backup; free space and read it faster";
            return Err(io::Error::new(io::ErrorKind::StorageFull, why));
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Removes what a backup left that was cut off by the end of the process.
pub(super) fn remove_staged(dir: &Path) -> io::Result<()> {
    sqlite::unlink(&dir.join(STAGED))
}

fn failed(path: &Path) -> impl FnOnce(rusqlite::Error) -> BackupError {
    move |source| BackupError::Copy { path: path.to_owned(), source }
}

/// Connections to all journals that see what was committed until now, also when the files are unlinked later.
fn snapshots(dir: &Path) -> Result<Vec<(PathBuf, Connection)>, BackupError> {
    let mut all = Vec::new();
    for (_, path) in journal::list(dir)? {
        let open = || {
            let connection = sqlite::open_reader(&path)?;
            sqlite::never_checkpoint(&connection)?;
            connection.execute_batch("BEGIN; SELECT count(*) FROM sqlite_schema;")?;
            Ok(connection)
        };
        let connection = open().map_err(failed(&path))?;
        all.push((path, connection));
    }
    Ok(all)
}

/// All databases of a directory, by name.
pub(super) fn databases(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "db") && path.is_file() {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether this is the name of a journal.
pub(super) fn is_journal(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal-"))
}

/// The temporary copy of one database.
struct Staged {
    path: PathBuf,
}

impl Staged {
    fn copy(&self, from: &Connection) -> rusqlite::Result<()> {
        // What stands there is an earlier file's; a copy that cannot be removed fails to be made.
        let _ = sqlite::unlink(&self.path);
        let mut to = Connection::open(&self.path)?;
        to.execute_batch("PRAGMA synchronous = OFF;")?;
        let backup = Backup::new(from, &mut to)?;
        backup.run_to_completion(STEP_PAGES, Duration::ZERO, None)
    }

    fn send(&self, archive: &mut ArchiveWriter<'_>, path: &Path) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        let bytes = file.metadata()?.len();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        archive.entry(&name, bytes, &mut file)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Err(error) = sqlite::unlink(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "a temporary file of the backup stays until the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_without_end_is_cut_off() {
        let mut taken = Vec::new();
        let mut out = Limited { out: &mut taken, begun: Instant::now(), lasts_max: LASTS_MAX, is_tight: &|| false };
        out.write_all(b"one").unwrap();
        out.begun = Instant::now().checked_sub(Duration::from_millis(2)).unwrap();
        out.lasts_max = Duration::from_millis(1);
        assert_eq!(out.write_all(b"two").unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(taken, b"one");
    }

    #[test]
    fn a_backup_gives_way_before_samples_are_refused() {
        let mut taken = Vec::new();
        let tight = std::cell::Cell::new(false);
        let is_tight = || tight.get();
        let mut out = Limited { out: &mut taken, begun: Instant::now(), lasts_max: LASTS_MAX, is_tight: &is_tight };
        out.write_all(b"one").unwrap();
        tight.set(true);
        assert_eq!(out.write_all(b"two").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(taken, b"one");
    }
}
