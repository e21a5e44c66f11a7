//! What becomes of a request that writes: pure decisions over the remote engine's answers. A refused request is halved, so that one
//! bad sample does not take its neighbours with it; one that failed stays.

use std::ops::Range;
use std::time::Duration;

/// Halvings of one parcel. A single bad sample among 100,000 needs 17; where most is refused, the bound keeps the requests few.
const SPLITS_MAX: u32 = 48;
/// The first pause after a failure; each further one doubles it.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause that we choose.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest pause that the remote engine may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// What the remote engine said of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It has the samples.
    Taken,
    /// It never will.
    Refused,
    /// It may later; `after` is what its `Retry-After` asks for.
    Failed {
        /// Least pause.
        after: Option<Duration>,
    },
}

/// Reads a status. Those that speak of our settings and not of the samples count as failures, because settings can be mended and
/// dropped samples cannot.
pub fn outcome(status: u16, after: Option<Duration>) -> Outcome {
    match status {
        200..=299 => Outcome::Taken,
        401 | 403 | 404 | 405 | 407 | 408 | 421 | 425 | 429 => Outcome::Failed { after },
        400..=499 => Outcome::Refused,
        _ => Outcome::Failed { after },
    }
}

/// What became of samples by one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// So many are there.
    Sent(usize),
    /// So many are given up.
    Refused(usize),
    /// They are tried again in halves.
    Split,
    /// They wait.
    Kept,
}

/// The samples of one parcel on their way, as places in it.
#[derive(Debug)]
pub struct Delivery {
    /// What is not settled, the next part last.
    parts: Vec<Range<usize>>,
    splits_left: u32,
}

impl Delivery {
    /// All samples of a parcel.
    pub fn new(samples: usize) -> Delivery {
        let parts = if samples == 0 { Vec::new() } else { std::iter::once(0..samples).collect() };
        Delivery { parts, splits_left: SPLITS_MAX }
    }

    /// What is to be sent next; `None` when all is settled.
    pub fn next(&self) -> Option<Range<usize>> {
        self.parts.last().cloned()
    }

    /// Takes the answer to [`Delivery::next`].
    pub fn step(&mut self, outcome: Outcome) -> Became {
        let Some(part) = self.parts.pop() else { return Became::Kept };
        match outcome {
            Outcome::Taken => Became::Sent(part.len()),
            Outcome::Refused if part.len() > 1 && self.splits_left > 0 => {
                self.splits_left -= 1;
                let middle = part.start + part.len() / 2;
                self.parts.push(middle..part.end);
                self.parts.push(part.start..middle);
                Became::Split
            }
            Outcome::Refused => Became::Refused(part.len()),
            Outcome::Failed { .. } => {
                self.parts.push(part);
                Became::Kept
            }
        }
    }
}

/// How long to wait after failures in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Something was taken.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The pause after one more failure.
    pub fn pause(&mut self, after: Option<Duration>) -> Duration {
        let ours = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        self.failures += 1;
        ours.max(after.unwrap_or_default().min(RETRY_AFTER_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `count` samples to a remote engine that refuses those of `bad`; returns requests, samples sent, samples refused.
    fn deliver(count: usize, bad: &[usize]) -> (usize, usize, usize) {
        let mut delivery = Delivery::new(count);
        let (mut requests, mut sent, mut refused) = (0, 0, 0);
        while let Some(part) = delivery.next() {
            requests += 1;
            let answer = if bad.iter().any(|at| part.contains(at)) { Outcome::Refused } else { Outcome::Taken };
            match delivery.step(answer) {
                Became::Sent(samples) => sent += samples,
                Became::Refused(samples) => refused += samples,
                Became::Split | Became::Kept => {}
            }
        }
        (requests, sent, refused)
    }

    #[test]
    fn a_bad_sample_takes_no_good_one_with_it_and_the_requests_are_bounded() {
        assert_eq!(deliver(0, &[]), (0, 0, 0));
        assert_eq!(deliver(5_000, &[]), (1, 5_000, 0));
        let (requests, sent, refused) = deliver(5_000, &[4_711]);
        assert_eq!((sent, refused), (4_999, 1));
        assert!(requests < 30, "{requests}");
        let all: Vec<usize> = (0..5_000).collect();
        let (requests, sent, refused) = deliver(5_000, &all);
        assert_eq!((requests, sent, refused), (1 + 2 * SPLITS_MAX as usize, 0, 5_000));
    }

    #[test]
    fn what_failed_stays_and_pauses_grow_to_a_bound() {
        let mut delivery = Delivery::new(3);
        assert_eq!(delivery.step(outcome(503, None)), Became::Kept);
        assert_eq!(delivery.next(), Some(0..3));
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.pause(None).as_millis()).collect();
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(backoff.pause(Some(Duration::from_secs(90))).as_secs(), 90);
        assert_eq!(backoff.pause(Some(Duration::from_secs(90_000))).as_secs(), 300);
        backoff.reset();
        assert_eq!(backoff.pause(None).as_millis(), 500);
    }

    #[test]
    fn settings_that_are_wrong_cost_no_samples() {
        for status in [301, 401, 403, 404, 429, 500, 503] {
            assert_eq!(outcome(status, None), Outcome::Failed { after: None }, "{status}");
        }
        for status in [400, 413, 422] {
            assert_eq!(outcome(status, None), Outcome::Refused, "{status}");
        }
    }
}
