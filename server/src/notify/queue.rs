//! Groups and notices in the control database. A notice leaves its row only when the receiver took it, refused it for good,
//! or was away for too long.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::group::{Effect, Group, Notice};
use crate::series::Timestamp;
use crate::store::control::{Control, ControlError, Migration};

/// Tables of groups and notices.
pub const MIGRATIONS: &[Migration] = &[(
    "notify-1",
    "CREATE TABLE notify_group (
         receiver TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (receiver, key)
     ) STRICT;
     CREATE TABLE notify_notice (
         id TEXT PRIMARY KEY, receiver TEXT NOT NULL, body TEXT NOT NULL,
         created_at INTEGER NOT NULL, attempts INTEGER NOT NULL, next_at INTEGER NOT NULL
     ) STRICT;
     CREATE INDEX notify_notice_next ON notify_notice (receiver, next_at);",
)];

/// Most notices that wait for one receiver; the oldest gives way, because a later one of its group says more.
const WAITING_MAX: i64 = 1_000;

/// A notice that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// What is to be sent.
    pub notice: Notice,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is to be tried.
    pub next_at: Timestamp,
}

/// The groups that were kept. One that this version cannot read is left out; its alerts are told again.
///
/// # Errors
/// The database cannot be read.
pub fn groups(control: &Control) -> Result<Vec<Group>, ControlError> {
    let bodies = control.read(|connection| {
        let mut statement = connection.prepare("SELECT body FROM notify_group ORDER BY receiver, key")?;
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()
    })?;
    Ok(bodies.iter().filter_map(|body| readable(body)).collect())
}

fn readable<T: serde::de::DeserializeOwned>(body: &str) -> Option<T> {
    serde_json::from_str(body)
        .inspect_err(|error| tracing::warn!(%error, "a row of the notify tables cannot be read and is left out"))
        .ok()
}

/// Carries out what the grouping decided, all or nothing. Names the receivers of notices that had to give way.
///
/// # Errors
/// The database cannot be written; nothing was done.
pub fn apply(control: &Control, effects: &[Effect]) -> Result<Vec<String>, ControlError> {
    control.write(|tx| {
        let mut dropped = Vec::new();
        for effect in effects {
            match effect {
                Effect::Save(group) => {
                    let (receiver, key) = group.name();
                    tx.prepare_cached("INSERT OR REPLACE INTO notify_group (receiver, key, body) VALUES (?1, ?2, ?3)")?
                        .execute(params![receiver, key, json(group)?])?;
                }
                Effect::Drop((receiver, key)) => {
                    tx.execute("DELETE FROM notify_group WHERE receiver = ?1 AND key = ?2", params![receiver, key])?;
                }
                Effect::Enqueue(notice) => dropped.extend(enqueue(tx, notice)?),
            }
        }
        Ok(dropped)
    })
}

fn enqueue(tx: &Transaction<'_>, notice: &Notice) -> rusqlite::Result<Option<String>> {
    let waiting: i64 =
        tx.query_row("SELECT count(*) FROM notify_notice WHERE receiver = ?1", [&notice.receiver], |row| row.get(0))?;
    let full = waiting >= WAITING_MAX;
    if full {
        tx.execute(
            "DELETE FROM notify_notice WHERE id =
                 (SELECT id FROM notify_notice WHERE receiver = ?1 ORDER BY created_at LIMIT 1)",
            [&notice.receiver],
        )?;
    }
    tx.execute(
        "INSERT OR REPLACE INTO notify_notice (id, receiver, body, created_at, attempts, next_at)
         VALUES (?1, ?2, ?3, ?4, 0, ?4)",
        params![notice.id, notice.receiver, json(notice)?, notice.created_at],
    )?;
    Ok(full.then(|| notice.receiver.clone()))
}

fn json<T: serde::Serialize>(value: &T) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

/// The notice of a receiver that is to be tried first. One that this version cannot read is taken out and logged.
///
/// # Errors
/// The database cannot be read, or not be written where a row has to go.
pub fn next(control: &Control, receiver: &str) -> Result<Option<Waiting>, ControlError> {
    while let Some((id, body, attempts, next_at)) = control.read(|connection| first(connection, receiver))? {
        if let Some(notice) = readable(&body) {
            return Ok(Some(Waiting { notice, attempts, next_at }));
        }
        done(control, &id)?;
    }
    Ok(None)
}

type Row = (String, String, u32, Timestamp);

fn first(connection: &Connection, receiver: &str) -> rusqlite::Result<Option<Row>> {
    let sql = "SELECT id, body, attempts, next_at FROM notify_notice WHERE receiver = ?1 ORDER BY next_at LIMIT 1";
    connection
        .prepare_cached(sql)?
        .query_row([receiver], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()
}

/// Number of notices that wait for a receiver.
///
/// # Errors
/// The database cannot be read.
pub fn waiting(control: &Control, receiver: &str) -> Result<i64, ControlError> {
    control.read(|connection| {
        connection.query_row("SELECT count(*) FROM notify_notice WHERE receiver = ?1", [receiver], |row| row.get(0))
    })
}

/// Takes a notice out of the queue.
///
/// # Errors
/// The database cannot be written; the notice stays and may be sent again.
pub fn done(control: &Control, id: &str) -> Result<(), ControlError> {
    control.write(|tx| tx.execute("DELETE FROM notify_notice WHERE id = ?1", [id])).map(drop)
}

/// Puts a notice off.
///
/// # Errors
/// The database cannot be written.
pub fn postpone(control: &Control, id: &str, next_at: Timestamp) -> Result<(), ControlError> {
    let sql = "UPDATE notify_notice SET attempts = attempts + 1, next_at = ?2 WHERE id = ?1";
    control.write(|tx| tx.execute(sql, params![id, next_at])).map(drop)
}

/// Forgets groups and notices of all but these receivers; says how many notices each of them lost.
///
/// # Errors
/// The database cannot be read or written.
pub fn keep_only(control: &Control, receivers: &[String]) -> Result<Vec<(String, i64)>, ControlError> {
    control.write(|tx| {
        let mut statement = tx.prepare(
            "SELECT receiver, (SELECT count(*) FROM notify_notice n WHERE n.receiver = r.receiver)
             FROM (SELECT receiver FROM notify_notice UNION SELECT receiver FROM notify_group) r",
        )?;
        let all = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let all: Vec<(String, i64)> = all.collect::<rusqlite::Result<_>>()?;
        let lost: Vec<(String, i64)> = all.into_iter().filter(|(name, _)| !receivers.contains(name)).collect();
        for (name, _) in &lost {
            tx.execute("DELETE FROM notify_notice WHERE receiver = ?1", [name])?;
            tx.execute("DELETE FROM notify_group WHERE receiver = ?1", [name])?;
        }
        Ok(lost.into_iter().filter(|(_, count)| *count > 0).collect())
    })
}
