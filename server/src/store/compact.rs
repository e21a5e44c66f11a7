//! Small chunks into larger ones, and a day that is over into as little room as it needs. Never changes what a query answers:
//! the order in which equal times override each other stays.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rusqlite::{Transaction, params};

use super::chunk::{self, CHUNK_SAMPLES_MAX, Effort};
use super::days::{DayError, DayFile, chunk_keys, put_series};
use super::engine::Store;
use super::head::{DAY_MS, merge};
use super::index::SeriesId;
use super::journal;
use super::maintain::{MaintainError, Maintenance};
use super::seal::{SLICE_SERIES, encode_failed};
use super::varint::DecodeError;
use crate::query::source::TimeRange;
use crate::series::{Labels, Sample, Timestamp};

/// A chunk of this many samples is merged no more: above it there is little to gain.
pub const MERGED_SAMPLES_MIN: usize = 720;
/// A day's file is compacted when the day has been over for this long: late samples mostly come within it.
const COMPACT_AFTER_MS: i64 = 2 * 3_600_000;
/// A day is compacted once in this time at most, however often late samples touch it: compacting writes all of its file anew.
const COMPACT_EVERY: Duration = Duration::from_secs(600);
const ALL: TimeRange = TimeRange { from: Timestamp::MIN, to: Timestamp::MAX };

impl Store {
    /// Compacts the oldest day that is over and was written to since it was compacted, unless that was a moment ago.
    pub(super) fn compact_one(&self, maintenance: &mut Maintenance, now: Timestamp) -> Result<(), MaintainError> {
        maintenance.compacted.retain(|_, at| at.elapsed() < COMPACT_EVERY);
        for file in self.shared.days.all() {
            let over = (i64::from(file.day) + 1) * DAY_MS + COMPACT_AFTER_MS < now;
            let is_leaving = maintenance.leaving.contains_key(&file.day);
            if over && !is_leaving && !maintenance.compacted.contains_key(&file.day) && !is_compacted(&file)? {
                maintenance.compacted.insert(file.day, Instant::now());
                self.compact(&file)?;
                break;
            }
        }
        Ok(())
    }

    /// Merges all small chunks of a day and gives the room back.
    pub(super) fn compact(&self, file: &DayFile) -> Result<(), DayError> {
        if is_compacted(file)? {
            return Ok(());
        }
        let all = file.series()?;
        // Notes of what is sealed may only go where it is known which journals are left.
        let Ok(journals) = journal::list(&self.shared.dir) else { return Ok(()) };
        let unlinked = journals.first().map(|(number, _)| *number);
        let floor = journal::first_position(unlinked.unwrap_or(self.shared.active_journal()));
        for slice in all.chunks(SLICE_SERIES) {
            file.write(|tx| {
                for (id, _) in slice {
                    merge_where_whole(file, tx, *id)?;
                }
                Ok(())
            })?;
        }
        file.write(|tx| {
            let series: BTreeMap<SeriesId, &Labels> = all.iter().map(|(id, labels)| (*id, labels)).collect();
            let listed: Vec<(SeriesId, &Labels)> = series.into_iter().collect();
            let rewrite = || {
                tx.execute("DELETE FROM series", [])?;
                for block in listed.chunks(SLICE_SERIES) {
                    put_series(tx, block)?;
                }
                // What was replayed from unlinked journals cannot be replayed again.
                tx.execute("DELETE FROM sealed WHERE through < ?1", [floor as i64])?;
                tx.execute("INSERT OR REPLACE INTO compacted (at) VALUES (1)", [])
            };
            rewrite().map(drop).map_err(|source| file.failed(source))
        })?;
        file.shrink()
    }
}

/// Whether nothing was written to a day since it was compacted.
pub fn is_compacted(file: &DayFile) -> Result<bool, DayError> {
    file.read(|connection| {
        connection
            .query_row("SELECT EXISTS (SELECT 1 FROM compacted)", [], |row| row.get(0))
            .map_err(|source| file.failed(source))
    })
}

/// As [`merge_tail`], which only saves room: where a chunk is damaged those of its series stay as they are.
pub fn merge_where_whole(file: &DayFile, tx: &Transaction<'_>, id: SeriesId) -> Result<(), DayError> {
    match merge_tail(file, tx, id) {
        // Chunks are decoded before the first is changed.
        Err(error @ DayError::Damaged { .. }) => {
            file.skip_damage("merge", &error);
            Ok(())
        }
        merged => merged,
    }
}

/// Merges the chunks of a series from the first small one on: all that were accepted after it are behind it, so that the order
/// in which equal times override each other stays.
fn merge_tail(file: &DayFile, tx: &Transaction<'_>, id: SeriesId) -> Result<(), DayError> {
    let failed = |source| file.failed(source);
    let (first, last) = chunk_keys(id);
    let mut statement =
        tx.prepare_cached("SELECT key, body FROM chunk WHERE key BETWEEN ?1 AND ?2 ORDER BY key").map_err(failed)?;
    let mut rows = statement.query([first, last]).map_err(failed)?;
    let mut samples: Vec<Sample> = Vec::new();
    let (mut begin, mut merged) = (0, 0);
    while let Some(row) = rows.next().map_err(failed)? {
        let key: i64 = row.get(0).map_err(failed)?;
        let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(failed)?;
        let damaged = |source: DecodeError| file.damaged("chunk", key, source);
        if merged == 0 {
            if chunk::span(body).map_err(damaged)?.0 >= MERGED_SAMPLES_MIN {
                continue;
            }
            begin = key;
        }
        merged += 1;
        let end = samples.len();
        chunk::decode_within(body, ALL, &mut samples).map_err(damaged)?;
        if end > 0 && samples[end - 1].t >= samples[end].t {
            let newer = samples.split_off(end);
            samples = merge(samples, &newer);
        }
    }
    if merged < 2 {
        return Ok(());
    }
    tx.prepare_cached("DELETE FROM chunk WHERE key BETWEEN ?1 AND ?2")
        .and_then(|mut delete| delete.execute([begin, last]))
        .map_err(failed)?;
    let mut insert = tx.prepare_cached("INSERT INTO chunk (key, body) VALUES (?1, ?2)").map_err(failed)?;
    for (key, part) in (begin..).zip(samples.chunks(CHUNK_SAMPLES_MAX)) {
        let body = chunk::encode(part, Effort::Best).map_err(|error| encode_failed(file, error))?;
        insert.execute(params![key, body]).map_err(failed)?;
    }
    Ok(())
}
