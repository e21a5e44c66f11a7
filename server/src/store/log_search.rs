//! Log lines asked for. Lines are looked through page by page, and others get at the database between two pages: a question that
//! finds nothing in a million lines must not hold up the alerts that lie beside them.

use rusqlite::{Connection, OptionalExtension, params};

use super::control::ControlError;
use super::engine::Store;
use super::log_templates;
use super::loglines::{LogFilter, LogLine};
use crate::series::Timestamp;

/// Most lines that one question gets.
pub const RECENT_MAX: usize = 10_000;
/// Most bytes that it gets.
const RECENT_BYTES_MAX: usize = 16 << 20;
/// Lines looked through in one go: some milliseconds.
const PAGE_LINES: i64 = 10_000;

/// Where a page begins: before this time and number.
type Place = (Timestamp, i64);

/// What a page gave: lines that were wanted, and where the next page begins, if there may be more.
struct Page {
    lines: Vec<LogLine>,
    next: Option<Place>,
}

impl Store {
    /// The latest lines that fulfil a filter, latest first: `limit` of them, 10,000 and 16 MiB at most. Blocks on disk, for some
    /// seconds where a million lines are looked through.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn recent_logs(&self, filter: &LogFilter, limit: usize) -> Result<Vec<LogLine>, ControlError> {
        let control = &self.shared.control;
        let templates = match &filter.template_id {
            Some(id) => Some(control.read(|connection| log_templates::same_as(connection, id))?),
            None => None,
        };
        let limit = limit.min(RECENT_MAX);
        let (mut found, mut bytes) = (Vec::new(), 0);
        let mut place = Some((filter.to.unwrap_or(i64::MAX), i64::MAX));
        while let Some(from) = place {
            let page = control.read(|connection| page(connection, filter, from))?;
            let wanted = page
                .lines
                .into_iter()
                .filter(|line| templates.as_ref().is_none_or(|(ids, _)| ids.contains(&line.template_id)));
            for mut line in wanted {
                bytes += line.bytes();
                if found.len() == limit || bytes > RECENT_BYTES_MAX {
                    return Ok(found);
                }
                if let Some((_, head)) = &templates {
                    line.template_id.clone_from(head);
                }
                found.push(line);
            }
            place = page.next;
        }
        Ok(found)
    }
}

/// Looks through one page of the lines of a host, or of all, for what the filter says but the template.
fn page(connection: &Connection, filter: &LogFilter, (to, before): Place) -> rusqlite::Result<Page> {
    let of_host = if filter.host.is_some() { "host = ?1 AND" } else { "?1 IS NULL AND" };
    let lines = format!("FROM log_line WHERE {of_host} t >= ?2 AND (t, id) < (?3, ?4) ORDER BY t DESC, id DESC");
    let from = filter.from.unwrap_or(i64::MIN);
    let last: Option<Place> = connection
        .prepare_cached(&format!("SELECT t, id {lines} LIMIT 1 OFFSET {}", PAGE_LINES - 1))?
        .query_row(params![filter.host, from, to, before], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let mut statement = connection.prepare_cached(&format!(
        "SELECT t, host, source, severity, template_id, template, body, unit, precursor, why FROM (SELECT * {lines} LIMIT {PAGE_LINES})
         WHERE severity >= ?5 AND (?6 IS NULL OR instr(body, ?6) > 0) ORDER BY t DESC, id DESC"
    ))?;
    let rows =
        statement.query_map(params![filter.host, from, to, before, filter.severity_min, filter.contains], |row| {
            Ok(LogLine {
                t: row.get(0)?,
                host: row.get(1)?,
                source: row.get(2)?,
                severity: row.get(3)?,
                template_id: row.get(4)?,
                template: row.get(5)?,
                body: row.get(6)?,
                unit: row.get(7)?,
                precursor: row.get(8)?,
                why: row.get(9)?,
            })
        })?;
    Ok(Page { lines: rows.collect::<Result<_, _>>()?, next: last })
}
