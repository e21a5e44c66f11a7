//! The store after a power failure at any step of its work. Short here; `tests/long crash` takes every step in every variant.
//! A failure names the seed and the step, and keeps the trace and the files it left.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use petrel_server::store::Store;
use petrel_tests::crash::disk::{Disk, Files, Kept};
use petrel_tests::crash::trace::{Call, Trace};
use petrel_tests::crash::workload::{self, Content, LANES, LOGS};
use petrel_tests::crash::{DATA, WORD, put, record, recorder, scratch};
use petrel_tests::dice::{Dice, setting};
use petrel_tests::process::program;

/// Steps of each lane in one recorded run.
const BATCHES: u64 = 14;

/// How much likelier a step is taken after which files have other names.
const NAMES_WEIGHT: u64 = 6;

/// How far every lane had come at a step: numbers below these.
#[derive(Debug, Clone, Default)]
struct Word {
    said: BTreeMap<(String, u64), u64>,
}

impl Word {
    fn hear(&mut self, text: &[u8]) {
        for line in String::from_utf8_lossy(text).lines() {
            let mut parts = line.split(' ');
            let what = parts.next().unwrap_or_default().to_owned();
            let mut number = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0u64);
            let (lane, next) = (number(), number() + 1);
            self.said.insert((what, lane), next);
        }
    }

    fn of(&self, what: &str, lane: u64) -> u64 {
        self.said.get(&(what.to_owned(), lane)).copied().unwrap_or(0)
    }

    /// Steps that are over: their batches were acknowledged and what they delete was deleted.
    fn done(&self, lane: u64) -> u64 {
        self.of("done", lane)
    }

    /// Batches that were acknowledged.
    fn stored(&self, lane: u64) -> u64 {
        self.of("stored", lane)
    }

    /// Batches that were sent.
    fn sent(&self, lane: u64) -> u64 {
        self.of("sent", lane)
    }
}

/// A store's contents after each number of steps of each lane, so that no crash computes them anew.
struct Expected {
    seed: u64,
    after: Vec<Vec<Content>>,
}

impl Expected {
    fn new(seed: u64, steps: u64) -> Expected {
        let lane = |lane| {
            let mut content = Content::new();
            let mut after = vec![content.clone()];
            for number in 0..steps {
                workload::learn(&mut content, &workload::batch(seed, lane, number));
                if let Some(deletion) = workload::deletion(seed, lane, number) {
                    workload::forget(&mut content, lane, &deletion);
                }
                after.push(content.clone());
            }
            after
        };
        Expected { seed, after: (0..LANES).map(lane).collect() }
    }

    fn after(&self, lane: u64, steps: u64) -> &Content {
        &self.after[lane as usize][steps as usize]
    }

    /// Checks what a crash left of a lane; returns how many of its steps are done. A deletion that was cut off has deleted a part
    /// of what it deletes, and nothing else; it is done again, as whoever asked for it would.
    fn check_lane(&self, store: &Store, lane: u64, word: &Word) -> u64 {
        let (done, stored, sent) = (word.done(lane), word.stored(lane), word.sent(lane));
        let found = workload::stored(store, lane);
        if found == *self.after(lane, sent) {
            return sent;
        }
        if stored == done && found == *self.after(lane, done) {
            return done;
        }
        let told = format!("lane {lane}, {done} steps done, {stored} batches acknowledged, {sent} sent");
        let wanted = self.after(lane, done);
        assert!(
            sent > done && workload::deletion(self.seed, lane, done).is_some(),
            "{told}: {}",
            difference(wanted, &found)
        );
        let mut with_batch = wanted.clone();
        workload::learn(&mut with_batch, &workload::batch(self.seed, lane, done));
        let (with_batch, found, after) = (flat(&with_batch), flat(&found), flat(self.after(lane, sent)));
        let part = |small: &Flat, large: &Flat| small.iter().all(|(at, v)| large.get(at) == Some(v));
        assert!(part(&found, &with_batch), "{told}: a deletion that was cut off made samples");
        assert!(part(&after, &found), "{told}: a deletion that was cut off took what it does not delete");
        workload::delete(store, self.seed, lane, done);
        assert!(workload::stored(store, lane) == *self.after(lane, sent), "{told}: a deletion done again leaves some");
        sent
    }

    /// Opens a store on what a crash left and checks it; `full` also lets it work on and looks again.
    fn check(&self, dir: &Path, word: &Word, full: bool) {
        let store = workload::open(dir);
        let mut has: Vec<u64> = (0..LANES).map(|lane| self.check_lane(&store, lane, word)).collect();
        let (stored, sent) = (word.stored(LOGS), word.sent(LOGS));
        let logs = workload::stored_logs(&store);
        assert!((stored..=sent).contains(&logs), "{logs} batches of log lines, {stored} acknowledged, {sent} sent");
        if !full {
            return;
        }
        for lane in (0..=LOGS).filter(|lane| workload::mark(*lane, 0).is_some()) {
            let stored = word.stored(lane);
            if stored > 0 {
                assert!(workload::send(&store, self.seed, lane, stored - 1), "lane {lane}: its mark was lost");
            }
        }
        drop(store);
        self.goes_on(dir, &mut has);
    }

    /// The store takes more, across starts and seals; once with all journals sealed and unlinked before.
    fn goes_on(&self, dir: &Path, has: &mut [u64]) {
        for when in ["on the wreck", "after a flush"] {
            let store = workload::open(dir);
            self.same(&store, has, when);
            for (lane, has) in (0..LANES).zip(&mut *has) {
                let is_known = workload::send(&store, self.seed, lane, *has);
                // A deletion may have left what was there before the batch.
                let deletes = workload::deletion(self.seed, lane, *has).is_some();
                assert!(!is_known || deletes, "lane {lane} {when}: a mark without its batch");
                workload::delete(&store, self.seed, lane, *has);
                *has += 1;
            }
            self.same(&store, has, when);
            store.close();
            let store = workload::open(dir);
            self.same(&store, has, when);
            let problems = store.flush();
            assert!(problems.is_empty(), "{problems:?}");
            self.same(&store, has, when);
            store.close();
        }
    }

    fn same(&self, store: &Store, has: &[u64], when: &str) {
        for (lane, has) in (0..LANES).zip(has) {
            let (wanted, found) = (self.after(lane, *has), workload::stored(store, lane));
            assert!(*wanted == found, "lane {lane} {when}: {}", difference(wanted, &found));
        }
    }
}

type Flat = BTreeMap<(String, i64), u64>;

fn flat(content: &Content) -> Flat {
    content.iter().flat_map(|(name, of)| of.iter().map(|(t, v)| ((name.clone(), *t), *v))).collect()
}

fn difference(wanted: &Content, found: &Content) -> String {
    let (wanted, found) = (flat(wanted), flat(found));
    let lost: Vec<_> = wanted.iter().filter(|(at, _)| !found.contains_key(*at)).collect();
    let made: Vec<_> = found.iter().filter(|(at, _)| !wanted.contains_key(*at)).collect();
    let other: Vec<_> = wanted.iter().filter(|(at, v)| found.get(*at).is_some_and(|found| found != *v)).collect();
    let first =
        |list: &[(&(String, i64), &u64)]| list.first().map(|one| format!(", first {one:?}")).unwrap_or_default();
    format!(
        "{} samples lost{}, {} more than sent{}, {} with other values{}",
        lost.len(),
        first(&lost),
        made.len(),
        first(&made),
        other.len(),
        first(&other)
    )
}

/// Records the workload from these files and acknowledgements on.
fn recorded(library: &Path, start: &Files, word: &Word, seed: u64, count: u64) -> Trace {
    let dir = scratch();
    let root = dir.path().join("root");
    put(start, &root.join(DATA));
    std::fs::create_dir_all(root.join(DATA)).expect("the test's folder is writable");
    let mut command = Command::new(program("store_workload"));
    command.arg(root.join(DATA)).arg(root.join(WORD)).arg(seed.to_string());
    command.arg(count.to_string());
    // Steps that are not done are taken again, as senders do.
    command.args((0..=LOGS).map(|lane| word.done(lane).to_string()));
    record(&mut command, library, &root)
}

/// Checks sampled steps of a trace; returns how many, and what the disk held at one of them, to go on from.
fn crash_everywhere(trace: &Trace, start: &Files, word: Word, expected: &Expected, points: u64) -> (u64, Files, Word) {
    let folder = |files: &Files| files.iter().map(|(path, bytes)| (format!("{DATA}/{path}"), bytes.clone())).collect();
    let mut disk = Disk::with(&folder(start));
    let mut words = None;
    let mut word = word;
    let mut dice = Dice::new(expected.seed, 7);
    let steps = trace.calls.len() as u64;
    let (mut checked, mut resumed) = (0, None);
    for (step, call) in trace.calls.iter().enumerate() {
        match call {
            Call::Open { fd, path, .. } if path == WORD => words = Some(*fd),
            Call::Write { fd, data, .. } if words == Some(*fd) => word.hear(&trace.bytes[data.clone()]),
            Call::Close { fd } if words == Some(*fd) => words = None,
            call => {
                if !disk.follow(call, trace) {
                    continue;
                }
                let all = points >= steps;
                // Names change seldom, and what must be on disk before they do is where mistakes hide.
                let weight = if matches!(call, Call::Unlink { .. } | Call::Open { .. }) { NAMES_WEIGHT } else { 1 };
                if !all && dice.below(steps) >= points * weight {
                    continue;
                }
                let kinds = if all { &Kept::ALL[..] } else { &[Kept::ALL[dice.below(4) as usize]][..] };
                for &kept in kinds {
                    let files = disk.crash(DATA, kept, trace, &mut dice);
                    let full = all || dice.once_in(2);
                    check_one(expected, step, kept, &files, &word, full);
                    checked += 1;
                    if step as u64 > steps / 2 && resumed.is_none() {
                        resumed = Some((files, word.clone()));
                    }
                }
            }
        }
    }
    let (files, word) = resumed.expect("some step of the second half was taken");
    (checked, files, word)
}

fn check_one(expected: &Expected, step: usize, kept: Kept, files: &Files, word: &Word, full: bool) {
    let dir = scratch();
    put(files, dir.path());
    let checked = std::panic::catch_unwind(|| expected.check(dir.path(), word, full));
    if let Err(cause) = checked {
        let wreck = dir.keep();
        let _ = std::fs::remove_dir_all(&wreck);
        put(files, &wreck);
        let text = cause.downcast_ref::<String>().cloned().unwrap_or_default();
        panic!(
            "a crash after step {step} that keeps {kept:?} breaks the store: {text}\nits files are in {}; repeat with PETREL_CRASH_SEED={} (threads run as they like: the step may differ)",
            wreck.display(),
            expected.seed
        );
    }
}

#[test]
fn a_power_failure_at_any_step_loses_nothing_that_was_acknowledged() {
    let (runs, points) = (setting("PETREL_CRASH_RUNS", 1), setting("PETREL_CRASH_POINTS", 80));
    let first = setting("PETREL_CRASH_SEED", 20_261_122);
    let dir = scratch();
    let library = recorder(dir.path());
    for seed in first..first + runs {
        let expected = Expected::new(seed, 2 * BATCHES + 4);
        let none = Word::default();
        let trace = recorded(&library, &Files::new(), &none, seed, BATCHES);
        let (checked, files, word) = crash_everywhere(&trace, &Files::new(), none, &expected, points);
        // Once more from a wreck, so that recovery itself is cut off too.
        let again = recorded(&library, &files, &word, seed, BATCHES / 2);
        let (twice, _, _) = crash_everywhere(&again, &files, word, &expected, points / 3);
        println!(
            "seed {seed}: {checked} crashes in {} steps, then {twice} in {} from a wreck",
            trace.calls.len(),
            again.calls.len()
        );
        assert!(checked > 0 && twice > 0, "the recorder saw the store's work");
    }
}
