//! Aggregations over groups of series: sums and their kin as running values, choices (`topk`, `limitk`) and values that
//! need the whole group (`quantile`, `count_values`). Sums are compensated as Prometheus compensates them.

mod choose;
mod running;

use std::collections::HashMap;

use crate::query::ast::{Aggregate, AggregateOp, Expr};
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{ABSENT, Frame, Grid, Stream, is_absent};
use crate::query::functions::quantile;
use crate::query::matching::{Groups, group_labels};
use crate::query::parse::literal::is_label_name;
use crate::query::print::number;

/// The value of an aggregation at each step.
pub(super) fn eval(evaluator: &Evaluator<'_>, aggregate: &Aggregate, grid: &Grid) -> Result<Frame, QueryError> {
    let streams = match aggregate.op {
        AggregateOp::CountValues => count_values(evaluator, aggregate, grid)?,
        AggregateOp::Quantile => quantiles(evaluator, aggregate, grid)?,
        AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio => {
            let param = param(evaluator, aggregate, grid)?;
            choose::check_param(aggregate.op, &param)?;
            let streams = evaluator.vector(&aggregate.expr, grid)?;
            let (members, _) = group(&streams, aggregate);
            choose::eval(evaluator, aggregate, streams, &members, &param)?
        }
        _ => {
            let streams = evaluator.vector(&aggregate.expr, grid)?;
            let (members, groups) = group(&streams, aggregate);
            running::eval(evaluator, aggregate.op, &streams, &members, groups)?
        }
    };
    Ok(Frame::Vector(streams))
}

fn param(evaluator: &Evaluator<'_>, aggregate: &Aggregate, grid: &Grid) -> Result<Vec<f64>, QueryError> {
    match &aggregate.param {
        Some(param) => evaluator.scalar(param, grid),
        None => Err(QueryError::Mistyped { expected: "a parameter", got: "none" }),
    }
}

/// The streams of each group.
fn group(streams: &[Stream], aggregate: &Aggregate) -> (Vec<Vec<usize>>, Groups) {
    let mut groups = Groups::default();
    let of = groups.enter_grouped(streams, &aggregate.grouping);
    (groups.members(&of), groups)
}

fn drops_name(streams: &[Stream], members: &[usize]) -> bool {
    members.iter().any(|&i| streams[i].drop_name)
}

fn quantiles(evaluator: &Evaluator<'_>, aggregate: &Aggregate, grid: &Grid) -> Result<Vec<Stream>, QueryError> {
    let param = param(evaluator, aggregate, grid)?;
    evaluator.check_quantiles(&param, aggregate.args_place);
    let streams = evaluator.vector(&aggregate.expr, grid)?;
    let (members, groups) = group(&streams, aggregate);
    let mut results = Vec::with_capacity(groups.len());
    let mut present = Vec::new();
    for (members, labels) in members.iter().zip(groups.labels) {
        let mut values = vec![ABSENT; grid.count];
        for (step, value) in values.iter_mut().enumerate() {
            present.clear();
            present.extend(members.iter().map(|&i| streams[i].values[step]).filter(|v| !is_absent(*v)));
            if !present.is_empty() {
                *value = quantile(param[step], &mut present);
            }
            evaluator.worked(members.len() as u64)?;
        }
        results.push(Stream { labels, drop_name: drops_name(&streams, members), values });
    }
    Ok(results)
}

fn count_values(evaluator: &Evaluator<'_>, aggregate: &Aggregate, grid: &Grid) -> Result<Vec<Stream>, QueryError> {
    let Some(Expr::Text(label)) = aggregate.param.as_deref().map(Expr::unwrapped) else {
        return Err(QueryError::Mistyped { expected: "a string", got: "another type" });
    };
    if !is_label_name(label) {
        return Err(QueryError::LabelName { name: label.clone() });
    }
    let mut grouping = aggregate.grouping.clone();
    if !grouping.without {
        grouping.labels.push(label.clone());
    }
    let streams = evaluator.vector(&aggregate.expr, grid)?;
    let mut places = HashMap::new();
    let mut results: Vec<Stream> = Vec::new();
    for stream in &streams {
        let mut last: Option<(u64, usize)> = None;
        for (step, value) in stream.present() {
            // Values mostly stay the same from step to step.
            let place = match last {
                Some((bits, place)) if bits == value.to_bits() => place,
                _ => {
                    let labels = group_labels(&stream.labels.with(label, &plain(value)), &grouping);
                    *places.entry(labels.clone()).or_insert_with(|| {
                        results.push(Stream { labels, drop_name: false, values: vec![ABSENT; grid.count] });
                        results.len() - 1
                    })
                }
            };
            last = Some((value.to_bits(), place));
            let count = &mut results[place].values[step];
            *count = if is_absent(*count) { 1.0 } else { *count + 1.0 };
        }
        evaluator.worked(stream.values.len() as u64)?;
        // Each value of each series may make a stream of its own.
        let cells = results.len() as u64 * grid.count as u64;
        if cells > evaluator.samples_left() {
            return Err(QueryError::TooManySamples { samples_max: evaluator.limits.samples_max });
        }
    }
    Ok(results)
}

/// A value as label text: never with an exponent.
fn plain(value: f64) -> String {
    if value.is_finite() { format!("{value}") } else { number(value) }
}
