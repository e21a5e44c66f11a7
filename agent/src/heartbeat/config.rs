//! The `heartbeat` section of the agent's config.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;

use super::hardware::{self, Bmc, CheckHardwareError, RawBmc};
use super::storage::{self, CheckStorageError, RawStoragePath, StoragePath};
use crate::units::Span;

/// Shorter intervals cost more than they tell; longer ones make a verdict a matter of minutes.
const INTERVAL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);
/// Paths that one host may beat on.
const PATHS_MAX: usize = 8;

/// The section as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawHeartbeatConfig {
    /// Whether this host beats.
    pub enabled: bool,
    /// Time between two beats.
    pub interval: Span,
    /// Where to beat. Empty: one path, to the first server's address and port.
    pub paths: Vec<RawHeartbeatPath>,
    /// Areas on shared storage to beat in.
    pub storage: Vec<RawStoragePath>,
    /// BMCs of other hosts to ask.
    pub hardware: Vec<RawBmc>,
}

/// One path as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawHeartbeatPath {
    /// The server's UDP address and port; an IP address is better than a name, which takes a working resolver.
    pub to: String,
    /// Local address to send from, which chooses the network; by default the system's routes choose.
    #[serde(default)]
    pub from: Option<IpAddr>,
}

/// The section, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatConfig {
    /// Time between two beats.
    pub interval: Duration,
    /// Where to beat; empty: nowhere.
    pub paths: Vec<HeartbeatPath>,
    /// Areas on shared storage to beat in.
    pub storage: Vec<StoragePath>,
    /// BMCs of other hosts to ask.
    pub hardware: Vec<Bmc>,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeartbeatPath {
    /// Address and port, or name and port.
    pub to: String,
    /// Local address.
    pub from: Option<IpAddr>,
}

/// What is wrong with the section.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckHeartbeatError {
    /// The interval.
    #[error("heartbeat.interval: {0} is out of range; allowed are 100ms to 1m")]
    Interval(Span),
    /// Too many paths.
    #[error("heartbeat.paths: {0} paths; at most 8 are allowed")]
    TooManyPaths(usize),
    /// Not an address with a port.
    #[error(
        "heartbeat.paths.to: `{0}` is not an address and port; write for example 192.0.2.1:9780 or [2001:db8::1]:9780"
    )]
    To(String),
    /// Address families differ.
    #[error("heartbeat.paths: `{from}` cannot send to `{to}`: one is IPv4, the other IPv6")]
    Families {
        /// Local address.
        from: IpAddr,
        /// Remote address.
        to: SocketAddr,
    },
    /// The storage section.
    #[error(transparent)]
    Storage(#[from] CheckStorageError),
    /// The hardware section.
    #[error(transparent)]
    Hardware(#[from] CheckHardwareError),
}

impl Default for RawHeartbeatConfig {
    fn default() -> RawHeartbeatConfig {
        RawHeartbeatConfig {
            enabled: true,
            interval: Span(Duration::from_secs(1)),
            paths: Vec::new(),
            storage: Vec::new(),
            hardware: Vec::new(),
        }
    }
}

impl RawHeartbeatConfig {
    /// Checks the section; `server` is the first server's host and port.
    ///
    /// # Errors
    /// A value is not allowed.
    pub fn check(self, server: &str) -> Result<HeartbeatConfig, CheckHeartbeatError> {
        if !INTERVAL_RANGE.contains(&self.interval.0) {
            return Err(CheckHeartbeatError::Interval(self.interval));
        }
        if self.paths.len() > PATHS_MAX {
            return Err(CheckHeartbeatError::TooManyPaths(self.paths.len()));
        }
        let mut paths = self.paths.into_iter().map(RawHeartbeatPath::check).collect::<Result<Vec<_>, _>>()?;
        if paths.is_empty() {
            paths.push(HeartbeatPath { to: server.to_owned(), from: None });
        }
        let mut storage = storage::check(self.storage)?;
        let mut hardware = hardware::check(self.hardware)?;
        if !self.enabled {
            paths.clear();
            storage.clear();
            hardware.clear();
        }
        Ok(HeartbeatConfig { interval: self.interval.0, paths, storage, hardware })
    }
}

impl RawHeartbeatPath {
    fn check(self) -> Result<HeartbeatPath, CheckHeartbeatError> {
        match (self.to.parse::<SocketAddr>(), self.from) {
            (Ok(to), Some(from)) if to.is_ipv4() != from.is_ipv4() => Err(CheckHeartbeatError::Families { from, to }),
            (Ok(_), _) => Ok(HeartbeatPath { to: self.to, from: self.from }),
            (Err(_), _) => {
                let named = self.to.rsplit_once(':').is_some_and(|(name, port)| {
                    !name.is_empty() && !name.contains(':') && port.parse::<u16>().is_ok_and(|port| port > 0)
                });
                if named {
                    Ok(HeartbeatPath { to: self.to, from: self.from })
                } else {
                    Err(CheckHeartbeatError::To(self.to))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str) -> Result<HeartbeatConfig, CheckHeartbeatError> {
        serde_saphyr::from_str::<RawHeartbeatConfig>(yaml).unwrap().check("h:9780")
    }

    #[test]
    fn paths_default_to_the_server_and_wrong_ones_are_refused() {
        assert_eq!(check("{}").unwrap().paths, vec![HeartbeatPath { to: "h:9780".to_owned(), from: None }]);
        assert_eq!(check("enabled: false").unwrap().paths, vec![]);
        let two = check("paths: [{to: '192.0.2.1:9780', from: 192.0.2.7}, {to: 'name.example:1'}]").unwrap();
        assert_eq!(two.paths.len(), 2);
        assert!(matches!(check("interval: 5ms"), Err(CheckHeartbeatError::Interval(_))));
        assert!(matches!(check("paths: [{to: '192.0.2.1'}]"), Err(CheckHeartbeatError::To(_))));
        assert!(matches!(
            check("paths: [{to: '192.0.2.1:1', from: '::1'}]"),
            Err(CheckHeartbeatError::Families { .. })
        ));
    }
}
