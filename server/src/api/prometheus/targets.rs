//! Who delivers samples, in the words of Prometheus: each agent is an active target whose scrape is its last batch. Agents
//! push, so there is no address to scrape and nothing that was dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use axum::extract::State;
use axum::response::Response;
use petrel_agent::units::Span;
use serde::Serialize;
use serde_json::json;

use crate::ingest::presence::Known;
use crate::notify::webhook::rfc3339;
use crate::query::source::{MetricMetadata, SelectError, TimeRange};
use crate::series::{Labels, Matcher};

use super::json::{self, Failure};
use super::params::{Params, selector};
use super::status::Server;

/// Entries of one answer of metadata unless the request asks for fewer: some hundred metrics of some thousand agents are
/// no answer that anybody reads.
const METADATA_MAX: usize = 50_000;

/// A target as the API shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Target {
    discovered_labels: BTreeMap<&'static str, String>,
    labels: BTreeMap<&'static str, String>,
    scrape_pool: String,
    scrape_url: String,
    global_url: String,
    last_error: String,
    last_scrape: String,
    last_scrape_duration: f64,
    health: &'static str,
    scrape_interval: String,
    scrape_timeout: String,
}

/// `GET /api/v1/targets`.
pub(super) async fn targets(State(server): State<Server>, params: Params) -> Response {
    let state = params.get("state").unwrap_or("any").to_ascii_lowercase();
    let pool = params.get("scrapePool");
    let now = (server.clock)();
    let known = if matches!(state.as_str(), "any" | "active") { server.agents() } else { Vec::new() };
    let wanted = known.into_iter().filter(|agent| pool.is_none_or(|pool| pool == agent.source.job));
    let active: Vec<Target> = wanted.map(|agent| target(agent, now)).collect();
    json::success(&json!({ "activeTargets": active, "droppedTargets": [], "droppedTargetCounts": {} }))
}

/// `GET /api/v1/scrape_pools`: the jobs of the agents.
pub(super) async fn pools(State(server): State<Server>) -> Response {
    let pools: BTreeSet<String> = server.agents().into_iter().map(|agent| agent.source.job).collect();
    json::success(&json!({ "scrapePools": pools }))
}

/// `GET /api/v1/targets/metadata`: what was told of the metrics that each agent has.
pub(super) async fn metadata(State(server): State<Server>, params: Params) -> Result<Response, Failure> {
    let matchers = params.get("match_target").map(|text| selector("match_target", text)).transpose()?;
    let most = params.most("limit")?.unwrap_or(METADATA_MAX).min(METADATA_MAX);
    let metric = params.get("metric").map(str::to_owned);
    let source = Arc::clone(&server.source);
    let agents = server.agents();
    let work = move |_: &_| {
        let mut told = source.metadata();
        told.retain(|(name, _)| metric.as_ref().is_none_or(|metric| metric == name));
        let mut found = Vec::new();
        for agent in agents {
            let labels =
                Labels::new([("job", agent.source.job.as_str()), ("instance", agent.source.instance.as_str())]);
            if matchers.as_ref().is_some_and(|matchers| !matchers.iter().all(|matcher| matcher.matches(&labels))) {
                continue;
            }
            if found.len() >= most {
                break;
            }
            let of_agent: Vec<Matcher> = labels.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
            let everything = TimeRange { from: i64::MIN / 4, to: i64::MAX / 4 };
            let series = source.series(&[of_agent], everything)?;
            let names: BTreeSet<&str> = series.iter().map(Labels::name).collect();
            let has = |(name, about): &&(String, MetricMetadata)| has_metric(&names, name, &about.kind);
            let room = most - found.len();
            found.extend(told.iter().filter(has).take(room).map(|(name, about)| {
                let mut entry = json!({ "type": about.kind, "help": about.help, "unit": about.unit });
                entry["target"] = json!({ "instance": agent.source.instance, "job": agent.source.job });
                if metric.is_none() {
                    entry["metric"] = name.as_str().into();
                }
                entry
            }));
        }
        Ok::<_, SelectError>(found)
    };
    let found = server.gate.run(server.limits.clone(), work).await?;
    Ok(json::success(&found))
}

/// Whether series of these names belong to the metric, which for histograms and summaries is the name of the whole.
fn has_metric(names: &BTreeSet<&str>, metric: &str, kind: &str) -> bool {
    let part = |suffix: &str| names.contains(format!("{metric}{suffix}").as_str());
    names.contains(metric) || (matches!(kind, "histogram" | "summary" | "gaugehistogram") && part("_count"))
}

fn target(agent: Known, now: i64) -> Target {
    let Known { source, is_silent, seen_at, interval_ms, silent_after_ms } = agent;
    let span = |ms: i64| Span(std::time::Duration::from_millis(ms.unsigned_abs())).to_string();
    let last_error = if is_silent {
        // Whole seconds: nobody reads more, and a page that is drawn again does not flicker.
        let since = (now - seen_at).max(0) / 1000 * 1000;
        format!("no batch came for {}; look at the agent on {}", span(since), source.instance)
    } else {
        String::new()
    };
    let url = format!("push://{}", source.instance);
    Target {
        discovered_labels: BTreeMap::from([("__address__", source.instance.clone()), ("job", source.job.clone())]),
        labels: BTreeMap::from([("instance", source.instance), ("job", source.job.clone())]),
        scrape_pool: source.job,
        scrape_url: url.clone(),
        global_url: url,
        last_error,
        last_scrape: rfc3339(seen_at),
        last_scrape_duration: 0.0,
        health: if is_silent { "down" } else { "up" },
        scrape_interval: span(interval_ms),
        scrape_timeout: span(silent_after_ms),
    }
}

impl Server {
    fn agents(&self) -> Vec<Known> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner).known()
    }
}
