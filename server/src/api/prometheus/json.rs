//! Answers and errors as the Prometheus API writes them: values as strings, times as seconds with milliseconds.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::query::{Answer, Value, number};
use crate::series::{Labels, Sample, Timestamp};

/// The warning of an answer that a `limit` cut.
pub(super) const TRUNCATED: &str = "results truncated due to limit";

/// An error of the API.
#[derive(Debug)]
pub(super) struct Failure {
    /// `errorType`.
    pub(super) kind: &'static str,
    /// For people.
    pub(super) text: String,
}

impl Failure {
    /// A parameter that cannot be used.
    pub(super) fn parameter(name: &str, reason: &str) -> Failure {
        Failure { kind: "bad_data", text: format!("invalid parameter {name:?}: {reason}") }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = match self.kind {
            "bad_data" => StatusCode::BAD_REQUEST,
            "execution" => StatusCode::UNPROCESSABLE_ENTITY,
            "timeout" | "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            // The client that would read it is gone; Prometheus uses nginx's 499.
            "canceled" => StatusCode::from_u16(499).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = serde_json::json!({ "status": "error", "errorType": self.kind, "error": self.text });
        respond(status, body.to_string())
    }
}

/// A plain answer.
pub(super) fn success(data: &impl Serialize) -> Response {
    respond(StatusCode::OK, serde_json::json!({ "status": "success", "data": data }).to_string())
}

/// A plain answer that a limit cut.
pub(super) fn truncated(data: &impl Serialize) -> Response {
    let body = serde_json::json!({ "status": "success", "data": data, "warnings": [TRUNCATED] });
    respond(StatusCode::OK, body.to_string())
}

/// The answer to a query at a time, which a string has none of its own.
pub(super) fn answer(answer: &Answer, at: Timestamp) -> Response {
    let mut out = String::from(r#"{"status":"success","data":"#);
    write_value(&mut out, &answer.value, at);
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
    out.push_str(&serde_json::Value::from(text).to_string());
}

fn write_sample(out: &mut String, sample: &Sample) {
    out.push('[');
    write_time(out, sample.t);
    out.push_str(",\"");
    out.push_str(&number(sample.v));
    out.push_str("\"]");
}

/// Seconds, with milliseconds where there are any.
fn write_time(out: &mut String, t: Timestamp) {
    let sign = if t < 0 { "-" } else { "" };
    let (seconds, ms) = (t.unsigned_abs() / 1000, t.unsigned_abs() % 1000);
    // Writing to a string cannot fail.
    let _ = if ms == 0 { write!(out, "{sign}{seconds}") } else { write!(out, "{sign}{seconds}.{ms:03}") };
}
