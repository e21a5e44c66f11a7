//! How fast a backlog goes out: the server's answer says how long to wait before the next batch, this file what that means for each
//! class. Order within a class never changes. Pure.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::protocol::Class;

/// Longest wait between two batches of a backlog that the server may ask for.
const PACE_MAX: Duration = Duration::from_secs(60);
/// While log lines wait too, metrics leave them three turns of four. They are never held up for good: whoever logs without end would
/// else lose all samples.
const METRICS_BEHIND_LOGS: u32 = 4;

/// Batches that wait in the spool, by class in the order of [`Class::ALL`].
pub type Pending = [u64; 3];

/// How long a class waits before its next batch, after the server took one and asked for `pace` between them. Answers never wait:
/// runs depend on them, and the spool holds few. The wait is spread by a quarter to both sides, so that agents which were
/// answered together do not come together.
pub fn wait(class: Class, pace: Duration, pending: Pending, rng: &mut StdRng) -> Duration {
    let waits = |class: Class| pending[super::sender::place(class)] > 0;
    if class == Class::Answers || !waits(class) || pace.is_zero() {
        return Duration::ZERO;
    }
    let turns = if class == Class::Metrics && waits(Class::Logs) { METRICS_BEHIND_LOGS } else { 1 };
    (pace.min(PACE_MAX) * turns).mul_f64(rng.gen_range(0.75..=1.25))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn mean_ms(class: Class, pace_ms: u64, pending: Pending) -> u64 {
        let mut rng = StdRng::seed_from_u64(1);
        let all: Duration = (0..4_000).map(|_| wait(class, Duration::from_millis(pace_ms), pending, &mut rng)).sum();
        // To the nearest hundred: the spread is even.
        (all.as_millis() as u64 / 4_000 + 50) / 100 * 100
    }

    #[test]
    fn answers_go_first_then_logs_then_metrics() {
        let all = [5, 5, 5];
        assert_eq!(Class::ALL.map(|class| mean_ms(class, 1_000, all)), [0, 1_000, 4_000]);
        assert_eq!(mean_ms(Class::Metrics, 1_000, [5, 0, 5]), 1_000);
        assert_eq!(mean_ms(Class::Metrics, 1_000, [5, 5, 0]), 0, "the next one is of now");
        assert_eq!(mean_ms(Class::Logs, 0, all), 0);
        assert!(mean_ms(Class::Logs, u64::MAX, all) <= 61_000, "whatever the server asks");
    }

    #[test]
    fn waits_are_spread() {
        let mut rng = StdRng::seed_from_u64(2);
        let waits: Vec<u128> =
            (0..100).map(|_| wait(Class::Logs, Duration::from_secs(1), [0, 1, 0], &mut rng).as_millis()).collect();
        let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!((750..800).contains(least) && (1_200..=1_250).contains(most), "{least} to {most}");
    }
}
