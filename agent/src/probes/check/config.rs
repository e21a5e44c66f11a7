//! The `checks` section of the agent's config. It is this host's own file that says what is run and asked; nothing of it can
//! come from a server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::super::config::{Problem, check_name, check_secrets, check_span, check_url, problem};
use super::super::names::IpVersion;
use super::super::scrape::config::PATTERN_BYTES_MAX;
use super::super::secret::{BasicAuth, Secrets, shown};
use super::super::tls::RawTls;
use super::super::web::WebOptions;
use super::dns::{DnsCheck, RawDns};
use super::exec::{ExecCheck, RawExec};
use super::http::HttpCheck;
use super::tcp::TcpCheck;
use crate::units::{Bytes, Span};

/// Most checks of one agent. Each runs by itself, so this is also how many run at once.
pub(in crate::probes) const CHECKS_MAX: usize = 200;
/// Most of them that run programs: each has a blocking thread while its program runs.
pub(in crate::probes) const EXECS_MAX: usize = 16;
const INTERVAL_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const TIMEOUT_MIN: Duration = Duration::from_millis(100);
const BODY_RANGE: std::ops::RangeInclusive<u64> = 1 << 10..=16 << 20;

/// One check as written; exactly one of tcp, http, dns and exec.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawCheck {
    /// The label `check` of its series.
    pub name: String,
    /// Time between two runs, 1s to 1h.
    #[serde(default = "default_interval")]
    pub interval: Span,
    /// What one run may take, at most the interval. Default: 5s, or the interval if that is shorter.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// Addresses to use: any, 4 or 6.
    #[serde(default)]
    pub ip: IpVersion,
    /// Whether something listens, and what it says.
    #[serde(default)]
    pub tcp: Option<RawTcp>,
    /// Whether a web server answers as it should.
    #[serde(default)]
    pub http: Option<RawHttp>,
    /// Whether a name server answers as it should.
    #[serde(default)]
    pub dns: Option<RawDns>,
    /// Whether a program says that all is well.
    #[serde(default)]
    pub exec: Option<RawExec>,
}

/// A TCP check as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawTcp {
    /// Host and port.
    pub target: String,
    /// Text to send after connecting.
    #[serde(default)]
    pub send: Option<String>,
    /// Pattern for what must come back; without one a connection is enough.
    #[serde(default)]
    pub expect: Option<String>,
}

/// An HTTP check as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawHttp {
    /// What is asked for.
    pub url: String,
    /// How: GET, HEAD, POST, PUT, OPTIONS.
    #[serde(default = "default_method")]
    pub method: String,
    /// Headers to send.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Headers whose values are secret: files, read anew for each run.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// File with a bearer token.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// User and file with the password.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    /// Statuses that are well. Default: 200 to 299.
    #[serde(default)]
    pub status: Vec<u16>,
    /// Pattern that the body must have.
    #[serde(default)]
    pub body_matches: Option<String>,
    /// Pattern that the body must not have.
    #[serde(default)]
    pub body_not_matches: Option<String>,
    /// Longest body that is looked at; a longer one fails. 1KiB to 16MiB.
    #[serde(default = "default_body_max")]
    pub body_max: Bytes,
    /// How often the request may be sent elsewhere, 0 to 20.
    #[serde(default = "default_redirects")]
    pub redirects: usize,
    /// TLS: whom to trust and who we are.
    #[serde(default)]
    pub tls: RawTls,
}

/// One check as checked.
#[derive(Debug, Clone)]
pub struct CheckConfig {
    /// The label `check` of its series.
    pub name: String,
    /// The label `target`; holds no secret.
    pub target: String,
    /// Time between two runs.
    pub interval: Duration,
    /// What one run may take.
    pub timeout: Duration,
    /// What is checked.
    pub kind: CheckKind,
}

/// What is checked.
#[derive(Debug, Clone)]
pub enum CheckKind {
    /// A TCP port.
    Tcp(TcpCheck),
    /// A web server.
    Http(Box<HttpCheck>),
    /// A name server.
    Dns(DnsCheck),
    /// A program.
    Exec(ExecCheck),
}

impl CheckKind {
    /// Whether it runs a program.
    pub fn is_exec(&self) -> bool {
        matches!(self, CheckKind::Exec(_))
    }
}

fn default_interval() -> Span {
    Span(Duration::from_secs(30))
}

fn default_method() -> String {
    "GET".to_owned()
}

fn default_body_max() -> Bytes {
    Bytes(1 << 20)
}

fn default_redirects() -> usize {
    5
}

impl RawCheck {
    /// Checks it.
    pub(in crate::probes) fn check(self) -> Result<CheckConfig, Problem> {
        check_name("checks", &self.name)?;
        let at = format!("checks.{}.", self.name);
        let (interval, ip) = (self.interval.0, self.ip);
        check_span(format!("{at}interval"), interval, INTERVAL_RANGE, "use 1s to 1h")?;
        let timeout = self.timeout.map_or(Duration::from_secs(5).min(interval), |span| span.0);
        check_span(format!("{at}timeout"), timeout, TIMEOUT_MIN..=interval, "use 100ms up to the interval")?;
        let (target, kind) = match (self.tcp, self.http, self.dns, self.exec) {
            (Some(tcp), None, None, None) => tcp.check(&at, ip)?,
            (None, Some(http), None, None) => http.check(&at, ip)?,
            (None, None, Some(dns), None) => dns.check(&at, ip)?,
            (None, None, None, Some(exec)) => exec.check(&at)?,
            _ => return Err(problem(at.trim_end_matches('.'), "", "write exactly one of tcp, http, dns and exec")),
        };
        Ok(CheckConfig { name: self.name, target, interval, timeout, kind })
    }
}

/// Host and port of `host:port`.
pub(super) fn check_target(key: String, text: &str) -> Result<(String, u16), Problem> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts {
        Some((host, port))
            if port > 0
                && !host.is_empty()
                && host.len() <= 253
                && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/@?#".contains(&byte))
                && (!host.contains(':') || host.starts_with('[')) =>
        {
            Ok((host.trim_matches(['[', ']']).to_owned(), port))
        }
        _ => Err(problem(key, text, "write host and port, for example 192.0.2.1:22, [2001:db8::1]:22 or web1:22")),
    }
}

/// A pattern that may be anywhere in the bytes.
pub(super) fn check_pattern(key: String, pattern: Option<&str>) -> Result<Option<Regex>, Problem> {
    let Some(pattern) = pattern else { return Ok(None) };
    let built = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
    built.map(Some).map_err(|_| problem(key, pattern, "write a regular expression"))
}

impl RawTcp {
    fn check(self, at: &str, ip: IpVersion) -> Result<(String, CheckKind), Problem> {
        let (host, port) = check_target(format!("{at}tcp.target"), &self.target)?;
        let expect = check_pattern(format!("{at}tcp.expect"), self.expect.as_deref())?;
        let send = self.send.unwrap_or_default().into_bytes();
        Ok((self.target, CheckKind::Tcp(TcpCheck { host, port, ip, send, expect })))
    }
}

impl RawHttp {
    fn check(self, at: &str, ip: IpVersion) -> Result<(String, CheckKind), Problem> {
        let at = |key: &str| format!("{at}http.{key}");
        let url = check_url(&at("url"), &self.url)?;
        let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::OPTIONS];
        let method = known.into_iter().find(|method| method.as_str() == self.method);
        let method =
            method.ok_or_else(|| problem(at("method"), &self.method, "use GET, HEAD, POST, PUT or OPTIONS"))?;
        if let Some(status) = self.status.iter().find(|status| !(100..=599).contains(*status)) {
            return Err(problem(at("status"), status, "use 100 to 599"));
        }
        if !BODY_RANGE.contains(&self.body_max.0) {
            return Err(problem(at("body_max"), self.body_max, "use 1KiB to 16MiB"));
        }
        if self.redirects > 20 {
            return Err(problem(at("redirects"), self.redirects, "use 0 to 20"));
        }
        let mut headers = HeaderMap::new();
        let named = |name: &str| {
            let allowed = "header names are letters, digits and hyphens";
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| problem(at("headers"), name, allowed))
        };
        for (name, value) in &self.headers {
            let allowed = "header values are printable characters";
            let value = HeaderValue::from_str(value).map_err(|_| problem(at("headers"), name, allowed))?;
            headers.insert(named(name)?, value);
        }
        self.header_files.keys().try_for_each(|name| named(name).map(drop))?;
        let secrets = Secrets {
            bearer_token_file: self.bearer_token_file.clone(),
            basic_auth: self.basic_auth.clone(),
            headers: self.header_files.clone(),
        };
        check_secrets(&at(""), &secrets)?;
        let matches = check_pattern(at("body_matches"), self.body_matches.as_deref())?;
        let not_matches = check_pattern(at("body_not_matches"), self.body_not_matches.as_deref())?;
        let tls =
            self.tls.check().map_err(|(key, value, allowed)| problem(at(&format!("tls.{key}")), value, allowed))?;
        let target = shown(&url);
        let redirects_max = self.redirects;
        let web = WebOptions { url, method, headers, secrets, tls, ip, redirects_max, keeps_connection: false };
        let check = HttpCheck { web, status: self.status, matches, not_matches, body_max: self.body_max.0 };
        Ok((target, CheckKind::Http(Box::new(check))))
    }
}
