//! How far this host's clock is from the server's, as the requests of the stream show. The way there and back is taken out: what is
//! left is wrong by half the time on the network at most, and of the last requests the quickest one speaks. Pure.

use std::collections::VecDeque;

use petrel_models::Timestamp;

/// Requests that the quickest one is looked for among: a minute or two of rounds.
const MEASURED_MAX: usize = 8;

/// When a request was sent and answered by this host's clock, and received and answered by the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// This host: the request left.
    pub sent: Timestamp,
    /// The server: the request came.
    pub received: Timestamp,
    /// The server: the answer left.
    pub answered: Timestamp,
    /// This host: the answer came. By the time that passed since `sent`, so that a clock that is set meanwhile does not count.
    pub returned: Timestamp,
}

/// The last exchanges.
#[derive(Debug, Default)]
pub struct ClockSkew {
    measured: VecDeque<Exchange>,
}

impl Exchange {
    /// This host's clock less the server's, in milliseconds.
    fn skew_ms(&self) -> f64 {
        (self.sent as f64 - self.received as f64).midpoint(self.returned as f64 - self.answered as f64)
    }

    /// Time on the network, both ways.
    fn network_ms(&self) -> i64 {
        let (here, there) = (self.returned.saturating_sub(self.sent), self.answered.saturating_sub(self.received));
        here.saturating_sub(there).max(0)
    }
}

impl ClockSkew {
    /// Takes one exchange. One that jumps away from all others ends them: a clock was set.
    pub fn take(&mut self, exchange: Exchange) {
        let is_near = |other: &Exchange| {
            let doubt = 1_000 + exchange.network_ms().max(other.network_ms());
            (exchange.skew_ms() - other.skew_ms()).abs() <= doubt as f64
        };
        if !self.measured.iter().any(is_near) {
            self.measured.clear();
        }
        if self.measured.len() >= MEASURED_MAX {
            self.measured.pop_front();
        }
        self.measured.push_back(exchange);
    }

    /// Seconds that this host's clock is ahead of the server's; negative where it is behind, `None` before the first answer.
    pub fn seconds(&self) -> Option<f64> {
        let quickest = self.measured.iter().rev().min_by_key(|exchange| exchange.network_ms())?;
        Some(quickest.skew_ms() / 1_000.0)
    }
}

/// Reads the server's two times, `RECEIVED,ANSWERED` in milliseconds.
pub fn parse_times(header: &str) -> Option<(Timestamp, Timestamp)> {
    let (received, answered) = header.split_once(',')?;
    Some((received.parse().ok()?, answered.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An exchange with a clock that is ahead by `ahead`, so many milliseconds there, at the server, and back.
    fn exchange(at: i64, ahead: i64, [there, work, back]: [i64; 3]) -> Exchange {
        let received = at + there;
        Exchange { sent: at + ahead, received, answered: received + work, returned: at + ahead + there + work + back }
    }

    #[test]
    fn the_way_and_the_servers_work_are_taken_out() {
        let mut skew = ClockSkew::default();
        assert_eq!(skew.seconds(), None);
        skew.take(exchange(1_000_000, 2_500, [20, 900, 20]));
        assert_eq!(skew.seconds(), Some(2.5));
        skew.take(exchange(1_010_000, 2_500, [400, 5, 20]));
        assert_eq!(skew.seconds(), Some(2.5), "the slow one does not speak");
        for n in 2..12 {
            skew.take(exchange(1_000_000 + n * 10_000, 2_600, [30, 5, 10]));
        }
        assert_eq!(skew.seconds(), Some(2.59), "what is long ago does not either");
    }

    #[test]
    fn a_clock_that_is_set_counts_at_once() {
        let mut skew = ClockSkew::default();
        for n in 0..5 {
            skew.take(exchange(n * 10_000, -3_600_000, [1, 1, 1]));
        }
        assert_eq!(skew.seconds(), Some(-3_600.0));
        skew.take(exchange(50_000, 0, [10, 1, 10]));
        assert_eq!(skew.seconds(), Some(0.0));
    }

    #[test]
    fn times_are_read_or_left() {
        assert_eq!(parse_times("1700000000000,1700000000005"), Some((1_700_000_000_000, 1_700_000_000_005)));
        for wrong in ["", "1", "1,", "a,b", "1,2,3", "99999999999999999999,1"] {
            assert_eq!(parse_times(wrong), None, "{wrong}");
        }
        let mut skew = ClockSkew::default();
        let (sent, received) = (i64::MAX, i64::MIN);
        skew.take(Exchange { sent, received, answered: i64::MAX, returned: i64::MIN });
        skew.take(Exchange { sent: 0, received: 0, answered: 0, returned: 0 });
        assert!(skew.seconds().is_some());
    }
}
