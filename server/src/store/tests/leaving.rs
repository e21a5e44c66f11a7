//! Days that go while something is wrong: a step of the unlinking that fails, damage in their files. Nothing that was acknowledged may go
//! with them, and nothing wrong may keep the disk full.

use std::fs;
use std::path::PathBuf;

use rusqlite::Connection;

use super::rollups::{DAY, FIRST, expire, files, fill, kept_for, value};
use super::world::{ALL, World, labels, options};
use crate::query::source::{Source as _, View};
use crate::series::{Matcher, Sample, Timestamp};
use crate::store::{Batch, RefusedReason, StoreOptions};
use crate::telemetry;

const COUNT: &str = r#"count_over_time(m{n="2"}[1d])"#;
/// While the day is young enough to take samples.
const EARLY: Timestamp = FIRST + 2 * DAY;
/// When its retention is over.
const LATE: Timestamp = FIRST + 4 * DAY;

/// The reason for which a late sample of the day is refused.
fn refusal(world: &World, t: Timestamp) -> Option<RefusedReason> {
    let batch = Batch { series: vec![(labels(2), vec![Sample { t, v: 7.0 }])], ..Batch::default() };
    world.store.append_blocking(batch, EARLY).unwrap().refused.first().map(|refused| refused.reason)
}

fn count(world: &World) -> f64 {
    value(world, COUNT, FIRST + DAY - 1)
}

/// A day that is filled, compacted and, where rollups are kept, rolled up.
fn ready(options: StoreOptions) -> World {
    let world = World::new(options);
    fill(&world);
    assert!(world.store.flush().is_empty());
    assert!(world.store.maintain(EARLY).is_empty());
    assert_eq!((count(&world), files(&world, "samples").len()), (2_880.0, 1));
    world
}

fn path(world: &World, with: &str) -> PathBuf {
    world.dir.path().join(&files(world, with)[0])
}

/// The steps from the note that a day goes to the note that it is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin,
    Unlink,
    Close,
    Done,
}

impl Step {
    /// Makes the step fail; what is returned makes it work again.
    fn fail(self, world: &World) -> Box<dyn Fn(&World)> {
        let control = |sql: &str| world.store.control().write(|tx| tx.execute_batch(sql)).unwrap();
        match self {
            Step::Begin | Step::Done => {
                let event = if self == Step::Begin { "INSERT" } else { "UPDATE" };
                control(&format!(
                    "CREATE TRIGGER fails BEFORE {event} ON unlinked_day BEGIN SELECT RAISE(FAIL, 'disk'); END;"
                ));
                Box::new(|world| {
                    world.store.control().write(|tx| tx.execute_batch("DROP TRIGGER fails;")).unwrap();
                })
            }
            Step::Unlink | Step::Close => {
                let path = path(world, if self == Step::Unlink { "samples" } else { "rollup-5m" });
                let aside = path.with_extension("aside");
                fs::rename(&path, &aside).unwrap();
                fs::create_dir(&path).unwrap();
                Box::new(move |_| {
                    fs::remove_dir(&path).unwrap();
                    fs::rename(&aside, &path).unwrap();
                })
            }
        }
    }
}

#[test]
fn a_day_whose_unlinking_fails_takes_no_samples_until_it_is_gone() {
    for step in [Step::Begin, Step::Unlink, Step::Close, Step::Done] {
        let mut world = ready(kept_for(2));
        let heal = step.fail(&world);
        for _ in 0..3 {
            assert!(!world.store.maintain(LATE).is_empty(), "{step:?} does not fail");
            assert_eq!(refusal(&world, FIRST + 200), Some(RefusedReason::Closed), "{step:?}");
            if step != Step::Close {
                assert_eq!(count(&world), 2_880.0, "{step:?}: raw or rolled up, and never both");
            }
        }
        heal(&world);
        assert!(world.store.maintain(LATE).is_empty(), "{step:?}");
        for _ in 0..2 {
            assert_eq!((count(&world), files(&world, "samples").len()), (2_880.0, 0), "{step:?}");
            assert_eq!(refusal(&world, FIRST + 200), Some(RefusedReason::Closed), "{step:?}");
            world.crash();
        }
    }
}

#[test]
fn what_a_day_takes_after_its_unlinking_failed_stays() {
    for step in [Step::Begin, Step::Unlink, Step::Done] {
        let mut world = ready(StoreOptions { rollup_5m: None, rollup_1h: None, ..kept_for(2) });
        let heal = step.fail(&world);
        for n in 0..3 {
            assert!(!world.store.maintain(LATE).is_empty(), "{step:?} does not fail");
            assert_eq!(refusal(&world, FIRST + n), Some(RefusedReason::Closed), "{step:?}: {n}");
        }
        heal(&world);
        assert!(world.store.maintain(LATE).is_empty(), "{step:?}");
        assert_eq!(refusal(&world, FIRST + 200), None, "{step:?}");
        assert!(world.store.flush().is_empty());
        for _ in 0..2 {
            assert_eq!(count(&world), 1.0, "{step:?}");
            world.crash();
        }
    }
}

#[test]
fn a_day_that_cannot_be_unlinked_does_not_keep_the_others() {
    let world = World::new(StoreOptions { size_bytes_max: Some(1), rollup_5m: None, rollup_1h: None, ..kept_for(2) });
    for day in 0..3 {
        world.append_at(1, &[(FIRST + day * DAY, 1.0)], EARLY);
    }
    assert!(world.store.flush().is_empty());
    let _heal = Step::Unlink.fail(&world);
    // Its connections were closed by the flush, and what stands there now is no database.
    world.store.shared.days.close_idle();
    assert!(!world.store.maintain(EARLY + DAY).is_empty());
    assert_eq!(files(&world, "samples").len(), 2, "{:?}", files(&world, ""));
}

#[test]
fn a_deletion_reaches_a_day_that_is_leaving() {
    let mut world = ready(kept_for(2));
    let heal = Step::Begin.fail(&world);
    assert!(!world.store.maintain(LATE).is_empty());
    world.store.delete(&[vec![Matcher::equal("n", "2")]], ALL).unwrap();
    heal(&world);
    assert!(world.store.maintain(LATE).is_empty());
    world.crash();
    assert!(files(&world, "samples").is_empty());
    assert_eq!(world.store.series(&[], ALL).unwrap(), [labels(1)]);
}

#[test]
fn a_query_that_has_begun_sees_a_day_that_goes() {
    for view in [View::PLAIN, View::RECORDED] {
        let world = ready(kept_for(2));
        world.append_at(1, &[(EARLY, 1.0)], EARLY);
        assert!(world.store.flush().is_empty());
        let find = || world.store.find(&[Matcher::equal("__name__", "m")], ALL, view, u64::MAX).unwrap();
        let begun = find();
        assert!(world.store.maintain(LATE).is_empty());
        assert_eq!((files(&world, "samples").len(), begun.count()), (1, 2));
        let (late, after) = (begun.all().unwrap(), find());
        assert!(late == after.all().unwrap(), "as a query that begins now");
        assert_eq!((late.len(), begun.notes().len()), (2, 1));
    }
}

#[test]
fn a_query_reads_on_what_is_rolled_up_when_series_are_forgotten() {
    let world = World::new(StoreOptions { size_bytes_max: Some(1), ..options() });
    fill(&world);
    world.append_at(1, &[(FIRST + DAY, 1.0)], FIRST + DAY);
    let late = FIRST + DAY + DAY / 2;
    world.append_at(3, &[(late, 1.0)], late);
    assert!(world.store.flush().is_empty());
    let begun = world.store.find(&[], ALL, View::PLAIN, u64::MAX).unwrap();
    for _ in 0..3 {
        assert!(world.store.maintain(late).is_empty());
    }
    assert_eq!(files(&world, "samples").len(), 1, "{:?}", files(&world, ""));
    assert_eq!(world.store.stats().series, 2, "nothing in memory knows the second one");
    let read = begun.all().unwrap();
    let series: Vec<_> = read.iter().map(|one| &one.labels).collect();
    assert_eq!(series, [&labels(1), &labels(2), &labels(3)]);
    assert!(read[..2].iter().all(|one| one.samples.len() > 200), "of both days");
    assert!(read[0].samples.iter().any(|sample| sample.t == FIRST + DAY));
}

#[test]
fn a_day_that_was_about_to_go_takes_samples_while_a_backup_is_taken() {
    struct Looks<'a>(&'a World);
    impl std::io::Write for Looks<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            assert_eq!(refusal(self.0, FIRST + 300), None);
            assert!(telemetry::STORE_RESTING.get() > 0);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let world = ready(kept_for(2));
    let day = i32::try_from(FIRST / DAY).unwrap();
    world.store.maintenance.lock().unwrap().closing = Some(day);
    world.store.shared.close_days([day]);
    assert_eq!(refusal(&world, FIRST + 300), Some(RefusedReason::Closed));
    world.store.backup(EARLY, &mut std::io::BufWriter::new(Looks(&world))).unwrap();
}

/// Cuts the chunks of the first series short.
fn damage(world: &World) {
    let samples = Connection::open(path(world, "samples")).unwrap();
    let cut = "UPDATE chunk SET body = substr(body, 1, 12) WHERE key >> 20 = (SELECT min(key >> 20) FROM chunk)";
    assert!(samples.execute(cut, []).unwrap() > 0);
}

#[test]
fn damage_does_not_keep_a_day_for_ever() {
    let mut world = World::new(kept_for(2));
    fill(&world);
    assert!(world.store.flush().is_empty());
    damage(&world);
    assert!(!world.store.maintain(EARLY).is_empty(), "while it may be repaired it is said");
    assert_eq!(files(&world, "samples").len(), 1);
    let skipped = || telemetry::STORE_DAMAGE_SKIPPED.with_label_values(&["rollup"]).get();
    let before = skipped();
    expire(&mut world, LATE);
    assert!(skipped() > before);
    assert_eq!((count(&world), files(&world, "samples").len()), (2_880.0, 0));
    assert_eq!(world.store.series(&[], ALL).unwrap(), [labels(2)]);
}

#[test]
fn a_damaged_chunk_does_not_keep_others_from_being_sealed() {
    let mut world = World::new(options());
    let append = |world: &World, step: i64| {
        for n in [1, 2] {
            world.append_at(n, &[(FIRST + step * 1_000, step as f64)], FIRST + DAY);
        }
    };
    let seal = |world: &World| {
        let mut problems = Vec::new();
        world.store.seal(u64::MAX, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(world.store.stats().head_samples, 0, "all is sealed");
    };
    for step in 0..5 {
        append(&world, step);
        seal(&world);
    }
    damage(&world);
    append(&world, 5);
    seal(&world);
    assert!(world.store.flush().is_empty(), "nor the day from being compacted");
    world.crash();
    assert_eq!(count(&world), 6.0);
    let chunks: Connection = Connection::open(path(&world, "samples")).unwrap();
    let by_series = "SELECT group_concat(n) FROM (SELECT count(*) AS n FROM chunk GROUP BY key >> 20 ORDER BY key)";
    let counts: String = chunks.query_row(by_series, [], |row| row.get(0)).unwrap();
    assert_eq!(counts, "6,1", "what is damaged stays for a repair, what is whole is merged");
}

#[test]
fn rollups_stay_while_raw_samples_are_there() {
    let world = World::new(StoreOptions { size_bytes_max: Some(u64::MAX), ..options() });
    fill(&world);
    assert!(world.store.flush().is_empty());
    for _ in 0..4 {
        assert!(world.store.maintain(FIRST + 100 * DAY).is_empty());
        assert_eq!((files(&world, "rollup-5m").len(), files(&world, "samples").len()), (1, 1), "or built without end");
    }
}
