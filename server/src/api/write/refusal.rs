//! Why a request that brings samples or log lines was refused as a whole: the words, the status and the counters of each reason.
//! Senders keep what got a 5xx or 429 and come again; anything else they throw away, so it is for what can never be taken.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use petrel_agent::error_chain::chain;
use tokio::task::JoinError;

use crate::ingest::body::BodyError;
use crate::ingest::budget::ExhaustedError;
use crate::ingest::{otlp, remote_write, symbols};
use crate::store::AppendError;
use crate::store::loglines::AppendLogsError;
use crate::telemetry;

/// Seconds after which a sender may try again what was refused for the moment.
const RETRY_AFTER: &str = "5";

/// Why a request was refused as a whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("request body cannot be read")]
    Read(#[source] axum::Error),
    #[error("request body did not arrive in time (limit write.body_timeout)")]
    Slow,
    #[error("request body has more than {bytes_max} bytes; send smaller batches (limit write.body_max)")]
    TooLarge { bytes_max: usize },
    #[error(transparent)]
    Exhausted(#[from] ExhaustedError),
    #[error("deltas of the same resources in other requests are still being stored; send again later")]
    Turn,
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the dictionary that this body is compressed against is not held here; send the batch without")]
    Dictionary,
    #[error("content type `{found}` is not taken here; send {allowed}")]
    ContentType { found: String, allowed: &'static str },
    #[error(transparent)]
    Otlp(#[from] otlp::DecodeError),
    #[error(transparent)]
    RemoteWrite(#[from] remote_write::DecodeError),
    #[error(transparent)]
    Symbols(#[from] symbols::DecodeError),
    #[error("header `{header}` {problem}")]
    Header { header: &'static str, problem: &'static str },
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Logs(#[from] AppendLogsError),
    #[error("server is stopping; send again later")]
    Stopping,
    #[error(
        "reading the request failed by a bug of Petrel, which its log has; nothing was stored, and sending it again does not help"
    )]
    Broken,
}

impl From<JoinError> for Refusal {
    fn from(error: JoinError) -> Refusal {
        if error.is_panic() { Refusal::Broken } else { Refusal::Stopping }
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Refusal::TooLarge { .. } | Refusal::Body(BodyError::TooLarge { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Body(BodyError::Encoding { .. }) | Refusal::ContentType { .. } => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Refusal::Dictionary => StatusCode::CONFLICT,
            Refusal::Append(error) if !error.is_transient() => StatusCode::TOO_MANY_REQUESTS,
            // A log line that cannot be written now can be once the disk is well again; agents keep it.
            Refusal::Append(_)
            | Refusal::Logs(_)
            | Refusal::Exhausted(_)
            // Not a 408, at which Prometheus and collectors throw their samples away.
            | Refusal::Slow
            | Refusal::Turn
            | Refusal::Body(BodyError::Exhausted(_))
            | Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Body(BodyError::Damaged { .. })
            | Refusal::Read(_)
            | Refusal::Otlp(_)
            | Refusal::RemoteWrite(_)
            | Refusal::Symbols(_)
            | Refusal::Broken
            | Refusal::Header { .. } => StatusCode::BAD_REQUEST,
        }
    }

    /// The limit that was met, by its key in the config where it has one.
    fn limit(&self) -> Option<&'static str> {
        match self {
            Refusal::Slow => Some("write.body_timeout"),
            Refusal::TooLarge { .. } => Some("write.body_max"),
            Refusal::Body(BodyError::TooLarge { .. }) => Some("write.decoded_max"),
            Refusal::Exhausted(_) | Refusal::Body(BodyError::Exhausted(_)) => Some("write.in_flight_max"),
            Refusal::Turn => Some("delta_turn"),
            Refusal::Broken => Some("bug"),
            Refusal::Append(error) | Refusal::Logs(AppendLogsError::Disk(error)) => match error {
                AppendError::DiskReserve { .. } => Some("store.disk_reserve"),
                AppendError::QueueFull { .. } => Some("queue"),
                AppendError::TooManyAgents => Some("agents"),
                _ => None,
            },
            _ => None,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        telemetry::INGEST_REQUESTS_REFUSED.with_label_values(&[status.as_str()]).inc();
        if let Some(limit) = self.limit() {
            telemetry::INGEST_LIMITS.with_label_values(&[limit]).inc();
        }
        let mut response = (status, chain(&self) + "\n").into_response();
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}
