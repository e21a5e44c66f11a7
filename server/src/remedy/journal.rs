//! Runs and their journal in `control.db`. One transaction keeps everything that one event changed, synced before any of it leaves
//! the server; from these tables alone a restarted server goes on.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use serde::Serialize;

use super::engine::{Memory, RUNS_MAX};
use super::event::{Effect, Entry};
use super::fleet::DutyNote;
use super::run::{Run, RunId};
use crate::series::Timestamp;
use crate::store::control::Migration;

/// The tables of this part.
pub const MIGRATIONS: &[Migration] = &[
    (
        "remedy-1",
        "CREATE TABLE run (
         id INTEGER PRIMARY KEY, runbook TEXT NOT NULL, subject TEXT NOT NULL, ended INTEGER NOT NULL,
         changed_at INTEGER NOT NULL, body TEXT NOT NULL
     ) STRICT;
     CREATE TABLE run_journal (
         id INTEGER PRIMARY KEY, run INTEGER, step INTEGER, at INTEGER NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL
     ) STRICT;
     CREATE INDEX run_journal_by_run ON run_journal (run);
     CREATE TABLE run_total (
         runbook TEXT NOT NULL, outcome TEXT NOT NULL, count INTEGER NOT NULL, PRIMARY KEY (runbook, outcome)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE host_duty (host TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
     CREATE TABLE remedy_fact (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
     INSERT INTO remedy_fact VALUES ('fencing_epoch', 1), ('held', 0), ('run_next', 1);",
    ),
    ("remedy-2", "CREATE TABLE agent_heard (agent TEXT PRIMARY KEY, at INTEGER NOT NULL) STRICT, WITHOUT ROWID;"),
];

/// Runs kept on disk with their journals; at ten runs a day that is years.
const RUNS_KEPT: u64 = 20_000;
/// Newest orders whose runs a start takes up however many runs that did nothing came since: they count for cooldowns and for the
/// budget of a day, and may be waiting to be undone.
const HANDED_OUT_LOADED: i64 = 1_000;
/// How long it is kept that an agent was heard; after a day of silence it counts no more.
const HEARD_KEPT_MS: i64 = 2 * 24 * 3600 * 1000;
/// Numbers left out after a restore: runs of the time between backup and restore may have used them, and agents remember.
const RESTORE_GAP: i64 = 1_000_000;

/// A line of the journal as read back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The leg, where one is meant.
    pub step: Option<u32>,
    /// When.
    pub at: Timestamp,
    /// The word of [`super::event::EntryKind::as_str`].
    pub what: String,
    /// In words.
    pub detail: String,
}

/// Keeps what effects want kept; the others are left to the caller, after the commit.
///
/// # Errors
/// SQLite's word; nothing of it may leave then.
pub fn keep(tx: &Transaction<'_>, effects: &[Effect]) -> rusqlite::Result<()> {
    for effect in effects {
        match effect {
            Effect::Journal(entry) => keep_entry(tx, entry)?,
            Effect::RunChanged(run) => keep_run(tx, run)?,
            Effect::HoldChanged(held) => set_fact(tx, "held", i64::from(*held))?,
            Effect::DutyChanged { host, note } => keep_duty(tx, host, note.as_ref())?,
            Effect::AgentHeard { agent, at } => {
                tx.prepare_cached(
                    "INSERT INTO agent_heard VALUES (?1, ?2) ON CONFLICT DO UPDATE SET at = excluded.at",
                )?
                .execute(params![agent, at])?;
                tx.prepare_cached("DELETE FROM agent_heard WHERE at < ?1")?.execute([at - HEARD_KEPT_MS])?;
            }
            Effect::Ended { runbook, outcome } => {
                tx.prepare_cached(
                    "INSERT INTO run_total VALUES (?1, ?2, 1) ON CONFLICT DO UPDATE SET count = count + 1",
                )?
                .execute(params![runbook, outcome.as_str()])?;
            }
            Effect::SendOrder { .. }
            | Effect::Deliver(_)
            | Effect::Evaluate(_)
            | Effect::CensorLedger { .. }
            | Effect::Rejected { .. } => {}
        }
    }
    Ok(())
}

/// Whether effects hold anything that [`keep`] writes.
pub fn is_worth_keeping(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| {
        matches!(
            effect,
            Effect::Journal(_)
                | Effect::RunChanged(_)
                | Effect::HoldChanged(_)
                | Effect::DutyChanged { .. }
                | Effect::AgentHeard { .. }
                | Effect::Ended { .. }
        )
    })
}

fn keep_entry(tx: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO run_journal (run, step, at, kind, text) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![entry.run.map(as_row), entry.step, entry.at, entry.kind.as_str(), entry.text])?;
    Ok(())
}

fn keep_run(tx: &Transaction<'_>, run: &Run) -> rusqlite::Result<()> {
    let body = serde_json::to_string(run).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    tx.prepare_cached(
        "INSERT INTO run (id, runbook, subject, ended, changed_at, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, changed_at = excluded.changed_at, body = excluded.body",
    )?
    .execute(params![as_row(run.id), run.runbook, run.subject, run.has_ended(), run.changed_at, body])?;
    if fact(tx, "run_next")? <= as_row(run.id) {
        set_fact(tx, "run_next", as_row(run.id) + 1)?;
        let oldest = as_row(run.id.saturating_sub(RUNS_KEPT));
        tx.execute("DELETE FROM run_journal WHERE run IN (SELECT id FROM run WHERE id <= ?1 AND ended)", [oldest])?;
        tx.execute("DELETE FROM run WHERE id <= ?1 AND ended", [oldest])?;
    }
    Ok(())
}

fn keep_duty(tx: &Transaction<'_>, host: &str, note: Option<&DutyNote>) -> rusqlite::Result<()> {
    match note {
        Some(note) => {
            let body =
                serde_json::to_string(note).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
            tx.execute(
                "INSERT INTO host_duty VALUES (?1, ?2) ON CONFLICT DO UPDATE SET body = excluded.body",
                [host, &body],
            )?;
        }
        None => {
            tx.execute("DELETE FROM host_duty WHERE host = ?1", [host])?;
        }
    }
    Ok(())
}

/// Everything the engine needs to go on.
///
/// # Errors
/// The tables cannot be read, or hold what this version cannot read.
pub fn load(connection: &Connection) -> rusqlite::Result<Memory> {
    let limit = i64::try_from(RUNS_MAX).unwrap_or(i64::MAX);
    let runs = connection
        .prepare(
            "SELECT body FROM run WHERE NOT ended OR id IN (SELECT id FROM run ORDER BY id DESC LIMIT ?1)
             OR id IN (SELECT run FROM run_journal WHERE kind = 'handed_out' ORDER BY id DESC LIMIT ?2)",
        )?
        .query_map([limit, HANDED_OUT_LOADED], |row| json(&row.get::<_, String>(0)?))?
        .collect::<rusqlite::Result<Vec<Run>>>()?;
    let duties = connection
        .prepare("SELECT host, body FROM host_duty")?
        .query_map([], |row| Ok((row.get(0)?, json(&row.get::<_, String>(1)?)?)))?
        .collect::<rusqlite::Result<BTreeMap<String, DutyNote>>>()?;
    let heard = connection
        .prepare("SELECT agent, at FROM agent_heard")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<BTreeMap<String, Timestamp>>>()?;
    Ok(Memory {
        runs,
        duties,
        heard,
        held: fact(connection, "held")? != 0,
        fencing_epoch: u64::try_from(fact(connection, "fencing_epoch")?).unwrap_or(1),
        run_next: u64::try_from(fact(connection, "run_next")?).unwrap_or(1),
    })
}

/// One run and its journal, also when it is too old for memory.
///
/// # Errors
/// The tables cannot be read.
pub fn run(connection: &Connection, id: RunId) -> rusqlite::Result<Option<(Run, Vec<Line>)>> {
    let found: Option<String> =
        connection.query_row("SELECT body FROM run WHERE id = ?1", [as_row(id)], |row| row.get(0)).optional()?;
    let Some(body) = found else { return Ok(None) };
    let line = |row: &rusqlite::Row<'_>| {
        Ok(Line { step: row.get(0)?, at: row.get(1)?, what: row.get(2)?, detail: row.get(3)? })
    };
    let lines = connection
        .prepare("SELECT step, at, kind, text FROM run_journal WHERE run = ?1 ORDER BY id")?
        .query_map([as_row(id)], line)?
        .collect::<rusqlite::Result<Vec<Line>>>()?;
    Ok(Some((json(&body)?, lines)))
}

/// How many runs came to which end, by runbook and outcome.
///
/// # Errors
/// The table cannot be read.
pub fn totals(connection: &Connection) -> rusqlite::Result<BTreeMap<(String, String), u64>> {
    let row = |row: &rusqlite::Row<'_>| Ok(((row.get(0)?, row.get(1)?), row.get::<_, i64>(2)?.unsigned_abs()));
    connection.prepare("SELECT runbook, outcome, count FROM run_total")?.query_map([], row)?.collect()
}

/// After a restore from a backup: a higher fencing epoch, numbers that no agent has seen, and everything held until an operator
/// releases it. To be called in the restored database before the server starts on it. Epoch and numbers follow the clock, so that a
/// second restore of the same backup gives others than the first.
///
/// # Errors
/// SQLite's word.
pub fn restored(tx: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    let epoch = fact(tx, "fencing_epoch")?;
    set_fact(tx, "fencing_epoch", (epoch + 1).max(now / 1000))?;
    let next = fact(tx, "run_next")?;
    // A run a minute is more than any fleet has.
    set_fact(tx, "run_next", (next + RESTORE_GAP).max(now / 60_000))?;
    set_fact(tx, "held", 1)
}

fn fact(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT value FROM remedy_fact WHERE name = ?1")?.query_row([name], |row| row.get(0))
}

fn set_fact(tx: &Transaction<'_>, name: &str, value: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE remedy_fact SET value = ?2 WHERE name = ?1")?.execute(params![name, value])?;
    Ok(())
}

fn json<T: serde::de::DeserializeOwned>(body: &str) -> rusqlite::Result<T> {
    serde_json::from_str(body)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into()))
}

/// SQLite's numbers are signed; runs are counted from one and never get near the end.
fn as_row(id: RunId) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}
