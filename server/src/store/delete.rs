//! Deletion of samples by matchers and time range. There are no tombstones: what memory holds of the series is sealed, then each
//! day's file drops the samples in a transaction of its own. Sealing notes how far the journals are in the file, so a replay brings
//! nothing back; what is accepted later has a later position and stays. Nothing is acknowledged before all days are synced.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use rusqlite::{Transaction, params};

use super::chunk::{self, Effort};
use super::days::{DayError, DayFile, chunk_keys, decode_series, put_series, touch};
use super::engine::Store;
use super::head::{DAY_MS, Day, day_of};
use super::index::{Series, SeriesId};
use super::maintain::{MaintainError, Maintenance};
use super::seal::{SLICE_SERIES, encode_failed};
use crate::query::source::TimeRange;
use crate::series::{Labels, Matcher};
use crate::telemetry;

/// Why samples were not deleted, or not all. Those of days that were done are gone; deleting again does the rest.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// A backup is being taken.
    #[error(
        "a backup is being taken, and what it copies must not change, so not all samples were deleted; delete again when it is done"
    )]
    Resting,
    /// What memory holds could not be brought to disk.
    #[error("samples in memory cannot be sealed, so not all were deleted; delete again")]
    Seal(#[source] MaintainError),
    /// A file could not be written.
    #[error("not all samples were deleted; delete again")]
    Day(#[from] DayError),
}

/// What a deletion did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Series that fulfil the matchers and had, or may have had, samples in the range.
    pub series: u64,
    /// Chunks that were dropped or cut.
    pub chunks: u64,
}

impl Store {
    /// Deletes the samples in a range of the series that fulfil any of the matcher lists. When it returns they are gone for
    /// good; samples accepted since it was called may stay. Their room on disk is given back by compaction. Blocks on disk, and
    /// keeps sealing waiting for one slice of series at a time.
    ///
    /// # Errors
    /// A file could not be written; some samples may be gone.
    pub fn delete(&self, any_of: &[Vec<Matcher>], range: TimeRange) -> Result<Deleted, DeleteError> {
        let found: BTreeMap<SeriesId, Arc<Series>> = {
            let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
            any_of.iter().flat_map(|matchers| index.select(matchers)).map(|series| (series.id, series)).collect()
        };
        let found: Vec<Arc<Series>> = found.into_values().filter(|series| series.head().may_have(range)).collect();
        let mut deleted = Deleted { series: found.len() as u64, chunks: 0 };
        for slice in found.chunks(SLICE_SERIES) {
            deleted.chunks += self.delete_slice(slice, range)?;
        }
        let maintenance = self.changing()?;
        let leaving: BTreeSet<Day> = maintenance.leaving.keys().copied().collect();
        self.delete_rolled(any_of, range, &leaving)?;
        telemetry::STORE_DELETIONS.inc();
        Ok(deleted)
    }

    fn delete_slice(&self, slice: &[Arc<Series>], range: TimeRange) -> Result<u64, DeleteError> {
        let mut maintenance = self.changing()?;
        let mut problems = Vec::new();
        self.seal_all(slice, &mut problems);
        if let Some(problem) = problems.pop() {
            return Err(DeleteError::Seal(problem));
        }
        let (from, to) = (day_of(range.from), day_of(range.to));
        let mut by_day: BTreeMap<Day, Vec<&Arc<Series>>> = BTreeMap::new();
        for series in slice {
            for day in series.head().days().iter().filter(|day| (from..=to).contains(day)) {
                by_day.entry(*day).or_default().push(series);
            }
        }
        let mut chunks = 0;
        for (day, members) in by_day {
            let Some(file) = self.shared.days.get(day) else { continue };
            let cut = cut_day(&file, &members, range)?;
            chunks += cut.chunks;
            for series in members.iter().filter(|series| cut.emptied.contains(&series.id)) {
                series.head().remove_day(day);
            }
        }
        maintenance.forget_due = true;
        Ok(chunks)
    }

    /// Maintenance's turn, to change samples; not while a backup is taken.
    fn changing(&self) -> Result<MutexGuard<'_, Maintenance>, DeleteError> {
        let maintenance = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        if maintenance.is_resting { Err(DeleteError::Resting) } else { Ok(maintenance) }
    }

    /// Compacts every day that was written to since it was compacted, and so gives back the room of what was deleted.
    ///
    /// # Errors
    /// A backup is being taken, or a file could not be rewritten; it stays as it was.
    pub fn compact_all(&self) -> Result<(), MaintainError> {
        for file in self.shared.days.all() {
            let maintenance = self.changing().map_err(|_| MaintainError::Resting)?;
            if !maintenance.leaving.contains_key(&file.day) {
                self.compact(&file)?;
            }
        }
        Ok(())
    }
}

/// What was taken out of a day's file.
struct Cut {
    chunks: u64,
    /// Series that have no chunk left there.
    emptied: BTreeSet<SeriesId>,
}

fn cut_day(file: &DayFile, members: &[&Arc<Series>], range: TimeRange) -> Result<Cut, DayError> {
    let begin = i64::from(file.day).saturating_mul(DAY_MS);
    let is_whole = range.from <= begin && range.to >= begin + DAY_MS - 1;
    file.write(|tx| {
        let failed = |source| file.failed(source);
        let mut cut = Cut { chunks: 0, emptied: BTreeSet::new() };
        for series in members {
            let (first, last) = chunk_keys(series.id);
            cut.chunks += if is_whole {
                tx.prepare_cached("DELETE FROM chunk WHERE key BETWEEN ?1 AND ?2")
                    .and_then(|mut delete| delete.execute([first, last]))
                    .map_err(failed)? as u64
            } else {
                cut_chunks(file, tx, series.id, range)?
            };
            let is_left: bool = tx
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM chunk WHERE key BETWEEN ?1 AND ?2)")
                .and_then(|mut exists| exists.query_row([first, last], |row| row.get(0)))
                .map_err(failed)?;
            if !is_left {
                cut.emptied.insert(series.id);
            }
        }
        unlist(file, tx, &cut.emptied)?;
        if cut.chunks > 0 {
            touch(tx).map_err(failed)?;
        }
        Ok(cut)
    })
}

/// Takes the range out of each chunk of a series. A chunk keeps its key, and so its place among those that it overrides.
fn cut_chunks(file: &DayFile, tx: &Transaction<'_>, id: SeriesId, range: TimeRange) -> Result<u64, DayError> {
    let failed = |source| file.failed(source);
    let (first, last) = chunk_keys(id);
    let mut touched = Vec::new();
    let mut statement = tx.prepare_cached("SELECT key, body FROM chunk WHERE key BETWEEN ?1 AND ?2").map_err(failed)?;
    let mut rows = statement.query([first, last]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let (key, body): (i64, Vec<u8>) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
        let damaged = |source| file.damaged("chunk", key, source);
        let (_, span) = chunk::span(&body).map_err(damaged)?;
        if span.from > range.to || span.to < range.from {
            continue;
        }
        let mut samples = chunk::decode(&body).map_err(damaged)?;
        let before = samples.len();
        samples.retain(|sample| sample.t < range.from || sample.t > range.to);
        if samples.len() < before {
            touched.push((key, samples));
        }
    }
    for (key, samples) in &touched {
        if samples.is_empty() {
            tx.execute("DELETE FROM chunk WHERE key = ?1", [key]).map_err(failed)?;
        } else {
            let body = chunk::encode(samples, Effort::Best).map_err(|error| encode_failed(file, error))?;
            tx.execute("UPDATE chunk SET body = ?2 WHERE key = ?1", params![key, body]).map_err(failed)?;
        }
    }
    Ok(touched.len() as u64)
}

/// Takes series off the file's lists, so that a start does not believe them to be here.
fn unlist(file: &DayFile, tx: &Transaction<'_>, gone: &BTreeSet<SeriesId>) -> Result<(), DayError> {
    if gone.is_empty() {
        return Ok(());
    }
    let failed = |source| file.failed(source);
    let mut statement = tx.prepare("SELECT block, body FROM series ORDER BY block").map_err(failed)?;
    let blocks: Vec<(i64, Vec<u8>)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect).map_err(failed)?;
    for (block, body) in blocks {
        let mut listed = Vec::new();
        decode_series(&body, &mut listed).map_err(|source| file.damaged("series", block, source))?;
        let left: Vec<(SeriesId, &Labels)> =
            listed.iter().filter(|(id, _)| !gone.contains(id)).map(|(id, labels)| (*id, labels)).collect();
        if left.len() == listed.len() {
            continue;
        }
        tx.execute("DELETE FROM series WHERE block = ?1", [block]).map_err(failed)?;
        if !left.is_empty() {
            put_series(tx, &left).map_err(failed)?;
        }
    }
    Ok(())
}
