//! Rollups in answers to queries: only of days whose raw samples are gone, the finest that there is, with a note that says so. And
//! deletion from them: a row goes with any part of its time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::DateTime;
use rusqlite::{Connection, params};

use super::codec;
use super::file::{Number, RollupFile};
use super::row::Row;
use super::view::Drawing;
use crate::query::source::{Note, SelectError, TimeRange, View};
use crate::series::{Labels, Matcher, Sample};
use crate::store::days::DayError;
use crate::store::engine::Store;
use crate::store::head::{DAY_MS, Day, day_of, merge};

/// A file with its days that a query reads.
type Part = (Arc<RollupFile>, BTreeSet<Day>);

/// What rollups know of the series that a query asks for.
#[derive(Debug, Default)]
pub struct Rolled {
    series: HashMap<Labels, Vec<Sample>>,
    /// What the asker must know of it.
    pub notes: Vec<Note>,
}

impl Rolled {
    /// Samples held.
    pub fn samples(&self) -> u64 {
        self.series.values().map(|samples| samples.len() as u64).sum()
    }

    /// The series that the store has no other samples of, sorted.
    pub fn alone(&self, is_known: impl Fn(&Labels) -> bool) -> Vec<Labels> {
        let mut alone: Vec<Labels> = self.series.keys().filter(|labels| !is_known(labels)).cloned().collect();
        alone.sort_unstable();
        alone
    }

    /// The samples of a series before its raw ones.
    pub fn join(&self, labels: &Labels, raw: Vec<Sample>) -> Vec<Sample> {
        match self.series.get(labels) {
            // Raw ones win; they are older only where old samples were taken in late.
            Some(rolled) => merge(rolled.clone(), &raw),
            None => raw,
        }
    }
}

impl Store {
    /// What rollups know of a range but for days whose raw samples are read, drawn for a view.
    pub(in crate::store) fn rolled(
        &self,
        matchers: &[Matcher],
        (range, raw): (TimeRange, &BTreeSet<Day>),
        view: View,
        samples_max: u64,
    ) -> Result<Rolled, SelectError> {
        let parts = self.parts(range, raw);
        let mut drawings: HashMap<Labels, Drawing> = HashMap::new();
        let mut left = samples_max;
        for part in &parts {
            let drawn = draw_part(part, matchers, view, &mut drawings, &mut left);
            if !drawn.map_err(|error| SelectError::Read(Box::new(error)))? {
                return Err(SelectError::TooManySamples { samples_max });
            }
        }
        let mut rolled = Rolled::default();
        for (labels, drawing) in drawings {
            let samples = within(&drawing.samples, range);
            if !samples.is_empty() {
                rolled.series.insert(labels, samples.to_vec());
            }
        }
        if !rolled.series.is_empty() {
            rolled.notes = notes_of(&parts, range);
        }
        Ok(rolled)
    }

    /// Adds the label sets of series that only rollups know in a range.
    pub(in crate::store) fn add_rolled_series(
        &self,
        any_of: &[Vec<Matcher>],
        range: TimeRange,
        labels: Vec<Labels>,
    ) -> Result<Vec<Labels>, SelectError> {
        let days = self.shared.rollups.coarsest(day_of(range.from), day_of(range.to));
        let files: BTreeMap<_, Arc<RollupFile>> = days
            .into_iter()
            .filter(|(day, file)| file.is_closed(*day) || self.shared.days.readable(*day).is_none())
            .map(|(_, file)| ((file.level, file.first), file))
            .collect();
        if files.is_empty() {
            return Ok(labels);
        }
        let everything = [Vec::new()];
        let any_of = if any_of.is_empty() { &everything[..] } else { any_of };
        let mut all: BTreeSet<Labels> = labels.into_iter().collect();
        for file in files.into_values() {
            let found = file.read(|connection| file.matching(connection, any_of));
            let found = found.map_err(|error| SelectError::Read(Box::new(error)))?;
            all.extend(found.into_iter().map(|(_, labels)| labels));
        }
        Ok(all.into_iter().collect())
    }

    /// Days of a range that only rollups have, by file and in the order of time.
    fn parts(&self, range: TimeRange, raw: &BTreeSet<Day>) -> Vec<Part> {
        let mut parts: Vec<Part> = Vec::new();
        for (day, file) in self.shared.rollups.finest(day_of(range.from), day_of(range.to)) {
            if !file.is_closed(day) && raw.contains(&day) {
                continue;
            }
            match parts.last_mut() {
                Some((last, days)) if Arc::ptr_eq(last, &file) => {
                    days.insert(day);
                }
                _ => parts.push((file, BTreeSet::from([day]))),
            }
        }
        parts
    }

    /// Deletes rows of which a part of their time lies in a range, of days that only rollups have. Days with raw samples are left:
    /// where the deletion cut any of them the day is built anew, and where it cut none its rows are right. Days that are leaving are
    /// built no more.
    pub(in crate::store) fn delete_rolled(
        &self,
        any_of: &[Vec<Matcher>],
        range: TimeRange,
        leaving: &BTreeSet<Day>,
    ) -> Result<(), DayError> {
        let (from, to) = (day_of(range.from), day_of(range.to));
        for file in self.shared.rollups.all() {
            if file.first > to || file.level.file_end(file.first) <= from {
                continue;
            }
            file.write(|tx| {
                let mut gone = Vec::new();
                for (number, labels) in file.matching(tx, any_of)? {
                    let is_raw =
                        |day| !file.is_closed(day) && !leaving.contains(&day) && self.shared.days.get(day).is_some();
                    if !cut(&file, tx, (number, range), is_raw)? {
                        gone.push((number, labels));
                    }
                }
                file.unlist(tx, &gone)
            })?;
        }
        Ok(())
    }
}

/// The part of sorted samples that lies in a range.
fn within(samples: &[Sample], range: TimeRange) -> &[Sample] {
    let from = samples.partition_point(|sample| sample.t < range.from);
    let to = samples.partition_point(|sample| sample.t <= range.to);
    samples.get(from..to).unwrap_or(&[])
}

/// The rows of a series by day, of some days.
fn rows_of(
    file: &RollupFile,
    connection: &Connection,
    number: Number,
    (from, to): (Day, Day),
) -> Result<Vec<(i64, Vec<Row>)>, DayError> {
    let failed = |source| file.failed(source);
    let mut statement = connection
        .prepare_cached("SELECT key, body FROM rollup WHERE key BETWEEN ?1 AND ?2 ORDER BY key")
        .map_err(failed)?;
    let mut rows = statement.query([file.key(number, from), file.key(number, to)]).map_err(failed)?;
    let mut all = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let key: i64 = row.get(0).map_err(failed)?;
        let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(failed)?;
        all.push((key, codec::decode(body).map_err(|source| file.damaged("rollup", key, source))?));
    }
    Ok(all)
}

/// Draws the rows of one part; says whether the limit allows it.
fn draw_part(
    (file, days): &Part,
    matchers: &[Matcher],
    view: View,
    drawings: &mut HashMap<Labels, Drawing>,
    left: &mut u64,
) -> Result<bool, DayError> {
    let (Some(from), Some(to)) = (days.first(), days.last()) else { return Ok(true) };
    let step_ms = file.level.step_ms();
    file.read(|connection| {
        for (number, labels) in file.matching(connection, &[matchers.to_vec()])? {
            let drawing = drawings.entry(labels).or_insert_with(|| Drawing::new(view));
            let before = drawing.samples.len();
            for (key, rows) in rows_of(file, connection, number, (*from, *to))? {
                if days.contains(&file.day(key)) {
                    for row in rows {
                        drawing.push(row, step_ms);
                    }
                }
            }
            match left.checked_sub((drawing.samples.len() - before) as u64) {
                Some(fewer) => *left = fewer,
                None => return Ok(false),
            }
        }
        Ok(true)
    })
}

fn notes_of(parts: &[Part], range: TimeRange) -> Vec<Note> {
    let runs = parts.chunk_by(|a, b| a.0.level == b.0.level);
    let of_run = |run: &[Part]| {
        let (first, last) = (run.first()?, run.last()?);
        let from = (i64::from(*first.1.first()?) * DAY_MS).max(range.from);
        let to = ((i64::from(*last.1.last()?) + 1) * DAY_MS).min(range.to);
        let word = if first.0.level.step_ms() < 3_600_000 { "5-minute" } else { "hourly" };
        let text = |t| DateTime::from_timestamp_millis(t).map_or(String::new(), |t| t.format("%FT%TZ").to_string());
        let (from, to) = (text(from), text(to));
        Some(Note::Info(format!(
            "samples of {from} to {to} come from {word} rollups, the raw ones are gone: values between rows are estimates"
        )))
    };
    runs.filter_map(of_run).collect()
}

/// Cuts rows out of a series, but for days to be left alone; says whether it has any left.
fn cut(
    file: &RollupFile,
    tx: &rusqlite::Transaction<'_>,
    (number, range): (Number, TimeRange),
    is_left_alone: impl Fn(Day) -> bool,
) -> Result<bool, DayError> {
    let failed = |source| file.failed(source);
    let step_ms = file.level.step_ms();
    let mut is_left = false;
    for (key, mut rows) in rows_of(file, tx, number, (file.first, file.level.file_end(file.first) - 1))? {
        if is_left_alone(file.day(key)) {
            is_left = true;
            continue;
        }
        let before = rows.len();
        rows.retain(|row| row.start > range.to || row.start.saturating_add(step_ms) <= range.from);
        is_left |= !rows.is_empty();
        if rows.is_empty() {
            tx.execute("DELETE FROM rollup WHERE key = ?1", [key]).map_err(failed)?;
        } else if rows.len() < before {
            let refused = |error| failed(rusqlite::Error::ToSqlConversionFailure(Box::new(error)));
            let body = codec::encode(&rows).map_err(refused)?;
            tx.execute("UPDATE rollup SET body = ?2 WHERE key = ?1", params![key, body]).map_err(failed)?;
        }
    }
    Ok(is_left)
}
