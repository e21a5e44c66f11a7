//! Rollups through the store: what queries answer where raw samples are gone, crashes at every step of the way there, late samples,
//! deletion, and the retention of the rollups themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::world::{ALL, NOW, World, labels, options};
use crate::query::source::{Source as _, TimeRange, recorded};
use crate::query::{self, Limits, StepRange, Value};
use crate::series::{Matcher, STALE_NAN_BITS, Timestamp};
use crate::store::StoreOptions;
use crate::store::head::Day;

pub const DAY: i64 = 86_400_000;
/// Begin of the day that the tests fill.
pub const FIRST: Timestamp = NOW.div_euclid(DAY) * DAY;

pub fn kept_for(days: u64) -> StoreOptions {
    StoreOptions { retention: Some(Duration::from_secs(days * 86_400)), ..options() }
}

/// The value of a query that has one series or none, and what it says beside.
fn ask(world: &World, text: &str, at: Timestamp) -> (Option<f64>, Vec<String>) {
    let answer = query::instant(&*world.store, &query::parse(text).unwrap(), at, &Limits::default()).unwrap();
    let Value::Vector(samples) = answer.value else { panic!("{text} is no vector") };
    assert!(samples.len() < 2, "{text}");
    (samples.first().map(|one| one.sample.v), answer.infos)
}

pub fn value(world: &World, text: &str, at: Timestamp) -> f64 {
    ask(world, text, at).0.unwrap_or(f64::NAN)
}

/// Passes of maintenance as if hours lay between them, until a day's raw samples are gone.
pub fn expire(world: &mut World, now: Timestamp) {
    for _ in 0..20 {
        world.reopen();
        assert!(world.store.flush().is_empty());
        assert!(world.store.maintain(now).is_empty());
    }
}

pub fn files(world: &World, with: &str) -> Vec<String> {
    let names = std::fs::read_dir(world.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.retain(|name| name.starts_with(with) && name.strip_suffix(".db").is_some());
    names.sort();
    names
}

/// A day of a counter that falls twice (1) and of a gauge (2), every 30 seconds.
pub fn fill(world: &World) {
    let counter = |i: i64| if i < 1_000 { i * 3 } else { i % 900 * 5 };
    let of = |value: fn(i64) -> f64| (0..2_880).map(|i| (FIRST + i * 30_000, value(i))).collect::<Vec<_>>();
    let counters: Vec<(i64, f64)> = (0..2_880).map(|i| (FIRST + i * 30_000, counter(i) as f64)).collect();
    world.append_at(1, &counters, FIRST + DAY);
    world.append_at(2, &of(|i| ((i * 7_919) % 1_000) as f64 / 10.0), FIRST + DAY);
}

const EXACT: [&str; 9] = [
    r#"sum_over_time(m{n="2"}[1d])"#,
    r#"count_over_time(m{n="2"}[1d])"#,
    r#"avg_over_time(m{n="2"}[1d])"#,
    r#"min_over_time(m{n="2"}[1d])"#,
    r#"max_over_time(m{n="2"}[1d])"#,
    r#"last_over_time(m{n="2"}[1d])"#,
    r#"first_over_time(m{n="2"}[1d])"#,
    r#"m{n="2"}"#,
    r#"increase(m{n="1"}[1d])"#,
];

#[test]
fn queries_go_on_where_raw_samples_are_gone() {
    let mut world = World::new(kept_for(2));
    fill(&world);
    let at = FIRST + DAY - 1;
    let before: Vec<f64> = EXACT.iter().map(|text| value(&world, text, at)).collect();
    let rate = |world: &World, hour: i64| value(world, r#"rate(m{n="1"}[5m])"#, FIRST + hour * 3_600_000);
    let rates: Vec<f64> = (1..8).map(|hour| rate(&world, hour)).collect();
    expire(&mut world, FIRST + 4 * DAY);
    assert!(files(&world, "samples").is_empty(), "{:?}", files(&world, ""));
    assert_eq!((files(&world, "rollup-5m").len(), files(&world, "rollup-1h").len()), (1, 1));
    for (text, raw) in EXACT.iter().zip(before) {
        let (rolled, infos) = ask(&world, text, at);
        let rolled = rolled.unwrap_or(f64::NAN);
        assert!((rolled - raw).abs() <= 1e-3 * raw.abs(), "{text}: {rolled}, raw {raw}");
        assert!(infos.iter().any(|info| info.contains("5-minute rollups")), "{text}: {infos:?}");
    }
    for (hour, raw) in (1..8).zip(rates) {
        let rolled = rate(&world, hour);
        assert!((rolled - raw).abs() <= 0.05 * raw, "hour {hour}: {rolled}, raw {raw}");
    }
    // As Grafana asks: no step is without a value, and series and labels are known.
    let steps = StepRange { start: FIRST + 60_000, end: FIRST + DAY - 60_000, step_ms: 47_000 };
    let expr = query::parse("m").unwrap();
    let answer = query::range(&*world.store, &expr, steps, &Limits::default()).unwrap();
    let Value::Matrix(series) = answer.value else { panic!("no matrix") };
    assert_eq!(series.iter().map(|one| one.samples.len()).collect::<Vec<_>>(), [1_836, 1_836]);
    assert_eq!(world.store.series(&[vec![Matcher::equal("n", "2")]], ALL).unwrap(), [labels(2)]);
    assert_eq!(world.store.stats().series, 0, "memory knows nothing of them");
}

#[test]
fn a_crash_at_any_step_of_the_way_to_rollups_changes_no_answer() {
    let mut world = World::new(kept_for(2));
    fill(&world);
    let at = FIRST + DAY - 1;
    let text = r#"sum_over_time(m{n="2"}[1d])"#;
    let want = value(&world, text, at);
    for pass in 0..12 {
        world.crash();
        let now = FIRST + if pass < 6 { 2 * DAY } else { 4 * DAY };
        if pass % 3 == 1 {
            assert!(world.store.flush().is_empty());
        }
        assert!(world.store.maintain(now).is_empty());
        world.crash();
        assert!((value(&world, text, at) - want).abs() < 1e-6, "pass {pass}");
    }
    assert!(files(&world, "samples").is_empty());
    // Half built, as a crash leaves it: begun again, and right.
    let mut world = World::new(kept_for(2));
    fill(&world);
    assert!(world.store.flush().is_empty());
    let day = Day::try_from(FIRST / DAY).unwrap();
    for level in world.store.levels() {
        world.store.shared.rollups.begin(level, day).unwrap();
    }
    world.crash();
    expire(&mut world, FIRST + 4 * DAY);
    assert!((value(&world, text, at) - want).abs() < 1e-6);
}

#[test]
fn late_samples_come_into_rollups() {
    let mut world = World::new(kept_for(2));
    fill(&world);
    let at = FIRST + DAY - 1;
    let max = r#"max_over_time(m{n="2"}[1d])"#;
    assert!(world.store.flush().is_empty());
    assert!(world.store.maintain(FIRST + 2 * DAY).is_empty());
    assert_eq!(files(&world, "rollup-5m").len(), 1, "built before raw samples go");
    assert!(ask(&world, max, at).1.is_empty(), "and not read before");
    world.append_at(2, &[(FIRST + 100, 5_000.0)], FIRST + 2 * DAY);
    // This one is still in memory when its day's file goes.
    expire(&mut world, FIRST + 4 * DAY);
    assert_eq!(value(&world, max, at), 5_000.0);
    let count = r#"count_over_time(m{n="2"}[1d])"#;
    assert_eq!(value(&world, count, at), 2_881.0);
}

#[test]
fn what_others_are_given_of_rollups_was_recorded() {
    let mut world = World::new(kept_for(2));
    fill(&world);
    let raw = recorded(&*world.store, &[], ALL, u64::MAX).unwrap();
    assert!(world.store.flush().is_empty());
    assert!(world.store.maintain(FIRST + 2 * DAY).is_empty());
    let all = |world: &World| recorded(&*world.store, &[], ALL, u64::MAX).unwrap();
    assert_eq!((files(&world, "rollup-5m").len(), all(&world)), (1, raw.clone()), "raw where raw is there");
    expire(&mut world, FIRST + 4 * DAY);
    assert!(files(&world, "samples").is_empty());
    for one in all(&world) {
        let raw = &raw.iter().find(|raw| raw.labels == one.labels).unwrap().samples;
        assert_eq!(one.samples.len(), 2 * 288, "the first and the last of each five minutes");
        assert!(one.samples.iter().all(|sample| raw.contains(sample)));
    }
}

#[test]
fn deletion_reaches_rollups() {
    let mut world = World::new(kept_for(2));
    fill(&world);
    expire(&mut world, FIRST + 4 * DAY);
    let count = r#"count_over_time(m{n="2"}[1d])"#;
    let range = TimeRange { from: FIRST + 6 * 3_600_000, to: FIRST + 12 * 3_600_000 - 1 };
    world.store.delete(&[vec![Matcher::equal("n", "2")]], range).unwrap();
    world.crash();
    assert_eq!(value(&world, count, FIRST + DAY - 1), 2_160.0);
    assert_eq!(value(&world, r#"count_over_time(m{n="1"}[1d])"#, FIRST + DAY - 1), 2_880.0);
    world.store.delete(&[vec![]], ALL).unwrap();
    world.crash();
    assert!(world.store.series(&[], ALL).unwrap().is_empty());
    assert!(world.contents(ALL).is_empty());
}

#[test]
fn a_deletion_that_finds_nothing_in_an_hour_leaves_its_rows() {
    let mut world = World::new(kept_for(2));
    let minute = |minute: i64| FIRST + 10 * 3_600_000 + minute * 60_000;
    world.append_at(1, &[(minute(5), 1.0), (minute(7), 2.0)], FIRST + DAY);
    // Rollups are built, raw samples are still there.
    for _ in 0..4 {
        world.reopen();
        assert!(world.store.flush().is_empty());
        assert!(world.store.maintain(FIRST + DAY + DAY / 2).is_empty());
    }
    assert_eq!((files(&world, "rollup-1h").len(), files(&world, "samples").len()), (1, 1));
    world.store.delete(&[vec![]], TimeRange { from: minute(30), to: minute(40) }).unwrap();
    let sum = r#"sum_over_time(m{n="1"}[1d])"#;
    for now in [FIRST + 4 * DAY, FIRST + 62 * DAY] {
        expire(&mut world, now);
        assert_eq!(ask(&world, sum, FIRST + DAY - 1).0, Some(3.0), "rows of hours are those of minutes");
    }
}

#[test]
fn hours_follow_five_minutes_and_go_in_their_turn() {
    let mut world = World::new(kept_for(2));
    fill(&world);
    let mut stale = vec![(FIRST, 1.0), (FIRST + 1_800_000, 1.0)];
    stale.push((FIRST + 1_860_000, f64::from_bits(STALE_NAN_BITS)));
    world.append_at(3, &stale, FIRST + DAY);
    let at = FIRST + DAY - 1;
    let before: Vec<f64> = EXACT.iter().map(|text| value(&world, text, at)).collect();
    expire(&mut world, FIRST + 62 * DAY);
    assert_eq!((files(&world, "rollup-5m").len(), files(&world, "rollup-1h").len()), (0, 1));
    for (text, raw) in EXACT.iter().zip(before) {
        let (rolled, infos) = ask(&world, text, at);
        assert!((rolled.unwrap_or(f64::NAN) - raw).abs() <= 0.02 * raw.abs(), "{text}: {rolled:?}, raw {raw}");
        assert!(infos.iter().any(|info| info.contains("hourly rollups")), "{text}: {infos:?}");
    }
    assert!(value(&world, r#"rate(m{n="1"}[5m])"#, FIRST + 2 * 3_600_000).is_finite(), "inside a row, too");
    assert_eq!(ask(&world, r#"m{n="3"}"#, FIRST + 1_800_000).0, Some(1.0));
    assert_eq!(ask(&world, r#"m{n="3"}"#, FIRST + 1_900_000).0, None, "the marker ended it");
    expire(&mut world, FIRST + 440 * DAY);
    assert!(files(&world, "rollup").is_empty());
    assert!(world.store.series(&[], ALL).unwrap().is_empty());
}

#[test]
fn without_an_end_of_raw_samples_there_are_no_rollups() {
    let mut world = World::new(options());
    fill(&world);
    expire(&mut world, FIRST + 1_000 * DAY);
    assert_eq!((files(&world, "rollup").len(), files(&world, "samples").len()), (0, 1));
}

#[derive(Debug, Clone)]
enum Action {
    Append(u8, Vec<(i64, u16)>),
    Delete { series: u8, hours: (i64, i64) },
    Maintain,
    Crash,
}

fn action() -> impl Strategy<Value = Action> {
    let samples = prop::collection::vec(((0i64..5_760).prop_map(|n| FIRST + n * 30_000), any::<u16>()), 1..80);
    let delete = (0u8..3, (0i64..48, 1i64..20))
        .prop_map(|(series, (from, length))| Action::Delete { series, hours: (from, from + length) });
    prop_oneof![
        5 => (0u8..3, samples).prop_map(|(n, samples)| Action::Append(n, samples)),
        1 => delete,
        3 => Just(Action::Maintain),
        1 => Just(Action::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    /// Two days of samples in any order, with deletions of whole hours, rollups built at any time between, then all raw ones gone.
    #[test]
    fn rollups_sum_up_what_a_map_holds(actions in prop::collection::vec(action(), 1..12)) {
        let mut world = World::new(kept_for(3));
        let now = FIRST + 3 * DAY - 1;
        let mut model: BTreeMap<(u8, i64), f64> = BTreeMap::new();
        for action in actions {
            match action {
                Action::Append(n, samples) => {
                    let samples: Vec<(i64, f64)> = samples.into_iter().map(|(t, v)| (t, f64::from(v))).collect();
                    world.append_at(n, &samples, now);
                    model.extend(samples.into_iter().map(|(t, v)| ((n, t), v)));
                }
                Action::Delete { series, hours: (from, to) } => {
                    let range = TimeRange { from: FIRST + from * 3_600_000, to: FIRST + to * 3_600_000 - 1 };
                    world.store.delete(&[vec![Matcher::equal("n", &series.to_string())]], range).unwrap();
                    model.retain(|(n, t), _| *n != series || *t < range.from || *t > range.to);
                }
                Action::Maintain => {
                    world.reopen();
                    assert!(world.store.flush().is_empty());
                    assert!(world.store.maintain(now).is_empty());
                }
                Action::Crash => world.crash(),
            }
        }
        expire(&mut world, FIRST + 6 * DAY);
        prop_assert!(files(&world, "samples").is_empty());
        for n in 0..3u8 {
            for hour in 1..=48i64 {
                let (from, to) = (FIRST + (hour - 1) * 3_600_000, FIRST + hour * 3_600_000);
                let held: Vec<f64> =
                    model.iter().filter(|((of, t), _)| *of == n && (from..to).contains(t)).map(|(_, v)| *v).collect();
                let ask = |function: &str| ask(&world, &format!("{function}(m{{n=\"{n}\"}}[1h])"), to - 1).0;
                if held.is_empty() {
                    prop_assert_eq!(ask("count_over_time"), None);
                    continue;
                }
                prop_assert_eq!(ask("count_over_time"), Some(held.len() as f64));
                prop_assert!((ask("sum_over_time").unwrap() - held.iter().sum::<f64>()).abs() < 1e-6);
                prop_assert_eq!(ask("max_over_time"), held.iter().copied().reduce(f64::max));
                prop_assert_eq!(ask("min_over_time"), held.iter().copied().reduce(f64::min));
            }
        }
    }
}
