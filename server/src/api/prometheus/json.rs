//! Answers and errors as the Prometheus API writes them: values as strings, times as seconds with milliseconds.

use std::time::Duration;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::query::{Answer, Stats, Value, write_number};
use crate::series::{Labels, Sample, Timestamp};
use crate::telemetry::QUERY_LIMITS;

/// The warning of an answer that a `limit` cut.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

/// An error of the API.
#[derive(Debug)]
pub(in crate::api) struct Failure {
    /// `errorType`.
    pub(in crate::api) kind: &'static str,
    /// For people.
    pub(in crate::api) text: String,
}

impl Failure {
    /// A request that cannot be understood.
    pub(in crate::api) fn bad_data(text: impl Into<String>) -> Failure {
        Failure { kind: "bad_data", text: text.into() }
    }

    /// A parameter that cannot be used.
    pub(in crate::api) fn parameter(name: &str, reason: &str) -> Failure {
        Failure::bad_data(format!("invalid parameter {name:?}: {reason}"))
    }

    /// A limit is met: counted, and named by its key in the config.
    pub(in crate::api) fn limit(kind: &'static str, key: &'static str, text: &str) -> Failure {
        QUERY_LIMITS.with_label_values(&[key]).inc();
        Failure { kind, text: format!("{text} (limit query.{key})") }
    }

    /// The server's memory is at its limit: counted, and named by its key in the config.
    pub(in crate::api) fn memory() -> Failure {
        const KEY: &str = "memory_max";
        QUERY_LIMITS.with_label_values(&[KEY]).inc();
        let text = format!("the server's memory is at its limit; ask again later, or for less (limit {KEY})");
        Failure { kind: "unavailable", text }
    }

    /// The status that goes with the kind.
    pub(in crate::api) fn status(&self) -> StatusCode {
        match self.kind {
            "bad_data" => StatusCode::BAD_REQUEST,
            "not_found" => StatusCode::NOT_FOUND,
            "execution" => StatusCode::UNPROCESSABLE_ENTITY,
            "timeout" | "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            // The client that would read it is gone; Prometheus uses nginx's 499.
            "canceled" => StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "status": "error", "errorType": self.kind, "error": self.text });
        respond(self.status(), body.to_string())
    }
}

/// The envelope of an answer that is no query's.
#[derive(Serialize)]
struct Success<'a, T: Serialize> {
    status: &'static str,
    data: &'a T,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    warnings: &'a [String],
}

/// A plain answer.
pub(in crate::api) fn success(data: &impl Serialize) -> Response {
    with_warnings(data, &[])
}

/// A plain answer, with what is to be known of it.
pub(super) fn with_warnings(data: &impl Serialize, warnings: &[String]) -> Response {
    match serde_json::to_string(&Success { status: "success", data, warnings }) {
        Ok(body) => respond(StatusCode::OK, body),
        Err(error) => Failure { kind: "internal", text: format!("answer cannot be written: {error}") }.into_response(),
    }
}

/// The answer to a query at a time, which a string has none of its own.
pub(super) fn answer(answer: &Answer, at: Timestamp, cost: Option<&Cost>) -> Response {
    let mut out = String::from(r#"{"status":"success","data":"#);
    write_value(&mut out, &answer.value, at);
    if let (Some(stats), Some(cost)) = (&answer.stats, cost) {
        // The value is an object, which the cost becomes a part of.
        out.pop();
        write_cost(&mut out, stats, cost);
        out.push('}');
    }
    for (name, notes) in [("warnings", &answer.warnings), ("infos", &answer.infos)] {
        if !notes.is_empty() {
            out.push_str(",\"");
            out.push_str(name);
            out.push_str("\":[");
            write_list(&mut out, notes, |out, note| write_text(out, note));
            out.push(']');
        }
    }
    out.push('}');
    respond(StatusCode::OK, out)
}

/// How much of a query's cost is told, and how long it waited.
pub(super) struct Cost {
    /// Also the samples of each step.
    pub(super) per_step: bool,
    /// From the request until its evaluation began.
    pub(super) queue: Duration,
}

fn write_cost(out: &mut String, stats: &Stats, cost: &Cost) {
    let evaluated = stats.preparation + stats.evaluation + stats.sorting;
    let timings = serde_json::json!({
        "evalTotalTime": evaluated.as_secs_f64(),
        "resultSortTime": stats.sorting.as_secs_f64(),
        "queryPreparationTime": stats.preparation.as_secs_f64(),
        "innerEvalTime": stats.evaluation.as_secs_f64(),
        "execQueueTime": cost.queue.as_secs_f64(),
        "execTotalTime": (cost.queue + evaluated).as_secs_f64(),
    });
    let mut samples = serde_json::json!({ "totalQueryableSamples": stats.total(), "peakSamples": stats.peak });
    if cost.per_step {
        let steps: Vec<_> = stats.per_step.iter().map(|(t, count)| (*t as f64 / 1000.0, count)).collect();
        samples["totalQueryableSamplesPerStep"] = serde_json::json!(steps);
    }
    out.push_str(",\"stats\":");
    out.push_str(&serde_json::json!({ "timings": timings, "samples": samples }).to_string());
}

fn respond(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response()
}

fn write_value(out: &mut String, value: &Value, at: Timestamp) {
    let (kind, open, close) = match value {
        Value::Scalar(..) => ("scalar", "", ""),
        Value::Text(_) => ("string", "", ""),
        Value::Vector(_) => ("vector", "[", "]"),
        Value::Matrix(_) => ("matrix", "[", "]"),
    };
    out.push_str(r#"{"resultType":""#);
    out.push_str(kind);
    out.push_str(r#"","result":"#);
    out.push_str(open);
    match value {
        Value::Scalar(t, v) => write_sample(out, &Sample { t: *t, v: *v }),
        Value::Text(text) => {
            out.push('[');
            write_time(out, at);
            out.push(',');
            write_text(out, text);
            out.push(']');
        }
        Value::Vector(samples) => write_list(out, samples, |out, one| {
            write_metric(out, &one.labels);
            out.push_str(r#","value":"#);
            write_sample(out, &one.sample);
            out.push('}');
        }),
        Value::Matrix(series) => write_list(out, series, |out, one| {
            write_metric(out, &one.labels);
            out.push_str(r#","values":["#);
            write_list(out, &one.samples, write_sample);
            out.push_str("]}");
        }),
    }
    out.push_str(close);
    out.push('}');
}

fn write_list<T>(out: &mut String, items: &[T], write: impl Fn(&mut String, &T)) {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write(out, item);
    }
}

fn write_metric(out: &mut String, labels: &Labels) {
    out.push_str(r#"{"metric":{"#);
    for (i, (name, value)) in labels.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_text(out, name);
        out.push(':');
        write_text(out, value);
    }
    out.push('}');
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    // Almost all text is plain: it goes in one piece.
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        text.chars().for_each(|c| write_char(out, c));
    } else {
        out.push_str(text);
    }
    out.push('"');
}

fn write_char(out: &mut String, c: char) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\0'..' ' => {
            let hex = |digit: u32| char::from_digit(digit, 16).unwrap_or('0');
            out.push_str("\\u00");
            out.push(hex(u32::from(c) >> 4));
            out.push(hex(u32::from(c) & 15));
        }
        _ => out.push(c),
    }
}

fn write_sample(out: &mut String, sample: &Sample) {
    out.push('[');
    write_time(out, sample.t);
    out.push_str(",\"");
    write_number(out, sample.v);
    out.push_str("\"]");
}

/// Seconds, with milliseconds where there are any.
fn write_time(out: &mut String, t: Timestamp) {
    if t < 0 {
        out.push('-');
    }
    let (seconds, ms) = (t.unsigned_abs() / 1000, t.unsigned_abs() % 1000);
    write_digits(out, seconds, 1);
    if ms != 0 {
        out.push('.');
        write_digits(out, ms, 3);
    }
}

/// A number with at least `width` digits; `write!` takes five times as long, which shows where an answer is mostly times.
fn write_digits(out: &mut String, mut number: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut at = digits.len();
    while number > 0 || digits.len() - at < width {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn text_is_escaped_as_serde_does_it() {
        let every: String = (0..0x300).filter_map(char::from_u32).collect();
        for text in ["", "plain", "é\u{1f600}", "a\"b\\c\nd\r\te\u{1}\u{1f}", &every] {
            let back: String = serde_json::from_str(&written(|out| write_text(out, text))).unwrap();
            assert_eq!(back, text);
        }
    }

    #[test]
    fn times_are_seconds() {
        for (t, text) in [
            (0, "0"),
            (5, "0.005"),
            (-1, "-0.001"),
            (-61_500, "-61.500"),
            (1_700_000_000_000, "1700000000"),
            (1_700_000_000_120, "1700000000.120"),
            (i64::MIN, "-9223372036854775.808"),
        ] {
            assert_eq!(written(|out| write_time(out, t)), text);
        }
    }
}
