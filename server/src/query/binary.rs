//! Operators between two operands: arithmetic and comparison of scalars and vectors, and the set operators.

mod vectors;

use crate::query::answer::merge;
use crate::query::ast::{Binary, BinaryOp, Matching};
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{ABSENT, Frame, Grid, Stream, is_absent};
use crate::query::matching::Groups;

/// The value of an operator expression at each step.
pub(super) fn eval(evaluator: &Evaluator<'_>, binary: &Binary, grid: &Grid) -> Result<Frame, QueryError> {
    let lhs = evaluator.eval(&binary.lhs, grid)?;
    let rhs = evaluator.eval(&binary.rhs, grid)?;
    match (lhs, rhs) {
        (Frame::Scalar(lhs), Frame::Scalar(rhs)) => {
            let values = lhs.into_iter().zip(rhs).map(|(l, r)| scalar(binary.op, l, r)).collect();
            Ok(Frame::Scalar(values))
        }
        (Frame::Vector(lhs), Frame::Scalar(rhs)) => Ok(Frame::Vector(with_scalar(binary, lhs, &rhs, false))),
        (Frame::Scalar(lhs), Frame::Vector(rhs)) => Ok(Frame::Vector(with_scalar(binary, rhs, &lhs, true))),
        (Frame::Vector(lhs), Frame::Vector(rhs)) => {
            evaluator.hold(lhs.iter().chain(&rhs).map(|stream| stream.values.len() as u64).sum())?;
            let streams = match binary.op {
                BinaryOp::And => intersect(lhs, &rhs, &binary.matching, true),
                BinaryOp::Unless => intersect(lhs, &rhs, &binary.matching, false),
                BinaryOp::Or => unite(lhs, rhs, &binary.matching)?,
                _ => vectors::eval(evaluator, binary, lhs, rhs, grid)?,
            };
            Ok(Frame::Vector(streams))
        }
        (Frame::Text(_), _) | (_, Frame::Text(_)) => {
            Err(QueryError::Mistyped { expected: "scalar or instant vector", got: "string" })
        }
    }
}

/// Two numbers: comparisons give 0 or 1.
fn scalar(op: BinaryOp, lhs: f64, rhs: f64) -> f64 {
    match arithmetic(op, lhs, rhs) {
        Some(value) => value,
        None => f64::from(u8::from(compares(op, lhs, rhs))),
    }
}

fn arithmetic(op: BinaryOp, lhs: f64, rhs: f64) -> Option<f64> {
    Some(match op {
        BinaryOp::Add => lhs + rhs,
        BinaryOp::Sub => lhs - rhs,
        BinaryOp::Mul => lhs * rhs,
        BinaryOp::Div => lhs / rhs,
        BinaryOp::Mod => lhs % rhs,
        BinaryOp::Pow => lhs.powf(rhs),
        BinaryOp::Atan2 => lhs.atan2(rhs),
        _ => return None,
    })
}

fn compares(op: BinaryOp, lhs: f64, rhs: f64) -> bool {
    match op {
        BinaryOp::Equal => lhs == rhs,
        BinaryOp::NotEqual => lhs != rhs,
        BinaryOp::Greater => lhs > rhs,
        BinaryOp::Less => lhs < rhs,
        BinaryOp::GreaterEqual => lhs >= rhs,
        BinaryOp::LessEqual => lhs <= rhs,
        _ => false,
    }
}

/// One element of a vector with another value. A comparison that does not hold is absent; one that holds keeps `kept`.
fn element(binary: &Binary, lhs: f64, rhs: f64, kept: f64) -> f64 {
    if let Some(value) = arithmetic(binary.op, lhs, rhs) {
        return value;
    }
    let holds = compares(binary.op, lhs, rhs);
    match (binary.returns_bool, holds) {
        (true, holds) => f64::from(u8::from(holds)),
        (false, true) => kept,
        (false, false) => ABSENT,
    }
}

fn drops_name(binary: &Binary) -> bool {
    binary.returns_bool || !(binary.op.is_comparison() || binary.op.is_set())
}

fn with_scalar(binary: &Binary, mut streams: Vec<Stream>, scalars: &[f64], swapped: bool) -> Vec<Stream> {
    for stream in &mut streams {
        stream.drop_name |= drops_name(binary);
        for (value, &scalar) in stream.values.iter_mut().zip(scalars) {
            if !is_absent(*value) {
                let (lhs, rhs) = if swapped { (scalar, *value) } else { (*value, scalar) };
                *value = element(binary, lhs, rhs, *value);
            }
        }
    }
    streams.retain(|stream| !stream.is_empty());
    streams
}

/// For each group and step, whether a stream of the group has a value.
fn presence(streams: &[Stream], of: &[usize], groups: usize) -> Vec<Vec<bool>> {
    let mut present = vec![Vec::new(); groups];
    for (stream, &group) in streams.iter().zip(of) {
        if present[group].is_empty() {
            present[group] = vec![false; stream.values.len()];
        }
        for (step, _) in stream.present() {
            present[group][step] = true;
        }
    }
    present
}

/// `and` keeps the left values whose group has a right value, `unless` those whose group has none.
fn intersect(mut lhs: Vec<Stream>, rhs: &[Stream], matching: &Matching, wanted: bool) -> Vec<Stream> {
    let mut groups = Groups::default();
    let right_of = groups.enter_matched(rhs, matching);
    let left_of = groups.enter_matched(&lhs, matching);
    let right = presence(rhs, &right_of, groups.len());
    for (stream, group) in lhs.iter_mut().zip(left_of) {
        for (step, value) in stream.values.iter_mut().enumerate() {
            if right[group].get(step).copied().unwrap_or(false) != wanted {
                *value = ABSENT;
            }
        }
    }
    lhs.retain(|stream| !stream.is_empty());
    lhs
}

/// `or`: all of the left, and of the right what has no match there at its step.
fn unite(mut lhs: Vec<Stream>, mut rhs: Vec<Stream>, matching: &Matching) -> Result<Vec<Stream>, QueryError> {
    let mut groups = Groups::default();
    let left_of = groups.enter_matched(&lhs, matching);
    let right_of = groups.enter_matched(&rhs, matching);
    let left = presence(&lhs, &left_of, groups.len());
    for (stream, group) in rhs.iter_mut().zip(right_of) {
        for (value, &taken) in stream.values.iter_mut().zip(&left[group]) {
            if taken {
                *value = ABSENT;
            }
        }
    }
    lhs.extend(rhs.into_iter().filter(|stream| !stream.is_empty()));
    merge(lhs)
}
