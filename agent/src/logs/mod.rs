//! Logs: tail files through rotation and truncation, mine templates, keep what is new or severe.

use petrel_models::Timestamp;

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
