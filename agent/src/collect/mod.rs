//! Collectors: one file per source, each turning kernel text into series with node_exporter's names, types and labels.
//! A collector reads; it never decides, and one that fails never stops the others. Read on in `collectors`.

mod collectors;
mod config;
mod cpu;
mod cpu_info;
mod diskstats;
mod filesystem;
mod kernel_file;
mod loadavg;
mod meminfo;
mod mounts;
mod netdev;
mod pressure;
mod stat;
mod statfs;
pub mod text;
mod time;
mod uname;
mod vmstat;
pub(crate) mod zone;

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};

pub use self::collectors::Collectors;
pub use self::config::{CheckCollectConfigError, CollectConfig, RawCollectConfig, Roots};

/// A source of samples on this host.
///
/// Contract: `collect` blocks, is called from one thread at a time and at every interval, and returns within about two
/// seconds whatever the kernel does; a read that may hang is made by a thread of the collector's own. It appends whole
/// families, in the same order each time, none twice and label sets unique. After an error the families it appended
/// before stand, and the next call starts afresh. It reads no clock but to measure it, and never writes to the system.
pub trait Collector: Send {
    /// The collector's name: node_exporter's for the same source.
    fn name(&self) -> &'static str;

    /// Appends what the source says now.
    ///
    /// # Errors
    /// When the source cannot be read or makes no sense; [`CollectError::Absent`] when this kernel does not have it.
    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError>;
}

/// Why a collector had nothing, or not everything, to say.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// This kernel does not offer the source; nothing to worry about.
    #[error("{} is not offered by this kernel", path.display())]
    Absent {
        /// The file that is not there.
        path: PathBuf,
    },
    /// The source is there and cannot be read.
    #[error("{} cannot be read; check that the agent may read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel answered.
        #[source]
        source: io::Error,
    },
    /// The source holds something this collector does not understand.
    #[error("{} holds a line that is not understood: {line:?}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, cut to a bearable length.
        line: String,
    },
}

/// One metric with all its points, as a collector saw it at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Metric name, for example `node_cpu_seconds_total`.
    pub name: Cow<'static, str>,
    /// What Prometheus calls its type.
    pub kind: Kind,
    /// One sentence for people.
    pub help: Cow<'static, str>,
    /// The points; label sets are unique.
    pub points: Vec<Point>,
}

/// The types that collectors produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until a restart.
    Counter,
    /// Goes up and down.
    Gauge,
    /// The kernel does not say.
    Untyped,
}

/// One value with its labels; `job` and `instance` come later.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Label names and values.
    pub labels: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The value.
    pub value: f64,
}

impl Family {
    /// A family without points yet.
    pub fn new(kind: Kind, name: impl Into<Cow<'static, str>>, help: impl Into<Cow<'static, str>>) -> Family {
        Family { name: name.into(), kind, help: help.into(), points: Vec::new() }
    }

    /// The same family with one more point that has no labels.
    pub fn with(mut self, value: f64) -> Family {
        self.push(&[], value);
        self
    }

    /// Adds a point; the labels must differ from those of every other point.
    pub fn push(&mut self, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, text)| (Cow::Borrowed(*name), Cow::Owned((*text).to_owned()))).collect();
        self.points.push(Point { labels, value });
    }
}

/// Collects once from the given roots and renders Prometheus text, as `petrel-agent --once` prints it. Blocks.
pub fn once(procfs: &Path, sysfs: &Path) -> String {
    text::render(&Collectors::new(&CollectConfig::at(procfs, sysfs)).collect())
}

#[cfg(test)]
mod tests {
    use expect_test::expect_file;

    use super::*;

    /// The whole text for a made-up host, but what depends on the machine that runs the test.
    #[test]
    fn a_made_up_host() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/collect");
        let text = once(&tree.join("proc"), &tree.join("sys"));
        let live = ["node_uname_info", "node_time_seconds ", "node_filesystem_", "petrel_"];
        let fixed: Vec<&str> = text.lines().filter(|line| !live.iter().any(|name| line.starts_with(name))).collect();
        expect_file!["../../testdata/collect/expected.prom"].assert_eq(&(fixed.join("\n") + "\n"));
    }
}
