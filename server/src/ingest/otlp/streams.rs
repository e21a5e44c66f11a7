//! The streams of deltas that are known, within a limit, and what one request changes of them. Changes stand beside the streams
//! until the store has committed the request: a request that was refused and comes again must not be added twice. Whoever makes
//! changes holds the turn of their lanes from before until after the commit (`api::write`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;

use super::seen::Fingerprint;
use super::total::{Added, Amount, Dropped, During, Stream};
use crate::series::{Sample, Timestamp};
use crate::telemetry;

/// Farthest that a point may be ahead of the clock, as samples may: one from the year 2100 would make all that follow old.
const FUTURE_MS_MAX: i64 = 600_000;

/// What is kept of streams of deltas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamLimits {
    /// Most series of all streams; a histogram counts with its buckets.
    pub series_max: usize,
    /// A stream without a point for longer is forgotten: what goes on of it is what the store has.
    pub stale_after_ms: i64,
}

impl Default for StreamLimits {
    fn default() -> StreamLimits {
        // Five minutes as in the collector. A number takes about 150 bytes, a bucket 8 or 16.
        StreamLimits { series_max: 1_000_000, stale_after_ms: 300_000 }
    }
}

/// Streams that came before.
#[derive(Debug, Default)]
pub struct Streams {
    limits: StreamLimits,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    streams: HashMap<Fingerprint, (Stream, Timestamp), RandomState>,
    /// Series of the streams, and of those that requests under way add.
    series: usize,
    swept: Timestamp,
}

/// What one request changes. Forgotten unless it is committed.
#[derive(Debug)]
pub struct Changes {
    streams: Arc<Streams>,
    now: Timestamp,
    changed: HashMap<Fingerprint, Option<Stream>, RandomState>,
    /// Series that were added to [`Kept::series`] ahead.
    reserved: usize,
    counts: HashMap<&'static str, u64>,
}

/// Why a point is not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DeltaError {
    /// It does not fit its stream.
    #[error(transparent)]
    Dropped(#[from] Dropped),
    /// Ahead of the clock.
    #[error("is a delta more than 10 minutes ahead of the server's clock")]
    Future,
    /// No room.
    #[error(
        "is a new delta stream beyond the limit write.delta_series_max ({series_max}); set the sender to cumulative"
    )]
    Limit {
        /// The limit.
        series_max: usize,
    },
}

/// Whether a time is longer ago. One as far ahead is, too: the clock was wrong then and was set back.
fn is_past(then: Timestamp, now: Timestamp, ms: i64) -> bool {
    now.abs_diff(then) > ms.unsigned_abs()
}

impl Streams {
    /// None yet.
    pub fn new(limits: StreamLimits) -> Streams {
        Streams { limits, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: Fingerprint, now: Timestamp) -> Option<Stream> {
        let kept = self.kept();
        let fresh = kept.streams.get(&id).filter(|(_, heard)| !self.is_stale(*heard, now));
        fresh.map(|(stream, _)| stream.clone())
    }

    fn has(&self, id: Fingerprint, now: Timestamp) -> bool {
        self.kept().streams.get(&id).is_some_and(|(_, heard)| !self.is_stale(*heard, now))
    }

    fn is_stale(&self, heard: Timestamp, now: Timestamp) -> bool {
        is_past(heard, now, self.limits.stale_after_ms)
    }

    /// Whether there is room for so many series more, which is then taken.
    fn reserve(&self, more: usize, now: Timestamp) -> bool {
        let mut kept = self.kept();
        let has_room = |kept: &Kept| kept.series + more <= self.limits.series_max;
        // A look at all streams for each point that is refused would be a way to stop the server.
        if !has_room(&kept) && is_past(kept.swept, now, self.limits.stale_after_ms / 16) {
            self.sweep(&mut kept, now);
        }
        let has_room = has_room(&kept);
        kept.series += if has_room { more } else { 0 };
        has_room
    }

    fn sweep(&self, kept: &mut Kept, now: Timestamp) {
        let mut freed = 0;
        kept.streams.retain(|_, (stream, heard)| {
            let is_stale = self.is_stale(*heard, now);
            freed += if is_stale { stream.series() } else { 0 };
            !is_stale
        });
        kept.series -= freed;
        kept.swept = now;
    }
}

impl Changes {
    /// None yet. The turn of all lanes that the request needs is held.
    pub fn new(streams: &Arc<Streams>, now: Timestamp) -> Changes {
        Changes {
            streams: Arc::clone(streams),
            now,
            changed: HashMap::default(),
            reserved: 0,
            counts: HashMap::default(),
        }
    }

    /// Adds a delta to its stream. `last` is the last sample that the store has of one that is not [known](Changes::knows).
    ///
    /// # Errors
    /// The delta is not taken.
    pub fn add(
        &mut self,
        id: Fingerprint,
        during: During,
        delta: Amount,
        last: Option<Sample>,
    ) -> Result<(Stream, Added), DeltaError> {
        let added = self.try_add(id, during, delta, last);
        let outcome = match &added {
            Ok((_, Added::Began)) => "began",
            Ok((_, Added::Resumed)) => "resumed",
            Ok((_, Added::Next)) => "added",
            Ok((_, Added::Gap)) => "gap",
            Ok((_, Added::Overlap)) => "overlap",
            Ok((_, Added::Replaced)) => "replaced",
            Err(DeltaError::Dropped(Dropped::Old)) => "old",
            Err(DeltaError::Dropped(Dropped::OlderStart)) => "older_start",
            Err(DeltaError::Dropped(Dropped::Overflow)) => "overflow",
            Err(DeltaError::Future) => "future",
            Err(DeltaError::Limit { .. }) => "limit",
        };
        *self.counts.entry(outcome).or_default() += 1;
        added
    }

    fn try_add(
        &mut self,
        id: Fingerprint,
        during: During,
        delta: Amount,
        last: Option<Sample>,
    ) -> Result<(Stream, Added), DeltaError> {
        if during.end_ms() > self.now + FUTURE_MS_MAX {
            return Err(DeltaError::Future);
        }
        let known = self.get(id);
        let before = known.as_ref().map_or(0, Stream::series);
        let (stream, added) = match known {
            None => Stream::begin(during, delta, last)?,
            Some(mut stream) => {
                let added = stream.add(during, delta)?;
                (stream, added)
            }
        };
        let more = stream.series().saturating_sub(before);
        if more > 0 {
            if !self.streams.reserve(more, self.now) {
                return Err(DeltaError::Limit { series_max: self.streams.limits.series_max });
            }
            self.reserved += more;
        }
        self.changed.insert(id, Some(stream.clone()));
        Ok((stream, added))
    }

    /// Whether a stream is known, or is known to have ended: otherwise the store may know more.
    pub fn knows(&self, id: Fingerprint) -> bool {
        self.changed.contains_key(&id) || self.streams.has(id, self.now)
    }

    /// Ends a stream, as its sender says; returns it where it is known.
    pub fn end(&mut self, id: Fingerprint) -> Option<Stream> {
        let stream = self.get(id);
        self.changed.insert(id, None);
        stream
    }

    /// A stream as it is now.
    pub fn get(&self, id: Fingerprint) -> Option<Stream> {
        self.changed.get(&id).cloned().unwrap_or_else(|| self.streams.get(id, self.now))
    }

    /// Takes the changes over: the store has the request.
    pub fn commit(mut self) {
        for (outcome, points) in &self.counts {
            telemetry::OTLP_DELTA_POINTS.with_label_values(&[outcome]).inc_by(*points);
        }
        let changed = std::mem::take(&mut self.changed);
        let mut kept = self.streams.kept();
        kept.series -= self.reserved;
        for (id, stream) in changed {
            let series = stream.as_ref().map_or(0, Stream::series);
            let before = match stream {
                Some(stream) => kept.streams.insert(id, (stream, self.now)),
                None => kept.streams.remove(&id),
            };
            kept.series += series;
            kept.series -= before.map_or(0, |(before, _)| before.series());
        }
        if is_past(kept.swept, self.now, self.streams.limits.stale_after_ms) {
            self.streams.sweep(&mut kept, self.now);
        }
        telemetry::OTLP_DELTA_SERIES.set(i64::try_from(kept.series).unwrap_or(i64::MAX));
        drop(kept);
        self.reserved = 0;
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        if self.reserved > 0 {
            self.streams.kept().series -= self.reserved;
        }
    }
}

#[cfg(test)]
#[path = "../tests/streams.rs"]
mod tests;
