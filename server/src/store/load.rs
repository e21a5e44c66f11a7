//! The start: the index and the heads, put together from the files of a data directory. One thread reads and decodes the journals
//! while another puts what they hold into the heads. It must leave out what is sealed, and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use rusqlite::OptionalExtension as _;

use super::engine::OpenStoreError;
use super::head::{Day, day_of};
use super::index::{Index, SeriesId};
use super::journal::{self, Position, ReplayError};
use super::marks::{self, HighMarks};
use super::record::Record;
use super::shared::Shared;
use super::{Mark, backup, sqlite, unlinked, wal};
use crate::series::Sample;

/// Records that wait between the two threads: enough that neither stands still while the other meets a large one.
const RECORDS_WAITING: usize = 8;
/// Series that are looked up before the first of their heads is locked: a lock holds back every read behind it, so without
/// this each sample would wait for main memory alone.
const LOOKED_UP: usize = 64;

/// What journals have and must not be replayed.
#[derive(Default)]
struct Sealed {
    /// How far each series is sealed in each day.
    through: HashMap<(SeriesId, Day), Position, foldhash::quality::RandomState>,
    /// How far days were sealed that the retention took since.
    unlinked: BTreeMap<Day, Position>,
}

impl Sealed {
    fn has(&self, id: SeriesId, day: Day, position: Position) -> bool {
        self.through.get(&(id, day)).is_some_and(|through| position <= *through)
            || self.unlinked.get(&day).is_some_and(|through| position <= *through)
    }
}

/// Refuses logs of which SQLite would silently drop what was acknowledged.
pub fn check_logs(dir: &Path) -> Result<(), OpenStoreError> {
    let unusable = |source| OpenStoreError::Directory { dir: dir.to_owned(), source };
    for path in backup::databases(dir).map_err(unusable)? {
        let found = wal::check(&sqlite::files(&path)[1]).map_err(unusable)?;
        if found.is_damaged() {
            let frame = found.broken_at.unwrap_or(0);
            return Err(OpenStoreError::DamagedLog { path, frame, commits: found.commits_after });
        }
    }
    Ok(())
}

/// Puts the series of all samples files into the index.
pub fn days(shared: &Shared) -> Result<(), OpenStoreError> {
    let mut index = shared.index.write().unwrap_or_else(PoisonError::into_inner);
    for file in shared.days.all() {
        for (id, labels) in file.series()? {
            let series = index
                .restore(id, &labels)
                .ok_or_else(|| OpenStoreError::SeriesConflict { path: file.path.clone(), id })?;
            series.head().add_day(file.day);
        }
    }
    Ok(())
}

/// Puts back into the heads what is in the journals and not in the samples files; returns the marks of all files.
pub fn journals(shared: &Shared, journals: &[(u64, PathBuf)]) -> Result<HighMarks, OpenStoreError> {
    let floor: Option<i64> =
        shared.control.read(|c| c.query_row("SELECT number FROM journal_floor", [], |row| row.get(0)).optional())?;
    let sealed_last = floor.unwrap_or(0) as u64;
    shared.journal_sealed.store(sealed_last, Ordering::SeqCst);
    let mut number_last = sealed_last;
    let mut sealed = Sealed { unlinked: unlinked::replayed_through(&shared.control)?, ..Sealed::default() };
    let oldest = journals.first().map_or(i64::MAX as u64, |(number, _)| journal::first_position(*number));
    for file in shared.days.all() {
        // Also where `control.db` was restored from an older backup: positions must go on above all that were sealed.
        number_last = number_last.max(journal::file_of(file.sealed_last()?));
        for (id, through) in file.sealed(oldest)? {
            sealed.through.insert((id, file.day), through);
        }
    }
    let mut marks = HighMarks::default();
    shared.control.read(marks::load)?.iter().for_each(|mark| marks.raise(mark));
    let replayed: Vec<&(u64, PathBuf)> = journals.iter().filter(|(number, _)| *number > sealed_last).collect();
    for mark in &replay(shared, &sealed, &replayed)? {
        marks.raise(mark);
    }
    number_last = replayed.last().map_or(number_last, |(number, _)| number_last.max(*number));
    shared.set_active_journal(number_last + 1);
    Ok(marks)
}

/// Applies the records of journal files in order, while a second thread decodes those that come next; returns the files' marks.
fn replay(shared: &Shared, sealed: &Sealed, files: &[&(u64, PathBuf)]) -> Result<Vec<Mark>, OpenStoreError> {
    let (ready, records) = sync_channel(RECORDS_WAITING);
    // Never more than those that wait, the one that is decoded and the one that is applied.
    let (done, spare) = channel();
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new()
            .name("store-replay".to_owned())
            .spawn_scoped(scope, move || read(files, &spare, &ready))
            .map_err(|source| OpenStoreError::Directory { dir: shared.dir.clone(), source })?;
        let mut conflict = None;
        for (position, record) in records {
            if let Err(id) = apply(shared, sealed, position, &record) {
                conflict = Some((position, id));
                break;
            }
            // A reader that has come to its end needs none.
            let _ = done.send(record);
        }
        let marks = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if let Some((position, id)) = conflict {
            let path = journal::path(&shared.dir, journal::file_of(position));
            return Err(OpenStoreError::SeriesConflict { path, id });
        }
        Ok(marks?)
    })
}

/// Decodes all records of the files in turn and passes them on.
fn read(
    files: &[&(u64, PathBuf)],
    spare: &Receiver<Record>,
    ready: &SyncSender<(Position, Record)>,
) -> Result<Vec<Mark>, ReplayError> {
    let mut marks = Vec::new();
    for (_, path) in files {
        let of_file = journal::replay(
            path,
            || spare.try_recv().unwrap_or_default(),
            |position, record| {
                // Whoever applies them stopped at a conflict and will say so.
                let _ = ready.send((position, record));
            },
        )?;
        marks.extend(of_file);
    }
    Ok(marks)
}

/// Applies one record.
///
/// # Errors
/// The number of a series that cannot be.
fn apply(shared: &Shared, sealed: &Sealed, position: Position, record: &Record) -> Result<(), SeriesId> {
    if !record.declared.is_empty() {
        let mut index = shared.index.write().unwrap_or_else(PoisonError::into_inner);
        for (id, labels) in &record.declared {
            index.restore(*id, labels).ok_or(*id)?.declare_in(journal::file_of(position));
        }
    }
    let index = shared.index.read().unwrap_or_else(PoisonError::into_inner);
    for samples in record.samples.chunks(LOOKED_UP) {
        insert(&index, sealed, position, samples)?;
    }
    Ok(())
}

fn insert(index: &Index, sealed: &Sealed, position: Position, samples: &[(SeriesId, Sample)]) -> Result<(), SeriesId> {
    let mut numbers = index.numbers();
    let mut found = Vec::with_capacity(LOOKED_UP);
    for (id, _) in samples {
        let series = numbers.get(*id).ok_or(*id)?;
        series.declare_in(journal::file_of(position));
        found.push(series);
    }
    for (series, (id, sample)) in found.into_iter().zip(samples) {
        if !sealed.has(*id, day_of(sample.t), position) {
            series.head().insert(*sample, position);
        }
    }
    Ok(())
}
