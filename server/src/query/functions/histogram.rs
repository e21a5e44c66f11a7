//! Quantiles and fractions of classic histograms, whose buckets are series with an upper bound in `le`.

use std::collections::HashMap;

use crate::query::ast::Call;
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{ABSENT, Frame, Grid, Stream, is_absent};
use crate::query::print::number;
use crate::series::{Labels, NAME};

use super::arg;

/// Relative differences of counts below this are rounding, not a falling count.
const ROUNDING: f64 = 1e-12;

#[derive(Clone, Copy, Debug)]
struct Bucket {
    upper: f64,
    /// Observations up to the bound.
    count: f64,
}

/// `histogram_quantile` and `histogram_fraction`; the functions on native histograms find none.
pub(super) fn call(evaluator: &Evaluator<'_>, call: &Call, grid: &Grid) -> Result<Frame, QueryError> {
    match call.function.as_str() {
        "histogram_quantile" => {
            let q = evaluator.scalar(arg(call, 0)?, grid)?;
            if let Some(wrong) = q.iter().find(|q| !(0.0..=1.0).contains(*q)) {
                let text = format!("quantile value should be between 0 and 1, got {}", number(*wrong));
                evaluator.warn(&text, call.args_place);
            }
            let streams = evaluator.vector(arg(call, 1)?, grid)?;
            per_histogram(evaluator, call, streams, grid, |step, buckets| bucket_quantile(q[step], buckets))
        }
        "histogram_fraction" => {
            let lower = evaluator.scalar(arg(call, 0)?, grid)?;
            let upper = evaluator.scalar(arg(call, 1)?, grid)?;
            let streams = evaluator.vector(arg(call, 2)?, grid)?;
            per_histogram(evaluator, call, streams, grid, |step, buckets| {
                (bucket_fraction(lower[step], upper[step], buckets), false)
            })
        }
        _ => {
            evaluator.vector(arg(call, 0)?, grid)?;
            Ok(Frame::Vector(Vec::new()))
        }
    }
}

/// Puts the buckets of each histogram together at each step; `of` also tells whether counts fell.
fn per_histogram(
    evaluator: &Evaluator<'_>,
    call: &Call,
    streams: Vec<Stream>,
    grid: &Grid,
    of: impl Fn(usize, &mut Vec<Bucket>) -> (f64, bool),
) -> Result<Frame, QueryError> {
    let mut places: HashMap<Labels, usize> = HashMap::new();
    let mut histograms: Vec<(Labels, Vec<(f64, Stream)>)> = Vec::new();
    for stream in streams {
        let bound = stream.labels.get("le").unwrap_or("").to_owned();
        let Some(upper) = parse_bound(&bound) else {
            let metric = stream.labels.name();
            let text = format!(
                "bucket label \"le\" is missing or has a malformed value of {bound:?} for metric name {metric:?}"
            );
            evaluator.warn(&text, call.args_place);
            continue;
        };
        let labels = stream.labels.without(|name| name == "le" || name == NAME);
        let place = *places.entry(labels.clone()).or_insert_with(|| {
            histograms.push((labels, Vec::new()));
            histograms.len() - 1
        });
        histograms[place].1.push((upper, stream));
    }
    let mut results = Vec::with_capacity(histograms.len());
    let mut buckets = Vec::new();
    for (labels, bounds) in histograms {
        let mut values = vec![ABSENT; grid.count];
        for (step, value) in values.iter_mut().enumerate() {
            buckets.clear();
            let counts = bounds.iter().map(|(upper, stream)| Bucket { upper: *upper, count: stream.values[step] });
            buckets.extend(counts.filter(|bucket| !is_absent(bucket.count)));
            evaluator.worked(bounds.len() as u64)?;
            if !buckets.is_empty() {
                let (result, fell) = of(step, &mut buckets);
                *value = result;
                if fell {
                    evaluator.inform(
                        "input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)",
                        call.args_place,
                    );
                }
            }
        }
        results.push(Stream { labels, drop_name: true, values });
    }
    Ok(Frame::Vector(results))
}

fn parse_bound(text: &str) -> Option<f64> {
    // Go takes "+Inf", "Inf", "inf" and "infinity" alike, as does Rust.
    text.parse().ok()
}

/// Sorts, merges equal bounds and makes counts rise. Tells whether they fell by more than rounding.
fn repair(buckets: &mut Vec<Bucket>) -> bool {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    buckets.dedup_by(|later, kept| {
        let same = later.upper == kept.upper;
        if same {
            kept.count += later.count;
        }
        same
    });
    let mut fell = false;
    let mut highest = f64::NEG_INFINITY;
    for bucket in buckets.iter_mut() {
        if (bucket.count - highest).abs() / bucket.count <= ROUNDING {
            bucket.count = highest;
        } else if bucket.count < highest {
            bucket.count = highest;
            fell = true;
        } else {
            highest = bucket.count;
        }
    }
    fell
}

fn ends_in_infinity(buckets: &[Bucket]) -> bool {
    buckets.iter().any(|bucket| bucket.upper == f64::INFINITY)
}

/// The quantile, interpolated linearly within its bucket, and whether counts fell.
fn bucket_quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, bool) {
    if q.is_nan() || !ends_in_infinity(buckets) {
        return (
            if q < 0.0 {
                f64::NEG_INFINITY
            } else if q > 1.0 {
                f64::INFINITY
            } else {
                f64::NAN
            },
            false,
        );
    }
    if !(0.0..=1.0).contains(&q) {
        return (if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY }, false);
    }
    let fell = repair(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 || observations.is_nan() {
        return (f64::NAN, fell);
    }
    let rank = q * observations;
    let found = buckets[..last].partition_point(|bucket| bucket.count < rank);
    let value = if found == last {
        buckets[last - 1].upper
    } else if found == 0 && buckets[0].upper <= 0.0 {
        buckets[0].upper
    } else {
        let below = found.checked_sub(1).map_or(Bucket { upper: 0.0, count: 0.0 }, |i| buckets[i]);
        let within = buckets[found];
        below.upper + (within.upper - below.upper) * ((rank - below.count) / (within.count - below.count))
    };
    (value, fell)
}

/// The share of observations between two values, interpolated linearly within buckets.
fn bucket_fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    if lower.is_nan() || upper.is_nan() || !ends_in_infinity(buckets) {
        return f64::NAN;
    }
    repair(buckets);
    let observations = buckets.last().map_or(0.0, |bucket| bucket.count);
    if observations == 0.0 || observations.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets) - rank_of(lower, buckets)) / observations
}

/// Observations up to a value.
fn rank_of(value: f64, buckets: &[Bucket]) -> f64 {
    // The lowest bucket begins at zero where its bound is positive, else nowhere.
    let mut start = if buckets[0].upper > 0.0 { 0.0 } else { f64::NEG_INFINITY };
    let mut below = 0.0;
    for bucket in buckets {
        if value <= start {
            return below;
        }
        if value < bucket.upper {
            // Nothing can be said of the inside of an endless bucket: all of it lies beyond.
            let width = bucket.upper - start;
            let share = if width.is_finite() { (value - start) / width } else { 0.0 };
            return below + (bucket.count - below) * share;
        }
        start = bucket.upper;
        below = bucket.count;
    }
    below
}
