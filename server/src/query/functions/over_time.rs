//! Functions over the samples of a window: counts, sums, extremes, variances, quantiles, trends.

use crate::query::ast::{Call, Expr};
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{Frame, Grid};
use crate::query::eval::windows::{Window, edges_of, has_fixed_windows};
use crate::query::source::Column;

use super::stats::{Mean, Spread, Sum, quantile, regression};
use super::{arg, edges, rate};

type OfWindow = fn(&Window<'_>) -> Option<f64>;

/// Functions of one range vector and nothing else.
pub(super) fn plain(name: &str) -> Option<OfWindow> {
    Some(match name {
        "rate" => rate::rate,
        "increase" => rate::increase,
        "delta" => rate::delta,
        "irate" => rate::irate,
        "idelta" => rate::idelta,
        "resets" => |window| Some(rate::resets(window)),
        "changes" => |window| Some(rate::changes(window)),
        "deriv" => deriv,
        "count_over_time" => |window| Some(window.samples.len() as f64),
        "sum_over_time" => sum,
        "avg_over_time" => mean,
        "min_over_time" => |window| extreme(window, |value, min| value < min).map(|(_, value)| value),
        "max_over_time" => |window| extreme(window, |value, max| value > max).map(|(_, value)| value),
        "ts_of_min_over_time" => |window| extreme(window, |value, min| value <= min).map(|(t, _)| t),
        "ts_of_max_over_time" => |window| extreme(window, |value, max| value >= max).map(|(t, _)| t),
        "stdvar_over_time" => variance,
        "stddev_over_time" => |window| variance(window).map(f64::sqrt),
        "mad_over_time" => |window| Some(median_deviation(window)),
        "first_over_time" => |window| window.samples.first().map(|sample| sample.v),
        "last_over_time" => |window| window.samples.last().map(|sample| sample.v),
        "ts_of_first_over_time" => |window| window.samples.first().map(|sample| sample.t as f64 / 1000.0),
        "ts_of_last_over_time" => |window| window.samples.last().map(|sample| sample.t as f64 / 1000.0),
        "present_over_time" => |_| Some(1.0),
        _ => return None,
    })
}

/// What of samples counts for a function of this file, where the raw ones are gone.
pub(super) fn column(name: &str) -> Column {
    match name {
        "rate" | "increase" | "irate" | "resets" => Column::Counter,
        "delta" | "idelta" | "deriv" | "predict_linear" | "double_exponential_smoothing" => Column::Slope,
        "min_over_time" | "ts_of_min_over_time" => Column::Least,
        "max_over_time" | "ts_of_max_over_time" => Column::Greatest,
        "sum_over_time" => Column::Sum,
        "count_over_time" => Column::Count,
        "avg_over_time" => Column::Mean,
        _ => Column::Last,
    }
}

/// A function of [`plain`] over each window.
pub(super) fn call(evaluator: &Evaluator<'_>, call: &Call, grid: &Grid, of: OfWindow) -> Result<Frame, QueryError> {
    let expr = arg(call, 0)?;
    let name = call.function.as_str();
    let column = column(name);
    let of = edges::function(&call.function, edges_of(expr)).unwrap_or(of);
    let mut streams = if has_fixed_windows(expr) {
        // All steps have the same window: one stands for all.
        let mut streams = evaluator.over_windows(expr, &Grid { count: 1, ..*grid }, column, of)?;
        for stream in &mut streams {
            evaluator.hold(grid.count as u64)?;
            stream.values.resize(grid.count, stream.values[0]);
        }
        streams
    } else {
        evaluator.over_windows(expr, grid, column, of)?
    };
    if matches!(name, "rate" | "increase") {
        for stream in &streams {
            warn_of_gauge(evaluator, call, stream.labels.name());
        }
    }
    let keeps_name = matches!(name, "first_over_time" | "last_over_time");
    for stream in &mut streams {
        stream.drop_name |= !keeps_name;
    }
    Ok(Frame::Vector(streams))
}

fn warn_of_gauge(evaluator: &Evaluator<'_>, call: &Call, metric: &str) {
    let counts = ["_total", "_sum", "_count", "_bucket"].iter().any(|suffix| metric.ends_with(suffix));
    if !metric.is_empty() && !counts {
        let text =
            format!("metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {metric:?}");
        evaluator.inform(&text, call.arg_place(0));
    }
}

/// `quantile_over_time`, `predict_linear`, `double_exponential_smoothing`: their numbers may differ from step to step.
pub(super) fn with_params(evaluator: &Evaluator<'_>, call: &Call, grid: &Grid) -> Result<Frame, QueryError> {
    let scalar = |place| evaluator.scalar(arg(call, place)?, grid);
    let column = column(call.function.as_str());
    let streams = match call.function.as_str() {
        "quantile_over_time" => {
            let q = scalar(0)?;
            evaluator.check_quantiles(&q, call.arg_place(0));
            over(evaluator, arg(call, 1)?, (grid, column), |window| {
                let mut values: Vec<f64> = window.samples.iter().map(|sample| sample.v).collect();
                Some(quantile(q[window.step], &mut values))
            })?
        }
        "predict_linear" => {
            let ahead_s = scalar(1)?;
            over(evaluator, arg(call, 0)?, (grid, column), |window| {
                if window.samples.len() < 2 {
                    return None;
                }
                let (slope, now) = regression(window.samples, window.at);
                Some(slope * ahead_s[window.step] + now)
            })?
        }
        _ => {
            let (smoothing, trend) = (scalar(1)?, scalar(2)?);
            check_factors(&smoothing, "smoothing", "sf")?;
            check_factors(&trend, "trend", "tf")?;
            over(evaluator, arg(call, 0)?, (grid, column), |window| {
                smoothed(window, smoothing[window.step], trend[window.step])
            })?
        }
    };
    Ok(streams)
}

fn over(
    evaluator: &Evaluator<'_>,
    expr: &Expr,
    (grid, column): (&Grid, Column),
    of: impl Fn(&Window<'_>) -> Option<f64> + Sync,
) -> Result<Frame, QueryError> {
    let mut streams = evaluator.over_windows(expr, grid, column, of)?;
    for stream in &mut streams {
        stream.drop_name = true;
    }
    Ok(Frame::Vector(streams))
}

fn check_factors(factors: &[f64], name: &'static str, symbol: &'static str) -> Result<(), QueryError> {
    match factors.iter().find(|factor| **factor <= 0.0 || **factor >= 1.0) {
        Some(&value) => Err(QueryError::Factor { name, symbol, value }),
        None => Ok(()),
    }
}

fn sum(window: &Window<'_>) -> Option<f64> {
    let mut sum = Sum::default();
    window.samples.iter().for_each(|sample| sum.add(sample.v));
    sum.result()
}

fn mean(window: &Window<'_>) -> Option<f64> {
    let mut mean = Mean::default();
    window.samples.iter().for_each(|sample| mean.add(sample.v));
    mean.result()
}

fn variance(window: &Window<'_>) -> Option<f64> {
    let mut spread = Spread::default();
    window.samples.iter().for_each(|sample| spread.add(sample.v));
    spread.variance()
}

/// Time in seconds and value of the sample that no other replaces; NaN gives way to any number.
fn extreme(window: &Window<'_>, replaces: fn(f64, f64) -> bool) -> Option<(f64, f64)> {
    let first = window.samples.first()?;
    let mut found = *first;
    for sample in window.samples {
        if replaces(sample.v, found.v) || found.v.is_nan() {
            found = *sample;
        }
    }
    Some((found.t as f64 / 1000.0, found.v))
}

/// Median of the distances from the median.
fn median_deviation(window: &Window<'_>) -> f64 {
    let mut values: Vec<f64> = window.samples.iter().map(|sample| sample.v).collect();
    let median = quantile(0.5, &mut values);
    for value in &mut values {
        *value = (*value - median).abs();
    }
    quantile(0.5, &mut values)
}

/// The slope is the same wherever the line's origin lies; the first sample keeps the numbers small.
fn deriv(window: &Window<'_>) -> Option<f64> {
    let first = window.samples.first()?;
    (window.samples.len() > 1).then(|| regression(window.samples, first.t).0)
}

/// Holt's double exponential smoothing.
fn smoothed(window: &Window<'_>, smoothing: f64, trend: f64) -> Option<f64> {
    let [first, second, ..] = window.samples else {
        return None;
    };
    let mut before = 0.0;
    let mut level = first.v;
    let mut slope = second.v - first.v;
    for (i, sample) in window.samples.iter().enumerate().skip(1) {
        if i > 1 {
            slope = trend * (level - before) + (1.0 - trend) * slope;
        }
        let next = smoothing * sample.v + (1.0 - smoothing) * (level + slope);
        (before, level) = (level, next);
    }
    Some(level)
}
