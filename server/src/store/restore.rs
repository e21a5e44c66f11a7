//! A backup into a data directory that no server uses. The archive is checked to its last byte before anything is touched; files are
//! written aside and moved into place, the control database first; what stood there is kept, never deleted. A restore that was
//! cut off is seen by the next start of a server, which refuses.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Transaction};

use super::archive::{self, Contents, ReadArchiveError};
use super::backup::databases;
use super::lock::{self, LockError};
use super::sqlite;
use crate::series::Timestamp;

/// Where files lie until all of them are there. It exists as long as a restore is not done.
const STAGING: &str = "restoring";
/// The database that a directory cannot do without.
const CONTROL: &str = "control.db";

/// Why a backup was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The archive is not there or cannot be read.
    #[error("backup {path} cannot be opened")]
    Open {
        /// The archive.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The archive is not whole.
    #[error("{path}: nothing was changed")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: ReadArchiveError,
    },
    /// It holds no control database.
    #[error("{path} holds no {CONTROL}, so it is no backup of a server; nothing was changed")]
    NoControl {
        /// The archive.
        path: PathBuf,
    },
    /// A server runs on the directory, or it cannot be used.
    #[error("a backup is restored into a directory that no server uses; nothing was changed")]
    Lock(#[from] LockError),
    /// Something is there.
    #[error(
        "{dir} holds {count} databases already; nothing was changed. With --replace they are moved aside, not deleted"
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// How many.
        count: usize,
    },
    /// The disk is too small.
    #[error("{dir} has {free_bytes} bytes free, the backup needs {bytes}; nothing was changed")]
    NoRoom {
        /// The directory.
        dir: PathBuf,
        /// What is there.
        free_bytes: u64,
        /// What is needed.
        bytes: u64,
    },
    /// Writing failed on the way.
    #[error("{path} cannot be written; free space or mend the disk and run the restore again with --replace")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The restored control database cannot be used.
    #[error("{CONTROL} of the backup cannot be used; nothing was changed")]
    Control(#[from] rusqlite::Error),
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The archive's contents.
    pub contents: Contents,
    /// Where the databases are now that stood there before.
    pub replaced: Option<PathBuf>,
}

/// Whether a restore into `dir` was cut off.
pub fn is_unfinished(dir: &Path) -> bool {
    dir.join(STAGING).exists()
}

/// Reads an archive whole and says what is in it.
///
/// # Errors
/// It is not a whole backup.
pub fn check(path: &Path) -> Result<Contents, RestoreError> {
    let contents = read(path, &mut |_, _, _| Ok(()))?;
    let has_control = contents.files.iter().any(|(name, _)| name == CONTROL);
    has_control.then_some(contents).ok_or_else(|| RestoreError::NoControl { path: path.to_owned() })
}

/// Restores an archive into `dir`; `begin_anew` changes the control database before anything of it can be used. With `replace`
/// the databases that are there are moved aside.
///
/// # Errors
/// Nothing was changed, unless the error says otherwise.
pub fn restore(
    path: &Path,
    dir: &Path,
    replace: bool,
    now: Timestamp,
    begin_anew: &dyn Fn(&Transaction<'_>) -> rusqlite::Result<()>,
) -> Result<Restored, RestoreError> {
    let contents = check(path)?;
    let _lock = lock::lock(dir)?;
    let standing = databases(dir).map_err(writing(dir))?;
    if !standing.is_empty() && !replace {
        return Err(RestoreError::NotEmpty { dir: dir.to_owned(), count: standing.len() });
    }
    let bytes = contents.files.iter().map(|(_, bytes)| bytes).sum();
    let free = rustix::fs::statvfs(dir).map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    if let Ok(free_bytes) = free
        && free_bytes < bytes
    {
        return Err(RestoreError::NoRoom { dir: dir.to_owned(), free_bytes, bytes });
    }
    let staging = dir.join(STAGING);
    let unpacked = unpack(path, &staging).and_then(|()| Ok(anew(&staging.join(CONTROL), begin_anew)?));
    if let Err(error) = unpacked {
        // Nothing but the staging folder was touched; where it stays, a start of the server says so.
        let _ = std::fs::remove_dir_all(&staging);
        return Err(error);
    }
    let replaced = if standing.is_empty() { None } else { Some(set_aside(dir, &standing, now)?) };
    let mut names: Vec<&str> = contents.files.iter().map(|(name, _)| name.as_str()).collect();
    // The held control database first: whatever comes between, no server starts on these samples and acts.
    names.sort_by_key(|name| *name != CONTROL);
    for name in names {
        let to = dir.join(name);
        std::fs::rename(staging.join(name), &to).map_err(writing(&to))?;
    }
    sync(dir)?;
    std::fs::remove_dir_all(&staging).map_err(writing(&staging))?;
    sync(dir)?;
    Ok(Restored { contents, replaced })
}

fn read(
    path: &Path,
    each: &mut dyn FnMut(&str, u64, &mut dyn Read) -> io::Result<()>,
) -> Result<Contents, RestoreError> {
    let file = File::open(path).map_err(|source| RestoreError::Open { path: path.to_owned(), source })?;
    let mut input = io::BufReader::with_capacity(1 << 20, file);
    archive::read(&mut input, each).map_err(|source| RestoreError::Archive { path: path.to_owned(), source })
}

fn unpack(path: &Path, staging: &Path) -> Result<(), RestoreError> {
    if staging.exists() {
        std::fs::remove_dir_all(staging).map_err(writing(staging))?;
    }
    std::fs::create_dir(staging).map_err(writing(staging))?;
    read(path, &mut |name, _, body| {
        let mut file = File::create_new(staging.join(name))?;
        io::copy(body, &mut file)?;
        file.sync_all()
    })?;
    sync(staging)
}

/// Opens the control database alone, changes it, and leaves no log beside it.
fn anew(path: &Path, begin_anew: &dyn Fn(&Transaction<'_>) -> rusqlite::Result<()>) -> rusqlite::Result<()> {
    let mut connection = Connection::open(path)?;
    connection.execute_batch("PRAGMA synchronous = FULL;")?;
    let transaction = connection.transaction()?;
    begin_anew(&transaction)?;
    transaction.commit()?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);")?;
    connection.close().map_err(|(_, error)| error)
}

/// Moves databases with their logs into a folder of their own.
fn set_aside(dir: &Path, standing: &[PathBuf], now: Timestamp) -> Result<PathBuf, RestoreError> {
    let aside = dir.join(format!("replaced-{now}"));
    std::fs::create_dir(&aside).map_err(writing(&aside))?;
    for path in standing.iter().flat_map(|path| sqlite::files(path)) {
        let to = aside.join(path.file_name().unwrap_or_default());
        match std::fs::rename(&path, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(writing(&path)(error)),
            _ => {}
        }
    }
    sync(&aside)?;
    Ok(aside)
}

fn sync(dir: &Path) -> Result<(), RestoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(writing(dir))
}

fn writing(path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    move |source| RestoreError::Write { path: path.to_owned(), source }
}
