//! Bodies within limits: read as they come, decompressed, and decoded on the spot or on a thread that may block. What they hold is
//! counted against the memory for all bodies in flight.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody as _};
use futures_util::StreamExt as _;
use petrel_agent::stream::dictionary::{self as coding, Dictionary};

use super::Receiver;
use super::refusal::Refusal;
use crate::api::body_deadline;
use crate::ingest::body::{BodyError, decompress_against, decompress_within};
use crate::ingest::budget::{Budget, Held};

/// Bodies that may be larger than this when decompressed are decoded on a thread that may block: below it is about a millisecond of
/// work.
const INLINE_BYTES_MAX: usize = 512 << 10;
/// How often over gzip and zstd bodies are larger when decompressed, mostly: where that is more than the above, it is not tried.
const EXPANSION: usize = 16;

/// An OTLP body as it was sent, and what it holds of the memory for all.
pub(super) struct Sent {
    pub(super) encoding: String,
    pub(super) bytes: Bytes,
    /// What it is compressed against, where it is.
    pub(super) dictionary: Option<Arc<Dictionary>>,
    pub(super) budget: Arc<Budget>,
    pub(super) _held: Held,
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
    pub(super) async fn sent(&self, encoding: String, body: Body) -> Result<Sent, Refusal> {
        let (bytes, held) = self.read(body).await?;
        Ok(Sent { encoding, bytes, dictionary: None, budget: Arc::clone(&self.budget), _held: held })
    }

    /// Runs a decoder of an OTLP body; returns the body, too. One that is large when decompressed, whatever it was before, is
    /// decoded on a thread that may block.
    pub(super) async fn decode_sent<T: Send + 'static>(
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
    pub(super) async fn read(&self, body: Body) -> Result<(Bytes, Held), Refusal> {
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
    pub(super) async fn decode<T: Send + 'static>(
        &self,
        bytes: usize,
        decode: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let _turn = self.decodes.acquire().await.map_err(|_| Refusal::Stopping)?;
        if bytes <= INLINE_BYTES_MAX { decode() } else { tokio::task::spawn_blocking(decode).await? }
    }
}
