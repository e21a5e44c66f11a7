//! Days that the retention took: nothing of them comes back or is counted twice, whenever the process ends, and late samples neither
//! get lost silently nor keep maintenance busy.

use std::time::Instant;

use super::rollups::{DAY, FIRST, expire, files, fill, kept_for, value};
use super::world::{ALL, World, labels, options};
use crate::query::source::{Source as _, TimeRange};
use crate::series::{Matcher, Sample, Timestamp};
use crate::store::days::OnDamage;
use crate::store::head::Day;
use crate::store::{Batch, Committed, RefusedReason, StoreOptions, unlinked};

const COUNT: &str = r#"count_over_time(m{n="2"}[1d])"#;
const MAX: &str = r#"max_over_time(m{n="2"}[1d])"#;

fn day() -> Day {
    Day::try_from(FIRST / DAY).unwrap()
}

/// Where the directory may hold nothing but the newest day.
fn smallest() -> StoreOptions {
    StoreOptions { size_bytes_max: Some(1), ..options() }
}

fn offer(world: &World, t: Timestamp, v: f64) -> Committed {
    let batch = Batch { series: vec![(labels(2), vec![Sample { t, v }])], ..Batch::default() };
    world.store.append_blocking(batch, FIRST + 2 * DAY).unwrap()
}

/// Count and greatest value of the day that was filled.
fn answers(world: &World) -> (f64, f64) {
    (value(world, COUNT, FIRST + DAY - 1), value(world, MAX, FIRST + DAY - 1))
}

/// The day that was filled goes for its size.
fn shrink(world: &World) {
    for _ in 0..3 {
        assert!(world.store.maintain(FIRST + DAY + 1).is_empty());
    }
    assert_eq!(files(world, "samples").len(), 1, "{:?}", files(world, ""));
}

fn filled_for_size() -> World {
    let world = World::new(smallest());
    fill(&world);
    world.append_at(1, &[(FIRST + DAY, 1.0)], FIRST + DAY);
    world
}

#[test]
fn a_replay_brings_nothing_of_an_unlinked_day_back() {
    let mut world = filled_for_size();
    let before = answers(&world);
    shrink(&world);
    assert!(!files(&world, "journal").is_empty(), "or there is nothing to replay");
    assert_eq!(answers(&world), before);
    for _ in 0..2 {
        world.crash();
        assert_eq!(answers(&world), before);
        assert!(world.store.flush().is_empty());
        assert_eq!((answers(&world), files(&world, "samples").len()), (before, 1));
    }
    let notes = unlinked::replayed_through(world.store.control()).unwrap();
    assert!(notes.is_empty(), "no journal needs them any more: {notes:?}");
}

#[test]
fn a_deletion_and_then_the_retention_leave_nothing_for_a_replay() {
    let mut world = filled_for_size();
    world.store.delete(&[vec![Matcher::equal("n", "2")]], ALL).unwrap();
    shrink(&world);
    world.crash();
    assert!(answers(&world).0.is_nan());
    assert_eq!(world.store.series(&[], ALL).unwrap(), [labels(1)]);
}

#[test]
fn a_day_that_only_rollups_have_takes_no_samples() {
    let mut world = filled_for_size();
    assert!(world.store.maintain(FIRST).is_empty());
    // Accepted, and still in memory when the day goes.
    assert_eq!(offer(&world, FIRST + 100, 5_000.0).accepted, 1);
    shrink(&world);
    assert_eq!(answers(&world), (2_881.0, 5_000.0));
    for _ in 0..2 {
        let late = offer(&world, FIRST + 200, 6_000.0);
        let reasons: Vec<RefusedReason> = late.refused.iter().map(|refused| refused.reason).collect();
        assert_eq!((late.accepted, reasons), (0, vec![RefusedReason::Closed]));
        assert_eq!(
            offer(&world, FIRST - 100, 1.0).accepted,
            1,
            "the day before has nothing that this could be counted with"
        );
        assert_eq!(answers(&world), (2_881.0, 5_000.0));
        world.crash();
    }
    let mut world = World::new(StoreOptions { rollup_5m: None, rollup_1h: None, ..smallest() });
    fill(&world);
    world.append_at(1, &[(FIRST + DAY, 1.0)], FIRST + DAY);
    shrink(&world);
    assert!(answers(&world).0.is_nan());
    assert_eq!(offer(&world, FIRST + 200, 6_000.0).accepted, 1, "without rollups nothing is counted twice");
    world.crash();
    assert_eq!(answers(&world), (1.0, 6_000.0));
}

#[test]
fn what_was_begun_is_ended_by_the_next_start() {
    let mut world = World::new(kept_for(2));
    fill(&world);
    let before = answers(&world);
    assert!(world.store.flush().is_empty());
    assert!(world.store.maintain(FIRST + 2 * DAY).is_empty());
    assert_eq!((files(&world, "rollup-5m").len(), files(&world, "samples").len()), (1, 1));
    unlinked::begin(world.store.control(), day(), world.store.shared.applied()).unwrap();
    world.crash();
    assert_eq!((answers(&world), files(&world, "samples").len()), (before, 0));
    assert_eq!(offer(&world, FIRST + 200, 6_000.0).refused[0].reason, RefusedReason::Closed);
}

#[test]
fn late_samples_do_not_have_rollups_built_for_ever() {
    let mut world = World::new(kept_for(2));
    fill(&world);
    assert!(world.store.flush().is_empty());
    let now = FIRST + 2 * DAY;
    let file = world.store.shared.days.get(day()).unwrap();
    {
        let mut maintenance = world.store.maintenance.lock().unwrap();
        maintenance.rolling = Some(world.store.begin_rolling(&file, OnDamage::Fail).unwrap());
        maintenance.rolls.insert(day(), Instant::now());
    }
    for n in 0..3 {
        assert_eq!(offer(&world, FIRST + 100 + n, 5_000.0).accepted, 1);
        assert!(world.store.flush().is_empty());
        assert!(world.store.maintain(now).is_empty());
        let maintenance = world.store.maintenance.lock().unwrap();
        assert!(maintenance.rolling.is_none(), "spoilt, and not begun again within the hour");
        drop(maintenance);
        assert!(!world.store.is_rolled(&file).unwrap());
    }
    assert_eq!(answers(&world), (2_883.0, 5_000.0));
    // The retention does not wait.
    assert!(world.store.maintain(FIRST + 4 * DAY).is_empty());
    assert_eq!((answers(&world), files(&world, "samples").len()), ((2_883.0, 5_000.0), 0));
    world.crash();
    assert_eq!(answers(&world), (2_883.0, 5_000.0));
}

#[test]
fn late_samples_do_not_have_a_day_compacted_for_ever() {
    let world = World::new(options());
    fill(&world);
    assert!(world.store.flush().is_empty());
    let file = world.store.shared.days.get(day()).unwrap();
    let mut compacted = Vec::new();
    for n in 0..3 {
        let late: Vec<(i64, f64)> = (0..300).map(|i| (FIRST + 100 + n + i * 7, 1.0)).collect();
        world.append_at(2, &late, FIRST + 2 * DAY);
        assert!(world.store.maintain(FIRST + 2 * DAY).is_empty());
        compacted.push(crate::store::compact::is_compacted(&file).unwrap());
    }
    assert_eq!(compacted, [true, false, false], "once in ten minutes");
}

#[test]
fn files_that_are_not_there_are_not_counted() {
    let world = World::new(smallest());
    fill(&world);
    assert!(world.store.flush().is_empty());
    let file = world.store.shared.days.get(day()).unwrap();
    assert!(!world.store.is_rolled(&file).unwrap());
    assert!(world.store.shared.rollups.all().is_empty(), "asking makes no file");
    let mut maintenance = world.store.maintenance.lock().unwrap();
    let now = FIRST + DAY + 1;
    assert!(!world.store.shrink_to_size(&mut maintenance, now).unwrap(), "nothing was unlinked");
    // Rollups of the newest day, which stays, would only be built again.
    assert!(world.store.roll(&mut maintenance.rolling, day(), OnDamage::Fail).unwrap());
    assert!(!world.store.shrink_to_size(&mut maintenance, now).unwrap());
    assert_eq!(files(&world, "rollup").len(), 2);
}

#[test]
fn rollups_built_anew_forget_series_that_were_deleted() {
    let mut world = World::new(kept_for(2));
    fill(&world);
    assert!(world.store.flush().is_empty());
    assert!(world.store.maintain(FIRST + 2 * DAY).is_empty());
    assert_eq!(files(&world, "rollup-5m").len(), 1);
    world.store.delete(&[vec![Matcher::equal("n", "2")]], TimeRange { from: FIRST, to: FIRST + DAY }).unwrap();
    expire(&mut world, FIRST + 4 * DAY);
    assert!(files(&world, "samples").is_empty());
    assert_eq!(world.store.series(&[], ALL).unwrap(), [labels(1)]);
}
