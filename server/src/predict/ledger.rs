//! The ledger: every prediction as it was said, and what became of it. So users can see how often «80 %» came true.
//!
//! An entry is open until the limit is met (`happened`), its deadline passes (`did_not`), or nobody can tell (`censored`:
//! somebody acted, or over a tenth of the truth is missing). Limits met that nobody predicted are rows of their own. What
//! settled entries say of calibration is summed up at once and outlives them. The values it takes and gives are in `entry`.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::entry::{
    CalibrationBucket, Due, Entry, EntryFilter, Outcome, Settlement, Statement, due_of, entry_of, labels_json,
};
use super::resource::{Resource, Subject};
use crate::series::Timestamp;
use crate::store::control::{Control, ControlError, Migration};
use crate::telemetry;

/// Tables of the ledger.
pub const MIGRATIONS: &[Migration] = &[(
    "predict-1",
    "CREATE TABLE ledger_subject (
         id INTEGER PRIMARY KEY,
         resource TEXT NOT NULL,
         instance TEXT NOT NULL,
         labels TEXT NOT NULL,
         UNIQUE (resource, labels)
     ) STRICT;
     CREATE TABLE ledger_entry (
         id INTEGER PRIMARY KEY,
         subject INTEGER NOT NULL REFERENCES ledger_subject (id),
         horizon_ms INTEGER NOT NULL,
         issued INTEGER NOT NULL,
         deadline INTEGER NOT NULL,
         probability REAL,
         lead_seconds REAL,
         limit_value REAL NOT NULL,
         outcome TEXT,
         settled_at INTEGER,
         happened_at INTEGER,
         reason TEXT
     ) STRICT;
     CREATE INDEX ledger_open ON ledger_entry (subject, deadline) WHERE outcome IS NULL;
     CREATE INDEX ledger_due ON ledger_entry (deadline) WHERE outcome IS NULL;
     CREATE INDEX ledger_settled ON ledger_entry (settled_at) WHERE outcome IS NOT NULL;
     CREATE TABLE ledger_tally (
         resource TEXT NOT NULL,
         horizon_ms INTEGER NOT NULL,
         decile INTEGER NOT NULL,
         entries INTEGER NOT NULL,
         happened INTEGER NOT NULL,
         probability_sum REAL NOT NULL,
         brier_sum REAL NOT NULL,
         PRIMARY KEY (resource, horizon_ms, decile)
     ) STRICT, WITHOUT ROWID",
)];

/// From this probability on an open entry counts as having predicted an event.
const PREDICTED_MIN: f64 = 0.5;
/// Rows deleted at a time, so that no commit takes long.
const PRUNE_ROWS: i64 = 20_000;

/// The ledger in control.db. Share it as `Arc<Ledger>`; calls block on disk.
pub struct Ledger {
    control: Arc<Control>,
    keep_ms: i64,
    entries_max: usize,
}

impl Ledger {
    /// A ledger that keeps settled entries for `keep_ms`, and at most `entries_max` entries.
    pub fn over(control: Arc<Control>, keep_ms: i64, entries_max: usize) -> Ledger {
        Ledger { control, keep_ms, entries_max }
    }

    /// Writes predictions down, all or none. What finds no room is refused and counted.
    ///
    /// # Errors
    /// The control database cannot be written.
    pub fn record(&self, statements: &[Statement], now: Timestamp) -> Result<(), ControlError> {
        if statements.is_empty() {
            return Ok(());
        }
        let entries_max = self.entries_max as i64;
        self.control.write(|transaction| {
            let stored: i64 = transaction.query_row("SELECT count(*) FROM ledger_entry", [], |row| row.get(0))?;
            let room = (entries_max - stored).max(0) as usize;
            for statement in statements.iter().take(room) {
                let subject = subject_id(transaction, &statement.subject)?;
                transaction
                    .prepare_cached(
                        "INSERT INTO ledger_entry (subject, horizon_ms, issued, deadline, probability, lead_seconds, limit_value)
                         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                    )?
                    .execute(params![
                        subject,
                        statement.horizon_ms,
                        now,
                        now + statement.horizon_ms,
                        statement.probability,
                        statement.lead_seconds,
                        statement.limit
                    ])?;
            }
            count("recorded", statements.len().min(room));
            count("refused", statements.len().saturating_sub(room));
            Ok(())
        })
    }

    /// When something was last said of a subject that is still open, by horizon in milliseconds.
    ///
    /// # Errors
    /// The control database cannot be read.
    pub fn last_said(&self, subject: &Subject) -> Result<Vec<(i64, Timestamp)>, ControlError> {
        self.control.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT e.horizon_ms, max(e.issued) FROM ledger_entry e JOIN ledger_subject s ON s.id = e.subject
                 WHERE s.resource = ?1 AND s.labels = ?2 AND e.outcome IS NULL GROUP BY e.horizon_ms",
            )?;
            let rows = statement.query_map((subject.resource.as_str(), labels_json(&subject.labels)), |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?;
            rows.collect()
        })
    }

    /// A limit was met at `at`: settles the subject's open entries, or writes the event down as unpredicted.
    ///
    /// # Errors
    /// The control database cannot be written.
    pub fn happened(&self, subject: &Subject, limit: f64, at: Timestamp, now: Timestamp) -> Result<(), ControlError> {
        self.control.write(|transaction| {
            let id = subject_id(transaction, subject)?;
            let open: Vec<(i64, f64)> = transaction
                .prepare_cached(
                    "SELECT id, coalesce(probability, 0) FROM ledger_entry
                     WHERE subject = ?1 AND outcome IS NULL AND issued < ?2 AND deadline >= ?2",
                )?
                .query_map((id, at), |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            for (entry, _) in &open {
                let settlement = Settlement {
                    id: *entry,
                    outcome: Outcome::Happened,
                    happened_at: Some(at),
                    reason: String::new(),
                };
                settle_one(transaction, &settlement, now)?;
            }
            if open.iter().any(|(_, probability)| *probability >= PREDICTED_MIN) {
                return Ok(());
            }
            count("unpredicted", 1);
            transaction.execute(
                "INSERT INTO ledger_entry (subject, horizon_ms, issued, deadline, limit_value, outcome, settled_at, happened_at)
                 VALUES (?1, 0, ?2, ?2, ?3, 'unpredicted', ?4, ?2)",
                params![id, at, limit, now],
            )?;
            Ok(())
        })
    }

    /// Open entries whose deadline is `by` or earlier, oldest first, at most `limit`.
    ///
    /// # Errors
    /// The control database cannot be read.
    pub fn due(&self, by: Timestamp, limit: usize) -> Result<Vec<Due>, ControlError> {
        self.control.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT e.id, s.resource, s.labels, e.horizon_ms, e.issued, e.deadline, e.limit_value
                 FROM ledger_entry e JOIN ledger_subject s ON s.id = e.subject
                 WHERE e.outcome IS NULL AND e.deadline <= ?1 ORDER BY e.deadline LIMIT ?2",
            )?;
            let rows = statement.query_map((by, limit as i64), due_of)?;
            rows.collect()
        })
    }

    /// Settles due entries, all or none. Entries that were settled meanwhile stay as they are.
    ///
    /// # Errors
    /// The control database cannot be written.
    pub fn settle(&self, settlements: &[Settlement], now: Timestamp) -> Result<(), ControlError> {
        if settlements.is_empty() {
            return Ok(());
        }
        self.control
            .write(|transaction| settlements.iter().try_for_each(|settlement| settle_one(transaction, settlement, now)))
    }

    /// Somebody acts on a host: what was predicted of it can no longer be judged. Returns how many entries were open.
    ///
    /// # Errors
    /// The control database cannot be written.
    pub fn censor(
        &self,
        (instance, resource): (&str, Option<Resource>),
        reason: &str,
        now: Timestamp,
    ) -> Result<usize, ControlError> {
        let censored = self.control.write(|transaction| {
            transaction.execute(
                "UPDATE ledger_entry SET outcome = 'censored', settled_at = ?1, reason = ?2
                 WHERE outcome IS NULL AND subject IN
                 (SELECT id FROM ledger_subject WHERE instance = ?3 AND (?4 IS NULL OR resource = ?4))",
                params![now, reason, instance, resource.map(Resource::as_str)],
            )
        })?;
        count("censored", censored);
        Ok(censored)
    }

    /// Entries, newest first, at most `limit`.
    ///
    /// # Errors
    /// The control database cannot be read.
    pub fn entries(&self, filter: &EntryFilter, limit: usize) -> Result<Vec<Entry>, ControlError> {
        self.control.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT e.id, s.resource, s.instance, s.labels, e.horizon_ms, e.issued, e.deadline, e.probability,
                        e.lead_seconds, e.limit_value, e.outcome, e.settled_at, e.happened_at, e.reason
                 FROM ledger_entry e JOIN ledger_subject s ON s.id = e.subject
                 WHERE (?1 IS NULL OR s.instance = ?1) AND (?2 IS NULL OR s.resource = ?2)
                   AND (?3 IS NULL OR (e.outcome IS NULL) = ?3)
                 ORDER BY e.id DESC LIMIT ?4",
            )?;
            let resource = filter.resource.map(Resource::as_str);
            let rows = statement.query_map(params![filter.instance, resource, filter.open, limit as i64], entry_of)?;
            rows.collect()
        })
    }

    /// What was said against what came, over all time. Sorted by resource, horizon and decile.
    ///
    /// # Errors
    /// The control database cannot be read.
    pub fn calibration(&self) -> Result<Vec<CalibrationBucket>, ControlError> {
        self.control.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT resource, horizon_ms, decile, entries, happened, probability_sum, brier_sum FROM ledger_tally
                 ORDER BY resource, horizon_ms, decile",
            )?;
            let rows = statement.query_map([], |row| {
                let (entries, happened): (i64, f64) = (row.get(3)?, row.get(4)?);
                let per_entry = |sum: f64| sum / entries.max(1) as f64;
                Ok(CalibrationBucket {
                    resource: row.get(0)?,
                    horizon_ms: row.get(1)?,
                    decile: row.get(2)?,
                    entries,
                    realised: per_entry(happened),
                    said: per_entry(row.get(5)?),
                    brier: per_entry(row.get(6)?),
                })
            })?;
            rows.collect()
        })
    }

    /// Deletes settled entries that are too old, and the oldest settled ones beyond the limit. Bounded work: call it often.
    ///
    /// # Errors
    /// The control database cannot be written.
    pub fn prune(&self, now: Timestamp) -> Result<usize, ControlError> {
        let entries_max = self.entries_max as i64;
        self.control.write(|transaction| {
            let old = transaction.execute(
                "DELETE FROM ledger_entry WHERE id IN
                 (SELECT id FROM ledger_entry WHERE outcome IS NOT NULL AND settled_at < ?1 LIMIT ?2)",
                (now - self.keep_ms, PRUNE_ROWS),
            )?;
            let stored: i64 = transaction.query_row("SELECT count(*) FROM ledger_entry", [], |row| row.get(0))?;
            // A tenth of the room is kept free, so that new predictions are not refused between two calls.
            let beyond = (stored - entries_max / 10 * 9).clamp(0, PRUNE_ROWS);
            let surplus = transaction.execute(
                "DELETE FROM ledger_entry WHERE id IN
                 (SELECT id FROM ledger_entry WHERE outcome IS NOT NULL ORDER BY settled_at LIMIT ?1)",
                [beyond],
            )?;
            Ok(old + surplus)
        })
    }
}

fn subject_id(transaction: &Transaction<'_>, subject: &Subject) -> rusqlite::Result<i64> {
    let (resource, labels) = (subject.resource.as_str(), labels_json(&subject.labels));
    let known = transaction
        .prepare_cached("SELECT id FROM ledger_subject WHERE resource = ?1 AND labels = ?2")?
        .query_row((resource, &labels), |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    transaction.execute(
        "INSERT INTO ledger_subject (resource, instance, labels) VALUES (?1, ?2, ?3)",
        (resource, subject.instance(), &labels),
    )?;
    Ok(transaction.last_insert_rowid())
}

/// Settles an open entry and adds what it says to the tally; a settled one is left alone.
fn settle_one(transaction: &Transaction<'_>, settlement: &Settlement, now: Timestamp) -> rusqlite::Result<()> {
    let outcome = settlement.outcome.as_str();
    let reason = (!settlement.reason.is_empty()).then_some(&settlement.reason);
    let settled = transaction
        .prepare_cached(
            "UPDATE ledger_entry SET outcome = ?2, settled_at = ?3, happened_at = ?4, reason = ?5
             WHERE id = ?1 AND outcome IS NULL",
        )?
        .execute(params![settlement.id, outcome, now, settlement.happened_at, reason])?;
    count(outcome, settled);
    let happened = match settlement.outcome {
        Outcome::Happened => 1.0,
        Outcome::DidNot => 0.0,
        Outcome::Censored | Outcome::Unpredicted => return Ok(()),
    };
    if settled == 0 {
        return Ok(());
    }
    transaction
        .prepare_cached(
            "INSERT INTO ledger_tally (resource, horizon_ms, decile, entries, happened, probability_sum, brier_sum)
             SELECT s.resource, e.horizon_ms, min(9, CAST(e.probability * 10 AS INTEGER)), 1, CAST(?2 AS INTEGER), e.probability,
                    (e.probability - ?2) * (e.probability - ?2)
             FROM ledger_entry e JOIN ledger_subject s ON s.id = e.subject WHERE e.id = ?1 AND e.probability IS NOT NULL
             ON CONFLICT (resource, horizon_ms, decile) DO UPDATE SET entries = entries + 1,
                happened = happened + excluded.happened, probability_sum = probability_sum + excluded.probability_sum,
                brier_sum = brier_sum + excluded.brier_sum",
        )?
        .execute(params![settlement.id, happened])?;
    Ok(())
}

fn count(outcome: &str, entries: usize) {
    telemetry::LEDGER_ENTRIES.with_label_values(&[outcome]).inc_by(entries as u64);
}
