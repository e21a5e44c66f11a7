//! What to do with the oldest batch once the server has answered, or has not: a pure machine, one for each class. It never
//! gives up on a batch that another attempt might deliver, and never holds the class up for one that none will.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

/// First wait after a failure; doubled at each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest wait of our own: a server that is back is found within this.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Wait after the server did not accept our token: only a person can help, and the log should not fill meanwhile.
const UNAUTHORIZED_WAIT: Duration = Duration::from_secs(60);
/// Longest `Retry-After` that is obeyed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(600);

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The server answered.
    Answered {
        /// HTTP status.
        status: u16,
        /// What `Retry-After` asked for.
        retry_after: Option<Duration>,
    },
    /// No answer: connection, TLS or time-out.
    Unreachable,
}

/// What to do with the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The server has it: forget it.
    Advance,
    /// No attempt will ever deliver it: count and forget it.
    Refuse,
    /// Try the same batch again after this long.
    Retry {
        /// How long.
        after: Duration,
        /// Why.
        because: RetryReason,
    },
}

/// Why a batch is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryReason {
    /// The server could not be reached.
    Unreachable,
    /// The server cannot take it now: overload, disk full, restart.
    Busy,
    /// The server does not accept this agent's token.
    Unauthorized,
    /// What answers there is not a Petrel server of this version.
    Unexpected,
}

/// One class's place between attempts.
#[derive(Debug)]
pub struct Delivery {
    failures: u32,
    rng: StdRng,
}

impl Delivery {
    /// Starts without failures; `rng` spreads the attempts of a fleet.
    pub fn new(rng: StdRng) -> Delivery {
        Delivery { failures: 0, rng }
    }

    /// Takes how the last attempt ended.
    pub fn step(&mut self, reply: &Reply) -> Next {
        match *reply {
            Reply::Answered { status: 200..=299, .. } => {
                self.failures = 0;
                Next::Advance
            }
            // Malformed, too large, not understood: the same bytes would be answered the same way.
            Reply::Answered { status: 400 | 413 | 415 | 422, .. } => {
                self.failures = 0;
                Next::Refuse
            }
            Reply::Answered { status: 401 | 403, .. } => {
                self.failures = 0;
                Next::Retry { after: self.jittered(UNAUTHORIZED_WAIT), because: RetryReason::Unauthorized }
            }
            Reply::Answered { status: 408 | 429 | 500..=599, retry_after } => {
                let own = self.backoff();
                // Whom the server turned away together must not come back together.
                let asked =
                    |asked: Duration| asked.min(RETRY_AFTER_MAX).mul_f64(self.rng.gen_range(1.0..=1.5)).max(own);
                let after = retry_after.map_or(own, asked);
                Next::Retry { after, because: RetryReason::Busy }
            }
            Reply::Answered { .. } => Next::Retry { after: self.backoff(), because: RetryReason::Unexpected },
            Reply::Unreachable => Next::Retry { after: self.backoff(), because: RetryReason::Unreachable },
        }
    }

    fn backoff(&mut self) -> Duration {
        let doubled = BACKOFF_MIN.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.jittered(doubled.min(BACKOFF_MAX))
    }

    /// Between half of it and all of it.
    fn jittered(&mut self, wait: Duration) -> Duration {
        wait.mul_f64(self.rng.gen_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn answered(status: u16) -> Reply {
        Reply::Answered { status, retry_after: None }
    }

    fn delivery() -> Delivery {
        Delivery::new(StdRng::seed_from_u64(1))
    }

    #[test]
    fn what_each_answer_means() {
        let because = |status| match delivery().step(&answered(status)) {
            Next::Retry { because, .. } => Some(because),
            _ => None,
        };
        assert_eq!(delivery().step(&answered(200)), Next::Advance);
        for status in [400, 413, 415, 422] {
            assert_eq!(delivery().step(&answered(status)), Next::Refuse, "{status}");
        }
        for status in [401, 403] {
            assert_eq!(because(status), Some(RetryReason::Unauthorized));
        }
        for status in [408, 429, 500, 503, 507] {
            assert_eq!(because(status), Some(RetryReason::Busy));
        }
        for status in [301, 404, 405] {
            assert_eq!(because(status), Some(RetryReason::Unexpected), "a wrong server must not cost data");
        }
    }

    #[test]
    fn waits_grow_within_bounds_and_begin_anew_after_success() {
        let mut delivery = delivery();
        let wait = |delivery: &mut Delivery, reply: &Reply| match delivery.step(reply) {
            Next::Retry { after, .. } => after,
            other => panic!("{other:?}"),
        };
        for n in 0..100u32 {
            let after = wait(&mut delivery, &Reply::Unreachable);
            let full = BACKOFF_MIN.saturating_mul(1 << n.min(16)).min(BACKOFF_MAX);
            assert!(after >= full / 2 && after <= full, "{n}: {after:?}");
        }
        delivery.step(&answered(200));
        assert!(wait(&mut delivery, &answered(503)) <= BACKOFF_MIN);
    }

    #[test]
    fn retry_after_is_obeyed_up_to_a_bound() {
        let ask = |seconds| Reply::Answered { status: 429, retry_after: Some(Duration::from_secs(seconds)) };
        let after = |seconds| match delivery().step(&ask(seconds)) {
            Next::Retry { after, .. } => after.as_secs(),
            other => panic!("{other:?}"),
        };
        assert!((30..=45).contains(&after(30)) && (600..=900).contains(&after(86_400)), "spread by a half");
    }
}
