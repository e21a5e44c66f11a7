//! Parameters of a request, from its address and from a form in its body, read as Prometheus reads them.

use axum::Form;
use axum::extract::{FromRequest, Query, Request};
use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use chrono::DateTime;
use petrel_agent::error_chain::chain;
use petrel_agent::units::Span;

use crate::query::ast::Expr;
use crate::query::parse;
use crate::query::source::TimeRange;
use crate::series::{Matcher, Timestamp};

use super::json::Failure;

/// Times further from 1970 than this are taken as this: sums with ranges and offsets stay far from overflow.
const TIME_MS_MAX: f64 = 1e15;

/// Names and values in the order they came.
pub(in crate::api) struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Params, Failure> {
        let malformed = |text: String| Failure { kind: "bad_data", text };
        let Query(mut pairs) = Query::<Vec<(String, String)>>::try_from_uri(request.uri())
            .map_err(|error| malformed(error.body_text()))?;
        // A body without a type, mostly an empty one, is no form: so Prometheus has it.
        let is_typed = request.headers().contains_key(CONTENT_TYPE);
        if is_typed && (request.method() == Method::POST || request.method() == Method::PUT) {
            let Form(body) = Form::<Vec<(String, String)>>::from_request(request, state)
                .await
                .map_err(|error| malformed(error.body_text()))?;
            pairs.extend(body);
        }
        Ok(Params(pairs))
    }
}

impl Params {
    /// The first value of a name; an empty one counts as none.
    pub(in crate::api) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A time as seconds since 1970 or as RFC 3339.
    pub(in crate::api) fn time(&self, name: &str) -> Result<Option<Timestamp>, Failure> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match parse_time(text) {
            Some(time) => Ok(Some(time)),
            None => Err(Failure::parameter(name, &format!("cannot parse {text:?} to a valid timestamp"))),
        }
    }

    pub(in crate::api) fn required_time(&self, name: &str) -> Result<Timestamp, Failure> {
        self.time(name)?.ok_or_else(|| Failure::parameter(name, "cannot parse \"\" to a valid timestamp"))
    }

    /// A duration as seconds or as `1h30m`.
    pub(in crate::api) fn duration_ms(&self, name: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match parse_duration(text) {
            Some(ms) => Ok(Some(ms)),
            None => Err(Failure::parameter(name, &format!("cannot parse {text:?} to a valid duration"))),
        }
    }

    /// The most series to answer with; none or 0 means all.
    pub(in crate::api) fn limit(&self) -> Result<Option<usize>, Failure> {
        self.count("limit")
    }

    /// A whole number; none or 0 means no limit.
    pub(in crate::api) fn count(&self, name: &str) -> Result<Option<usize>, Failure> {
        match self.get(name).map(str::parse::<usize>) {
            None | Some(Ok(0)) => Ok(None),
            Some(Ok(limit)) => Ok(Some(limit)),
            Some(Err(_)) => Err(Failure::parameter(name, "limit must be a non-negative number")),
        }
    }

    /// A whole number of which a negative one means no limit and 0 means nothing, as for metadata.
    pub(in crate::api) fn most(&self, name: &str) -> Result<Option<usize>, Failure> {
        match self.get(name).map(str::parse::<i64>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(usize::try_from(number).ok()),
            Some(Err(_)) => Err(Failure::bad_data(format!("{name} must be a number"))),
        }
    }

    /// Yes or no, in the words of Go.
    pub(in crate::api) fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.get(name) {
            None | Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
            Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
            Some(other) => Err(Failure::parameter(name, &format!("{other:?} is neither true nor false"))),
        }
    }

    /// All values of a name.
    pub(in crate::api) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The selectors of `match[]`, each of which must ask for something.
    pub(in crate::api) fn matchers(&self) -> Result<Vec<Vec<Matcher>>, Failure> {
        let sets = self.all("match[]").map(|text| selector("match[]", text)).collect::<Result<Vec<_>, _>>()?;
        if sets.iter().any(|matchers| matchers.iter().all(|matcher| matcher.matches_value(""))) {
            return Err(Failure::bad_data("match[] must contain at least one non-empty matcher"));
        }
        Ok(sets)
    }

    /// `start` and `end`; all of time where they are not given.
    pub(in crate::api) fn range(&self) -> Result<TimeRange, Failure> {
        let from = self.time("start")?.unwrap_or(-(TIME_MS_MAX as i64));
        let to = self.time("end")?.unwrap_or(TIME_MS_MAX as i64);
        if to < from {
            return Err(Failure::parameter("end", "end timestamp must not be before start time"));
        }
        Ok(TimeRange { from, to })
    }
}

/// The matchers of a selector, which may have no range and no modifier.
pub(in crate::api) fn selector(parameter: &str, text: &str) -> Result<Vec<Matcher>, Failure> {
    match parse(text) {
        Ok(Expr::Selector(selector)) if selector.offset_ms == 0 && selector.at.is_none() => Ok(selector.matchers),
        Ok(_) => Err(Failure::parameter(parameter, "must be a selector without modifiers")),
        Err(error) => Err(Failure::parameter(parameter, &chain(&error))),
    }
}

pub(crate) fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds * 1000.0).round();
        return (!ms.is_nan()).then(|| ms.clamp(-TIME_MS_MAX, TIME_MS_MAX) as i64);
    }
    if let Ok(date) = DateTime::parse_from_rfc3339(text) {
        return Some(date.timestamp_millis());
    }
    // The ends of Prometheus's time, which its own clients send.
    match text {
        "-292273086-05-16T16:47:06Z" => Some(-(TIME_MS_MAX as i64)),
        "292277025-08-18T07:12:54.999999999Z" => Some(TIME_MS_MAX as i64),
        _ => None,
    }
}

fn parse_duration(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = seconds * 1000.0;
        return (ms.abs() <= TIME_MS_MAX).then(|| ms.round() as i64);
    }
    text.parse::<Span>().ok().map(Span::as_ms).filter(|ms| *ms <= TIME_MS_MAX as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_durations_are_read_as_prometheus_reads_them() {
        let times = ["1.5", "-3", "1970-01-01T00:00:01Z", "1e400", "NaN", "today", "2015-07-01T20:10:51.781+02:00"];
        let read = times.map(parse_time);
        let want =
            [Some(1500), Some(-3000), Some(1000), Some(1_000_000_000_000_000), None, None, Some(1_435_774_251_781)];
        assert_eq!(read, want);
        let durations = ["15", "0.5", "1h30m", "5m", "250ms", "1m1h", "1", "5x", "m", "0s", "99999999y"];
        let want = [
            Some(15_000),
            Some(500),
            Some(5_400_000),
            Some(300_000),
            Some(250),
            None,
            Some(1000),
            None,
            None,
            Some(0),
            None,
        ];
        assert_eq!(durations.map(parse_duration), want);
    }
}
