//! The past of one subject as one horizon needs it: at most 360 buckets over a window, fine at first and coarser as it fills.
//!
//! Kept in memory so that a tick reads minutes from the store, not weeks. It also is the truth by which the ledger is
//! settled: each bucket keeps its extreme beside its mean.

use std::collections::VecDeque;

use petrel_models::forecast::{Direction, Point};

use crate::series::Timestamp;

/// Buckets of a full window; the forecast takes no more.
pub const BUCKETS_MAX: usize = 360;
/// The first buckets' length; it doubles while the window fills.
const STEP_MS_MIN: i64 = 1_000;
/// A gap is more than this many usual intervals; up to it a late sample is only late.
const GAP_INTERVALS: i64 = 3;

/// A window of buckets. At most 6 KB.
#[derive(Debug, Clone)]
pub struct History {
    window_ms: i64,
    step_ms: i64,
    direction: Direction,
    origin: Timestamp,
    last_t: Timestamp,
    buckets: VecDeque<Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Steps since the origin.
    slot: u32,
    count: u32,
    mean: f32,
    /// The value nearest to, or furthest beyond, the limit.
    extreme: f32,
}

impl History {
    /// An empty window of this length; `direction` tells which extreme to keep.
    pub fn over(window_ms: i64, direction: Direction) -> History {
        History {
            window_ms,
            step_ms: STEP_MS_MIN,
            direction,
            origin: 0,
            last_t: Timestamp::MIN,
            buckets: VecDeque::new(),
        }
    }

    /// Takes in a point later than all before; others are ignored. Amortized O(1).
    pub fn push(&mut self, point: Point) {
        if point.t <= self.last_t || !point.v.is_finite() {
            return;
        }
        if self.buckets.is_empty() {
            self.origin = point.t - point.t.rem_euclid(STEP_MS_MIN);
        }
        self.last_t = point.t;
        let slot = u32::try_from((point.t - self.origin) / self.step_ms).unwrap_or(u32::MAX);
        let v = point.v as f32;
        match self.buckets.back_mut() {
            Some(bucket) if bucket.slot == slot => bucket.merge(Bucket::of(slot, v), self.direction),
            _ => self.buckets.push_back(Bucket::of(slot, v)),
        }
        self.shrink();
    }

    /// Time of the newest point.
    pub fn last_t(&self) -> Option<Timestamp> {
        (!self.buckets.is_empty()).then_some(self.last_t)
    }

    /// Time between the oldest and the newest point.
    pub fn span_ms(&self) -> i64 {
        self.buckets.front().map_or(0, |first| self.last_t - self.time_of(first))
    }

    /// The window as points, oldest first.
    pub fn points(&self) -> Vec<Point> {
        let middle = |bucket: &Bucket| (self.time_of(bucket) + self.step_ms / 2).min(self.last_t);
        self.buckets.iter().map(|bucket| Point { t: middle(bucket), v: f64::from(bucket.mean) }).collect()
    }

    /// When the limit was first met in `from < t <= to`, to the accuracy of a bucket.
    pub fn first_crossing(&self, (from, to): (Timestamp, Timestamp), limit: f64) -> Option<Timestamp> {
        let within = |bucket: &&Bucket| {
            let t = self.time_of(bucket);
            t + self.step_ms > from && t <= to
        };
        let met = |bucket: &Bucket| self.direction.crossed(f64::from(bucket.extreme), limit);
        let first = self.buckets.iter().filter(within).find(|bucket| met(bucket))?;
        Some((self.time_of(first)).clamp(from + 1, to))
    }

    /// Share of `from..=to` for which there is no truth, 0 to 1.
    pub fn missing_share(&self, (from, to): (Timestamp, Timestamp)) -> f64 {
        let times: Vec<Timestamp> = self.buckets.iter().map(|bucket| self.time_of(bucket)).collect();
        let mut intervals: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        if intervals.is_empty() || to <= from {
            return 1.0;
        }
        intervals.sort_unstable();
        let usual = intervals[intervals.len() / 2].max(self.step_ms);
        let (mut missing, mut covered_to) = (0, from);
        for t in times.into_iter().filter(|t| *t + self.step_ms > from && *t <= to).chain([to]) {
            let gap = t - covered_to;
            missing += if gap > GAP_INTERVALS * usual { gap } else { 0 };
            covered_to = covered_to.max(t);
        }
        missing as f64 / (to - from) as f64
    }

    fn time_of(&self, bucket: &Bucket) -> Timestamp {
        self.origin + i64::from(bucket.slot) * self.step_ms
    }

    fn shrink(&mut self) {
        let oldest = self.last_t - self.window_ms;
        while self.buckets.front().is_some_and(|bucket| self.time_of(bucket) < oldest) {
            self.buckets.pop_front();
        }
        while self.buckets.len() > BUCKETS_MAX && self.step_ms * (BUCKETS_MAX as i64) < self.window_ms {
            self.double_step();
        }
        while self.buckets.len() > BUCKETS_MAX {
            self.buckets.pop_front();
        }
    }

    fn double_step(&mut self) {
        self.step_ms *= 2;
        let mut merged: VecDeque<Bucket> = VecDeque::with_capacity(self.buckets.len() / 2 + 1);
        for mut bucket in std::mem::take(&mut self.buckets) {
            bucket.slot /= 2;
            match merged.back_mut() {
                Some(last) if last.slot == bucket.slot => last.merge(bucket, self.direction),
                _ => merged.push_back(bucket),
            }
        }
        self.buckets = merged;
    }
}

impl Bucket {
    fn of(slot: u32, v: f32) -> Bucket {
        Bucket { slot, count: 1, mean: v, extreme: v }
    }

    fn merge(&mut self, other: Bucket, direction: Direction) {
        self.count += other.count;
        self.mean += (other.mean - self.mean) * (other.count as f32 / self.count as f32);
        self.extreme = match direction {
            Direction::Below => self.extreme.min(other.extreme),
            Direction::Above => self.extreme.max(other.extreme),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(n: i64, step_ms: i64, window_ms: i64) -> History {
        let mut history = History::over(window_ms, Direction::Below);
        for i in 0..n {
            history.push(Point { t: i * step_ms, v: (n - i) as f64 });
        }
        history
    }

    #[test]
    fn it_grows_coarser_and_stays_within_its_window() {
        let short = filled(60, 1_000, 5_400_000);
        assert_eq!((short.points().len(), short.span_ms()), (60, 59_000));
        let long = filled(100_000, 10_000, 14 * 86_400_000);
        assert!(long.points().len() <= BUCKETS_MAX && long.points().len() > BUCKETS_MAX / 2 - 2);
        let rolled = filled(2_000, 10_000, 5_400_000);
        assert!(rolled.span_ms() <= 5_400_000 && rolled.span_ms() > 5_200_000, "{}", rolled.span_ms());
    }

    #[test]
    fn crossings_and_gaps_are_found() {
        let mut history = filled(100, 10_000, 5_400_000);
        assert_eq!(history.first_crossing((0, 990_000), 10.0), Some(900_000));
        assert_eq!(history.first_crossing((0, 500_000), 10.0), None);
        assert_eq!(history.first_crossing((910_000, 990_000), 10.0), Some(910_001));
        assert!(history.missing_share((0, 990_000)) < 0.05);
        history.push(Point { t: 1_990_000, v: 50.0 });
        let missing = history.missing_share((0, 1_990_000));
        assert!((missing - 0.5).abs() < 0.02, "{missing}");
        assert!(history.missing_share((2_100_000, 2_500_000)) > 0.99);
    }
}
