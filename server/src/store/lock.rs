//! The data directory's lock: one server per directory. The kernel drops it when the process ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

/// Name of the lock file; it holds the owner's process id.
const LOCK_FILE: &str = "lock";

/// Holds the directory until dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

/// Why the directory could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "data directory {dir} is in use by the process with id {pid}; stop that one or choose another directory with --data"
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The owner's process id, `unknown` where it did not get to write it.
        pid: String,
    },
    /// It cannot be created or written.
    #[error("data directory {dir} cannot be used; check that it exists and belongs to the user that runs petrel")]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
}

/// Creates the directory where missing and locks it.
///
/// # Errors
/// Another process holds it, or it cannot be written.
pub fn lock(dir: &Path) -> Result<DirectoryLock, LockError> {
    let unusable = |source| LockError::Directory { dir: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(unusable)?;
    let path = dir.join(LOCK_FILE);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(unusable)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // Only for the message: the owner may not have written it yet.
            let _ = file.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".to_owned() } else { pid.trim().to_owned() };
            return Err(LockError::InUse { dir: dir.to_owned(), pid });
        }
        Err(errno) => return Err(unusable(errno.into())),
    }
    // The id only helps people. A full disk must not keep the server from starting: queries still work then.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(DirectoryLock { _file: file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_with_directory_and_pid() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let refused = lock(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&dir.path().display().to_string()), "{refused}");
        assert!(refused.contains(&format!("id {};", std::process::id())), "{refused}");
        drop(held);
        lock(dir.path()).unwrap();
    }
}
