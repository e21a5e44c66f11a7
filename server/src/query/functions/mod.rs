//! The functions of PromQL by name. Each file holds one family; this one finds the right one and holds the few that are
//! about the shape of a vector. Native histograms do not exist here, so functions on them give nothing.

mod absent;
mod buckets;
mod edges;
mod histogram;
mod info;
mod labels;
mod math;
mod order;
mod over_time;
mod rate;
mod stats;
mod time;

use crate::query::ast::Call;
use crate::query::ast::Expr;
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{ABSENT, Frame, Grid, Stream, is_absent};
use crate::series::Labels;

pub(super) use edges::{between, filled};
pub(super) use stats::{Mean, Spread, Sum, quantile};

/// The value of a call at each step.
pub(super) fn call(evaluator: &Evaluator<'_>, call: &Call, grid: &Grid) -> Result<Frame, QueryError> {
    let name = call.function.as_str();
    edges::check(call)?;
    if let Some(function) = math::unary(name) {
        return map(evaluator, arg(call, 0)?, grid, function);
    }
    if let Some(part) = time::part(name) {
        return time::of_vector(evaluator, call, grid, part);
    }
    if let Some(function) = over_time::plain(name) {
        return over_time::call(evaluator, call, grid, function);
    }
    match name {
        "predict_linear" | "quantile_over_time" | "double_exponential_smoothing" => {
            over_time::with_params(evaluator, call, grid)
        }
        "absent" => absent::instant(evaluator, arg(call, 0)?, grid),
        "absent_over_time" => absent::over_time(evaluator, arg(call, 0)?, grid),
        "clamp" | "clamp_max" | "clamp_min" | "round" | "max_of" | "min_of" => math::call(evaluator, call, grid),
        "label_join" | "label_replace" => labels::call(evaluator, call, grid),
        "sort" | "sort_desc" | "sort_by_label" | "sort_by_label_desc" => order::call(evaluator, call, grid),
        "info" => info::call(evaluator, call, grid),
        "scalar" => to_scalar(evaluator, arg(call, 0)?, grid),
        "vector" => to_vector(evaluator, arg(call, 0)?, grid),
        "timestamp" => timestamps(evaluator, arg(call, 0)?, grid),
        "time" => Ok(Frame::Scalar((0..grid.count).map(|step| grid.at(step) as f64 / 1000.0).collect())),
        "pi" => Ok(Frame::Scalar(vec![std::f64::consts::PI; grid.count])),
        "start" => Ok(Frame::Scalar(vec![evaluator.query.start as f64 / 1000.0; grid.count])),
        "end" => Ok(Frame::Scalar(vec![evaluator.query.last() as f64 / 1000.0; grid.count])),
        "range" => {
            let range_ms = evaluator.query.last() - evaluator.query.start;
            Ok(Frame::Scalar(vec![range_ms as f64 / 1000.0; grid.count]))
        }
        "step" => {
            let step_ms = if evaluator.is_range { evaluator.query.step_ms } else { 0 };
            Ok(Frame::Scalar(vec![step_ms as f64 / 1000.0; grid.count]))
        }
        _ => histogram::call(evaluator, call, grid),
    }
}

/// An argument. The parser has counted them.
fn arg(call: &Call, place: usize) -> Result<&Expr, QueryError> {
    call.args.get(place).ok_or(QueryError::Mistyped { expected: "an argument", got: "none" })
}

/// Each value that is there through `of`.
pub(super) fn map_values(values: &mut [f64], of: impl Fn(f64) -> f64) {
    for value in values {
        if !is_absent(*value) {
            *value = of(*value);
        }
    }
}

fn map(evaluator: &Evaluator<'_>, expr: &Expr, grid: &Grid, of: fn(f64) -> f64) -> Result<Frame, QueryError> {
    let mut streams = evaluator.vector(expr, grid)?;
    for stream in &mut streams {
        stream.drop_name = true;
        map_values(&mut stream.values, of);
    }
    Ok(Frame::Vector(streams))
}

/// The value of the only series, NaN where there is none or more than one.
fn to_scalar(evaluator: &Evaluator<'_>, expr: &Expr, grid: &Grid) -> Result<Frame, QueryError> {
    let streams = evaluator.vector(expr, grid)?;
    let mut values = vec![ABSENT; grid.count];
    for stream in &streams {
        for (step, value) in stream.present() {
            values[step] = if is_absent(values[step]) { value } else { f64::NAN };
        }
    }
    for value in values.iter_mut().filter(|value| is_absent(**value)) {
        *value = f64::NAN;
    }
    Ok(Frame::Scalar(values))
}

fn to_vector(evaluator: &Evaluator<'_>, expr: &Expr, grid: &Grid) -> Result<Frame, QueryError> {
    let values = evaluator.scalar(expr, grid)?;
    Ok(Frame::Vector(vec![Stream { labels: Labels::empty(), drop_name: false, values }]))
}

/// The times of a selector's samples; of anything else the time of the step.
fn timestamps(evaluator: &Evaluator<'_>, expr: &Expr, grid: &Grid) -> Result<Frame, QueryError> {
    let selected = if let Expr::Selector(selector) = expr.unwrapped() { Some(selector) } else { None };
    let mut streams = match selected {
        Some(selector) => evaluator.sample_times(selector, grid)?,
        None => evaluator.vector(expr, grid)?,
    };
    for stream in &mut streams {
        stream.drop_name = true;
        let present = stream.values.iter_mut().enumerate().filter(|(_, value)| !is_absent(**value));
        for (step, value) in present.filter(|_| selected.is_none()) {
            *value = grid.at(step) as f64 / 1000.0;
        }
    }
    Ok(Frame::Vector(streams))
}
