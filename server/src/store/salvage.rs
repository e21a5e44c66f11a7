//! Rows of a database that may be damaged: read up to what cannot be read, find where it can be read again, and go on. Says where the
//! gaps are. Never writes.

use rusqlite::types::Value;
use rusqlite::{Connection, Row};

/// A stretch of row numbers that cannot be read, between two that can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The last row before it; `None` for the table's beginning.
    pub after: Option<i64>,
    /// The first row behind it; `None` for the table's end.
    pub before: Option<i64>,
}

/// A table of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The columns of its primary key where it has no row numbers.
    pub key: Option<Vec<String>>,
}

/// All tables with their statements, and the statements of everything else, in the order to run them.
///
/// # Errors
/// The list itself cannot be read.
pub fn tables(connection: &Connection) -> rusqlite::Result<(Vec<Table>, Vec<String>, Vec<String>)> {
    let mut statement = connection.prepare(
        "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid",
    )?;
    let rows: Vec<(String, String, String)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect::<rusqlite::Result<_>>()?;
    let (mut tables, mut of_tables, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for (kind, name, sql) in rows {
        if kind != "table" {
            others.push(sql);
            continue;
        }
        let has_rows = !sql.to_ascii_uppercase().contains("WITHOUT ROWID");
        let key = if has_rows { None } else { Some(key_of(connection, &name)?) };
        tables.push(Table { name, key });
        of_tables.push(sql);
    }
    Ok((tables, of_tables, others))
}

fn key_of(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// Reads every row that can be read, as values in the order of the columns. `each` gets the row's number (0 where the table has
/// none); a row may come twice where the table has no numbers.
pub fn rows(connection: &Connection, table: &Table, each: &mut dyn FnMut(i64, Vec<Value>)) -> Vec<Gap> {
    match &table.key {
        None => numbered(connection, &table.name, each),
        Some(key) => keyed(connection, &table.name, key, each),
    }
}

fn keyed(connection: &Connection, table: &str, key: &[String], each: &mut dyn FnMut(i64, Vec<Value>)) -> Vec<Gap> {
    let columns: Vec<String> = key.iter().map(|column| format!("\"{column}\" DESC")).collect();
    let forwards = run(connection, &format!("SELECT 0, * FROM \"{table}\""), i64::MIN, each);
    if forwards.is_ok() {
        return Vec::new();
    }
    // From the other end, up to the damage.
    let backwards = format!("SELECT 0, * FROM \"{table}\" ORDER BY {}", columns.join(", "));
    let _ = run(connection, &backwards, i64::MIN, each);
    vec![Gap { after: None, before: None }]
}

fn numbered(connection: &Connection, table: &str, each: &mut dyn FnMut(i64, Vec<Value>)) -> Vec<Gap> {
    let all = format!("SELECT rowid, * FROM \"{table}\" WHERE rowid >= ?1 ORDER BY rowid");
    let mut gaps: Vec<Gap> = Vec::new();
    let mut from = i64::MIN;
    let mut last = None;
    // Each turn gets beyond at least one row; a table of damage alone ends at the first.
    while let Err(reached) = run(connection, &all, from, each) {
        last = reached.or(last);
        let begin = last.map_or(i64::MIN, |last: i64| last.saturating_add(1)).max(from);
        let next = next_readable(connection, table, begin);
        let next = match next {
            // The row's number can be read and its body cannot.
            Some(next) if next == from => next_readable(connection, table, next.saturating_add(1)),
            next => next,
        };
        match gaps.last_mut() {
            Some(gap) if gap.after == last => gap.before = next,
            _ => gaps.push(Gap { after: last, before: next }),
        }
        match next {
            Some(next) => from = next,
            None => break,
        }
    }
    gaps
}

/// Runs a question from a row on; on damage, the last row that came.
fn run(
    connection: &Connection,
    sql: &str,
    from: i64,
    each: &mut dyn FnMut(i64, Vec<Value>),
) -> Result<(), Option<i64>> {
    let mut last = None;
    let mut ask = || {
        let mut statement = connection.prepare(sql)?;
        let columns = statement.column_count();
        let mut rows = if statement.parameter_count() == 0 { statement.query([])? } else { statement.query([from])? };
        while let Some(row) = rows.next()? {
            let (number, values) = values(row, columns)?;
            each(number, values);
            last = Some(number);
        }
        Ok::<(), rusqlite::Error>(())
    };
    ask().map_err(|_| last)
}

fn values(row: &Row<'_>, columns: usize) -> rusqlite::Result<(i64, Vec<Value>)> {
    Ok((row.get(0)?, (1..columns).map(|at| row.get(at)).collect::<rusqlite::Result<_>>()?))
}

/// The first row from `from` on that can be found, as far as leaps of powers of two and halving find it.
fn next_readable(connection: &Connection, table: &str, from: i64) -> Option<i64> {
    let sql = format!("SELECT rowid FROM \"{table}\" WHERE rowid >= ?1 ORDER BY rowid LIMIT 1");
    let probe = |at: i64| -> Option<Option<i64>> {
        let mut statement = connection.prepare_cached(&sql).ok()?;
        let mut rows = statement.query([at]).ok()?;
        rows.next().ok()?.map_or(Some(None), |row| row.get(0).ok().map(Some))
    };
    // Numbers below zero are not used by us; leaps begin where rows can be.
    let (from, mut bad) = (from.max(0), from.max(0) - 1);
    for leap in 0..63 {
        let at = from.saturating_add((1i64 << leap) - 1);
        let Some(found) = probe(at) else {
            bad = at;
            continue;
        };
        let (mut low, mut high, mut best) = (bad, at, found);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match probe(middle) {
                Some(found) => (high, best) = (middle, found),
                None => low = middle,
            }
        }
        return best;
    }
    None
}
