//! The store as a whole: against a plain map, across restarts, crashes, seals and limits.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use petrel_agent::stream::protocol::Class;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::query::source::{MetricMetadata, SelectError, Source, TimeRange};
use crate::series::{Labels, Matcher, Sample, Timestamp};
use crate::store::loglines::{LogFilter, LogLine};
use crate::store::{AppendError, Batch, Committed, Mark, RefusedReason, Store, StoreOptions, journal};

const NOW: Timestamp = 1_790_000_000_000;
const ALL: TimeRange = TimeRange { from: 0, to: i64::MAX };

fn options() -> StoreOptions {
    StoreOptions { retention: None, disk_reserve_bytes: 0, ..StoreOptions::default() }
}

fn open(dir: &Path) -> Arc<Store> {
    Store::open(dir, options(), &[], NOW).unwrap()
}

fn labels(n: u8) -> Labels {
    Labels::new([("__name__", "m".to_owned()), ("n", n.to_string())])
}

fn batch(series: &[(u8, &[(i64, f64)])]) -> Batch {
    let samples = |pairs: &[(i64, f64)]| pairs.iter().map(|&(t, v)| Sample { t, v }).collect();
    Batch { series: series.iter().map(|(n, pairs)| (labels(*n), samples(pairs))).collect(), ..Batch::default() }
}

fn marked(batch: Batch, seq: u64) -> Batch {
    let mark = Mark { agent: "h1".to_owned(), epoch: "e".to_owned(), class: Class::Metrics, seq };
    Batch { mark: Some(mark), ..batch }
}

fn contents(store: &Store, range: TimeRange) -> BTreeMap<String, Vec<(i64, u64)>> {
    let selected = store.select(&[], range, u64::MAX).unwrap();
    selected
        .into_iter()
        .map(|one| (one.labels.to_string(), one.samples.iter().map(|s| (s.t, s.v.to_bits())).collect()))
        .collect()
}

/// Leaves the files as `kill -9` would: the lock is given back, nothing is closed or flushed.
fn copy_of(dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

#[derive(Debug, Clone)]
enum Action {
    Append { series: Vec<(u8, Vec<(i64, u32)>)>, mark: Option<u64> },
    Flush,
    Maintain,
    Reopen,
    Crash,
}

fn action() -> impl Strategy<Value = Action> {
    // Three days, coarse times: many equal ones, so that overriding is met often.
    let samples = prop::collection::vec(((0i64..300).prop_map(|n| n * 900_000), any::<u32>()), 1..60);
    let append = (prop::collection::vec((0u8..6, samples), 1..4), prop::option::of(1u64..12))
        .prop_map(|(series, mark)| Action::Append { series, mark });
    prop_oneof![8 => append, 1 => Just(Action::Flush), 2 => Just(Action::Maintain), 1 => Just(Action::Reopen), 1 => Just(Action::Crash)]
}

type Model = BTreeMap<String, BTreeMap<i64, u64>>;

fn append_both(store: &Store, model: &mut Model, high: &mut u64, series: &[(u8, Vec<(i64, u32)>)], mark: Option<u64>) {
    let pairs: Vec<(u8, Vec<(i64, f64)>)> = series
        .iter()
        .map(|(n, samples)| (*n, samples.iter().map(|&(t, bits)| (t, f64::from_bits(u64::from(bits) << 32))).collect()))
        .collect();
    let borrowed: Vec<(u8, &[(i64, f64)])> = pairs.iter().map(|(n, samples)| (*n, &samples[..])).collect();
    let mut sent = batch(&borrowed);
    if let Some(seq) = mark {
        sent = marked(sent, seq);
    }
    let committed = store.append_blocking(sent, NOW).unwrap();
    let duplicate = mark.is_some_and(|seq| seq <= *high);
    assert_eq!(committed.duplicate, duplicate, "{mark:?} at {high}");
    if duplicate {
        return;
    }
    *high = mark.unwrap_or(0).max(*high);
    for (n, samples) in &pairs {
        let kept = model.entry(labels(*n).to_string()).or_default();
        kept.extend(samples.iter().map(|&(t, v)| (t, v.to_bits())));
    }
}

fn check_range(store: &Store, model: &Model, range: TimeRange) {
    let expected: BTreeMap<String, Vec<(i64, u64)>> = model
        .iter()
        .map(|(name, kept)| (name.clone(), kept.range(range.from..=range.to).map(|(t, v)| (*t, *v)).collect()))
        .filter(|(_, samples): &(String, Vec<(i64, u64)>)| !samples.is_empty())
        .collect();
    assert_eq!(contents(store, range), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_store_is_a_map(actions in prop::collection::vec(action(), 1..14)) {
        let mut dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let (mut model, mut high) = (Model::new(), 0);
        for action in actions {
            match action {
                Action::Append { series, mark } => append_both(&store, &mut model, &mut high, &series, mark),
                Action::Flush => assert!(store.flush().is_empty()),
                Action::Maintain => assert!(store.maintain(NOW).is_empty()),
                Action::Reopen => {
                    store.close();
                    store = open(dir.path());
                }
                Action::Crash => {
                    let copy = copy_of(dir.path());
                    store = open(copy.path());
                    dir = copy;
                }
            }
            check_range(&store, &model, ALL);
            check_range(&store, &model, TimeRange { from: 50_000_000, to: 120_000_000 });
        }
    }
}

#[test]
fn what_was_acknowledged_survives_a_crash_at_any_point() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut model = Model::new();
    for round in 0..30i64 {
        let samples: Vec<(i64, u32)> = (0..40).map(|i| ((round * 40 + i) * 10_000, (round * i) as u32)).collect();
        append_both(&store, &mut model, &mut 0, &[(1, samples.clone()), (2, samples)], None);
        assert!(if round % 7 == 3 { store.flush() } else { store.maintain(NOW) }.is_empty());
        let crashed = copy_of(dir.path());
        check_range(&open(crashed.path()), &model, ALL);
    }
}

#[test]
fn marks_survive_the_unlinking_of_their_journal() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let send = |store: &Store, seq| store.append_blocking(marked(batch(&[(1, &[(1_000, 1.0)])]), seq), NOW).unwrap();
    assert!(!send(&store, 5).duplicate);
    assert!(store.flush().is_empty());
    assert!(journal::list(dir.path()).unwrap().is_empty());
    assert!(send(&store, 5).duplicate);
    store.close();
    let store = open(dir.path());
    assert_eq!(send(&store, 4), Committed { duplicate: true, ..Committed::default() });
    assert!(!send(&store, 6).duplicate);
}

#[test]
fn a_duplicate_in_the_same_group_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let (store, sender) = (&store, sender.clone());
            scope.spawn(move || {
                let committed = store.append_blocking(marked(batch(&[(1, &[(1_000, 1.0)])]), 1), NOW).unwrap();
                sender.send(committed.duplicate).unwrap();
            });
        }
    });
    drop(sender);
    assert_eq!(receiver.iter().filter(|duplicate| !duplicate).count(), 1);
}

#[test]
fn the_last_accepted_wins_across_sealed_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for value in [1.0, 2.0, 3.0] {
        store.append_blocking(batch(&[(1, &[(1_000, value), (2_000, value)])]), NOW).unwrap();
        assert!(store.flush().is_empty());
    }
    store.append_blocking(batch(&[(1, &[(2_000, 4.0)])]), NOW).unwrap();
    let expected = vec![(1_000, 3.0f64.to_bits()), (2_000, 4.0f64.to_bits())];
    assert_eq!(contents(&store, ALL)[&labels(1).to_string()], expected);
}

#[test]
fn future_old_and_surplus_samples_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let options =
        StoreOptions { retention: Some(Duration::from_secs(3_600)), series_max: 1, disk_reserve_bytes: 0, ..options() };
    let store = Store::open(dir.path(), options, &[], NOW).unwrap();
    let sent = batch(&[(1, &[(NOW, 1.0), (NOW + 600_001, 2.0), (NOW - 3_600_001, 3.0)]), (2, &[(NOW, 4.0)])]);
    let committed = store.append_blocking(sent, NOW).unwrap();
    let reasons: Vec<(f64, RefusedReason)> = committed.refused.iter().map(|r| (r.sample.v, r.reason)).collect();
    assert_eq!(
        (committed.accepted, reasons),
        (1, vec![(2.0, RefusedReason::Future), (3.0, RefusedReason::TooOld), (4.0, RefusedReason::SeriesLimit)])
    );
}

#[test]
fn one_source_cannot_take_the_room_of_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions { series_per_source_max: 2, ..options() }, &[], NOW).unwrap();
    let series = |instance: &str, name: &str| {
        (Labels::new([("__name__", name), ("instance", instance)]), vec![Sample { t: NOW, v: 1.0 }])
    };
    let sent = |series| Batch { series, ..Batch::default() };
    let all = vec![series("web1", "a"), series("web1", "b"), series("web1", "c"), series("web2", "a")];
    let without = (0..3).map(|i| series("", &format!("guest_{i}")));
    let committed = store.append_blocking(sent(all.into_iter().chain(without).collect()), NOW).unwrap();
    let refused: Vec<_> = committed.refused.iter().map(|r| (r.labels.clone(), r.reason)).collect();
    assert_eq!((committed.accepted, refused), (6, vec![(series("web1", "c").0, RefusedReason::SourceLimit)]));
    let known = vec![(series("web1", "b").0, vec![Sample { t: NOW + 1, v: 2.0 }])];
    let again = store.append_blocking(sent(known), NOW).unwrap();
    assert_eq!((again.accepted, again.refused.len()), (1, 0), "what is known is taken at the limit");
}

#[test]
fn while_memory_is_tight_no_series_are_added_and_heads_are_sealed_early() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options(), &[], NOW).unwrap();
    let sixty: Vec<(i64, f64)> = (0..60).map(|n| (NOW + n, n as f64)).collect();
    assert_eq!(store.append_blocking(batch(&[(1, &sixty)]), NOW).unwrap().accepted, 60);
    store.maintain(NOW);
    assert_eq!(store.stats().head_samples, 60, "a head of sixty is not sealed where there is room");
    store.set_memory_tight(true);
    let committed = store.append_blocking(batch(&[(1, &[(NOW + 100, 1.0)]), (2, &[(NOW, 4.0)])]), NOW).unwrap();
    assert_eq!((committed.accepted, committed.refused[0].reason), (1, RefusedReason::MemoryLimit));
    assert!(store.maintain(NOW).is_empty());
    assert_eq!(store.stats().head_samples, 0);
    let own = Batch { is_own: true, ..batch(&[(3, &[(NOW, 1.0)])]) };
    assert_eq!(store.append_blocking(own, NOW).unwrap().accepted, 1, "or nothing could tell");
    store.set_memory_tight(false);
    assert_eq!(store.append_blocking(batch(&[(2, &[(NOW, 4.0)])]), NOW).unwrap().accepted, 1);
    assert_eq!(contents(&store, ALL)[&labels(1).to_string()].len(), 61, "all that was accepted is there");
}

#[test]
fn retention_unlinks_days_and_forgets_their_series() {
    let dir = tempfile::tempdir().unwrap();
    let day = 86_400_000;
    let store = Store::open(
        dir.path(),
        StoreOptions { retention: Some(Duration::from_secs(86_400)), rollup_5m: None, rollup_1h: None, ..options() },
        &[],
        NOW,
    )
    .unwrap();
    store.append_blocking(batch(&[(1, &[(NOW, 1.0)])]), NOW).unwrap();
    store.append_blocking(batch(&[(2, &[(NOW + 2 * day, 1.0)])]), NOW + 2 * day).unwrap();
    assert!(store.flush().is_empty());
    assert_eq!(store.stats().series, 2);
    assert!(store.maintain(NOW + 3 * day).is_empty());
    assert_eq!(store.stats().series, 1);
    assert_eq!(contents(&store, ALL).into_keys().collect::<Vec<_>>(), [labels(2).to_string()]);
}

#[test]
fn a_clock_that_jumps_ahead_does_not_unlink_everything_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let day = 86_400_000;
    let retention = Some(Duration::from_secs(86_400));
    let store = Store::open(dir.path(), StoreOptions { retention, ..options() }, &[], NOW).unwrap();
    for n in 0..3 {
        let at = NOW + i64::from(n) * day;
        store.append_blocking(batch(&[(n, &[(at, 1.0)])]), at).unwrap();
    }
    assert!(store.flush().is_empty());
    for _ in 0..5 {
        assert!(store.maintain(NOW + 1000 * day).is_empty());
    }
    assert_eq!(store.stats().series, 2, "one day at most goes in an hour");
}

#[test]
fn a_disk_below_the_reserve_refuses_samples_and_still_answers() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append_blocking(batch(&[(1, &[(1_000, 1.0)])]), NOW).unwrap();
    store.close();
    let store = Store::open(dir.path(), StoreOptions { disk_reserve_bytes: u64::MAX, ..options() }, &[], NOW).unwrap();
    let refused = store.append_blocking(batch(&[(1, &[(2_000, 2.0)])]), NOW).unwrap_err();
    assert!(matches!(refused, AppendError::DiskReserve { .. }) && refused.is_transient());
    assert_eq!(contents(&store, ALL).len(), 1);
}

#[test]
fn a_query_that_is_too_large_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append_blocking(batch(&[(1, &[(1_000, 1.0), (2_000, 1.0)])]), NOW).unwrap();
    let select = |limit| store.select(&[Matcher::equal("n", "1")], ALL, limit);
    assert!(matches!(select(1), Err(SelectError::TooManySamples { samples_max: 1 })));
    assert_eq!(select(2).unwrap().len(), 1);
    assert!(store.flush().is_empty());
    assert!(select(1).is_err() && select(2).is_ok());
}

#[test]
fn series_and_metadata_are_listed_and_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let told = vec![("m".to_owned(), MetricMetadata { kind: "gauge".to_owned(), ..MetricMetadata::default() })];
    store.append_blocking(Batch { metadata: told.clone(), ..batch(&[(1, &[(1_000, 1.0)])]) }, NOW).unwrap();
    store.close();
    let store = open(dir.path());
    assert_eq!(store.metadata(), told);
    let listed = |range| store.series(&[vec![Matcher::equal("__name__", "m")], vec![]], range).unwrap();
    assert_eq!(listed(ALL), [labels(1)]);
    assert!(listed(TimeRange { from: 2_000, to: 3_000 }).is_empty());
}

#[test]
fn a_second_start_is_refused_and_a_closed_store_answers_closed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refused = Store::open(dir.path(), options(), &[], NOW).err().unwrap().to_string();
    assert!(refused.contains("in use by the process"), "{refused}");
    store.close();
    assert!(matches!(store.append_blocking(Batch::default(), NOW), Err(AppendError::Closed)));
    open(dir.path());
}

#[test]
fn the_tap_passes_on_what_was_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut tap = store.tap(1);
    let sent = batch(&[(1, &[(1_000, 1.0), (NOW * 2, 1.0)])]);
    store.append_blocking(sent.clone(), NOW).unwrap();
    store.append_blocking(sent, NOW).unwrap();
    let fed = tap.try_recv().unwrap();
    assert_eq!((fed.len(), &fed[0].series.labels, fed[0].sample), (1, &labels(1), Sample { t: 1_000, v: 1.0 }));
    assert!(tap.try_recv().is_err(), "the second found no room and was counted");
}

#[test]
fn a_samples_file_cut_off_at_its_birth_does_not_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append_blocking(batch(&[(1, &[(1_000, 1.0)])]), NOW).unwrap();
    store.close();
    // What `kill -9` or a full disk leaves between the file's creation and its tables.
    std::fs::write(dir.path().join("samples-1970-01-01.db"), b"").unwrap();
    let half = rusqlite::Connection::open(dir.path().join("samples-1970-01-02.db")).unwrap();
    half.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE series (block INTEGER PRIMARY KEY, body BLOB)")
        .unwrap();
    drop(half);
    let store = open(dir.path());
    assert_eq!(contents(&store, ALL).len(), 1);
    assert!(store.flush().is_empty());
    store.close();
    assert_eq!(contents(&open(dir.path()), ALL).len(), 1);
}

#[test]
fn log_lines_are_kept_once_and_within_limits() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), StoreOptions { log_lines_max: 1_500, ..options() }, &[], NOW).unwrap();
    let line = |t: i64| LogLine {
        t,
        host: "h1".to_owned(),
        source: "/var/log/syslog".to_owned(),
        severity: if t % 2 == 0 { 17 } else { 9 },
        template_id: "a".to_owned(),
        template: "disk <*> failed".to_owned(),
        body: format!("disk {t} failed"),
        unit: String::new(),
        precursor: String::new(),
        why: String::new(),
    };
    let mark = Mark { agent: "h1".to_owned(), epoch: "e".to_owned(), class: Class::Logs, seq: 1 };
    let lines: Vec<LogLine> = (0..1_400).map(line).collect();
    assert!(store.append_logs(&lines, Some(&mark), NOW).unwrap());
    assert!(!store.append_logs(&lines, Some(&mark), NOW).unwrap());
    let errors = LogFilter { severity_min: 17, host: Some("h1".to_owned()), ..LogFilter::default() };
    let recent = store.recent_logs(&errors, 2).unwrap();
    assert_eq!(recent.iter().map(|line| line.t).collect::<Vec<_>>(), [1_398, 1_396]);
    assert!(store.append_logs(&(1_400..1_600).map(line).collect::<Vec<_>>(), None, NOW).unwrap());
    assert_eq!(store.recent_logs(&LogFilter::default(), 10_000).unwrap().len(), 600);
    let one = LogFilter { contains: Some("disk 1500 ".to_owned()), ..LogFilter::default() };
    assert_eq!(store.recent_logs(&one, 10).unwrap().len(), 1);
    let other = LogLine { host: "h2".to_owned(), template_id: "b".to_owned(), ..line(1_600) };
    assert!(store.append_logs(&[other], None, NOW).unwrap());
    for id in ["a", "b"] {
        let same = LogFilter { template_id: Some(id.to_owned()), ..LogFilter::default() };
        let lines = store.recent_logs(&same, 10_000).unwrap();
        assert_eq!((lines.len(), lines[0].host.as_str(), lines[0].template_id.as_str()), (601, "h2", "a"));
    }
    // Over several pages, many of one time.
    let many: Vec<LogLine> =
        (0..25_000).map(|n| LogLine { t: 2_000 + n / 9_000, host: "h3".to_owned(), ..line(n) }).collect();
    let wide = tempfile::tempdir().unwrap();
    let store = Store::open(wide.path(), StoreOptions { log_lines_max: 100_000, ..options() }, &[], NOW).unwrap();
    assert!(store.append_logs(&many, None, NOW).unwrap());
    let last = LogFilter { contains: Some("disk 7 ".to_owned()), host: Some("h3".to_owned()), ..LogFilter::default() };
    assert_eq!(store.recent_logs(&last, 10).unwrap(), [many[7].clone()]);
    let all = store.recent_logs(&LogFilter { severity_min: 17, ..LogFilter::default() }, 10_000).unwrap();
    let expected: Vec<LogLine> = many.iter().rev().filter(|line| line.severity == 17).take(10_000).cloned().collect();
    assert!(all == expected, "{} lines", all.len());
}
