//! Which series, labels and metrics there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use petrel_agent::error_chain::chain;
use serde::Serialize;

use crate::query::source::{SelectError, Source};
use crate::series::Labels;

use super::json::{self, Failure};
use super::params::Params;
use super::{Api, truncate};

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Failure {
        Failure { kind: "internal", text: chain(&error) }
    }
}

/// The label sets that fit `match[]`.
pub(super) async fn series(State(api): State<Api>, params: Params) -> Result<Response, Failure> {
    if params.matchers()?.is_empty() {
        return Err(Failure { kind: "bad_data", text: "no match[] parameter provided".to_owned() });
    }
    collect(&api, &params, |found| {
        let unique: BTreeSet<&Labels> = found.iter().collect();
        unique.into_iter().map(|labels| labels.iter().map(own).collect()).collect::<Vec<BTreeMap<_, _>>>()
    })
    .await
}

/// The names of all labels.
pub(super) async fn labels(State(api): State<Api>, params: Params) -> Result<Response, Failure> {
    collect(&api, &params, |found| {
        let names: BTreeSet<&str> = found.iter().flat_map(|labels| labels.iter().map(|(name, _)| name)).collect();
        names.into_iter().map(str::to_owned).collect()
    })
    .await
}

/// The values of one label.
pub(super) async fn values(
    State(api): State<Api>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, Failure> {
    collect(&api, &params, move |found| {
        let values: BTreeSet<&str> = found.iter().filter_map(|labels| labels.get(&name)).collect();
        values.into_iter().map(str::to_owned).collect()
    })
    .await
}

/// What senders told of metrics.
pub(super) async fn metadata(State(api): State<Api>, params: Params) -> Result<Response, Failure> {
    let metric = params.get("metric").map(str::to_owned);
    let limit = params.limit()?.unwrap_or(usize::MAX);
    let source = Arc::clone(&api.source);
    let told = api.gate.run(api.limits_of(&params)?, move |_| Ok::<_, Failure>(source.metadata())).await?;
    let wanted = told.into_iter().filter(|(name, _)| metric.as_ref().is_none_or(|metric| metric == name));
    let data: BTreeMap<String, serde_json::Value> = wanted
        .take(limit)
        .map(|(name, about)| {
            let entry = serde_json::json!([{ "type": about.kind, "help": about.help, "unit": about.unit }]);
            (name, entry)
        })
        .collect();
    Ok(json::success(&data))
}

fn own((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Asks for the series that fit the request and answers with what `of` makes of them, up to the request's limit.
async fn collect<T: Serialize + Send + 'static>(
    api: &Api,
    params: &Params,
    of: impl FnOnce(&[Labels]) -> Vec<T> + Send + 'static,
) -> Result<Response, Failure> {
    let (any_of, range, limit) = (params.matchers()?, params.range()?, params.limit()?);
    let source: Arc<dyn Source> = Arc::clone(&api.source);
    let work = move |_: &_| Ok::<_, SelectError>(of(&source.series(&any_of, range)?));
    let mut data = api.gate.run(api.limits_of(params)?, work).await?;
    let cut = limit.is_some_and(|limit| truncate(&mut data, limit));
    Ok(if cut { json::truncated(&data) } else { json::success(&data) })
}
