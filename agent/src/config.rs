//! The agent's config: each component's section composed into one file, read whole or not at all. Only the checked
//! [`Config`] enters the program. A wrong value is told with file, line, column, key, value and what is allowed. This is the
//! only file of the agent that may look at how the machine is called or what its environment says.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use crate::collect::{CheckCollectConfigError, CollectConfig, RawCollectConfig};
use crate::drive::{CheckDriveError, DriveConfig, RawDriveConfig};
use crate::heartbeat::{CheckHeartbeatError, HeartbeatConfig, HeartbeatPath, RawHeartbeatConfig};
use crate::limits::{CheckLimitsError, LimitsConfig, RawLimitsConfig};
use crate::logs::{CheckLogsConfigError, LogsConfig, RawLogsConfig};
use crate::probes::ProbesConfig;
use crate::probes::check::config::RawCheck;
use crate::probes::config::Problem as ProbeProblem;
use crate::probes::scrape::config::RawScrape;
use crate::units::Bytes;
use crate::yaml::{self, Problem};

/// Default budget of the spool: about two weeks of metrics of one host.
const SPOOL_BUDGET: Bytes = Bytes(512 << 20);
/// Less would drop batches in the first minutes of an outage.
const SPOOL_BUDGET_MIN: Bytes = Bytes(1 << 20);

/// The file as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// Base URLs of the server, first choice first; the next one is used while one cannot be reached.
    pub servers: Spanned<Vec<Spanned<String>>>,
    /// The agent's id, `instance` of all its series; by default the host name.
    #[serde(default)]
    pub agent: Option<Spanned<String>>,
    /// Directory for the spool, the state of log files and the journal of orders.
    #[serde(default = "default_state_dir")]
    pub state_dir: PathBuf,
    /// File with this agent's token; needed for every server that is not on this machine. Readable by the agent alone.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Certificate authorities to trust instead of the system's, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Batches on disk.
    #[serde(default)]
    pub spool: RawSpoolConfig,
    /// What is read on this host, and how often.
    #[serde(default)]
    pub collect: Option<Spanned<RawCollectConfig>>,
    /// Log files.
    #[serde(default)]
    pub logs: Option<Spanned<RawLogsConfig>>,
    /// Heartbeats.
    #[serde(default)]
    pub heartbeat: Option<Spanned<RawHeartbeatConfig>>,
    /// Health checks that this host runs.
    #[serde(default)]
    pub checks: Vec<Spanned<RawCheck>>,
    /// Endpoints of Prometheus' kind whose metrics this host takes along.
    #[serde(default)]
    pub scrape: Vec<Spanned<RawScrape>>,
    /// What the agent may take of its own host.
    #[serde(default)]
    pub limits: Option<Spanned<RawLimitsConfig>>,
    /// What a server may have done here; nothing unless written.
    #[serde(default)]
    pub drive: Option<Spanned<RawDriveConfig>>,
}

/// The `spool` section as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSpoolConfig {
    /// Bytes on disk; when they are used up the oldest metrics go first, then the oldest logs.
    #[serde(default)]
    pub budget: Option<Spanned<Bytes>>,
}

/// The agent's config, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Base URLs of the server, first choice first; never empty.
    pub servers: Vec<Url>,
    /// The agent's id.
    pub agent: String,
    /// Directory for everything that must survive a restart.
    pub state_dir: PathBuf,
    /// File with the token.
    pub token_file: Option<PathBuf>,
    /// Certificate authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Disk budget of the spool.
    pub spool_budget: Bytes,
    /// What is read on this host, and how often.
    pub collect: CollectConfig,
    /// Log files.
    pub logs: LogsConfig,
    /// Heartbeats.
    pub heartbeat: HeartbeatConfig,
    /// What is checked and scraped.
    pub probes: ProbesConfig,
    /// What the agent may take of its own host; `None`: whatever it needs.
    pub limits: Option<LimitsConfig>,
    /// What a server may have done here.
    pub drive: DriveConfig,
}

/// A value that is not allowed: key, value, what is.
#[derive(Debug, thiserror::Error)]
pub enum ValueProblem {
    /// No server.
    #[error("servers: is empty; name at least one, for example https://petrel.example:9780")]
    NoServer,
    /// Not a URL of a server.
    #[error(
        "servers: `{0}` is not a server's URL; write for example https://petrel.example:9780, without user and query"
    )]
    Server(String),
    /// Plain HTTP over a network.
    #[error("servers: `{0}` is not on this machine, so it must be https; plain http is allowed to loopback only")]
    NotEncrypted(String),
    /// No token over a network.
    #[error("servers: `{0}` is not on this machine, so token_file must name a file with this agent's token")]
    NoToken(String),
    /// The id.
    #[error("agent: `{0}` is not an id; allowed are 1 to 255 printable ASCII characters without spaces")]
    Agent(String),
    /// The budget.
    #[error("spool.budget: {0} is too small; allowed are 1MiB and more")]
    Budget(Bytes),
    /// The collect section.
    #[error("collect.{0}")]
    Collect(#[from] CheckCollectConfigError),
    /// The logs section.
    #[error("logs.{0}")]
    Logs(#[from] CheckLogsConfigError),
    /// The heartbeat section.
    #[error(transparent)]
    Heartbeat(#[from] CheckHeartbeatError),
    /// The checks or the scrape section.
    #[error(transparent)]
    Probes(#[from] ProbeProblem),
    /// The limits section.
    #[error(transparent)]
    Limits(#[from] CheckLimitsError),
    /// The drive section.
    #[error(transparent)]
    Drive(#[from] CheckDriveError),
}

impl Config {
    /// Reads and checks a config file.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is not allowed; the message says where and what is.
    pub fn load(path: &Path) -> Result<Config, Problem> {
        let text =
            std::fs::read_to_string(path).map_err(|error| Problem::new(path, format!("cannot be read: {error}")))?;
        Config::parse(path, &text)
    }

    /// Checks the text of a config file; `path` is only for messages.
    ///
    /// # Errors
    /// Something in it is not allowed.
    pub fn parse(path: &Path, text: &str) -> Result<Config, Problem> {
        let raw: RawConfig = yaml::read(path, text)?;
        raw.check().map_err(|(at, problem)| Problem {
            path: path.to_owned(),
            at: Some((at.line(), at.column())),
            message: problem.to_string(),
        })
    }

    /// The config of the agent that `petrel up` runs in its own process: this machine, no action allowed, no token, since
    /// server and agent talk over loopback. Heartbeats go to `heartbeat_to`.
    pub fn for_local(server: Url, heartbeat_to: SocketAddr, state_dir: &Path) -> Config {
        Config {
            servers: vec![server],
            agent: host_name(),
            state_dir: state_dir.to_owned(),
            token_file: None,
            ca_file: None,
            spool_budget: SPOOL_BUDGET,
            collect: CollectConfig::at(Path::new("/proc"), Path::new("/sys")),
            logs: RawLogsConfig::default().check().expect("the defaults are allowed, and a test says so"),
            probes: ProbesConfig::default(),
            // The process is the server's, which has limits of its own.
            limits: None,
            drive: DriveConfig::default(),
            heartbeat: HeartbeatConfig {
                interval: Duration::from_secs(1),
                paths: vec![HeartbeatPath { to: heartbeat_to.to_string(), from: None }],
                storage: Vec::new(),
                hardware: Vec::new(),
            },
        }
    }
}

/// Where a value stands and what is wrong with it.
type Wrong = (Location, ValueProblem);

impl RawConfig {
    fn check(self) -> Result<Config, Wrong> {
        let (servers, first_at) = self.check_servers()?;
        let agent = match self.agent {
            Some(agent) => check_agent(agent)?,
            None => host_name(),
        };
        let spool_budget = match self.spool.budget {
            Some(budget) if budget.value < SPOOL_BUDGET_MIN => {
                return Err((budget.referenced, ValueProblem::Budget(budget.value)));
            }
            Some(budget) => budget.value,
            None => SPOOL_BUDGET,
        };
        let (collect, at) = section(self.collect, first_at);
        let collect = collect.check().map_err(|error| (at, error.into()))?;
        let (logs, at) = section(self.logs, first_at);
        let logs = logs.check().map_err(|error| (at, error.into()))?;
        let (drive, at) = section(self.drive, first_at);
        let drive = drive.check().map_err(|error| (at, error.into()))?;
        let (limits, at) = section(self.limits, first_at);
        let limits = limits.check().map_err(|error| (at, error.into()))?;
        let (heartbeat, at) = section(self.heartbeat, first_at);
        let heartbeat = heartbeat.check(&host_and_port(&servers[0])).map_err(|error| (at, error.into()))?;
        let probes = ProbesConfig::check(self.checks, self.scrape, &agent, collect.interval)
            .map_err(|(at, problem)| (at, problem.into()))?;
        Ok(Config {
            servers,
            agent,
            state_dir: self.state_dir,
            token_file: self.token_file,
            ca_file: self.ca_file,
            spool_budget,
            collect: collect.beside(&drive),
            logs,
            heartbeat,
            probes,
            limits,
            drive,
        })
    }

    /// The URLs, at least one, and where the first stands.
    fn check_servers(&self) -> Result<(Vec<Url>, Location), Wrong> {
        let first_at = self.servers.value.first().ok_or((self.servers.referenced, ValueProblem::NoServer))?.referenced;
        let check = |server: &Spanned<String>| {
            check_server(&server.value, self.token_file.is_some()).map_err(|problem| (server.referenced, problem))
        };
        Ok((self.servers.value.iter().map(check).collect::<Result<_, _>>()?, first_at))
    }
}

/// A section and where it stands; one that is not written has its defaults, which no check refuses.
fn section<T: Default>(written: Option<Spanned<T>>, elsewhere: Location) -> (T, Location) {
    written.map_or_else(|| (T::default(), elsewhere), |spanned| (spanned.value, spanned.referenced))
}

fn check_server(text: &str, has_token: bool) -> Result<Url, ValueProblem> {
    let url = Url::parse(text).map_err(|_| ValueProblem::Server(text.to_owned()))?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(ValueProblem::Server(text.to_owned()));
    }
    if !plain {
        // A password in a URL would end up in logs; so it must not be repeated here either.
        return Err(ValueProblem::Server(format!("{}://…@{}", url.scheme(), url.host_str().unwrap_or(""))));
    }
    if is_loopback(&url) {
        return Ok(url);
    }
    if url.scheme() != "https" {
        return Err(ValueProblem::NotEncrypted(text.to_owned()));
    }
    if has_token { Ok(url) } else { Err(ValueProblem::NoToken(text.to_owned())) }
}

/// Whether a URL leads to this machine without a network.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("").trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Heartbeats go to the port number of HTTP, in UDP.
fn host_and_port(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or("localhost"), url.port_or_known_default().unwrap_or(9780))
}

fn check_agent(agent: Spanned<String>) -> Result<String, Wrong> {
    if is_agent_id(&agent.value) { Ok(agent.value) } else { Err((agent.referenced, ValueProblem::Agent(agent.value))) }
}

/// Whether a word can be an agent's id on the wire.
pub fn is_agent_id(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The kernel's name of this host; characters that cannot stand in an id become `_`.
pub fn host_name() -> String {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy();
    let id: String = name.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(255).collect();
    if id.is_empty() { "localhost".to_owned() } else { id }
}

fn default_state_dir() -> PathBuf {
    PathBuf::from("/var/lib/petrel-agent")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(yaml: &str) -> String {
        Config::parse(Path::new("agent.yaml"), yaml).unwrap_err().to_string()
    }

    #[test]
    fn the_example_file_is_accepted() {
        let text = include_str!("../../deploy/petrel-agent.example.yaml");
        let config = Config::parse(Path::new("petrel-agent.example.yaml"), text).unwrap();
        assert_eq!(config.spool_budget, SPOOL_BUDGET, "the example shows the defaults");
        let collect = RawCollectConfig {
            textfile: Some("/var/lib/prometheus/node-exporter".into()),
            ..RawCollectConfig::default()
        };
        assert_eq!(config.collect, collect.check().unwrap().beside(&config.drive));
        assert_eq!(config.logs, RawLogsConfig::default().check().unwrap());
        assert_eq!((config.probes.checks.len(), config.probes.targets.len()), (4, 1));
        assert!(config.drive.haproxy.is_some() && config.drive.libvirt.is_some() && config.drive.allow.is_empty());
        assert_eq!((config.heartbeat.interval, config.heartbeat.storage.len()), (Duration::from_secs(1), 1));
        assert_eq!(config.heartbeat.hardware.len(), 2);
        assert_eq!(config.limits, RawLimitsConfig::default().check().unwrap());
    }

    #[test]
    fn a_short_file_is_enough_on_this_machine() {
        let config = Config::parse(Path::new("a"), "servers: ['http://127.0.0.1:9780']").unwrap();
        assert_eq!(config.agent, host_name());
        assert_eq!(config.heartbeat.paths, vec![HeartbeatPath { to: "127.0.0.1:9780".to_owned(), from: None }]);
        Config::parse(Path::new("a"), "servers: ['http://[::1]:9780', 'http://localhost:1']").unwrap();
    }

    #[test]
    fn wrong_values_are_told_with_place_key_value_and_what_is_allowed() {
        for (yaml, part) in [
            ("servers: []", "agent.yaml:1:10: servers: is empty"),
            ("servers:\n  - ftp://x", "agent.yaml:2:5: servers: `ftp://x` is not a server's URL"),
            (
                "servers: ['http://192.0.2.1:9780']",
                "agent.yaml:1:11: servers: `http://192.0.2.1:9780` is not on this machine, so it must be https",
            ),
            ("servers: ['https://petrel.example']", "token_file must name a file"),
            ("servers: ['http://127.0.0.1:1']\nagent: 'a b'", "agent.yaml:2:8: agent: `a b` is not an id"),
            (
                "servers: ['http://127.0.0.1:1']\ncollect: {interval: 5m}",
                "agent.yaml:2:10: collect.interval: 5m is not allowed",
            ),
            ("servers: ['http://127.0.0.1:1']\ncollect: {interval: fast}", "agent.yaml:2:21: "),
            (
                "servers: ['http://127.0.0.1:1']\nspool: {budget: 1KiB}",
                "agent.yaml:2:17: spool.budget: 1KiB is too small",
            ),
            ("servers: ['http://127.0.0.1:1']\nlogs: {files: [x]}", "agent.yaml:2:7: logs.files: "),
            (
                "servers: ['http://127.0.0.1:1']\ndrive: {allow: [a.b]}",
                "agent.yaml:2:8: drive.allow: no driver has an action `a.b`",
            ),
            ("servers: ['http://127.0.0.1:1']\nspol: {}", "agent.yaml:2:1: "),
            (
                "servers: ['http://127.0.0.1:1']\nchecks:\n  - {name: a, tcp: {target: web1}}",
                "agent.yaml:3:5: checks.a.tcp.target: `web1` is not allowed; write host and port",
            ),
            (
                "servers: ['http://127.0.0.1:1']\nchecks:\n  - {name: a, tcp: {target: 'web1:1'}, exec: {command: [/x]}}",
                "agent.yaml:3:5: checks.a: `` is not allowed; write exactly one of tcp, http, dns and exec",
            ),
            (
                "servers: ['http://127.0.0.1:1']\nchecks: [{name: a, exec: {command: [sh]}}]",
                "absolute path of a program",
            ),
            (
                "servers: ['http://127.0.0.1:1']\nchecks: [{name: a, http: {url: 'http://x', statuus: []}}]",
                "unknown field",
            ),
            (
                "servers: ['http://127.0.0.1:1']\nscrape:\n  - {name: a, url: 'http://x/', interval: 2s}",
                "agent.yaml:3:5: scrape.a.interval: `2s` is not allowed; not shorter than collect.interval",
            ),
            (
                "servers: ['http://127.0.0.1:1']\nscrape: [{name: a, url: 'http://x'}, {name: a, url: 'http://x/m'}]",
                "agent.yaml:2:38: scrape.instance: `x:80` is not allowed; another target has this name and instance",
            ),
            (
                "servers: ['http://127.0.0.1:1']\nscrape: [{name: a, url: 'http://x', keep: '('}]",
                "scrape.a.keep: `(` is not allowed; write a regular expression",
            ),
            ("servers: ['http://127.0.0.1:1']\nheartbeat: {interval: 1ms}", "agent.yaml:2:12: heartbeat.interval: 1ms"),
        ] {
            let message = refused(yaml);
            assert!(message.contains(part), "{yaml}\n{message}");
        }
        assert!(refused("servers: ['http://127.0.0.1:1']\nspol: {}").contains("spool"), "says what is allowed");
        let secret = refused("servers: ['https://me:hunter2@petrel.example']");
        assert!(!secret.contains("hunter2"), "{secret}");
        for item in
            ["scrape: [{name: a, url: 'http://me:hunter2@x/'}]", "checks: [{name: a, http: {url: 'me:hunter2@x'}}]"]
        {
            let secret = refused(&format!("servers: ['http://127.0.0.1:1']\n{item}"));
            assert!(!secret.contains("hunter2") && secret.contains(".url: "), "{secret}");
        }
    }
}
