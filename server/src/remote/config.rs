//! How the remote engine is set, as written and as checked.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use petrel_agent::units::{Bytes, Span};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// The section `engine` of the server's config, as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawEngine {
    /// A Prometheus-compatible store that keeps the samples; the local store then only needs the last hours or days.
    pub remote: RawRemote,
}

/// The section `engine.remote`, as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRemote {
    /// Whether samples are sent to a remote engine and older ones read from it.
    pub enabled: bool,
    /// Where samples are sent by Prometheus remote write 1.0. Without it nothing is sent.
    pub write_url: Option<String>,
    /// Address before `/api/v1/…` where older samples are read. Without it answers come from the local store alone.
    pub read_url: Option<String>,
    /// How it is read: `remote_read` (Prometheus, Mimir), `victoriametrics`, or `query` for others with Prometheus' API, such as
    /// Thanos, which do not tell where series end.
    pub read_protocol: ReadProtocol,
    /// Whether the remote engine is asked for recent samples, too. Needed for a while after the data folder was lost or restored.
    pub read_recent: bool,
    /// Headers of every request, such as `X-Scope-OrgID`. No secrets here.
    pub headers: BTreeMap<String, String>,
    /// File with a token that is sent as `Authorization: Bearer`.
    pub bearer_token_file: Option<PathBuf>,
    /// User of basic authentication, together with `password_file`.
    pub username: Option<String>,
    /// File with the password of basic authentication.
    pub password_file: Option<PathBuf>,
    /// File with the only authorities (PEM) to trust; default: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Longest time to connect.
    pub connect_timeout: Span,
    /// Longest time of one request that writes.
    pub write_timeout: Span,
    /// Longest time of one request that reads.
    pub read_timeout: Span,
    /// Most samples of one request that writes.
    pub batch_samples: usize,
    /// Requests that write at the same time; the samples of a series always go one after another.
    pub shards: usize,
    /// How long few samples wait for more before they are sent.
    pub linger: Span,
    /// Most bytes of journals that wait to be sent; beyond it the oldest are not sent any more, which is counted.
    pub queue_max: Bytes,
    /// Requests that read at the same time; further ones wait.
    pub reads_max: usize,
    /// Largest answer of the remote engine, decompressed.
    pub response_max: Bytes,
    /// How long nothing is asked after the remote engine could not be reached.
    pub pause: Span,
}

impl Default for RawRemote {
    fn default() -> RawRemote {
        RawRemote {
            enabled: false,
            write_url: None,
            read_url: None,
            read_protocol: ReadProtocol::RemoteRead,
            read_recent: false,
            headers: BTreeMap::new(),
            bearer_token_file: None,
            username: None,
            password_file: None,
            ca_file: None,
            connect_timeout: Span(Duration::from_secs(5)),
            write_timeout: Span(Duration::from_secs(30)),
            read_timeout: Span(Duration::from_secs(30)),
            batch_samples: 5_000,
            shards: 4,
            linger: Span(Duration::from_secs(1)),
            queue_max: Bytes(8 << 30),
            reads_max: 8,
            response_max: Bytes(256 << 20),
            pause: Span(Duration::from_secs(10)),
        }
    }
}

/// How samples are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadProtocol {
    /// Prometheus' remote read, which gives samples bit for bit.
    RemoteRead,
    /// An instant query for a range selector. VictoriaMetrics keeps no NaN but staleness markers, and shows those.
    Victoriametrics,
    /// The same, of a store that leaves out staleness markers.
    Query,
}

/// A value that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RemoteConfigError {
    /// Not an address.
    #[error("engine.remote.{key}: `{found}` is no address; write one with http:// or https://")]
    Url {
        /// Which key.
        key: &'static str,
        /// What was written.
        found: String,
    },
    /// Switched on, and nothing to do.
    #[error("engine.remote.enabled: needs write_url, read_url, or both")]
    Nowhere,
    /// No header.
    #[error("engine.remote.headers: `{name}` cannot be sent; secrets go into bearer_token_file or password_file")]
    Header {
        /// Its name.
        name: String,
    },
    /// Half of a login, or two.
    #[error("engine.remote.username: goes together with password_file, and not with bearer_token_file")]
    Login,
    /// Out of bounds.
    #[error("engine.remote.{key} must be at least {min} and at most {max}")]
    Bounds {
        /// Which key.
        key: &'static str,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },
    /// A time of nothing.
    #[error("engine.remote.{key} must not be zero")]
    Zero {
        /// Which key.
        key: &'static str,
    },
}

/// The remote engine as checked.
#[derive(Debug, Clone)]
pub struct RemoteConfig {
    /// Where to send.
    pub write_url: Option<Url>,
    /// Where to read, with a slash at the end.
    pub read_url: Option<Url>,
    /// How to read.
    pub read_protocol: ReadProtocol,
    /// Whether recent samples are asked for, too.
    pub read_recent: bool,
    /// Headers of every request.
    pub headers: HeaderMap,
    /// Token.
    pub bearer_token_file: Option<PathBuf>,
    /// User and file with the password.
    pub basic: Option<(String, PathBuf)>,
    /// Authorities.
    pub ca_file: Option<PathBuf>,
    /// Longest time to connect.
    pub connect_timeout: Duration,
    /// Longest time of a write.
    pub write_timeout: Duration,
    /// Longest time of a read.
    pub read_timeout: Duration,
    /// Samples of one write.
    pub batch_samples: usize,
    /// Writes at one time.
    pub shards: usize,
    /// How long few samples wait.
    pub linger: Duration,
    /// Bytes that may wait.
    pub queue_bytes_max: u64,
    /// Reads at one time.
    pub reads_max: usize,
    /// Bytes of an answer.
    pub response_bytes_max: usize,
    /// Pause after a failure.
    pub pause: Duration,
}

impl RawEngine {
    /// Checks what was written; `None` where no remote engine is switched on.
    ///
    /// # Errors
    /// The first value that is not allowed, also where it is switched off.
    pub fn check(&self) -> Result<Option<RemoteConfig>, RemoteConfigError> {
        let raw = &self.remote;
        let checked = raw.check()?;
        if raw.enabled && raw.write_url.is_none() && raw.read_url.is_none() {
            return Err(RemoteConfigError::Nowhere);
        }
        Ok(raw.enabled.then_some(checked))
    }
}

impl RawRemote {
    fn check(&self) -> Result<RemoteConfig, RemoteConfigError> {
        let basic = match (&self.username, &self.password_file, &self.bearer_token_file) {
            (Some(user), Some(file), None) => Some((user.clone(), file.clone())),
            (None, None, _) => None,
            _ => return Err(RemoteConfigError::Login),
        };
        let zero = |key, span: Span| if span.0.is_zero() { Err(RemoteConfigError::Zero { key }) } else { Ok(span.0) };
        let mut read_url = url("read_url", self.read_url.as_deref())?;
        if let Some(url) = &mut read_url
            && !url.path().ends_with('/')
        {
            url.set_path(&format!("{}/", url.path()));
        }
        Ok(RemoteConfig {
            write_url: url("write_url", self.write_url.as_deref())?,
            read_url,
            read_protocol: self.read_protocol,
            read_recent: self.read_recent,
            headers: headers(&self.headers)?,
            bearer_token_file: self.bearer_token_file.clone(),
            basic,
            ca_file: self.ca_file.clone(),
            connect_timeout: zero("connect_timeout", self.connect_timeout)?,
            write_timeout: zero("write_timeout", self.write_timeout)?,
            read_timeout: zero("read_timeout", self.read_timeout)?,
            batch_samples: within("batch_samples", self.batch_samples as u64, (1, 100_000))? as usize,
            shards: within("shards", self.shards as u64, (1, 64))? as usize,
            linger: self.linger.0,
            // Less than two journal files could not hold back even the one that is being written.
            queue_bytes_max: within("queue_max", self.queue_max.0, (128 << 20, u64::MAX))?,
            reads_max: within("reads_max", self.reads_max as u64, (1, 1_000))? as usize,
            response_bytes_max: within("response_max", self.response_max.0, (1 << 20, 1 << 32))? as usize,
            pause: self.pause.0,
        })
    }
}

fn within(key: &'static str, value: u64, (min, max): (u64, u64)) -> Result<u64, RemoteConfigError> {
    if (min..=max).contains(&value) { Ok(value) } else { Err(RemoteConfigError::Bounds { key, min, max }) }
}

fn url(key: &'static str, text: Option<&str>) -> Result<Option<Url>, RemoteConfigError> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || RemoteConfigError::Url { key, found: text.to_owned() };
    let url = Url::parse(text).map_err(|_| wrong())?;
    // Logins in addresses would stand in logs.
    let is_usable = matches!(url.scheme(), "http" | "https") && url.has_host() && url.password().is_none();
    if is_usable { Ok(Some(url)) } else { Err(wrong()) }
}

fn headers(written: &BTreeMap<String, String>) -> Result<HeaderMap, RemoteConfigError> {
    let mut headers = HeaderMap::new();
    for (name, value) in written {
        let wrong = || RemoteConfigError::Header { name: name.clone() };
        let key: HeaderName = name.parse().map_err(|_| wrong())?;
        let ours = ["authorization", "content-type", "content-encoding", "content-length", "host", "user-agent"];
        if ours.contains(&key.as_str()) {
            return Err(wrong());
        }
        headers.insert(key, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut RawRemote)) -> Result<Option<RemoteConfig>, String> {
        let mut raw = RawEngine::default();
        change(&mut raw.remote);
        raw.check().map_err(|error| error.to_string())
    }

    #[test]
    fn what_cannot_be_is_told_with_its_key() {
        assert!(check(|_| {}).unwrap().is_none());
        let on = check(|raw| {
            raw.enabled = true;
            raw.read_url = Some("https://mimir.example.org/prometheus".to_owned());
        });
        assert_eq!(on.unwrap().unwrap().read_url.unwrap().as_str(), "https://mimir.example.org/prometheus/");
        let wrong = [
            (check(|raw| raw.enabled = true), "engine.remote.enabled"),
            (check(|raw| raw.write_url = Some("vm:8428".to_owned())), "engine.remote.write_url"),
            (check(|raw| raw.write_url = Some("http://u:secret@vm".to_owned())), "engine.remote.write_url"),
            (check(|raw| raw.username = Some("me".to_owned())), "engine.remote.username"),
            (
                check(|raw| drop(raw.headers.insert("Authorization".to_owned(), "x".to_owned()))),
                "engine.remote.headers",
            ),
            (check(|raw| raw.shards = 0), "engine.remote.shards"),
            (check(|raw| raw.queue_max = Bytes(1)), "engine.remote.queue_max"),
            (check(|raw| raw.read_timeout = Span(Duration::ZERO)), "engine.remote.read_timeout"),
        ];
        for (result, key) in wrong {
            let told = result.unwrap_err();
            assert!(told.starts_with(key), "{told}");
        }
    }
}
