//! What the log tails may be told: which files, and how much of them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::glob;
use crate::units::Bytes;

/// Logs as written in the agent's config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLogsConfig {
    /// Whether log files are read at all.
    pub enabled: bool,
    /// Files to follow: absolute paths, with `*` and `?` inside a name. Rotated and compressed copies are left out.
    pub files: Vec<String>,
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
}

/// Logs as checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogsConfig {
    pub(super) files: Vec<String>,
    pub(super) from_beginning: bool,
    pub(super) line_bytes_max: usize,
    pub(super) files_max: usize,
    pub(super) templates_max: usize,
    pub(super) whole_lines_per_minute: u32,
    pub(super) localtime: PathBuf,
    pub(super) templates_file: Option<PathBuf>,
}

/// What is wrong with the config.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckLogsConfigError {
    /// A pattern that cannot be followed.
    #[error("files: {0:?} is not an absolute path without `..`; write for example /var/log/*.log")]
    Pattern(String),
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

impl Default for RawLogsConfig {
    fn default() -> RawLogsConfig {
        let files = ["syslog", "messages", "kern.log", "auth.log", "daemon.log"];
        RawLogsConfig {
            enabled: true,
            files: files.iter().map(|name| format!("/var/log/{name}")).collect(),
            from_beginning: false,
            line_bytes_max: Bytes(64 << 10),
            files_max: 64,
            templates_max: 2000,
            whole_lines_per_minute: 10,
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
        if !((1 << 10)..=(1 << 20)).contains(&self.line_bytes_max.0) {
            return Err(CheckLogsConfigError::LineBytes(self.line_bytes_max));
        }
        for (key, value, least, most) in [
            ("files_max", self.files_max as u64, 1, 1000),
            ("templates_max", self.templates_max as u64, 100, 100_000),
            ("whole_lines_per_minute", u64::from(self.whole_lines_per_minute), 1, 10_000),
        ] {
            if !(least..=most).contains(&value) {
                return Err(CheckLogsConfigError::Range { key, value, least, most });
            }
        }
        Ok(LogsConfig {
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
            ("whole_lines_per_minute: 0", "whole_lines_per_minute: 0 is not allowed; use 1 to 10000"),
        ] {
            let raw: RawLogsConfig = serde_saphyr::from_str(yaml).unwrap();
            let told = raw.check().unwrap_err().to_string();
            assert!(told.starts_with(complaint), "{told}");
        }
        let off: RawLogsConfig = serde_saphyr::from_str("enabled: false").unwrap();
        assert!(off.check().unwrap().files.is_empty());
    }
}
