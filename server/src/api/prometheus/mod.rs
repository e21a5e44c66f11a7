//! The HTTP API of Prometheus, so that Grafana and everything else that reads Prometheus reads Petrel. A thin rim: it
//! reads parameters, hands the work to `query` through the [`gate`], and writes the answer as Prometheus writes it. Rules
//! and alerts of that API are served by `alerting`, what changes something by `write` and `v1`.

pub mod admin;
mod federate;
mod gate;
pub(super) mod json;
pub(crate) mod params;
mod remote_read;
mod series;
mod status;
mod targets;
mod tree;
mod xor;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::from_fn;
use axum::response::Response;
use axum::routing::{get, post};
use petrel_agent::error_chain::chain;
use tokio::sync::watch;

use crate::api::compress::compress;
use crate::clock::Clock;
use crate::ingest::presence::Presence;
use crate::memory::Level;
use crate::query::ast::Expr;
use crate::query::source::{SelectError, Source};
use crate::query::{self, Answer, Limits, QueryError, QueryOptions, StepRange, Value};
use crate::series::{Labels, Timestamp};
use crate::store::Store;

use gate::Gate;
use json::{Cost, Failure};
use params::Params;
pub use status::About;

/// Largest form body: many `match[]`, each far below this.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What the API speaks for.
pub struct Parts {
    /// Where queries read from.
    pub source: Arc<dyn Source>,
    /// The store of this server.
    pub store: Arc<Store>,
    /// The agents.
    pub presence: Arc<Mutex<Presence>>,
    /// The time.
    pub clock: Clock,
    /// What queries may cost.
    pub options: QueryOptions,
    /// How scarce memory is.
    pub memory: watch::Receiver<Level>,
    /// What does not change.
    pub about: About,
}

/// What the handlers of queries share.
#[derive(Clone)]
struct Api {
    source: Arc<dyn Source>,
    clock: Clock,
    limits: Limits,
    gate: Arc<Gate>,
    external_labels: Arc<BTreeMap<String, String>>,
}

/// The routes below `/api/v1` that ask for samples, series, metadata and the server's state, and `/federate`. Each evaluation
/// runs on a blocking thread within its limits and stops when its client leaves.
pub fn router(parts: Parts) -> Router {
    let Parts { source, store, presence, clock, options, memory, about } = parts;
    let QueryOptions { limits, door } = options;
    let (gate, about) = (Arc::new(Gate::new(door, memory)), Arc::new(about));
    let api = Api {
        source: Arc::clone(&source),
        clock: clock.clone(),
        limits: limits.clone(),
        gate: Arc::clone(&gate),
        external_labels: Arc::new(about.external_labels.clone()),
    };
    let server = status::Server { store, source, presence, clock, limits, gate, about };
    queries(api).merge(status::router(server)).layer(from_fn(compress))
}

fn queries(api: Api) -> Router {
    Router::new()
        .route("/api/v1/query", get(instant).post(instant))
        .route("/api/v1/query_range", get(range).post(range))
        .route("/api/v1/query_exemplars", get(exemplars).post(exemplars))
        .route("/api/v1/format_query", get(format).post(format))
        .route("/api/v1/parse_query", get(parse).post(parse))
        .route("/api/v1/series", get(series::series).post(series::series))
        .route("/api/v1/labels", get(series::labels).post(series::labels))
        .route("/api/v1/label/{name}/values", get(series::values))
        .route("/api/v1/metadata", get(series::metadata))
        .route("/api/v1/read", post(remote_read::read))
        .route("/federate", get(federate::federate))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}

async fn instant(State(api): State<Api>, params: Params) -> Result<Response, Failure> {
    let expr = api.expr(&params)?;
    let now = (api.clock)();
    let at = params.time("time")?.unwrap_or(now);
    let limit = params.limit()?;
    let limits = api.limits_of(&params)?;
    let source = Arc::clone(&api.source);
    let asked = Instant::now();
    let answer = api.gate.run(limits, move |limits| query::instant(&*source, &expr, at, limits)).await?;
    let cost = cost(&params, &answer, asked);
    api.answered(answer, at, limit, cost.as_ref())
}

async fn range(State(api): State<Api>, params: Params) -> Result<Response, Failure> {
    let start = params.required_time("start")?;
    let end = params.required_time("end")?;
    let step_ms = params.duration_ms("step")?.ok_or_else(|| Failure::parameter("step", "is missing"))?;
    let expr = api.expr(&params)?;
    let limit = params.limit()?;
    let limits = api.limits_of(&params)?;
    let source = Arc::clone(&api.source);
    let steps = StepRange { start, end, step_ms };
    let asked = Instant::now();
    let answer = api.gate.run(limits, move |limits| query::range(&*source, &expr, steps, limits)).await?;
    let cost = cost(&params, &answer, asked);
    api.answered(answer, end, limit, cost.as_ref())
}

/// Exemplars are not stored, so there are none.
async fn exemplars(State(api): State<Api>, params: Params) -> Result<Response, Failure> {
    params.range()?;
    api.expr(&params)?;
    Ok(json::success(&serde_json::json!([])))
}

async fn format(State(api): State<Api>, params: Params) -> Result<Response, Failure> {
    let text = api.text(&params)?;
    let formatted = query::format(text).map_err(|error| Failure::parameter("query", &chain(&error)))?;
    Ok(json::success(&formatted))
}

async fn parse(State(api): State<Api>, params: Params) -> Result<Response, Failure> {
    Ok(json::success(&tree::tree(&api.expr(&params)?)))
}

impl Api {
    /// The limits of one request, which may shorten the time but not stretch it.
    fn limits_of(&self, params: &Params) -> Result<Limits, Failure> {
        let mut limits = Limits { cancel: query::Cancel::default(), ..self.limits.clone() };
        if let Some(ms) = params.duration_ms("timeout")? {
            limits.timeout = limits.timeout.min(std::time::Duration::from_millis(ms.unsigned_abs()));
        }
        if let Some(ms) = params.duration_ms("lookback_delta")?.filter(|ms| *ms > 0) {
            limits.lookback_ms = ms;
        }
        limits.counts_samples = params.get("stats").is_some_and(|stats| !stats.is_empty());
        Ok(limits)
    }

    /// The text of the query, which is not read at all where it is too long.
    fn text<'a>(&self, params: &'a Params) -> Result<&'a str, Failure> {
        let text = params.get("query").unwrap_or_default();
        let bytes_max = self.gate.door.text_bytes_max;
        if text.len() > bytes_max {
            let reason = format!("query has {} bytes, at most {bytes_max} are read; split it", text.len());
            return Err(Failure::limit("bad_data", "text_max", &reason));
        }
        Ok(text)
    }

    fn expr(&self, params: &Params) -> Result<Expr, Failure> {
        query::parse(self.text(params)?).map_err(|error| Failure::parameter("query", &chain(&error)))
    }

    fn answered(
        &self,
        mut answer: Answer,
        at: Timestamp,
        limit: Option<usize>,
        cost: Option<&Cost>,
    ) -> Result<Response, Failure> {
        if let Some(limit) = limit {
            let cut = match &mut answer.value {
                Value::Vector(samples) => truncate(samples, limit),
                Value::Matrix(series) => truncate(series, limit),
                Value::Scalar(..) | Value::Text(_) => false,
            };
            if cut {
                answer.warnings.push(json::TRUNCATED.to_owned());
            }
        }
        let (bytes, bytes_max) = (estimated_bytes(&answer.value), self.gate.door.answer_bytes_max);
        if bytes > bytes_max {
            let reason = format!(
                "answer would have about {bytes} bytes, at most {bytes_max} are sent; aggregate, or ask for less"
            );
            return Err(Failure::limit("execution", "answer_max", &reason));
        }
        Ok(json::answer(&answer, at, cost))
    }
}

/// About how long an answer is as JSON, without writing it: labels as they are, and for each sample a time of ten digits and a
/// value of about as many.
fn estimated_bytes(value: &Value) -> u64 {
    const SAMPLE_BYTES: u64 = 24;
    let labels =
        |labels: &Labels| labels.iter().map(|(name, value)| name.len() + value.len() + 6).sum::<usize>() as u64;
    match value {
        Value::Scalar(..) | Value::Text(_) => SAMPLE_BYTES,
        Value::Vector(samples) => samples.iter().map(|one| labels(&one.labels) + SAMPLE_BYTES).sum(),
        Value::Matrix(series) => {
            series.iter().map(|one| labels(&one.labels) + one.samples.len() as u64 * SAMPLE_BYTES).sum()
        }
    }
}

/// What is told of the cost of a query that `stats` asked about: with `stats=all` that of each step, too.
fn cost(params: &Params, answer: &Answer, asked: Instant) -> Option<Cost> {
    let stats = answer.stats.as_ref()?;
    let evaluated = stats.preparation + stats.evaluation + stats.sorting;
    let per_step = params.get("stats") == Some("all");
    Some(Cost { per_step, queue: asked.elapsed().saturating_sub(evaluated) })
}

/// Whether something was cut off.
fn truncate<T>(items: &mut Vec<T>, limit: usize) -> bool {
    let cut = items.len() > limit;
    items.truncate(limit);
    cut
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        let (kind, text) = (error.kind(), chain(&error));
        let key = match error {
            QueryError::TooManySamples { .. } | QueryError::Select(SelectError::TooManySamples { .. }) => "samples_max",
            QueryError::TimedOut { .. } => "timeout",
            QueryError::TooManySteps { .. } => "steps_max",
            _ => return Failure { kind, text },
        };
        Failure::limit(kind, key, &text)
    }
}

#[cfg(test)]
mod tests;
