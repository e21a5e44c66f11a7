//! The receivers: OTLP metrics and logs, Prometheus remote write. A thin rim around `ingest` and the store: bodies within limits
//! in, an answer only after the commit out. Bad requests get a 4xx that says what is wrong; what may succeed later gets a 503.

mod dictionary;
mod limits;
mod pace;
mod refusal;
mod turns;

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::StreamExt as _;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsPartialSuccess, ExportMetricsServiceResponse};
use petrel_agent::stream::dictionary::{self as coding, Dictionary};
use petrel_agent::stream::protocol::{Class, HEADER_AGENT, HEADER_CLASS, HEADER_DICTIONARY, HEADER_EPOCH, HEADER_SEQ};
use prost::Message;
use tokio::sync::Semaphore;

use crate::api::body_deadline;
use crate::clock::Clock;
use crate::decide::verdict::{Event, VerdictBook};
use crate::ingest::body::{BodyError, Buffers, decompress_against, decompress_snappy, decompress_within};
use crate::ingest::budget::{Budget, Held};
use crate::ingest::dictionaries::Dictionaries;
use crate::ingest::presence::Presence;
use crate::ingest::problems::Problems;
use crate::ingest::{otlp, otlp_logs, remote_write, symbols};
use crate::store::{Batch, Committed, Mark, RefusedReason, Store};
use crate::telemetry;

pub use limits::{RawWriteLimits, WriteLimits, WriteLimitsError};
use pace::{Pacer, Visit};
use refusal::Refusal;
use turns::{Turn, Turns};

/// Bodies decoded at once: each may take the decoded limit several times over in memory. Further ones wait.
const DECODES_MAX: usize = 16;
/// Bodies that may be larger than this when decompressed are decoded on a thread that may block: below it is about a millisecond of
/// work.
const INLINE_BYTES_MAX: usize = 512 << 10;
/// How often over gzip and zstd bodies are larger when decompressed, mostly: where that is more than the above, it is not tried.
const EXPANSION: usize = 16;
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
        .route("/api/v1/write", post(write))
        .with_state(receiver)
}

async fn metrics(State(receiver): State<Receiver>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let (encoding, mark) = opening(&headers, Class::Metrics)?;
    let visit = Visit::of(&headers, mark.as_ref(), (receiver.clock)());
    let sent = receiver.sent(encoding, body).await?;
    receiver.heard(mark.as_ref(), visit.as_ref().is_some_and(Visit::is_backlog));
    let sent = receiver.with_dictionary(sent, mark.as_ref())?;
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

async fn write(State(receiver): State<Receiver>, headers: HeaderMap, body: Body) -> Result<Response, Refusal> {
    let message = RemoteWrite::of(&text(&headers, header::CONTENT_TYPE.as_str()))?;
    let mark = mark(&headers, Class::Metrics)?;
    let encoding = text(&headers, header::CONTENT_ENCODING.as_str());
    let (body, mut held) = receiver.read(body).await?;
    receiver.heard(mark.as_ref(), false);
    let WriteLimits { decoded_bytes_max, labels, .. } = receiver.limits;
    // What is no snappy, or too much of it, is refused by the decoder.
    let decoded_bytes = snap::raw::decompress_len(&body).ok().filter(|bytes| *bytes <= decoded_bytes_max);
    let decoded_bytes = decoded_bytes.unwrap_or_default();
    held.take(decoded_bytes)?;
    let (store, buffers) = (Arc::clone(&receiver.store), Arc::clone(&receiver.buffers));
    let decode = move |buffer: &mut Vec<u8>| {
        let _held = held;
        let body = decompress_snappy(&encoding, &body, decoded_bytes_max, buffer)?;
        Ok(match message {
            RemoteWrite::One => remote_write::decode(body, &store.known(), labels)?,
            RemoteWrite::Two => symbols::decode(body, &store.known(), labels)?,
        })
    };
    let (batch, mut problems) = receiver.decode(decoded_bytes, move || buffers.with(decode)).await?;
    count(&problems);
    let committed = receiver.append(Batch { mark, ..batch }, None).await?;
    add_refused(&mut problems, &committed);
    let mut response = if problems.count() == 0 {
        StatusCode::NO_CONTENT.into_response()
    } else {
        (StatusCode::BAD_REQUEST, format!("{problems}; {} stored\n", committed.accepted)).into_response()
    };
    if message == RemoteWrite::Two {
        let written = [committed.accepted, 0, 0].map(HeaderValue::from);
        response.headers_mut().extend(WRITTEN.map(HeaderName::from_static).into_iter().zip(written));
    }
    Ok(response)
}

/// What a remote write 2.0 sender is told to have been written: samples, native histograms, exemplars.
const WRITTEN: [&str; 3] = [
    "x-prometheus-remote-write-samples-written",
    "x-prometheus-remote-write-histograms-written",
    "x-prometheus-remote-write-exemplars-written",
];

/// The messages of remote write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RemoteWrite {
    One,
    Two,
}

impl RemoteWrite {
    /// Reads a content type in lower case; without the name of a message it is the first, as that protocol has it.
    fn of(content_type: &str) -> Result<RemoteWrite, Refusal> {
        let mut parts = content_type.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let message = parts.find_map(|part| part.strip_prefix("proto=")).map(|name| name.trim_matches('"'));
        match (media, message) {
            ("" | PROTOBUF, None | Some("prometheus.writerequest")) => Ok(RemoteWrite::One),
            (PROTOBUF, Some("io.prometheus.write.v2.request")) => Ok(RemoteWrite::Two),
            _ => Err(Refusal::ContentType {
                found: content_type.to_owned(),
                allowed: "application/x-protobuf;proto=prometheus.WriteRequest or …;proto=io.prometheus.write.v2.Request",
            }),
        }
    }
}

/// An OTLP body as it was sent, and what it holds of the memory for all.
struct Sent {
    encoding: String,
    bytes: Bytes,
    /// What it is compressed against, where it is.
    dictionary: Option<Arc<Dictionary>>,
    budget: Arc<Budget>,
    _held: Held,
}

impl Sent {
    /// The body decompressed, and what that holds beside it.
    fn decompress(&self, bytes_max: usize) -> Result<(Cow<'_, [u8]>, Held), BodyError> {
        let mut held = self.budget.enter();
        let mut take = |bytes| held.take(bytes);
        let body = match (&self.dictionary, coding::split(&self.bytes)) {
            (Some(dictionary), Some((_, frame))) => {
                Cow::Owned(decompress_against(dictionary.body(), frame, bytes_max, &mut take)?)
            }
            _ => decompress_within(&self.encoding, &self.bytes, bytes_max, &mut take)?,
        };
        Ok((body, held))
    }

    /// Whether it is worth a try to decompress it within the bound for work on the spot.
    fn may_be_small(&self) -> bool {
        let is_plain = matches!(self.encoding.as_str(), "" | "identity");
        self.bytes.len() * if is_plain { 1 } else { EXPANSION } <= INLINE_BYTES_MAX
    }
}

impl Receiver {
    async fn sent(&self, encoding: String, body: Body) -> Result<Sent, Refusal> {
        let (bytes, held) = self.read(body).await?;
        Ok(Sent { encoding, bytes, dictionary: None, budget: Arc::clone(&self.budget), _held: held })
    }

    /// Runs a decoder of an OTLP body; returns the body, too. One that is large when decompressed, whatever it was before, is
    /// decoded on a thread that may block.
    async fn decode_sent<T: Send + 'static>(
        &self,
        sent: Sent,
        decode: impl FnOnce(&[u8]) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<(T, Sent), Refusal> {
        let _turn = self.decodes.acquire().await.map_err(|_| Refusal::Stopping)?;
        let bytes_max = self.limits.decoded_bytes_max;
        if sent.may_be_small() {
            match sent.decompress(INLINE_BYTES_MAX.min(bytes_max)) {
                Ok((body, _held)) => {
                    let decoded = decode(&body)?;
                    drop(body);
                    return Ok((decoded, sent));
                }
                Err(BodyError::TooLarge { .. }) if INLINE_BYTES_MAX < bytes_max => {}
                Err(error) => return Err(error.into()),
            }
        }
        let decode = move || {
            let (body, held) = sent.decompress(bytes_max)?;
            let decoded = decode(&body)?;
            drop((body, held));
            Ok((decoded, sent))
        };
        tokio::task::spawn_blocking(decode).await?
    }

    /// A request's body as it came, and what it holds of the memory for all.
    async fn read(&self, body: Body) -> Result<(Bytes, Held), Refusal> {
        let bytes_max = self.limits.body_bytes_max;
        let too_large = || Refusal::TooLarge { bytes_max };
        if body.size_hint().lower() > bytes_max as u64 {
            return Err(too_large());
        }
        let mut held = self.budget.enter();
        let mut parts = body.into_data_stream();
        let mut read: Vec<u8> = Vec::new();
        let mut first = Bytes::new();
        // Memory is taken as bytes come, never for what a sender says will come.
        while let Some(part) = parts.next().await {
            let part = part
                .map_err(|error| if body_deadline::is_late(&error) { Refusal::Slow } else { Refusal::Read(error) })?;
            if first.len() + read.len() + part.len() > bytes_max {
                return Err(too_large());
            }
            held.take(part.len())?;
            if first.is_empty() && read.is_empty() {
                // Most bodies are one piece, which is not copied.
                first = part;
            } else {
                if read.is_empty() {
                    read.extend_from_slice(&std::mem::take(&mut first));
                }
                read.extend_from_slice(&part);
            }
        }
        Ok((if read.is_empty() { first } else { read.into() }, held))
    }

    /// Runs a decoder, large bodies on a thread that may block.
    async fn decode<T: Send + 'static>(
        &self,
        bytes: usize,
        decode: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let _turn = self.decodes.acquire().await.map_err(|_| Refusal::Stopping)?;
        if bytes <= INLINE_BYTES_MAX { decode() } else { tokio::task::spawn_blocking(decode).await? }
    }

    /// An agent's batch of metrics is here, whole: it lives and gets through. What becomes of the batch is the server's trouble, a full
    /// disk above all, and must not make the fleet look silent. What follows comes at the next tick.
    fn heard(&self, mark: Option<&Mark>, is_backlog: bool) {
        let Some(mark) = mark else { return };
        let event = Event::Batch { agent: mark.agent.clone(), is_backlog };
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).step(event, (self.clock)());
    }

    /// Commits a batch; an agent's with its `up` and how far its clock is off.
    async fn append(&self, mut batch: Batch, clock_offset_ms: Option<i64>) -> Result<Committed, Refusal> {
        let now = (self.clock)();
        let presence = || self.presence.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = if batch.mark.is_some() { presence().announce(&mut batch, now) } else { None };
        if let (Some(seen), Some(offset_ms), Some(mark)) = (&seen, clock_offset_ms, &batch.mark) {
            batch.series.extend(seen.clock_offset(&mark.agent, offset_ms, now));
        }
        let committed = self.store.append(batch, now).await?;
        if let Some(seen) = seen {
            presence().committed(seen, now);
        }
        Ok(committed)
    }

    /// Commits a batch of deltas, then what they add up to, then gives the turn back. Goes on when the client leaves: a stream that
    /// missed what the store has would count the next delta from the wrong sum.
    async fn append_deltas(
        &self,
        batch: Batch,
        changes: Option<otlp::Changes>,
        turn: Turn,
    ) -> Result<Committed, Refusal> {
        let receiver = self.clone();
        let append = async move {
            let _turn = turn;
            let committed = receiver.append(batch, None).await?;
            if let Some(changes) = changes.filter(|_| !committed.duplicate) {
                changes.commit();
            }
            Ok(committed)
        };
        tokio::spawn(append).await.map_err(|_| Refusal::Stopping)?
    }
}

/// What comes before an OTLP body: its encoding, and the agent's mark.
fn opening(headers: &HeaderMap, class: Class) -> Result<(String, Option<Mark>), Refusal> {
    let found = text(headers, header::CONTENT_TYPE.as_str());
    if !found.is_empty() && !found.starts_with(PROTOBUF) {
        return Err(Refusal::ContentType { found, allowed: PROTOBUF });
    }
    Ok((text(headers, header::CONTENT_ENCODING.as_str()), mark(headers, class)?))
}

/// A header as text; empty where it is missing or no text.
fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase()
}

/// The four headers of an agent: all of them or none.
fn mark(headers: &HeaderMap, class: Class) -> Result<Option<Mark>, Refusal> {
    let names = [HEADER_AGENT, HEADER_EPOCH, HEADER_CLASS, HEADER_SEQ];
    let wrong = |header, problem| Refusal::Header { header, problem };
    if names.iter().all(|name| !headers.contains_key(*name)) {
        return Ok(None);
    }
    let get = |name: &'static str| {
        let value = headers.get(name).ok_or(wrong(name, "is missing; send all four of an agent or none"))?;
        let value = value.to_str().map_err(|_| wrong(name, "is not printable ASCII"))?;
        let fits = !value.is_empty() && value.len() <= 255 && value.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(value) } else { Err(wrong(name, "must be 1 to 255 bytes of printable ASCII without spaces")) }
    };
    let (agent, epoch, class_word, seq) =
        (get(HEADER_AGENT)?, get(HEADER_EPOCH)?, get(HEADER_CLASS)?, get(HEADER_SEQ)?);
    if Class::parse(class_word) != Some(class) {
        return Err(wrong(HEADER_CLASS, "does not name the class that this path takes"));
    }
    let seq = seq.parse().ok().filter(|seq| (1..=i64::MAX as u64).contains(seq));
    let seq = seq.ok_or(wrong(HEADER_SEQ, "is not a number from 1 on"))?;
    Ok(Some(Mark { agent: agent.to_owned(), epoch: epoch.to_owned(), class, seq }))
}

/// Counts what a decoder refused.
fn count(problems: &Problems) {
    let over_limit = problems.over_limit();
    for (outcome, samples) in [("malformed", problems.malformed()), ("label_limit", over_limit)] {
        telemetry::INGEST_SAMPLES.with_label_values(&[outcome]).inc_by(samples);
    }
}

/// Names what the store refused: each reason with its number and its first series.
fn add_refused(problems: &mut Problems, committed: &Committed) {
    for (reason, words) in [
        (RefusedReason::Future, "more than 10 minutes ahead of the server's clock"),
        (RefusedReason::TooOld, "older than the retention"),
        (RefusedReason::Closed, "of days of which the retention left only rollups"),
        (RefusedReason::SeriesLimit, "beyond the limit store.series_max"),
        (RefusedReason::SourceLimit, "beyond the limit store.series_per_source_max of their instance"),
        (RefusedReason::MemoryLimit, "of new series while memory is near the limit memory_max"),
    ] {
        let mut refused = committed.refused.iter().filter(|refused| refused.reason == reason).peekable();
        if let Some(first) = refused.peek().copied() {
            let count = refused.count() as u64;
            problems.add(count, format_args!("{count} samples {words}, first {} at {}", first.labels, first.sample.t));
        }
    }
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
