//! Changes of counters and gauges over a window, extrapolated to its edges as Prometheus does it.

use crate::query::eval::windows::Window;
use crate::series::Sample;

/// Increase per second of a counter.
pub(super) fn rate(window: &Window<'_>) -> Option<f64> {
    let (change, factor) = extrapolated(window, true)?;
    // Prometheus divides the factor, which rounds differently from dividing the result.
    Some(change * (factor / (window.range_ms as f64 / 1000.0)))
}

/// Increase of a counter.
pub(super) fn increase(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, true).map(|(change, factor)| change * factor)
}

/// Difference of a gauge.
pub(super) fn delta(window: &Window<'_>) -> Option<f64> {
    extrapolated(window, false).map(|(change, factor)| change * factor)
}

/// The difference of first and last sample, counter resets added, and the factor that stretches it to the window's edges.
fn extrapolated(window: &Window<'_>, is_counter: bool) -> Option<(f64, f64)> {
    let [first, .., last] = window.samples else {
        return None;
    };
    let mut change = last.v - first.v;
    if is_counter {
        change = window.before_falls().fold(change, |change, before| change + before);
    }
    let seconds = |ms: i64| ms as f64 / 1000.0;
    let sampled = seconds(last.t - first.t);
    let between = sampled / (window.samples.len() - 1) as f64;
    let mut to_start = seconds(first.t - (window.end - window.range_ms));
    let mut to_end = seconds(window.end - last.t);
    // An edge farther away than a tenth more than the usual distance of samples: the series starts or ends within the
    // window, on average half a distance beyond its sample.
    let threshold = between * 1.1;
    if to_start >= threshold {
        to_start = between / 2.0;
    }
    if is_counter && change > 0.0 && first.v >= 0.0 {
        // A counter was never below zero.
        to_start = to_start.min(sampled * (first.v / change));
    }
    if to_end >= threshold {
        to_end = between / 2.0;
    }
    Some((change, (sampled + to_start + to_end) / sampled))
}

/// Increase per second between the last two samples of a counter.
pub(super) fn irate(window: &Window<'_>) -> Option<f64> {
    let [.., before, last] = window.samples else {
        return None;
    };
    let change = if last.v < before.v { last.v } else { last.v - before.v };
    Some(change / ((last.t - before.t) as f64 / 1000.0))
}

/// Difference of the last two samples of a gauge.
pub(super) fn idelta(window: &Window<'_>) -> Option<f64> {
    let [.., before, last] = window.samples else {
        return None;
    };
    Some(last.v - before.v)
}

/// How often a counter fell.
pub(super) fn resets(window: &Window<'_>) -> f64 {
    window.before_falls().count() as f64
}

/// How often the value changed; NaN to NaN is no change.
pub(super) fn changes(window: &Window<'_>) -> f64 {
    count_pairs(window.samples, |before, after| before != after && !(before.is_nan() && after.is_nan()))
}

fn count_pairs(samples: &[Sample], counts: impl Fn(f64, f64) -> bool) -> f64 {
    samples.windows(2).filter(|pair| counts(pair[0].v, pair[1].v)).count() as f64
}
