//! From decoded samples to the store, and what is told of them: who lives, what was stored, what was refused and why.

use std::sync::PoisonError;

use super::Receiver;
use super::refusal::Refusal;
use super::turns::Turn;
use crate::decide::verdict::Event;
use crate::ingest::otlp;
use crate::ingest::problems::Problems;
use crate::store::{Batch, Committed, Mark, RefusedReason};
use crate::telemetry;

impl Receiver {
    /// An agent's batch of metrics was read: it lives and gets through. What becomes of the batch is the server's trouble, a full disk
    /// or full memory, and must not make the fleet look silent. What follows comes at the next tick.
    pub(super) fn heard<T>(&self, read: &Result<T, Refusal>, mark: Option<&Mark>, is_backlog: bool) {
        let has_come = matches!(read, Ok(_) | Err(Refusal::Exhausted(_)));
        let Some(mark) = mark.filter(|_| has_come) else { return };
        let event = Event::Batch { agent: mark.agent.clone(), is_backlog };
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).step(event, (self.clock)());
    }

    /// Commits a batch; an agent's with its `up` and how far its clock is off.
    pub(super) async fn append(&self, mut batch: Batch, clock_offset_ms: Option<i64>) -> Result<Committed, Refusal> {
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
    pub(super) async fn append_deltas(
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

/// Counts what a decoder refused.
pub(super) fn count(problems: &Problems) {
    let over_limit = problems.over_limit();
    for (outcome, samples) in [("malformed", problems.malformed()), ("label_limit", over_limit)] {
        telemetry::INGEST_SAMPLES.with_label_values(&[outcome]).inc_by(samples);
    }
}

/// Names what the store refused: each reason with its number and its first series.
pub(super) fn add_refused(problems: &mut Problems, committed: &Committed) {
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
