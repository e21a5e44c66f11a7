//! Real damage to a store's files: flipped bytes, zeroed pages, files cut short. Verify sees it, a start names it, repair saves what can
//! be read and says what is lost.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use petrel_agent::error_chain::chain;

use crate::query::source::{Source, TimeRange};
use crate::series::{Labels, Sample, Timestamp};
use crate::store::repair::{Repaired, repair};
use crate::store::verify::{FileReport, verify};
use crate::store::{Batch, Store, StoreOptions, sqlite};

const NOW: Timestamp = 1_790_000_000_000;
const PAGE: usize = 16_384;
const SERIES: u64 = 400;
const STEPS: i64 = 40;

type Contents = BTreeMap<String, BTreeMap<i64, u64>>;

fn open(dir: &Path) -> Result<std::sync::Arc<Store>, String> {
    let options = StoreOptions { retention: None, disk_reserve_bytes: 0, ..StoreOptions::default() };
    let migration = ("test-1", "CREATE TABLE word (n INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT");
    Store::open(dir, options, &[migration], NOW).map_err(|error| chain(&error))
}

fn append(store: &Store, step: i64) {
    let series = (0..SERIES).map(|n| {
        let labels = Labels::new([("__name__", "m".to_owned()), ("n", format!("{n:04}"))]);
        // Full floats, so that chunks fill pages.
        (labels, vec![Sample { t: NOW + step * 1000, v: ((n * 7919 + step as u64 * 104_729) as f64).sqrt() }])
    });
    store.append_blocking(Batch { series: series.collect(), ..Batch::default() }, NOW + step * 1000).unwrap();
}

fn contents(dir: &Path) -> Contents {
    let store = open(dir).unwrap();
    let all = store.select(&[], TimeRange { from: 0, to: i64::MAX }, u64::MAX).unwrap();
    all.into_iter()
        .map(|one| (one.labels.to_string(), one.samples.iter().map(|s| (s.t, s.v.to_bits())).collect()))
        .collect()
}

/// A directory whose first half is sealed and whose second half lies in a journal; and what it holds.
fn directory() -> (tempfile::TempDir, Contents) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    for step in 0..STEPS {
        append(&store, step);
        if step == STEPS / 2 {
            assert!(store.flush().is_empty());
        }
    }
    for n in 0..3_000 {
        store.control().write(|tx| tx.execute("INSERT INTO word VALUES (?1, ?2)", (n, "word ".repeat(20)))).unwrap();
    }
    store.close();
    drop(store);
    let held = contents(dir.path());
    assert_eq!(held.values().map(BTreeMap::len).sum::<usize>(), SERIES as usize * STEPS as usize);
    (dir, held)
}

fn file(dir: &Path, begin: &str, end: &str) -> PathBuf {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let fits = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with(begin) && name.ends_with(end)
    };
    names.filter(fits).max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap()
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn damaged(dir: &Path) -> Vec<String> {
    let reports = verify(dir, &mut |_| {}).unwrap();
    reports.into_iter().filter(FileReport::is_damaged).map(|report| report.name).collect()
}

/// Repairs, and checks what must hold whatever the damage: nothing is made up, the loss is told, the originals are kept, and the
/// directory is whole and works.
fn repaired(dir: &Path, held: &Contents) -> (Vec<Repaired>, Contents) {
    let told = repair(dir, NOW, &|_| Ok(())).unwrap();
    assert!(damaged(dir).is_empty(), "{told:?}");
    for one in &told {
        assert!(one.aside.exists(), "{one:?}");
    }
    let kept = contents(dir);
    let mut missing = 0;
    for (series, samples) in held {
        let kept = kept.get(series).cloned().unwrap_or_default();
        assert!(kept.iter().all(|(t, v)| samples.get(t) == Some(v)), "{series} has other samples than before");
        let gone: Vec<i64> = samples.keys().filter(|t| !kept.contains_key(*t)).copied().collect();
        missing += gone.len();
        let covers = |t: i64| {
            told.iter().flat_map(|one| &one.lost).any(|loss| {
                let is_meant = loss.what == *series || loss.what.contains("record") || loss.what.contains("everything");
                is_meant && loss.from.is_none_or(|from| from <= t) && loss.to.is_none_or(|to| t <= to)
            })
        };
        assert!(
            gone.iter().all(|t| covers(*t)),
            "{series}: a loss is not told: {:?}",
            told.iter().map(|one| &one.lost)
        );
    }
    assert_eq!(missing > 0, told.iter().any(|one| !one.lost.is_empty()), "{missing} missing, told {told:?}");
    let store = open(dir).unwrap();
    append(&store, STEPS + 1);
    assert!(store.flush().is_empty());
    (told, kept)
}

fn count(contents: &Contents) -> usize {
    contents.values().map(BTreeMap::len).sum()
}

#[test]
fn a_whole_directory_is_fine_and_left_alone() {
    let (dir, held) = directory();
    assert!(damaged(dir.path()).is_empty());
    let reports = verify(dir.path(), &mut |_| {}).unwrap();
    let samples: u64 = reports.iter().map(|report| report.samples).sum();
    assert_eq!(samples as usize, count(&held), "{reports:?}");
    assert!(repair(dir.path(), NOW, &|_| Ok(())).unwrap().is_empty());
    let store = open(dir.path()).unwrap();
    assert!(damaged(dir.path()).is_empty(), "beside a server");
    assert!(repair(dir.path(), NOW, &|_| Ok(())).is_err(), "beside a server");
    drop(store);
}

#[test]
fn a_zeroed_page_of_samples_costs_its_chunks_alone() {
    let (dir, held) = directory();
    let samples = file(dir.path(), "samples-", ".db");
    change(&samples, |bytes| {
        let page = bytes.len() / PAGE - 2;
        bytes[page * PAGE..(page + 1) * PAGE].fill(0);
    });
    assert_eq!(damaged(dir.path()), [samples.file_name().unwrap().to_string_lossy()]);
    let (told, kept) = repaired(dir.path(), &held);
    assert!(count(&kept) > count(&held) * 6 / 10, "{} of {}", count(&kept), count(&held));
    assert!(told[0].lost.len() < SERIES as usize, "{}", told[0].lost.len());
}

#[test]
fn one_flipped_bit_in_a_chunk_is_found_and_costs_that_chunk_alone() {
    let (dir, held) = directory();
    let samples = file(dir.path(), "samples-", ".db");
    let whole = std::fs::read(&samples).unwrap();
    let longest = "SELECT key, body FROM chunk ORDER BY length(body) DESC, key LIMIT 1";
    let (key, body): (i64, Vec<u8>) = rusqlite::Connection::open(&samples)
        .and_then(|file| file.query_row(longest, [], |row| Ok((row.get(0)?, row.get(1)?))))
        .unwrap();
    for at in [body.len() / 4, body.len() / 2, body.len() - 1] {
        std::fs::write(&samples, &whole).unwrap();
        let mut flipped = body.clone();
        flipped[at] ^= 0x10;
        let file = rusqlite::Connection::open(&samples).unwrap();
        file.execute("UPDATE chunk SET body = ?2 WHERE key = ?1", rusqlite::params![key, flipped]).unwrap();
        drop(file);
        assert_eq!(damaged(dir.path()), [samples.file_name().unwrap().to_string_lossy()], "byte {at}");
    }
    let (told, kept) = repaired(dir.path(), &held);
    assert_eq!((told.len(), told[0].lost.len()), (1, 1), "{told:?}");
    assert!(
        count(&kept) < count(&held) && count(&kept) > count(&held) * 6 / 10,
        "{} of {}",
        count(&kept),
        count(&held)
    );
}

#[test]
fn a_samples_file_cut_short_keeps_what_is_left() {
    let (dir, held) = directory();
    let samples = file(dir.path(), "samples-", ".db");
    change(&samples, |bytes| bytes.truncate(bytes.len() - 2 * PAGE - 100));
    assert!(!damaged(dir.path()).is_empty());
    let (_, kept) = repaired(dir.path(), &held);
    assert!(count(&kept) > count(&held) / 3, "{} of {}", count(&kept), count(&held));
}

#[test]
fn a_file_of_garbage_is_named_by_the_start_and_replaced() {
    let (dir, held) = directory();
    let samples = file(dir.path(), "samples-", ".db");
    change(&samples, |bytes| bytes.fill(0x5a));
    let said = open(dir.path()).err().unwrap();
    assert!(said.contains("samples-") && said.contains("petrel repair"), "{said}");
    let (_, kept) = repaired(dir.path(), &held);
    assert!(count(&kept) >= (STEPS as usize / 2 - 1) * SERIES as usize, "the journal's samples are there");
}

#[test]
fn a_flipped_byte_in_a_journal_is_named_by_the_start_and_costs_one_commit() {
    let (dir, held) = directory();
    let log = file(dir.path(), "journal-", ".db-wal");
    change(&log, |bytes| {
        let at = bytes.len() * 2 / 3;
        bytes[at] ^= 0x40;
    });
    let said = open(dir.path()).err().unwrap();
    assert!(said.contains("journal-") && said.contains("petrel repair"), "{said}");
    let (told, kept) = repaired(dir.path(), &held);
    assert!(count(&kept) >= count(&held) - 3 * SERIES as usize, "{} of {}: {told:?}", count(&kept), count(&held));
}

#[test]
fn a_torn_end_of_a_journal_is_no_damage() {
    let (dir, _) = directory();
    let log = file(dir.path(), "journal-", ".db-wal");
    change(&log, |bytes| bytes.truncate(bytes.len() - 777));
    assert!(damaged(dir.path()).is_empty());
    assert!(open(dir.path()).is_ok());
}

#[test]
fn a_zeroed_page_of_the_control_database_costs_its_rows_alone() {
    let (dir, held) = directory();
    let control = dir.path().join("control.db");
    let log = rusqlite::Connection::open(&control).unwrap();
    log.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);").unwrap();
    log.close().unwrap();
    assert!(!sqlite::files(&control)[1].exists(), "all of it lies in the file");
    change(&control, |bytes| {
        let page = bytes.len() / 4096 - 20;
        bytes[page * 4096..(page + 1) * 4096].fill(0);
    });
    assert_eq!(damaged(dir.path()), ["control.db"]);
    repaired_control(dir.path(), &held);
}

fn repaired_control(dir: &Path, held: &Contents) {
    let told = repair(dir, NOW, &|tx| tx.execute("INSERT INTO word VALUES (1000000, 'anew')", []).map(drop)).unwrap();
    assert!(!told[0].lost.is_empty(), "{told:?}");
    assert!(damaged(dir).is_empty());
    let store = open(dir).unwrap();
    let words: i64 = store.control().read(|c| c.query_row("SELECT count(*) FROM word", [], |row| row.get(0))).unwrap();
    assert!((2_800..3_001).contains(&words), "{words}");
    let anew = "SELECT count(*) FROM word WHERE n = 1000000";
    assert_eq!(store.control().read(|c| c.query_row(anew, [], |row| row.get::<_, i64>(0))).unwrap(), 1);
    drop(store);
    assert_eq!(contents(dir), *held);
}
