//! Maintenance, off the commit path: heads into chunks, small chunks into larger ones, journals and days unlinked. One pass
//! at a time; each step can fail and is tried again by the next pass, and nothing is dropped from memory before it is on disk.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Transaction, params};
use tracing::warn;

use super::chunk::{self, CHUNK_SAMPLES_MAX, Effort, EncodeError};
use super::days::{DayError, DayFile, chunk_keys, put_series};
use super::engine::{RetireError, Store, retire};
use super::head::{DAY_MS, Day, Taken, day_of, merge};
use super::index::{Series, SeriesId};
use super::journal::{self, Position};
use super::varint::DecodeError;
use crate::series::{Labels, Sample, Timestamp};

/// A head of this many samples is sealed; up to twice as many by the series' number, so that the fleet's series, which all began
/// at once, are not all sealed at once.
const SEAL_SAMPLES: usize = 120;
/// Series sealed in one transaction per day: bounds the copies in memory.
const SLICE_SERIES: usize = 20_000;
/// Small chunks of a series and day that are merged into one.
const MERGE_CHUNKS: i64 = 6;
/// A chunk of this many samples is merged no more: above it pco gains under 2 %.
const MERGED_SAMPLES_MIN: usize = 720;
/// Age at which a journal file is sealed whatever its heads hold: bounds the replay of a fleet that sends little.
const JOURNAL_AGE_MS_MAX: i64 = 2 * 3_600_000;
/// Age at which a journal file is ended, so that its age can be known.
const JOURNAL_OPEN_MS_MAX: i64 = 30 * 60_000;
/// One day's file is unlinked in this time at most, by the monotonic clock. In the ordinary way one a day is due; where many are due
/// at once the wall clock may have jumped, and this leaves hours to set it right before much is lost.
const EXPIRE_EVERY: Duration = Duration::from_secs(3600);
/// A day's file is compacted when the day has been over for this long: late samples mostly come within it.
const COMPACT_AFTER_MS: i64 = 2 * 3_600_000;

/// What passes of maintenance remember.
#[derive(Debug)]
pub struct Maintenance {
    /// When each journal file was first seen ended.
    ended: BTreeMap<u64, Timestamp>,
    active: (u64, Timestamp),
    /// When the last day's file was unlinked.
    expired: Option<Instant>,
}

impl Maintenance {
    /// Nothing seen yet.
    pub fn new(now: Timestamp) -> Maintenance {
        Maintenance { ended: BTreeMap::new(), active: (0, now), expired: None }
    }
}

/// Why a step of maintenance failed. It is tried again by the next pass.
#[derive(Debug, thiserror::Error)]
pub enum MaintainError {
    /// A samples file.
    #[error(transparent)]
    Day(#[from] DayError),
    /// A journal file.
    #[error(transparent)]
    Retire(#[from] RetireError),
    /// The directory or a file of an expired day.
    #[error("data directory cannot be maintained")]
    Directory(#[from] std::io::Error),
}

impl Store {
    /// One pass: seals what is due, unlinks journals whose samples are sealed and days that the retention ended, merges a day that
    /// is over. Blocks on disk; call it every few seconds from a thread that may block. Returns what failed.
    pub fn maintain(&self, now: Timestamp) -> Vec<MaintainError> {
        let mut maintenance = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems = Vec::new();
        self.shared.write_metadata();
        let force = self.force_position(&mut maintenance, now).unwrap_or_else(|error| {
            problems.push(error.into());
            0
        });
        self.seal(force, &mut problems);
        problems.extend(self.retire_journals().err());
        if maintenance.expired.is_none_or(|last| last.elapsed() >= EXPIRE_EVERY) {
            match self.expire_day(now) {
                Ok(true) => maintenance.expired = Some(Instant::now()),
                Ok(false) => {}
                Err(error) => problems.push(error),
            }
        }
        problems.extend(self.compact_one(now).err());
        for problem in &problems {
            warn!(error = problem as &dyn std::error::Error, "store maintenance is not done and will be tried again");
        }
        problems
    }

    /// Seals and compacts all there is and unlinks all journals. For measurements, backups and a slow, complete stop.
    pub fn flush(&self) -> Vec<MaintainError> {
        let _one = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems = Vec::new();
        self.shared.write_metadata();
        let before = self.shared.active_journal();
        self.rotate();
        self.seal(Position::MAX, &mut problems);
        // The writer ends its file when it comes to the message; a pass that is too early leaves one file to the next.
        for _ in 0..100 {
            if self.shared.active_journal() != before || !journal::path(&self.shared.dir, before).exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        self.seal(Position::MAX, &mut problems);
        problems.extend(self.retire_journals().err());
        for file in self.shared.days.all() {
            problems.extend(self.compact(&file).err().map(Into::into));
        }
        problems
    }

    /// The position up to which everything must be sealed now, because the journals are too many or too old.
    fn force_position(&self, maintenance: &mut Maintenance, now: Timestamp) -> std::io::Result<Position> {
        let active = self.shared.active_journal();
        if maintenance.active.0 != active {
            maintenance.active = (active, now);
        } else if now - maintenance.active.1 > JOURNAL_OPEN_MS_MAX {
            maintenance.active.1 = now;
            self.rotate();
        }
        let journals = journal::list(&self.shared.dir)?;
        maintenance.ended.retain(|number, _| journals.iter().any(|(listed, _)| listed == number));
        let mut force = 0;
        let mut bytes = 0;
        for (number, path) in journals.iter().rev() {
            bytes += super::sqlite::bytes(path);
            if *number >= active {
                continue;
            }
            let seen = *maintenance.ended.entry(*number).or_insert(now);
            if bytes > self.shared.options.journal_bytes_max || now - seen > JOURNAL_AGE_MS_MAX {
                force = force.max(journal::first_position(number + 1) - 1);
            }
        }
        Ok(force)
    }

    /// Seals all heads that are long enough or have a sample at or before a position.
    fn seal(&self, force: Position, problems: &mut Vec<MaintainError>) {
        let due: Vec<Arc<Series>> = {
            let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
            let is_due = |series: &&Arc<Series>| {
                let head = series.head();
                head.len() >= SEAL_SAMPLES + series.id as usize % SEAL_SAMPLES
                    || head.oldest_position().is_some_and(|oldest| oldest <= force)
            };
            index.iter().filter(is_due).cloned().collect()
        };
        for slice in due.chunks(SLICE_SERIES) {
            self.seal_slice(slice, problems);
        }
    }

    fn seal_slice(&self, slice: &[Arc<Series>], problems: &mut Vec<MaintainError>) {
        let taken: Vec<(&Arc<Series>, Taken)> =
            slice.iter().filter_map(|series| Some((series, series.head().take()?))).collect();
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

    /// Unlinks the oldest journals as long as nothing in memory needs them. Strictly in order: a later file's samples may
    /// override an earlier one's, and a replay of the earlier alone would bring back what was overridden.
    fn retire_journals(&self) -> Result<(), MaintainError> {
        let active = self.shared.active_journal();
        let journals = journal::list(&self.shared.dir)?;
        if journals.iter().all(|(number, _)| *number >= active) {
            return Ok(());
        }
        let needed = {
            let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
            index.iter().filter_map(|series| series.head().oldest_position()).min().unwrap_or(Position::MAX)
        };
        for (number, path) in journals {
            if number >= active || journal::file_of(needed) <= number {
                break;
            }
            retire(&self.shared, number, &path)?;
        }
        Ok(())
    }

    /// Unlinks the oldest day that lies before the retention, and forgets series that have nothing left; says whether there was one.
    fn expire_day(&self, now: Timestamp) -> Result<bool, MaintainError> {
        let Some(retention) = self.shared.options.retention else { return Ok(false) };
        let first = now - i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let over = |day: &Day| (i64::from(*day) + 1) * DAY_MS <= first;
        let Some(day) = self.shared.days.all().iter().map(|file| file.day).filter(over).min() else { return Ok(false) };
        self.shared.days.unlink(day)?;
        let _gate = self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<Arc<Series>> = index
            .iter()
            .filter(|series| {
                let mut head = series.head();
                head.remove_day(day);
                head.is_empty() && head.days().is_empty()
            })
            .cloned()
            .collect();
        for series in &gone {
            index.remove(series);
        }
        Ok(true)
    }

    /// Compacts the oldest day that is over and was written to since it was compacted.
    fn compact_one(&self, now: Timestamp) -> Result<(), MaintainError> {
        for file in self.shared.days.all() {
            let over = (i64::from(file.day) + 1) * DAY_MS + COMPACT_AFTER_MS < now;
            if over && !is_compacted(&file)? {
                self.compact(&file)?;
                break;
            }
        }
        Ok(())
    }

    /// Merges all small chunks of a day and gives the room back.
    fn compact(&self, file: &DayFile) -> Result<(), DayError> {
        if is_compacted(file)? {
            return Ok(());
        }
        let all = file.series()?;
        let unlinked = journal::list(&self.shared.dir).ok().and_then(|list| list.first().map(|(number, _)| *number));
        let floor = journal::first_position(unlinked.unwrap_or(self.shared.active_journal()));
        for slice in all.chunks(SLICE_SERIES) {
            file.write(|tx| {
                for (id, _) in slice {
                    merge_tail(file, tx, *id)?;
                }
                Ok(())
            })?;
        }
        file.write(|tx| {
            let series: BTreeMap<SeriesId, &Labels> = all.iter().map(|(id, labels)| (*id, labels)).collect();
            let listed: Vec<(SeriesId, &Labels)> = series.into_iter().collect();
            let rewrite = || {
                tx.execute("DELETE FROM series", [])?;
                for block in listed.chunks(SLICE_SERIES) {
                    put_series(tx, block)?;
                }
                // What was replayed from unlinked journals cannot be replayed again.
                tx.execute("DELETE FROM sealed WHERE through < ?1", [floor as i64])?;
                tx.execute("INSERT OR REPLACE INTO compacted (at) VALUES (1)", [])
            };
            rewrite().map(drop).map_err(|source| file.failed(source))
        })?;
        file.shrink()
    }
}

fn is_compacted(file: &DayFile) -> Result<bool, DayError> {
    file.read(|connection| {
        connection
            .query_row("SELECT EXISTS (SELECT 1 FROM compacted)", [], |row| row.get(0))
            .map_err(|source| file.failed(source))
    })
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
            tx.execute("DELETE FROM compacted", [])
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
                merge_tail(file, tx, sealing.series.id)?;
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

/// Merges the chunks of a series from the first small one on: all that were accepted after it are behind it, so that the order
/// in which equal times override each other stays.
fn merge_tail(file: &DayFile, tx: &Transaction<'_>, id: SeriesId) -> Result<(), DayError> {
    let failed = |source| file.failed(source);
    let damaged = |key, source: DecodeError| file.damaged("chunk", key, source);
    let (first, last) = chunk_keys(id);
    let mut statement =
        tx.prepare_cached("SELECT key, body FROM chunk WHERE key BETWEEN ?1 AND ?2 ORDER BY key").map_err(failed)?;
    let mut rows = statement.query([first, last]).map_err(failed)?;
    let mut tail = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let (key, body): (i64, Vec<u8>) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
        let (count, _) = chunk::span(&body).map_err(|source| damaged(key, source))?;
        if count < MERGED_SAMPLES_MIN || !tail.is_empty() {
            tail.push((key, body));
        }
    }
    let Some(&(begin, _)) = tail.first() else { return Ok(()) };
    if tail.len() < 2 {
        return Ok(());
    }
    let mut samples = Vec::new();
    for (key, body) in &tail {
        samples = merge(samples, &chunk::decode(body).map_err(|source| damaged(*key, source))?);
    }
    tx.prepare_cached("DELETE FROM chunk WHERE key BETWEEN ?1 AND ?2")
        .and_then(|mut delete| delete.execute([begin, last]))
        .map_err(failed)?;
    let mut insert = tx.prepare_cached("INSERT INTO chunk (key, body) VALUES (?1, ?2)").map_err(failed)?;
    for (key, part) in (begin..).zip(samples.chunks(CHUNK_SAMPLES_MAX)) {
        let body = chunk::encode(part, Effort::Best).map_err(|error| encode_failed(file, error))?;
        insert.execute(params![key, body]).map_err(failed)?;
    }
    Ok(())
}

fn encode_failed(file: &DayFile, error: EncodeError) -> DayError {
    file.failed(rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
