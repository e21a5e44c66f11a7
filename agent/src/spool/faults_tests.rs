//! The spool over a disk that fails, tears and forgets: operations fail with a part done, a sync that failed may have kept anything
//! or nothing, and a power failure takes what was not synced, in any order and in parts. Whatever happens, each batch that was kept
//! arrives once and whole, or is counted as dropped; what was refused arrives at most once; the reader's state is the last kept one's.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::DiskFile;
use super::*;

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

/// A file: what the system shows, what is certain on disk, and what was done since.
#[derive(Default)]
struct Content {
    shown: Vec<u8>,
    synced: Vec<u8>,
    since: Vec<Change>,
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write(offset, data) => {
            if bytes.len() < offset + data.len() {
                bytes.resize(offset + data.len(), 0);
            }
            bytes[*offset..offset + data.len()].copy_from_slice(data);
        }
        Change::Cut(length) => bytes.resize(*length, 0),
    }
}

struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    names_synced: BTreeMap<String, usize>,
    rng: StdRng,
    /// One operation in so many fails; 0 for none.
    fails_one_in: u32,
}

impl State {
    fn fails(&mut self) -> bool {
        self.fails_one_in > 0 && self.rng.gen_ratio(1, self.fails_one_in)
    }

    fn check(&mut self) -> io::Result<()> {
        if self.fails() { Err(io::Error::other("injected")) } else { Ok(()) }
    }

    /// Some of the changes that were not synced reach the disk, some of them in part.
    fn settle(&mut self, file: usize) {
        for change in std::mem::take(&mut self.files[file].since) {
            let kept = match change {
                _ if self.rng.gen_bool(0.4) => continue,
                Change::Write(offset, data) if self.rng.gen_bool(0.4) => {
                    let most = self.rng.gen_range(0..=data.len());
                    Change::Write(offset, data[..most].to_vec())
                }
                whole => whole,
            };
            apply(&mut self.files[file].synced, &kept);
        }
    }

    fn lose_power(&mut self) {
        for file in 0..self.files.len() {
            self.settle(file);
            self.files[file].shown = self.files[file].synced.clone();
        }
        // Of the names that changed each is found as it was or as it became.
        let all: Vec<String> = self.names.keys().chain(self.names_synced.keys()).cloned().collect();
        for name in all {
            let found = if self.rng.gen_bool(0.5) { self.names.get(&name) } else { self.names_synced.get(&name) };
            match found.copied() {
                Some(file) => self.names_synced.insert(name, file),
                None => self.names_synced.remove(&name),
            };
        }
        self.names = self.names_synced.clone();
    }
}

#[derive(Clone)]
struct FaultyDisk(Arc<Mutex<State>>);

impl FaultyDisk {
    fn new(seed: u64) -> FaultyDisk {
        let (names, names_synced) = (BTreeMap::new(), BTreeMap::new());
        let rng = StdRng::seed_from_u64(seed);
        FaultyDisk(Arc::new(Mutex::new(State { files: Vec::new(), names, names_synced, rng, fails_one_in: 0 })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Disk for FaultyDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.check()?;
        Ok(state.names.keys().cloned().collect())
    }

    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.check()?;
        let file = match (state.names.get(name), mode) {
            (Some(file), _) => *file,
            (None, Mode::Read) => return Err(io::ErrorKind::NotFound.into()),
            (None, _) => {
                let file = state.files.len();
                state.files.push(Content::default());
                state.names.insert(name.to_owned(), file);
                file
            }
        };
        let file = FaultyFile { disk: self.clone(), file };
        drop(state);
        if mode == Mode::Fresh {
            file.change(&Change::Cut(0));
        }
        Ok(Box::new(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        state.names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        let file = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), file);
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.state();
        state.check()?;
        state.names_synced = state.names.clone();
        Ok(())
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    file: usize,
}

impl FaultyFile {
    fn change(&self, change: &Change) {
        let content = &mut self.disk.state().files[self.file];
        apply(&mut content.shown, change);
        content.since.push(change.clone());
    }
}

impl DiskFile for FaultyFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].shown.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.check()?;
        let shown = &state.files[self.file].shown;
        let rest = &shown[(offset as usize).min(shown.len())..];
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (fails, most) = {
            let mut state = self.disk.state();
            (state.fails(), state.rng.gen_range(0..=bytes.len()))
        };
        let written = if fails { most } else { bytes.len() };
        self.change(&Change::Write(offset as usize, bytes[..written].to_vec()));
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.disk.state().check()?;
        self.change(&Change::Cut(bytes as usize));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.fails() {
            // What was not written yet is shown on, and never written: a later sync has nothing to do and succeeds.
            state.settle(self.file);
            return Err(io::Error::other("injected"));
        }
        let content = &mut state.files[self.file];
        for change in std::mem::take(&mut content.since) {
            apply(&mut content.synced, &change);
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append { class: usize, bytes: usize },
    Deliver { class: usize },
    PowerFailure,
    Restart,
    Faults { one_in: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3usize, 0..1500usize).prop_map(|(class, bytes)| Step::Append { class, bytes }),
        4 => (0..3usize).prop_map(|class| Step::Deliver { class }),
        1 => Just(Step::PowerFailure),
        1 => Just(Step::Restart),
        1 => prop_oneof![Just(0), 2..12u32].prop_map(|one_in| Step::Faults { one_in }),
    ]
}

fn by_budget(spool: &Spool, class: Class) -> u64 {
    spool.dropped().get(&(class, DropReason::Budget)).map_or(0, |dropped| dropped.batches)
}

/// The agent and its server around a spool.
struct World {
    disk: FaultyDisk,
    spool: Option<Spool>,
    next: u32,
    kept: [Vec<u32>; 3],
    state: [Vec<u8>; 3],
    /// The server's high mark, and what it took.
    mark: [u64; 3],
    taken: [Vec<u32>; 3],
    dropped: [u64; 3],
    /// What the budget had dropped when the spool was opened: the count goes on over starts.
    dropped_before: [u64; 3],
}

impl World {
    fn new(seed: u64) -> World {
        World {
            disk: FaultyDisk::new(seed),
            spool: None,
            next: 0,
            kept: Default::default(),
            state: Default::default(),
            mark: [0; 3],
            taken: Default::default(),
            dropped: [0; 3],
            dropped_before: [0; 3],
        }
    }

    /// Opens the spool; until the disk lets it.
    fn spool(&mut self) -> &mut Spool {
        while self.spool.is_none() {
            let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
            self.spool = Spool::open_on(&disk, 1 << 15, "ab").ok();
            if let Some(spool) = &self.spool {
                self.dropped_before = Class::ALL.map(|class| by_budget(spool, class));
            }
            if self.spool.is_none() && self.disk.state().rng.gen_bool(0.1) {
                self.disk.state().fails_one_in = 0;
            }
        }
        self.spool.as_mut().unwrap()
    }

    fn end(&mut self) {
        let Some(spool) = self.spool.take() else { return };
        // What the disk refused was never kept, and nothing rots on this one: damage that is counted is of files that were unlinked
        // before a power failure and of which it left some, all of it taken before.
        for class in 0..3 {
            self.dropped[class] += by_budget(&spool, Class::ALL[class]) - self.dropped_before[class];
        }
    }

    fn append(&mut self, class: usize, bytes: usize) {
        let (number, kind) = (self.next, Class::ALL[class]);
        self.next += 1;
        let mut body = number.to_le_bytes().to_vec();
        body.resize(4 + bytes, number as u8);
        let state = number.to_be_bytes();
        let frozen = Frozen { records: 1, state: &state, body: &body };
        if self.spool().append(kind, &frozen, 0).is_ok() {
            self.kept[class].push(number);
            self.state[class] = state.to_vec();
        }
    }

    /// Sends the oldest batch; `false` where there is none, or the disk does not give it.
    fn deliver(&mut self, class: usize) -> bool {
        let kind = Class::ALL[class];
        let Ok(Some(batch)) = self.spool().front(kind) else { return false };
        let number = u32::from_le_bytes(*batch.body.first_chunk().unwrap());
        assert!(batch.body[4..].iter().all(|byte| *byte == number as u8), "whole");
        if batch.seq > self.mark[class] {
            self.mark[class] = batch.seq;
            self.taken[class].push(number);
        }
        let _ = self.spool().acknowledge(kind, batch.seq);
        true
    }

    fn check(&mut self) {
        self.disk.state().fails_one_in = 0;
        self.end();
        for class in 0..3 {
            while self.deliver(class) {}
        }
        self.end();
        for class in 0..3 {
            let taken = &self.taken[class];
            assert!(taken.is_sorted_by(|a, b| a < b), "in order, and none twice: {taken:?}");
            let missing = self.kept[class].iter().filter(|number| !taken.contains(number)).count() as u64;
            assert!(missing <= self.dropped[class], "{missing} missing, {} counted", self.dropped[class]);
        }
        assert_eq!(self.dropped[0], 0, "answers are never dropped");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_was_kept_arrives_once_whatever_the_disk_does(seed: u64, steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new(seed);
        for step in steps {
            match step {
                Step::Append { class, bytes } => world.append(class, bytes),
                Step::Deliver { class } => drop(world.deliver(class)),
                Step::Restart => world.end(),
                Step::PowerFailure => {
                    world.end();
                    world.disk.state().lose_power();
                    // What a batch's writer was told failed may be there after all; then its state is, too.
                    for class in 0..3 {
                        let state = world.spool().state(Class::ALL[class]).to_vec();
                        prop_assert!(state >= world.state[class], "{:?} after {:?}", state, world.state[class]);
                        world.state[class] = state;
                    }
                }
                Step::Faults { one_in } => world.disk.state().fails_one_in = one_in,
            }
        }
        world.check();
    }
}
