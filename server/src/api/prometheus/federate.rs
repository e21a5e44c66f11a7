//! `/federate`: the last samples of chosen series as Prometheus text, for a Prometheus that scrapes Petrel. Series that
//! ended are left out, and each sample carries its own time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::query::source::{SelectError, TimeRange, recorded};
use crate::rules::template::format_number;
use crate::series::{Labels, NAME, Sample};

use super::Api;
use super::json::Failure;
use super::params::Params;

/// `GET /federate?match[]=…`. Errors are plain text, as Prometheus writes them here.
pub(super) async fn federate(State(api): State<Api>, params: Params) -> Response {
    match latest(&api, &params).await {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response(),
        Err(failure) => (failure.status(), failure.text + "\n").into_response(),
    }
}

async fn latest(api: &Api, params: &Params) -> Result<String, Failure> {
    let any_of = params.matchers()?;
    let limits = api.limits_of(params)?;
    let now = (api.clock)();
    let range = TimeRange { from: now.saturating_sub(limits.lookback_ms), to: now };
    let (source, external) = (Arc::clone(&api.source), Arc::clone(&api.external_labels));
    let work = move |limits: &crate::query::Limits| {
        let mut last: BTreeMap<Labels, Sample> = BTreeMap::new();
        for matchers in &any_of {
            for one in recorded(&*source, matchers, range, limits.samples_max)? {
                // A staleness marker is an end, and text has no word for it.
                if let Some(sample) = one.samples.last().filter(|sample| !sample.is_stale()) {
                    last.insert(one.labels, *sample);
                }
            }
        }
        let kinds: BTreeMap<String, String> =
            source.metadata().into_iter().map(|(name, about)| (name, about.kind)).collect();
        Ok::<_, SelectError>(exposition(&last, &kinds, &external))
    };
    api.gate.run(limits, work).await
}

/// Families sorted by name, each with its type. Only counters and gauges are named as such: a histogram's parts stand alone
/// here, and alone they are no histogram.
fn exposition(
    last: &BTreeMap<Labels, Sample>,
    kinds: &BTreeMap<String, String>,
    external: &BTreeMap<String, String>,
) -> String {
    let mut by_name: BTreeMap<&str, Vec<(&Labels, &Sample)>> = BTreeMap::new();
    for (labels, sample) in last {
        if !labels.name().is_empty() {
            by_name.entry(labels.name()).or_default().push((labels, sample));
        }
    }
    let mut text = String::new();
    for (name, series) in by_name {
        let kind = kinds.get(name).map(String::as_str).filter(|kind| matches!(*kind, "counter" | "gauge"));
        let quoted = quoted_name(name);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# TYPE {} {}", quoted.as_deref().unwrap_or(name), kind.unwrap_or("untyped"));
        for (labels, sample) in series {
            write_line(&mut text, (name, quoted.as_deref()), labels, external);
            let _ = writeln!(text, " {} {}", format_number(sample.v), sample.t);
        }
    }
    text
}

/// `name{label="value"}`, or `{"any name",label="value"}`; the server's own labels where the series has none of that name.
fn write_line(
    text: &mut String,
    (name, quoted): (&str, Option<&str>),
    labels: &Labels,
    external: &BTreeMap<String, String>,
) {
    let own = external.iter().map(|(label, value)| (label.as_str(), value.as_str()));
    // Whoever scrapes must not take its own address for the series' instance.
    let instance = (!external.contains_key("instance")).then_some(("instance", ""));
    let own = own.chain(instance).filter(|(label, _)| labels.get(label).is_none());
    let mut parts: Vec<String> = quoted.map(str::to_owned).into_iter().collect();
    for (label, value) in labels.iter().filter(|(label, _)| *label != NAME).chain(own) {
        let label = quoted_name(label).unwrap_or_else(|| label.to_owned());
        parts.push(format!("{label}=\"{}\"", escaped(value)));
    }
    let name = if quoted.is_some() { "" } else { name };
    let _ = write!(text, "{name}{{{}}}", parts.join(","));
}

/// A name that text can only hold in quotes, in quotes.
fn quoted_name(name: &str) -> Option<String> {
    let plain = |at: usize, c: char| c.is_ascii_alphabetic() || c == '_' || c == ':' || (at > 0 && c.is_ascii_digit());
    let is_plain = !name.is_empty() && name.char_indices().all(|(at, c)| plain(at, c));
    (!is_plain).then(|| format!("\"{}\"", escaped(name)))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn text_has_types_where_they_are_known() {
        let labels = |pairs: &[(&str, &str)]| Labels::new(pairs.iter().copied());
        let sample = |v| Sample { t: 1_500, v };
        let last = BTreeMap::from([
            (labels(&[(NAME, "up"), ("instance", "a"), ("job", "n\"1\"")]), sample(1.0)),
            (labels(&[(NAME, "jobs_total")]), sample(1_234_567.0)),
            (labels(&[(NAME, "lat_bucket"), ("le", "+Inf"), ("zone", "own")]), sample(f64::INFINITY)),
            (labels(&[(NAME, "utf8.name"), ("a.b", "c\n")]), sample(f64::NAN)),
            (labels(&[("job", "nameless")]), sample(1.0)),
        ]);
        let kinds = [("jobs_total", "counter"), ("up", "gauge"), ("lat_bucket", "histogram")];
        let kinds = kinds.map(|(name, kind)| (name.to_owned(), kind.to_owned())).into();
        let external = BTreeMap::from([("zone".to_owned(), "z".to_owned())]);
        expect![[r#"
            # TYPE jobs_total counter
            jobs_total{zone="z",instance=""} 1.234567e+06 1500
            # TYPE lat_bucket untyped
            lat_bucket{le="+Inf",zone="own",instance=""} +Inf 1500
            # TYPE up gauge
            up{instance="a",job="n\"1\"",zone="z"} 1 1500
            # TYPE "utf8.name" untyped
            {"utf8.name","a.b"="c\n",zone="z",instance=""} NaN 1500
        "#]]
        .assert_eq(&exposition(&last, &kinds, &external));
    }
}
