//! Logs: tail files through rotation and truncation, mine templates, keep what is new or severe.
//!
//! The way of a line: `glob` finds files, `tail` reads whole lines of one (`join`: a stack trace is one), `follow` keeps to all
//! of them through rotation; `journal` and `kmsg` are the other sources. `secrets` masks what nobody may see, `stamp` and
//! `severity` read its head, `precursor` knows what announces trouble, `sift` mines its template and decides whether it travels
//! whole, with the lines around it (`context`), or as a count. `tails` is the rim: a thread of its own and the channel out of it.
//! Nothing leaves this module unmasked.

mod config;
mod context;
mod counts;
mod follow;
mod glob;
mod inlets;
mod join;
mod journal;
mod kmsg;
mod precursor;
mod secrets;
mod severity;
mod sift;
mod stamp;
mod state;
mod tail;
mod tails;

use petrel_models::Timestamp;

pub use self::config::{CheckLogsConfigError, LogsConfig, RawJournalConfig, RawLogsConfig, Wanted};
pub use self::journal::JournalPosition;
pub use self::kmsg::KmsgPosition;
pub use self::precursor::PrecursorError;
pub use self::secrets::masked;
pub use self::state::{FilePosition, Fingerprint, LogState};
pub use self::tails::{Clock, LogCounts, LogRound, LogTails};

/// One record that leaves the host. Most lines travel as counts only.
#[derive(Debug, Clone, PartialEq)]
pub struct LogRecord {
    /// When the line was written, as far as it says so; otherwise when it was read.
    pub at: Timestamp,
    /// Path of the file, or `journal`, or `kmsg`.
    pub source: String,
    /// The line's level.
    pub severity: Severity,
    /// Identity of the line's template: sixteen hexadecimal digits, stable across restarts.
    pub template_id: String,
    /// The template's text, `<*>` where values stood.
    pub template: String,
    /// The whole line, secrets masked.
    pub body: String,
    /// The systemd unit it is of; empty where there is none.
    pub unit: String,
    /// What it announces: a name of the precursor library; empty for most.
    pub precursor: String,
    /// Why it travels whole.
    pub why: Why,
}

/// Why a line travels whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It announces trouble.
    Precursor,
    /// Its template was not seen before.
    New,
    /// Its template was not seen for an hour.
    Rare,
    /// It is a warning or worse.
    Severe,
    /// The config says that all lines of its source do.
    Configured,
    /// It stands beside such a line.
    Context,
}

impl Why {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Why::Precursor => "precursor",
            Why::New => "new",
            Why::Rare => "rare",
            Why::Severe => "severe",
            Why::Configured => "configured",
            Why::Context => "context",
        }
    }
}

/// OpenTelemetry's severities, as far as log lines have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Debug and below.
    Debug,
    /// Informational, and where nothing is said.
    Info,
    /// Warning.
    Warn,
    /// Error.
    Error,
    /// Critical, alert, emergency, panic.
    Fatal,
}

impl Severity {
    /// All, least first.
    pub const ALL: [Severity; 5] = [Severity::Debug, Severity::Info, Severity::Warn, Severity::Error, Severity::Fatal];

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Debug => "debug",
            Severity::Info => "info",
            Severity::Warn => "warn",
            Severity::Error => "error",
            Severity::Fatal => "fatal",
        }
    }
}

/// Bytes as they could come from the journal, from the kernel or out of a file, whatever they are: for fuzzing.
pub fn hostile(bytes: &[u8]) {
    static CONFIG: std::sync::LazyLock<LogsConfig> =
        std::sync::LazyLock::new(|| RawLogsConfig::default().check().expect("the defaults are right, as a test shows"));
    let mut sift = sift::Sift::new(&CONFIG, &[], crate::collect::zone::Zone::utc());
    let (mut counts, mut records) = (counts::Counts::default(), Vec::new());
    let mut take = |source: &str, bytes: &[u8]| {
        let line = sift::Line { source, unit: "", bytes, stated: None };
        sift.line(&line, 1_790_000_000_000, &mut counts, &mut records);
    };
    bytes.split(|byte| *byte == b'\n').for_each(|line| take("/var/log/syslog", line));
    let mut text = String::new();
    journal::export::ExportReader::new(1024).feed(bytes, &mut |entry| {
        entry.line(&mut text);
        take("journal", text.as_bytes());
        true
    });
    let _ = kmsg::parse(&String::from_utf8_lossy(bytes));
}
