//! A damaged data directory, made whole again: every damaged database is rebuilt from what can be read of it, the original is moved
//! aside and never deleted, and what was lost is told: which series, which time, how many samples. Whole files are not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, Transaction, params_from_iter};

use super::backup::databases;
use super::days::{chunk_keys, decode_series, put_series};
use super::head::{DAY_MS, Day};
use super::index::SeriesId;
use super::lock::{self, LockError};
use super::record::{self, RecordSeries, RecordWriter};
use super::salvage::{self, Gap, Table};
use super::verify::{self, Judge, Kind};
use super::{chunk, sqlite, wal};
use crate::series::{Labels, Timestamp};

/// Where files are rebuilt.
const STAGING: &str = "repairing";

/// Tables of a samples file that only say what was done. Without them some of it is done again.
const NOTES: [&str; 3] = ["sealed", "compacted", "rolled"];

/// Samples that are lost, or may be.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Loss {
    /// The series, or where its labels are lost too, what is known of it.
    pub what: String,
    /// From when on.
    pub from: Option<Timestamp>,
    /// Until when.
    pub to: Option<Timestamp>,
    /// How many; `None` where nothing tells.
    pub samples: Option<u64>,
}

/// What became of one damaged file.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Repaired {
    /// Its name.
    pub name: String,
    /// Rows that were saved.
    pub rows: u64,
    /// Samples that were saved.
    pub samples: u64,
    /// What is lost.
    pub lost: Vec<Loss>,
    /// Where the original is.
    pub aside: PathBuf,
}

/// Why a repair could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// A server runs on it.
    #[error("a data directory is repaired while no server uses it; nothing was changed")]
    Lock(#[from] LockError),
    /// The disk.
    #[error("{path} cannot be read or written; the originals are where they were or in the folder `damaged-…`")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A fresh database.
    #[error("{path} cannot be rebuilt; the original is where it was")]
    Rebuild {
        /// The file.
        path: PathBuf,
        /// SQLite's word.
        #[source]
        source: rusqlite::Error,
    },
    /// The control database cannot be read at all.
    #[error(
        "nothing of {path} can be read, and a server without it would forget its hold and its agents; restore a backup"
    )]
    Control {
        /// The file.
        path: PathBuf,
    },
}

/// Repairs all damaged databases of a directory. `begin_anew` changes a rebuilt control database before it is used.
///
/// # Errors
/// A server uses the directory, or a file cannot be written.
pub fn repair(
    dir: &Path,
    now: Timestamp,
    begin_anew: &dyn Fn(&Transaction<'_>) -> rusqlite::Result<()>,
) -> Result<Vec<Repaired>, RepairError> {
    let _lock = lock::lock(dir)?;
    let staging = dir.join(STAGING);
    let aside = dir.join(format!("damaged-{now}"));
    let mut known = BTreeMap::new();
    let mut all = Vec::new();
    let mut paths = databases(dir).map_err(at(dir))?;
    // Samples files first: they know labels that journals may need.
    paths.sort_by_key(|path| matches!(verify::kind_of(path), Kind::Journal));
    for path in paths {
        if !verify::verify_file(&path).is_damaged() {
            learn_labels(&path, &mut known);
            continue;
        }
        remove(&staging)?;
        std::fs::create_dir(&staging).map_err(at(&staging))?;
        let rebuilt = rebuild(&path, &staging, &mut known, begin_anew)?;
        move_aside(&path, &aside)?;
        let fresh = staging.join("fresh.db");
        std::fs::rename(&fresh, &path).map_err(at(&path))?;
        sync(dir)?;
        all.push(Repaired { aside: aside.join(&rebuilt.name), ..rebuilt });
    }
    remove(&staging)?;
    Ok(all)
}

fn rebuild(
    path: &Path,
    staging: &Path,
    known: &mut BTreeMap<SeriesId, Labels>,
    begin_anew: &dyn Fn(&Transaction<'_>) -> rusqlite::Result<()>,
) -> Result<Repaired, RepairError> {
    let failed = |source| RepairError::Rebuild { path: path.to_owned(), source };
    let copy = staging.join("copy.db");
    let [_, log, _] = sqlite::files(path);
    std::fs::copy(path, &copy).map_err(at(path))?;
    wal::rewrite(&log, &sqlite::files(&copy)[1]).map_err(at(&log))?;
    let kind = verify::kind_of(path);
    let mut salvaged = Salvaged::new(kind, known);
    let fresh = staging.join("fresh.db");
    let read = verify::open(&copy).and_then(|connection| Ok((salvage::tables(&connection)?, connection)));
    let Ok(((tables, of_tables, others), from)) = read else {
        return salvaged.nothing(path, &fresh);
    };
    let mut to = sqlite::open_writer(&fresh, "").map_err(failed)?;
    let transaction = to.transaction().map_err(failed)?;
    for sql in &of_tables {
        transaction.execute_batch(sql).map_err(failed)?;
    }
    // A samples file's lists of series say whose the chunks are, and come first.
    let mut tables = tables;
    tables.sort_by_key(|table| table.name != "series");
    for table in &tables {
        salvaged.table(&from, &transaction, table).map_err(failed)?;
    }
    salvaged.declare_again(&transaction).map_err(failed)?;
    for sql in &others {
        transaction.execute_batch(sql).map_err(failed)?;
    }
    let is_control = path.file_name().is_some_and(|name| name == "control.db");
    if is_control {
        begin_anew(&transaction).map_err(|_| RepairError::Control { path: path.to_owned() })?;
    }
    transaction.commit().map_err(failed)?;
    to.execute_batch("PRAGMA wal_checkpoint(TRUNCATE);").map_err(failed)?;
    to.close().map_err(|(_, source)| failed(source))?;
    Ok(salvaged.told(path))
}

/// What of a journal's record is kept.
enum Record {
    Lost,
    AsItIs,
    Anew(Vec<u8>),
}

/// What was saved of one file.
struct Salvaged<'a> {
    kind: Kind,
    known: &'a mut BTreeMap<SeriesId, Labels>,
    /// Series that the file names itself.
    declared: BTreeSet<SeriesId>,
    /// Series of kept chunks that it does not name.
    undeclared: BTreeSet<SeriesId>,
    rows: u64,
    samples: u64,
    lost: Vec<Loss>,
}

impl<'a> Salvaged<'a> {
    fn new(kind: Kind, known: &'a mut BTreeMap<SeriesId, Labels>) -> Salvaged<'a> {
        Salvaged {
            kind,
            known,
            declared: BTreeSet::new(),
            undeclared: BTreeSet::new(),
            rows: 0,
            samples: 0,
            lost: Vec::new(),
        }
    }

    /// A file of which not even the list of tables can be read.
    fn nothing(mut self, path: &Path, fresh: &Path) -> Result<Repaired, RepairError> {
        let (from, to) = match self.kind {
            Kind::Other if path.file_name().is_some_and(|name| name == "control.db") => {
                return Err(RepairError::Control { path: path.to_owned() });
            }
            Kind::Samples(day) => day_range(day),
            _ => (None, None),
        };
        // An empty file is one that was never written to.
        File::create(fresh).and_then(|file| file.sync_all()).map_err(at(fresh))?;
        self.lost.push(Loss { what: "everything in it".to_owned(), from, to, samples: None });
        Ok(self.told(path))
    }

    fn told(self, path: &Path) -> Repaired {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Repaired { name, rows: self.rows, samples: self.samples, lost: self.lost, aside: PathBuf::new() }
    }

    /// Copies the rows of a table that can be read and make sense.
    fn table(&mut self, from: &Connection, to: &Transaction<'_>, table: &Table) -> rusqlite::Result<()> {
        let mut failed = None;
        let mut judge = Judge::new(self.kind);
        let gaps = salvage::rows(from, table, &mut |number, values| {
            if failed.is_none() {
                failed = self.row(to, table, number, values, &mut judge).err();
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        for gap in gaps {
            self.gap(to, table, gap);
        }
        Ok(())
    }

    /// Labels of series whose own list is lost and that another file knows.
    fn declare_again(&self, to: &Transaction<'_>) -> rusqlite::Result<()> {
        let all: Vec<(SeriesId, &Labels)> =
            self.undeclared.iter().filter_map(|id| Some((*id, self.known.get(id)?))).collect();
        if all.is_empty() { Ok(()) } else { put_series(to, &all) }
    }

    fn row(
        &mut self,
        to: &Transaction<'_>,
        table: &Table,
        number: i64,
        mut values: Vec<Value>,
        judge: &mut Judge,
    ) -> rusqlite::Result<()> {
        match (self.kind, table.name.as_str()) {
            (Kind::Samples(day), "chunk") if !self.chunk(day, number, &values, judge) => return Ok(()),
            (Kind::Samples(_), "series") => {
                let mut all = Vec::new();
                if decode_series(blob(&values), &mut all).is_err() {
                    self.lost.push(unknown(&format!("labels of series, list {number}")));
                    return Ok(());
                }
                self.declared.extend(all.iter().map(|(id, _)| *id));
                self.known.extend(all);
            }
            (Kind::Journal, "record") => match self.record(number, blob(&values)) {
                Record::Anew(body) => values[1] = Value::Blob(body),
                Record::AsItIs => {}
                Record::Lost => return Ok(()),
            },
            _ => {}
        }
        let marks = vec!["?"; values.len()].join(", ");
        let sql = format!("INSERT OR IGNORE INTO \"{}\" VALUES ({marks})", table.name);
        self.rows += to.prepare_cached(&sql)?.execute(params_from_iter(values))? as u64;
        Ok(())
    }

    /// Whether a chunk is to be kept.
    fn chunk(&mut self, day: Day, key: i64, values: &[Value], judge: &mut Judge) -> bool {
        let body = blob(values);
        let id = series_of(key);
        let labels = self.known.get(&id);
        let is_whole = judge.row("chunk", key, values).is_ok();
        let told = chunk::span(body).ok();
        if let (true, Some(_)) = (is_whole, labels) {
            self.samples += told.map_or(0, |(count, _)| count as u64);
            if !self.declared.contains(&id) {
                self.undeclared.insert(id);
            }
            return true;
        }
        let what = labels.map_or_else(|| format!("series {id}, its labels are lost"), ToString::to_string);
        let (from, to) = told.map_or_else(|| day_range(day), |(_, span)| (Some(span.from), Some(span.to)));
        self.lost.push(Loss { what, from, to, samples: told.map(|(count, _)| count as u64) });
        false
    }

    fn record(&mut self, row: i64, body: &[u8]) -> Record {
        let Ok(all) = record::decode(body) else {
            self.lost.push(unknown(&format!("record {row}")));
            return Record::Lost;
        };
        for one in &all {
            if let Some(labels) = &one.labels {
                self.known.insert(one.id, labels.clone());
                self.declared.insert(one.id);
            }
        }
        let (mut kept, mut changed) = (Vec::with_capacity(all.len()), false);
        for one in all {
            if self.declared.contains(&one.id) {
                self.samples += one.samples.len() as u64;
                kept.push(one);
            } else if let Some(labels) = self.known.get(&one.id) {
                // The record that declared it is lost; another file knows its labels.
                changed = true;
                self.declared.insert(one.id);
                self.samples += one.samples.len() as u64;
                kept.push(RecordSeries { labels: Some(labels.clone()), ..one });
            } else {
                changed = true;
                let times = one.samples.iter().map(|sample| sample.t);
                let (from, to) = (times.clone().min(), times.max());
                let what = format!("series {}, its labels are lost", one.id);
                self.lost.push(Loss { what, from, to, samples: Some(one.samples.len() as u64) });
            }
        }
        if !changed {
            return Record::AsItIs;
        }
        // Only zstd without memory fails here, which the copy of the row would meet as well.
        encode(&kept).map_or(Record::Lost, Record::Anew)
    }

    /// Tells what a gap of rows takes with it.
    fn gap(&mut self, to: &Transaction<'_>, table: &Table, gap: Gap) {
        let Kind::Samples(day) = self.kind else {
            let word = |number: Option<i64>, end: &str| number.map_or(end.to_owned(), |number| number.to_string());
            let (after, before) = (word(gap.after, "the first"), word(gap.before, "the last"));
            self.lost.push(unknown(&format!("{} between {after} and {before}", table.name)));
            return;
        };
        if NOTES.contains(&table.name.as_str()) {
            return;
        }
        if table.name != "chunk" {
            self.lost.push(unknown(&format!("rows of {}", table.name)));
            return;
        }
        let end = |key: i64| -> rusqlite::Result<Option<(Timestamp, Timestamp)>> {
            let body: Vec<u8> = to.query_row("SELECT body FROM chunk WHERE key = ?1", [key], |row| row.get(0))?;
            Ok(chunk::span(&body).ok().map(|(_, span)| (span.from, span.to)))
        };
        let (first, last) = (gap.after.map_or(1, series_of), gap.before.map_or(SeriesId::MAX, series_of));
        let ids: BTreeSet<SeriesId> =
            self.declared.range(first..=last).chain(self.undeclared.range(first..=last)).copied().collect();
        for id in ids {
            let what = self.known.get(&id).map(ToString::to_string).unwrap_or_default();
            let (mut from, mut until) = day_range(day);
            if let Some(key) = gap.after.filter(|key| series_of(*key) == id) {
                from = end(key).ok().flatten().map_or(from, |(_, to)| Some(to + 1));
            }
            if let Some(key) = gap.before.filter(|key| series_of(*key) == id) {
                if key == chunk_keys(id).0 && gap.after.is_none_or(|after| series_of(after) != id) {
                    continue;
                }
                until = end(key).ok().flatten().map_or(until, |(from, _)| Some(from - 1));
            }
            self.lost.push(Loss { what, from, to: until, samples: None });
        }
    }
}

fn encode(series: &[RecordSeries]) -> io::Result<Vec<u8>> {
    let mut writer = RecordWriter::default();
    for one in series {
        for (at, sample) in one.samples.iter().enumerate() {
            writer.push(one.id, one.labels.as_ref().filter(|_| at == 0), *sample);
        }
    }
    writer.finish()
}

fn series_of(key: i64) -> SeriesId {
    key as u64 / chunk_keys(1).0 as u64
}

fn day_range(day: Day) -> (Option<Timestamp>, Option<Timestamp>) {
    let first = i64::from(day) * DAY_MS;
    (Some(first), Some(first + DAY_MS - 1))
}

fn unknown(what: &str) -> Loss {
    Loss { what: what.to_owned(), from: None, to: None, samples: None }
}

fn blob(values: &[Value]) -> &[u8] {
    match values.get(1) {
        Some(Value::Blob(body)) => body,
        _ => &[],
    }
}

/// Labels of a whole file, for those that are not.
fn learn_labels(path: &Path, known: &mut BTreeMap<SeriesId, Labels>) {
    let Ok(connection) = verify::open(path) else { return };
    let table = match verify::kind_of(path) {
        Kind::Samples(_) => "series",
        Kind::Journal => "record",
        Kind::Other => return,
    };
    let table = Table { name: table.to_owned(), key: None };
    // A file that was judged whole has no gaps.
    let _ = salvage::rows(&connection, &table, &mut |_, values| {
        let mut all = Vec::new();
        if table.name == "series" {
            // And decodes.
            let _ = decode_series(blob(&values), &mut all);
        } else if let Ok(record) = record::decode(blob(&values)) {
            all.extend(record.into_iter().filter_map(|one| Some((one.id, one.labels?))));
        }
        known.extend(all);
    });
}

fn move_aside(path: &Path, aside: &Path) -> Result<(), RepairError> {
    std::fs::create_dir_all(aside).map_err(at(aside))?;
    for file in sqlite::files(path) {
        let to = aside.join(file.file_name().unwrap_or_default());
        match std::fs::rename(&file, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&file)(error)),
            _ => {}
        }
    }
    sync(aside)
}

fn remove(staging: &Path) -> Result<(), RepairError> {
    match std::fs::remove_dir_all(staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(staging)(error)),
        _ => Ok(()),
    }
}

fn sync(dir: &Path) -> Result<(), RepairError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> RepairError {
    move |source| RepairError::Io { path: path.to_owned(), source }
}
