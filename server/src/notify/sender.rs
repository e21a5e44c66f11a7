//! Sends what is due, with one worker for each receiver, so that a dead one holds up nobody else.

use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::config::{Destination, Receiver};
use super::group::Notice;
use super::queue::{self, Waiting};
use super::{Notifier, smtp, webhook};
use crate::clock::Clock;
use crate::series::Timestamp;
use crate::store::control::ControlError;
use crate::telemetry;

/// Time that one attempt may take, connecting included.
const ATTEMPT_MAX: Duration = Duration::from_secs(30);
/// First pause after a failure; it doubles with every further one.
const PAUSE_FIRST_MS: i64 = 1_000;
/// Longest pause.
const PAUSE_MAX_MS: i64 = 300_000;
/// A notice that nobody took for this long is given up: by then it says nothing of the present.
const AGE_MAX_MS: i64 = 24 * 3_600_000;
/// Pause after the control database failed, and the longest sleep without a look at the clock.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Why a notice was not delivered.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The receiver, its address or a file of ours is not as it should be; later it may be.
    #[error("{0}")]
    Transient(String),
    /// The receiver will never take it.
    #[error("{0}")]
    Permanent(String),
}

impl SendError {
    /// Whether another attempt makes sense.
    pub fn is_transient(&self) -> bool {
        matches!(self, SendError::Transient(_))
    }
}

impl Notifier {
    /// Sends until cancelled. An attempt under way is then broken off; its notice stays and is sent again under the same id.
    pub async fn run(self: Arc<Self>, cancel: CancellationToken, clock: Clock) {
        let mut workers = JoinSet::new();
        for receiver in self.config.receivers.clone() {
            workers.spawn(Arc::clone(&self).serve(receiver, cancel.clone(), clock.clone()));
        }
        while workers.join_next().await.is_some() {}
    }

    async fn serve(self: Arc<Self>, receiver: Receiver, cancel: CancellationToken, clock: Clock) {
        let seed = receiver.name.bytes().fold(self.seed, |seed, byte| seed.rotate_left(8) ^ u64::from(byte));
        let mut rng = StdRng::seed_from_u64(seed);
        while !cancel.is_cancelled() {
            let worked = self.turn(&receiver, &mut rng, &clock);
            let pause = tokio::select! {
                () = cancel.cancelled() => return,
                pause = worked => pause,
            };
            let pause = match pause {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(receiver = receiver.name, %error, "the queue of notices cannot be used");
                    LOOK_AGAIN
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.woken(&receiver.name) => {}
            }
        }
    }

    async fn woken(&self, receiver: &str) {
        match self.wakers.get(receiver) {
            Some(waker) => waker.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Tries the next notice if it is due; says how long to wait then.
    async fn turn(
        self: &Arc<Self>,
        receiver: &Receiver,
        rng: &mut StdRng,
        clock: &Clock,
    ) -> Result<Duration, ControlError> {
        let name = receiver.name.clone();
        let Some(waiting) = self.blocking(move |control| queue::next(control, &name)).await? else {
            return Ok(LOOK_AGAIN);
        };
        let ahead_ms = waiting.next_at - clock();
        // Further ahead than any pause: the clock was set back, and the notice has waited long enough.
        if ahead_ms > 0 && ahead_ms <= PAUSE_MAX_MS {
            return Ok(Duration::from_millis(ahead_ms as u64).min(LOOK_AGAIN));
        }
        let sent = match tokio::time::timeout(ATTEMPT_MAX, self.send(receiver, &waiting.notice)).await {
            Ok(sent) => sent,
            Err(_) => Err(SendError::Transient(format!("no answer within {ATTEMPT_MAX:?}"))),
        };
        let now = clock();
        let verdict = verdict(&waiting, sent.as_ref().err(), now, rng);
        report(receiver, &waiting, sent.as_ref().err(), verdict);
        let id = waiting.notice.id;
        self.blocking(move |control| match verdict {
            Verdict::Retried { next_at } => queue::postpone(control, &id, next_at),
            Verdict::Sent | Verdict::Refused | Verdict::Expired => queue::done(control, &id),
        })
        .await?;
        Ok(Duration::ZERO)
    }

    async fn send(&self, receiver: &Receiver, notice: &Notice) -> Result<(), SendError> {
        match &receiver.destination {
            Destination::Webhook(target) => webhook::send(target, notice, &self.config.external_url).await,
            Destination::Email(target) => smtp::send(target, notice, &self.config.external_url).await,
        }
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        body: impl FnOnce(&crate::store::control::Control) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, ControlError> {
        let control = Arc::clone(&self.control);
        let done = tokio::task::spawn_blocking(move || body(&control)).await;
        done.expect("the closures above do not panic, and blocking tasks are not cancelled")
    }
}

/// What becomes of a notice after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Sent,
    Retried { next_at: Timestamp },
    Refused,
    Expired,
}

fn verdict(waiting: &Waiting, error: Option<&SendError>, now: Timestamp, rng: &mut StdRng) -> Verdict {
    match error {
        None => Verdict::Sent,
        Some(error) if !error.is_transient() => Verdict::Refused,
        Some(_) if now - waiting.notice.created_at >= AGE_MAX_MS => Verdict::Expired,
        Some(_) => Verdict::Retried { next_at: now + pause_ms(waiting.attempts, rng) },
    }
}

/// Half of the pause is fixed, half is chance: receivers that come back are not met by all at once.
fn pause_ms(attempts: u32, rng: &mut StdRng) -> i64 {
    let full = PAUSE_FIRST_MS.saturating_mul(1 << attempts.min(20)).min(PAUSE_MAX_MS);
    full / 2 + rng.gen_range(0..=full / 2)
}

fn report(receiver: &Receiver, waiting: &Waiting, error: Option<&SendError>, verdict: Verdict) {
    let outcome = match verdict {
        Verdict::Sent => "sent",
        Verdict::Retried { .. } => "retried",
        Verdict::Refused => "refused",
        Verdict::Expired => "expired",
    };
    telemetry::NOTICES.with_label_values(&[receiver.name.as_str(), outcome]).inc();
    let (name, id, attempts) = (&receiver.name, &waiting.notice.id, waiting.attempts + 1);
    match (verdict, error) {
        (Verdict::Retried { .. }, Some(error)) => {
            tracing::warn!(receiver = name, notice = id, attempts, %error, "notice will be tried again");
        }
        (Verdict::Refused | Verdict::Expired, Some(error)) => {
            tracing::error!(receiver = name, notice = id, attempts, %error, outcome, "notice given up");
        }
        _ => tracing::info!(receiver = name, notice = id, attempts, "notice sent"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_bounds() {
        let mut rng = StdRng::seed_from_u64(1);
        for attempts in 0..40 {
            let full = (1000i64 << attempts.min(20)).min(300_000);
            let pause = pause_ms(attempts, &mut rng);
            assert!((full / 2..=full).contains(&pause), "{attempts}: {pause}");
        }
    }

    #[test]
    fn a_notice_is_given_up_after_a_day_or_when_refused() {
        let mut rng = StdRng::seed_from_u64(1);
        let notice = Notice {
            id: String::new(),
            receiver: String::new(),
            group_key: String::new(),
            group_labels: std::collections::BTreeMap::new(),
            alerts: Vec::new(),
            truncated: 0,
            created_at: 0,
        };
        let waiting = Waiting { notice, attempts: 3, next_at: 0 };
        let transient = SendError::Transient("away".to_owned());
        let permanent = SendError::Permanent("no".to_owned());
        assert_eq!(verdict(&waiting, None, 1, &mut rng), Verdict::Sent);
        assert_eq!(verdict(&waiting, Some(&permanent), 1, &mut rng), Verdict::Refused);
        assert_eq!(verdict(&waiting, Some(&transient), AGE_MAX_MS, &mut rng), Verdict::Expired);
        assert!(
            matches!(verdict(&waiting, Some(&transient), 1, &mut rng), Verdict::Retried { next_at } if next_at > 4_000)
        );
    }
}
