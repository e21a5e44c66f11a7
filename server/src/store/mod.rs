//! Store: what was acknowledged is durable. SQLite files with one writer each, heads in memory, sealed chunks on disk.

mod agents;
pub mod archive;
pub mod backlog;
mod backup;
mod cardinality;
mod chunk;
mod column;
mod compact;
pub mod control;
mod days;
mod delete;
mod engine;
mod expire;
mod head;
pub mod hostile;
mod index;
mod journal;
mod load;
mod lock;
pub mod log_search;
mod log_templates;
pub mod loglines;
mod maintain;
pub mod marks;
mod metadata;
mod numbered;
mod options;
pub mod packed;
mod postings;
mod record;
pub mod repair;
pub mod restore;
mod rollup;
mod salvage;
mod seal;
mod select;
mod shared;
mod sqlite;
#[cfg(test)]
mod tests;
mod unlinked;
mod varint;
pub mod verify;
mod wal;
mod writer;

use std::sync::Arc;

pub use backup::BackupError;
pub use cardinality::{Cardinality, Count};
pub use delete::{DeleteError, Deleted};
pub use engine::{Known, OpenStoreError, Store, StoreStats};
pub use index::{Finder, Series, SeriesId};
pub use maintain::MaintainError;
pub use options::{RawStoreOptions, StoreOptions, StoreOptionsError, parse_retention};
pub use shared::AppendError;

use petrel_agent::stream::protocol::Class;

pub use crate::query::source::{MetricMetadata, SelectError, TimeRange};
use crate::series::{Labels, Sample};

/// Samples that are accepted or refused together, in one durable commit.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Samples of series that the store is known to have, from [`Store::known`]. Applied before `series`.
    pub rows: Vec<Row>,
    /// Series with their samples, in any order of time.
    pub series: Vec<(Labels, Vec<Sample>)>,
    /// What the sender told about metrics, by name.
    pub metadata: Vec<(String, MetricMetadata)>,
    /// The agent's place in its sequence; committed with the samples.
    pub mark: Option<Mark>,
    /// The server's own figures. Their series, some hundreds, are taken while memory is scarce, or nothing could say that it is.
    pub is_own: bool,
}

impl Batch {
    /// All samples with their labels.
    pub fn samples(&self) -> impl Iterator<Item = (&Labels, &Sample)> {
        let given = self.series.iter().flat_map(|(labels, samples)| samples.iter().map(move |sample| (labels, sample)));
        self.rows.iter().map(|row| (&row.series.labels, &row.sample)).chain(given)
    }
}

/// A sample of a series that the store has.
#[derive(Debug, Clone)]
pub struct Row {
    /// The series.
    pub series: Arc<Series>,
    /// The sample.
    pub sample: Sample,
}

/// Samples of one committed batch, as [`Store::tap`] passes them on.
pub type Accepted = Arc<Vec<Row>>;

/// A batch's place in an agent's sequence, from the headers of `petrel_agent::stream::protocol`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The agent's id.
    pub agent: String,
    /// Random number of the agent's spool.
    pub epoch: String,
    /// Class of the batch.
    pub class: Class,
    /// Number in the class, from 1 on.
    pub seq: u64,
}

/// What became of a batch that is now durable.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Committed {
    /// The batch had been committed before; nothing was stored again.
    pub duplicate: bool,
    /// Samples stored.
    pub accepted: u64,
    /// Samples refused, with the reason; the rest of the batch stands.
    pub refused: Vec<Refused>,
}

/// A sample that was not stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Its series.
    pub labels: Labels,
    /// The sample.
    pub sample: Sample,
    /// Why.
    pub reason: RefusedReason,
}

/// Why a sample was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusedReason {
    /// More than ten minutes ahead of the server's clock.
    Future,
    /// Older than the retention.
    TooOld,
    /// In a day whose raw samples the retention took: there are only rollups of it, and nothing can be added to them.
    Closed,
    /// There are `store.series_max` series.
    SeriesLimit,
    /// There are `store.series_per_source_max` series of its instance.
    SourceLimit,
    /// Memory is near `memory_max`.
    MemoryLimit,
}

impl RefusedReason {
    /// All reasons.
    pub const ALL: [RefusedReason; 6] = [
        RefusedReason::Future,
        RefusedReason::TooOld,
        RefusedReason::Closed,
        RefusedReason::SeriesLimit,
        RefusedReason::SourceLimit,
        RefusedReason::MemoryLimit,
    ];

    /// As `petrel_ingest_samples_total` counts it.
    pub fn outcome(self) -> &'static str {
        match self {
            RefusedReason::Future => "future",
            RefusedReason::TooOld => "too_old",
            RefusedReason::Closed => "closed",
            RefusedReason::SeriesLimit => "series_limit",
            RefusedReason::SourceLimit => "source_limit",
            RefusedReason::MemoryLimit => "memory_limit",
        }
    }
}
