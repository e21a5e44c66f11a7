//! Files of rollups: five minutes by the day, hours by the month. Each is whole by itself: its series' labels, by metric name, so
//! that a query unpacks those of one metric; their rows; which days are built. Written by maintenance and deletion alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

use super::{LEVELS, Level, date};
use crate::series::{Labels, MatchOp, Matcher, NAME};
use crate::store::days::{DayError, decode_series, pack_series};
use crate::store::head::Day;
use crate::store::sqlite;
use crate::store::varint::DecodeError;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS series (name TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS rollup (key INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS built (day INTEGER PRIMARY KEY, done INTEGER NOT NULL) STRICT;";
/// Bits of a key below the series' number: the day within the file.
const DAY_BITS: u32 = 5;
/// Idle connections kept per file.
const READERS_PER_FILE: usize = 2;

/// A series' number, given by the file.
pub type Number = i64;

/// Where a day of a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Built {
    /// As the raw samples are, or were when they were last read: they are still there, and may change.
    Open = 1,
    /// The raw samples are gone, or go now: it is not built again, and queries read it whatever comes late.
    Closed = 2,
}

/// One file.
#[derive(Debug)]
pub struct RollupFile {
    /// What its rows stand for.
    pub level: Level,
    /// Its first day.
    pub first: Day,
    /// Where it is.
    pub path: PathBuf,
    built: RwLock<BTreeMap<Day, Built>>,
    readers: Mutex<Vec<Connection>>,
}

impl RollupFile {
    /// Key of a series' rows of a day.
    pub fn key(&self, number: Number, day: Day) -> i64 {
        number << DAY_BITS | i64::from((day - self.first).clamp(0, (1 << DAY_BITS) - 1))
    }

    /// The day of a key.
    pub fn day(&self, key: i64) -> Day {
        self.first + (key & ((1 << DAY_BITS) - 1)) as Day
    }

    /// Days that are built.
    pub fn built(&self) -> BTreeMap<Day, Built> {
        self.built.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where a day stands; `None` where it is not built.
    pub fn state(&self, day: Day) -> Option<Built> {
        self.built.read().unwrap_or_else(PoisonError::into_inner).get(&day).copied()
    }

    /// Whether the raw samples of a day are gone.
    pub fn is_closed(&self, day: Day) -> bool {
        self.state(day) == Some(Built::Closed)
    }

    /// Runs `body` on a connection that sees all commits made before.
    ///
    /// # Errors
    /// The file cannot be opened, or what `body` returns.
    pub fn read<T>(&self, body: impl FnOnce(&Connection) -> Result<T, DayError>) -> Result<T, DayError> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => sqlite::open_reader(&self.path).map_err(|source| self.failed(source))?,
        };
        let value = body(&connection)?;
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_PER_FILE {
            readers.push(connection);
        }
        Ok(value)
    }

    /// Runs `body` in one synced transaction; if it fails nothing of it stays.
    ///
    /// # Errors
    /// The file cannot be written, or what `body` returns.
    pub fn write<T>(&self, body: impl FnOnce(&Transaction<'_>) -> Result<T, DayError>) -> Result<T, DayError> {
        let failed = |source| self.failed(source);
        let mut connection = sqlite::open_writer(&self.path, SCHEMA).map_err(failed)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let value = body(&transaction)?;
        transaction.commit().map_err(failed)?;
        Ok(value)
    }

    /// Puts an error of SQLite into ours.
    pub fn failed(&self, source: rusqlite::Error) -> DayError {
        DayError::Sqlite { path: self.path.clone(), source }
    }

    /// Puts damage into our error.
    pub fn damaged(&self, what: &'static str, key: i64, source: DecodeError) -> DayError {
        DayError::Damaged { path: self.path.clone(), what, key, source }
    }

    /// Begins to build a day: what there is of it goes, and series that have nothing else.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(&self, day: Day) -> Result<(), DayError> {
        self.write(|tx| {
            let begin = || {
                let known: Option<i64> =
                    tx.query_row("SELECT done FROM built WHERE day = ?1", [day], |row| row.get(0)).optional()?;
                if known.is_some() {
                    let mask = (1i64 << DAY_BITS) - 1;
                    tx.execute("DELETE FROM rollup WHERE key & ?1 = ?2", [mask, self.key(0, day)])?;
                }
                tx.execute("INSERT OR REPLACE INTO built (day, done) VALUES (?1, 0)", [day])?;
                Ok(known.is_some())
            };
            let is_again = begin().map_err(|source| self.failed(source))?;
            if is_again { self.unlist_bare(tx) } else { Ok(()) }
        })?;
        self.built.write().unwrap_or_else(PoisonError::into_inner).remove(&day);
        Ok(())
    }

    /// Takes series without rows off the lists: they may have been deleted since their rows were built.
    fn unlist_bare(&self, tx: &Transaction<'_>) -> Result<(), DayError> {
        let mut bare = Vec::new();
        let mut has_rows = tx
            .prepare("SELECT EXISTS (SELECT 1 FROM rollup WHERE key BETWEEN ?1 AND ?2)")
            .map_err(|source| self.failed(source))?;
        for (number, labels) in self.matching(tx, &[Vec::new()])? {
            let keys = [number << DAY_BITS, (number + 1) << DAY_BITS];
            if !has_rows.query_row([keys[0], keys[1] - 1], |row| row.get(0)).map_err(|source| self.failed(source))? {
                bare.push((number, labels));
            }
        }
        self.unlist(tx, &bare)
    }

    /// Notes that a day is whole.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn finish(&self, day: Day, built: Built) -> Result<(), DayError> {
        let changed = self.write(|tx| {
            tx.execute("UPDATE built SET done = ?2 WHERE day = ?1", params![day, built as i64])
                .map_err(|source| self.failed(source))
        })?;
        // A level that was off when the day was built has nothing of it.
        if changed > 0 {
            self.built.write().unwrap_or_else(PoisonError::into_inner).insert(day, built);
        }
        Ok(())
    }

    /// The numbers of series of one metric, given where they have none yet.
    ///
    /// # Errors
    /// The file cannot be written or is damaged.
    pub fn number(&self, tx: &Transaction<'_>, name: &str, all: &[&Labels]) -> Result<Vec<Number>, DayError> {
        let failed = |source| self.failed(source);
        let mut listed = self.list(tx, name)?;
        let mut numbers: BTreeMap<Labels, Number> =
            listed.iter().map(|(number, labels)| (labels.clone(), *number as Number)).collect();
        let mut last: Number = tx.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
        let before = last;
        for labels in all {
            if !numbers.contains_key(*labels) {
                last += 1;
                numbers.insert((*labels).clone(), last);
                listed.push((last as u64, (*labels).clone()));
            }
        }
        if last > before {
            self.put_list(tx, name, &listed)?;
            tx.execute_batch(&format!("PRAGMA user_version = {last}")).map_err(failed)?;
        }
        Ok(all.iter().filter_map(|labels| numbers.get(*labels).copied()).collect())
    }

    /// The series of one metric.
    fn list(&self, connection: &Connection, name: &str) -> Result<Vec<(u64, Labels)>, DayError> {
        let body: Option<Vec<u8>> = connection
            .query_row("SELECT body FROM series WHERE name = ?1", [name], |row| row.get(0))
            .optional()
            .map_err(|source| self.failed(source))?;
        let mut all = Vec::new();
        if let Some(body) = body {
            decode_series(&body, &mut all).map_err(|source| self.damaged("series", 0, source))?;
        }
        Ok(all)
    }

    fn put_list(&self, tx: &Transaction<'_>, name: &str, listed: &[(u64, Labels)]) -> Result<(), DayError> {
        let put = || {
            if listed.is_empty() {
                return tx.execute("DELETE FROM series WHERE name = ?1", [name]);
            }
            let series: Vec<(u64, &Labels)> = listed.iter().map(|(number, labels)| (*number, labels)).collect();
            let packed = pack_series(&series)?;
            tx.execute("INSERT OR REPLACE INTO series (name, body) VALUES (?1, ?2)", params![name, packed])
        };
        put().map(drop).map_err(|source| self.failed(source))
    }

    /// The series that fulfil any of the matcher lists. Unpacks the series of the metrics that the matchers allow.
    ///
    /// # Errors
    /// The file cannot be read or is damaged.
    pub fn matching(
        &self,
        connection: &Connection,
        any_of: &[Vec<Matcher>],
    ) -> Result<Vec<(Number, Labels)>, DayError> {
        let failed = |source| self.failed(source);
        let mut names: Vec<String> = Vec::new();
        let mut statement = connection.prepare_cached("SELECT name FROM series").map_err(failed)?;
        let named: Option<Vec<&str>> = any_of.iter().map(|matchers| metric(matchers)).collect();
        if let Some(named) = named {
            names.extend(named.into_iter().map(str::to_owned));
        } else {
            let may = |name: &str| {
                let fits = |matcher: &Matcher| matcher.name != NAME || matcher.matches_value(name);
                any_of.iter().any(|matchers| matchers.iter().all(fits))
            };
            let all = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
            for name in all {
                names.extend(Some(name.map_err(failed)?).filter(|name| may(name)));
            }
        }
        names.sort_unstable();
        names.dedup();
        let mut found = Vec::new();
        for name in &names {
            let fits = |labels: &Labels| any_of.iter().any(|matchers| matchers.iter().all(|one| one.matches(labels)));
            let listed = self.list(connection, name)?.into_iter().filter(|(_, labels)| fits(labels));
            found.extend(listed.map(|(number, labels)| (number as Number, labels)));
        }
        Ok(found)
    }

    /// Takes series off the lists.
    ///
    /// # Errors
    /// The file cannot be written or is damaged.
    pub fn unlist(&self, tx: &Transaction<'_>, gone: &[(Number, Labels)]) -> Result<(), DayError> {
        let names: BTreeSet<&str> = gone.iter().map(|(_, labels)| labels.name()).collect();
        let numbers: BTreeSet<u64> = gone.iter().map(|(number, _)| *number as u64).collect();
        for name in names {
            let mut listed = self.list(tx, name)?;
            listed.retain(|(number, _)| !numbers.contains(number));
            self.put_list(tx, name, &listed)?;
        }
        Ok(())
    }
}

/// The metric that matchers name.
fn metric(matchers: &[Matcher]) -> Option<&str> {
    matchers.iter().find_map(|matcher| match &matcher.op {
        MatchOp::Equal(value) if matcher.name == NAME => Some(value.as_str()),
        _ => None,
    })
}

/// All files of a directory.
#[derive(Debug)]
pub struct Rollups {
    dir: PathBuf,
    files: RwLock<BTreeMap<(Level, Day), Arc<RollupFile>>>,
}

impl Rollups {
    /// Finds the files of a directory. One that was cut off at its birth holds nothing and is taken as it is.
    ///
    /// # Errors
    /// The directory or a file cannot be read.
    pub fn open(dir: &Path) -> Result<Rollups, DayError> {
        let rollups = Rollups { dir: dir.to_owned(), files: RwLock::default() };
        let listed = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        for (level, first) in listed.filter_map(|entry| parse_name(entry.file_name().to_str()?)) {
            let file = Arc::new(rollups.file(level, first));
            let built = file.write(|tx| {
                let failed = |source| file.failed(source);
                let mut statement = tx.prepare("SELECT day, done FROM built WHERE done > 0").map_err(failed)?;
                let state = |done: i64| if done == Built::Closed as i64 { Built::Closed } else { Built::Open };
                let days = statement.query_map([], |row| Ok((row.get(0)?, state(row.get(1)?))));
                days.and_then(Iterator::collect).map_err(failed)
            })?;
            *file.built.write().unwrap_or_else(PoisonError::into_inner) = built;
            rollups.files.write().unwrap_or_else(PoisonError::into_inner).insert((level, first), file);
        }
        Ok(rollups)
    }

    /// The file that holds a day, where there is one.
    pub fn get(&self, level: Level, day: Day) -> Option<Arc<RollupFile>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).get(&(level, level.file_of(day))).cloned()
    }

    /// Begins to build a day, in the file that holds it; the file is made where it is missing, and listed once it is on disk.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn begin(&self, level: Level, day: Day) -> Result<Arc<RollupFile>, DayError> {
        let file = self.get(level, day).unwrap_or_else(|| Arc::new(self.file(level, level.file_of(day))));
        file.begin(day)?;
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(files.entry((level, file.first)).or_insert(file)))
    }

    fn file(&self, level: Level, first: Day) -> RollupFile {
        let path = self.dir.join(name(level, first));
        RollupFile { level, first, path, built: RwLock::default(), readers: Mutex::default() }
    }

    /// Notes that the raw samples of a day are gone.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn close_day(&self, day: Day) -> Result<(), DayError> {
        for file in LEVELS.into_iter().filter_map(|level| self.get(level, day)) {
            if file.state(day) == Some(Built::Open) {
                file.finish(day, Built::Closed)?;
            }
        }
        Ok(())
    }

    /// Days whose raw samples are gone.
    pub fn closed_days(&self) -> BTreeSet<Day> {
        let all = self.all();
        let built = all.iter().flat_map(|file| file.built());
        built.filter(|(_, built)| *built == Built::Closed).map(|(day, _)| day).collect()
    }

    /// All files, by level, oldest first.
    pub fn all(&self) -> Vec<Arc<RollupFile>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The finest file that has each day, of the days from one to another.
    pub fn finest(&self, from: Day, to: Day) -> BTreeMap<Day, Arc<RollupFile>> {
        self.choose(from, to, LEVELS)
    }

    /// The coarsest file that has each day: what knows the series at the least cost.
    pub fn coarsest(&self, from: Day, to: Day) -> BTreeMap<Day, Arc<RollupFile>> {
        let [finest, coarsest] = LEVELS;
        self.choose(from, to, [coarsest, finest])
    }

    fn choose(&self, from: Day, to: Day, order: [Level; 2]) -> BTreeMap<Day, Arc<RollupFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let mut chosen = BTreeMap::new();
        for level in order {
            for file in files.values().filter(|file| file.level == level) {
                for (day, _) in file.built().range(from..=to.max(from)) {
                    chosen.entry(*day).or_insert_with(|| Arc::clone(file));
                }
            }
        }
        chosen
    }

    /// Unlinks a file.
    ///
    /// # Errors
    /// The file system refuses; the file stays listed and the next call tries again.
    pub fn unlink(&self, file: &RollupFile) -> std::io::Result<()> {
        file.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        sqlite::unlink(&file.path)?;
        self.files.write().unwrap_or_else(PoisonError::into_inner).remove(&(file.level, file.first));
        Ok(())
    }

    /// Closes idle connections, which lets SQLite fold the logs into the files.
    pub fn close_idle(&self) {
        for file in self.all() {
            file.readers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

fn name(level: Level, first: Day) -> String {
    let of = match (level, date(first)) {
        (Level::FiveMinutes, Some(date)) => date.to_string(),
        (Level::Hour, Some(date)) => date.format("%Y-%m").to_string(),
        // Beyond the calendar; no sample is accepted there.
        (_, None) => format!("day{first}"),
    };
    format!("rollup-{}-{of}.db", level.word())
}

fn parse_name(text: &str) -> Option<(Level, Day)> {
    let of = text.strip_prefix("rollup-")?.strip_suffix(".db")?;
    LEVELS.into_iter().find_map(|level| {
        let of = of.strip_prefix(level.word())?.strip_prefix('-')?;
        let of = if level == Level::Hour { format!("{of}-01") } else { of.to_owned() };
        let date: chrono::NaiveDate = of.parse().ok()?;
        let seconds = date.and_hms_opt(0, 0, 0)?.and_utc().timestamp();
        let day = Day::try_from(seconds.div_euclid(86_400)).ok()?;
        (name(level, day) == text).then_some((level, day))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_dates() {
        for (level, day, text) in [
            (Level::FiveMinutes, 20_779, "rollup-5m-2026-11-22.db"),
            (Level::Hour, Level::Hour.file_of(20_779), "rollup-1h-2026-11.db"),
        ] {
            assert_eq!((name(level, day).as_str(), parse_name(text)), (text, Some((level, day))));
        }
        for other in
            ["rollup-5m-2026-11.db", "rollup-1h-2026-11-22.db", "rollup-1h-2026-11.db-wal", "samples-2026-11-22.db"]
        {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
