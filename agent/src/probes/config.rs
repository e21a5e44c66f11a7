//! The `checks` and `scrape` sections of the agent's config, and what is wrong with them. Both come from this host's own file
//! and from nowhere else: no server can add a check, a target or a program to run.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use reqwest::Url;
use serde_saphyr::{Location, Spanned};

use super::check::config::{CHECKS_MAX, CheckConfig, EXECS_MAX, RawCheck};
use super::scrape::config::{RawScrape, ScrapeConfig, TARGETS_MAX};
use super::secret::{Secrets, shown_text};
use crate::units::Span;

/// What is checked and scraped.
#[derive(Debug, Clone, Default)]
pub struct ProbesConfig {
    /// Health checks.
    pub checks: Vec<CheckConfig>,
    /// Targets with metrics.
    pub targets: Vec<ScrapeConfig>,
}

/// A value that is not allowed: key, value, what is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: `{value}` is not allowed; {allowed}")]
pub struct Problem {
    key: String,
    value: String,
    allowed: &'static str,
}

pub(super) fn problem(key: impl Into<String>, value: impl fmt::Display, allowed: &'static str) -> Problem {
    Problem { key: key.into(), value: value.to_string(), allowed }
}

impl ProbesConfig {
    /// Checks both sections; `round` is the time between two rounds of collection.
    ///
    /// # Errors
    /// The first value that is not allowed, and where its check or target begins.
    pub fn check(
        checks: Vec<Spanned<RawCheck>>,
        targets: Vec<Spanned<RawScrape>>,
        agent: &str,
        round: Duration,
    ) -> Result<ProbesConfig, (Location, Problem)> {
        let mut config = ProbesConfig::default();
        for Spanned { value, referenced, .. } in checks {
            let check = value.check().map_err(|problem| (referenced, problem))?;
            let others = &config.checks;
            let is_exec = |check: &CheckConfig| check.kind.is_exec();
            if others.len() == CHECKS_MAX {
                return Err((referenced, problem("checks", others.len() + 1, "at most 200 checks")));
            }
            if is_exec(&check) && others.iter().filter(|other| is_exec(other)).count() == EXECS_MAX {
                return Err((referenced, problem("checks.exec", EXECS_MAX + 1, "at most 16 checks run programs")));
            }
            if others.iter().any(|other| other.name == check.name) {
                return Err((referenced, problem("checks.name", &check.name, "each check needs a name of its own")));
            }
            config.checks.push(check);
        }
        for Spanned { value, referenced, .. } in targets {
            let target = value.check(agent, round).map_err(|problem| (referenced, problem))?;
            let others = &config.targets;
            if others.len() == TARGETS_MAX {
                return Err((referenced, problem("scrape", others.len() + 1, "at most 50 targets")));
            }
            if others.iter().any(|other| (&other.job, &other.instance) == (&target.job, &target.instance)) {
                let allowed = "another target has this name and instance; write another `instance`";
                return Err((referenced, problem("scrape.instance", &target.instance, allowed)));
            }
            config.targets.push(target);
        }
        Ok(config)
    }
}

pub(super) fn check_name(section: &str, name: &str) -> Result<(), Problem> {
    let is_name = (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if is_name {
        return Ok(());
    }
    let key = format!("{section}.name");
    Err(problem(key, name, "write 1 to 64 letters, digits, dots, hyphens and underscores"))
}

pub(super) fn check_span(
    key: String,
    span: Duration,
    range: RangeInclusive<Duration>,
    allowed: &'static str,
) -> Result<(), Problem> {
    if range.contains(&span) { Ok(()) } else { Err(problem(key, Span(span), allowed)) }
}

/// A URL of a web server without user and password, which would end up in logs.
pub(super) fn check_url(key: &str, text: &str) -> Result<Url, Problem> {
    let wrong = |allowed| problem(key, shown_text(text), allowed);
    let url = Url::parse(text).map_err(|_| wrong("write for example https://web1.example:8443/health"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(wrong("write a URL that begins with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("user and password do not belong into a URL; write basic_auth with a password_file"));
    }
    Ok(url)
}

pub(super) fn check_secrets(at: &str, secrets: &Secrets) -> Result<(), Problem> {
    if secrets.bearer_token_file.is_some() && secrets.basic_auth.is_some() {
        return Err(problem(format!("{at}basic_auth"), "", "not together with bearer_token_file"));
    }
    let password = secrets.basic_auth.iter().map(|auth| &auth.password_file);
    let mut files = secrets.bearer_token_file.iter().chain(password).chain(secrets.headers.values());
    match files.find(|path| !path.is_absolute()) {
        Some(path) => Err(problem(format!("{at}file"), path.display(), "files with secrets are absolute paths")),
        None => Ok(()),
    }
}
