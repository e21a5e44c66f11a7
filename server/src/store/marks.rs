//! Agents' high marks: how far each sequence (agent, epoch, class) is committed. A mark is committed in the same transaction as
//! what its batch carried: metrics in a journal file, logs and answers in `control.db`. Before a journal file is unlinked
//! its marks are committed to `control.db`, so at every instant at least one file holds each mark.

use std::collections::HashMap;

use petrel_agent::stream::protocol::Class;
use rusqlite::{Connection, OptionalExtension as _, Transaction, params};

use super::Mark;
use super::control::Migration;

/// The tables of this file in `control.db`, and the journal's own.
pub const MIGRATION: Migration = ("store-marks-1", TABLE);

/// One row per sequence; the same in every file that holds marks.
pub(super) const TABLE: &str = "CREATE TABLE mark (
    agent TEXT NOT NULL, epoch TEXT NOT NULL, class TEXT NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (agent, epoch, class)
) STRICT, WITHOUT ROWID;";

/// Epochs remembered per agent and class. A spool is born anew when a host is reinstalled; what an older one than these
/// sends again is stored again, which for samples changes nothing.
const EPOCHS_MAX: usize = 4;
/// Epochs kept in `control.db` per agent and class: more than in memory, because their age is not known there.
const EPOCHS_KEPT: i64 = 16;
/// Agents and classes remembered in memory: ten times the largest fleet of DESIGN section 1.
const SEQUENCES_MAX: usize = 300_000;

/// Commits a mark together with what `tx` writes. `false` where it was committed before: the caller then stores nothing.
///
/// # Errors
/// SQLite's word.
pub fn commit_mark(tx: &Transaction<'_>, mark: &Mark) -> rusqlite::Result<bool> {
    let seq = mark.seq as i64;
    let high: Option<i64> = tx
        .query_row(
            "SELECT seq FROM mark WHERE agent = ?1 AND epoch = ?2 AND class = ?3",
            params![mark.agent, mark.epoch, mark.class.as_str()],
            |row| row.get(0),
        )
        .optional()?;
    if high.is_some_and(|high| high >= seq) {
        return Ok(false);
    }
    raise(tx, mark)?;
    if high.is_none() {
        forget_epochs(tx, mark)?;
    }
    Ok(true)
}

/// Bounds the epochs that `control.db` keeps of a mark's agent and class; the mark's own stays, of the others those that came
/// furthest. Who makes up an epoch with each batch fills no disk.
pub(super) fn forget_epochs(connection: &Connection, mark: &Mark) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM mark WHERE agent = ?1 AND class = ?2 AND epoch IN (
                 SELECT epoch FROM mark WHERE agent = ?1 AND class = ?2 AND epoch <> ?3
                 ORDER BY seq DESC LIMIT -1 OFFSET ?4)",
        )?
        .execute(params![mark.agent, mark.class.as_str(), mark.epoch, EPOCHS_KEPT - 1])?;
    Ok(())
}

/// Raises a sequence's row to a mark; a higher one stays.
pub(super) fn raise(connection: &Connection, mark: &Mark) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO mark (agent, epoch, class, seq) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (agent, epoch, class) DO UPDATE SET seq = max(seq, excluded.seq)",
        )?
        .execute(params![mark.agent, mark.epoch, mark.class.as_str(), mark.seq as i64])?;
    Ok(())
}

/// All marks of a file.
pub(super) fn load(connection: &Connection) -> rusqlite::Result<Vec<Mark>> {
    let mut statement = connection.prepare("SELECT agent, epoch, class, seq FROM mark")?;
    let rows = statement.query_map([], |row| {
        let class: String = row.get(2)?;
        Ok((row.get(0)?, row.get(1)?, class, row.get::<_, i64>(3)?))
    })?;
    let mut marks = Vec::new();
    for row in rows {
        let (agent, epoch, class, seq) = row?;
        // A class of a newer version cannot be asked for by this one.
        if let Some(class) = Class::parse(&class) {
            marks.push(Mark { agent, epoch, class, seq: seq as u64 });
        }
    }
    Ok(marks)
}

/// The high marks of metrics in memory, for the writer: the union of `control.db` and all journal files.
#[derive(Debug, Default)]
pub struct HighMarks {
    sequences: HashMap<(String, Class), Vec<(String, u64)>>,
}

impl HighMarks {
    /// Whether a mark was committed before.
    pub fn contains(&self, mark: &Mark) -> bool {
        let key = (mark.agent.clone(), mark.class);
        self.sequences
            .get(&key)
            .is_some_and(|epochs| epochs.iter().any(|(epoch, seq)| *epoch == mark.epoch && *seq >= mark.seq))
    }

    /// Whether one more agent could not be remembered.
    pub fn is_full_for(&self, mark: &Mark) -> bool {
        self.sequences.len() >= SEQUENCES_MAX && !self.sequences.contains_key(&(mark.agent.clone(), mark.class))
    }

    /// Notes a committed mark; the epoch used longest ago gives way.
    pub fn raise(&mut self, mark: &Mark) {
        let epochs = self.sequences.entry((mark.agent.clone(), mark.class)).or_default();
        if let Some(at) = epochs.iter().position(|(epoch, _)| *epoch == mark.epoch) {
            let (epoch, seq) = epochs.remove(at);
            epochs.push((epoch, seq.max(mark.seq)));
        } else {
            if epochs.len() >= EPOCHS_MAX {
                epochs.remove(0);
            }
            epochs.push((mark.epoch.clone(), mark.seq));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::control::Control;
    use super::*;

    fn mark(epoch: &str, seq: u64) -> Mark {
        Mark { agent: "h1".to_owned(), epoch: epoch.to_owned(), class: Class::Logs, seq }
    }

    #[test]
    fn a_mark_commits_once() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::open(&dir.path().join("control.db"), &[MIGRATION]).unwrap();
        let commits = |epoch, seq| control.write(|tx| commit_mark(tx, &mark(epoch, seq))).unwrap();
        let seen =
            [commits("a", 1), commits("a", 1), commits("a", 5), commits("a", 4), commits("b", 1), commits("a", 6)];
        assert_eq!(seen, [true, false, true, false, true, true]);
    }

    #[test]
    fn made_up_epochs_are_forgotten_but_not_the_present_one() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::open(&dir.path().join("control.db"), &[MIGRATION]).unwrap();
        for n in 0..100 {
            assert!(control.write(|tx| commit_mark(tx, &mark(&format!("e{n}"), 1))).unwrap());
        }
        assert!(!control.write(|tx| commit_mark(tx, &mark("e99", 1))).unwrap());
        let rows: i64 = control.read(|c| c.query_row("SELECT count(*) FROM mark", [], |row| row.get(0))).unwrap();
        assert_eq!(rows, EPOCHS_KEPT);
    }

    #[test]
    fn high_marks_keep_the_latest_epochs() {
        let mut marks = HighMarks::default();
        for epoch in ["a", "b", "c", "d", "e"] {
            marks.raise(&mark(epoch, 7));
        }
        marks.raise(&mark("e", 3));
        assert!(!marks.contains(&mark("a", 1)));
        assert!(marks.contains(&mark("b", 7)) && !marks.contains(&mark("b", 8)));
        assert!(marks.contains(&mark("e", 7)));
    }
}
