//! What the spool asks of a file system: names in one folder and bytes in files. A seam, so that tests can put a disk below the spool
//! that fails, tears and forgets (`faults`); the real one is a thin rim that decides nothing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It must be there.
    Read,
    /// It is created where it is not there.
    Write,
    /// As [`Mode::Write`], and emptied.
    Fresh,
}

/// A folder. What was done to names survives a power failure from [`Disk::sync_names`] on, and may before.
pub(super) trait Disk: Send + Sync {
    /// All names, in any order.
    fn names(&self) -> io::Result<Vec<String>>;
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Replaces what has the name `to`, all of it or nothing.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn sync_names(&self) -> io::Result<()>;
}

/// An open file. What was done to it survives a power failure from [`DiskFile::sync`] on, and may before, in any order and in parts.
/// After a sync that failed nobody knows what survives, even if a later one succeeds.
pub(super) trait DiskFile: Send {
    fn bytes(&self) -> io::Result<u64>;
    /// Fills the buffer as far as the file goes; returns how much that is.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// May have written a part when it fails.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// A folder of the machine's file system.
pub(super) struct Folder(pub(super) PathBuf);

impl Disk for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(Result::transpose).collect()
    }

    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        let writes = mode != Mode::Read;
        let mut options = OpenOptions::new();
        options.read(true).write(writes).create(writes).truncate(mode == Mode::Fresh);
        Ok(Box::new(options.open(self.0.join(name))?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.0.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl DiskFile for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match FileExt::read_at(self, &mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// All of a file.
pub(super) fn read_all(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name, Mode::Read)?;
    let mut bytes = vec![0; file.bytes()? as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}
