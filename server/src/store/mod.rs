//! Store: what was acknowledged is durable. SQLite files with one writer each, heads in memory, sealed chunks on disk.

pub mod control;

use petrel_agent::stream::protocol::Class;

use crate::query::source::MetricMetadata;
use crate::series::{Labels, Sample};

/// Samples that are accepted or refused together, in one durable commit.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Series with their samples, in any order of time.
    pub series: Vec<(Labels, Vec<Sample>)>,
    /// What the sender told about metrics, by name.
    pub metadata: Vec<(String, MetricMetadata)>,
    /// The agent's place in its sequence; committed with the samples.
    pub mark: Option<Mark>,
}

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
    /// A limit on series was met.
    SeriesLimit,
}
