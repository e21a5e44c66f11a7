//! A disk that only keeps what was synced. It follows a trace and gives the files as a power failure could leave them after
//! each call: what was synced is certain, of the rest nothing is.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use super::trace::{Call, Trace};
use crate::dice::Dice;

/// Unit in which a cut-off write reaches the disk.
const SECTOR_BYTES: u64 = 512;

/// Which of the changes that were not synced the disk kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// None.
    Nothing,
    /// All, as when only the process ended.
    Everything,
    /// Those up to a random one, which is cut off in its midst.
    Begun,
    /// Random ones, each as likely as not, some cut off; writes reach a disk in any order.
    Some,
}

impl Kept {
    /// All kinds.
    pub const ALL: [Kept; 4] = [Kept::Nothing, Kept::Everything, Kept::Begun, Kept::Some];
}

/// The files of a folder, by path below it.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A change to a file's bytes.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, data: Range<usize> },
    Truncate(u64),
}

#[derive(Debug, Default)]
struct Content {
    synced: Vec<u8>,
    since: Vec<Change>,
}

/// A change to the names of a folder.
#[derive(Debug, Clone)]
enum Naming {
    Add(String, usize),
    Remove(String),
    Rename(String, String),
}

/// The disk after the calls that it was told.
#[derive(Debug, Default)]
pub struct Disk {
    contents: Vec<Content>,
    /// Names as the running system sees them, and as they are certain to be found after a crash.
    names: BTreeMap<String, usize>,
    synced: BTreeMap<String, usize>,
    since: Vec<Naming>,
    open: HashMap<i32, Handle>,
}

#[derive(Debug, Clone)]
enum Handle {
    File(usize),
    Folder(String),
}

impl Disk {
    /// A disk on which these files are certain.
    pub fn with(files: &Files) -> Disk {
        let mut disk = Disk::default();
        for (at, (path, bytes)) in files.iter().enumerate() {
            disk.contents.push(Content { synced: bytes.clone(), since: Vec::new() });
            disk.names.insert(path.clone(), at);
        }
        disk.synced = disk.names.clone();
        disk
    }

    /// Follows one call; says whether a crash after it can leave other files than a crash before it.
    pub fn follow(&mut self, call: &Call, trace: &Trace) -> bool {
        match call {
            Call::Open { fd, path, created, truncated } => return self.open(*fd, path, *created, *truncated),
            Call::Close { fd } => {
                self.open.remove(fd);
                return false;
            }
            Call::Write { fd, offset, data } => self.change(*fd, Change::Write { offset: *offset, data: data.clone() }),
            Call::Truncate { fd, bytes } => self.change(*fd, Change::Truncate(*bytes)),
            Call::Sync { fd } => match self.open.get(fd).cloned() {
                Some(Handle::File(at)) => self.contents[at].sync(&trace.bytes),
                Some(Handle::Folder(folder)) => self.sync_names(&folder),
                None => {}
            },
            Call::Rename { from, to } => self.rename(Naming::Rename(from.clone(), to.clone())),
            Call::Unlink { path } => self.rename(Naming::Remove(path.clone())),
            // Folders come into being with their first file.
            Call::Mkdir { .. } => return false,
        }
        true
    }

    fn open(&mut self, fd: i32, path: &str, created: bool, truncated: bool) -> bool {
        let Some(&at) = self.names.get(path) else {
            if created {
                self.contents.push(Content::default());
                let at = self.contents.len() - 1;
                self.rename(Naming::Add(path.to_owned(), at));
                self.open.insert(fd, Handle::File(at));
            } else {
                self.open.insert(fd, Handle::Folder(path.to_owned()));
            }
            return created;
        };
        self.open.insert(fd, Handle::File(at));
        if truncated {
            self.contents[at].since.push(Change::Truncate(0));
        }
        truncated
    }

    fn change(&mut self, fd: i32, change: Change) {
        let Some(Handle::File(at)) = self.open.get(&fd) else { panic!("descriptor {fd} was never opened") };
        self.contents[*at].since.push(change);
    }

    fn rename(&mut self, naming: Naming) {
        naming.apply(&mut self.names);
        self.since.push(naming);
    }

    fn sync_names(&mut self, folder: &str) {
        let of_folder = |naming: &Naming| Path::new(naming.path()).parent() == Some(Path::new(folder));
        let (now, later): (Vec<Naming>, Vec<Naming>) = std::mem::take(&mut self.since).into_iter().partition(of_folder);
        for naming in &now {
            naming.apply(&mut self.synced);
        }
        self.since = later;
    }

    /// The files of a folder as a crash leaves them now. SQLite's shared memory files are mapped, never written, and gone.
    pub fn crash(&self, folder: &str, kept: Kept, trace: &Trace, dice: &mut Dice) -> Files {
        let mut names = self.synced.clone();
        let names_kept = match kept {
            Kept::Nothing => 0,
            Kept::Everything => self.since.len(),
            // File systems with a journal keep the order of names, whatever they do with data.
            Kept::Begun | Kept::Some => dice.below(self.since.len() as u64 + 1) as usize,
        };
        for naming in self.since.iter().take(names_kept) {
            naming.apply(&mut names);
        }
        let below = |path: &str| path.strip_prefix(folder)?.strip_prefix('/').map(ToOwned::to_owned);
        let found = names.iter().filter(|(path, _)| !path.ends_with("-shm"));
        found
            .filter_map(|(path, at)| Some((below(path)?, self.contents[*at].crash(kept, &trace.bytes, dice))))
            .collect()
    }
}

impl Naming {
    fn path(&self) -> &str {
        match self {
            Naming::Add(path, _) | Naming::Remove(path) | Naming::Rename(path, _) => path,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Naming::Add(path, at) => {
                names.insert(path.clone(), *at);
            }
            Naming::Remove(path) => {
                names.remove(path);
            }
            Naming::Rename(from, to) => {
                if let Some(at) = names.remove(from) {
                    names.insert(to.clone(), at);
                }
            }
        }
    }
}

impl Content {
    fn sync(&mut self, data: &[u8]) {
        for change in std::mem::take(&mut self.since) {
            change.apply(&mut self.synced, data);
        }
    }

    fn crash(&self, kept: Kept, data: &[u8], dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        let begun = dice.below(self.since.len() as u64 + 1) as usize;
        for (n, change) in self.since.iter().enumerate() {
            let (keep, cut) = match kept {
                Kept::Nothing => (false, false),
                Kept::Everything => (true, false),
                Kept::Begun => (n <= begun, n == begun),
                Kept::Some => (dice.once_in(2), dice.once_in(8)),
            };
            match change {
                _ if !keep => {}
                Change::Write { offset, data: range } if cut => {
                    let sectors = (range.len() as u64).div_ceil(SECTOR_BYTES);
                    let reached = (dice.below(sectors + 1) * SECTOR_BYTES).min(range.len() as u64) as usize;
                    let part = range.start..range.start + reached;
                    Change::Write { offset: *offset, data: part }.apply(&mut bytes, data);
                }
                change => change.apply(&mut bytes, data),
            }
        }
        bytes
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, data: &[u8]) {
        match self {
            Change::Truncate(length) => bytes.resize(*length as usize, 0),
            Change::Write { offset, data: range } => {
                let (from, to) = (*offset as usize, *offset as usize + range.len());
                if bytes.len() < to {
                    bytes.resize(to, 0);
                }
                bytes[from..to].copy_from_slice(&data[range.clone()]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace() -> Trace {
        Trace { bytes: b"abcdef".to_vec(), calls: Vec::new() }
    }

    fn follow(disk: &mut Disk, calls: &[Call]) {
        for call in calls {
            disk.follow(call, &trace());
        }
    }

    #[test]
    fn only_what_was_synced_is_certain() {
        let mut disk = Disk::default();
        let open = |fd, path: &str, created| Call::Open { fd, path: path.to_owned(), created, truncated: false };
        let write = |range: Range<usize>| Call::Write { fd: 3, offset: range.start as u64, data: range };
        follow(&mut disk, &[open(3, "d/a", true), write(0..3), Call::Sync { fd: 3 }, write(3..6)]);
        let left = |disk: &Disk, kept| {
            let files = disk.crash("d", kept, &trace(), &mut Dice::new(1, 1));
            files.get("a").map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        };
        assert_eq!(left(&disk, Kept::Nothing), None, "the folder was not synced");
        assert_eq!(left(&disk, Kept::Everything).as_deref(), Some("abcdef"));
        follow(&mut disk, &[open(4, "d", false), Call::Sync { fd: 4 }]);
        assert_eq!(left(&disk, Kept::Nothing).as_deref(), Some("abc"));
        follow(&mut disk, &[Call::Unlink { path: "d/a".to_owned() }, Call::Truncate { fd: 3, bytes: 1 }]);
        assert_eq!(left(&disk, Kept::Nothing).as_deref(), Some("abc"));
        assert_eq!(left(&disk, Kept::Everything), None);
    }
}
