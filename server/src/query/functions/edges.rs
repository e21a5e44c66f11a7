//! Functions over windows whose edges are filled: `anchored` takes the last sample before the window, `smoothed` lies a
//! line through the samples on both sides of an edge. The windows hold those samples too.

use crate::query::ast::{Call, Edges, Expr};
use crate::query::error::QueryError;
use crate::query::eval::windows::Window;
use crate::series::{Sample, Timestamp};

use super::rate;

/// Refuses functions that would take the samples beyond the edges for samples of the window.
pub(super) fn check(call: &Call) -> Result<(), QueryError> {
    for arg in &call.args {
        let Expr::Range(range) = arg.unwrapped() else { continue };
        let function = call.function.as_str();
        let (modifier, allowed, fits) = match range.selector.edges {
            Edges::Open => continue,
            Edges::Anchored => ("anchored", "changes, delta, increase, rate, resets", anchored(function).is_some()),
            Edges::Smoothed => ("smoothed", "delta, increase, rate", smoothed(function).is_some()),
        };
        if !fits {
            return Err(QueryError::EdgesUnsafe { modifier, allowed, function: function.to_owned() });
        }
    }
    Ok(())
}

type OfWindow = fn(&Window<'_>) -> Option<f64>;

/// The function of this name for windows with such edges.
pub(super) fn function(name: &str, edges: Edges) -> Option<OfWindow> {
    match edges {
        Edges::Open => None,
        Edges::Anchored => anchored(name),
        Edges::Smoothed => smoothed(name),
    }
}

fn anchored(name: &str) -> Option<OfWindow> {
    Some(match name {
        "changes" => |window| since_anchor(window, false).map(|window| rate::changes(&window)),
        "resets" => |window| since_anchor(window, false).map(|window| rate::resets(&window)),
        _ => return smoothed_or_anchored(name, false),
    })
}

fn smoothed(name: &str) -> Option<OfWindow> {
    smoothed_or_anchored(name, true)
}

fn smoothed_or_anchored(name: &str, smooth: bool) -> Option<OfWindow> {
    Some(match (name, smooth) {
        ("rate", false) => |window| per_second(window, change(window, false, true)),
        ("rate", true) => |window| per_second(window, change(window, true, true)),
        ("increase", false) => |window| change(window, false, true),
        ("increase", true) => |window| change(window, true, true),
        ("delta", false) => |window| change(window, false, false),
        ("delta", true) => |window| change(window, true, false),
        _ => return None,
    })
}

fn per_second(window: &Window<'_>, change: Option<f64>) -> Option<f64> {
    change.map(|change| change / (window.range_ms as f64 / 1000.0))
}

/// First and last sample that matter to a window, which may lie beyond its edges; `None` where nothing lies in it.
fn bounds(samples: &[Sample], start: Timestamp, end: Timestamp, smooth: bool) -> Option<(usize, usize)> {
    let rest = samples.len().checked_sub(1)?;
    let first = samples[..rest].partition_point(|sample| sample.t <= start).saturating_sub(1);
    let last = if smooth { samples[..rest].partition_point(|sample| sample.t < end) } else { rest };
    (samples[last].t > start).then_some((first, last))
}

/// The window from its anchor on, the last sample before it.
fn since_anchor<'a>(window: &Window<'a>, smooth: bool) -> Option<Window<'a>> {
    let (first, _) = bounds(window.samples, window.end - window.range_ms, window.end, smooth)?;
    Some(window.skip(first))
}

/// The difference between the values at the edges; of a counter with what its resets took away.
fn change(window: &Window<'_>, smooth: bool, is_counter: bool) -> Option<f64> {
    let (samples, start, end) = (window.samples, window.end - window.range_ms, window.end);
    let (mut first, last) = bounds(samples, start, end, smooth)?;
    if smooth && samples[first].t > end {
        return None;
    }
    let (left, right) = edge_values(samples, (first, last), (start, end), (smooth, is_counter));
    let mut change = right - left;
    if is_counter {
        first += usize::from(samples[first].t <= start);
        let inner_end = if samples[last].t >= end { last } else { last + 1 };
        let mut before = left;
        for sample in samples.get(first..inner_end).unwrap_or_default() {
            if sample.v < before {
                change += before;
            }
            before = sample.v;
        }
        if right < before {
            change += before;
        }
    }
    Some(change)
}

/// The values at the left and the right edge.
fn edge_values(
    samples: &[Sample],
    (first, last): (usize, usize),
    (start, end): (Timestamp, Timestamp),
    (smooth, is_counter): (bool, bool),
) -> (f64, f64) {
    let left = match samples.get(first + 1) {
        Some(next) if smooth && samples[first].t < start => between(&samples[first], next, start, is_counter),
        _ => samples[first].v,
    };
    let right = match last.checked_sub(1) {
        Some(before) if smooth && samples[last].t > end => between(&samples[before], &samples[last], end, is_counter),
        _ => samples[last].v,
    };
    (left, right)
}

/// The value of the line through two samples. A counter that fell between them began again at zero.
pub(in crate::query) fn between(before: &Sample, after: &Sample, at: Timestamp, is_counter: bool) -> f64 {
    let from = if is_counter && after.v < before.v { 0.0 } else { before.v };
    from + (after.v - from) * (at - before.t) as f64 / (after.t - before.t) as f64
}

/// The samples of a window with one at each of its edges.
pub(in crate::query) fn filled(samples: &[Sample], start: Timestamp, end: Timestamp, smooth: bool) -> Vec<Sample> {
    let Some((first, last)) = bounds(samples, start, end, smooth) else {
        return Vec::new();
    };
    let (left, right) = edge_values(samples, (first, last), (start, end), (smooth, false));
    let inner_start = first + usize::from(samples[first].t <= start);
    let inner_end = if samples[last].t >= end { last } else { last + 1 };
    let inner = samples.get(inner_start..inner_end).unwrap_or_default();
    let edge = |t, v| Sample { t, v };
    std::iter::once(edge(start, left)).chain(inner.iter().copied()).chain([edge(end, right)]).collect()
}
