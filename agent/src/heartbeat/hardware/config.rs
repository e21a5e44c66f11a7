//! The `heartbeat.hardware` section of the agent's config: BMCs that this agent asks on behalf of the fleet.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use crate::config::is_agent_id;
use crate::units::Span;

/// BMCs are slow computers; asked more often than this some stop to answer.
const INTERVAL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(600);
/// A busy BMC takes seconds.
const TIMEOUT_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
/// BMCs that one agent asks: two racks.
const BMCS_MAX: usize = 96;

/// One BMC as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawBmc {
    /// The agent's id of the host that it belongs to.
    pub host: String,
    /// Redfish: base URL, for example `https://192.0.2.12`.
    #[serde(default)]
    pub redfish: Option<String>,
    /// Redfish: which system, by id or path, where the BMC serves several.
    #[serde(default)]
    pub system: Option<String>,
    /// IPMI over LAN: name or address.
    #[serde(default)]
    pub ipmi: Option<String>,
    /// IPMI: UDP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// IPMI: cipher suite; 17 is the strongest, old BMCs know only 3.
    #[serde(default = "default_cipher_suite")]
    pub cipher_suite: u8,
    /// User; one that may read is enough.
    pub user: String,
    /// File with the password on its first line, readable by the agent alone.
    pub password_file: PathBuf,
    /// Redfish: certificate authorities to trust instead of the system's, PEM; a self-signed certificate is its own.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Time between two looks at the power state; sensors are read once a minute at most.
    #[serde(default = "default_interval")]
    pub interval: Span,
    /// What one answer may take.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
}

/// One BMC, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bmc {
    /// The agent's id of the host that it belongs to.
    pub host: String,
    /// How it is asked.
    pub way: Way,
    /// User.
    pub user: String,
    /// File with the password.
    pub password_file: PathBuf,
    /// Time between two looks at the power state.
    pub interval: Duration,
    /// What one answer may take.
    pub timeout: Duration,
}

/// How a BMC is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Redfish over HTTPS.
    Redfish {
        /// Base URL.
        base: Url,
        /// Path of the system, if the config names one.
        system: Option<String>,
        /// Certificate authorities.
        ca_file: Option<PathBuf>,
    },
    /// IPMI over LAN, by `ipmitool`.
    Ipmi {
        /// Name or address.
        address: String,
        /// UDP port.
        port: u16,
        /// Cipher suite.
        cipher_suite: u8,
    },
}

/// What is wrong with the section.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckHardwareError {
    /// Too many.
    #[error("heartbeat.hardware: {0} BMCs; at most 96 are allowed for one agent")]
    TooMany(usize),
    /// The host.
    #[error(
        "heartbeat.hardware.host: `{0}` is not an agent's id; allowed are 1 to 255 printable ASCII characters without spaces"
    )]
    Host(String),
    /// Twice.
    #[error("heartbeat.hardware.host: `{0}` is written twice; a host has one BMC")]
    Twice(String),
    /// Neither or both.
    #[error("heartbeat.hardware: `{0}` needs one of redfish and ipmi, and not both")]
    Way(String),
    /// Not a URL of Redfish.
    #[error(
        "heartbeat.hardware.redfish: `{0}` is not a BMC's URL; write for example https://192.0.2.12, without user and path; plain http is allowed to loopback only"
    )]
    Redfish(String),
    /// The system.
    #[error("heartbeat.hardware.system: `{0}` is neither an id nor a path that begins with /redfish/v1/")]
    System(String),
    /// The address.
    #[error("heartbeat.hardware.ipmi: `{0}` is not a name or an address")]
    Ipmi(String),
    /// The user.
    #[error(
        "heartbeat.hardware.user: `{0}` is not allowed; use 1 to 64 printable ASCII characters that do not begin with -"
    )]
    User(String),
    /// The file.
    #[error("heartbeat.hardware.password_file: {} is not an absolute path; write it from / on", .0.display())]
    Relative(PathBuf),
    /// The interval.
    #[error("heartbeat.hardware.interval: {0} is out of range; allowed are 5s to 10m")]
    Interval(Span),
    /// The time-out.
    #[error("heartbeat.hardware.timeout: {0} is out of range; allowed are 1s to 1m")]
    Timeout(Span),
}

/// Checks the section.
///
/// # Errors
/// A value is not allowed.
pub fn check(written: Vec<RawBmc>) -> Result<Vec<Bmc>, CheckHardwareError> {
    if written.len() > BMCS_MAX {
        return Err(CheckHardwareError::TooMany(written.len()));
    }
    let mut hosts = BTreeSet::new();
    let mut bmcs = Vec::with_capacity(written.len());
    for raw in written {
        if !hosts.insert(raw.host.clone()) {
            return Err(CheckHardwareError::Twice(raw.host));
        }
        bmcs.push(raw.check()?);
    }
    Ok(bmcs)
}

impl RawBmc {
    fn check(self) -> Result<Bmc, CheckHardwareError> {
        if !is_agent_id(&self.host) {
            return Err(CheckHardwareError::Host(self.host));
        }
        // It becomes an argument of a program.
        let is_plain = |text: &str, max: usize| {
            (1..=max).contains(&text.len())
                && !text.starts_with('-')
                && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !is_plain(&self.user, 64) {
            return Err(CheckHardwareError::User(self.user));
        }
        if !self.password_file.is_absolute() {
            return Err(CheckHardwareError::Relative(self.password_file));
        }
        if !INTERVAL_RANGE.contains(&self.interval.0) {
            return Err(CheckHardwareError::Interval(self.interval));
        }
        if !TIMEOUT_RANGE.contains(&self.timeout.0) {
            return Err(CheckHardwareError::Timeout(self.timeout));
        }
        let way = match (self.redfish, self.ipmi) {
            (Some(base), None) => {
                let base = redfish_base(&base).ok_or(CheckHardwareError::Redfish(base))?;
                let system = self.system.map(|system| system_path(&system).ok_or(CheckHardwareError::System(system)));
                Way::Redfish { base, system: system.transpose()?, ca_file: self.ca_file }
            }
            (None, Some(address)) if is_plain(&address, 255) => {
                Way::Ipmi { address, port: self.port, cipher_suite: self.cipher_suite }
            }
            (None, Some(address)) => return Err(CheckHardwareError::Ipmi(address)),
            (Some(_), Some(_)) | (None, None) => return Err(CheckHardwareError::Way(self.host)),
        };
        let (interval, timeout) = (self.interval.0, self.timeout.0);
        Ok(Bmc { host: self.host, way, user: self.user, password_file: self.password_file, interval, timeout })
    }
}

/// A URL that holds nothing but scheme, host and port; unencrypted only where nobody can listen.
fn redfish_base(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_bare = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.path() == "/";
    let allowed = url.scheme() == "https" || (url.scheme() == "http" && crate::config::is_loopback(&url));
    (is_bare && allowed && url.has_host()).then_some(url)
}

fn system_path(text: &str) -> Option<String> {
    let is_id =
        |id: &str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte));
    match text.strip_prefix("/redfish/v1/") {
        Some(rest) if rest.trim_end_matches('/').split('/').all(is_id) => Some(text.to_owned()),
        None if is_id(text) => Some(format!("/redfish/v1/Systems/{text}")),
        _ => None,
    }
}

fn default_port() -> u16 {
    623
}

fn default_cipher_suite() -> u8 {
    17
}

fn default_interval() -> Span {
    Span(Duration::from_secs(30))
}

fn default_timeout() -> Span {
    Span(Duration::from_secs(10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(yaml: &str) -> String {
        match check(serde_saphyr::from_str::<Vec<RawBmc>>(yaml).unwrap()) {
            Ok(bmcs) => format!("{bmcs:?}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn values_are_checked_and_wrong_ones_named() {
        let with = |rest: &str| told(&format!("[{{host: a, user: u, password_file: /p, {rest}}}]"));
        assert!(with("ipmi: 192.0.2.1").contains("Ipmi { address: \"192.0.2.1\", port: 623, cipher_suite: 17 }"));
        assert!(with("redfish: 'https://bmc', system: '1'").contains("Some(\"/redfish/v1/Systems/1\")"));
        for (rest, part) in [
            ("port: 1", "`a` needs one of redfish and ipmi"),
            ("ipmi: b, redfish: 'https://b'", "`a` needs one of redfish and ipmi"),
            ("ipmi: '-H'", "ipmi: `-H` is not a name or an address"),
            ("redfish: 'http://192.0.2.1'", "plain http is allowed to loopback only"),
            ("redfish: 'https://b/redfish'", "without user and path"),
            ("redfish: 'https://b', system: '../x'", "system: `../x` is neither"),
            ("ipmi: b, interval: 1s", "interval: 1s is out of range"),
            ("ipmi: b, timeout: 5m", "timeout: 5m is out of range"),
        ] {
            assert!(with(rest).contains(part), "{rest}: {}", with(rest));
        }
        assert!(told("[{host: a, user: '-x', password_file: /p, ipmi: b}]").contains("user: `-x` is not allowed"));
        assert!(
            told("[{host: a, user: u, password_file: p, ipmi: b}]").contains("password_file: p is not an absolute")
        );
        let twice = "{host: a, user: u, password_file: /p, ipmi: b}";
        assert!(told(&format!("[{twice}, {twice}]")).contains("`a` is written twice"));
    }
}
