//! `absent` and `absent_over_time`: one where there is nothing.

use std::collections::BTreeMap;

use crate::query::ast::Expr;
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{ABSENT, Frame, Grid, Stream};
use crate::query::source::Column;
use crate::series::{Labels, MatchOp, NAME};

/// One at each step without any series.
pub(super) fn instant(evaluator: &Evaluator<'_>, expr: &Expr, grid: &Grid) -> Result<Frame, QueryError> {
    let streams = evaluator.vector(expr, grid)?;
    Ok(invert(&streams, expr, grid))
}

/// One at each step without any sample in its window.
pub(super) fn over_time(evaluator: &Evaluator<'_>, expr: &Expr, grid: &Grid) -> Result<Frame, QueryError> {
    let streams = evaluator.over_windows(expr, grid, Column::Last, |_| Some(1.0))?;
    Ok(invert(&streams, expr, grid))
}

fn invert(streams: &[Stream], expr: &Expr, grid: &Grid) -> Frame {
    let mut values = vec![1.0; grid.count];
    for (step, _) in streams.iter().flat_map(Stream::present) {
        values[step] = ABSENT;
    }
    let stream = Stream { labels: labels(expr), drop_name: false, values };
    Frame::Vector(if stream.is_empty() { Vec::new() } else { vec![stream] })
}

/// The labels that a selector asks to be equal to one value, each asked for once.
fn labels(expr: &Expr) -> Labels {
    let selector = match expr.unwrapped() {
        Expr::Selector(selector) => selector,
        Expr::Range(range) => &range.selector,
        _ => return Labels::empty(),
    };
    let mut equal: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for matcher in selector.matchers.iter().filter(|matcher| matcher.name != NAME) {
        let value = match &matcher.op {
            MatchOp::Equal(value) if !equal.contains_key(matcher.name.as_str()) => Some(value.as_str()),
            _ => None,
        };
        equal.insert(&matcher.name, value);
    }
    Labels::new(equal.into_iter().filter_map(|(name, value)| Some((name, value?))))
}
