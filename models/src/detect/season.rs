//! The time of day: how far from its mean a series usually is at each hour, learned over days and used only where it helps.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

const HOURS: usize = 24;
const HOUR_MS: i64 = 3_600_000;
/// The season is used after this long: every hour must have been seen twice.
const LEARN_MS: i64 = 48 * HOUR_MS;
/// An hour's mean forgets with this weight per sample: three days at 10 s.
const GAIN_MIN: f32 = 1.0 / 1080.0;
/// The season must make residuals this much smaller, or it is left out: a season that is noise adds noise.
const USEFUL: f32 = 0.9;
/// How fast the comparison with and without season forgets: about a day at 10 s.
const COMPARE_GAIN: f32 = 1.0 / 8640.0;

/// Mean of each hour of the day (UTC), as differences from the first value seen. 160 bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Season {
    origin: Option<(Timestamp, f64)>,
    hours: [f32; HOURS],
    seen: [u16; HOURS],
    /// Mean absolute distance from the mean of the day, and from the interpolated hour.
    error_without: f32,
    error_with: f32,
}

impl Season {
    /// What the time of day adds at `t`; 0 until the season is known and proven useful. O(hours).
    pub fn offset(&self, t: Timestamp) -> f64 {
        let known = self.origin.is_some_and(|(since, _)| t - since >= LEARN_MS);
        let useful = self.error_with < USEFUL * self.error_without;
        if known && useful && self.seen.iter().all(|&n| n > 0) { f64::from(self.raw_offset(t)) } else { 0.0 }
    }

    /// Takes in a sample. O(hours).
    pub fn learn(&mut self, t: Timestamp, v: f64) {
        let (_, origin) = *self.origin.get_or_insert((t, v));
        let deviation = (v - origin) as f32;
        if !deviation.is_finite() {
            return;
        }
        if self.seen.iter().all(|&n| n > 0) {
            let mean = self.mean();
            self.error_without += COMPARE_GAIN * ((deviation - mean).abs() - self.error_without);
            self.error_with += COMPARE_GAIN * ((deviation - mean - self.raw_offset(t)).abs() - self.error_with);
        }
        let hour = hour_of(t);
        self.seen[hour] = self.seen[hour].saturating_add(1);
        self.hours[hour] += GAIN_MIN.max(1.0 / f32::from(self.seen[hour])) * (deviation - self.hours[hour]);
    }

    /// Between the middles of two hours the offset runs in a straight line.
    fn raw_offset(&self, t: Timestamp) -> f32 {
        let from_middle = t - HOUR_MS / 2;
        let hour = hour_of(from_middle);
        let share = from_middle.rem_euclid(HOUR_MS) as f32 / HOUR_MS as f32;
        let (here, next) = (self.hours[hour], self.hours[(hour + 1) % HOURS]);
        here + (next - here) * share - self.mean()
    }

    fn mean(&self) -> f32 {
        self.hours.iter().sum::<f32>() / HOURS as f32
    }
}

fn hour_of(t: Timestamp) -> usize {
    (t.rem_euclid(HOUR_MS * HOURS as i64) / HOUR_MS) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daily_wave_is_learned_and_a_constant_has_no_season() {
        let (mut wave, mut constant) = (Season::default(), Season::default());
        for i in 0..(3 * 1440) {
            let t = i * 60_000;
            let v = 50.0 + 20.0 * (t as f64 / 86_400_000.0 * std::f64::consts::TAU).sin();
            assert!(i > 2000 || wave.offset(t) == 0.0, "used before it was known");
            wave.learn(t, v);
            constant.learn(t, 7.0);
        }
        let morning = 3 * 86_400_000 + 6 * HOUR_MS;
        assert!((wave.offset(morning) - 20.0).abs() < 1.5, "{}", wave.offset(morning));
        assert_eq!(constant.offset(morning), 0.0);
    }
}
