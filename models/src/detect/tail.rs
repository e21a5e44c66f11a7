//! From a standardized distance to the probability that a normal sample lies this far out, learned from the series itself.
//!
//! A histogram of past distances gives the empirical tail; beyond the last ten distances seen, a power law continues it.
//! The distances need not be normal, only of one distribution over time: the calibration is by rank.

use serde::{Deserialize, Serialize};

/// Bins of the histogram: the first reaches up to [`EDGE_FIRST`], the last has no upper end.
const BINS: usize = 32;
/// Upper end of the first bin: half a mean absolute deviation, where nothing is strange in any distribution.
const EDGE_FIRST: f64 = 0.5;
/// Bins of a quarter octave, up to a distance of 32; wider ones would misjudge a normal tail by more than a tenth.
const FINE_BINS: usize = 24;
/// Bins of an octave follow, up to 2^12, so that the jumps of nearly constant series keep an order.
const FINE_END: f64 = 32.0;
/// Weight of an ordinary distance. Distances deep in a strange episode weigh one: a long outage must not look normal.
const WEIGHT_FULL: u16 = 4;
/// When the weights sum up to this all are halved: half of them stem from the last 7,500 samples (21 h at 10 s).
const WEIGHT_SUM_MAX: u32 = 60_000;
/// Above this many distances the empirical tail is trusted; it then errs by about a third (1/sqrt(10)).
const TRUSTED: f64 = 10.0;
/// The tail's shape (1 / exponent of the power law) is shrunk towards this: an exponent of 4, heavier than most metrics.
const SHAPE_PRIOR: f64 = 0.25;
/// How many distances the prior shape counts for.
const SHAPE_PRIOR_WEIGHT: f64 = 8.0;
/// Where a bin's probability stays above this, its shape within the bin matters to nobody.
const LINEAR_MIN: f64 = 0.05;
/// Probabilities are not told below this: no series is watched for long enough to know.
const PROBABILITY_MIN: f64 = 1e-9;

/// The tail of one series' distances. 68 bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    weights: [u16; BINS],
    sum: u32,
}

impl Default for Tail {
    fn default() -> Tail {
        Tail { weights: [0; BINS], sum: 0 }
    }
}

impl Tail {
    /// Number of distances that the tail stands on.
    pub fn count(&self) -> f64 {
        f64::from(self.sum) / f64::from(WEIGHT_FULL)
    }

    /// Takes in a distance (0 or more). `discounted` ones weigh a quarter.
    pub fn add(&mut self, distance: f64, discounted: bool) {
        let weight = if discounted { 1 } else { WEIGHT_FULL };
        self.weights[bin(distance)] += weight;
        self.sum += u32::from(weight);
        if self.sum >= WEIGHT_SUM_MAX {
            self.weights.iter_mut().for_each(|weight| *weight = weight.div_ceil(2));
            self.sum = self.weights.iter().map(|&weight| u32::from(weight)).sum();
        }
    }

    /// Probability that a normal distance is `distance` or more. In `[1e-9, 1]`, falling in `distance`. O(bins).
    ///
    /// A series whose distances were nearly all zero says nothing about how far a change goes: then the rule of
    /// succession stands, (seen + 1) / (all + 2).
    pub fn probability(&self, distance: f64) -> f64 {
        if distance < EDGE_FIRST {
            return 1.0;
        }
        let all = self.count();
        let moved = all - f64::from(self.weights[0]) / f64::from(WEIGHT_FULL);
        let i = bin(distance);
        let beyond_next: u32 = self.weights[i + 1..].iter().map(|&weight| u32::from(weight)).sum();
        if moved < TRUSTED {
            let beyond = beyond_next + u32::from(self.weights[i]);
            return (f64::from(beyond) / f64::from(WEIGHT_FULL) + 1.0) / (all + 2.0);
        }
        // With so many beyond the next edge the trusted end is farther out: the usual case, without a look for it.
        if f64::from(beyond_next) / f64::from(WEIGHT_FULL) < TRUSTED {
            let (edge_trusted, beyond_trusted) = self.trusted_end();
            if distance >= edge_trusted {
                let exponent = 1.0 / self.shape(edge_trusted, beyond_trusted);
                let at_edge = (beyond_trusted + 0.5) / (all + 1.0);
                return (at_edge * (distance / edge_trusted).powf(-exponent)).clamp(PROBABILITY_MIN, 1.0);
            }
        }
        self.interpolated(distance, i, beyond_next)
    }

    /// The highest lower edge of a bin with at least [`TRUSTED`] distances at or above it, and their number.
    fn trusted_end(&self) -> (f64, f64) {
        let mut beyond = 0.0;
        for i in (1..BINS).rev() {
            beyond += f64::from(self.weights[i]) / f64::from(WEIGHT_FULL);
            if beyond >= TRUSTED {
                return (EDGES[i], beyond);
            }
        }
        (EDGE_FIRST, beyond.max(1.0))
    }

    /// Hill's estimate of the tail's shape over the distances beyond `edge`, shrunk towards [`SHAPE_PRIOR`].
    /// *Source:* Hill 1975, «A simple general approach to inference about the tail of a distribution».
    fn shape(&self, edge: f64, beyond: f64) -> f64 {
        let logs: f64 = (1..BINS)
            .filter(|&i| EDGES[i] >= edge)
            .map(|i| f64::from(self.weights[i]) / f64::from(WEIGHT_FULL) * (middle(i) / edge).ln())
            .sum();
        (logs + SHAPE_PRIOR * SHAPE_PRIOR_WEIGHT) / (beyond + SHAPE_PRIOR_WEIGHT)
    }

    /// Between the edges of a bin the logarithm of the probability falls in a straight line; above [`LINEAR_MIN`] the probability
    /// itself does, which saves four logarithms for nineteen of twenty samples and agrees at the edges.
    fn interpolated(&self, distance: f64, i: usize, beyond_next: u32) -> f64 {
        let all = self.count() + 1.0;
        let probability = |beyond: u32| (f64::from(beyond) / f64::from(WEIGHT_FULL) + 0.5) / all;
        let (upper, lower) = (probability(beyond_next + u32::from(self.weights[i])), probability(beyond_next));
        let (from, to) = (EDGES[i], EDGES[i + 1]);
        if lower > LINEAR_MIN {
            let share = (distance - from) / (to - from);
            return (upper + (lower - upper) * share.clamp(0.0, 1.0)).min(1.0);
        }
        let share = (distance / from).ln() / (to / from).ln();
        (upper.ln() + (lower.ln() - upper.ln()) * share.clamp(0.0, 1.0)).exp().min(1.0)
    }
}

/// The bin of a distance, from the exponent and the leading quarter of the float itself.
fn bin(distance: f64) -> usize {
    if distance < EDGE_FIRST {
        return 0;
    }
    let octave = |ratio: f64| (ratio.to_bits() >> 52) as usize - 1023;
    if distance < FINE_END {
        let ratio = distance / EDGE_FIRST;
        let octaves = octave(ratio);
        let rest = ratio / (1u64 << octaves) as f64;
        let quarters = ROOTS[1..].iter().filter(|root| rest >= **root).count();
        1 + octaves * 4 + quarters
    } else {
        // The jump of a constant series may be infinite, whose exponent is the largest.
        (octave(distance / FINE_END) + 1 + FINE_BINS).min(BINS - 1)
    }
}

/// Two to the power of no, one, two and three quarters.
const ROOTS: [f64; 4] = [1.0, 1.189_207_115_002_721, std::f64::consts::SQRT_2, 1.681_792_830_507_429];

/// Lower edges of the bins, and one more; that of the first, which begins at 0, is only for interpolation.
const EDGES: [f64; BINS + 1] = edges();

const fn edges() -> [f64; BINS + 1] {
    let mut edges = [EDGE_FIRST / ROOTS[1]; BINS + 1];
    let mut octave = EDGE_FIRST;
    let mut i = 1;
    while i <= BINS {
        if i <= FINE_BINS {
            edges[i] = octave * ROOTS[(i - 1) % 4];
            if i % 4 == 0 {
                octave *= 2.0;
            }
        } else {
            edges[i] = octave;
            octave *= 2.0;
        }
        i += 1;
    }
    edges
}

fn middle(i: usize) -> f64 {
    if i + 1 < BINS { (EDGES[i] * EDGES[i + 1]).sqrt() } else { EDGES[i] * 1.4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_and_bins_agree() {
        for (i, edge) in EDGES.into_iter().enumerate().take(BINS).skip(1) {
            assert_eq!(bin(edge * 1.0001), i, "above edge {i}");
            assert_eq!(bin(edge * 0.9999), i - 1, "below edge {i}");
        }
        assert_eq!(bin(f64::MAX), BINS - 1);
    }

    #[test]
    fn the_probability_falls_with_the_distance_and_stays_in_range() {
        let mut tail = Tail::default();
        for i in 0..3000 {
            tail.add(-(1.0 - (f64::from(i) + 0.5) / 3000.0).ln(), false);
        }
        let mut last = 1.0;
        for i in 0..400 {
            let p = tail.probability(f64::from(i) * 0.05);
            assert!(p <= last + 1e-12 && p > 0.0, "at {i}: {p} after {last}");
            last = p;
        }
        // Distances drawn from an exponential distribution: P(d >= 3) is e^-3.
        let p = tail.probability(3.0);
        assert!((p / (-3f64).exp() - 1.0).abs() < 0.1, "{p}");
    }

    #[test]
    fn a_series_that_never_moved_follows_the_rule_of_succession() {
        let mut tail = Tail::default();
        for _ in 0..998 {
            tail.add(0.0, false);
        }
        assert!((tail.probability(1e6) - 0.001).abs() < 1e-12);
        assert_eq!(tail.probability(0.0), 1.0);
    }
}
