//! Which templates of log lines are one. Hosts mine templates by themselves, and a template's identity is a hash of the line it was
//! born from: when two have widened to the same text, on one host or on several, they are the same kind of line under two
//! names. The one known later becomes an alias of the one known first. An alias always points at one that is none itself.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::control::Migration;
use super::loglines::LogLine;
use crate::series::Timestamp;

/// The table of this file in `control.db`. `alias_of` is empty for an identity that stands for itself.
pub const MIGRATION: Migration = (
    "store-log-templates-1",
    "CREATE TABLE log_template (
        id TEXT PRIMARY KEY, text TEXT NOT NULL, born INTEGER NOT NULL, seen INTEGER NOT NULL, alias_of TEXT NOT NULL DEFAULT ''
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX log_template_by_text ON log_template (text) WHERE alias_of = '';
    CREATE INDEX log_template_by_alias ON log_template (alias_of);
    CREATE INDEX log_template_by_seen ON log_template (seen);",
);

/// Templates remembered; those not seen for the longest time go first, a tenth at once.
const TEMPLATES_MAX: i64 = 100_000;

/// Notes the templates of lines that are about to be stored.
pub(super) fn note(tx: &Transaction<'_>, lines: &[LogLine], now: Timestamp) -> rusqlite::Result<()> {
    let named = lines.iter().filter(|line| !line.template_id.is_empty() && !line.template.is_empty());
    let templates: BTreeSet<(&str, &str)> =
        named.map(|line| (line.template_id.as_str(), line.template.as_str())).collect();
    let mut is_more = false;
    for template in templates {
        is_more |= note_one(tx, template, now)?;
    }
    // Counting takes a walk over all of them; lines bring new templates seldom.
    if !is_more {
        return Ok(());
    }
    let kept: i64 = tx.query_row("SELECT count(*) FROM log_template", [], |row| row.get(0))?;
    if kept > TEMPLATES_MAX {
        forget(tx, kept - TEMPLATES_MAX + TEMPLATES_MAX / 10)?;
    }
    Ok(())
}

/// The identities of the same template as this one, it among them, and the one that stands for all.
pub(super) fn same_as(connection: &Connection, id: &str) -> rusqlite::Result<(BTreeSet<String>, String)> {
    let head: Option<String> = connection
        .prepare_cached("SELECT coalesce(nullif(alias_of, ''), id) FROM log_template WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    let head = head.unwrap_or_else(|| id.to_owned());
    let mut aliases = connection.prepare_cached("SELECT id FROM log_template WHERE alias_of = ?1")?;
    let mut ids: BTreeSet<String> = aliases.query_map([&head], |row| row.get(0))?.collect::<Result<_, _>>()?;
    ids.insert(head.clone());
    Ok((ids, head))
}

/// Notes one template. Returns whether it was not known.
fn note_one(tx: &Transaction<'_>, (id, text): (&str, &str), now: Timestamp) -> rusqlite::Result<bool> {
    let known: Option<(String, Timestamp, String)> = tx
        .prepare_cached("SELECT text, born, alias_of FROM log_template WHERE id = ?1")?
        .query_row([id], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .optional()?;
    let born = known.as_ref().map_or(now, |(_, born, _)| *born);
    match &known {
        // What was the same once stays so, however each of them widens.
        Some((_, _, alias_of)) if !alias_of.is_empty() => {
            see(tx, id, now)?;
            see(tx, alias_of, now)?;
            return Ok(false);
        }
        Some((before, _, _)) if before == text => {
            see(tx, id, now)?;
            return Ok(false);
        }
        _ => {}
    }
    let same: Option<(String, Timestamp)> = tx
        .prepare_cached("SELECT id, born FROM log_template WHERE text = ?1 AND alias_of = '' AND id <> ?2")?
        .query_row([text, id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    tx.prepare_cached(
        "INSERT INTO log_template (id, text, born, seen) VALUES (?1, ?2, ?3, ?3)
         ON CONFLICT (id) DO UPDATE SET text = ?2, seen = ?4",
    )?
    .execute(params![id, text, born, now])?;
    if let Some((other, other_born)) = same {
        let (head, alias) = if other_born <= born { (other.as_str(), id) } else { (id, other.as_str()) };
        tx.prepare_cached("UPDATE log_template SET alias_of = ?2 WHERE id = ?1 OR alias_of = ?1")?
            .execute([alias, head])?;
        see(tx, head, now)?;
    }
    Ok(known.is_none())
}

/// Notes that it was seen: once an hour is enough to know which was not seen for longest.
fn see(tx: &Transaction<'_>, id: &str, now: Timestamp) -> rusqlite::Result<()> {
    let sql = "UPDATE log_template SET seen = ?2 WHERE id = ?1 AND seen < ?2 - 3600000";
    tx.prepare_cached(sql)?.execute(params![id, now])?;
    Ok(())
}

/// Takes out so many, and sets free the aliases of those that are gone.
fn forget(tx: &Transaction<'_>, count: i64) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM log_template WHERE id IN (SELECT id FROM log_template ORDER BY seen, id LIMIT ?1)",
        [count],
    )?;
    tx.execute(
        "DELETE FROM log_template WHERE alias_of <> '' AND alias_of NOT IN (SELECT id FROM log_template WHERE alias_of = '')",
        [],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATION.1).unwrap();
        connection
    }

    /// Tells of a template at this time, in hours.
    fn tell(connection: &mut Connection, id: &str, text: &str, hours: Timestamp) {
        let now = hours * 4_000_000;
        let line = LogLine {
            t: now,
            host: "h1".to_owned(),
            source: "journal".to_owned(),
            severity: 9,
            template_id: id.to_owned(),
            template: text.to_owned(),
            body: String::new(),
            unit: String::new(),
            precursor: String::new(),
            why: "new".to_owned(),
        };
        let tx = connection.transaction().unwrap();
        note(&tx, &[line], now).unwrap();
        tx.commit().unwrap();
    }

    fn rows(connection: &Connection) -> Vec<String> {
        let mut rows = connection.prepare("SELECT id, text, alias_of FROM log_template ORDER BY id").unwrap();
        let text = |row: &rusqlite::Row<'_>| {
            Ok(format!("{} {} {}", row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        };
        rows.query_map([], text).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn templates_that_widen_to_one_text_are_one_for_ever() {
        let mut connection = database();
        tell(&mut connection, "a", "disk sda failed", 1);
        tell(&mut connection, "b", "disk sdb failed", 2);
        assert_eq!(rows(&connection), ["a disk sda failed ", "b disk sdb failed "]);
        tell(&mut connection, "c", "disk <*> failed", 3);
        tell(&mut connection, "b", "disk <*> failed", 4);
        assert_eq!(rows(&connection)[1..], ["b disk <*> failed ", "c disk <*> failed b"]);
        tell(&mut connection, "a", "<*> <*> failed", 5);
        tell(&mut connection, "b", "<*> <*> failed", 6);
        assert_eq!(rows(&connection), ["a <*> <*> failed ", "b <*> <*> failed a", "c disk <*> failed a"]);
        let ids = ["a", "b", "c"].map(str::to_owned);
        for id in &ids {
            assert_eq!(same_as(&connection, id).unwrap(), (ids.clone().into(), "a".to_owned()));
        }
        assert_eq!(same_as(&connection, "unknown").unwrap(), (["unknown".to_owned()].into(), "unknown".to_owned()));
        tell(&mut connection, "", "nameless", 7);
        tell(&mut connection, "d", "", 7);
        assert_eq!(rows(&connection).len(), 3);
    }

    #[test]
    fn those_not_seen_for_long_are_forgotten_with_their_aliases() {
        let mut connection = database();
        for (id, text, now) in [("a", "x", 1), ("b", "x", 2), ("c", "y", 3), ("d", "y", 4)] {
            tell(&mut connection, id, text, now);
        }
        let tx = connection.transaction().unwrap();
        forget(&tx, 1).unwrap();
        tx.commit().unwrap();
        assert_eq!(
            rows(&connection),
            ["c y ", "d y c"],
            "an alias goes with its root, and keeps it alive while it is seen"
        );
        tell(&mut connection, "d", "y", 5);
        let tx = connection.transaction().unwrap();
        forget(&tx, 2).unwrap();
        tx.commit().unwrap();
        assert_eq!(rows(&connection), Vec::<String>::new());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        /// Whatever is told: an alias points at an identity that is there and stands for itself, and of those no two have one text.
        #[test]
        fn aliases_are_one_step_long(told in prop::collection::vec((0u8..6, 0u8..4), 0..40)) {
            let mut connection = database();
            for (now, (id, text)) in told.iter().enumerate() {
                tell(&mut connection, &format!("t{id}"), &format!("w{text}"), now as Timestamp);
            }
            let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
            let loose = "SELECT count(*) FROM log_template WHERE alias_of <> ''
                         AND alias_of NOT IN (SELECT id FROM log_template WHERE alias_of = '')";
            prop_assert_eq!(count(loose), 0);
            let twins = "SELECT count(*) FROM (SELECT 1 FROM log_template WHERE alias_of = '' GROUP BY text HAVING count(*) > 1)";
            prop_assert_eq!(count(twins), 0);
        }
    }
}
