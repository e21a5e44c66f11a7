//! Accrual failure detection of one path: how surprising is the present silence, given how signs of life used to come?
//!
//! *Source:* N. Hayashibara, X. Défago, R. Yared, T. Katayama, «The φ accrual failure detector», SRDS 2004, section 4: with
//! the gaps between arrivals taken as normal, φ(t) = −log10 P(gap > t). Beyond the paper, a pause is allowed on top, so that
//! a lost datagram or two is no news, and the deviation has a floor, because a quiet network would make it tiny.

use std::collections::VecDeque;

use crate::Timestamp;

/// Gaps remembered: the paper uses 1,000; fewer follow a change of rhythm within minutes and take a tenth of the memory.
const WINDOW: usize = 100;

/// What is known of a path before the first gap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AccrualConfig {
    /// Expected time between two signs of life, in milliseconds; above 0.
    pub interval_ms: f64,
    /// Silence allowed beyond the expected gap, in milliseconds.
    pub pause_ms: f64,
    /// Longest gap that is learnt from; longer ones are outages and say nothing about the rhythm.
    pub learn_ms_max: f64,
}

/// The detector of one path. `now` may stand still or go back a little; it never makes φ negative or NaN.
#[derive(Debug, Clone)]
pub struct Accrual {
    config: AccrualConfig,
    gaps_ms: VecDeque<f32>,
    mean_ms: f64,
    deviation_ms: f64,
    last: Timestamp,
}

impl Accrual {
    /// A path whose first sign of life came at `now`.
    pub fn new(config: AccrualConfig, now: Timestamp) -> Accrual {
        let interval_ms = config.interval_ms.max(1.0);
        let mut accrual = Accrual {
            config: AccrualConfig { interval_ms, ..config },
            gaps_ms: VecDeque::new(),
            mean_ms: 0.0,
            deviation_ms: 0.0,
            last: now,
        };
        // Two gaps around the expected one: a rhythm with a deviation of a quarter, soon outweighed by what is seen.
        accrual.learn(interval_ms * 0.75);
        accrual.learn(interval_ms * 1.25);
        accrual
    }

    /// A sign of life at `now`. O(1) amortised in the number of signs, O(100) at most.
    pub fn heard(&mut self, now: Timestamp) {
        let gap_ms = (now - self.last) as f64;
        if gap_ms < 0.0 {
            return;
        }
        if gap_ms <= self.config.learn_ms_max {
            self.learn(gap_ms);
        }
        self.last = now;
    }

    /// A sign of life at `now` that is no part of the rhythm: nothing is learnt of it.
    pub fn seen(&mut self, now: Timestamp) {
        self.last = self.last.max(now);
    }

    /// When the last sign of life came.
    pub fn last(&self) -> Timestamp {
        self.last
    }

    /// The rhythm that the path was made with, in milliseconds.
    pub fn interval_ms(&self) -> f64 {
        self.config.interval_ms
    }

    /// Takes `ms` of silence before `now` as not having been: nobody was listening then. What was heard since stays.
    pub fn forgive(&mut self, ms: Timestamp, now: Timestamp) {
        self.last = self.last.saturating_add(ms.max(0)).min(self.last.max(now));
    }

    /// Nothing was heard after `latest`: a clock that was set back must not hide the silence until then.
    pub fn not_after(&mut self, latest: Timestamp) {
        self.last = self.last.min(latest);
    }

    /// φ at `now`: 0 right after a sign of life, 1 where one path in ten would be silent for so long, 8 one in 10⁸.
    pub fn phi(&self, now: Timestamp) -> f64 {
        let silence_ms = (now - self.last).max(0) as f64;
        -log10_tail((silence_ms - self.mean_ms - self.config.pause_ms) / self.deviation_ms)
    }

    /// The silence at which φ reaches `phi`, in milliseconds. Range of `phi`: 0.5 to 100.
    pub fn silence_ms_allowed(&self, phi: f64) -> f64 {
        let (mut low, mut high) = (0.0f64, 25.0f64);
        // 25 standard deviations are φ 137; 40 halvings leave less than a nanosecond.
        for _ in 0..40 {
            let middle = f64::midpoint(low, high);
            if -log10_tail(middle) < phi { low = middle } else { high = middle }
        }
        self.mean_ms + self.config.pause_ms + high * self.deviation_ms
    }

    fn learn(&mut self, gap_ms: f64) {
        if self.gaps_ms.len() == WINDOW {
            self.gaps_ms.pop_front();
        }
        self.gaps_ms.push_back(gap_ms as f32);
        let n = self.gaps_ms.len() as f64;
        self.mean_ms = self.gaps_ms.iter().map(|gap| f64::from(*gap)).sum::<f64>() / n;
        let squares: f64 = self.gaps_ms.iter().map(|gap| (f64::from(*gap) - self.mean_ms).powi(2)).sum();
        // A floor of a tenth of the rhythm: below it, the scheduling of a busy host would count as a surprise.
        self.deviation_ms = (squares / n).sqrt().max(self.config.interval_ms / 10.0);
    }
}

/// log10 of the upper tail of the standard normal distribution at `z`.
fn log10_tail(z: f64) -> f64 {
    if z < 5.0 {
        return (0.5 * statrs::function::erf::erfc(z / std::f64::consts::SQRT_2)).log10();
    }
    // The asymptotic series: erfc underflows at z = 38, and from 5 on three terms are exact to 10⁻³ in φ.
    let square = z * z;
    let series = 1.0 - 1.0 / square + 3.0 / (square * square);
    let ln = -square / 2.0 - (z * (2.0 * std::f64::consts::PI).sqrt()).ln() + series.ln();
    ln / std::f64::consts::LN_10
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: AccrualConfig = AccrualConfig { interval_ms: 1_000.0, pause_ms: 0.0, learn_ms_max: 10_000.0 };

    fn steady(gap: Timestamp, n: Timestamp) -> Accrual {
        let mut accrual = Accrual::new(CONFIG, 0);
        for beat in 1..=n {
            accrual.heard(beat * gap);
        }
        accrual
    }

    /// Tail probabilities from tables of the normal distribution (Abramowitz and Stegun, table 26.1 and 26.2).
    #[test]
    fn phi_agrees_with_tables_of_the_normal_distribution() {
        for (z, phi) in [
            (0.5, 0.510_69),
            (1.0, 0.799_55),
            (2.0, 1.643_02),
            (4.0, 4.499_34),
            (5.0, 6.542_65),
            (10.0, 23.118_05),
            (20.0, 88.560_1),
        ] {
            assert!((-log10_tail(z) - phi).abs() < 2e-3, "{z}: {}", -log10_tail(z));
        }
    }

    #[test]
    fn silence_is_judged_by_the_rhythm_that_was_seen() {
        let accrual = steady(1_000, 200);
        let last = accrual.last();
        assert!(accrual.phi(last + 900) < 1.0);
        assert!(accrual.phi(last + 2_000) > 8.0);
        let slow = steady(3_000, 200);
        assert!(slow.phi(slow.last() + 3_000) < 1.0, "it has learnt the slower rhythm");
        let allowed = accrual.silence_ms_allowed(8.0);
        assert!((accrual.phi(last + allowed as i64) - 8.0).abs() < 0.1);
    }

    #[test]
    fn outages_are_not_learnt_and_clocks_may_go_back() {
        let mut accrual = steady(1_000, 200);
        let before = accrual.silence_ms_allowed(8.0);
        let last = accrual.last();
        accrual.heard(last + 3_600_000);
        assert_eq!(accrual.silence_ms_allowed(8.0), before);
        accrual.heard(last);
        assert_eq!(accrual.last(), last + 3_600_000);
        assert!(accrual.phi(last) < 1e-6);
        accrual.forgive(60_000, last + 3_660_000);
        assert!(accrual.phi(last + 3_660_000) < 1e-6);
        accrual.forgive(60_000, last + 3_670_000);
        assert_eq!(accrual.last(), last + 3_670_000, "no sign of life lies ahead");
        accrual.not_after(last);
        assert_eq!(accrual.last(), last);
        for ms in 1..=200 {
            accrual.seen(last + ms);
        }
        assert_eq!((accrual.last(), accrual.silence_ms_allowed(8.0)), (last + 200, before));
    }
}
