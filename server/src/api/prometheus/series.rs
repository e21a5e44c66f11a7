//! Which series, labels and metrics there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use petrel_agent::error_chain::chain;
use serde::Serialize;

use crate::query::source::{Note, SelectError, Source};
use crate::series::Labels;

use super::json::{self, Failure};
use super::params::Params;
use super::{Api, truncate};

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Failure {
        match error {
            SelectError::TooManySamples { .. } => Failure::limit("execution", "samples_max", &chain(&error)),
            SelectError::Read(_) => Failure { kind: "internal", text: chain(&error) },
        }
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
    let name = unescaped(&name).unwrap_or(name);
    if name.is_empty() {
        return Err(Failure::bad_data("invalid label name: \"\""));
    }
    collect(&api, &params, move |found| {
        let values: BTreeSet<&str> = found.iter().filter_map(|labels| labels.get(&name)).collect();
        values.into_iter().map(str::to_owned).collect()
    })
    .await
}

/// What senders told of metrics. Each metric has one entry: of several the last told stands.
pub(super) async fn metadata(State(api): State<Api>, params: Params) -> Result<Response, Failure> {
    let metric = params.get("metric").map(str::to_owned);
    let most = params.most("limit")?.unwrap_or(usize::MAX);
    params.most("limit_per_metric")?;
    let source = Arc::clone(&api.source);
    let told = api.gate.run(api.limits_of(&params)?, move |_| Ok::<_, Failure>(source.metadata())).await?;
    let wanted = told.into_iter().filter(|(name, _)| metric.as_ref().is_none_or(|metric| metric == name));
    let data: BTreeMap<String, serde_json::Value> = wanted
        .take(most)
        .map(|(name, about)| {
            let entry = serde_json::json!([{ "type": about.kind, "help": about.help, "unit": about.unit }]);
            (name, entry)
        })
        .collect();
    Ok(json::success(&data))
}

/// A name that was escaped to fit into a path: `U__` before it, `__` for an underscore, `_2e_` for the character of that
/// hexadecimal number. `None` where it is no such name.
fn unescaped(name: &str) -> Option<String> {
    let mut rest = name.strip_prefix("U__")?;
    let mut plain = String::new();
    while let Some(at) = rest.find('_') {
        plain.push_str(&rest[..at]);
        let (code, after) = rest[at + 1..].split_once('_')?;
        let digits = code.len() <= 6 && code.bytes().all(|byte| byte.is_ascii_hexdigit());
        match code {
            "" => plain.push('_'),
            _ if digits => plain.push(char::from_u32(u32::from_str_radix(code, 16).ok()?)?),
            _ => return None,
        }
        rest = after;
    }
    plain.push_str(rest);
    Some(plain)
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
    let series_max = api.gate.door.series_max;
    let work = move |_: &_| {
        let mut notes = Vec::new();
        let found = source.series_noting(&any_of, range, &mut notes)?;
        if found.len() > series_max {
            let reason =
                format!("{} series fit, at most {series_max} are looked at; narrow match[] or the time", found.len());
            return Err(Failure::limit("execution", "series_max", &reason));
        }
        Ok((of(&found), notes))
    };
    let (mut data, notes) = api.gate.run(api.limits_of(params)?, work).await?;
    let mut warnings = Vec::new();
    for note in notes {
        if let Note::Warning(text) = note {
            warnings.push(text);
        }
    }
    if limit.is_some_and(|limit| truncate(&mut data, limit)) {
        warnings.push(json::TRUNCATED.to_owned());
    }
    Ok(json::with_warnings(&data, &warnings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unescaped_as_prometheus_does() {
        let names = ["plain", "U__my_2e_label", "U__a__b", "U___1f600_", "U__a_", "U__a_zz_", "U__a_110000_", "U__"];
        let want = [None, Some("my.label"), Some("a_b"), Some("\u{1f600}"), None, None, None, Some("")];
        assert_eq!(names.map(unescaped), want.map(|name| name.map(str::to_owned)));
    }
}
