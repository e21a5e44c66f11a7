//! The server's config: YAML as written, checked as a whole before anything of it is used. Each part of the server owns its
//! section; this file composes them and is the only one that reads the environment.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use petrel_agent::error_chain::chain;
use petrel_agent::yaml::{self, Places, Problem};
use serde::Deserialize;

use crate::api::auth::{Policy, Tokens};
use crate::api::write::{RawWriteLimits, WriteLimits};
use crate::decide::engine::{RawRulesConfig, RulesConfig};
use crate::memory::{MemoryMax, RawMemoryMax};
use crate::notify::{NotifyConfig, RawNotifyConfig};
use crate::predict::{PredictConfig, RawPredictConfig};
use crate::query::{QueryOptions, RawQueryOptions};
use crate::remedy;
use crate::remedy::fleet::{Facts, FactsError};
use crate::remedy::runbook::Runbook;
use crate::remedy::settings::{RawRemedy, Settings};
use crate::remote::{RawEngine, RemoteConfig};
use crate::rules::{self, RuleSet};
use crate::score::{RawScoreConfig, ScoreConfig};
use crate::store::{RawStoreOptions, StoreOptions};

mod lint;

pub use lint::lint;

/// Where the server listens unless told otherwise.
const LISTEN_DEFAULT: &str = "127.0.0.1:9780";
/// Stands where a file's path does, for values that no file has.
const COMMAND_LINE: &str = "command line";

/// The config file as written. Unknown keys are refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawConfig {
    /// Folder that holds everything the server keeps.
    pub data: Option<PathBuf>,
    /// Address and port of console and API; off loopback `tls` and `auth` are needed.
    pub listen: Option<String>,
    /// The server's certificate.
    pub tls: Option<TlsFiles>,
    /// Files with tokens.
    pub auth: AuthFiles,
    /// Most memory of the server: a size such as `4GiB`, a share of what the machine has or the control group may take, or `off`.
    /// Near it no series are added, at it no queries are answered; known series, rules and alerts go on.
    pub memory_max: RawMemoryMax,
    /// How samples are kept.
    pub store: RawStoreOptions,
    /// Where samples are kept beside this machine.
    pub engine: RawEngine,
    /// Rules and how they are evaluated.
    pub rules: RawRulesConfig,
    /// What queries may cost.
    pub query: RawQueryOptions,
    /// What one request that brings samples or log lines may hold.
    pub write: RawWriteLimits,
    /// Scoring of every series.
    pub score: RawScoreConfig,
    /// Predictions.
    pub predict: RawPredictConfig,
    /// Who is told what.
    pub notify: RawNotifyConfig,
    /// Runbooks and their budgets.
    pub remedy: RawRemedy,
}

/// Certificate and key of the server's end of TLS, PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The certificate chain, the server's own first.
    pub certificate_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

/// Files with bearer tokens, one `NAME TOKEN` a line.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthFiles {
    /// Tokens of agents, by agent id.
    pub agent_tokens_file: Option<PathBuf>,
    /// Tokens of people and programs.
    pub user_tokens_file: Option<PathBuf>,
}

/// How to read the config again.
#[derive(Debug, Clone, Default)]
pub struct Reload {
    /// The config file; without one there is nothing to read again.
    pub path: Option<PathBuf>,
    /// What the command line said.
    pub overrides: Overrides,
}

impl Reload {
    /// Reads everything again.
    ///
    /// # Errors
    /// Every mistake; then what is in force stays.
    pub fn read(&self) -> Result<Config, Vec<Problem>> {
        // Taken first: what changes while the files are read is seen as a change later.
        let fingerprint = self.fingerprint();
        let config = Config::read(self.path.as_deref(), self.overrides.clone())?;
        Ok(Config { fingerprint, ..config })
    }

    /// The folders in which the config and the files that it names lie, as far as it can be read.
    pub fn folders(&self) -> BTreeSet<PathBuf> {
        let Some(path) = &self.path else { return BTreeSet::new() };
        let raw: RawConfig = yaml::read_file(path).unwrap_or_default();
        let files = std::iter::once(path).chain(&raw.rules.files).chain(&raw.remedy.runbooks).chain(&raw.remedy.fleet);
        let folder = |file: &PathBuf| match file.parent() {
            _ if file.is_dir() => file.clone(),
            Some(parent) if parent.as_os_str().is_empty() => PathBuf::from("."),
            Some(parent) => parent.to_owned(),
            None => file.clone(),
        };
        files.map(folder).collect()
    }

    /// A fingerprint of everything that [`Reload::read`] reads: it changes when a file does. Files that cannot be read count as
    /// empty.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let Some(path) = &self.path else { return hasher.finish() };
        let mut hash = |path: &Path| std::fs::read(path).unwrap_or_default().hash(&mut hasher);
        let raw: RawConfig = yaml::read_file(path).unwrap_or_default();
        hash(path);
        for file in raw.rules.files.iter().chain(&raw.remedy.fleet) {
            hash(file);
        }
        for file in raw.remedy.runbooks.iter().flat_map(|path| remedy::load::yaml_files(path).unwrap_or_default()) {
            hash(&file);
        }
        hasher.finish()
    }
}

/// What the command line says over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--data`
    pub data: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--retention`
    pub retention: Option<String>,
}

/// The config as the server uses it: every value checked, every file that it names read.
pub struct Config {
    /// The file as written; empty without one.
    pub text: String,
    /// Folder that holds everything the server keeps.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// TLS; always there off loopback.
    pub tls: Option<TlsFiles>,
    /// What is asked of callers; always tokens off loopback.
    pub policy: Policy,
    /// Most memory of the server.
    pub memory_max: MemoryMax,
    /// How samples are kept.
    pub store: StoreOptions,
    /// Where samples are kept beside this machine.
    pub remote: Option<RemoteConfig>,
    /// What queries may cost.
    pub query: QueryOptions,
    /// How rules are evaluated.
    pub rules: RulesConfig,
    /// What one request that brings samples or log lines may hold.
    pub write: WriteLimits,
    /// Scoring of every series.
    pub score: ScoreConfig,
    /// Predictions.
    pub predict: PredictConfig,
    /// Who is told what.
    pub notify: NotifyConfig,
    /// Budgets and times of runs.
    pub remedy: Settings,
    /// What is taken again when its files change.
    pub files: Files,
    /// [`Reload::fingerprint`] of the files that it was read from.
    pub fingerprint: u64,
}

/// What stands in files of its own, taken whole or not at all, at the start and whenever the files change.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// The rules.
    pub rules: RuleSet,
    /// The runbooks.
    pub runbooks: Vec<Runbook>,
    /// The fleet's facts.
    pub facts: Facts,
}

impl Config {
    /// Reads the file (defaults without one), lets the command line override it, checks all of it.
    ///
    /// # Errors
    /// Every mistake that was found, each with its place where it has one.
    pub fn read(path: Option<&Path>, overrides: Overrides) -> Result<Config, Vec<Problem>> {
        let mut problems = Problems::default();
        problems.overridden.extend(overrides.listen.is_some().then_some("listen"));
        problems.overridden.extend(overrides.retention.is_some().then_some("store.retention"));
        let Some(path) = path else { return Config::check(RawConfig::default(), overrides, problems) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| vec![Problem::new(path, format!("cannot be read: {error}"))])?;
        let raw = yaml::read(path, &text).map_err(|problem| vec![problem])?;
        let config = Config::check(raw, overrides, Problems { path, places: Places::read(&text), ..problems })?;
        Ok(Config { text, ..config })
    }

    fn check(raw: RawConfig, overrides: Overrides, mut problems: Problems<'_>) -> Result<Config, Vec<Problem>> {
        let files = Files::read(&raw).map_err(|found| problems.found.extend(found)).unwrap_or_default();
        let listen = overrides.listen.or(raw.listen).unwrap_or_else(|| LISTEN_DEFAULT.to_owned());
        let listen = problems.keep(listen.parse::<SocketAddr>().map_err(|_| {
            format!("listen: `{listen}` is not ADDRESS:PORT with a numeric address, for example {LISTEN_DEFAULT}")
        }));
        let tls = raw.tls;
        let policy = problems.keep(read_policy(&raw.auth));
        if let (Some(listen), Some(policy)) = (&listen, &policy) {
            problems.keep(guard_network(*listen, tls.as_ref(), policy));
        }
        let memory_max = problems.keep(raw.memory_max.check());
        let mut store = raw.store;
        if let Some(retention) = overrides.retention {
            store.retention = retention;
        }
        let store = problems.keep(store.check());
        let remote = problems.keep(raw.engine.check());
        let own_url = listen.map(|listen| url_of(listen, tls.is_some())).unwrap_or_default();
        let external_url = raw.rules.external_url.clone().unwrap_or_else(|| own_url.clone());
        let rules = problems.keep(raw.rules.check(&own_url));
        let query = problems.keep(raw.query.check());
        let write = problems.keep(raw.write.check());
        let score = problems.keep(raw.score.check());
        let predict = problems.keep(raw.predict.check());
        let notify = problems.keep(raw.notify.check(&external_url));
        let remedy = problems.keep(raw.remedy.check());
        let data = problems.keep(
            overrides
                .data
                .or(raw.data)
                .or_else(data_default)
                .ok_or("data: cannot be guessed because HOME is not set; name the folder with `data:` or --data"),
        );
        let found = problems.found;
        let all = || {
            Some(Config {
                text: String::new(),
                data: data?,
                listen: listen?,
                tls,
                policy: policy?,
                memory_max: memory_max?,
                store: store?,
                remote: remote?,
                query: query?,
                rules: rules?,
                write: write?,
                score: score?,
                predict: predict?,
                notify: notify?,
                remedy: remedy?,
                files,
                fingerprint: 0,
            })
        };
        if found.is_empty() { all().ok_or(found) } else { Err(found) }
    }
}

impl Files {
    /// Reads rules, runbooks and facts that the config names.
    ///
    /// # Errors
    /// Every mistake in every file.
    fn read(raw: &RawConfig) -> Result<Files, Vec<Problem>> {
        let mut problems = Vec::new();
        let rules = read_rules(&raw.rules).map_err(|found| problems.extend(found));
        let runbooks = remedy::load::read(&raw.remedy.runbooks).map_err(|found| {
            problems.extend(found.into_iter().map(|problem| Problem {
                path: problem.file,
                at: problem.place,
                message: problem.message,
            }));
        });
        let facts = read_facts(raw.remedy.fleet.as_deref()).map_err(|found| problems.push(found));
        match (rules, runbooks, facts) {
            (Ok(rules), Ok(runbooks), Ok(facts)) => Ok(Files { rules, runbooks, facts }),
            _ => Err(problems),
        }
    }
}

/// The fleet's facts, and on which machine this is; without a file nothing else is known.
fn read_facts(path: Option<&Path>) -> Result<Facts, Problem> {
    let own_host = petrel_agent::config::host_name();
    let Some(path) = path else { return Ok(Facts::default().seen_from(&own_host)) };
    let text = std::fs::read_to_string(path).map_err(|error| Problem::new(path, format!("cannot be read: {error}")))?;
    Facts::parse(path, &text).map(|facts| facts.seen_from(&own_host)).map_err(|error| match error {
        FactsError::Yaml(problem) => problem,
        FactsError::Twice { .. } => Problem::new(path, error.to_string()),
    })
}

/// Collects what is wrong, so that one run of `petrel check` shows all of it.
struct Problems<'a> {
    path: &'a Path,
    places: Places,
    /// Keys whose values came from the command line.
    overridden: Vec<&'static str>,
    found: Vec<Problem>,
}

impl Default for Problems<'_> {
    fn default() -> Self {
        Problems { path: Path::new(COMMAND_LINE), places: Places::default(), overridden: Vec::new(), found: Vec::new() }
    }
}

impl Problems<'_> {
    fn keep<T, E: ToString>(&mut self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(error.to_string())).ok()
    }

    /// What a check says begins with the key, `store.retention: …`; so it tells the place, too.
    fn add(&mut self, message: String) {
        let end = message.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '.').unwrap_or(message.len());
        let key = &message[..end];
        let problem = if self.overridden.contains(&key) {
            Problem::new(Path::new(COMMAND_LINE), message)
        } else {
            Problem { path: self.path.to_owned(), at: self.places.nearest(key), message }
        };
        self.found.push(problem);
    }
}

fn read_policy(auth: &AuthFiles) -> Result<Policy, String> {
    if auth.agent_tokens_file.is_none() && auth.user_tokens_file.is_none() {
        return Ok(Policy::Loopback);
    }
    let tokens = Tokens::read(auth.agent_tokens_file.as_deref(), auth.user_tokens_file.as_deref());
    tokens.map(Policy::Tokens).map_err(|error| format!("auth: {}", chain(&error)))
}

/// Off loopback nothing goes in the clear and nobody is trusted unasked.
fn guard_network(listen: SocketAddr, tls: Option<&TlsFiles>, policy: &Policy) -> Result<(), String> {
    if listen.ip().is_loopback() {
        return Ok(());
    }
    let missing = match (tls, policy) {
        (None, Policy::Loopback) => "tls and auth",
        (None, _) => "tls",
        (_, Policy::Loopback) => "auth",
        _ => return Ok(()),
    };
    Err(format!(
        "listen: {listen} can be reached from other machines, so {missing} must be set; docs/guide/fleet.md shows how"
    ))
}

/// The shipped rules, unless they are switched off, and the user's files, whole or not at all.
fn read_rules(raw: &RawRulesConfig) -> Result<RuleSet, Vec<Problem>> {
    let mut files: Vec<(PathBuf, String)> = Vec::new();
    if raw.shipped {
        files.extend(rules::shipped().iter().map(|(name, text)| (PathBuf::from(name), (*text).to_owned())));
    }
    let mut problems = Vec::new();
    for path in &raw.files {
        match std::fs::read_to_string(path) {
            Ok(text) => files.push((path.clone(), text)),
            Err(error) => problems.push(Problem::new(path, format!("cannot be read: {error}"))),
        }
    }
    let loaded = rules::load(&files).map_err(|found| {
        problems.extend(found.into_iter().map(|problem| Problem {
            path: problem.file,
            at: Some((problem.finding.line, problem.finding.column)),
            message: problem.finding.message,
        }));
    });
    match loaded {
        Ok(set) if problems.is_empty() => Ok(set),
        _ => Err(problems),
    }
}

/// The address of a server that listens there, as a caller on the same machine writes it.
pub fn url_of(listen: SocketAddr, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    let address =
        if listen.ip().is_unspecified() { SocketAddr::new([127, 0, 0, 1].into(), listen.port()) } else { listen };
    format!("{scheme}://{address}")
}

/// `/var/lib/petrel` for root, the XDG data folder for everybody else.
fn data_default() -> Option<PathBuf> {
    if rustix::process::getuid().is_root() {
        return Some(PathBuf::from("/var/lib/petrel"));
    }
    let xdg = std::env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    xdg.or_else(home).map(|base| base.join("petrel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_file_shows_the_defaults() {
        let text = include_str!("../../deploy/petrel.example.yaml");
        let example: RawConfig = yaml::read(Path::new("petrel.example.yaml"), text).unwrap();
        assert_eq!(example.listen.as_deref(), Some(LISTEN_DEFAULT));
        assert_eq!(example.memory_max, RawMemoryMax::default());
        assert_eq!(example.store, RawStoreOptions::default());
        assert_eq!(example.engine, RawEngine::default());
        assert_eq!(example.query, RawQueryOptions::default());
        assert_eq!(example.write, RawWriteLimits::default());
        assert_eq!(example.score, RawScoreConfig::default());
        assert_eq!(example.predict, RawPredictConfig::default());
        let whole = |remedy: &RawRemedy| serde_json::to_value(remedy).unwrap();
        assert_eq!(whole(&example.remedy), whole(&RawRemedy::default()));
        let rules = |rules: &RawRulesConfig| format!("{rules:?}");
        assert_eq!(rules(&example.rules), rules(&RawRulesConfig::default()));
    }
}
