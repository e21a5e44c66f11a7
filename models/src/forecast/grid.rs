//! A history at regular steps: means of buckets, brought to even times by straight lines.

use super::{MISSING_MAX, NotForecastable, POINTS_MIN, Point};
use crate::Timestamp;

/// Regular values; the last one stands at `last_t`.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Time of the last value.
    pub last_t: Timestamp,
    /// Time between two values.
    pub step_ms: i64,
    /// The values, oldest first; at least [`POINTS_MIN`].
    pub values: Vec<f64>,
}

/// Brings points to regular steps: the median interval, or longer so that at most `points_max` come out. O(n log n).
pub fn regular(history: &[Point], points_max: usize) -> Result<Grid, NotForecastable> {
    let mut points: Vec<Point> = Vec::with_capacity(history.len());
    for point in history {
        if point.v.is_finite() && points.last().is_none_or(|last| point.t > last.t) {
            points.push(*point);
        }
    }
    if points.len() < POINTS_MIN {
        return Err(NotForecastable::TooShort { points: points.len(), needed: POINTS_MIN });
    }
    let (first_t, last_t) = (points[0].t, points[points.len() - 1].t);
    let mut intervals: Vec<i64> = points.windows(2).map(|pair| pair[1].t - pair[0].t).collect();
    let middle = intervals.len() / 2;
    let median = *intervals.select_nth_unstable(middle).1;
    let points_max = points_max.max(POINTS_MIN) as i64;
    let step_ms = if (last_t - first_t) / median.max(1) < points_max {
        median.max(1)
    } else {
        (last_t - first_t) / (points_max - 1) + 1
    };
    let means = bucket_means(&points, last_t, step_ms);
    let n = ((last_t - first_t) / step_ms + 1) as usize;
    let missing = 1.0 - (means.len() as f64 / n as f64).min(1.0);
    if missing > MISSING_MAX {
        return Err(NotForecastable::TooManyGaps { missing });
    }
    if n < POINTS_MIN {
        return Err(NotForecastable::TooShort { points: n, needed: POINTS_MIN });
    }
    Ok(Grid { last_t, step_ms, values: interpolate(&means, step_ms, n) })
}

/// Mean time and mean value of each bucket that has points, oldest first. Buckets are counted back from the last point.
fn bucket_means(points: &[Point], last_t: Timestamp, step_ms: i64) -> Vec<(f64, f64)> {
    let mut means: Vec<(f64, f64)> = Vec::new();
    let (mut bucket_now, mut count) = (i64::MIN, 0.0);
    for point in points {
        // Half a step of slack keeps samples that come a little early in the bucket of their own.
        let bucket = -((last_t - point.t + step_ms / 2) / step_ms);
        if bucket != bucket_now {
            means.push((0.0, 0.0));
            (bucket_now, count) = (bucket, 0.0);
        }
        count += 1.0;
        if let Some((t, v)) = means.last_mut() {
            *t += ((point.t - last_t) as f64 - *t) / count;
            *v += (point.v - *v) / count;
        }
    }
    means
}

/// The values at `n` regular times up to `last_t`; outside the first and last mean these stand.
fn interpolate(means: &[(f64, f64)], step_ms: i64, n: usize) -> Vec<f64> {
    let mut values = Vec::with_capacity(n);
    let mut at = 0;
    for i in 0..n {
        let t = -((n - 1 - i) as f64) * step_ms as f64;
        while at + 1 < means.len() && means[at + 1].0 <= t {
            at += 1;
        }
        let (t0, v0) = means[at];
        let value = match means.get(at + 1) {
            Some(&(t1, v1)) if t > t0 => v0 + (v1 - v0) * (t - t0) / (t1 - t0),
            _ => v0,
        };
        values.push(value);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_gaps_and_bad_points_come_out_regular() {
        let mut history: Vec<Point> =
            (0..40i64).map(|i| Point { t: i * 10_000 + (i % 3) * 100, v: i as f64 }).collect();
        history.remove(20);
        history[5].v = f64::NAN;
        let grid = regular(&history, 288).unwrap();
        assert!((grid.values.len() as i64 - 40).abs() <= 1, "{}", grid.values.len());
        for pair in grid.values.windows(2).skip(1) {
            assert!((pair[1] - pair[0] - 1.0).abs() < 0.1, "{:?}", grid.values);
        }
    }

    #[test]
    fn short_and_torn_histories_are_refused() {
        let points = |ts: &[i64]| ts.iter().map(|&t| Point { t, v: 1.0 }).collect::<Vec<_>>();
        let short = regular(&points(&[0, 1, 2]), 288);
        assert_eq!(short, Err(NotForecastable::TooShort { points: 3, needed: POINTS_MIN }));
        let mut times: Vec<i64> = (0..15).map(|i| i * 1000).collect();
        times.extend((0..15).map(|i| 1_000_000 + i * 1000));
        assert!(matches!(regular(&points(&times), 288), Err(NotForecastable::TooManyGaps { .. })));
    }

    #[test]
    fn long_histories_are_thinned_by_means() {
        let history: Vec<Point> = (0..10_000i64).map(|i| Point { t: i * 1000, v: (i % 2) as f64 }).collect();
        let grid = regular(&history, 100).unwrap();
        assert!(grid.values.len() <= 100);
        assert!(grid.values.iter().all(|v| (v - 0.5).abs() < 0.05), "{:?}", grid.values);
    }
}
