//! What senders told about metrics: type, help, unit by name. In memory for answers, in `control.db` for the next start. It
//! comes again with every batch, so it is written by maintenance and never delays an acknowledgement.

use std::collections::{BTreeMap, BTreeSet};

use super::control::{Control, ControlError, Migration};
use crate::query::source::MetricMetadata;

/// The table of this file in `control.db`.
pub const MIGRATION: Migration = (
    "store-metadata-1",
    "CREATE TABLE metric_metadata (
        name TEXT PRIMARY KEY, kind TEXT NOT NULL, help TEXT NOT NULL, unit TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;",
);

/// Metric names remembered; a fleet has some thousands. Further ones are left out of answers.
const NAMES_MAX: usize = 50_000;
/// Longest text kept, in bytes; longer help is cut at a character.
const TEXT_BYTES_MAX: usize = 1_024;

/// All that is known, and what of it is not yet written.
#[derive(Debug, Default)]
pub struct Metadata {
    known: BTreeMap<String, MetricMetadata>,
    unwritten: BTreeSet<String>,
}

impl Metadata {
    /// Reads what an earlier process wrote.
    ///
    /// # Errors
    /// `control.db` cannot be read.
    pub fn load(control: &Control) -> Result<Metadata, ControlError> {
        let known = control.read(|connection| {
            let mut statement = connection.prepare("SELECT name, kind, help, unit FROM metric_metadata")?;
            let rows = statement.query_map([], |row| {
                Ok((row.get(0)?, MetricMetadata { kind: row.get(1)?, help: row.get(2)?, unit: row.get(3)? }))
            })?;
            rows.collect()
        })?;
        Ok(Metadata { known, unwritten: BTreeSet::new() })
    }

    /// Takes what a batch told. Returns how many names found no room.
    pub fn learn(&mut self, told: Vec<(String, MetricMetadata)>) -> u64 {
        let mut left_out = 0;
        for (name, mut metadata) in told {
            cut(&mut metadata.help);
            cut(&mut metadata.unit);
            if self.known.get(&name) == Some(&metadata) {
                continue;
            }
            if name.len() > TEXT_BYTES_MAX || (self.known.len() >= NAMES_MAX && !self.known.contains_key(&name)) {
                left_out += 1;
                continue;
            }
            self.unwritten.insert(name.clone());
            self.known.insert(name, metadata);
        }
        left_out
    }

    /// All that is known, sorted by name.
    pub fn all(&self) -> Vec<(String, MetricMetadata)> {
        self.known.iter().map(|(name, metadata)| (name.clone(), metadata.clone())).collect()
    }

    /// What is not yet written; the caller writes it with [`write`], or gives it back with [`Metadata::not_written`].
    pub fn take_unwritten(&mut self) -> Vec<(String, MetricMetadata)> {
        let names = std::mem::take(&mut self.unwritten);
        names.into_iter().filter_map(|name| self.known.get(&name).cloned().map(|metadata| (name, metadata))).collect()
    }

    /// Notes that writing failed.
    pub fn not_written(&mut self, rows: Vec<(String, MetricMetadata)>) {
        self.unwritten.extend(rows.into_iter().map(|(name, _)| name));
    }
}

/// Writes rows to `control.db`.
///
/// # Errors
/// The disk is full or fails.
pub fn write(control: &Control, rows: &[(String, MetricMetadata)]) -> Result<(), ControlError> {
    if rows.is_empty() {
        return Ok(());
    }
    control.write(|tx| {
        let mut statement = tx.prepare_cached(
            "INSERT INTO metric_metadata (name, kind, help, unit) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, help = excluded.help, unit = excluded.unit",
        )?;
        for (name, metadata) in rows {
            statement.execute((name, &metadata.kind, &metadata.help, &metadata.unit))?;
        }
        Ok(())
    })
}

fn cut(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
}
