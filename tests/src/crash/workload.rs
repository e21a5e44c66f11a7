//! What the recorded process does to a store, made from a seed, so that whoever checks the wreck knows what was sent.
//! Each lane takes steps, one after the other: a batch of its own series, after some of them a deletion. Beside them one thread seals,
//! merges and flushes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use petrel_agent::stream::protocol::Class;
use petrel_server::query::source::{Source, TimeRange};
use petrel_server::series::{Labels, Matcher, Sample, Timestamp};
use petrel_server::store::loglines::{LogFilter, LogLine};
use petrel_server::store::{Batch, Mark, Row, Store, StoreOptions};

use crate::dice::Dice;

/// The clock of all sends.
pub const NOW: Timestamp = 1_790_000_000_000;
/// Lanes that send samples; the next number is that of the log lines.
pub const LANES: u64 = 3;
/// The lane of log lines.
pub const LOGS: u64 = LANES;
/// All lanes.
pub const LANES_ALL: usize = LANES as usize + 1;
const HOUR_MS: i64 = 3_600_000;
const SERIES_PER_LANE: u64 = 5;

/// Series and their samples, as bits.
pub type Content = BTreeMap<String, BTreeMap<Timestamp, u64>>;

/// Options under which much happens: samples of any age, journals sealed as soon as they end.
pub fn options() -> StoreOptions {
    StoreOptions { retention: None, disk_reserve_bytes: 0, journal_bytes_max: 0, ..StoreOptions::default() }
}

/// Opens the store of a folder.
pub fn open(dir: &Path) -> Arc<Store> {
    Store::open(dir, options(), &[], NOW).unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// The mark of a lane's batch; the last lane of samples sends without.
pub fn mark(lane: u64, number: u64) -> Option<Mark> {
    let class = if lane == LOGS { Class::Logs } else { Class::Metrics };
    (lane != LANES - 1).then(|| Mark { agent: format!("lane{lane}"), epoch: "e".to_owned(), class, seq: number + 1 })
}

/// Any value that a sender could mean, and some that nobody means.
pub fn value(dice: &mut Dice) -> f64 {
    match dice.below(8) {
        0 => f64::from_bits(dice.bits()),
        1 => f64::from_bits(0x7ff0_0000_0000_0002),
        2 => [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, 5e-324][dice.below(6) as usize],
        3 => dice.below(1000) as f64 / 10.0,
        _ => dice.below(100_000) as f64,
    }
}

fn labels(lane: u64, series: u64) -> Labels {
    Labels::new([("__name__", "m".to_owned()), ("lane", lane.to_string()), ("series", series.to_string())])
}

/// The batch of this number in a lane.
pub fn batch(seed: u64, lane: u64, number: u64) -> Batch {
    let mut dice = Dice::new(seed, lane << 32 | number);
    let series = (0..=dice.below(4)).map(|_| {
        let which = dice.below(SERIES_PER_LANE);
        let labels = labels(lane, which);
        let recent = NOW - 20 * HOUR_MS + number as i64 * HOUR_MS / 4;
        let samples = match dice.below(4) {
            // Late and repeated: coarse times over three days, in any order.
            0 => {
                let t = |dice: &mut Dice| NOW - 60 * HOUR_MS + dice.below(240) as i64 * 900_000;
                (0..=dice.below(40)).map(|_| Sample { t: t(&mut dice), v: value(&mut dice) }).collect()
            }
            1 => vec![Sample { t: dice.below(2000) as i64 * 86_400_000, v: value(&mut dice) }],
            _ => (0..=dice.below(200) as i64)
                .map(|n| Sample { t: recent + n * 10_000, v: value(&mut dice) })
                .collect::<Vec<_>>(),
        };
        (labels, samples)
    });
    Batch { series: series.collect(), mark: mark(lane, number), ..Batch::default() }
}

/// Samples that a lane deletes: of all its series or of one.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// What the series must fulfil.
    pub matchers: Vec<Matcher>,
    /// From when to when.
    pub range: TimeRange,
}

/// What a lane deletes after the batch of this number.
pub fn deletion(seed: u64, lane: u64, number: u64) -> Option<Deletion> {
    let mut dice = Dice::new(seed, 1 << 62 | lane << 32 | number);
    if lane == LOGS || !dice.once_in(3) {
        return None;
    }
    let mut matchers = vec![Matcher::equal("lane", &lane.to_string())];
    if dice.once_in(2) {
        matchers.push(Matcher::equal("series", &dice.below(SERIES_PER_LANE).to_string()));
    }
    // Some end inside days, chunks and heads; some take whole days.
    let from = NOW - 60 * HOUR_MS + dice.below(240) as i64 * 900_000;
    let range = match dice.below(6) {
        0 => TimeRange { from: 0, to: i64::MAX },
        1 => TimeRange { from: 0, to: from },
        _ => TimeRange { from, to: from + dice.below(160) as i64 * 900_000 },
    };
    Some(Deletion { matchers, range })
}

/// The log lines of this number.
pub fn lines(number: u64) -> Vec<LogLine> {
    let line = |n| LogLine {
        t: NOW + number as i64,
        host: "h1".to_owned(),
        source: "journal".to_owned(),
        severity: 9,
        template_id: String::new(),
        template: String::new(),
        body: format!("line {n} of batch {number}."),
        unit: String::new(),
        precursor: String::new(),
        why: String::new(),
    };
    (0..3).map(line).collect()
}

/// Adds what a batch holds; later samples override earlier ones.
pub fn learn(content: &mut Content, batch: &Batch) {
    for (labels, samples) in &batch.series {
        content
            .entry(labels.to_string())
            .or_default()
            .extend(samples.iter().map(|sample| (sample.t, sample.v.to_bits())));
    }
}

/// Takes out what a deletion deletes.
pub fn forget(content: &mut Content, lane: u64, deletion: &Deletion) {
    for series in 0..SERIES_PER_LANE {
        let labels = labels(lane, series);
        let Some(samples) = content.get_mut(&labels.to_string()) else { continue };
        if deletion.matchers.iter().all(|matcher| matcher.matches(&labels)) {
            samples.retain(|t, _| *t < deletion.range.from || *t > deletion.range.to);
        }
    }
    content.retain(|_, samples| !samples.is_empty());
}

/// What a store has of a lane.
pub fn stored(store: &Store, lane: u64) -> Content {
    let all = TimeRange { from: 0, to: i64::MAX };
    let found = store.select(&[Matcher::equal("lane", &lane.to_string())], all, u64::MAX);
    let found = found.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let samples = |samples: &[Sample]| {
        assert!(samples.is_sorted_by(|a, b| a.t < b.t), "sorted and unique in time");
        samples.iter().map(|sample| (sample.t, sample.v.to_bits())).collect()
    };
    found.iter().map(|one| (one.labels.to_string(), samples(&one.samples))).collect()
}

/// How many of the batches of log lines are stored, all of them whole and once.
pub fn stored_logs(store: &Store) -> u64 {
    let lines = store.recent_logs(&LogFilter::default(), usize::MAX >> 1).expect("log lines can be read");
    let batches: BTreeMap<Timestamp, usize> = lines.iter().fold(BTreeMap::new(), |mut batches, line| {
        *batches.entry(line.t - NOW).or_default() += 1;
        batches
    });
    assert!(batches.values().all(|count| *count == 3), "batches are whole and stored once: {batches:?}");
    batches.len() as u64
}

/// Works on the store of `dir`: takes `count` steps of every lane from the lane's own number on, writing to `word` when the batch of
/// each is sent and stored, and when the step is done.
pub fn work(dir: &Path, word: &Path, seed: u64, from: [u64; LANES_ALL], count: u64) {
    let store = open(dir);
    let word = Arc::new(File::options().create(true).append(true).open(word).expect("the test's folder is writable"));
    let say = |what: &str, lane: u64, number: u64| {
        let mut word: &File = &word;
        word.write_all(format!("{what} {lane} {number}\n").as_bytes()).expect("the test's folder is writable");
    };
    let (working, passes) = (AtomicBool::new(true), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (store, working, passes) = (&store, &working, &passes);
        let keeper = scope.spawn(move || {
            let (mut now, mut dice) = (NOW, Dice::new(seed, u64::MAX));
            while working.load(Ordering::SeqCst) {
                now += 40 * 60_000;
                let problems = if dice.once_in(4) { store.flush() } else { store.maintain(now) };
                assert!(problems.is_empty(), "{problems:?}");
                passes.fetch_add(1, Ordering::SeqCst);
            }
        });
        let lanes: Vec<_> = (0..=LOGS)
            .map(|lane| {
                let (say, first) = (&say, from[lane as usize]);
                scope.spawn(move || {
                    let mut dice = Dice::new(seed, u64::MAX - 1 - lane);
                    for number in first..first + count {
                        if dice.once_in(2) {
                            wait_for_a_pass(passes);
                        }
                        say("sent", lane, number);
                        send(store, seed, lane, number);
                        say("stored", lane, number);
                        delete(store, seed, lane, number);
                        say("done", lane, number);
                    }
                })
            })
            .collect();
        let failed = lanes.into_iter().any(|lane| lane.join().is_err());
        working.store(false, Ordering::SeqCst);
        assert!(keeper.join().is_ok() && !failed, "a thread failed");
    });
    store.close();
}

/// Waits until another pass of maintenance has begun and ended, so that passes see many states; goes on if one is slow or failed.
fn wait_for_a_pass(passes: &AtomicU64) {
    let (begin, seen) = (Instant::now(), passes.load(Ordering::SeqCst));
    while passes.load(Ordering::SeqCst) < seen + 2 && begin.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The same batch with the series that the store knows already as rows, which is how remote write sends them.
pub fn of_known(store: &Store, batch: Batch) -> Batch {
    let known = store.known();
    let mut finder = known.finder();
    let mut rows = Vec::new();
    let mut others = Vec::new();
    for (labels, samples) in batch.series {
        match finder.find(labels.as_wire()) {
            Some(series) => {
                rows.extend(samples.iter().map(|sample| Row { series: Arc::clone(series), sample: *sample }));
            }
            None => others.push((labels, samples)),
        }
    }
    Batch { rows, series: others, ..batch }
}

/// Sends one batch of a lane; says whether the store had it already.
pub fn send(store: &Store, seed: u64, lane: u64, number: u64) -> bool {
    if lane == LOGS {
        return !store.append_logs(&lines(number), mark(lane, number).as_ref(), NOW).expect("log lines are stored");
    }
    let committed = store
        .append_blocking(of_known(store, batch(seed, lane, number)), NOW)
        .unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert!(committed.refused.is_empty(), "{:?}", committed.refused);
    committed.duplicate
}

/// Deletes what a lane deletes after a batch.
pub fn delete(store: &Store, seed: u64, lane: u64, number: u64) {
    if let Some(Deletion { matchers, range }) = deletion(seed, lane, number) {
        store.delete(&[matchers], range).unwrap_or_else(|error| panic!("{}", chain(&error)));
    }
}
