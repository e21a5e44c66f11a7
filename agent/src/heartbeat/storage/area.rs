//! The area on shared storage: made once by an operator, opened with O_DIRECT, read whole, one slot written at a time. Blocks for
//! as long as the storage does, so it is called in a process of its own only. Never writes to what does not begin with
//! Petrel's header.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::record::{BLOCK_BYTES, HOSTS_MAX, Header, Record, Slot};

/// Blocks read at once.
const CHUNK_BLOCKS: usize = 16;

/// An area that was opened.
#[derive(Debug)]
pub struct Area {
    file: File,
    header: Header,
    buffer: Aligned,
}

/// Why an area could not be opened or made.
#[derive(Debug, thiserror::Error)]
pub enum AreaError {
    /// The system refused.
    #[error("{} cannot be opened; it must be a file on shared storage or a block device, made by `petrel-agent storage-format`", path.display())]
    Open {
        /// Where.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// O_DIRECT is refused.
    #[error("{} is on a file system without O_DIRECT, where a host may read its own cache; put it on shared storage", path.display())]
    NotDirect {
        /// Where.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// There is no header.
    #[error("{} is not an area of storage heartbeats; make one with `petrel-agent storage-format`", path.display())]
    NoHeader {
        /// Where.
        path: PathBuf,
    },
    /// It would be overwritten.
    #[error("{} exists and is not empty; nothing was written. If it holds nothing that anybody needs, say --overwrite", path.display())]
    NotEmpty {
        /// Where.
        path: PathBuf,
    },
    /// It does not fit.
    #[error("{} has {bytes} bytes, and {hosts_max} hosts need {needed}; use a larger device or fewer hosts", path.display())]
    TooSmall {
        /// Where.
        path: PathBuf,
        /// What there is.
        bytes: u64,
        /// What was asked for.
        hosts_max: u16,
        /// What that takes.
        needed: u64,
    },
    /// A number of hosts.
    #[error("{0} hosts are not allowed; use 1 to 256")]
    HostsMax(u16),
}

/// Memory that begins where O_DIRECT wants it to.
#[derive(Debug)]
struct Aligned {
    bytes: Vec<u8>,
    begin: usize,
    length: usize,
}

impl Area {
    /// Opens an area and reads its header.
    ///
    /// # Errors
    /// It cannot be opened so, or is not an area.
    pub fn open(path: &Path) -> Result<Area, AreaError> {
        let file = open(path, OFlags::DIRECT | OFlags::DSYNC)?;
        let mut buffer = Aligned::new(CHUNK_BLOCKS * BLOCK_BYTES);
        let block = buffer.part(1);
        match file.read_exact_at(block, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(AreaError::NoHeader { path: path.to_owned() });
            }
            read => read.map_err(|source| AreaError::Io { path: path.to_owned(), source })?,
        }
        let header = Header::decode(block).ok_or_else(|| AreaError::NoHeader { path: path.to_owned() })?;
        Ok(Area { file, header, buffer })
    }

    /// Slots of the area.
    pub fn hosts_max(&self) -> u16 {
        self.header.hosts_max
    }

    /// All slots that are not free, with their numbers from 1 on.
    ///
    /// # Errors
    /// The storage failed, the area is cut short, or its header is another one than when it was opened.
    pub fn read(&mut self) -> io::Result<Vec<(u16, Slot)>> {
        self.check_header()?;
        let mut slots = Vec::new();
        let mut next = 1usize;
        let end = usize::from(self.header.hosts_max) + 1;
        while next < end {
            let blocks = (end - next).min(CHUNK_BLOCKS);
            let chunk = self.buffer.part(blocks);
            self.file.read_exact_at(chunk, (next * BLOCK_BYTES) as u64)?;
            for (place, block) in chunk.chunks_exact(BLOCK_BYTES).enumerate() {
                match Slot::decode(block) {
                    Slot::Free => {}
                    slot => slots.push(((next + place) as u16, slot)),
                }
            }
            next += blocks;
        }
        Ok(slots)
    }

    /// Writes one slot; when it returns, the storage has it.
    ///
    /// # Errors
    /// There is no such slot, the storage failed, or the area's header is another one than when it was opened.
    pub fn write(&mut self, slot: u16, record: &Record) -> io::Result<()> {
        self.put(slot, &record.encode())
    }

    /// Makes one slot a free one.
    ///
    /// # Errors
    /// As of [`Area::write`].
    pub fn clear(&mut self, slot: u16) -> io::Result<()> {
        self.put(slot, &[0; BLOCK_BYTES])
    }

    fn put(&mut self, slot: u16, content: &[u8; BLOCK_BYTES]) -> io::Result<()> {
        if !(1..=self.header.hosts_max).contains(&slot) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "there is no such slot"));
        }
        self.check_header()?;
        let block = self.buffer.part(1);
        block.copy_from_slice(content);
        self.file.write_all_at(block, u64::from(slot) * BLOCK_BYTES as u64)?;
        // O_DSYNC covers the data; some network file systems flush their own caches at fsync only.
        self.file.sync_data()
    }

    /// An agent has its area open for months, in which the device may be given to something else. The little time between
    /// this look and a write stays.
    fn check_header(&mut self) -> io::Result<()> {
        let block = self.buffer.part(1);
        self.file.read_exact_at(block, 0)?;
        if Header::decode(block).as_ref() == Some(&self.header) {
            return Ok(());
        }
        let words = "it no longer begins with the header it was opened with: was it made anew or given to something else? Nothing is written there";
        Err(io::Error::new(io::ErrorKind::InvalidData, words))
    }
}

/// Makes an area: a new file, or a block device that holds nothing where the area would be. A file appears under its name only
/// when it is whole.
///
/// # Errors
/// There is something already and `overwrite` does not say to lose it, or the storage failed.
pub fn format(path: &Path, header: &Header, overwrite: bool) -> Result<(), AreaError> {
    if !(1..=HOSTS_MAX).contains(&header.hosts_max) {
        return Err(AreaError::HostsMax(header.hosts_max));
    }
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_block_device() => format_device(path, header, overwrite),
        Ok(_) if !overwrite => Err(AreaError::NotEmpty { path: path.to_owned() }),
        _ => format_file(path, header, overwrite),
    }
}

fn format_device(path: &Path, header: &Header, overwrite: bool) -> Result<(), AreaError> {
    let failed = |source| AreaError::Io { path: path.to_owned(), source };
    let mut file = open(path, OFlags::DIRECT | OFlags::DSYNC | OFlags::EXCL)?;
    let needed = (u64::from(header.hosts_max) + 1) * BLOCK_BYTES as u64;
    let bytes = file.seek(SeekFrom::End(0)).map_err(failed)?;
    if bytes < needed {
        return Err(AreaError::TooSmall { path: path.to_owned(), bytes, hosts_max: header.hosts_max, needed });
    }
    let mut buffer = Aligned::new(BLOCK_BYTES);
    let block = buffer.part(1);
    for place in 0..=u64::from(header.hosts_max) {
        file.read_exact_at(block, place * BLOCK_BYTES as u64).map_err(failed)?;
        if !overwrite && block.iter().any(|byte| *byte != 0) {
            return Err(AreaError::NotEmpty { path: path.to_owned() });
        }
    }
    fill(&file, header).map_err(failed)
}

fn format_file(path: &Path, header: &Header, overwrite: bool) -> Result<(), AreaError> {
    let failed = |source| AreaError::Io { path: path.to_owned(), source };
    // Named by the area's own id, so that two who make one at once do not write into each other's.
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".unfinished-{:032x}", u128::from_be_bytes(header.area_id)));
    let unfinished = PathBuf::from(unfinished);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .map_err(|source| AreaError::Open { path: unfinished.clone(), source })?;
    if let Err(source) = fill(&file, header).and_then(|()| file.sync_all()) {
        let _ = std::fs::remove_file(&unfinished);
        return Err(failed(source));
    }
    if overwrite {
        return std::fs::rename(&unfinished, path).map_err(failed);
    }
    // Unlike a rename, a link never replaces what somebody else made in the meantime.
    let linked = std::fs::hard_link(&unfinished, path);
    let _ = std::fs::remove_file(&unfinished);
    linked.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => AreaError::NotEmpty { path: path.to_owned() },
        _ => failed(error),
    })
}

/// Writes free slots, all of them, so that no write has to find room later; then the header, which makes it an area.
fn fill(file: &File, header: &Header) -> io::Result<()> {
    let mut buffer = Aligned::new(BLOCK_BYTES);
    for place in 0..=u64::from(header.hosts_max) {
        file.write_all_at(buffer.part(1), place * BLOCK_BYTES as u64)?;
    }
    file.sync_data()?;
    buffer.part(1).copy_from_slice(&header.encode());
    file.write_all_at(buffer.part(1), 0)?;
    file.sync_data()
}

fn open(path: &Path, flags: OFlags) -> Result<File, AreaError> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags.bits() as i32).open(path);
    opened.map_err(|source| match source.kind() {
        io::ErrorKind::InvalidInput => AreaError::NotDirect { path: path.to_owned() },
        _ => AreaError::Open { path: path.to_owned(), source },
    })
}

impl Aligned {
    fn new(length: usize) -> Aligned {
        let bytes = vec![0; length + BLOCK_BYTES];
        // The vector never grows, so its memory stays where it is.
        let begin = bytes.as_ptr().align_offset(BLOCK_BYTES);
        Aligned { bytes, begin, length }
    }

    /// The first blocks.
    fn part(&mut self, blocks: usize) -> &mut [u8] {
        let bytes = (blocks * BLOCK_BYTES).min(self.length);
        &mut self.bytes[self.begin..self.begin + bytes]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::heartbeat::codec::BeatClass;

    /// A folder where builds are: on a disk, which takes O_DIRECT, where /tmp may be memory.
    pub fn disk() -> tempfile::TempDir {
        let program = std::env::current_exe().unwrap();
        tempfile::tempdir_in(program.parent().unwrap()).unwrap()
    }

    pub fn header(hosts_max: u16) -> Header {
        Header { hosts_max, area_id: [7; 16], made_at: 1_000 }
    }

    pub fn record(host: &str, boot: u8, number: u64) -> Record {
        let class = BeatClass::Beat;
        Record { class, host: host.to_owned(), boot_id: [boot; 16], number, written_at: 5_000, interval_ms: 5_000 }
    }

    #[test]
    fn slots_are_written_and_read_back() {
        let dir = disk();
        let path = dir.path().join("beats");
        format(&path, &header(40), false).unwrap();
        let mut area = Area::open(&path).unwrap();
        assert_eq!((area.hosts_max(), area.read().unwrap()), (40, vec![]));
        let mut other = Area::open(&path).unwrap();
        for slot in [1, 17, 40] {
            area.write(slot, &record("a", 1, u64::from(slot))).unwrap();
        }
        let read = other.read().unwrap();
        assert_eq!(read, [1, 17, 40].map(|slot| (slot, Slot::Record(record("a", 1, u64::from(slot))))));
        for slot in [0, 41] {
            assert_eq!(area.write(slot, &record("a", 1, 1)).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn nothing_but_an_area_is_opened_and_nothing_is_overwritten_unasked() {
        let dir = disk();
        let path = dir.path().join("beats");
        assert!(matches!(Area::open(&path), Err(AreaError::Open { .. })));
        std::fs::write(&path, vec![1; 100_000]).unwrap();
        assert!(matches!(Area::open(&path), Err(AreaError::NoHeader { .. })));
        assert!(matches!(format(&path, &header(2), false), Err(AreaError::NotEmpty { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), vec![1; 100_000]);
        format(&path, &header(2), true).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 3 * BLOCK_BYTES as u64);
        assert!(matches!(format(&path, &header(2), false), Err(AreaError::NotEmpty { .. })));
        assert!(matches!(format(&path, &header(0), true), Err(AreaError::HostsMax(0))));
        std::fs::File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
        assert!(matches!(Area::open(&path), Err(AreaError::NoHeader { .. })));
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["beats"]);
    }

    #[test]
    fn what_was_given_to_something_else_is_not_written_to() {
        let folder = disk();
        let path = folder.path().join("area");
        format(&path, &header(4), false).unwrap();
        let mut area = Area::open(&path).unwrap();
        area.write(1, &record("a", 1, 1)).unwrap();
        let foreign = vec![7; 5 * BLOCK_BYTES];
        let other = std::fs::File::options().write(true).open(&path).unwrap();
        other.write_all_at(&foreign, 0).unwrap();
        assert_eq!(area.write(1, &record("a", 1, 2)).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(area.read().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(std::fs::read(&path).unwrap(), foreign);
        other.write_all_at(&Header { area_id: [9; 16], ..header(4) }.encode(), 0).unwrap();
        assert_eq!(area.write(1, &record("a", 1, 2)).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
