//! The two ways to ask, at one time and over a range, and the answer: names dropped, like series merged, order made.

use std::collections::HashMap;

use crate::query::ast::{Edges, Expr};
use crate::query::durations::{Context, resolve};
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{Frame, Grid, StepRange, Stream, is_absent};
use crate::query::functions::filled;
use crate::query::limits::Limits;
use crate::query::matching::is_about_metric;
use crate::query::source::Source;
use crate::query::stats::{Clock, Stats};
use crate::series::{Labels, Sample, Timestamp};

/// The result of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What it is.
    pub value: Value,
    /// What is likely a mistake in the query or the data.
    pub warnings: Vec<String>,
    /// What is worth knowing.
    pub infos: Vec<String>,
    /// What it cost, if [`Limits::counts_samples`] asked for it.
    pub stats: Option<Stats>,
}

/// The value of a query.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number at a time.
    Scalar(Timestamp, f64),
    /// A string.
    Text(String),
    /// Series with a sample each, at one time.
    Vector(Vec<InstantSample>),
    /// Series with many samples, ordered by labels.
    Matrix(Vec<RangeSeries>),
}

/// A series of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct InstantSample {
    /// Its labels.
    pub labels: Labels,
    /// Its sample; the time is that of the evaluation.
    pub sample: Sample,
}

/// A series of a matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its samples, sorted by time, never empty.
    pub samples: Vec<Sample>,
}

/// Evaluates at one time. A range selector or subquery gives the samples themselves.
///
/// # Errors
/// The expression has no value, a limit was met, or the source failed.
pub fn instant(source: &dyn Source, expr: &Expr, at: Timestamp, limits: &Limits) -> Result<Answer, QueryError> {
    let mut clock = Clock::start();
    let grid = Grid::once(at);
    let expr = &*resolve(expr, Context { step_s: 0.0, range_s: 0.0 })?;
    let evaluator = Evaluator::new(source, limits, (expr, grid), false);
    clock.prepared();
    let value = match expr.unwrapped() {
        Expr::Range(_) | Expr::Subquery(_) => {
            let windows = evaluator.windows(expr, &grid)?;
            let mut series = Vec::new();
            let ends_at = windows.ends.at(&grid, 0);
            for one in windows.series {
                let mut samples = one.samples;
                let starts_at = ends_at - windows.range_ms;
                if windows.edges == Edges::Open {
                    samples.retain(|sample| sample.t > starts_at && sample.t <= ends_at);
                } else {
                    samples = filled(&samples, starts_at, ends_at, windows.edges == Edges::Smoothed);
                }
                let labels = final_labels(one.labels, one.drop_name);
                if !samples.is_empty() {
                    series.push(RangeSeries { labels, samples });
                }
            }
            series.sort_by(|a, b| a.labels.cmp(&b.labels));
            Value::Matrix(series)
        }
        _ => {
            let frame = evaluator.eval(expr, &grid)?;
            clock.evaluated();
            match frame {
                Frame::Scalar(values) => Value::Scalar(at, values.first().copied().unwrap_or(f64::NAN)),
                Frame::Text(text) => Value::Text(text),
                Frame::Vector(streams) => Value::Vector(instant_samples(streams, at)?),
            }
        }
    };
    Ok(answer(evaluator, clock, &grid, value))
}

/// Evaluates at each step of a range; both ends belong to it.
///
/// # Errors
/// The range or step makes no sense, the expression has no value, a limit was met, or the source failed.
pub fn range(source: &dyn Source, expr: &Expr, range: StepRange, limits: &Limits) -> Result<Answer, QueryError> {
    let mut clock = Clock::start();
    let grid = grid(range, limits)?;
    let kind = match expr.unwrapped() {
        Expr::Range(_) | Expr::Subquery(_) => Some("range vector"),
        Expr::Text(_) => Some("string"),
        _ => None,
    };
    if let Some(kind) = kind {
        return Err(QueryError::NotRangeable { kind });
    }
    let context = Context {
        step_s: grid.step_ms as f64 / 1000.0,
        range_s: range.end.saturating_sub(range.start) as f64 / 1000.0,
    };
    let expr = &*resolve(expr, context)?;
    let evaluator = Evaluator::new(source, limits, (expr, grid), true);
    clock.prepared();
    let frame = evaluator.eval(expr, &grid)?;
    clock.evaluated();
    let streams = match frame {
        Frame::Scalar(values) => vec![Stream { labels: Labels::empty(), drop_name: false, values }],
        Frame::Text(_) => return Err(QueryError::NotRangeable { kind: "string" }),
        Frame::Vector(streams) => streams,
    };
    let mut series: Vec<RangeSeries> = finish(streams)?
        .into_iter()
        .map(|stream| {
            let samples = stream.present().map(|(step, v)| Sample { t: grid.at(step), v }).collect();
            RangeSeries { labels: stream.labels, samples }
        })
        .filter(|series| !series.samples.is_empty())
        .collect();
    series.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(answer(evaluator, clock, &grid, Value::Matrix(series)))
}

fn answer(evaluator: Evaluator<'_>, clock: Clock, grid: &Grid, value: Value) -> Answer {
    let stats = evaluator.limits.counts_samples.then(|| {
        let (per_step, peak) = evaluator.counted();
        clock.stats(per_step.into_iter().enumerate().map(|(step, samples)| (grid.at(step), samples)).collect(), peak)
    });
    let (warnings, infos) = evaluator.into_notes();
    Answer { value, warnings, infos, stats }
}

fn grid(range: StepRange, limits: &Limits) -> Result<Grid, QueryError> {
    let StepRange { start, end, step_ms } = range;
    if step_ms <= 0 {
        return Err(QueryError::StepNotPositive);
    }
    if end < start {
        return Err(QueryError::EndBeforeStart);
    }
    let intervals = end.saturating_sub(start) / step_ms;
    // Prometheus counts intervals, so that one step more than the limit passes.
    match usize::try_from(intervals) {
        Ok(intervals) if intervals <= limits.steps_max => Ok(Grid { start, step_ms, count: intervals + 1 }),
        _ => Err(QueryError::TooManySteps { steps_max: limits.steps_max }),
    }
}

fn instant_samples(streams: Vec<Stream>, at: Timestamp) -> Result<Vec<InstantSample>, QueryError> {
    let samples = finish(streams)?.into_iter().filter_map(|stream| {
        let (_, v) = stream.present().next()?;
        Some(InstantSample { labels: stream.labels, sample: Sample { t: at, v } })
    });
    Ok(samples.collect())
}

fn final_labels(labels: Labels, drop_name: bool) -> Labels {
    if drop_name { labels.without(is_about_metric) } else { labels }
}

/// Drops names where the values are no longer of that metric, and merges series that became alike.
fn finish(mut streams: Vec<Stream>) -> Result<Vec<Stream>, QueryError> {
    for stream in &mut streams {
        if stream.drop_name {
            stream.labels = stream.labels.without(is_about_metric);
            stream.drop_name = false;
        }
    }
    merge(streams)
}

/// Makes one stream of those with the same labels and the same fate of their name, in the order of the first.
///
/// # Errors
/// Two of them have a value at the same step.
pub(super) fn merge(streams: Vec<Stream>) -> Result<Vec<Stream>, QueryError> {
    let hasher = foldhash::quality::RandomState::default();
    let mut places: HashMap<(Labels, bool), usize, _> = HashMap::with_capacity_and_hasher(streams.len(), hasher);
    let mut merged: Vec<Stream> = Vec::with_capacity(streams.len());
    for stream in streams {
        let place = *places.entry((stream.labels.clone(), stream.drop_name)).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(same) => merge_into(same, &stream)?,
            None => merged.push(stream),
        }
    }
    Ok(merged)
}

fn merge_into(into: &mut Stream, from: &Stream) -> Result<(), QueryError> {
    for (slot, value) in into.values.iter_mut().zip(&from.values) {
        if is_absent(*value) {
            continue;
        }
        if !is_absent(*slot) {
            return Err(QueryError::SameLabels);
        }
        *slot = *value;
    }
    Ok(())
}
