//! Counters as rates per second. A counter that went down was reset; what it counted across the reset is unknown, so no
//! rate is told for that step.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Remembers the last sample of a counter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    last: Option<(Timestamp, f64)>,
}

impl Rate {
    /// The increase per second since the sample before; `None` for the first sample, after a reset, and for a sample that
    /// is not finite or not later than the last. O(1).
    pub fn step(&mut self, t: Timestamp, v: f64) -> Option<f64> {
        if !v.is_finite() {
            return None;
        }
        let Some((last_t, last_v)) = self.last else {
            self.last = Some((t, v));
            return None;
        };
        if t <= last_t {
            return None;
        }
        self.last = Some((t, v));
        let seconds = (t - last_t) as f64 / 1000.0;
        (v >= last_v).then(|| (v - last_v) / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_repeats_and_nan_give_no_rate() {
        let mut rate = Rate::default();
        let rates: Vec<Option<f64>> = [
            (0, 100.0),
            (10_000, 150.0),
            (10_000, 160.0),
            (20_000, f64::NAN),
            (30_000, 170.0),
            (40_000, 5.0),
            (50_000, 15.0),
        ]
        .into_iter()
        .map(|(t, v)| rate.step(t, v))
        .collect();
        assert_eq!(rates, [None, Some(5.0), None, None, Some(1.0), None, Some(1.0)]);
    }
}
