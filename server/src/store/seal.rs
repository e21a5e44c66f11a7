//! Heads into chunks. Each slice of series is one synced transaction per day; only then is it dropped from memory, so that a
//! failure or a crash in the middle leaves everything in the journals.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use rusqlite::{Transaction, params};

use super::chunk::{self, CHUNK_SAMPLES_MAX, Effort, EncodeError};
use super::compact::{MERGED_SAMPLES_MIN, merge_where_whole};
use super::days::{DayError, DayFile, chunk_keys, put_series, touch};
use super::engine::Store;
use super::head::{Day, Taken, day_of};
use super::index::{Series, SeriesId};
use super::journal::Position;
use super::maintain::MaintainError;
use crate::series::{Labels, Sample};

/// A head of this many samples is sealed; up to twice as many by the series' number, so that the fleet's series, which all began
/// at once, are not all sealed at once.
const SEAL_SAMPLES: usize = 120;
/// The same while memory is scarce: four times as many chunks to merge later, and a quarter of the samples in memory.
const SEAL_SAMPLES_TIGHT: usize = 30;
/// As many series with neighbouring numbers fall due together: their chunks share pages, and each page that is touched is written.
const DUE_TOGETHER: usize = 64;
/// Series sealed in one transaction per day.
pub const SLICE_SERIES: usize = 20_000;
/// Samples sealed at a time: bounds the copies in memory to 4 MiB, and still makes transactions that are worth their sync.
const SLICE_SAMPLES: usize = 1 << 18;
/// Small chunks of a series and day that are merged into one.
const MERGE_CHUNKS: i64 = 6;

impl Store {
    /// Seals all heads that are long enough or have a sample at or before a position.
    pub(super) fn seal(&self, force: Position, problems: &mut Vec<MaintainError>) {
        let is_tight = self.shared.memory_tight.load(Ordering::Relaxed);
        let samples = if is_tight { SEAL_SAMPLES_TIGHT } else { SEAL_SAMPLES };
        let due: Vec<Arc<Series>> = {
            let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
            let is_due = |series: &&Arc<Series>| {
                let head = series.head();
                head.len() >= samples + series.id as usize / DUE_TOGETHER % samples
                    || head.oldest_position().is_some_and(|oldest| oldest <= force)
            };
            index.iter().filter(is_due).cloned().collect()
        };
        let mut due = &due[..];
        while !due.is_empty() {
            let mut samples = 0;
            let mut is_within = |series: &Arc<Series>| {
                samples += series.head().len();
                samples <= SLICE_SAMPLES
            };
            let count = due.iter().take(SLICE_SERIES).take_while(|series| is_within(series)).count().max(1);
            let (slice, rest) = due.split_at(count);
            self.seal_slice(slice, problems);
            due = rest;
        }
        self.shared.days.close_writers();
    }

    /// Seals what the heads of some series hold; returns with nothing of it lost, also where it fails. Heads that the writer is
    /// at work on are left to the next pass.
    fn seal_slice(&self, slice: &[Arc<Series>], problems: &mut Vec<MaintainError>) {
        let applied = self.shared.applied();
        self.seal_taken(&take(slice, applied), problems);
    }

    /// As sealing does, and everything that was acknowledged before the call.
    pub(super) fn seal_all(&self, slice: &[Arc<Series>], problems: &mut Vec<MaintainError>) {
        // While the gate is held no record is half in the heads.
        let gate = self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = take(slice, Position::MAX);
        drop(gate);
        self.seal_taken(&taken, problems);
    }

    fn seal_taken(&self, taken: &[(&Arc<Series>, Taken)], problems: &mut Vec<MaintainError>) {
        let mut by_day: BTreeMap<Day, Vec<Sealing<'_>>> = BTreeMap::new();
        for (at, (series, taken)) in taken.iter().enumerate() {
            for samples in taken.samples.chunk_by(|a, b| day_of(a.t) == day_of(b.t)) {
                let sealing = Sealing { at, series, samples, through: taken.through };
                by_day.entry(day_of(samples[0].t)).or_default().push(sealing);
            }
        }
        let mut days: Vec<Vec<Day>> = vec![Vec::new(); taken.len()];
        let mut failed = vec![false; taken.len()];
        for (day, sealings) in by_day {
            let written = seal_day(&self.shared.days.get_or_create(day), &sealings);
            for sealing in &sealings {
                match &written {
                    Ok(()) => days[sealing.at].push(day),
                    Err(_) => failed[sealing.at] = true,
                }
            }
            problems.extend(written.err().map(Into::into));
        }
        for (at, (series, _)) in taken.iter().enumerate() {
            let mut head = series.head();
            if failed[at] {
                // Days that were written hold copies of what stays in memory; sealing again overrides them by the same values.
                for day in &days[at] {
                    head.add_day(*day);
                }
                head.not_sealed();
            } else {
                head.sealed(days[at].iter().copied());
            }
        }
    }
}

fn take(slice: &[Arc<Series>], applied: Position) -> Vec<(&Arc<Series>, Taken)> {
    slice.iter().filter_map(|series| Some((series, series.head().take(applied)?))).collect()
}

/// Samples of one series and one day that are being sealed.
struct Sealing<'a> {
    at: usize,
    series: &'a Series,
    samples: &'a [Sample],
    through: Position,
}

fn seal_day(file: &DayFile, sealings: &[Sealing<'_>]) -> Result<(), DayError> {
    file.write(|tx| {
        let undeclared: Vec<(SeriesId, &Labels)> = sealings
            .iter()
            .filter(|sealing| !sealing.series.head().days().contains(&file.day))
            .map(|sealing| (sealing.series.id, &sealing.series.labels))
            .collect();
        let head = || {
            if !undeclared.is_empty() {
                put_series(tx, &undeclared)?;
            }
            touch(tx)
        };
        head().map_err(|source| file.failed(source))?;
        for sealing in sealings {
            let count = put_chunks(file, tx, sealing.series.id, sealing.samples)?;
            tx.prepare_cached(
                "INSERT INTO sealed (series, through) VALUES (?1, ?2)
                 ON CONFLICT (series) DO UPDATE SET through = excluded.through",
            )
            .and_then(|mut statement| statement.execute(params![sealing.series.id as i64, sealing.through as i64]))
            .map_err(|source| file.failed(source))?;
            if count % MERGE_CHUNKS == 0 {
                merge_where_whole(file, tx, sealing.series.id)?;
            }
        }
        Ok(())
    })
}

/// Appends samples as chunks behind those of their series; returns how many the series has been given.
fn put_chunks(file: &DayFile, tx: &Transaction<'_>, id: SeriesId, samples: &[Sample]) -> Result<i64, DayError> {
    let failed = |source| file.failed(source);
    let (first, last) = chunk_keys(id);
    let newest: Option<i64> = tx
        .prepare_cached("SELECT max(key) FROM chunk WHERE key BETWEEN ?1 AND ?2")
        .and_then(|mut statement| statement.query_row([first, last], |row| row.get(0)))
        .map_err(failed)?;
    let mut key = newest.map_or(first, |newest| newest + 1);
    let mut insert = tx.prepare_cached("INSERT INTO chunk (key, body) VALUES (?1, ?2)").map_err(failed)?;
    for part in samples.chunks(CHUNK_SAMPLES_MAX) {
        let effort = if part.len() >= MERGED_SAMPLES_MIN { Effort::Best } else { Effort::Fast };
        let body = chunk::encode(part, effort).map_err(|error| encode_failed(file, error))?;
        insert.execute(params![key, body]).map_err(failed)?;
        key += 1;
    }
    Ok(key - first)
}

/// The codec's refusal as an error of a file.
pub fn encode_failed(file: &DayFile, error: EncodeError) -> DayError {
    file.failed(rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
