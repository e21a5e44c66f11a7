//! `/api/v1/read`: Prometheus remote read, by which a Prometheus, a Thanos or an import asks for raw samples. Answers come in
//! one message of samples, or as a stream of frames with XOR chunks where the client takes it.

use crc32c::crc32c;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use petrel_agent::error_chain::chain;
use prost::Message;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::ingest::body::decompress_snappy;
use crate::query::Limits;
use crate::query::source::{SelectError, Selected, Source, TimeRange, recorded};
use crate::remote::prompb::{
    self, Chunk, ChunkedReadResponse, ChunkedSeries, Label, LabelMatcher, QueryResult, ReadRequest, ReadResponse,
    SAMPLES, STREAMED_XOR_CHUNKS, TimeSeries, XOR,
};
use crate::series::{Labels, MatchOp, Matcher, Sample};

use super::json::Failure;
use super::{Api, xor};

/// Chunks are put into one frame up to about this size, as Prometheus does.
const FRAME_BYTES: usize = 1 << 20;
/// Frames are handed on together up to about this size, because most are small.
const WRITE_BYTES: usize = 64 << 10;
/// Writes that may wait for a slow client.
const WRITES_MAX: usize = 4;

/// What one query of a request asks for.
struct Question {
    matchers: Vec<Matcher>,
    range: TimeRange,
}

/// All questions of a request, and what they are asked of.
struct Reading {
    source: Arc<dyn Source>,
    external_labels: Arc<BTreeMap<String, String>>,
    questions: Vec<Question>,
}

/// `POST /api/v1/read`. Errors are plain text, as Prometheus writes them here.
pub(super) async fn read(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Response {
    let failed = |failure: Failure| (failure.status(), failure.text + "\n").into_response();
    let (reading, is_streamed) = match question(&api, &headers, &body) {
        Ok(asked) => asked,
        Err(failure) => return failed(failure),
    };
    let limits = Limits { cancel: crate::query::Cancel::default(), ..api.limits.clone() };
    let answered = if is_streamed {
        streamed(&api, reading, limits).await
    } else {
        api.gate.run(limits, move |limits| reading.message(limits)).await.map(|body| {
            let kind = [(header::CONTENT_TYPE, "application/x-protobuf"), (header::CONTENT_ENCODING, "snappy")];
            (kind, body).into_response()
        })
    };
    answered.unwrap_or_else(failed)
}

fn question(api: &Api, headers: &HeaderMap, body: &[u8]) -> Result<(Reading, bool), Failure> {
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut buffer = Vec::new();
    let plain = decompress_snappy(encoding, body, super::BODY_BYTES_MAX, &mut buffer);
    let plain = plain.map_err(|error| Failure::bad_data(chain(&error)))?;
    let request = ReadRequest::decode(plain)
        .map_err(|error| Failure::bad_data(format!("body is not a Prometheus remote read message: {error}")))?;
    let questions = request.queries.iter().map(|query| {
        let asked = query.matchers.iter().filter(|matcher| !is_own(matcher, &api.external_labels));
        let matchers = asked.map(matcher).collect::<Result<_, _>>()?;
        Ok(Question { matchers, range: TimeRange { from: query.start_timestamp_ms, to: query.end_timestamp_ms } })
    });
    let questions = questions.collect::<Result<_, Failure>>()?;
    // The first that both know; a client that names nothing takes samples.
    let kind = request.accepted_response_types.into_iter().find(|kind| [SAMPLES, STREAMED_XOR_CHUNKS].contains(kind));
    let (source, external_labels) = (Arc::clone(&api.source), Arc::clone(&api.external_labels));
    Ok((Reading { source, external_labels, questions }, kind == Some(STREAMED_XOR_CHUNKS)))
}

/// Whether a matcher asks for a label of this server, which series get only on their way out.
fn is_own(matcher: &LabelMatcher, external_labels: &BTreeMap<String, String>) -> bool {
    matcher.r#type == 0 && external_labels.get(&matcher.name) == Some(&matcher.value)
}

fn matcher(wire: &LabelMatcher) -> Result<Matcher, Failure> {
    let regex = |negated| {
        Matcher::regex(&wire.name, &wire.value, negated)
            .map_err(|error| Failure::bad_data(format!("matcher of label {}: {error}", wire.name)))
    };
    match wire.r#type {
        0 => Ok(Matcher::equal(&wire.name, &wire.value)),
        1 => Ok(Matcher { name: wire.name.clone(), op: MatchOp::NotEqual(wire.value.clone()) }),
        2 => regex(false),
        3 => regex(true),
        other => Err(Failure::bad_data(format!("matcher of label {} has the unknown type {other}", wire.name))),
    }
}

impl Reading {
    /// The series of a question, sorted by labels, within what is `left` of the samples of the request.
    fn select(&self, question: &Question, left: &mut u64, limits: &Limits) -> Result<Vec<Selected>, Failure> {
        let mut found = match recorded(&*self.source, &question.matchers, question.range, *left) {
            // The words and the number of the whole limit, whatever was left of it.
            Err(SelectError::TooManySamples { .. }) => {
                let reason =
                    format!("exceeded sample limit ({}); narrow the matchers or the range", limits.samples_max);
                return Err(Failure::limit("bad_data", "samples_max", &reason));
            }
            other => other?,
        };
        *left -= found.iter().map(|one| one.samples.len() as u64).sum::<u64>().min(*left);
        found.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(found)
    }

    /// The answer as one compressed message.
    fn message(&self, limits: &Limits) -> Result<Vec<u8>, Failure> {
        let mut left = limits.samples_max;
        let results = self.questions.iter().map(|question| {
            let found = self.select(question, &mut left, limits)?;
            let series = found.into_iter().map(|one| TimeSeries {
                labels: self.wire_labels(&one.labels),
                samples: one
                    .samples
                    .iter()
                    .map(|sample| prompb::Sample { value: sample.v, timestamp: sample.t })
                    .collect(),
            });
            Ok(QueryResult { timeseries: series.collect() })
        });
        let response = ReadResponse { results: results.collect::<Result<_, Failure>>()? };
        let compressed = snap::raw::Encoder::new().compress_vec(&response.encode_to_vec());
        compressed.map_err(|error| Failure { kind: "internal", text: format!("answer cannot be compressed: {error}") })
    }

    /// The answer in frames, some at a time; ends early where nobody takes them any more.
    fn frames(&self, limits: &Limits, mut write: impl FnMut(Vec<u8>) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut left = limits.samples_max;
        let mut waiting = Vec::new();
        for (query_index, question) in self.questions.iter().enumerate() {
            for one in self.select(question, &mut left, limits)? {
                let labels = self.wire_labels(&one.labels);
                let mut chunks = one.samples.chunks(xor::SAMPLES_MAX).peekable();
                while chunks.peek().is_some() {
                    let mut bytes = 0;
                    let of_frame = std::iter::from_fn(|| {
                        let next = chunk(chunks.next_if(|_| bytes < FRAME_BYTES)?);
                        bytes += next.data.len();
                        Some(next)
                    });
                    let series = ChunkedSeries { labels: labels.clone(), chunks: of_frame.collect() };
                    put_frame(&mut waiting, series, query_index as i64);
                    if waiting.len() >= WRITE_BYTES {
                        write(std::mem::take(&mut waiting))?;
                    }
                }
            }
        }
        if waiting.is_empty() { Ok(()) } else { write(waiting) }
    }

    /// The labels of a series and, where it has none of that name, those of this server.
    fn wire_labels(&self, labels: &Labels) -> Vec<Label> {
        let own = self.external_labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let all: BTreeMap<&str, &str> = own.chain(labels.iter()).collect();
        all.into_iter().map(|(name, value)| Label { name: name.to_owned(), value: value.to_owned() }).collect()
    }
}

fn chunk(samples: &[Sample]) -> Chunk {
    Chunk {
        min_time_ms: samples.first().map_or(0, |sample| sample.t),
        max_time_ms: samples.last().map_or(0, |sample| sample.t),
        r#type: XOR,
        data: xor::encode(samples),
    }
}

/// A frame: length as a varint, CRC-32C with the highest byte first, message.
fn put_frame(out: &mut Vec<u8>, series: ChunkedSeries, query_index: i64) {
    let message = ChunkedReadResponse { chunked_series: vec![series], query_index }.encode_to_vec();
    prost::encoding::encode_varint(message.len() as u64, out);
    out.extend_from_slice(&crc32c(&message).to_be_bytes());
    out.extend_from_slice(&message);
}

/// A stream that the client draws: the thread that reads runs as long as the body is wanted, and no longer than a query may.
async fn streamed(api: &Api, reading: Reading, limits: Limits) -> Result<Response, Failure> {
    let (sender, receiver) = mpsc::channel::<Vec<u8>>(WRITES_MAX);
    let gate = Arc::clone(&api.gate);
    let run = async move {
        let work = move |limits: &Limits| {
            let begun = Instant::now();
            reading.frames(limits, |bytes| hand_on(&sender, bytes, limits.timeout.saturating_sub(begun.elapsed())))
        };
        gate.run(limits, work).await
    };
    let mut frames = Frames { run: Some(Box::pin(run)), receiver };
    // What fails before the first frame is still an answer with a status.
    let first = frames.next().await.transpose()?;
    let rest = stream::unfold((first, frames), |(first, mut frames)| async move {
        let next = match first {
            Some(bytes) => Ok(bytes),
            None => frames.next().await?,
        };
        Some((next.map_err(|failure| std::io::Error::other(failure.text)), (None, frames)))
    });
    let kind = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(rest)).into_response())
}

/// Waits until the client has room.
fn hand_on(sender: &mpsc::Sender<Vec<u8>>, bytes: Vec<u8>, patience: Duration) -> Result<(), Failure> {
    match Handle::current().block_on(timeout(patience, sender.send(bytes))) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Failure { kind: "canceled", text: "client left".to_owned() }),
        Err(_) => Err(Failure::limit("timeout", "timeout", "client reads too slowly; ask for less")),
    }
}

/// What makes frames until it ends.
type Run = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// The work of a stream and what it has made.
struct Frames {
    /// `None` once it has ended.
    run: Option<Run>,
    receiver: mpsc::Receiver<Vec<u8>>,
}

impl Frames {
    async fn next(&mut self) -> Option<Result<Vec<u8>, Failure>> {
        while let Some(run) = &mut self.run {
            tokio::select! {
                biased;
                Some(bytes) = self.receiver.recv() => return Some(Ok(bytes)),
                ended = run => {
                    self.run = None;
                    if let Err(failure) = ended {
                        return Some(Err(failure));
                    }
                }
            }
        }
        self.receiver.recv().await.map(Ok)
    }
}

#[cfg(test)]
mod tests;
