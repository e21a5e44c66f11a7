//! The book of alerts in the control database: what survives a restart.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::book::{AlertBook, Effect, Kept};
use crate::series::Timestamp;
use crate::store::control::{Control, ControlError, Migration};

/// Tables of the book.
pub const MIGRATIONS: &[Migration] = &[(
    "decide-1",
    "CREATE TABLE decide_alert (
         rule TEXT NOT NULL, fingerprint TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (rule, fingerprint)
     ) STRICT;
     CREATE TABLE decide_seen (id INTEGER PRIMARY KEY CHECK (id = 1), at INTEGER NOT NULL) STRICT;",
)];

/// Reads the book back, as of `now`. An entry that this version cannot read is left out and logged: its rule finds it again.
///
/// # Errors
/// The database cannot be read.
pub fn load(control: &Control, now: Timestamp) -> Result<AlertBook, ControlError> {
    let (bodies, seen_at) = control.read(read)?;
    let mut kept = Vec::with_capacity(bodies.len());
    for body in bodies {
        match serde_json::from_str::<Kept>(&body) {
            Ok(one) => kept.push(one),
            Err(error) => tracing::warn!(%error, "an alert in the control database cannot be read and is left out"),
        }
    }
    Ok(AlertBook::restored(kept, seen_at, now))
}

fn read(connection: &Connection) -> rusqlite::Result<(Vec<String>, Option<Timestamp>)> {
    let mut statement = connection.prepare("SELECT body FROM decide_alert ORDER BY rule, fingerprint")?;
    let bodies = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    let seen = connection.query_row("SELECT at FROM decide_seen", [], |row| row.get(0)).optional()?;
    Ok((bodies, seen))
}

/// Keeps what changed, in one transaction, and that the book was looked at `now`.
///
/// # Errors
/// The database cannot be written; then nothing was kept, and [`save_all`] must follow.
pub fn save(control: &Control, effects: &[Effect], now: Timestamp) -> Result<(), ControlError> {
    control.write(|tx| {
        for effect in effects {
            match effect {
                Effect::Persist(kept) => insert(tx, kept)?,
                Effect::Forget { rule, fingerprint } => {
                    tx.prepare_cached("DELETE FROM decide_alert WHERE rule = ?1 AND fingerprint = ?2")?
                        .execute(params![rule.as_str(), fingerprint])?;
                }
                Effect::Changed(_) | Effect::Sample(..) | Effect::Refused(_) => {}
            }
        }
        seen(tx, now)
    })
}

/// Keeps the whole book, after a write that failed.
///
/// # Errors
/// The database cannot be written.
pub fn save_all(control: &Control, book: &AlertBook, now: Timestamp) -> Result<(), ControlError> {
    control.write(|tx| {
        tx.execute("DELETE FROM decide_alert", [])?;
        for kept in book.kept() {
            insert(tx, kept)?;
        }
        seen(tx, now)
    })
}

fn insert(tx: &Transaction<'_>, kept: &Kept) -> rusqlite::Result<()> {
    let body = serde_json::to_string(kept).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    tx.prepare_cached("INSERT OR REPLACE INTO decide_alert (rule, fingerprint, body) VALUES (?1, ?2, ?3)")?
        .execute(params![kept.rule, kept.alert.fingerprint, body])?;
    Ok(())
}

fn seen(tx: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    tx.execute("INSERT OR REPLACE INTO decide_seen (id, at) VALUES (1, ?1)", [now])?;
    Ok(())
}
