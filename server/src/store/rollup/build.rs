//! Rollups of a day from its raw samples: a slice of series at a time and only for a while in each pass, so that sealing does not
//! wait. The samples file notes where the building begins and when it is done; whoever changes its samples takes the note away, and
//! the day is built anew. So a day with the note has rollups of just these samples, wherever a crash came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::params;

use super::codec;
use super::file::{Built, RollupFile};
use super::row::{self, Row};
use super::{LEVELS, Level};
use crate::series::{Labels, Sample, Timestamp};
use crate::store::chunk;
use crate::store::compact::is_compacted;
use crate::store::days::{DayError, DayFile, OnDamage, chunk_keys};
use crate::store::engine::Store;
use crate::store::head::{DAY_MS, Day, merge};
use crate::store::index::SeriesId;
use crate::store::maintain::{MaintainError, Maintenance};
use crate::telemetry;

/// Longest time of building in one pass of maintenance.
const PASS: Duration = Duration::from_millis(500);
/// Series built in one transaction: about 6 MB of rows.
const SLICE_SERIES: usize = 2_000;

/// Rollups of a day are built when it has been over for this long: most late samples have come then.
const ROLL_AFTER_MS: i64 = 6 * 3_600_000;
/// The building of a day's rollups is begun once in this time at most, whatever late samples do, unless the day is to be unlinked.
const ROLL_EVERY: Duration = Duration::from_secs(3600);

/// A day that is being built.
#[derive(Debug)]
pub struct Rolling {
    day: Day,
    /// A file for each level, finest first.
    targets: Vec<Arc<RollupFile>>,
    /// Series of the day by name, and how many are done.
    series: Vec<(SeriesId, Labels)>,
    done: usize,
}

/// Where the building of a day stands, as its samples file notes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Note {
    Begun = 0,
    Done = 1,
}

impl Store {
    /// Whether the rollups of a day are those of its samples; so also where none are kept. The rollup files are asked, too: a level may
    /// have been switched on since, or a backup may have caught them half built.
    pub(in crate::store) fn is_rolled(&self, file: &DayFile) -> Result<bool, DayError> {
        let state = |level: Level| self.shared.rollups.get(level, file.day)?.state(file.day);
        let states: Vec<Option<Built>> = self.levels().into_iter().map(state).collect();
        if states.is_empty() || states.contains(&Some(Built::Closed)) {
            return Ok(true);
        }
        Ok(!states.contains(&None) && note(file)? == Some(Note::Done))
    }

    /// Levels that are kept.
    pub(in crate::store) fn levels(&self) -> Vec<Level> {
        LEVELS.into_iter().filter(|level| self.shared.options.rollup(*level).is_some()).collect()
    }

    /// Goes on with the day that is being built, or begins with another one; says whether it is done.
    pub(in crate::store) fn roll(
        &self,
        rolling: &mut Option<Rolling>,
        day: Day,
        on_damage: OnDamage,
    ) -> Result<bool, MaintainError> {
        let Some(file) = self.shared.days.get(day) else { return Ok(true) };
        let mut now = match rolling.take() {
            Some(now) if now.day == day && note(&file)? == Some(Note::Begun) => now,
            _ => self.begin_rolling(&file, on_damage)?,
        };
        let begun = Instant::now();
        while now.done < now.series.len() && begun.elapsed() < PASS {
            let slice = &now.series[now.done..now.series.len().min(now.done + SLICE_SERIES)];
            roll_slice((&file, on_damage), slice, &now.targets)?;
            now.done += slice.len();
        }
        if now.done < now.series.len() {
            *rolling = Some(now);
            return Ok(false);
        }
        for target in &now.targets {
            target.finish(day, Built::Open)?;
        }
        put_note(&file, Note::Done)?;
        telemetry::STORE_ROLLUP_BUILDS.with_label_values(&["done"]).inc();
        Ok(true)
    }

    /// Goes on building, or begins with a day that is due. What late samples spoilt is not begun again at once.
    pub(in crate::store) fn roll_one(
        &self,
        maintenance: &mut Maintenance,
        now: Timestamp,
    ) -> Result<(), MaintainError> {
        if self.levels().is_empty() {
            return Ok(());
        }
        if let Some(rolling) = &maintenance.rolling {
            let is_going_on = match self.shared.days.get(rolling.day) {
                Some(file) => note(&file)? == Some(Note::Begun),
                None => false,
            };
            if !is_going_on {
                maintenance.rolling = None;
                telemetry::STORE_ROLLUP_BUILDS.with_label_values(&["spoilt"]).inc();
            }
        }
        let day = match &maintenance.rolling {
            Some(rolling) => Some(rolling.day),
            None => self.day_to_roll(maintenance, now)?,
        };
        if let Some(day) = day {
            self.roll(&mut maintenance.rolling, day, OnDamage::Fail)?;
        }
        Ok(())
    }

    /// The oldest day that is over, compacted, and changed since its rollups were built, unless they were begun a moment ago.
    fn day_to_roll(&self, maintenance: &mut Maintenance, now: Timestamp) -> Result<Option<Day>, DayError> {
        maintenance.rolls.retain(|_, at| at.elapsed() < ROLL_EVERY);
        for file in self.shared.days.all() {
            let is_over = (i64::from(file.day) + 1) * DAY_MS + ROLL_AFTER_MS < now;
            let is_fresh = maintenance.rolls.contains_key(&file.day);
            let is_leaving = maintenance.leaving.contains_key(&file.day);
            if is_over && !is_fresh && !is_leaving && is_compacted(&file)? && !self.is_rolled(&file)? {
                maintenance.rolls.insert(file.day, Instant::now());
                return Ok(Some(file.day));
            }
        }
        Ok(None)
    }

    /// Begins to build a day anew.
    pub(in crate::store) fn begin_rolling(&self, file: &DayFile, on_damage: OnDamage) -> Result<Rolling, DayError> {
        let begin = |level| self.shared.rollups.begin(level, file.day);
        let targets = self.levels().into_iter().map(begin).collect::<Result<_, _>>()?;
        put_note(file, Note::Begun)?;
        let mut series = file.listed(on_damage)?;
        series.sort_by(|a, b| a.1.name().cmp(b.1.name()).then(a.0.cmp(&b.0)));
        series.dedup_by_key(|(id, _)| *id);
        telemetry::STORE_ROLLUP_BUILDS.with_label_values(&["begun"]).inc();
        Ok(Rolling { day: file.day, targets, series, done: 0 })
    }
}

/// Builds the rows of some series, all of those of a metric next to each other.
fn roll_slice(
    (file, on_damage): (&DayFile, OnDamage),
    slice: &[(SeriesId, Labels)],
    targets: &[Arc<RollupFile>],
) -> Result<(), DayError> {
    let mut bodies: Vec<Vec<Vec<u8>>> = vec![Vec::with_capacity(slice.len()); targets.len()];
    for (id, _) in slice {
        let samples = match raw(file, *id) {
            Err(error) if on_damage == OnDamage::Skip && error.is_damage_of(&file.path) => {
                file.skip_damage("rollup", &error);
                Vec::new()
            }
            samples => samples?,
        };
        let mut rows: Vec<Row> = Vec::new();
        for (at, target) in targets.iter().enumerate() {
            let step_ms = target.level.step_ms();
            rows = if at == 0 { row::from_samples(&samples, step_ms) } else { row::from_rows(&rows, step_ms) };
            let refused = |error| file.failed(rusqlite::Error::ToSqlConversionFailure(Box::new(error)));
            bodies[at].push(if rows.is_empty() { Vec::new() } else { codec::encode(&rows).map_err(refused)? });
        }
    }
    for (target, bodies) in targets.iter().zip(&bodies) {
        target.write(|tx| {
            let mut at = 0;
            for metric in slice.chunk_by(|a, b| a.1.name() == b.1.name()) {
                // A series that a deletion left nothing of is not listed.
                let with_rows = || (at..).zip(metric).filter(|(at, _)| !bodies[*at].is_empty());
                let all: Vec<&Labels> = with_rows().map(|(_, (_, labels))| labels).collect();
                if let Some(first) = all.first() {
                    let numbers = target.number(tx, first.name(), &all)?;
                    for (number, (at, _)) in numbers.into_iter().zip(with_rows()) {
                        tx.prepare_cached("INSERT OR REPLACE INTO rollup (key, body) VALUES (?1, ?2)")
                            .and_then(|mut put| put.execute(params![target.key(number, file.day), bodies[at]]))
                            .map_err(|source| target.failed(source))?;
                    }
                }
                at += metric.len();
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// All samples of a series and day, as a query would see them.
fn raw(file: &DayFile, id: SeriesId) -> Result<Vec<Sample>, DayError> {
    file.read(|connection| {
        let failed = |source| file.failed(source);
        let (first, last) = chunk_keys(id);
        let mut statement = connection
            .prepare_cached("SELECT key, body FROM chunk WHERE key BETWEEN ?1 AND ?2 ORDER BY key")
            .map_err(failed)?;
        let mut rows = statement.query([first, last]).map_err(failed)?;
        let mut samples = Vec::new();
        while let Some(row) = rows.next().map_err(failed)? {
            let key: i64 = row.get(0).map_err(failed)?;
            let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(failed)?;
            let decoded = chunk::decode(body).map_err(|source| file.damaged("chunk", key, source))?;
            samples = merge(samples, &decoded);
        }
        Ok(samples)
    })
}

fn note(file: &DayFile) -> Result<Option<Note>, DayError> {
    file.read(|connection| {
        let read = || {
            // A file of an older version has no such table until it is written to.
            let has_table: bool = connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'rolled')",
                [],
                |row| row.get(0),
            )?;
            if !has_table {
                return Ok(None);
            }
            connection.query_row("SELECT max(done) FROM rolled", [], |row| row.get::<_, Option<i64>>(0))
        };
        let done = read().map_err(|source| file.failed(source))?;
        Ok(done.map(|done| if done == Note::Done as i64 { Note::Done } else { Note::Begun }))
    })
}

fn put_note(file: &DayFile, note: Note) -> Result<(), DayError> {
    file.write(|tx| {
        tx.execute("DELETE FROM rolled", [])
            .and_then(|_| tx.execute("INSERT INTO rolled (done) VALUES (?1)", [note as i64]))
            .map(drop)
            .map_err(|source| file.failed(source))
    })
}
