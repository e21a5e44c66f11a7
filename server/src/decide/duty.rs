//! Duty: what operators have each host do. Kept in `control.db`; only operators set and lift it, so nothing in the server
//! calls [`set`] but the API on an operator's word. A host without an entry is active.

use std::fmt;

use rusqlite::{OptionalExtension, Row};
use serde::{Deserialize, Serialize};

use crate::series::Timestamp;
use crate::store::control::{Control, ControlError, Migration};

/// The tables of this file.
pub const MIGRATIONS: &[Migration] = &[(
    "decide-duty-1",
    "CREATE TABLE duty (
        host TEXT PRIMARY KEY,
        duty TEXT NOT NULL CHECK (duty IN ('active', 'draining', 'maintenance', 'quarantined')),
        set_by TEXT NOT NULL,
        reason TEXT NOT NULL,
        set_at INTEGER NOT NULL
    ) STRICT",
)];

/// What operators have a host do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duty {
    /// Its ordinary work.
    #[default]
    Active,
    /// Being emptied; takes nothing more.
    Draining,
    /// Being worked on.
    Maintenance,
    /// Under suspicion; takes nothing until an operator says so.
    Quarantined,
}

/// A host's duty, with who said so and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DutyEntry {
    /// Host name, as in `instance`.
    pub host: String,
    /// The duty.
    pub duty: Duty,
    /// The operator.
    pub set_by: String,
    /// In the operator's words.
    pub reason: String,
    /// When.
    pub set_at: Timestamp,
}

impl Duty {
    /// All duties.
    pub const ALL: [Duty; 4] = [Duty::Active, Duty::Draining, Duty::Maintenance, Duty::Quarantined];

    /// The word in the database, the API and on pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Duty::Active => "active",
            Duty::Draining => "draining",
            Duty::Maintenance => "maintenance",
            Duty::Quarantined => "quarantined",
        }
    }

    /// Reads the word of [`Duty::as_str`].
    pub fn parse(word: &str) -> Option<Duty> {
        Duty::ALL.into_iter().find(|duty| duty.as_str() == word)
    }
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The duty of one host; `None` where nobody ever set one, which means active.
///
/// # Errors
/// The control database cannot be read.
pub fn get(control: &Control, host: &str) -> Result<Option<DutyEntry>, ControlError> {
    control.read(|connection| {
        let sql = "SELECT host, duty, set_by, reason, set_at FROM duty WHERE host = ?1";
        connection.query_row(sql, [host], entry).optional()
    })
}

/// Sets the duty of one host, on an operator's word.
///
/// # Errors
/// The control database cannot be written; the duty is as before.
pub fn set(control: &Control, entry: &DutyEntry) -> Result<(), ControlError> {
    control.write(|transaction| {
        transaction.execute(
            "INSERT INTO duty (host, duty, set_by, reason, set_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (host) DO UPDATE SET duty = ?2, set_by = ?3, reason = ?4, set_at = ?5",
            (&entry.host, entry.duty.as_str(), &entry.set_by, &entry.reason, entry.set_at),
        )?;
        Ok(())
    })
}

/// All hosts whose duty was ever set, sorted by name.
///
/// # Errors
/// The control database cannot be read.
pub fn list(control: &Control) -> Result<Vec<DutyEntry>, ControlError> {
    control.read(|connection| {
        let mut statement = connection.prepare("SELECT host, duty, set_by, reason, set_at FROM duty ORDER BY host")?;
        statement.query_map([], entry)?.collect()
    })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<DutyEntry> {
    let word: String = row.get(1)?;
    // The table's own check lets no other word in; if one is there all the same, the host is left alone.
    let duty = Duty::parse(&word).unwrap_or(Duty::Quarantined);
    Ok(DutyEntry { host: row.get(0)?, duty, set_by: row.get(2)?, reason: row.get(3)?, set_at: row.get(4)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_stands_and_survives() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.db");
        let said = |host: &str, duty, set_at| DutyEntry {
            host: host.to_owned(),
            duty,
            set_by: "ada".to_owned(),
            reason: "new disk".to_owned(),
            set_at,
        };
        {
            let control = Control::open(&path, MIGRATIONS).unwrap();
            set(&control, &said("web1", Duty::Draining, 1)).unwrap();
            set(&control, &said("web1", Duty::Maintenance, 2)).unwrap();
            set(&control, &said("db1", Duty::Quarantined, 3)).unwrap();
        }
        let control = Control::open(&path, MIGRATIONS).unwrap();
        assert_eq!(get(&control, "web1").unwrap(), Some(said("web1", Duty::Maintenance, 2)));
        assert_eq!(get(&control, "web2").unwrap(), None);
        let all = list(&control).unwrap();
        assert_eq!(all, [said("db1", Duty::Quarantined, 3), said("web1", Duty::Maintenance, 2)]);
        assert!(Duty::ALL.iter().all(|duty| Duty::parse(duty.as_str()) == Some(*duty)));
    }
}
