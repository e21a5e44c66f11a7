//! What the log tails may be told: which files, and how much of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::precursor::{PrecursorError, Precursors};
use super::{glob, journal};
use crate::units::Bytes;

/// Logs as written in the agent's config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLogsConfig {
    /// Whether log files are read at all.
    pub enabled: bool,
    /// Files to follow: absolute paths, with `*` and `?` inside a name. Rotated and compressed copies are left out.
    pub files: Vec<String>,
    /// The systemd journal.
    pub journal: RawJournalConfig,
    /// Read the kernel's messages from `/dev/kmsg`: `auto` where the journal, which has them too, is not followed.
    pub kmsg: Wanted,
    /// Sources of which every line travels whole: patterns of files, `journal`, `journal:UNIT` with `*` and `?`, `kmsg`.
    pub whole: Vec<String>,
    /// Files with precursors of this host's own, beside the shipped ones.
    pub precursors: Vec<PathBuf>,
    /// Names of shipped precursors to leave out.
    pub precursors_without: Vec<String>,
    /// Hand the lines of a stack trace on as one.
    pub join_traces: bool,
    /// Lines before and after a line that travels whole that go with it, 0 to 20.
    pub context_lines: usize,
    /// Read a file seen for the first time from its beginning; otherwise only what is written from then on.
    pub from_beginning: bool,
    /// Longest line that is kept; what is longer is cut and counted. 1KiB to 1MiB.
    pub line_bytes_max: Bytes,
    /// Most files followed at once, 1 to 1000.
    pub files_max: usize,
    /// Most templates kept in memory, 100 to 100000.
    pub templates_max: usize,
    /// Most lines of one template that travel whole in a minute, 1 to 10000; the rest are counted.
    pub whole_lines_per_minute: u32,
    /// Most lines of all templates that travel whole in a minute, lines around them included, 10 to 1000000; the rest are
    /// counted. Lines of `whole` have no such limit.
    pub lines_per_minute: u32,
}

/// The journal as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawJournalConfig {
    /// `auto`: where this host has one.
    pub follow: Wanted,
    /// Folder of the journal's files instead of the system's.
    pub directory: Option<PathBuf>,
    /// The program that reads it.
    pub journalctl: PathBuf,
    /// Files that hold the same lines once more: not followed while the journal is, though `files` names them.
    pub copies: Vec<String>,
}

/// Whether a source is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// Where it makes sense.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Logs as checked.
#[derive(Debug, Clone)]
pub struct LogsConfig {
    raw: RawLogsConfig,
    pub(super) files: Vec<String>,
    pub(super) precursors: Arc<Precursors>,
    pub(super) whole: Vec<String>,
    pub(super) join_traces: bool,
    pub(super) context_lines: usize,
    pub(super) lines_per_minute: u32,
    pub(super) from_beginning: bool,
    pub(super) line_bytes_max: usize,
    pub(super) files_max: usize,
    pub(super) templates_max: usize,
    pub(super) whole_lines_per_minute: u32,
    pub(super) localtime: PathBuf,
    pub(super) templates_file: Option<PathBuf>,
}

impl PartialEq for LogsConfig {
    /// What was checked is equal if what was written is.
    fn eq(&self, other: &LogsConfig) -> bool {
        self.raw == other.raw && self.templates_file == other.templates_file
    }
}

/// The kernel's messages.
const KMSG: &str = "/dev/kmsg";

/// What there is to follow on this host, beside files.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub(super) journal: Option<journal::JournalSource>,
    /// Patterns of files that are left out for the journal's sake.
    pub(super) copies: Vec<String>,
    pub(super) kmsg: Option<PathBuf>,
}

/// What is wrong with the config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckLogsConfigError {
    /// A pattern that cannot be followed.
    #[error("files: {0:?} is not an absolute path without `..`; write for example /var/log/*.log")]
    Pattern(String),
    /// A source that is none.
    #[error("whole: {0:?} is no source; write a file's pattern, journal, journal:UNIT or kmsg")]
    Whole(String),
    /// The precursors.
    #[error("precursors: {0}")]
    Precursors(#[from] PrecursorError),
    /// A line length out of range.
    #[error("line_bytes_max: {0} is not allowed; use 1KiB to 1MiB")]
    LineBytes(Bytes),
    /// A number out of range.
    #[error("{key}: {value} is not allowed; use {least} to {most}")]
    Range {
        /// Which key.
        key: &'static str,
        /// What was written.
        value: u64,
        /// Least value allowed.
        least: u64,
        /// Greatest value allowed.
        most: u64,
    },
}

/// What a syslog daemon writes: copies of the journal's lines where there is one.
const SYSLOG_FILES: [&str; 7] = ["syslog", "messages", "kern.log", "auth.log", "daemon.log", "secure", "cron"];
/// What goes by no syslog: the output of each guest's qemu, and what sanlock says beyond errors.
const OWN_FILES: [&str; 2] = ["libvirt/qemu/*.log", "sanlock.log"];

impl Default for RawLogsConfig {
    fn default() -> RawLogsConfig {
        let files = SYSLOG_FILES[..5].iter().chain(&OWN_FILES);
        RawLogsConfig {
            enabled: true,
            files: files.map(|name| format!("/var/log/{name}")).collect(),
            journal: RawJournalConfig::default(),
            kmsg: Wanted::Auto,
            whole: Vec::new(),
            precursors: Vec::new(),
            precursors_without: Vec::new(),
            join_traces: true,
            context_lines: 3,
            from_beginning: false,
            line_bytes_max: Bytes(64 << 10),
            files_max: 64,
            templates_max: 2000,
            whole_lines_per_minute: 10,
            lines_per_minute: 3000,
        }
    }
}

impl Default for RawJournalConfig {
    fn default() -> RawJournalConfig {
        RawJournalConfig {
            follow: Wanted::Auto,
            directory: None,
            journalctl: PathBuf::from("journalctl"),
            copies: SYSLOG_FILES.iter().map(|name| format!("/var/log/{name}")).collect(),
        }
    }
}

impl RawLogsConfig {
    /// Checks every value.
    ///
    /// # Errors
    /// Names the first wrong key, its value and what is allowed.
    pub fn check(&self) -> Result<LogsConfig, CheckLogsConfigError> {
        if let Some(pattern) = self.files.iter().find(|pattern| !glob::is_allowed(pattern)) {
            return Err(CheckLogsConfigError::Pattern(pattern.clone()));
        }
        let is_source = |text: &&String| {
            glob::is_allowed(text) || text.starts_with("journal:") || ["journal", "kmsg"].contains(&text.as_str())
        };
        if let Some(other) = self.whole.iter().find(|text| !is_source(text)) {
            return Err(CheckLogsConfigError::Whole(other.clone()));
        }
        if !((1 << 10)..=(1 << 20)).contains(&self.line_bytes_max.0) {
            return Err(CheckLogsConfigError::LineBytes(self.line_bytes_max));
        }
        for (key, value, least, most) in [
            ("files_max", self.files_max as u64, 1, 1000),
            ("templates_max", self.templates_max as u64, 100, 100_000),
            ("whole_lines_per_minute", u64::from(self.whole_lines_per_minute), 1, 10_000),
            ("lines_per_minute", u64::from(self.lines_per_minute), 10, 1_000_000),
            ("context_lines", self.context_lines as u64, 0, 20),
        ] {
            if !(least..=most).contains(&value) {
                return Err(CheckLogsConfigError::Range { key, value, least, most });
            }
        }
        Ok(LogsConfig {
            raw: self.clone(),
            precursors: Arc::new(Precursors::load(&self.precursors, &self.precursors_without)?),
            whole: self.whole.clone(),
            join_traces: self.join_traces,
            context_lines: self.context_lines,
            lines_per_minute: self.lines_per_minute,
            files: if self.enabled { self.files.clone() } else { Vec::new() },
            from_beginning: self.from_beginning,
            line_bytes_max: self.line_bytes_max.0 as usize,
            files_max: self.files_max,
            templates_max: self.templates_max,
            whole_lines_per_minute: self.whole_lines_per_minute,
            localtime: PathBuf::from("/etc/localtime"),
            templates_file: None,
        })
    }
}

impl LogsConfig {
    /// Keeps the mined templates in a file, so that their identities outlive a restart of the agent.
    pub fn with_templates_file(mut self, path: PathBuf) -> LogsConfig {
        self.templates_file = Some(path);
        self
    }

    /// Which sources this host has: asked once, when following begins.
    pub(super) fn sources(&self) -> Sources {
        let (raw, journal) = (&self.raw, &self.raw.journal);
        let is_wanted = |wanted: Wanted, is_there: bool| match wanted {
            _ if !raw.enabled => false,
            Wanted::Auto => is_there,
            Wanted::Always => true,
            Wanted::Never => false,
        };
        let has_journal =
            is_wanted(journal.follow, journal::is_there(&journal.journalctl, journal.directory.as_deref()));
        let kmsg = Path::new(KMSG);
        let has_kmsg = is_wanted(raw.kmsg, !has_journal && std::fs::File::open(kmsg).is_ok());
        Sources {
            journal: has_journal.then(|| journal::JournalSource {
                journalctl: journal.journalctl.clone(),
                directory: journal.directory.clone(),
                message_bytes_max: self.line_bytes_max,
                is_joined: self.join_traces,
            }),
            copies: if has_journal { journal.copies.clone() } else { Vec::new() },
            kmsg: has_kmsg.then(|| kmsg.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_allowed_and_wrong_values_are_named() {
        assert!(RawLogsConfig::default().check().is_ok());
        for (yaml, complaint) in [
            ("files: [var/log/x]", "files: \"var/log/x\" is not an absolute path"),
            ("files: [/var/log/../../etc/shadow]", "files: \"/var/log/../../etc/shadow\" is not"),
            ("line_bytes_max: 2MiB", "line_bytes_max: 2MiB is not allowed; use 1KiB to 1MiB"),
            ("templates_max: 5", "templates_max: 5 is not allowed; use 100 to 100000"),
            ("whole: [x]", "whole: \"x\" is no source"),
            ("precursors: [/nonexistent]", "precursors: /nonexistent: "),
            ("precursors_without: [x]", "precursors: `x` is no precursor"),
            ("context_lines: 21", "context_lines: 21 is not allowed; use 0 to 20"),
            ("whole_lines_per_minute: 0", "whole_lines_per_minute: 0 is not allowed; use 1 to 10000"),
        ] {
            let raw: RawLogsConfig = serde_saphyr::from_str(yaml).unwrap();
            let told = raw.check().unwrap_err().to_string();
            assert!(told.starts_with(complaint), "{told}");
        }
        let off: RawLogsConfig = serde_saphyr::from_str("enabled: false").unwrap();
        assert!(off.check().unwrap().files.is_empty());
    }

    #[test]
    fn a_host_with_a_journal_has_no_copies_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().to_owned();
        let with = |follow, kmsg| {
            let journal =
                RawJournalConfig { follow, directory: Some(directory.clone()), ..RawJournalConfig::default() };
            RawLogsConfig { journal, kmsg, ..RawLogsConfig::default() }.check().unwrap().sources()
        };
        assert!(with(Wanted::Auto, Wanted::Never).journal.is_none());
        std::fs::create_dir(directory.join("id")).unwrap();
        std::fs::write(directory.join("id/system.journal"), "").unwrap();
        let sources = with(Wanted::Auto, Wanted::Auto);
        assert!(sources.journal.is_some() && sources.kmsg.is_none());
        assert!(sources.copies.contains(&"/var/log/syslog".to_owned()));
        let sources = with(Wanted::Never, Wanted::Always);
        assert!(sources.journal.is_none() && sources.kmsg.is_some() && sources.copies.is_empty());
    }
}
