//! `/api/v1/status/*`, `features` and `alertmanagers`: what this server is and how it is set, in the words of Prometheus, so that
//! its clients know what they talk to. Secrets never stand in the config, and addresses in it are shown without their paths.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::ingest::presence::Presence;
use crate::notify::webhook::rfc3339;
use crate::query::source::Source;
use crate::query::{self, Limits, Type};
use crate::series::Timestamp;
use crate::store::{Count, Store};
use crate::telemetry;

use super::gate::Gate;
use super::json::{self, Failure};
use super::params::Params;
use super::targets;

/// The version that clients such as Grafana choose by what to ask for; what is here behaves as this Prometheus does.
const VERSION: &str = "3.5.0";
/// Entries of each list of `status/tsdb`, and the most that may be asked for; both are Prometheus' own.
const STATS_DEFAULT: usize = 10;
const STATS_MAX: usize = 10_000;

/// What does not change while the server runs.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// When it started.
    pub started_at: Timestamp,
    /// The config file as written; empty without one.
    pub config: String,
    /// Settings under the names of Prometheus' flags.
    pub flags: BTreeMap<&'static str, String>,
    /// Labels of this server, which series get on their way to other servers.
    pub external_labels: BTreeMap<String, String>,
}

/// What the handlers share.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) store: Arc<Store>,
    pub(super) source: Arc<dyn Source>,
    pub(super) presence: Arc<Mutex<Presence>>,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) gate: Arc<Gate>,
    pub(super) about: Arc<About>,
}

/// The routes of this file and of `targets`.
pub(super) fn router(server: Server) -> Router {
    Router::new()
        .route("/api/v1/status/config", get(config))
        .route(
            "/api/v1/status/flags",
            get(|State(server): State<Server>| async move { json::success(&server.about.flags) }),
        )
        .route("/api/v1/status/runtimeinfo", get(runtime))
        .route("/api/v1/status/buildinfo", get(build))
        .route("/api/v1/status/tsdb", get(tsdb))
        .route("/api/v1/status/walreplay", get(replay))
        .route("/api/v1/features", get(features))
        .route("/api/v1/alertmanagers", get(alertmanagers))
        .route("/api/v1/targets", get(targets::targets))
        .route("/api/v1/targets/metadata", get(targets::metadata))
        .route("/api/v1/scrape_pools", get(targets::pools))
        .with_state(server)
}

async fn config(State(server): State<Server>) -> Response {
    json::success(&json!({ "yaml": without_paths(&server.about.config) }))
}

/// Addresses as scheme, host and port only: users, passwords and the paths of webhooks are secrets.
fn without_paths(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "\"',}]".contains(c)).unwrap_or(after.len());
        let (address, behind) = after.split_at(end);
        let (authority, path) = address.find(['/', '?', '#']).map_or((address, ""), |at| address.split_at(at));
        out.push_str(authority.rsplit('@').next().unwrap_or_default());
        if path.len() > 1 {
            out.push_str("/<hidden>");
        }
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// Fields of Go that have no like here are as Go leaves them when they are not set.
async fn runtime(State(server): State<Server>) -> Response {
    let retention = server.store.options().retention;
    let started = rfc3339(server.about.started_at);
    json::success(&json!({
        "startTime": started,
        "CWD": std::env::current_dir().unwrap_or_default(),
        "hostname": petrel_agent::config::host_name(),
        "serverTime": rfc3339((server.clock)()),
        "reloadConfigSuccess": telemetry::CONFIG_IN_FORCE.get() == 1,
        "lastConfigTime": started,
        "corruptionCount": 0,
        "goroutineCount": tokio::runtime::Handle::current().metrics().num_alive_tasks(),
        "GOMAXPROCS": std::thread::available_parallelism().map_or(1, usize::from),
        "GOMEMLIMIT": i64::MAX,
        "GOGC": "",
        "GODEBUG": "",
        "storageRetention": retention.map_or_else(|| "off".to_owned(), |span| petrel_agent::units::Span(span).to_string()),
    }))
}

/// The revision says whose it is.
async fn build() -> Response {
    json::success(&json!({
        "version": VERSION,
        "revision": concat!("petrel-", env!("CARGO_PKG_VERSION")),
        "branch": "petrel",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
}

async fn tsdb(State(server): State<Server>, params: Params) -> Result<Response, Failure> {
    let most = match params.get("limit").map(str::parse::<usize>) {
        None => STATS_DEFAULT,
        Some(Ok(most)) if most > 0 => most.min(STATS_MAX),
        Some(_) => return Err(Failure::bad_data("limit must be a positive number")),
    };
    let store = Arc::clone(&server.store);
    let found = server.gate.run(server.limits.clone(), move |_| Ok::<_, Failure>(store.cardinality(most))).await?;
    let list = |counts: &[Count]| -> Value {
        counts.iter().map(|one| json!({ "name": one.name, "value": one.count })).collect()
    };
    Ok(json::success(&json!({
        "headStats": {
            "numSeries": found.series,
            "numLabelPairs": found.pairs,
            "chunkCount": found.heads,
            // What Prometheus says of an empty head.
            "minTime": found.span.map_or(i64::MAX, |span| span.from),
            "maxTime": found.span.map_or(i64::MIN, |span| span.to),
        },
        "seriesCountByMetricName": list(&found.series_by_metric),
        "labelValueCountByLabelName": list(&found.values_by_label),
        "memoryInBytesByLabelName": list(&found.bytes_by_label),
        "seriesCountByLabelValuePair": list(&found.series_by_pair),
    })))
}

/// The journals are replayed before the server listens, so whoever can ask finds it done.
async fn replay(State(server): State<Server>) -> Response {
    let journals = server.store.stats().journals;
    json::success(&json!({ "min": 0, "max": journals, "current": journals }))
}

/// Alerts are decided and told here; there is no Alertmanager behind it.
async fn alertmanagers() -> Response {
    json::success(&json!({ "activeAlertmanagers": [], "droppedAlertmanagers": [] }))
}

/// What can be used. Of the language, what our parser takes.
async fn features() -> Response {
    let parses = |text: &str| query::parse(text).is_ok();
    let functions: BTreeMap<&str, bool> = query::function_names().map(|name| (name, parses(&call(name)))).collect();
    let operators = ["+", "-", "*", "/", "%", "^", "==", "!=", ">", "<", ">=", "<=", "and", "or", "unless", "atan2"];
    let operators: BTreeMap<&str, bool> = operators.into_iter().map(|op| (op, parses(&format!("a {op} b")))).collect();
    json::success(&json!({
        "api": {
            "admin": true,
            "exclude_alerts": true,
            "label_values_match": true,
            "query_warnings": true,
            "remote_write_receiver": true,
            "otlp_write_receiver": true,
            "time_range_labels": true,
            "time_range_series": true,
        },
        "promql": {
            "anchored": parses("rate(a[1m] anchored)"),
            "at_modifier": parses("a @ 1"),
            "bool": parses("a > bool b"),
            "by": parses("sum by (b) (a)"),
            "duration_expr": parses("rate(a[1m + 1m])"),
            "fill_left": parses("a + fill_left(0) b"),
            "fill_right": parses("a + fill_right(0) b"),
            "group_left": parses("a * on (b) group_left c"),
            "group_right": parses("a * on (b) group_right c"),
            "ignoring": parses("a * ignoring (b) c"),
            "negative_offset": parses("a offset -1m"),
            "offset": parses("a offset 1m"),
            "on": parses("a * on (b) c"),
            "per_step_stats": true,
            "smoothed": parses("rate(a[1m] smoothed)"),
            "subqueries": parses("a[1m:1s]"),
            "without": parses("sum without (b) (a)"),
        },
        "promql_functions": functions,
        "promql_operators": operators,
        "rules": { "keep_firing_for": true, "query_offset": true },
        "tsdb": { "exemplars": false, "native_histograms": false, "out_of_order": true, "wal_replay_status": true },
    }))
}

/// A call of a function with arguments of the types that it takes.
fn call(name: &str) -> String {
    let arg = |kind: &Type| match kind {
        Type::Scalar => "1",
        Type::Vector => "a",
        Type::Matrix => "a[1m]",
        Type::Text => "\"b\"",
    };
    let args: Vec<&str> = query::signature(name).map_or(&[][..], |known| known.takes).iter().map(arg).collect();
    format!("{name}({})", args.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lose_what_may_be_secret() {
        let shown = |text| without_paths(text);
        assert_eq!(
            shown("url: https://u:p@chat.example:8/hooks/T0K3N\nnext: 1"),
            "url: https://chat.example:8/<hidden>\nnext: 1"
        );
        assert_eq!(shown("{url: 'http://a/', b: \"smtp://c?key=d\"}"), "{url: 'http://a', b: \"smtp://c/<hidden>\"}");
        assert_eq!(shown("data: /var/lib"), "data: /var/lib");
    }

    #[test]
    fn every_function_of_the_table_has_a_form_that_the_parser_knows() {
        for name in ["rate", "label_join", "histogram_quantile", "pi", "round"] {
            assert!(query::parse(&call(name)).is_ok(), "{}", call(name));
        }
    }
}
