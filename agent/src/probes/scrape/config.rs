//! The `scrape` section of the agent's config: whom to ask for metrics, and what of them to take.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use regex::{Regex, RegexBuilder};
use reqwest::header::HeaderMap;
use reqwest::{Method, Url};
use serde::Deserialize;

use super::super::config::{Problem, check_name, check_secrets, check_span, check_url, problem};
use super::super::names::IpVersion;
use super::super::secret::{BasicAuth, Secrets};
use super::super::tls::RawTls;
use super::super::web::WebOptions;
use crate::units::{Bytes, Span};

/// Most targets of one agent: what runs on a host, and what is near it.
pub(in crate::probes) const TARGETS_MAX: usize = 50;
/// What a compiled pattern may hold.
pub(in crate::probes) const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Most labels that one target gets.
const LABELS_MAX: usize = 16;
const SAMPLES_RANGE: std::ops::RangeInclusive<usize> = 1..=200_000;
const BODY_RANGE: std::ops::RangeInclusive<u64> = 1 << 10..=64 << 20;
/// The interval unless written, where collecting is not slower.
const INTERVAL: Duration = Duration::from_secs(15);
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(10);

/// One target as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawScrape {
    /// The `job` of its series.
    pub name: String,
    /// Where its metrics are.
    pub url: String,
    /// The `instance` of its series. Default: host and port of the URL; for a target on this host the agent's id and the port.
    #[serde(default)]
    pub instance: Option<String>,
    /// Time between two scrapes, not shorter than collect.interval, at most 1h. Default: 15s, or collect.interval if that is longer.
    #[serde(default)]
    pub interval: Option<Span>,
    /// What one scrape may take, at most the interval. Default: 10s, or the interval if that is shorter.
    #[serde(default)]
    pub timeout: Option<Span>,
    /// Labels to add to all its series.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Take only series whose whole name matches.
    #[serde(default)]
    pub keep: Option<String>,
    /// Leave out series whose whole name matches.
    #[serde(default)]
    pub drop: Option<String>,
    /// Most samples that are taken; with more the scrape fails. 1 to 200000.
    #[serde(default = "default_samples_max")]
    pub samples_max: usize,
    /// Longest body; a longer one fails. 1KiB to 64MiB.
    #[serde(default = "default_body_max")]
    pub body_max: Bytes,
    /// File with a bearer token, read anew for each scrape.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// User and file with the password.
    #[serde(default)]
    pub basic_auth: Option<BasicAuth>,
    /// TLS: whom to trust and who we are.
    #[serde(default)]
    pub tls: RawTls,
    /// Addresses to use: any, 4 or 6.
    #[serde(default)]
    pub ip: IpVersion,
}

/// One target as checked.
#[derive(Debug, Clone)]
pub struct ScrapeConfig {
    /// `job` of its series.
    pub job: String,
    /// `instance` of its series.
    pub instance: String,
    /// How it is asked.
    pub web: WebOptions,
    /// Time between two scrapes.
    pub interval: Duration,
    /// What one may take.
    pub timeout: Duration,
    /// What is taken of it.
    pub taken: Taken,
}

/// What is taken of a target's body.
#[derive(Debug, Clone)]
pub struct Taken {
    /// Labels that its series get.
    pub labels: Vec<(String, String)>,
    /// Names that are taken; `None`: all.
    pub keep: Option<Regex>,
    /// Names that are left out.
    pub drop: Option<Regex>,
    /// Most samples.
    pub samples_max: usize,
    /// Longest body.
    pub body_max: u64,
}

fn default_samples_max() -> usize {
    20_000
}

fn default_body_max() -> Bytes {
    Bytes(8 << 20)
}

impl RawScrape {
    /// Checks a target; `agent` is the agent's id, and targets are scraped no more often than rounds are made.
    pub(in crate::probes) fn check(self, agent: &str, round: Duration) -> Result<ScrapeConfig, Problem> {
        let at = |key: &str| format!("scrape.{}.{key}", self.name);
        check_name("scrape", &self.name)?;
        let url = check_url(&at("url"), &self.url)?;
        let instance = self.instance.clone().unwrap_or_else(|| instance_of(&url, agent));
        if instance.is_empty() || instance.len() > 255 || instance.chars().any(char::is_control) {
            return Err(problem(at("instance"), &instance, "write 1 to 255 characters"));
        }
        let interval = self.interval.map_or(INTERVAL.max(round), |span| span.0);
        check_span(at("interval"), interval, round..=INTERVAL_MAX, "not shorter than collect.interval, at most 1h")?;
        let timeout = self.timeout.map_or(TIMEOUT.min(interval), |span| span.0);
        check_span(at("timeout"), timeout, Duration::from_millis(100)..=interval, "use 100ms up to the interval")?;
        if !SAMPLES_RANGE.contains(&self.samples_max) {
            return Err(problem(at("samples_max"), self.samples_max, "use 1 to 200000"));
        }
        if !BODY_RANGE.contains(&self.body_max.0) {
            return Err(problem(at("body_max"), self.body_max, "use 1KiB to 64MiB"));
        }
        let labels = self.check_labels()?;
        let (keep, drop) = (whole(at("keep"), self.keep.as_deref())?, whole(at("drop"), self.drop.as_deref())?);
        let secrets = Secrets {
            bearer_token_file: self.bearer_token_file.clone(),
            basic_auth: self.basic_auth.clone(),
            headers: BTreeMap::new(),
        };
        check_secrets(&at(""), &secrets)?;
        let tls = self
            .tls
            .clone()
            .check()
            .map_err(|(key, value, allowed)| problem(at(&format!("tls.{key}")), value, allowed))?;
        let web = WebOptions {
            url,
            method: Method::GET,
            headers: HeaderMap::new(),
            secrets,
            tls,
            ip: self.ip,
            redirects_max: 0,
            keeps_connection: true,
        };
        let taken = Taken { labels, keep, drop, samples_max: self.samples_max, body_max: self.body_max.0 };
        Ok(ScrapeConfig { job: self.name, instance, web, interval, timeout, taken })
    }

    fn check_labels(&self) -> Result<Vec<(String, String)>, Problem> {
        let key = || format!("scrape.{}.labels", self.name);
        if self.labels.len() > LABELS_MAX {
            return Err(problem(key(), self.labels.len(), "at most 16 labels"));
        }
        for (name, value) in &self.labels {
            let mut letters = name.bytes();
            let is_name = letters.next().is_some_and(|first| first == b'_' || first.is_ascii_alphabetic())
                && letters.all(|letter| letter == b'_' || letter.is_ascii_alphanumeric());
            if !is_name || name.starts_with("__") || matches!(name.as_str(), "job" | "instance") {
                let allowed = "label names are letters, digits and _, not job, instance or __…, which have keys of their own or none";
                return Err(problem(key(), name, allowed));
            }
            if value.is_empty() || value.len() > 1024 {
                return Err(problem(format!("{}.{name}", key()), value, "write 1 to 1024 bytes"));
            }
        }
        Ok(self.labels.clone().into_iter().collect())
    }
}

/// A pattern for whole names, as Prometheus has them.
fn whole(key: String, pattern: Option<&str>) -> Result<Option<Regex>, Problem> {
    let Some(pattern) = pattern else { return Ok(None) };
    let built = RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(PATTERN_BYTES_MAX).build();
    built.map(Some).map_err(|_| problem(key, pattern, "write a regular expression, for example `node_(cpu|disk)_.+`"))
}

/// Host and port. Each host has a loopback of its own: there the agent's id stands for the host.
fn instance_of(url: &Url, agent: &str) -> String {
    let port = url.port_or_known_default().unwrap_or(80);
    let host = url.host_str().unwrap_or("");
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    format!("{}:{port}", if is_here { agent } else { host })
}
