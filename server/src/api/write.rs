//! The receivers: OTLP metrics and logs, Prometheus remote write. A thin rim around `ingest` and the store: bodies within limits
//! in, an answer only after the commit out. Bad requests get a 4xx that says what is wrong; what may succeed later gets a 503.

mod body;
mod commit;
mod dictionary;
mod headers;
mod limits;
mod pace;
mod refusal;
mod remote;
mod turns;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};
use petrel_agent::stream::protocol::{Class, HEADER_DICTIONARY};
use prost::Message;
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::decide::verdict::VerdictBook;
use crate::ingest::body::Buffers;
use crate::ingest::budget::Budget;
use crate::ingest::dictionaries::Dictionaries;
use crate::ingest::presence::Presence;
use crate::ingest::{otlp, otlp_logs};
use crate::store::{Batch, Store};
use crate::telemetry;
use commit::{add_refused, count};
use headers::opening;
pub use limits::{RawWriteLimits, WriteLimits, WriteLimitsError};
use pace::{Pacer, Visit};
use refusal::Refusal;
use turns::Turns;

/// Bodies decoded at once: each may take the decoded limit several times over in memory. Further ones wait.
const DECODES_MAX: usize = 16;
const PROTOBUF: &str = "application/x-protobuf";

#[derive(Clone)]
struct Receiver {
    store: Arc<Store>,
    clock: Clock,
    limits: WriteLimits,
    presence: Arc<Mutex<Presence>>,
    verdicts: Arc<Mutex<VerdictBook>>,
    decodes: Arc<Semaphore>,
    budget: Arc<Budget>,
    buffers: Arc<Buffers>,
    seen: Arc<otlp::Seen>,
    streams: Arc<otlp::Streams>,
    turns: Arc<Turns>,
    dictionaries: Arc<Dictionaries>,
    pacer: Arc<Pacer>,
}

/// Routes `POST /v1/metrics`, `/v1/logs` and `/api/v1/write`. `presence` and `verdicts`
/// are told of agents' batches; the run loop ticks them.
pub fn router(
    store: Arc<Store>,
    clock: Clock,
    limits: WriteLimits,
    presence: Arc<Mutex<Presence>>,
    verdicts: Arc<Mutex<VerdictBook>>,
) -> Router {
    let decodes = Arc::new(Semaphore::new(DECODES_MAX));
    telemetry::INGEST_IN_FLIGHT_BYTES_MAX.set(i64::try_from(limits.in_flight_bytes_max).unwrap_or(i64::MAX));
    routes(Receiver {
        store,
        clock,
        limits,
        presence,
        verdicts,
        decodes,
        budget: Budget::new(limits.in_flight_bytes_max),
        buffers: Arc::default(),
        seen: Arc::default(),
        streams: Arc::new(otlp::Streams::new(limits.streams)),
        turns: Arc::default(),
        dictionaries: Arc::new(Dictionaries::new(limits.dictionaries_bytes_max)),
        pacer: Arc::default(),
    })
}

fn routes(receiver: Receiver) -> Router {
    Router::new()
        .route("/v1/metrics", post(metrics))
        // Where Prometheus has it: senders change the host alone.
        .route("/api/v1/otlp/v1/metrics", post(metrics))
        .route("/v1/logs", post(logs))
        .route("/api/v1/write", post(remote::write))
        .with_state(receiver)
}

async fn metrics(State(receiver): State<Receiver>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let (encoding, mark) = opening(&headers, Class::Metrics)?;
    let visit = Visit::of(&headers, mark.as_ref(), (receiver.clock)());
    let sent = receiver.sent(encoding, body).await;
    receiver.heard(&sent, mark.as_ref(), visit.as_ref().is_some_and(Visit::is_backlog));
    let sent = receiver.with_dictionary(sent?, mark.as_ref())?;
    let labels = receiver.limits.labels;
    let decode = {
        let (receiver, mark) = (receiver.clone(), mark.clone());
        move |body: &[u8]| {
            let decoded = otlp::decode(body, &receiver.store.known(), &receiver.seen, labels, None)?;
            Ok((decoded, receiver.dictionary_of(body, mark.as_ref())))
        }
    };
    let ((mut decoded, dictionary), sent) = receiver.decode_sent(sent, decode).await?;
    let mut turn = None;
    if decoded.lanes.is_empty() {
        drop(sent);
    } else {
        // Until its turn comes a request has only the body as it was sent.
        let lanes = decoded.lanes;
        drop((decoded.batch, decoded.learned));
        turn = Some(receiver.turns.take(lanes).await.ok_or(Refusal::Turn)?);
        let now = (receiver.clock)();
        let again = receiver.clone();
        let decode = move |body: &[u8]| {
            let changes = otlp::Changes::new(&again.streams, now);
            Ok(otlp::decode(body, &again.store.known(), &again.seen, labels, Some(changes))?)
        };
        (decoded, _) = receiver.decode_sent(sent, decode).await?;
    }
    let otlp::Decoded { batch, mut problems, learned, changes, .. } = decoded;
    count(&problems);
    let batch = Batch { mark: mark.clone(), ..batch };
    let committed = match turn {
        None => receiver.append(batch, visit.as_ref().and_then(Visit::clock_offset_ms)).await?,
        Some(turn) => receiver.append_deltas(batch, changes, turn).await?,
    };
    if !committed.duplicate {
        receiver.seen.learn(learned);
    }
    add_refused(&mut problems, &committed);
    let partial_success = (problems.count() > 0).then(|| ExportMetricsPartialSuccess {
        rejected_data_points: problems.count() as i64,
        error_message: problems.to_string(),
    });
    let mut response = protobuf(&ExportMetricsServiceResponse { partial_success });
    if let Some(seq) = mark.and_then(|mark| receiver.keep_dictionary(&mark, dictionary)) {
        response.headers_mut().insert(HEADER_DICTIONARY, HeaderValue::from(seq));
    }
    receiver.pace(visit.as_ref(), &mut response);
    Ok(response)
}

async fn logs(State(receiver): State<Receiver>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let (encoding, mark) = opening(&headers, Class::Logs)?;
    let visit = Visit::of(&headers, mark.as_ref(), (receiver.clock)());
    let sent = receiver.sent(encoding, body).await?;
    let now = (receiver.clock)();
    let ((lines, problems), sent) =
        receiver.decode_sent(sent, move |body: &[u8]| Ok(otlp_logs::decode(body, now)?)).await?;
    drop(sent);
    let store = Arc::clone(&receiver.store);
    tokio::task::spawn_blocking(move || store.append_logs(&lines, mark.as_ref(), now))
        .await
        .map_err(|_| Refusal::Stopping)??;
    let partial_success = (problems.count() > 0).then(|| ExportLogsPartialSuccess {
        rejected_log_records: problems.count() as i64,
        error_message: problems.to_string(),
    });
    let mut response = protobuf(&ExportLogsServiceResponse { partial_success });
    receiver.pace(visit.as_ref(), &mut response);
    Ok(response)
}

fn protobuf(message: &impl Message) -> Response {
    ([(header::CONTENT_TYPE, PROTOBUF)], message.encode_to_vec()).into_response()
}

#[cfg(test)]
#[path = "tests/write.rs"]
mod tests;

#[cfg(test)]
#[path = "tests/dictionary.rs"]
mod dictionary_tests;

#[cfg(test)]
#[path = "tests/deltas.rs"]
mod delta_tests;
