//! From samples to columns: instant selectors, and windows of samples for functions over ranges. The windows are open on
//! their left and move over samples that were read once.

use crate::query::ast::{At, Expr, Range, Selector, Subquery};
use crate::query::error::QueryError;
use crate::query::source::{SelectError, Selected, TimeRange};
use crate::series::{Labels, Sample, Timestamp};

use super::Evaluator;
use super::grid::{ABSENT, Frame, Grid, Stream};

/// Step of a subquery that names none; Prometheus takes its evaluation interval, which is a minute by default.
const SUBQUERY_STEP_MS: i64 = 60_000;

/// Series with the samples of all windows of a range expression.
pub(crate) struct Windows {
    pub(crate) series: Vec<WindowSeries>,
    pub(crate) range_ms: i64,
    /// Where the windows end.
    pub(crate) ends: Ends,
}

/// One series of [`Windows`].
pub(crate) struct WindowSeries {
    pub(crate) labels: Labels,
    pub(crate) drop_name: bool,
    /// Sorted by time, without staleness markers.
    pub(crate) samples: Vec<Sample>,
}

/// Where windows or lookbacks end: at each step or, after `@`, at one time; less an offset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    fixed: Option<Timestamp>,
    offset_ms: i64,
}

impl Ends {
    /// The end that belongs to a step.
    pub(crate) fn at(&self, grid: &Grid, step: usize) -> Timestamp {
        self.fixed.unwrap_or_else(|| grid.at(step)) - self.offset_ms
    }

    /// Whether all steps have the same end.
    pub(crate) fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// The steps that differ: all, or one that stands for all.
    fn grid(&self, grid: &Grid) -> Grid {
        match self.fixed {
            Some(at) => Grid::once(at - self.offset_ms),
            None => Grid { start: grid.start - self.offset_ms, ..*grid },
        }
    }
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
}

impl Evaluator<'_> {
    /// The last sample of each series within the lookback before each step.
    pub(crate) fn instant_selector(&self, selector: &Selector, grid: &Grid) -> Result<Vec<Stream>, QueryError> {
        self.last_samples(selector, grid, |sample| sample.v)
    }

    /// The times in seconds of the samples that [`Evaluator::instant_selector`] gives.
    pub(crate) fn sample_times(&self, selector: &Selector, grid: &Grid) -> Result<Vec<Stream>, QueryError> {
        self.last_samples(selector, grid, |sample| sample.t as f64 / 1000.0)
    }

    fn last_samples(
        &self,
        selector: &Selector,
        grid: &Grid,
        take: impl Fn(&Sample) -> f64,
    ) -> Result<Vec<Stream>, QueryError> {
        let ends = self.ends(selector.at, selector.offset_ms);
        let times = ends.grid(grid);
        let lookback_ms = self.limits.lookback_ms;
        let selected = self.select(selector, times.start - lookback_ms + 1, times.last())?;
        let mut streams = Vec::with_capacity(selected.len());
        for series in selected {
            let mut values = Vec::with_capacity(grid.count);
            let mut next = 0;
            for step in 0..times.count {
                let at = times.at(step);
                while series.samples.get(next).is_some_and(|sample| sample.t <= at) {
                    next += 1;
                }
                let last = next.checked_sub(1).map(|i| &series.samples[i]);
                let last = last.filter(|sample| sample.t > at - lookback_ms && !sample.is_stale());
                values.push(last.map_or(ABSENT, &take));
            }
            if ends.is_fixed() {
                values.resize(grid.count, values.first().copied().unwrap_or(ABSENT));
            }
            self.hold(values.len() as u64)?;
            let stream = Stream { labels: series.labels, drop_name: false, values };
            if !stream.is_empty() {
                streams.push(stream);
            }
        }
        Ok(streams)
    }

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
        let selected = self.select(&range.selector, times.start - range.range_ms + 1, times.last())?;
        let series = selected.into_iter().map(|mut series| {
            series.samples.retain(|sample| !sample.is_stale());
            WindowSeries { labels: series.labels, drop_name: false, samples: series.samples }
        });
        let series = series.filter(|series| !series.samples.is_empty()).collect();
        Ok(Windows { series, range_ms: range.range_ms, ends })
    }

    fn subquery_windows(&self, subquery: &Subquery, grid: &Grid) -> Result<Windows, QueryError> {
        let ends = self.ends(subquery.at, subquery.offset_ms);
        let times = ends.grid(grid);
        let step_ms = subquery.step_ms.unwrap_or(SUBQUERY_STEP_MS).max(1);
        // The first multiple of the step inside the first window, which is open on its left.
        let start = ((times.start - subquery.range_ms).div_euclid(step_ms) + 1) * step_ms;
        let count = (times.last() - start).div_euclid(step_ms) + 1;
        let windows = |series| Windows { series, range_ms: subquery.range_ms, ends };
        let Ok(count @ 1..) = usize::try_from(count) else {
            return Ok(windows(Vec::new()));
        };
        if count as u64 > self.samples_left() {
            return Err(QueryError::TooManySamples { samples_max: self.limits.samples_max });
        }
        let inner = Grid { start, step_ms, count };
        let streams = match self.eval(&subquery.expr, &inner)? {
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

    /// Calls `of` for each window of each series that has samples in it; series without any value are left out.
    pub(crate) fn over_windows(
        &self,
        windows: Windows,
        grid: &Grid,
        mut of: impl FnMut(&Window<'_>) -> Option<f64>,
    ) -> Result<Vec<Stream>, QueryError> {
        let Windows { series, range_ms, ends } = windows;
        let mut streams = Vec::with_capacity(series.len());
        for WindowSeries { labels, drop_name, samples } in series {
            let mut values = Vec::with_capacity(grid.count);
            let (mut from, mut to) = (0, 0);
            for step in 0..grid.count {
                let end = ends.at(grid, step);
                while samples.get(to).is_some_and(|sample| sample.t <= end) {
                    to += 1;
                }
                while samples.get(from).is_some_and(|sample| sample.t <= end - range_ms) {
                    from += 1;
                }
                let within = &samples[from.min(to)..to];
                let window = Window { samples: within, end, range_ms, at: grid.at(step), step };
                let value = if within.is_empty() { None } else { of(&window) };
                values.push(value.unwrap_or(ABSENT));
                self.worked(within.len() as u64 + 1)?;
            }
            self.hold(values.len() as u64)?;
            let stream = Stream { labels, drop_name, values };
            if !stream.is_empty() {
                streams.push(stream);
            }
        }
        Ok(streams)
    }

    fn ends(&self, at: Option<At>, offset_ms: i64) -> Ends {
        let fixed = at.map(|at| match at {
            At::Start => self.query.start,
            At::End => self.query.last(),
            At::Time(t) => t,
        });
        Ends { fixed, offset_ms }
    }

    /// Series in the order of their labels.
    fn select(&self, selector: &Selector, from: Timestamp, to: Timestamp) -> Result<Vec<Selected>, QueryError> {
        let range = TimeRange { from, to };
        let mut selected =
            self.source.select(&selector.matchers, range, self.samples_left()).map_err(|error| match error {
                SelectError::TooManySamples { .. } => {
                    QueryError::TooManySamples { samples_max: self.limits.samples_max }
                }
                SelectError::Read(_) => QueryError::Select(error),
            })?;
        self.hold(selected.iter().map(|series| series.samples.len() as u64).sum())?;
        selected.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(selected)
    }
}
