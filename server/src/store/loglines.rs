//! Log lines that hosts sent, kept in `control.db` within a number and a size. They are few: agents send only lines that are new
//! or severe.

use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::{Transaction, params};
use serde::Serialize;

use super::control::{ControlError, Migration};
use super::engine::Store;
use super::shared::AppendError;
use super::{Mark, log_templates, marks};
use crate::series::Timestamp;
use crate::telemetry;

/// The tables of this file in `control.db`, and what was added to them since.
pub const MIGRATIONS: [Migration; 3] = [
    ("store-loglines-1", VERSION_1),
    (
        "store-loglines-2",
        "ALTER TABLE log_line ADD COLUMN unit TEXT NOT NULL DEFAULT '';
        ALTER TABLE log_line ADD COLUMN precursor TEXT NOT NULL DEFAULT '';
        ALTER TABLE log_line ADD COLUMN why TEXT NOT NULL DEFAULT '';",
    ),
    // From here on all texts of a line count, not its body alone.
    (
        "store-loglines-3",
        "UPDATE log_size SET bytes = (SELECT coalesce(sum(octet_length(host) + octet_length(source) + octet_length(template_id)
            + octet_length(template) + octet_length(body) + octet_length(unit) + octet_length(precursor) + octet_length(why)), 0)
            FROM log_line);",
    ),
];

const VERSION_1: &str = "CREATE TABLE log_line (
        id INTEGER PRIMARY KEY AUTOINCREMENT, t INTEGER NOT NULL, host TEXT NOT NULL, source TEXT NOT NULL,
        severity INTEGER NOT NULL, template_id TEXT NOT NULL, template TEXT NOT NULL, body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX log_line_by_host ON log_line (host, t);
    CREATE INDEX log_line_by_time ON log_line (t);
    CREATE TABLE log_size (one INTEGER PRIMARY KEY CHECK (one = 1), lines INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
    INSERT INTO log_size (one, lines, bytes) VALUES (1, 0, 0);";

/// Longest body kept, in bytes.
const BODY_BYTES_MAX: usize = 8_192;
/// Lines dropped at once when a limit is met, so that not every insert deletes.
const DROP_LINES: i64 = 1_000;

/// One log line of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// When it was written.
    pub t: Timestamp,
    /// Host name, as in `instance`.
    pub host: String,
    /// File path, `journal` or `kmsg`.
    pub source: String,
    /// OpenTelemetry's severity number, 1 to 24; 0 where unknown. 9 is info, 13 warning, 17 error, 21 fatal.
    pub severity: i32,
    /// Identity of its template, empty where the sender has none. Of templates that became one, the one known first.
    pub template_id: String,
    /// The template's text.
    pub template: String,
    /// The line.
    pub body: String,
    /// The systemd unit it is of; empty where there is none.
    pub unit: String,
    /// What trouble it announces, by its name in the agents' precursor library; empty for most.
    pub precursor: String,
    /// Why its agent sent it whole, in the agent's word; empty where the sender says nothing.
    pub why: String,
}

impl LogLine {
    /// Bytes of all its texts.
    pub fn bytes(&self) -> usize {
        let texts = [&self.host, &self.source, &self.template_id, &self.template, &self.body];
        let more = [&self.unit, &self.precursor, &self.why];
        texts.iter().chain(&more).map(|text| text.len()).sum()
    }
}

/// Which lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    /// Of this host alone.
    pub host: Option<String>,
    /// Of at least this severity.
    pub severity_min: i32,
    /// Of this template alone, or of one that became the same.
    pub template_id: Option<String>,
    /// Containing this text.
    pub contains: Option<String>,
    /// From this instant on.
    pub from: Option<Timestamp>,
    /// Up to this instant.
    pub to: Option<Timestamp>,
}

/// Why log lines were not kept; they can be sent again.
#[derive(Debug, thiserror::Error)]
pub enum AppendLogsError {
    /// The disk has less room than is kept for alerts and runs.
    #[error(transparent)]
    Disk(#[from] AppendError),
    /// The control database failed.
    #[error(transparent)]
    Control(#[from] ControlError),
}

impl Store {
    /// Commits log lines with the mark of their batch, synced to disk. `false` where the batch had been committed before.
    /// Beyond the limits of lines, bytes and age the oldest lines give way. They lie in the file of alerts and runs, so they may
    /// not use up the disk's reserve either. Blocks on disk.
    ///
    /// # Errors
    /// Nothing of it was kept.
    pub fn append_logs(&self, lines: &[LogLine], mark: Option<&Mark>, now: Timestamp) -> Result<bool, AppendLogsError> {
        self.shared.check_disk()?;
        let options = &self.shared.options;
        let oldest = options.retention.map(|kept| now - i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
        let dropped = AtomicU64::new(0);
        let stored = self.shared.control.write(|tx| {
            if let Some(mark) = mark
                && !marks::commit_mark(tx, mark)?
            {
                return Ok(false);
            }
            log_templates::note(tx, lines, now)?;
            insert(tx, lines)?;
            let limits = (options.log_lines_max as i64, options.log_bytes_max as i64);
            dropped.store(bound(tx, limits, oldest)?, Ordering::Relaxed);
            Ok(true)
        })?;
        let outcome = if stored { "accepted" } else { "duplicate" };
        telemetry::INGEST_LOG_LINES.with_label_values(&[outcome]).inc_by(lines.len() as u64);
        telemetry::STORE_LOG_LINES_DROPPED.inc_by(dropped.into_inner());
        Ok(stored)
    }
}

fn insert(tx: &Transaction<'_>, lines: &[LogLine]) -> rusqlite::Result<()> {
    let mut statement = tx.prepare_cached(
        "INSERT INTO log_line (t, host, source, severity, template_id, template, body, unit, precursor, why)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?;
    let mut bytes = 0;
    for line in lines {
        let end = (0..=line.body.len().min(BODY_BYTES_MAX)).rev().find(|&end| line.body.is_char_boundary(end));
        let body = &line.body[..end.unwrap_or(0)];
        bytes += (line.bytes() - line.body.len() + body.len()) as i64;
        statement.execute(params![
            line.t,
            line.host,
            line.source,
            line.severity,
            line.template_id,
            line.template,
            body,
            line.unit,
            line.precursor,
            line.why
        ])?;
    }
    tx.execute("UPDATE log_size SET lines = lines + ?1, bytes = bytes + ?2", params![lines.len() as i64, bytes])?;
    Ok(())
}

/// Drops the lines received first while there are too many, too large or too old ones; returns how many.
fn bound(tx: &Transaction<'_>, limits: (i64, i64), oldest: Option<Timestamp>) -> rusqlite::Result<u64> {
    let mut dropped = 0;
    if let Some(oldest) = oldest {
        dropped += forget(tx, "SELECT id FROM log_line WHERE t < ?1 ORDER BY t LIMIT ?2", oldest)?;
    }
    loop {
        let (lines, bytes): (i64, i64) =
            tx.query_row("SELECT lines, bytes FROM log_size", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if lines == 0 || (lines <= limits.0 && bytes <= limits.1) {
            return Ok(dropped);
        }
        dropped += forget(tx, "SELECT id FROM log_line WHERE id > ?1 ORDER BY id LIMIT ?2", 0)?;
    }
}

fn forget(tx: &Transaction<'_>, ids: &str, bound: i64) -> rusqlite::Result<u64> {
    let (lines, bytes): (i64, i64) = tx.query_row(
        &format!(
            "SELECT count(*), coalesce(sum(octet_length(host) + octet_length(source) + octet_length(template_id)
               + octet_length(template) + octet_length(body) + octet_length(unit) + octet_length(precursor)
               + octet_length(why)), 0) FROM log_line WHERE id IN ({ids})"
        ),
        [bound, DROP_LINES],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if lines > 0 {
        tx.execute(&format!("DELETE FROM log_line WHERE id IN ({ids})"), [bound, DROP_LINES])?;
        tx.execute("UPDATE log_size SET lines = lines - ?1, bytes = bytes - ?2", [lines, bytes])?;
    }
    Ok(lines as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;
    use crate::store::control::Control;

    #[test]
    fn a_database_of_the_first_version_keeps_its_lines_and_takes_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        let old = Control::open(&dir.path().join("control.db"), &MIGRATIONS[..1]).unwrap();
        let insert = "INSERT INTO log_line (t, host, source, severity, template_id, template, body)
            VALUES (1, 'h1', 'journal', 17, 'aa', 'disk <*> failed', 'disk sda failed')";
        old.write(|tx| tx.execute(insert, [])).unwrap();
        old.write(|tx| tx.execute("UPDATE log_size SET lines = 1, bytes = 15", [])).unwrap();
        drop(old);
        let store = Store::open(dir.path(), StoreOptions::default(), &[], 5).unwrap();
        let before = LogLine {
            t: 1,
            host: "h1".to_owned(),
            source: "journal".to_owned(),
            severity: 17,
            template_id: "aa".to_owned(),
            template: "disk <*> failed".to_owned(),
            body: "disk sda failed".to_owned(),
            unit: String::new(),
            precursor: String::new(),
            why: String::new(),
        };
        let after = LogLine {
            t: 2,
            unit: "smartd.service".to_owned(),
            precursor: "smart_failing".to_owned(),
            why: "precursor".to_owned(),
            ..before.clone()
        };
        assert!(store.append_logs(std::slice::from_ref(&after), None, 5).unwrap());
        let expected = [after, before];
        assert_eq!(store.recent_logs(&LogFilter::default(), 10).unwrap(), expected);
        store.close();
        // The steps are not taken twice.
        let store = Store::open(dir.path(), StoreOptions::default(), &[], 5).unwrap();
        assert_eq!(store.recent_logs(&LogFilter::default(), 10).unwrap(), expected);
    }
}
