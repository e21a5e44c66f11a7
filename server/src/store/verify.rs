//! Every byte of a data directory that we can judge, judged: SQLite's own check of each database, its log, and whether chunks,
//! records and lists of series decode and agree. Changes nothing. Beside a running server it sees each file as of one moment.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags};

use super::backup::{databases, is_journal};
use super::days::{chunk_keys, decode_series, parse_name};
use super::head::day_of;
use super::index::SeriesId;
use super::salvage::{self, Gap, Table};
use super::{chunk, record, sqlite, wal};

/// Problems of one file that are told word by word; further ones are counted.
const PROBLEMS_MAX: usize = 20;

/// What was found in one file.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// Bytes, with its log.
    pub bytes: u64,
    /// Series that it names.
    pub series: u64,
    /// Rows of all its tables.
    pub rows: u64,
    /// Samples in it.
    pub samples: u64,
    /// What is wrong, each in words.
    pub problems: Vec<String>,
    /// Problems beyond those told.
    pub problems_more: u64,
}

impl FileReport {
    /// Whether anything is wrong.
    pub fn is_damaged(&self) -> bool {
        !self.problems.is_empty()
    }

    fn wrong(&mut self, words: String) {
        if self.problems.len() < PROBLEMS_MAX { self.problems.push(words) } else { self.problems_more += 1 }
    }
}

/// What a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Samples(super::head::Day),
    Journal,
    Other,
}

/// Tells a file's kind.
pub(super) fn kind_of(path: &Path) -> Kind {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    match parse_name(name) {
        Some(day) => Kind::Samples(day),
        None if is_journal(path) => Kind::Journal,
        None => Kind::Other,
    }
}

/// Verifies all databases of a directory; `tell` hears of each file before it is read.
///
/// # Errors
/// The directory cannot be read.
pub fn verify(dir: &Path, tell: &mut dyn FnMut(&Path)) -> io::Result<Vec<FileReport>> {
    let mut reports = Vec::new();
    for path in databases(dir)? {
        tell(&path);
        let report = verify_file(&path);
        // A server that runs may have unlinked it a moment ago.
        if path.exists() {
            reports.push(report);
        }
    }
    Ok(reports)
}

/// Verifies one database.
pub(super) fn verify_file(path: &Path) -> FileReport {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut report = FileReport { name, bytes: sqlite::bytes(path), ..FileReport::default() };
    match wal::check(&sqlite::files(path)[1]) {
        Ok(log) if log.is_damaged() => report.wrong(format!(
            "its log is damaged at frame {}; {} transactions behind it would be dropped",
            log.broken_at.unwrap_or(0),
            log.commits_after
        )),
        Ok(_) => {}
        Err(error) => report.wrong(format!("its log cannot be read: {error}")),
    }
    match open(path).and_then(|connection| judge(path, &connection, &mut report)) {
        Ok(()) => {}
        Err(error) => report.wrong(error.to_string()),
    }
    report
}

/// Opens a database that is not to be changed. For writing, because a crash can leave a log that SQLite first has to look through.
pub(super) fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    sqlite::never_checkpoint(&connection)?;
    Ok(connection)
}

fn judge(path: &Path, connection: &Connection, report: &mut FileReport) -> rusqlite::Result<()> {
    // One snapshot for everything that follows.
    connection.execute_batch("BEGIN")?;
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({PROBLEMS_MAX})"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let words: String = row.get(0)?;
        if words != "ok" {
            report.wrong(words);
        }
    }
    drop(rows);
    let (tables, ..) = salvage::tables(connection)?;
    let mut judge = Judge::new(kind_of(path));
    for table in &tables {
        let gaps = salvage::rows(connection, table, &mut |number, values| {
            report.rows += 1;
            if let Err(words) = judge.row(&table.name, number, &values) {
                report.wrong(words);
            }
        });
        for gap in gaps {
            report.wrong(gap_words(table, gap));
        }
    }
    judge.orphans(report);
    (report.series, report.samples) = (judge.declared.len() as u64, judge.samples);
    Ok(())
}

fn gap_words(table: &Table, gap: Gap) -> String {
    let word = |number: Option<i64>, end: &str| number.map_or(end.to_owned(), |number| number.to_string());
    format!(
        "{}: rows between {} and {} cannot be read",
        table.name,
        word(gap.after, "the first"),
        word(gap.before, "the last")
    )
}

/// What rows of a store's file must fulfil.
pub(super) struct Judge {
    kind: Kind,
    declared: BTreeSet<SeriesId>,
    used: BTreeSet<SeriesId>,
    samples: u64,
}

impl Judge {
    pub(super) fn new(kind: Kind) -> Judge {
        Judge { kind, declared: BTreeSet::new(), used: BTreeSet::new(), samples: 0 }
    }

    /// Judges one row.
    pub(super) fn row(&mut self, table: &str, number: i64, values: &[Value]) -> Result<(), String> {
        let body = match values.get(1) {
            Some(Value::Blob(body)) => body.as_slice(),
            _ => &[],
        };
        match (self.kind, table) {
            (Kind::Samples(day), "chunk") => self.chunk(day, number, body),
            (Kind::Samples(_), "series") => {
                let mut all = Vec::new();
                decode_series(body, &mut all).map_err(|error| format!("series list {number}: {error}"))?;
                self.declared.extend(all.into_iter().map(|(id, _)| id));
                Ok(())
            }
            (Kind::Journal, "record") => {
                let all = record::decode(body).map_err(|error| format!("record {number}: {error}"))?;
                for one in all {
                    self.samples += one.samples.len() as u64;
                    let set = if one.labels.is_some() { &mut self.declared } else { &mut self.used };
                    set.insert(one.id);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn chunk(&mut self, day: super::head::Day, key: i64, body: &[u8]) -> Result<(), String> {
        let id = (key as u64) / (chunk_keys(1).0 as u64);
        let samples = chunk::decode(body).map_err(|error| format!("chunk {key} of series {id}: {error}"))?;
        self.used.insert(id);
        self.samples += samples.len() as u64;
        if !samples.is_sorted_by(|a, b| a.t < b.t) {
            return Err(format!("chunk {key} of series {id}: its times are not in order"));
        }
        match samples.iter().find(|sample| day_of(sample.t) != day) {
            Some(sample) => Err(format!("chunk {key} of series {id}: the time {} is not of this day", sample.t)),
            None => Ok(()),
        }
    }

    /// Series that have samples and no labels. In a journal earlier files may have them, which only a start can tell.
    fn orphans(&self, report: &mut FileReport) {
        if self.kind == Kind::Journal {
            return;
        }
        for id in self.used.difference(&self.declared) {
            report.wrong(format!("series {id} has chunks and no labels"));
        }
    }
}
