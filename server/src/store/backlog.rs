//! The journals as a durable queue: every committed record in order, for one reader that keeps its own place and sends them on.
//! Files from that place on stay although their samples are sealed. It changes nothing in a journal and never delays a commit.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

pub use super::journal::{Position, ReplayError};

use super::engine::Store;
use super::index::SeriesId;
use super::journal;
use super::record::{self, RecordSeries};
use super::shared::Shared;
use super::sqlite;
use crate::series::{Labels, Sample, Timestamp};

/// One group commit, with labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Its place; later commits have higher ones.
    pub position: Position,
    /// Samples in the order in which they were accepted; a series may come more than once.
    pub series: Vec<(Labels, Vec<Sample>)>,
}

/// Reads committed records in order.
pub struct Backlog {
    shared: Arc<Shared>,
    /// The record that was read last.
    position: Position,
    file: Option<OpenFile>,
}

struct OpenFile {
    number: u64,
    path: PathBuf,
    connection: Connection,
    /// Series that the file has declared so far.
    declared: HashMap<SeriesId, Labels>,
}

impl Store {
    /// The records after `after`, or all that are still in journals. From now on journals with records after the place last given to
    /// [`Backlog::release`] stay on disk; call it before the first [`Store::maintain`], or they may be gone.
    pub fn backlog(&self, after: Option<Position>) -> Backlog {
        let position = after.unwrap_or(0);
        let backlog = Backlog { shared: Arc::clone(&self.shared), position, file: None };
        backlog.release(position);
        backlog
    }

    /// The instant from which on nothing was unlinked: what was accepted and is younger is still here.
    pub fn kept_from(&self, now: Timestamp) -> Timestamp {
        let retention = self.options().retention.map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX));
        let by_age = retention.map_or(Timestamp::MIN, |retention| now.saturating_sub(retention));
        by_age.max(self.shared.unlinked_before.load(Ordering::SeqCst))
    }
}

impl Backlog {
    /// The next record; `None` while there is none. Blocks on disk.
    ///
    /// # Errors
    /// A file cannot be read: the next call tries again. Or a record is damaged: the next call goes on behind it.
    pub fn read(&mut self) -> Result<Option<Record>, ReplayError> {
        loop {
            // Before reading: once a later file is active, this one gets no more records.
            let active = self.shared.active_journal();
            if self.file.is_none() && !self.open()? {
                return Ok(None);
            }
            let Some(file) = &mut self.file else { return Ok(None) };
            let number = file.number;
            let row = self.position.saturating_sub(journal::first_position(number));
            match file.next(row)? {
                Some((row, decoded)) => {
                    self.position = journal::first_position(number) + row;
                    let series = decoded?;
                    return Ok(Some(Record { position: self.position, series }));
                }
                None if active > number => {
                    self.position = self.position.max(journal::first_position(number + 1) - 1);
                    self.file = None;
                }
                None => return Ok(None),
            }
        }
    }

    /// Journals whose records all lie at or before `through` need not stay for this reader.
    pub fn release(&self, through: Position) {
        self.shared.journal_kept.store(journal::file_of(through + 1), Ordering::SeqCst);
    }

    /// The record that was read or given up last.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Bytes of the journal files from that of the next record on.
    pub fn bytes(&self) -> u64 {
        self.files().iter().map(|(_, path)| sqlite::bytes(path)).sum()
    }

    /// The journal files from that of the next record on.
    fn files(&self) -> Vec<(u64, PathBuf)> {
        let first = journal::file_of(self.position + 1);
        // A folder that cannot be listed now is listed at the next call; the commits tell of a broken disk.
        let mut journals = journal::list(&self.shared.dir).unwrap_or_default();
        journals.retain(|(number, _)| *number >= first);
        journals
    }

    /// Whether the file that is being read is complete, so that giving it up gives room.
    pub fn is_behind(&self) -> bool {
        let active = self.shared.active_journal();
        self.files().first().is_some_and(|(number, _)| *number < active)
    }

    /// Gives up the rest of the file that is being read; returns how many samples that are.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn drop_file(&mut self) -> Result<u64, ReplayError> {
        let Some(number) = (match &self.file {
            Some(file) => Some(file.number),
            None => self.open()?.then(|| self.file.as_ref().map(|file| file.number)).flatten(),
        }) else {
            return Ok(0);
        };
        let mut dropped = 0;
        while self.file.as_ref().is_some_and(|file| file.number == number) {
            match self.read() {
                Ok(Some(record)) if journal::file_of(record.position) == number => {
                    dropped += record.series.iter().map(|(_, samples)| samples.len() as u64).sum::<u64>();
                }
                Ok(Some(record)) => {
                    // The first of the next file; it is read again.
                    self.position = record.position - 1;
                    self.file = None;
                }
                Ok(None) => break,
                Err(ReplayError::Record { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(dropped)
    }

    /// Opens the file of the next record, with the series it declared before that; says whether there is one.
    fn open(&mut self) -> Result<bool, ReplayError> {
        let Some((number, path)) = self.files().into_iter().next() else { return Ok(false) };
        let failed = |source| ReplayError::Read { path: path.clone(), source };
        // For writing, because a crash can leave a log that SQLite first has to recover; never to create.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags).map_err(failed)?;
        sqlite::never_checkpoint(&connection).map_err(failed)?;
        if !journal::has_records(&connection).map_err(failed)? {
            // It is being made, or a crash came between making it and its first commit.
            if number < self.shared.active_journal() {
                self.position = journal::first_position(number + 1) - 1;
            }
            return Ok(false);
        }
        let mut file = OpenFile { number, path, connection, declared: HashMap::new() };
        let read = self.position.saturating_sub(journal::first_position(number));
        let mut row = 0;
        while row < read {
            match file.next(row)? {
                Some((next, _)) if next <= read => row = next,
                _ => break,
            }
        }
        self.position = self.position.max(journal::first_position(number));
        self.file = Some(file);
        Ok(true)
    }
}

/// A row and what it says, or that it is damaged.
type Row = (u64, Result<Vec<(Labels, Vec<Sample>)>, ReplayError>);

impl OpenFile {
    /// The first record behind `row`.
    fn next(&mut self, row: u64) -> Result<Option<Row>, ReplayError> {
        let found = self
            .connection
            .prepare_cached("SELECT row, body FROM record WHERE row > ?1 ORDER BY row LIMIT 1")
            .and_then(|mut statement| {
                statement
                    .query_row([row as i64], |columns| {
                        Ok((columns.get::<_, i64>(0)?, record::decode(columns.get_ref(1)?.as_blob()?)))
                    })
                    .optional()
            });
        let found = found.map_err(|source| ReplayError::Read { path: self.path.clone(), source })?;
        let Some((row, decoded)) = found else { return Ok(None) };
        let series = match decoded {
            Ok(decoded) => Ok(self.named(decoded)),
            Err(source) => Err(ReplayError::Record { path: self.path.clone(), row, source }),
        };
        Ok(Some((row as u64, series)))
    }

    /// With labels. A series whose declaration stood in a damaged record has none and is left out.
    fn named(&mut self, decoded: Vec<RecordSeries>) -> Vec<(Labels, Vec<Sample>)> {
        let mut named = Vec::with_capacity(decoded.len());
        for RecordSeries { id, labels, samples } in decoded {
            if let Some(labels) = labels {
                self.declared.insert(id, labels);
            }
            named.extend(self.declared.get(&id).map(|labels| (labels.clone(), samples)));
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, StoreOptions};

    fn batch(t: i64) -> Batch {
        let series = vec![(Labels::new([("__name__", "up"), ("instance", "h1")]), vec![Sample { t, v: t as f64 }])];
        Batch { series, ..Batch::default() }
    }

    fn open(dir: &std::path::Path) -> Arc<Store> {
        let options = StoreOptions { retention: None, disk_reserve_bytes: 0, ..StoreOptions::default() };
        Store::open(dir, options, &[], 1_000).unwrap()
    }

    fn times(backlog: &mut Backlog) -> Vec<i64> {
        let mut times = Vec::new();
        while let Some(record) = backlog.read().unwrap() {
            times.extend(record.series.iter().flat_map(|(_, samples)| samples.iter().map(|sample| sample.t)));
        }
        times
    }

    #[test]
    fn every_record_comes_once_in_order_across_files_flushes_and_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let mut backlog = store.backlog(None);
        assert_eq!(times(&mut backlog), Vec::<i64>::new());
        for t in [1, 2] {
            store.append_blocking(batch(t), 1_000).unwrap();
        }
        let first = backlog.read().unwrap().unwrap();
        assert_eq!(first.series[0].1[0].t, 1);
        // The file is ended and all in it sealed, and still it stays.
        assert!(store.flush().is_empty());
        store.append_blocking(batch(3), 1_000).unwrap();
        assert_eq!(times(&mut backlog), [2, 3]);
        drop(backlog);
        store.close();
        drop(store);

        let store = open(dir.path());
        let mut backlog = store.backlog(Some(first.position));
        store.append_blocking(batch(4), 1_000).unwrap();
        assert_eq!(times(&mut backlog), [2, 3, 4]);
        assert!(store.flush().is_empty());
        assert!(backlog.bytes() > 0, "what is not released stays");
        assert!(backlog.read().unwrap().is_none());
        backlog.release(backlog.position());
        assert!(store.maintain(1_000).is_empty());
        assert!(journal::list(dir.path()).unwrap().is_empty(), "what was read through is unlinked");
    }

    #[test]
    fn a_file_can_be_given_up_and_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let mut backlog = store.backlog(None);
        for t in [1, 2] {
            store.append_blocking(batch(t), 1_000).unwrap();
        }
        assert!(!backlog.is_behind());
        store.flush();
        store.append_blocking(batch(3), 1_000).unwrap();
        assert!(backlog.is_behind());
        assert_eq!(backlog.drop_file().unwrap(), 2);
        assert_eq!(times(&mut backlog), [3]);
    }
}
