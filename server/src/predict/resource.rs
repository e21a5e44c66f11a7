//! What can run out, and what exactly a prediction is about.

use petrel_models::forecast::Direction;
use serde::{Deserialize, Serialize};

use crate::series::Labels;

/// A kind of thing that runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Space on one file system.
    Filesystem,
    /// Memory of one host.
    Memory,
    /// Processor time of one host.
    Cpu,
}

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 3] = [Resource::Filesystem, Resource::Memory, Resource::Cpu];

    /// The word in labels and in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Resource::Filesystem => "filesystem",
            Resource::Memory => "memory",
            Resource::Cpu => "cpu",
        }
    }

    /// Reads the word of [`Resource::as_str`].
    pub fn parse(word: &str) -> Option<Resource> {
        Resource::ALL.into_iter().find(|resource| resource.as_str() == word)
    }

    /// The metric that is forecast, as in the label `of`.
    pub fn metric(self) -> &'static str {
        match self {
            Resource::Filesystem => "node_filesystem_avail_bytes",
            Resource::Memory => "node_memory_MemAvailable_bytes",
            Resource::Cpu => "node_cpu_seconds_total",
        }
    }

    /// From which side its limit is met.
    pub fn direction(self) -> Direction {
        match self {
            Resource::Filesystem | Resource::Memory => Direction::Below,
            Resource::Cpu => Direction::Above,
        }
    }
}

/// One thing that can run out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// What kind.
    pub resource: Resource,
    /// The source's labels without the metric name; of processors without `cpu` and `mode`.
    pub labels: Labels,
}

impl Subject {
    /// The host.
    pub fn instance(&self) -> &str {
        self.labels.get("instance").unwrap_or("")
    }

    /// Which of the host's things: the mount point of a file system, else the resource's word.
    pub fn what(&self) -> &str {
        self.labels.get("mountpoint").unwrap_or(self.resource.as_str())
    }
}
