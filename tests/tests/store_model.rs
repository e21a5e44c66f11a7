//! The store against a plain map: whatever is appended in whatever shape, deleted, sealed, merged, flushed, expired, closed or cut
//! off, a query gives what the map has, bit for bit. Short here; `tests/long model` makes thousands of cases.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use petrel_agent::stream::protocol::Class;
use petrel_server::query::source::{Source, TimeRange};
use petrel_server::series::{Labels, MatchOp, Matcher, Sample, Timestamp};
use petrel_server::store::{Batch, Mark, RefusedReason, Store, StoreOptions};
use petrel_tests::crash::scratch;
use petrel_tests::crash::workload::of_known;
use petrel_tests::dice::setting;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;
/// The clock at the first action: some hours into a day, so that runs cross midnight.
const BEGIN: Timestamp = 20_717 * DAY_MS + 5 * HOUR_MS;
/// Retention of the store that has one.
const RETENTION_MS: i64 = 3 * DAY_MS;

/// Samples of one series in one batch.
#[derive(Debug, Clone)]
enum Shape {
    /// As collectors send: one step, values that move little; `back` hours before now.
    Run { back: i64, step: i64, count: i64, base: u32, slope: u32 },
    /// Times on a coarse grid in any order, often the same again, with any bits.
    Scattered(Vec<(i64, u64)>),
    /// One sample of any age.
    Late(i64, u64),
    /// The series ends.
    Stale,
}

/// Whose samples are deleted.
#[derive(Debug, Clone)]
enum Whose {
    One(u8),
    Either(u8, u8),
    NotOf(u8),
    Named(u8),
    All,
}

#[derive(Debug, Clone)]
enum Action {
    Append {
        series: Vec<(u8, Shape)>,
        mark: Option<u64>,
    },
    Delete {
        whose: Whose,
        from: Timestamp,
        to: Timestamp,
    },
    /// Gives back the room of what was deleted.
    Compact,
    /// Hours pass.
    Wait(i64),
    Maintain,
    Flush,
    Reopen,
    /// The files as they are now, without the process that wrote them.
    Crash,
}

fn bits() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => any::<u64>(),
        // NaN with any payload, signalling ones too.
        2 => any::<u64>().prop_map(|payload| 0x7ff0_0000_0000_0001 | payload >> 12),
        1 => Just(0x7ff0_0000_0000_0002),
        1 => Just((-0.0f64).to_bits()),
        2 => (0i64..100_000).prop_map(|n| (n as f64 / 100.0).to_bits()),
    ]
}

fn shape() -> impl Strategy<Value = Shape> {
    let run = (0i64..70, prop::sample::select(vec![1000i64, 15_000, 60_000]), 1i64..260, 0u32..1000, 0u32..4)
        .prop_map(|(back, step, count, base, slope)| Shape::Run { back, step, count, base, slope });
    let scattered = prop::collection::vec((0i64..280, bits()), 1..50).prop_map(Shape::Scattered);
    prop_oneof![6 => run, 4 => scattered, 1 => (0..BEGIN / 1000, bits()).prop_map(|(t, v)| Shape::Late(t * 1000, v)), 1 => Just(Shape::Stale)]
}

fn delete() -> impl Strategy<Value = Action> {
    let whose = prop_oneof![
        4 => (0u8..6).prop_map(Whose::One),
        2 => (0u8..6, 0u8..6).prop_map(|(a, b)| Whose::Either(a, b)),
        1 => (0u8..6).prop_map(Whose::NotOf),
        1 => (0u8..2).prop_map(Whose::Named),
        1 => Just(Whose::All),
    ];
    // The times of `Scattered` and those of a day after; some ranges have no end, some take one instant.
    let slots = (0i64..380, prop_oneof![4 => 0i64..200, 1 => Just(0)]);
    let range = prop_oneof![
        8 => slots.prop_map(|(slot, length)| {
            let from = BEGIN + DAY_MS - slot * 900_000;
            (from, from + length * 900_000)
        }),
        1 => (0i64..280).prop_map(|slot| (BEGIN - slot * 900_000, i64::MAX)),
        1 => (0i64..280).prop_map(|slot| (i64::MIN, BEGIN - slot * 900_000)),
    ];
    (whose, range).prop_map(|(whose, (from, to))| Action::Delete { whose, from, to })
}

fn action() -> impl Strategy<Value = Action> {
    let append = (prop::collection::vec((0u8..6, shape()), 1..5), prop::option::of(1u64..15))
        .prop_map(|(series, mark)| Action::Append { series, mark });
    prop_oneof![
        10 => append,
        3 => delete(),
        1 => Just(Action::Compact),
        2 => (1i64..20).prop_map(Action::Wait),
        3 => Just(Action::Maintain),
        1 => Just(Action::Flush),
        1 => Just(Action::Reopen),
        1 => Just(Action::Crash),
    ]
}

impl Shape {
    fn samples(&self, now: Timestamp) -> Vec<Sample> {
        let of_bits = |(t, bits): &(i64, u64)| Sample { t: *t, v: f64::from_bits(*bits) };
        match self {
            Shape::Run { back, step, count, base, slope } => (0..*count)
                .map(|n| (now - back * HOUR_MS - n * step, f64::from(*base) + f64::from(*slope) * n as f64 / 10.0))
                .map(|(t, v)| Sample { t, v })
                .rev()
                .collect(),
            Shape::Scattered(pairs) => {
                pairs.iter().map(|(slot, bits)| of_bits(&(BEGIN - slot * 900_000, *bits))).collect()
            }
            Shape::Late(t, bits) => vec![of_bits(&(*t, *bits))],
            Shape::Stale => vec![Sample::stale(now)],
        }
    }
}

impl Whose {
    /// Any of these lists.
    fn matchers(&self) -> Vec<Vec<Matcher>> {
        let one = |n: &u8| vec![Matcher::equal("series", &n.to_string())];
        match self {
            Whose::One(n) => vec![one(n)],
            Whose::Either(a, b) => vec![one(a), one(b)],
            Whose::NotOf(n) => {
                vec![vec![Matcher { name: "series".to_owned(), op: MatchOp::NotEqual(n.to_string()) }]]
            }
            Whose::Named(n) => vec![vec![Matcher::equal("__name__", &format!("m{n}"))]],
            Whose::All => vec![vec![]],
        }
    }
}

fn labels(series: u8) -> Labels {
    Labels::new([("__name__", format!("m{}", series % 2)), ("series", series.to_string())])
}

type Content = BTreeMap<u8, BTreeMap<Timestamp, u64>>;

/// The store and the map, side by side.
struct Pair {
    dir: TempDir,
    store: Arc<Store>,
    map: Content,
    high: u64,
    now: Timestamp,
    retention: bool,
}

fn open(dir: &Path, retention: bool, now: Timestamp) -> Arc<Store> {
    let retention = retention.then(|| Duration::from_millis(RETENTION_MS as u64));
    // Journals are sealed as soon as they end, so that every hour that passes moves something.
    let options = StoreOptions { retention, disk_reserve_bytes: 0, journal_bytes_max: 0, ..StoreOptions::default() };
    Store::open(dir, options, &[], now).expect("the store opens")
}

impl Pair {
    fn new(retention: bool) -> Pair {
        let dir = scratch();
        let store = open(dir.path(), retention, BEGIN);
        Pair { dir, store, map: Content::new(), high: 0, now: BEGIN, retention }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Append { series, mark } => self.append(series, *mark),
            Action::Delete { whose, from, to } => {
                let any_of = whose.matchers();
                self.store.delete(&any_of, TimeRange { from: *from, to: *to }).expect("samples can be deleted");
                for (n, kept) in &mut self.map {
                    if any_of.iter().any(|all| all.iter().all(|matcher| matcher.matches(&labels(*n)))) {
                        kept.retain(|t, _| t < from || t > to);
                    }
                }
            }
            Action::Compact => self.store.compact_all().expect("days can be compacted"),
            Action::Wait(hours) => self.now += hours * HOUR_MS,
            Action::Maintain => {
                let problems = self.store.maintain(self.now);
                assert!(problems.is_empty(), "{problems:?}");
            }
            Action::Flush => {
                let problems = self.store.flush();
                assert!(problems.is_empty(), "{problems:?}");
            }
            Action::Reopen => {
                self.store.close();
                self.store = open(self.dir.path(), self.retention, self.now);
            }
            Action::Crash => {
                let copy = scratch();
                for entry in std::fs::read_dir(self.dir.path()).expect("the folder is there").flatten() {
                    std::fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("the disk has room");
                }
                self.store = open(copy.path(), self.retention, self.now);
                self.dir = copy;
            }
        }
    }

    /// Samples before this are refused, and those stored may be gone.
    fn oldest(&self) -> Timestamp {
        if self.retention { self.now - RETENTION_MS } else { 0 }
    }

    fn append(&mut self, series: &[(u8, Shape)], mark: Option<u64>) {
        let all: Vec<(u8, Vec<Sample>)> = series.iter().map(|(n, shape)| (*n, shape.samples(self.now))).collect();
        let batch = Batch {
            series: all.iter().map(|(n, samples)| (labels(*n), samples.clone())).collect(),
            mark: mark.map(|seq| Mark { agent: "a".to_owned(), epoch: "e".to_owned(), class: Class::Metrics, seq }),
            ..Batch::default()
        };
        // Every second batch as senders of known series have it.
        let batch = if self.map.len().is_multiple_of(2) { of_known(&self.store, batch) } else { batch };
        let committed = self.store.append_blocking(batch, self.now).expect("the batch is stored");
        assert_eq!(committed.duplicate, mark.is_some_and(|seq| seq <= self.high));
        if committed.duplicate {
            return;
        }
        self.high = self.high.max(mark.unwrap_or(0));
        let oldest = self.oldest();
        let mut refused = 0;
        for (n, samples) in &all {
            for sample in samples {
                if sample.t < oldest {
                    refused += 1;
                } else {
                    self.map.entry(*n).or_default().insert(sample.t, sample.v.to_bits());
                }
            }
        }
        assert!(committed.refused.iter().all(|one| one.reason == RefusedReason::TooOld));
        assert_eq!(committed.refused.len(), refused);
    }

    fn check(&self, matchers: &[Matcher], asked: TimeRange) {
        // Days before the retention go when they may: only what is within it is certain.
        let range = TimeRange { from: asked.from.max(self.oldest()), to: asked.to };
        let found = self.store.select(matchers, range, u64::MAX).expect("the store can be read");
        let found: BTreeMap<String, Vec<(i64, u64)>> = found
            .iter()
            .map(|one| (one.labels.to_string(), one.samples.iter().map(|s| (s.t, s.v.to_bits())).collect()))
            .collect();
        let wanted: BTreeMap<String, Vec<(i64, u64)>> = self
            .map
            .iter()
            .filter(|(n, _)| matchers.iter().all(|matcher| matcher.matches(&labels(**n))))
            .map(|(n, kept)| (labels(*n).to_string(), kept.range(range.from..).map(|(t, v)| (*t, *v))))
            .map(|(name, kept)| (name, kept.take_while(|(t, _)| *t <= range.to).collect()))
            .filter(|(_, kept): &(String, Vec<(i64, u64)>)| !kept.is_empty())
            .collect();
        assert_eq!(found, wanted);
    }

    fn check_all(&self, from_hours: i64, hours: i64) {
        let all = TimeRange { from: 0, to: i64::MAX };
        self.check(&[], all);
        let from = BEGIN - from_hours * HOUR_MS;
        let part = TimeRange { from, to: from + hours * HOUR_MS };
        self.check(&[Matcher::equal("__name__", "m1")], part);
        self.check(&[Matcher { name: "series".to_owned(), op: MatchOp::NotEqual("2".to_owned()) }], part);
    }
}

fn run(retention: bool, cases: u64) {
    let seed = setting("PETREL_MODEL_SEED", 3);
    println!("PETREL_MODEL_SEED={seed}, {cases} cases");
    let config = Config { cases: cases as u32, failure_persistence: None, ..Config::default() };
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = proptest::test_runner::TestRng::from_seed(proptest::test_runner::RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let actions = (prop::collection::vec(action(), 1..24), 0i64..80, 1i64..30);
    let result = runner.run(&actions, |(actions, from_hours, hours)| {
        let mut pair = Pair::new(retention);
        for action in &actions {
            pair.act(action);
            pair.check_all(from_hours, hours);
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("PETREL_MODEL_SEED={seed} finds a sequence after which store and map differ: {failure}");
    }
}

#[test]
fn the_store_answers_as_a_map_would() {
    run(false, setting("PETREL_MODEL_CASES", 60));
}

#[test]
fn a_store_with_a_retention_answers_as_a_map_would_within_it() {
    run(true, setting("PETREL_MODEL_CASES", 30));
}
