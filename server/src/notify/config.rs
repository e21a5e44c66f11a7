//! Receivers and routes: as written, and as checked.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use petrel_agent::units::Span;
use serde::Deserialize;

use super::route::{Condition, ParseConditionError};

/// Who is told what, as written. Without receivers nobody is told anything.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawNotifyConfig {
    /// Where notices can go.
    pub receivers: Vec<RawReceiver>,
    /// Which alerts go where; the first route that matches takes an alert, unless it says `continue`.
    pub routes: Vec<RawRoute>,
}

/// One place where notices can go: either a webhook or mail.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawReceiver {
    /// Its name, for routes and metrics.
    pub name: String,
    /// Whether the end of alerts is told too.
    #[serde(default = "yes")]
    pub send_resolved: bool,
    /// HTTP POST of Alertmanager's JSON, version 4.
    pub webhook: Option<RawWebhook>,
    /// Mail over SMTP.
    pub email: Option<RawEmail>,
}

/// An HTTP endpoint.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawWebhook {
    /// Where to post.
    pub url: Option<String>,
    /// File with the address, where the address itself is a secret.
    pub url_file: Option<PathBuf>,
    /// File with a token, sent as `Authorization: Bearer`.
    pub bearer_token_file: Option<PathBuf>,
    /// User of basic authentication.
    pub username: Option<String>,
    /// File with the password of basic authentication.
    pub password_file: Option<PathBuf>,
    /// File with the only authorities (PEM) to trust; default: those of the system.
    pub ca_file: Option<PathBuf>,
}

/// A mailbox behind an SMTP server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawEmail {
    /// Server as `host:port`.
    pub smarthost: String,
    /// `starttls` (default), `tls` from the first byte, or `none`.
    #[serde(default)]
    pub tls: MailTls,
    /// Login, together with `password_file`.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
    /// File with the only authorities (PEM) to trust; default: the public ones.
    pub ca_file: Option<PathBuf>,
    /// Sender, `petrel@example.org` or `Petrel <petrel@example.org>`.
    pub from: String,
    /// Recipients.
    pub to: Vec<String>,
    /// Name given in EHLO; default: this host's.
    pub hello: Option<String>,
}

/// How the connection to a mail server is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// Plain at first, then TLS or nothing.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// Never; only without a login, or to this very machine.
    None,
}

/// Which alerts go to which receivers, and how often.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRoute {
    /// All must hold: `alertname=~"Host.*"`, `instance="web1"`, `level>=warning`. Without a `level` condition: warning and above.
    #[serde(default, rename = "match")]
    pub conditions: Vec<String>,
    /// Names of receivers.
    pub receivers: Vec<String>,
    /// Labels that alerts of one notice share.
    #[serde(default = "group_by")]
    pub group_by: Vec<String>,
    /// How long the first notice of a group waits for more alerts. Emergencies never wait.
    #[serde(default = "group_wait")]
    pub group_wait: Span,
    /// Least time between notices of a group.
    #[serde(default = "group_interval")]
    pub group_interval: Span,
    /// When a group that still fires is told again.
    #[serde(default = "repeat_interval")]
    pub repeat_interval: Span,
    /// Take alerts that rest on anomalies alone, too.
    #[serde(default)]
    pub anomalies: bool,
    /// Look at the following routes as well.
    #[serde(default, rename = "continue")]
    pub goes_on: bool,
}

fn yes() -> bool {
    true
}

fn group_by() -> Vec<String> {
    vec!["alertname".to_owned(), "petrel_level".to_owned()]
}

fn group_wait() -> Span {
    Span(Duration::from_secs(10))
}

fn group_interval() -> Span {
    Span(Duration::from_secs(300))
}

fn repeat_interval() -> Span {
    Span(Duration::from_secs(4 * 3600))
}

/// Who is told what, as checked.
#[derive(Debug, Clone, Default)]
pub struct NotifyConfig {
    /// Where notices can go; each is reached by a route.
    pub receivers: Vec<Receiver>,
    /// Which alerts go where.
    pub routes: Vec<Route>,
    /// Address of the console, for links.
    pub external_url: String,
}

/// A receiver, as checked.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// Whether the end of alerts is told too.
    pub send_resolved: bool,
    /// How it is reached.
    pub destination: Destination,
}

/// How a receiver is reached.
#[derive(Debug, Clone)]
pub enum Destination {
    /// By HTTP.
    Webhook(RawWebhook),
    /// By mail.
    Email(Box<Email>),
}

/// A mailbox, as checked.
#[derive(Debug, Clone)]
pub struct Email {
    /// Server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Security of the connection.
    pub tls: MailTls,
    /// User and file with the password.
    pub login: Option<(String, PathBuf)>,
    /// The only authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// Sender.
    pub from: Mailbox,
    /// Recipients, at least one.
    pub to: Vec<Mailbox>,
    /// Name given in EHLO.
    pub hello: Option<String>,
}

/// A route, as checked.
#[derive(Debug, Clone)]
pub struct Route {
    /// The conditions as written, which name the route across reloads.
    pub name: String,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Names of receivers, all of them configured.
    pub receivers: Vec<String>,
    /// Labels that alerts of one notice share.
    pub group_by: Vec<String>,
    /// Times in milliseconds.
    pub timing: Timing,
    /// Take alerts that rest on anomalies alone.
    pub anomalies: bool,
    /// Look at the following routes as well.
    pub goes_on: bool,
}

/// Times of a route, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Wait of the first notice.
    pub wait: i64,
    /// Least time between notices.
    pub interval: i64,
    /// Time until a group that still fires is told again.
    pub repeat: i64,
}

/// What is wrong with [`RawNotifyConfig`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotifyConfigError {
    /// Name empty or used twice.
    #[error("notify.receivers: name `{0}` is empty or stands twice; each receiver needs a name of its own")]
    ReceiverName(String),
    /// Neither or both.
    #[error("notify.receivers `{0}`: give either `webhook` or `email`")]
    Destination(String),
    /// A value of a receiver.
    #[error("notify.receivers `{receiver}`: {key} is `{value}`; {allowed}")]
    Value {
        /// The receiver.
        receiver: String,
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A route names a receiver that is not there, or none.
    #[error("notify.routes {route}: receiver `{name}` is not among notify.receivers")]
    NoReceiver {
        /// Number of the route, from 1 on.
        route: usize,
        /// The name.
        name: String,
    },
    /// No route leads to a receiver, so it would never be told anything.
    #[error("notify.receivers `{0}` is in no route; add `- receivers: [{0}]` to notify.routes")]
    Unreached(String),
    /// A condition of a route.
    #[error("notify.routes {route}: {fault}")]
    Condition {
        /// Number of the route, from 1 on.
        route: usize,
        /// What is wrong.
        fault: ParseConditionError,
    },
    /// A time of a route.
    #[error("notify.routes {route}: {key} is {value}; {allowed}")]
    Time {
        /// Number of the route, from 1 on.
        route: usize,
        /// The key.
        key: &'static str,
        /// The value.
        value: Span,
        /// What is allowed.
        allowed: &'static str,
    },
}

impl RawNotifyConfig {
    /// Checks the values. `external_url` is the address of the console.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(self, external_url: &str) -> Result<NotifyConfig, NotifyConfigError> {
        let mut names = HashSet::new();
        let mut receivers = Vec::new();
        for raw in self.receivers {
            if raw.name.is_empty() || !names.insert(raw.name.clone()) {
                return Err(NotifyConfigError::ReceiverName(raw.name));
            }
            receivers.push(raw.check()?);
        }
        let mut routes = Vec::new();
        for (i, raw) in self.routes.into_iter().enumerate() {
            routes.push(raw.check(i + 1, &names)?);
        }
        let reached: HashSet<&String> = routes.iter().flat_map(|route| &route.receivers).collect();
        if let Some(lost) = receivers.iter().find(|receiver: &&Receiver| !reached.contains(&receiver.name)) {
            return Err(NotifyConfigError::Unreached(lost.name.clone()));
        }
        Ok(NotifyConfig { receivers, routes, external_url: external_url.trim_end_matches('/').to_owned() })
    }
}

impl RawReceiver {
    fn check(self) -> Result<Receiver, NotifyConfigError> {
        let destination = match (self.webhook, self.email) {
            (Some(webhook), None) => Destination::Webhook(webhook.check(&self.name)?),
            (None, Some(email)) => Destination::Email(Box::new(email.check(&self.name)?)),
            _ => return Err(NotifyConfigError::Destination(self.name)),
        };
        Ok(Receiver { name: self.name, send_resolved: self.send_resolved, destination })
    }
}

impl RawWebhook {
    fn check(self, receiver: &str) -> Result<RawWebhook, NotifyConfigError> {
        let wrong = |key, value: &str, allowed| NotifyConfigError::Value {
            receiver: receiver.to_owned(),
            key,
            value: value.to_owned(),
            allowed,
        };
        match (&self.url, &self.url_file) {
            (Some(url), None) if is_http(url) => {}
            (None, Some(_)) => {}
            (url, _) => {
                let url = url.as_deref().unwrap_or("");
                return Err(wrong("webhook.url", url, "write one address with http:// or https://, or url_file"));
            }
        }
        if self.username.is_some() != self.password_file.is_some() {
            let user = self.username.as_deref().unwrap_or("");
            return Err(wrong("webhook.username", user, "username and password_file belong together"));
        }
        if self.username.is_some() && self.bearer_token_file.is_some() {
            return Err(wrong("webhook.bearer_token_file", "set", "it excludes username and password_file"));
        }
        Ok(self)
    }
}

/// Whether a text is an address that can be posted to.
pub(super) fn is_http(url: &str) -> bool {
    reqwest::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

impl RawEmail {
    fn check(self, receiver: &str) -> Result<Email, NotifyConfigError> {
        let wrong = |key, value: &str, allowed| NotifyConfigError::Value {
            receiver: receiver.to_owned(),
            key,
            value: value.to_owned(),
            allowed,
        };
        let mailbox = |key, text: &str| {
            text.parse::<Mailbox>().map_err(|_| wrong(key, text, "write user@host or Name <user@host>"))
        };
        let (host, port) = self
            .smarthost
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .filter(|(host, _)| !host.is_empty())
            .ok_or_else(|| wrong("email.smarthost", &self.smarthost, "write host:port, for example mail:587"))?;
        if self.to.is_empty() {
            return Err(wrong("email.to", "", "write at least one address"));
        }
        let login = match (&self.username, &self.password_file) {
            (Some(user), Some(file)) => Some((user.clone(), file.clone())),
            (None, None) => None,
            _ => return Err(wrong("email.username", "set", "username and password_file belong together")),
        };
        if self.tls == MailTls::None && login.is_some() && !matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
            return Err(wrong("email.tls", "none", "with a login only starttls or tls are allowed"));
        }
        Ok(Email {
            host: host.to_owned(),
            port,
            tls: self.tls,
            login,
            ca_file: self.ca_file,
            from: mailbox("email.from", &self.from)?,
            to: self.to.iter().map(|to| mailbox("email.to", to)).collect::<Result<_, _>>()?,
            hello: self.hello,
        })
    }
}

impl RawRoute {
    fn check(self, route: usize, names: &HashSet<String>) -> Result<Route, NotifyConfigError> {
        let unknown = self.receivers.iter().find(|name| !names.contains(*name));
        if self.receivers.is_empty() || unknown.is_some() {
            return Err(NotifyConfigError::NoReceiver { route, name: unknown.cloned().unwrap_or_default() });
        }
        for (key, value) in [("group_interval", self.group_interval), ("repeat_interval", self.repeat_interval)] {
            if value.as_ms() < 1000 {
                return Err(NotifyConfigError::Time { route, key, value, allowed: "at least 1s is allowed" });
            }
        }
        let conditions = self.conditions.iter().map(|text| text.parse());
        let conditions =
            conditions.collect::<Result<_, _>>().map_err(|fault| NotifyConfigError::Condition { route, fault })?;
        Ok(Route {
            name: self.conditions.join(","),
            conditions,
            receivers: self.receivers,
            group_by: self.group_by,
            timing: Timing {
                wait: self.group_wait.as_ms(),
                interval: self.group_interval.as_ms(),
                repeat: self.repeat_interval.as_ms(),
            },
            anomalies: self.anomalies,
            goes_on: self.goes_on,
        })
    }
}
