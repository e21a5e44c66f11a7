//! What the detectors learned, in control.db, so that a restart does not make the server forget what is normal.
//!
//! Series are spread over shards by a hash of their labels; one shard is one row and one commit, and a few are written at
//! each tick, so that saving never holds the database for long. A lost save costs minutes of learning, nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use super::Tracked;
use crate::series::{Labels, Timestamp};
use crate::store::control::{Control, ControlError, Migration};
use crate::store::packed;
use crate::telemetry;

/// Tables of the scorer.
pub const MIGRATIONS: &[Migration] = &[(
    "score-1",
    "CREATE TABLE score_state (
         shard INTEGER PRIMARY KEY,
         version INTEGER NOT NULL,
         saved_at INTEGER NOT NULL,
         series BLOB NOT NULL
     ) STRICT",
)];

/// Version of the blobs: postcard, packed by zstd, which takes a quarter of the room. Another version than this or
/// [`VERSION_PLAIN`] is not read: detectors then start anew, which is said in the log.
const VERSION: i64 = 2;
/// Postcard alone.
const VERSION_PLAIN: i64 = 1;
/// zstd's fastest: most of what it finds are labels.
const LEVEL: i32 = 1;
/// At 200,000 series a shard is about 3,000 of them and 1 MB.
const SHARDS: u64 = 64;

/// One series in a blob.
type Entry = (Vec<(String, String)>, Tracked);

/// Where the learned state is kept.
pub struct Memory {
    control: Arc<Control>,
    shard_next: u64,
}

impl Memory {
    /// Reads what was saved, `series_max` at most.
    pub fn open(control: Arc<Control>, series_max: usize) -> Result<(Memory, HashMap<Labels, Tracked>), ControlError> {
        let rows: Vec<(i64, Vec<u8>)> = control.read(|connection| {
            let mut statement = connection.prepare("SELECT version, series FROM score_state ORDER BY shard")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })?;
        let mut series = HashMap::new();
        for (version, blob) in rows {
            let Some(entries) = entries(version, &blob) else {
                telemetry::SCORE_STATE_FAILURES.with_label_values(&["read"]).inc();
                tracing::warn!(version, "saved detectors cannot be read; they learn anew");
                continue;
            };
            let room = series_max.saturating_sub(series.len());
            series.extend(entries.into_iter().take(room).map(|(pairs, tracked)| (Labels::new(pairs), tracked)));
        }
        Ok((Memory { control, shard_next: 0 }, series))
    }

    /// The shards whose turn it is: all of them come within `parts` calls.
    pub fn next_shards(&mut self, parts: i64) -> (u64, u64) {
        let count = SHARDS.div_ceil(u64::try_from(parts).unwrap_or(1).max(1));
        let from = self.shard_next;
        self.shard_next = (from + count) % SHARDS;
        (from, count)
    }

    /// Saves some shards. A failure is counted and tried again at their next turn.
    pub fn save_some<'a>(
        &self,
        series: impl Iterator<Item = (&'a Labels, &'a Tracked)>,
        shards: (u64, u64),
        now: Timestamp,
    ) {
        if let Err(error) = self.save(series, shards, now) {
            telemetry::SCORE_STATE_FAILURES.with_label_values(&["write"]).inc();
            tracing::warn!(%error, source = ?std::error::Error::source(&error), "detectors cannot be saved");
        }
    }

    /// Saves all shards.
    pub fn save_all<'a>(
        &self,
        series: impl Iterator<Item = (&'a Labels, &'a Tracked)>,
        now: Timestamp,
    ) -> Result<(), ControlError> {
        self.save(series, (0, SHARDS), now)
    }

    fn save<'a>(
        &self,
        series: impl Iterator<Item = (&'a Labels, &'a Tracked)>,
        (from, count): (u64, u64),
        now: Timestamp,
    ) -> Result<(), ControlError> {
        let mut shards: Vec<Vec<Entry>> = vec![Vec::new(); count as usize];
        for (labels, tracked) in series {
            let place = (shard_of(labels) + SHARDS - from) % SHARDS;
            if place < count {
                let pairs = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                shards[place as usize].push((pairs, tracked.clone()));
            }
        }
        for (place, entries) in shards.iter().enumerate() {
            let shard = ((from + place as u64) % SHARDS) as i64;
            let plain =
                postcard::to_allocvec(entries).expect("plain values and sequences of known length always encode");
            let (version, blob) = match packed::pack(&plain, LEVEL) {
                Ok(blob) => (VERSION, blob),
                // zstd had no memory for its tables.
                Err(_) => (VERSION_PLAIN, plain),
            };
            self.control.write(|transaction| {
                transaction.execute(
                    "INSERT OR REPLACE INTO score_state (shard, version, saved_at, series) VALUES (?1, ?2, ?3, ?4)",
                    (shard, version, now, &blob),
                )
            })?;
        }
        Ok(())
    }
}

fn entries(version: i64, blob: &[u8]) -> Option<Vec<Entry>> {
    match version {
        VERSION => postcard::from_bytes(&packed::unpack(blob).ok()?).ok(),
        VERSION_PLAIN => postcard::from_bytes(blob).ok(),
        _ => None,
    }
}

/// FNV-1a over the labels: the same shard in every run and on every machine, which the standard hasher does not promise.
fn shard_of(labels: &Labels) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for (name, value) in labels {
        for byte in name.bytes().chain([0]).chain(value.bytes()).chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash % SHARDS
}
