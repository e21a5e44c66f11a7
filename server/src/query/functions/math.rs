//! Functions of numbers: one number to another, and the ones with bounds.

use crate::query::ast::Call;
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{ABSENT, Frame, Grid, is_absent};

use super::arg;

/// Functions that take each value of a vector to another.
pub(super) fn unary(name: &str) -> Option<fn(f64) -> f64> {
    Some(match name {
        "abs" => f64::abs,
        "acos" => f64::acos,
        "acosh" => f64::acosh,
        "asin" => f64::asin,
        "asinh" => f64::asinh,
        "atan" => f64::atan,
        "atanh" => f64::atanh,
        "ceil" => f64::ceil,
        "cos" => f64::cos,
        "cosh" => f64::cosh,
        "deg" => f64::to_degrees,
        "exp" => f64::exp,
        "floor" => f64::floor,
        "ln" => f64::ln,
        "log10" => f64::log10,
        "log2" => f64::log2,
        "rad" => f64::to_radians,
        "sgn" => sign,
        "sin" => f64::sin,
        "sinh" => f64::sinh,
        "sqrt" => f64::sqrt,
        "tan" => f64::tan,
        "tanh" => f64::tanh,
        _ => return None,
    })
}

fn sign(value: f64) -> f64 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        value
    }
}

/// `clamp`, `clamp_min`, `clamp_max`, `round`, `min_of`, `max_of`.
pub(super) fn call(evaluator: &Evaluator<'_>, call: &Call, grid: &Grid) -> Result<Frame, QueryError> {
    let params = |place| evaluator.scalar(arg(call, place)?, grid);
    match call.function.as_str() {
        "clamp" => {
            let (min, max) = (params(1)?, params(2)?);
            each(evaluator, call, grid, |step, value| {
                if max[step] < min[step] { ABSENT } else { bounded(value, min[step], max[step]) }
            })
        }
        "clamp_min" => {
            let min = params(1)?;
            each(evaluator, call, grid, |step, value| bounded(value, min[step], f64::INFINITY))
        }
        "clamp_max" => {
            let max = params(1)?;
            each(evaluator, call, grid, |step, value| bounded(value, f64::NEG_INFINITY, max[step]))
        }
        "min_of" => {
            let (a, b) = (params(0)?, params(1)?);
            Ok(Frame::Scalar(a.into_iter().zip(b).map(|(a, b)| bounded(a, f64::NEG_INFINITY, b)).collect()))
        }
        "max_of" => {
            let (a, b) = (params(0)?, params(1)?);
            Ok(Frame::Scalar(a.into_iter().zip(b).map(|(a, b)| bounded(a, b, f64::INFINITY)).collect()))
        }
        _ => {
            let nearest = if call.args.len() > 1 { params(1)? } else { vec![1.0; grid.count] };
            each(evaluator, call, grid, |step, value| {
                // Multiplying by the inverse is what Prometheus does, and it rounds differently from a division.
                let inverse = 1.0 / nearest[step];
                (value * inverse + 0.5).floor() / inverse
            })
        }
    }
}

/// NaN if any is NaN.
fn bounded(value: f64, min: f64, max: f64) -> f64 {
    if value.is_nan() || min.is_nan() || max.is_nan() { f64::NAN } else { min.max(max.min(value)) }
}

fn each(
    evaluator: &Evaluator<'_>,
    call: &Call,
    grid: &Grid,
    of: impl Fn(usize, f64) -> f64,
) -> Result<Frame, QueryError> {
    let mut streams = evaluator.vector(arg(call, 0)?, grid)?;
    for stream in &mut streams {
        stream.drop_name = true;
        for (step, value) in stream.values.iter_mut().enumerate() {
            if !is_absent(*value) {
                *value = of(step, *value);
            }
        }
    }
    streams.retain(|stream| !stream.is_empty());
    Ok(Frame::Vector(streams))
}
