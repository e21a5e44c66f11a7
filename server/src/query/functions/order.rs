//! Sorting: by value, or by labels in the order people count in. It has no effect in a range query.

use std::cmp::Ordering;

use crate::query::ast::Call;
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{ABSENT, Frame, Grid, Stream};

use super::arg;

/// `sort`, `sort_desc`, `sort_by_label`, `sort_by_label_desc`.
pub(super) fn call(evaluator: &Evaluator<'_>, call: &Call, grid: &Grid) -> Result<Frame, QueryError> {
    let mut streams = evaluator.vector(arg(call, 0)?, grid)?;
    if evaluator.is_range {
        evaluator.warn("sort is ineffective for range queries since results are always ordered by labels", call.place);
        return Ok(Frame::Vector(streams));
    }
    let labels =
        (1..call.args.len()).map(|place| evaluator.text(arg(call, place)?, grid)).collect::<Result<Vec<_>, _>>()?;
    match call.function.as_str() {
        "sort" => streams.sort_by(|a, b| by_value(a, b, false)),
        "sort_desc" => streams.sort_by(|a, b| by_value(a, b, true)),
        "sort_by_label" => streams.sort_by(|a, b| by_labels(a, b, &labels)),
        _ => streams.sort_by(|a, b| by_labels(b, a, &labels)),
    }
    Ok(Frame::Vector(streams))
}

/// NaN comes last either way.
fn by_value(a: &Stream, b: &Stream, descending: bool) -> Ordering {
    let value = |stream: &Stream| stream.values.first().copied().unwrap_or(ABSENT);
    let (a, b) = (value(a), value(b));
    match (a.is_nan(), b.is_nan()) {
        (false, false) if descending => b.total_cmp(&a),
        (false, false) => a.total_cmp(&b),
        (a, b) => a.cmp(&b),
    }
}

fn by_labels(a: &Stream, b: &Stream, labels: &[String]) -> Ordering {
    for label in labels {
        let value = |stream: &Stream| stream.labels.get(label).unwrap_or("").to_owned();
        match natural(&value(a), &value(b)) {
            Ordering::Equal => {}
            order => return order,
        }
    }
    a.labels.cmp(&b.labels)
}

/// Runs of digits are compared as numbers: `cpu2` before `cpu10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let ((a_run, a_rest), (b_run, b_rest)) = (run(a), run(b));
        let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let order = if digits(a_run) && digits(b_run) {
            let trim = |run: &str| run.trim_start_matches('0').to_owned();
            let (a_number, b_number) = (trim(a_run), trim(b_run));
            a_number.len().cmp(&b_number.len()).then_with(|| a_number.cmp(&b_number)).then_with(|| a_run.cmp(b_run))
        } else {
            a_run.cmp(b_run)
        };
        if order != Ordering::Equal || a_run.is_empty() {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
}

/// The first run of digits or of anything else, and what follows it.
fn run(text: &str) -> (&str, &str) {
    let is_digit = |c: char| c.is_ascii_digit();
    let first = text.starts_with(is_digit);
    let end = text.find(|c: char| is_digit(c) != first).unwrap_or(text.len());
    text.split_at(end)
}
