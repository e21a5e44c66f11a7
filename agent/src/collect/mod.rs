//! Collectors: one file per source, each turning kernel text into series with node_exporter's names, types and labels.
//! A collector reads; it never decides, and one that fails never stops the others. Read on in `collectors`.

mod apart;
mod asked;
mod attribute;
mod cluster;
mod collectors;
pub(crate) mod columns;
mod config;
pub mod exposition;
mod guests;
pub(crate) mod hardware;
pub mod hostile;
mod kernel;
mod kernel_file;
mod network;
mod storage;
mod system;
mod tables;
pub mod text;
#[cfg(test)]
mod trial;
pub(crate) mod zone;

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub use self::collectors::Collectors;
pub use self::config::{CheckCollectConfigError, CollectConfig, RawCollectConfig, Roots};
pub(crate) use self::hardware::ipmi;

/// A source of samples on this host.
///
/// Contract: `collect` blocks and is called by one thread at a time. With [`Pace::WithRound`] it is called at every interval and
/// returns within about two seconds whatever the kernel does; what may take longer has a pace of its own. It appends whole
/// families, in the same order each time, none twice and label sets unique. After an error the families it appended
/// before stand, and the next call starts afresh. It reads no clock but to measure it, and never writes to the system.
pub trait Collector: Send {
    /// The collector's name: node_exporter's for the same source.
    fn name(&self) -> &'static str;

    /// When it is read.
    fn pace(&self) -> Pace {
        Pace::WithRound
    }

    /// Whether it runs unless the config says otherwise; no for what costs much or has very many series.
    fn is_default(&self) -> bool {
        true
    }

    /// Appends what the source says now.
    ///
    /// # Errors
    /// When the source cannot be read or makes no sense; [`CollectError::Absent`] when this kernel does not have it.
    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError>;
}

/// When a collector is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// With every round, on its thread: for kernel text that is read in well under a millisecond.
    WithRound,
    /// On a thread of its own: for children, sockets and whatever may hang. Rounds repeat the last reading.
    Apart {
        /// Time from one reading to the next; a shorter one than the round's interval means with every round.
        every: Duration,
        /// What a reading may take; beyond it the series end until it answers.
        within: Duration,
    },
}

/// Why a collector had nothing, or not everything, to say.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// This host does not have the source; nothing to worry about.
    #[error("{} is not there", path.display())]
    Absent {
        /// The file or program that is not there.
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
    /// A program that was asked did not answer, or said no.
    #[error("{0}")]
    Asked(String),
    /// A reading takes too long.
    #[error("no answer for {seconds} s; the source hangs or the host is very busy")]
    Late {
        /// How long it has run so far.
        seconds: u64,
    },
    /// The collector panicked.
    #[error("the collector broke off; that is a defect: please report it, and restart the agent to have it back")]
    Lost,
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

    /// Adds a point whose label names are not known beforehand; the labels must differ from those of every other point.
    pub fn push_owned(&mut self, labels: Vec<(Cow<'static, str>, Cow<'static, str>)>, value: f64) {
        self.points.push(Point { labels, value });
    }
}

/// What `--once` waits for slow sources.
const ONCE_PATIENCE: Duration = Duration::from_secs(10);

/// Collects once with every collector there is, also those that are off by default, and renders Prometheus text, as
/// `petrel-agent --once` prints it. Blocks, for ten seconds at most.
pub fn once(config: CollectConfig) -> String {
    text::render(&Collectors::new(&config.with_all()).collect_within(ONCE_PATIENCE))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use expect_test::expect_file;

    use super::*;

    /// The whole text for a made-up host, but what depends on the machine that runs the test.
    #[test]
    fn a_made_up_host() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/collect");
        // Which programs print the kernel's clock differs from machine to machine.
        let config = CollectConfig::at(&tree.join("proc"), &tree.join("sys")).leaving_out("timex");
        let text = once(config);
        let live = ["node_uname_info", "node_time_seconds ", "node_filesystem_", "petrel_"];
        let fixed: Vec<&str> = text.lines().filter(|line| !live.iter().any(|name| line.starts_with(name))).collect();
        expect_file!["../../testdata/collect/expected.prom"].assert_eq(&(fixed.join("\n") + "\n"));
    }
}
