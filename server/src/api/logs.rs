//! `GET /petrel/v1/logs`: the log lines that hosts sent whole, latest last, as one reads a log. Reads only.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::prometheus::params::parse_time;
use super::v1::{Views, blocking};
use crate::series::Timestamp;
use crate::store::log_search::RECENT_MAX;
use crate::store::loglines::LogFilter;

/// Lines in one answer, unless asked for another number.
const LINES_DEFAULT: usize = 100;

/// What is asked for; without a key, all.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    host: Option<String>,
    severity: Option<String>,
    template: Option<String>,
    contains: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<usize>,
}

impl Question {
    /// The filter that it stands for, and how many lines are wanted.
    fn read(self) -> Result<(LogFilter, usize), String> {
        let severity_min = match &self.severity {
            Some(word) => severity(word).ok_or_else(|| {
                format!("severity: `{word}` is not allowed; write debug, info, warning, error or fatal")
            })?,
            None => 0,
        };
        let filter = LogFilter {
            host: self.host,
            severity_min,
            template_id: self.template,
            contains: self.contains,
            from: time("from", self.from.as_deref())?,
            to: time("to", self.to.as_deref())?,
        };
        match self.limit.unwrap_or(LINES_DEFAULT) {
            limit @ 1..=RECENT_MAX => Ok((filter, limit)),
            limit => Err(format!("limit: {limit} is not allowed; write 1 to {RECENT_MAX}")),
        }
    }
}

/// The least of OpenTelemetry's numbers that a word means.
fn severity(word: &str) -> Option<i32> {
    Some(match word {
        "debug" => 5,
        "info" => 9,
        "warning" => 13,
        "error" => 17,
        "fatal" => 21,
        _ => return None,
    })
}

fn time(key: &str, text: Option<&str>) -> Result<Option<Timestamp>, String> {
    let wrong = |text| format!("{key}: `{text}` is not a time; write Unix seconds or RFC 3339");
    text.map(|text| parse_time(text).ok_or_else(|| wrong(text))).transpose()
}

/// Answers with the latest lines that fulfil the question, in the order of their times; 400 where it makes no sense.
pub async fn lines(State(views): State<Views>, asked: Result<Query<Question>, QueryRejection>) -> Response {
    match asked.map_err(|error| error.body_text()).and_then(|Query(asked)| asked.read()) {
        Ok((filter, limit)) => {
            blocking(views, move |views| {
                let mut lines = views.store.recent_logs(&filter, limit)?;
                lines.reverse();
                Ok(lines)
            })
            .await
        }
        Err(error) => (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_filter_or_a_mistake_that_is_named() {
        let ask = |pairs: &[(&str, &str)]| {
            let map: serde_json::Map<_, _> =
                pairs.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
            serde_json::from_value::<Question>(map.into()).unwrap().read()
        };
        let (filter, limit) = ask(&[("host", "h1"), ("severity", "warning"), ("from", "1790000000.5")]).unwrap();
        assert_eq!((filter.host.as_deref(), filter.severity_min, limit), (Some("h1"), 13, 100));
        assert_eq!((filter.from, filter.to), (Some(1_790_000_000_500), None));
        assert!(ask(&[("severity", "loud")]).unwrap_err().contains("fatal"));
        assert!(ask(&[("to", "noon")]).unwrap_err().contains("RFC 3339"));
        let wanted = |limit| Question { limit: Some(limit), ..Question::default() }.read();
        assert!(wanted(0).is_err() && wanted(RECENT_MAX).is_ok() && wanted(RECENT_MAX + 1).is_err());
    }
}
