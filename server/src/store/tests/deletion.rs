//! Deletion against a plain map with restarts and crashes in between, retention by size, and series that come back.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::{ALL, NOW, World, labels, open_with, options};
use crate::query::source::{Source as _, TimeRange};
use crate::series::{Matcher, Sample};
use crate::store::{Batch, StoreOptions};

#[derive(Debug, Clone)]
enum Action {
    Append(Vec<(u8, Vec<(i64, u32)>)>),
    Delete { series: u8, from: i64, to: i64 },
    Flush,
    Maintain,
    Reopen,
    Crash,
}

fn action() -> impl Strategy<Value = Action> {
    // Three days, coarse times, so that deletions end inside days, chunks and heads, and late samples meet what was deleted.
    let at = || (0i64..300).prop_map(|n| n * 900_000);
    let samples = prop::collection::vec((at(), any::<u32>()), 1..60);
    let delete = (0u8..7, at(), 0i64..200_000_000).prop_map(|(series, from, length)| Action::Delete {
        series,
        from,
        to: from + length,
    });
    prop_oneof![
        6 => prop::collection::vec((0u8..6, samples), 1..4).prop_map(Action::Append),
        4 => delete,
        1 => Just(Action::Flush),
        2 => Just(Action::Maintain),
        1 => Just(Action::Reopen),
        2 => Just(Action::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn deletion_is_that_of_a_map(actions in prop::collection::vec(action(), 1..16)) {
        let mut world = World::new(options());
        let mut model: BTreeMap<u8, BTreeMap<i64, u64>> = BTreeMap::new();
        for action in actions {
            match action {
                Action::Append(series) => {
                    for (n, samples) in &series {
                        let of = |&(t, v): &(i64, u32)| (t, f64::from(v));
                        world.append(*n, &samples.iter().map(of).collect::<Vec<_>>());
                        let kept = model.entry(*n).or_default();
                        kept.extend(samples.iter().map(|&(t, v)| (t, f64::from(v).to_bits())));
                    }
                }
                // The seventh stands for all.
                Action::Delete { series, from, to } => {
                    let matchers = if series == 6 { vec![] } else { vec![Matcher::equal("n", &series.to_string())] };
                    world.store.delete(&[matchers], TimeRange { from, to }).unwrap();
                    for (_, kept) in model.iter_mut().filter(|(n, _)| series == 6 || **n == series) {
                        kept.retain(|t, _| *t < from || *t > to);
                    }
                }
                Action::Flush => assert!(world.store.flush().is_empty()),
                Action::Maintain => assert!(world.store.maintain(NOW).is_empty()),
                Action::Reopen => world.reopen(),
                Action::Crash => world.crash(),
            }
            let expected: BTreeMap<String, Vec<(i64, u64)>> = model
                .iter()
                .filter(|(_, kept)| !kept.is_empty())
                .map(|(n, kept)| (labels(*n).to_string(), kept.iter().map(|(t, v)| (*t, *v)).collect()))
                .collect();
            prop_assert_eq!(world.contents(ALL), expected);
        }
    }
}

#[test]
fn a_crash_after_each_step_of_a_deletion_brings_nothing_back() {
    let mut world = World::new(options());
    let day = 86_400_000;
    world.append(1, &[(1_000, 1.0), (day + 1_000, 2.0)]);
    assert!(world.store.flush().is_empty());
    world.append(1, &[(2_000, 3.0), (2 * day, 4.0)]);
    world.append(2, &[(2_000, 5.0)]);
    world.store.delete(&[vec![Matcher::equal("n", "1")]], TimeRange { from: 0, to: day + 5_000 }).unwrap();
    let left = |values: &[(i64, f64)]| values.iter().map(|&(t, v)| (t, v.to_bits())).collect::<Vec<_>>();
    let expected = BTreeMap::from([
        (labels(1).to_string(), left(&[(2 * day, 4.0)])),
        (labels(2).to_string(), left(&[(2_000, 5.0)])),
    ]);
    for step in 0..6 {
        assert_eq!(world.contents(ALL), expected, "step {step}");
        match step {
            0 | 3 | 5 => world.crash(),
            1 => assert!(world.store.flush().is_empty()),
            2 => world.store.compact_all().unwrap(),
            _ => assert!(world.store.maintain(NOW).is_empty()),
        }
    }
    // Accepted after the deletion: kept, although its time lies in the range.
    world.append(1, &[(1_000, 9.0)]);
    world.crash();
    assert_eq!(world.contents(ALL)[&labels(1).to_string()], left(&[(1_000, 9.0), (2 * day, 4.0)]));
}

#[test]
fn a_series_deleted_whole_is_forgotten_and_may_come_back() {
    let mut world = World::new(options());
    for round in 0..4 {
        world.append(1, &[(1_000, f64::from(round))]);
        world.append(2, &[(1_000, 1.0)]);
        if round % 2 == 1 {
            assert!(world.store.flush().is_empty());
        }
        world.store.delete(&[vec![Matcher::equal("n", "1")]], ALL).unwrap();
        assert_eq!(world.store.series(&[], ALL).unwrap(), [labels(2)]);
        assert!(world.store.maintain(NOW).is_empty());
        if round > 1 {
            world.crash();
        }
    }
    assert!(world.store.flush().is_empty());
    assert!(world.store.maintain(NOW).is_empty());
    assert_eq!(world.store.stats().series, 1, "no journal declares it any more");
}

#[test]
fn room_of_deleted_samples_is_given_back() {
    let world = World::new(options());
    let series: Vec<_> = (0..=255u8)
        .map(|n| {
            let value = |i: i64| f64::from_bits((i as u64 * 2 + u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2);
            (labels(n), (0..400i64).map(|i| Sample { t: i * 10_000, v: value(i) }).collect())
        })
        .collect();
    world.store.append_blocking(Batch { series, ..Batch::default() }, NOW).unwrap();
    assert!(world.store.flush().is_empty());
    let before = world.store.stats().disk_bytes;
    world.store.delete(&[vec![]], TimeRange { from: 0, to: 399 * 10_000 }).unwrap();
    world.store.compact_all().unwrap();
    let after = world.store.stats().disk_bytes;
    assert!(after * 3 < before, "{before} before, {after} after");
}

#[test]
fn retention_by_size_unlinks_the_oldest_days_and_never_todays() {
    let day = 86_400_000;
    let without_rollups = StoreOptions { rollup_5m: None, rollup_1h: None, ..options() };
    let mut world = World::new(StoreOptions { size_bytes_max: Some(1), ..without_rollups });
    let today = NOW.div_euclid(day) * day;
    world.append(1, &[(today - 2 * day, 1.0), (today - day, 2.0), (today, 3.0)]);
    assert!(world.store.flush().is_empty());
    assert!(world.store.maintain(NOW).is_empty());
    assert!(world.store.maintain(NOW).is_empty());
    let times = |world: &World| world.contents(ALL).into_values().flatten().map(|(t, _)| t).collect::<Vec<_>>();
    assert_eq!(times(&world), [today - day, today], "one file in a minute at most");
    for _ in 0..3 {
        world.reopen();
        assert!(world.store.maintain(NOW).is_empty());
    }
    assert_eq!(times(&world), [today]);
    world.reopen();
    assert!(world.store.maintain(NOW + 5 * day).is_empty());
    assert_eq!(times(&world), [today], "a clock that runs ahead does not take the newest day");
    let world = World::new(StoreOptions { size_bytes_max: Some(1), ..options() });
    world.append(1, &[(today - 2 * day, 1.0), (today, 3.0)]);
    assert!(world.store.flush().is_empty());
    assert!(world.store.maintain(NOW).is_empty());
    assert_eq!(times(&world), [today - 2 * day, today], "its rollups stay");
    world.store.close();
    let store = open_with(world.dir.path(), StoreOptions { size_bytes_max: Some(1 << 40), ..options() });
    assert!(store.maintain(NOW + 5 * day).is_empty());
    assert_eq!(store.stats().series, 1);
}
