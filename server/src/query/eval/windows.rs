//! Windows of samples for functions over ranges. They are open on their left and move over samples that were read once, one
//! series after the other.

use std::cell::OnceCell;

use crate::query::ast::{Edges, Expr, Range, Subquery};
use crate::query::error::QueryError;
use crate::query::source::{Column, TimeRange, View};
use crate::series::{Labels, Sample, Timestamp};

use super::Evaluator;
use super::grid::{ABSENT, Frame, Grid, Stream};
use super::meter::Meter;
use super::pieces::in_pieces;
use super::select::{Ends, without_markers};

/// Step of a subquery that names none; Prometheus takes its evaluation interval, which is a minute by default.
const SUBQUERY_STEP_MS: i64 = 60_000;

/// Samples in windows of one series after which it is asked whether to go on.
const LOOK_AFTER: u64 = 1 << 14;

/// Series with the samples of all windows of a range expression.
pub(crate) struct Windows {
    pub(crate) series: Vec<WindowSeries>,
    pub(crate) range_ms: i64,
    /// Where the windows end.
    pub(crate) ends: Ends,
    /// What stands at their edges. Where something does, the samples reach farther than the windows.
    pub(crate) edges: Edges,
}

/// One series of [`Windows`].
pub(crate) struct WindowSeries {
    pub(crate) labels: Labels,
    pub(crate) drop_name: bool,
    /// Sorted by time, without staleness markers.
    pub(crate) samples: Vec<Sample>,
}

/// The samples of one window and what functions need to know of it.
pub(crate) struct Window<'a> {
    /// Samples within, oldest first; never empty.
    pub(crate) samples: &'a [Sample],
    /// Its right edge, which belongs to it.
    pub(crate) end: Timestamp,
    /// Its width.
    pub(crate) range_ms: i64,
    /// The time of the step, which differs from `end` by offsets and `@`.
    pub(crate) at: Timestamp,
    /// The step.
    pub(crate) step: usize,
    series: &'a Falls<'a>,
    /// Number of the first sample among the series'.
    first: usize,
}

impl<'a> Window<'a> {
    /// The window without its first samples.
    pub(crate) fn skip(&self, samples: usize) -> Window<'a> {
        Window { samples: &self.samples[samples..], first: self.first + samples, ..*self }
    }

    /// The values from which a counter fell to the next sample. The series is searched for them once, not in each window.
    pub(crate) fn before_falls(&self) -> impl Iterator<Item = f64> {
        let falls = self.series.places.get_or_init(|| {
            let pairs = self.series.samples.windows(2).enumerate();
            pairs.filter(|(_, pair)| pair[1].v < pair[0].v).map(|(place, _)| place).collect()
        });
        let from = falls.partition_point(|place| *place < self.first);
        let last = self.first + self.samples.len() - 1;
        falls[from..].iter().take_while(move |place| **place < last).map(|place| self.series.samples[*place].v)
    }
}

/// The samples of a series and, once asked for, the places after which they fall.
struct Falls<'a> {
    samples: &'a [Sample],
    places: OnceCell<Vec<usize>>,
}

/// The way of windows over series.
struct Slide<'a> {
    meter: &'a Meter<'a>,
    grid: &'a Grid,
    range_ms: i64,
    ends: Ends,
    /// How far samples are taken beyond a window, before it and after it.
    reach: (i64, i64),
}

impl Slide<'_> {
    /// The value of `of` at each window that has samples; `None` where there is none at all.
    fn over(
        &self,
        samples: &[Sample],
        of: &impl Fn(&Window<'_>) -> Option<f64>,
    ) -> Result<Option<Vec<f64>>, QueryError> {
        let series = Falls { samples, places: OnceCell::new() };
        let mut values = Vec::with_capacity(self.grid.count);
        let (mut from, mut to, mut work, mut found) = (0, 0, 0, false);
        let (before_ms, after_ms) = self.reach;
        let (counts, for_all) = (self.meter.counter.is_on(), self.ends.is_fixed() && self.grid.count == 1);
        for step in 0..self.grid.count {
            let end = self.ends.at(self.grid, step);
            to += samples[to..].iter().take_while(|sample| sample.t <= end + after_ms).count();
            let start = end - self.range_ms - before_ms;
            from += samples[from..to].iter().take_while(|sample| sample.t <= start).count();
            let within = &samples[from..to];
            let at = self.grid.at(step);
            let window =
                Window { samples: within, end, range_ms: self.range_ms, at, step, series: &series, first: from };
            let value = if within.is_empty() { None } else { of(&window) };
            found |= value.is_some();
            values.push(value.unwrap_or(ABSENT));
            work += within.len() as u64 + 1;
            if work > LOOK_AFTER {
                self.meter.worked(std::mem::take(&mut work))?;
            }
            if counts {
                self.meter.counter.count((!for_all).then_some(step), within.len() as u64);
            }
        }
        self.meter.worked(work)?;
        self.meter.hold(values.len() as u64)?;
        Ok(found.then_some(values))
    }
}

impl Evaluator<'_> {
    /// The windows of a range selector or subquery, in any parentheses.
    pub(crate) fn windows(&self, expr: &Expr, grid: &Grid) -> Result<Windows, QueryError> {
        match expr.unwrapped() {
            Expr::Range(range) => self.range_windows(range, grid),
            Expr::Subquery(subquery) => self.subquery_windows(subquery, grid),
            _ => Err(QueryError::Mistyped { expected: "range vector", got: "another type" }),
        }
    }

    fn range_windows(&self, range: &Range, grid: &Grid) -> Result<Windows, QueryError> {
        let ends = self.ends(range.selector.at, range.selector.offset_ms);
        let times = ends.grid(grid);
        let edges = range.selector.edges;
        let covered = range_of(&times, range.range_ms, self.reach(edges));
        let view = View { column: Column::Last, window_ms: range.range_ms };
        let series = self.each_series(&range.selector, covered, view, |labels, samples| {
            let samples = without_markers(samples).into_owned();
            let series = WindowSeries { labels: labels.clone(), drop_name: false, samples };
            Ok((!series.samples.is_empty()).then_some(series))
        })?;
        Ok(Windows { series, range_ms: range.range_ms, ends, edges })
    }

    fn subquery_windows(&self, subquery: &Subquery, grid: &Grid) -> Result<Windows, QueryError> {
        let ends = self.ends(subquery.at, subquery.offset_ms);
        let times = ends.grid(grid);
        let step_ms = subquery.step_ms.unwrap_or(SUBQUERY_STEP_MS).max(1);
        // The first multiple of the step inside the first window, which is open on its left.
        let start = ((times.start - subquery.range_ms).div_euclid(step_ms) + 1) * step_ms;
        let count = (times.last() - start).div_euclid(step_ms) + 1;
        let windows = |series| Windows { series, range_ms: subquery.range_ms, ends, edges: Edges::Open };
        let Ok(count @ 1..) = usize::try_from(count) else {
            return Ok(windows(Vec::new()));
        };
        if count as u64 > self.samples_left() {
            return Err(QueryError::TooManySamples { samples_max: self.limits.samples_max });
        }
        let inner = Grid { start, step_ms, count };
        let streams = match self.meter.counter.muted(|| self.eval(&subquery.expr, &inner))? {
            Frame::Vector(streams) => streams,
            Frame::Scalar(values) => vec![Stream { labels: Labels::empty(), drop_name: false, values }],
            Frame::Text(_) => return Err(QueryError::Mistyped { expected: "instant vector", got: "string" }),
        };
        let mut series = Vec::with_capacity(streams.len());
        for stream in streams {
            let samples: Vec<Sample> = stream.present().map(|(step, v)| Sample { t: inner.at(step), v }).collect();
            self.hold(samples.len() as u64)?;
            series.push(WindowSeries { labels: stream.labels, drop_name: stream.drop_name, samples });
        }
        Ok(windows(series))
    }

    /// The value of `of` at each window of each series of a range selector or subquery; windows without samples have none, and
    /// series without any value are left out. Where raw samples are gone, `column` says what of them counts.
    pub(crate) fn over_windows(
        &self,
        expr: &Expr,
        grid: &Grid,
        column: Column,
        of: impl Fn(&Window<'_>) -> Option<f64> + Sync,
    ) -> Result<Vec<Stream>, QueryError> {
        let meter = &self.meter;
        if let Expr::Range(range) = expr.unwrapped() {
            let ends = self.ends(range.selector.at, range.selector.offset_ms);
            let reach = self.reach(range.selector.edges);
            let slide = Slide { meter, grid, range_ms: range.range_ms, ends, reach };
            let covered = range_of(&ends.grid(grid), range.range_ms, reach);
            let view = View { column, window_ms: range.range_ms };
            return self.each_series(&range.selector, covered, view, |labels, samples| {
                let values = slide.over(&without_markers(samples), &of)?;
                Ok(values.map(|values| Stream { labels: labels.clone(), drop_name: false, values }))
            });
        }
        let Windows { series, range_ms, ends, edges } = self.windows(expr, grid)?;
        let slide = Slide { meter, grid, range_ms, ends, reach: self.reach(edges) };
        in_pieces(series.len(), |piece| {
            let mut streams = Vec::with_capacity(piece.len());
            for WindowSeries { labels, drop_name, samples } in &series[piece] {
                let values = slide.over(samples, &of)?;
                streams.extend(values.map(|values| Stream { labels: labels.clone(), drop_name: *drop_name, values }));
            }
            Ok(streams)
        })
    }

    /// How far beyond a window's edges the samples reach that its edges need, before it and after it.
    fn reach(&self, edges: Edges) -> (i64, i64) {
        let lookback_ms = self.limits.lookback_ms;
        match edges {
            Edges::Open => (0, 0),
            Edges::Anchored => (lookback_ms, 0),
            Edges::Smoothed => (lookback_ms, lookback_ms),
        }
    }
}

/// Whether all steps see the same windows of an expression.
pub(crate) fn has_fixed_windows(expr: &Expr) -> bool {
    match expr.unwrapped() {
        Expr::Range(range) => range.selector.at.is_some(),
        Expr::Subquery(subquery) => subquery.at.is_some(),
        _ => false,
    }
}

/// The times that windows of this width and reach cover, which are open on their left.
fn range_of(ends: &Grid, range_ms: i64, (before_ms, after_ms): (i64, i64)) -> TimeRange {
    TimeRange { from: ends.start - range_ms - before_ms + 1, to: ends.last() + after_ms }
}

/// What stands at the edges of an expression's windows.
pub(crate) fn edges_of(expr: &Expr) -> Edges {
    match expr.unwrapped() {
        Expr::Range(range) => range.selector.edges,
        _ => Edges::Open,
    }
}
