//! Logs: tail files through rotation and truncation, mine templates, keep what is new or severe.
//!
//! The way of a line: `glob` finds files, `tail` reads whole lines of one, `follow` keeps to all of them through
//! rotation, `secrets` masks what nobody may see, `stamp` and `severity` read its head, `sift` mines its template and
//! decides whether it travels whole or as a count. `tails` is the rim: a thread of its own and the channel out of it.

mod config;
mod counts;
mod follow;
mod glob;
mod secrets;
mod severity;
mod sift;
mod stamp;
mod state;
mod tail;
mod tails;

use petrel_models::Timestamp;

pub use self::config::{CheckLogsConfigError, LogsConfig, RawLogsConfig};
pub use self::state::{FilePosition, Fingerprint, LogState};
pub use self::tails::{Clock, LogRound, LogTails};

/// One record that leaves the host. Lines that are neither new nor severe travel as counts only.
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
