//! Who may call what. One pure decision over method, path and headers, applied to every request before any handler.
//!
//! Off loopback every caller shows a bearer token: an agent's opens the agent's own paths under its own name, a user's all
//! others. On loopback no token is asked, but a page from elsewhere must not reach through the operator's browser: the
//! `Host` must be this machine's, and an `Origin` must agree with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use petrel_agent::stream::protocol::{HEADER_AGENT, PATH_ANSWERS, PATH_INVENTORY, PATH_ORDERS};
use subtle::ConstantTimeEq;

use crate::console::OPEN_PATHS;
use crate::telemetry;

/// Shortest token that is accepted; shorter ones can be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// Tokens by name. Never printed.
#[derive(Clone, Default)]
pub struct Tokens {
    agents: BTreeMap<String, String>,
    users: BTreeMap<String, String>,
}

/// What the server asks of a caller.
#[derive(Clone)]
pub enum Policy {
    /// Listening on loopback, no tokens configured: callers on this machine are trusted.
    Loopback,
    /// A token is asked of everybody.
    Tokens(Tokens),
}

impl Policy {
    /// What an agent's heartbeats are signed with: its token, nothing where no token is asked, `None` for an unknown agent.
    pub fn heartbeat_key(&self, agent: &str) -> Option<Vec<u8>> {
        match self {
            Policy::Loopback => Some(Vec::new()),
            Policy::Tokens(tokens) => tokens.agents.get(agent).map(|token| token.as_bytes().to_vec()),
        }
    }
}

/// Who calls, put into the request's extensions for handlers that record it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Somebody on this machine.
    Local,
    /// The agent of this name.
    Agent(String),
    /// The user of this name.
    User(String),
}

/// Why a caller was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// No token, or one nobody has.
    #[error("a valid bearer token is needed: send `Authorization: Bearer TOKEN`")]
    Unknown,
    /// The token is an agent's, the path is not for agents.
    #[error("an agent's token does not open this path; use a user's token")]
    NotForAgents,
    /// The token is one agent's, the request speaks for another.
    #[error("the Petrel-Agent header names another agent than the token")]
    OtherAgent,
    /// The request came through a browser from a page of another site.
    #[error("the request's Host or Origin is not this server's; open the console by its own address")]
    OtherSite,
}

/// Why tokens could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadTokensError {
    /// The file could not be read.
    #[error("token file {path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// A line is not as it must be.
    #[error(
        "{path}:{line}: write one `NAME TOKEN` a line, the token at least 16 characters without spaces, names unique"
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1 on.
        line: usize,
    },
}

impl Tokens {
    /// Reads the files of agents' and users' tokens: one `NAME TOKEN` a line, `#` begins a comment line.
    ///
    /// # Errors
    /// A file cannot be read or holds a line of another form.
    pub fn read(agents: Option<&Path>, users: Option<&Path>) -> Result<Tokens, ReadTokensError> {
        let read = |path: Option<&Path>| path.map(read_token_file).transpose().map(Option::unwrap_or_default);
        Ok(Tokens { agents: read(agents)?, users: read(users)? })
    }

    /// Whose token this is. Compares with every token, so that the time taken tells nothing.
    fn owner(&self, token: &str) -> Option<Identity> {
        let find = |all: &BTreeMap<String, String>| {
            all.iter().fold(None, |found, (name, known)| {
                if bool::from(known.as_bytes().ct_eq(token.as_bytes())) { Some(name.clone()) } else { found }
            })
        };
        let (agent, user) = (find(&self.agents), find(&self.users));
        user.map(Identity::User).or(agent.map(Identity::Agent))
    }
}

fn read_token_file(path: &Path) -> Result<BTreeMap<String, String>, ReadTokensError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| ReadTokensError::Read { path: path.to_owned(), source })?;
    let mut tokens = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = || ReadTokensError::Line { path: path.to_owned(), line: at + 1 };
        let (name, token) = line.trim().split_once(char::is_whitespace).ok_or_else(wrong)?;
        let token = token.trim();
        if token.len() < TOKEN_BYTES_MIN || token.contains(char::is_whitespace) {
            return Err(wrong());
        }
        if tokens.insert(name.to_owned(), token.to_owned()).is_some() {
            return Err(wrong());
        }
    }
    Ok(tokens)
}

/// Decides over one request. Health checks and the console's files are open to all: they tell nothing.
///
/// # Errors
/// Why the caller is turned away.
pub fn decide(policy: &Policy, method: &Method, path: &str, headers: &HeaderMap) -> Result<Identity, Denial> {
    if matches!(path, "/-/healthy" | "/-/ready") || (method == Method::GET && OPEN_PATHS.contains(&path)) {
        return Ok(Identity::Local);
    }
    let identity = match policy {
        Policy::Loopback => return same_site(headers).then_some(Identity::Local).ok_or(Denial::OtherSite),
        Policy::Tokens(tokens) => bearer(headers).and_then(|token| tokens.owner(token)).ok_or(Denial::Unknown)?,
    };
    if let Identity::Agent(name) = &identity {
        if !for_agents(method, path) {
            return Err(Denial::NotForAgents);
        }
        let speaks_for = headers.get(HEADER_AGENT).map(axum::http::HeaderValue::as_bytes);
        if speaks_for.is_some_and(|other| other != name.as_bytes()) {
            return Err(Denial::OtherAgent);
        }
        // Orders, answers and inventory act on the name alone, so there it must be said.
        if speaks_for.is_none() && path.starts_with("/petrel/") {
            return Err(Denial::OtherAgent);
        }
    }
    Ok(identity)
}

fn for_agents(method: &Method, path: &str) -> bool {
    match path {
        "/v1/metrics" | "/api/v1/otlp/v1/metrics" | "/v1/logs" | "/api/v1/write" | PATH_ANSWERS | PATH_INVENTORY => {
            method == Method::POST
        }
        PATH_ORDERS => method == Method::GET,
        _ => false,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

/// Against DNS rebinding and cross-site requests: a browser sends the name it believes it talks to.
fn same_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).unwrap_or("localhost");
    let origin_agrees =
        text(header::ORIGIN).is_none_or(|origin| origin.split_once("://").is_some_and(|(_, at)| at == host));
    is_local_name(host) && origin_agrees
}

fn is_local_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Middleware: turns away or lets through with the caller's [`Identity`] in the extensions.
pub async fn check(State(policy): State<Arc<Policy>>, mut request: Request, next: Next) -> Response {
    match decide(&policy, request.method(), request.uri().path(), request.headers()) {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(denial) => {
            telemetry::REQUESTS_DENIED.with_label_values(&[denial.word()]).inc();
            let status = if denial == Denial::Unknown { StatusCode::UNAUTHORIZED } else { StatusCode::FORBIDDEN };
            let body =
                serde_json::json!({ "status": "error", "errorType": "unauthorized", "error": denial.to_string() });
            (status, axum::Json(body)).into_response()
        }
    }
}

impl Denial {
    fn word(self) -> &'static str {
        match self {
            Denial::Unknown => "unknown",
            Denial::NotForAgents => "not_for_agents",
            Denial::OtherAgent => "other_agent",
            Denial::OtherSite => "other_site",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn tokens() -> Policy {
        let dir = tempfile::tempdir().unwrap();
        let (agents, users) = (dir.path().join("agents"), dir.path().join("users"));
        std::fs::write(&agents, "# hosts\nweb1 0123456789abcdef\nweb2 fedcba9876543210\n").unwrap();
        std::fs::write(&users, "ann  anns-long-secret-token\n").unwrap();
        Policy::Tokens(Tokens::read(Some(&agents), Some(&users)).unwrap())
    }

    #[test]
    fn tokens_open_what_they_are_for() {
        let policy = tokens();
        let ask = |method: Method, path: &str, token: &str, agent: &str| {
            let mut all = headers(&[("authorization", &format!("Bearer {token}"))]);
            if !agent.is_empty() {
                all.insert(HEADER_AGENT, agent.parse().unwrap());
            }
            decide(&policy, &method, path, &all)
        };
        let web1 = || Ok(Identity::Agent("web1".to_owned()));
        assert_eq!(ask(Method::POST, "/v1/metrics", "0123456789abcdef", "web1"), web1());
        assert_eq!(ask(Method::POST, "/api/v1/otlp/v1/metrics", "0123456789abcdef", "web1"), web1());
        assert_eq!(ask(Method::GET, PATH_ORDERS, "0123456789abcdef", "web1"), web1());
        assert_eq!(ask(Method::GET, PATH_ORDERS, "0123456789abcdef", "web2"), Err(Denial::OtherAgent));
        assert_eq!(ask(Method::GET, PATH_ORDERS, "0123456789abcdef", ""), Err(Denial::OtherAgent));
        assert_eq!(ask(Method::POST, "/petrel/v1/hold", "0123456789abcdef", "web1"), Err(Denial::NotForAgents));
        assert_eq!(ask(Method::GET, "/api/v1/query", "0123456789abcdef", "web1"), Err(Denial::NotForAgents));
        assert_eq!(
            ask(Method::POST, "/petrel/v1/hold", "anns-long-secret-token", ""),
            Ok(Identity::User("ann".to_owned()))
        );
        assert_eq!(ask(Method::GET, "/petrel/v1/overview", "wrong", ""), Err(Denial::Unknown));
        assert_eq!(decide(&policy, &Method::GET, "/", &HeaderMap::new()), Ok(Identity::Local));
        assert_eq!(decide(&policy, &Method::GET, "/metrics", &HeaderMap::new()), Err(Denial::Unknown));
        assert_eq!(decide(&policy, &Method::GET, "/-/healthy", &HeaderMap::new()), Ok(Identity::Local));
    }

    #[test]
    fn pages_of_other_sites_do_not_reach_a_loopback_server() {
        let ask = |pairs: &[(&'static str, &str)]| {
            decide(&Policy::Loopback, &Method::POST, "/petrel/v1/hold", &headers(pairs))
        };
        assert_eq!(ask(&[("host", "127.0.0.1:9780")]), Ok(Identity::Local));
        assert_eq!(ask(&[("host", "[::1]:9780"), ("origin", "http://[::1]:9780")]), Ok(Identity::Local));
        assert_eq!(ask(&[("host", "localhost:9780"), ("origin", "http://evil.example")]), Err(Denial::OtherSite));
        assert_eq!(ask(&[("host", "evil.example:9780")]), Err(Denial::OtherSite));
        assert_eq!(ask(&[("host", "localhost:9780"), ("origin", "null")]), Err(Denial::OtherSite));
    }

    #[test]
    fn a_wrong_token_file_is_named_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agents");
        for text in
            ["ok 0123456789abcdef\nweb1 short", "ok 0123456789abcdef\nalone", "a 0123456789abcdef\na 0123456789abcdef"]
        {
            std::fs::write(&path, text).unwrap();
            let error = Tokens::read(Some(&path), None).err().unwrap().to_string();
            assert!(error.contains("agents:2:") && !error.contains("short"), "{error}");
        }
    }
}
