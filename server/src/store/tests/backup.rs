//! A store's backup while it works, and its restore: everything acknowledged is in it, nothing that was deleted, and nothing is touched
//! by a bad one.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::rollups::{DAY, FIRST, expire, fill, kept_for, value};
use super::world::{World, open_with};
use crate::query::source::{Source, TimeRange};
use crate::series::{Labels, Matcher, Sample, Timestamp};
use crate::store::restore::{RestoreError, restore};
use crate::store::{Batch, DeleteError, OpenStoreError, Store, StoreOptions};

const NOW: Timestamp = 1_790_000_000_000;
const ALL: TimeRange = TimeRange { from: 0, to: i64::MAX };

fn open(dir: &Path) -> Result<Arc<Store>, OpenStoreError> {
    let options = StoreOptions { retention: None, disk_reserve_bytes: 0, ..StoreOptions::default() };
    Store::open(dir, options, &[("test-1", "CREATE TABLE word (text TEXT NOT NULL) STRICT")], NOW)
}

fn append(store: &Store, series: i64, t: Timestamp, v: f64) {
    let labels = Labels::new([("__name__", "m".to_owned()), ("n", series.to_string())]);
    let batch = Batch { series: vec![(labels, vec![Sample { t, v }])], ..Batch::default() };
    store.append_blocking(batch, NOW).unwrap();
}

fn contents(store: &Store) -> BTreeMap<String, Vec<(i64, u64)>> {
    let all = store.select(&[], ALL, u64::MAX).unwrap();
    all.into_iter()
        .map(|one| (one.labels.to_string(), one.samples.iter().map(|s| (s.t, s.v.to_bits())).collect()))
        .collect()
}

fn filled(dir: &Path) -> Arc<Store> {
    let store = open(dir).unwrap();
    for n in 0..300 {
        append(&store, n % 7, NOW - n * 3_600_000, n as f64);
    }
    assert!(store.flush().is_empty());
    for n in 0..200 {
        append(&store, n % 9, NOW + n * 100, n as f64);
    }
    store.control().write(|tx| tx.execute("INSERT INTO word VALUES ('petrel')", [])).unwrap();
    store
}

fn backup(store: &Store, to: &Path) -> PathBuf {
    let mut out = Vec::new();
    store.backup(NOW, &mut out).unwrap();
    std::fs::write(to, out).unwrap();
    to.to_owned()
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_restored_store_holds_what_the_other_held() {
    let (from, to, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = filled(from.path());
    let file = backup(&store, &files.path().join("b"));
    assert!(!listing(from.path()).iter().any(|name| name.starts_with("backup.tmp")));
    append(&store, 1, NOW + 500_000, 1.0);
    let begin_anew = |tx: &rusqlite::Transaction<'_>| tx.execute("INSERT INTO word VALUES ('anew')", []).map(drop);
    let restored = restore(&file, to.path(), false, NOW, &begin_anew).unwrap();
    assert!(restored.replaced.is_none() && restored.contents.files.len() > 10);
    let copy = open(to.path()).unwrap();
    let mut expected = contents(&store);
    expected.get_mut("m{n=\"1\"}").unwrap().pop();
    assert_eq!(contents(&copy), expected);
    let words: i64 = copy.control().read(|c| c.query_row("SELECT count(*) FROM word", [], |row| row.get(0))).unwrap();
    assert_eq!(words, 2);
    // And it goes on: new samples override old ones, and come back after another start.
    append(&copy, 1, NOW - 3_600_000, -1.0);
    assert!(copy.flush().is_empty());
    let after = contents(&copy);
    drop(copy);
    assert_eq!(contents(&open(to.path()).unwrap()), after);
}

#[test]
fn a_backup_while_ingest_and_sealing_go_on_misses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let store = filled(dir.path());
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicI64::new(-1));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                append(&store, 100 + n % 5, NOW + n, n as f64);
                acknowledged.store(n, Ordering::SeqCst);
                if stop.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                store.flush();
            }
        });
        for round in 0..6 {
            while acknowledged.load(Ordering::SeqCst) < round * 40 {
                std::thread::yield_now();
            }
            let before = acknowledged.load(Ordering::SeqCst);
            let files = tempfile::tempdir().unwrap();
            let file = backup(&store, &files.path().join("b"));
            restore(&file, files.path(), false, NOW, &|_| Ok(())).unwrap();
            let copy = contents(&open(files.path()).unwrap());
            for n in 0..=before {
                let series = &copy[&format!("m{{n=\"{}\"}}", 100 + n % 5)];
                assert!(series.contains(&(NOW + n, (n as f64).to_bits())), "round {round}: sample {n} of {before}");
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
}

#[test]
fn what_cannot_be_restored_changes_nothing() {
    let (from, to, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = filled(from.path());
    let file = backup(&store, &files.path().join("b"));
    let bytes = std::fs::read(&file).unwrap();
    let refused = |file: &Path, dir: &Path| restore(file, dir, false, NOW, &|_| Ok(())).unwrap_err();
    for (end, word) in [(bytes.len() - 1, "SHA256SUMS"), (bytes.len() / 2, "truncated"), (2_000, "control.db")] {
        let cut = files.path().join("cut");
        std::fs::write(&cut, &bytes[..end]).unwrap();
        let error = refused(&cut, to.path());
        assert!(petrel_agent::error_chain::chain(&error).contains(word), "{error:?}");
    }
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 3] ^= 1;
    std::fs::write(files.path().join("flipped"), &flipped).unwrap();
    let error = refused(&files.path().join("flipped"), to.path());
    assert!(petrel_agent::error_chain::chain(&error).contains("damaged at `"), "{error:?}");
    assert!(matches!(refused(&files.path().join("none"), to.path()), RestoreError::Open { .. }));
    assert!(listing(to.path()).is_empty(), "{:?}", listing(to.path()));
    assert!(matches!(refused(&file, from.path()), RestoreError::Lock(_)));
    let held = contents(&store);
    store.close();
    drop(store);
    assert!(matches!(refused(&file, from.path()), RestoreError::NotEmpty { .. }));
    let fails =
        restore(&file, from.path(), true, NOW, &|tx| tx.execute("INSERT INTO nowhere VALUES (1)", []).map(drop));
    assert!(matches!(fails, Err(RestoreError::Control(_))));
    assert_eq!(contents(&open(from.path()).unwrap()), held);
}

#[test]
fn what_stood_there_is_moved_aside_and_a_cut_off_restore_is_seen() {
    let (from, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = filled(from.path());
    let file = backup(&store, &files.path().join("b"));
    append(&store, 8, NOW + 400_000, 5.0);
    let later = contents(&store);
    store.close();
    drop(store);
    let aside = restore(&file, from.path(), true, NOW, &|_| Ok(())).unwrap().replaced.unwrap();
    assert_ne!(contents(&open(from.path()).unwrap()), later);
    assert_eq!(contents(&open(&aside).unwrap()), later);
    std::fs::create_dir(from.path().join("restoring")).unwrap();
    assert!(matches!(open(from.path()), Err(OpenStoreError::RestoreUnfinished { .. })));
    restore(&file, from.path(), true, NOW + 1, &|_| Ok(())).unwrap();
    assert!(open(from.path()).is_ok());
}

/// Takes a backup, and does something to the store when an entry of a number begins: what a slow reader leaves time for.
struct Between<'a> {
    taken: Vec<u8>,
    entries: usize,
    at: usize,
    act: &'a dyn Fn(),
}

impl Write for Between<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if bytes.len() == 512 && bytes[257..262] == *b"ustar" {
            if self.entries == self.at {
                (self.act)();
            }
            self.entries += 1;
        }
        self.taken.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const SUM: &str = "sum(sum_over_time(m[1d]))";

/// A day that is rolled and due to go, one that is not rolled, and journals: of the second day, and of what was deleted from it.
fn busy() -> World {
    let world = World::new(kept_for(2));
    fill(&world);
    assert!(world.store.flush().is_empty());
    assert!(world.store.maintain(FIRST + DAY + DAY / 2).is_empty());
    for (n, day) in [(3, 0), (4, 1), (5, 1)] {
        let samples: Vec<(i64, f64)> = (0..400).map(|i| (FIRST + day * DAY + i * 60_000, i as f64)).collect();
        world.append_at(n, &samples, FIRST + 2 * DAY);
    }
    world.store.delete(&[vec![Matcher::equal("n", "5")]], ALL).unwrap();
    world
}

#[test]
fn whatever_maintenance_does_between_two_files_of_a_backup_it_is_that_of_one_moment() {
    let mut at = 0;
    loop {
        let mut world = busy();
        let ends = [FIRST + DAY - 1, FIRST + 2 * DAY - 1];
        let answers = |world: &World| ends.map(|end| value(world, SUM, end));
        let (held, before) = (contents(&world.store), answers(&world));
        let store = Arc::clone(&world.store);
        let act = || {
            for now in [FIRST + 2 * DAY + DAY / 2, FIRST + 4 * DAY, FIRST + 4 * DAY] {
                assert!(store.maintain(now).is_empty());
            }
            let deleted = store.delete(&[vec![Matcher::equal("n", "1")]], ALL);
            // The first entry is written before anything is copied.
            assert_eq!(matches!(deleted, Err(DeleteError::Resting)), at > 0, "{deleted:?}");
            assert!(store.flush().is_empty());
            assert_eq!(store.compact_all().is_err(), at > 0);
        };
        let mut out = Between { taken: Vec::new(), entries: 0, at, act: &act };
        world.store.backup(NOW, &mut out).unwrap();
        let files = tempfile::tempdir().unwrap();
        let file = files.path().join("b");
        std::fs::write(&file, out.taken).unwrap();
        world.reopen();
        assert!(world.store.delete(&[vec![]], TimeRange { from: 0, to: 1 }).is_ok(), "it rests no more");
        let (held, before) = if at > 0 { (held, before) } else { (contents(&world.store), answers(&world)) };
        restore(&file, files.path(), false, NOW, &|_| Ok(())).unwrap();
        world.store = open_with(files.path(), kept_for(2));
        world.dir = files;
        assert_eq!(contents(&world.store), held, "entry {at} of {}", out.entries);
        assert_eq!(answers(&world), before, "entry {at}");
        // The days and their rollups fit each other.
        expire(&mut world, FIRST + 5 * DAY);
        let rolled = answers(&world);
        for (rolled, raw) in rolled.iter().zip(before) {
            assert!((rolled - raw).abs() < 1e-6 * raw || raw.is_nan(), "entry {at}: {rolled}, raw {raw}");
        }
        if at + 1 == out.entries {
            break;
        }
        at += 1;
    }
    assert!(at > 6, "{at} entries are too few to race with");
}
