//! The receiver of Prometheus remote write, 1.0 and 2.0.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use petrel_agent::stream::protocol::Class;

use super::commit::{add_refused, count};
use super::headers::{mark, text};
use super::refusal::Refusal;
use super::{PROTOBUF, Receiver, WriteLimits};
use crate::ingest::body::decompress_snappy;
use crate::ingest::{remote_write, symbols};
use crate::store::Batch;

pub(super) async fn write(
    State(receiver): State<Receiver>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let message = RemoteWrite::of(&text(&headers, header::CONTENT_TYPE.as_str()))?;
    let mark = mark(&headers, Class::Metrics)?;
    let encoding = text(&headers, header::CONTENT_ENCODING.as_str());
    let read = receiver.read(body).await;
    receiver.heard(&read, mark.as_ref(), false);
    let (body, mut held) = read?;
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
pub(super) const WRITTEN: [&str; 3] = [
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
