//! Aggregations that choose among the series of a group and keep their labels: `topk`, `bottomk`, `limitk`,
//! `limit_ratio`.

use std::cmp::Ordering;

use crate::query::ast::{Aggregate, AggregateOp};
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{ABSENT, Stream, is_absent};
use crate::query::print::general;
use crate::series::Labels;

/// Refuses parameters that no choice can be made with.
pub(super) fn check_param(op: AggregateOp, param: &[f64]) -> Result<(), QueryError> {
    for &value in param {
        if op == AggregateOp::LimitRatio {
            if value.is_nan() {
                return Err(QueryError::RatioNan);
            }
        } else if value.is_nan() {
            return Err(QueryError::ParameterNan);
        } else if !(-9.3e18..9.2e18).contains(&value) {
            return Err(QueryError::ParameterOverflow { value });
        }
    }
    Ok(())
}

/// The chosen of each group. With a single step they stand in the order of choice.
pub(super) fn eval(
    evaluator: &Evaluator<'_>,
    aggregate: &Aggregate,
    streams: Vec<Stream>,
    members: &[Vec<usize>],
    param: &[f64],
) -> Result<Vec<Stream>, QueryError> {
    let op = aggregate.op;
    if op == AggregateOp::LimitRatio {
        if let Some(wide) = param.iter().find(|ratio| ratio.abs() > 1.0) {
            let text = format!(
                "ratio value should be between -1 and 1, got {}, capping to {}",
                general(*wide),
                general(wide.signum())
            );
            evaluator.warn(&text, aggregate.args_place);
        }
        return Ok(sampled(streams, param));
    }
    let mut kept: Vec<Vec<f64>> = streams.iter().map(|stream| vec![ABSENT; stream.values.len()]).collect();
    let mut order = Vec::new();
    let mut candidates: Vec<usize> = Vec::new();
    for members in members {
        for (step, &count) in param.iter().enumerate() {
            candidates.clear();
            candidates.extend(members.iter().filter(|&&i| !is_absent(streams[i].values[step])));
            let by = |a: &usize, b: &usize| rank(op, streams[*a].values[step], streams[*b].values[step]);
            if op != AggregateOp::Limitk {
                candidates.sort_by(by);
            }
            candidates.truncate(if count < 1.0 { 0 } else { count as usize });
            for &i in &candidates {
                kept[i][step] = streams[i].values[step];
            }
            evaluator.worked(members.len() as u64)?;
        }
        if param.len() == 1 {
            order.append(&mut candidates);
        }
    }
    if param.len() != 1 {
        order = (0..streams.len()).collect();
    }
    let chosen = order.into_iter().map(|i| Stream {
        labels: streams[i].labels.clone(),
        drop_name: streams[i].drop_name,
        values: std::mem::take(&mut kept[i]),
    });
    Ok(chosen.filter(|stream| !stream.is_empty()).collect())
}

/// The order of choice; NaN is chosen last by both.
fn rank(op: AggregateOp, a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => Ordering::Equal,
        (true, false) => Ordering::Greater,
        (false, true) => Ordering::Less,
        (false, false) if op == AggregateOp::Topk => b.total_cmp(&a),
        (false, false) => a.total_cmp(&b),
    }
}

/// The share of the series that the ratio asks for, by a hash of their labels: the same ones at every step, and with a
/// negative ratio the ones that the positive rest leaves out.
fn sampled(mut streams: Vec<Stream>, ratios: &[f64]) -> Vec<Stream> {
    for stream in &mut streams {
        let place = hash(&stream.labels) as f64 / u64::MAX as f64;
        for (value, ratio) in stream.values.iter_mut().zip(ratios) {
            let ratio = ratio.clamp(-1.0, 1.0);
            let chosen = if ratio >= 0.0 { place < ratio } else { place >= 1.0 + ratio };
            if !chosen {
                *value = ABSENT;
            }
        }
    }
    streams.retain(|stream| !stream.is_empty());
    streams
}

/// FNV-1a with the finish of splitmix64, so that all bits take part. Stable over releases and machines.
fn hash(labels: &Labels) -> u64 {
    let bytes = labels.iter().flat_map(|(name, value)| [name.as_bytes(), b"\xff", value.as_bytes(), b"\xff"]);
    let fnv = bytes
        .flatten()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
