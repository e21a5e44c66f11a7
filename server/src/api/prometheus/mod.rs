//! The HTTP API of Prometheus, so that Grafana and everything else that reads Prometheus reads Petrel. A thin rim: it
//! reads parameters, hands the work to `query` through the [`gate`], and writes the answer as Prometheus writes it. Rules
//! and alerts of that API are served elsewhere.

pub mod admin;
mod gate;
mod json;
mod params;
mod series;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::Response;
use axum::routing::get;
use petrel_agent::error_chain::chain;

use crate::clock::Clock;
use crate::query::ast::Expr;
use crate::query::source::Source;
use crate::query::{self, Answer, Limits, QueryError, QueryOptions, RawQueryOptions, StepRange};
use crate::series::Timestamp;

use gate::Gate;
use json::Failure;
use params::Params;

/// Largest form body: many `match[]`, each far below this.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What the handlers share.
#[derive(Clone)]
struct Api {
    source: Arc<dyn Source>,
    clock: Clock,
    limits: Limits,
    gate: Arc<Gate>,
}

/// [`router_with`] the default of how many evaluations run at one time, which is twenty.
pub fn router(source: Arc<dyn Source>, clock: Clock, limits: Limits) -> Router {
    let concurrent_max = RawQueryOptions::default().concurrent_max;
    router_with(source, clock, QueryOptions { limits, concurrent_max })
}

/// The routes below `/api/v1` that ask for samples, series and metadata. Each evaluation runs on a blocking thread within
/// its limits and stops when its client leaves.
pub fn router_with(source: Arc<dyn Source>, clock: Clock, options: QueryOptions) -> Router {
    let QueryOptions { limits, concurrent_max } = options;
    let gate = Arc::new(Gate::new(concurrent_max));
    Router::new()
        .route("/api/v1/query", get(instant).post(instant))
        .route("/api/v1/query_range", get(range).post(range))
        .route("/api/v1/query_exemplars", get(exemplars).post(exemplars))
        .route("/api/v1/format_query", get(format).post(format))
        .route("/api/v1/series", get(series::series).post(series::series))
        .route("/api/v1/labels", get(series::labels).post(series::labels))
        .route("/api/v1/label/{name}/values", get(series::values))
        .route("/api/v1/metadata", get(series::metadata))
        .route("/api/v1/status/buildinfo", get(buildinfo))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Api { source, clock, limits, gate })
}

async fn instant(State(api): State<Api>, params: Params) -> Result<Response, Failure> {
    let expr = expr(&params)?;
    let now = (api.clock)();
    let at = params.time("time")?.unwrap_or(now);
    let limit = params.limit()?;
    let limits = api.limits_of(&params)?;
    let source = Arc::clone(&api.source);
    let answer = api.gate.run(limits, move |limits| query::instant(&*source, &expr, at, limits)).await?;
    Ok(answered(answer, at, limit))
}

async fn range(State(api): State<Api>, params: Params) -> Result<Response, Failure> {
    let start = params.required_time("start")?;
    let end = params.required_time("end")?;
    let step_ms = params.duration_ms("step")?.ok_or_else(|| Failure::parameter("step", "is missing"))?;
    let expr = expr(&params)?;
    let limit = params.limit()?;
    let limits = api.limits_of(&params)?;
    let source = Arc::clone(&api.source);
    let steps = StepRange { start, end, step_ms };
    let answer = api.gate.run(limits, move |limits| query::range(&*source, &expr, steps, limits)).await?;
    Ok(answered(answer, end, limit))
}

/// Exemplars are not stored, so there are none.
async fn exemplars(params: Params) -> Result<Response, Failure> {
    expr(&params)?;
    Ok(json::success(&serde_json::json!([])))
}

async fn format(params: Params) -> Result<Response, Failure> {
    let text = params.get("query").unwrap_or_default();
    let formatted = query::format(text).map_err(|error| Failure::parameter("query", &chain(&error)))?;
    Ok(json::success(&formatted))
}

/// Clients such as Grafana choose by the version what to ask for; what is here behaves as Prometheus 3 does. The revision
/// says whose it is.
async fn buildinfo() -> Response {
    json::success(&serde_json::json!({
        "version": "3.5.0",
        "revision": concat!("petrel-", env!("CARGO_PKG_VERSION")),
        "branch": "petrel",
        "buildUser": "",
        "buildDate": "",
        "goVersion": "",
    }))
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
        Ok(limits)
    }
}

fn expr(params: &Params) -> Result<Expr, Failure> {
    let text = params.get("query").unwrap_or_default();
    query::parse(text).map_err(|error| Failure::parameter("query", &chain(&error)))
}

fn answered(mut answer: Answer, at: Timestamp, limit: Option<usize>) -> Response {
    if let Some(limit) = limit {
        let cut = match &mut answer.value {
            query::Value::Vector(samples) => truncate(samples, limit),
            query::Value::Matrix(series) => truncate(series, limit),
            query::Value::Scalar(..) | query::Value::Text(_) => false,
        };
        if cut {
            answer.warnings.push(json::TRUNCATED.to_owned());
        }
    }
    json::answer(&answer, at)
}

/// Whether something was cut off.
fn truncate<T>(items: &mut Vec<T>, limit: usize) -> bool {
    let cut = items.len() > limit;
    items.truncate(limit);
    cut
}

impl From<QueryError> for Failure {
    fn from(error: QueryError) -> Failure {
        Failure { kind: error.kind(), text: chain(&error) }
    }
}

#[cfg(test)]
mod tests;
