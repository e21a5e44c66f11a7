//! From samples to columns: instant selectors, and the reading of series that windows are made of, too.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::query::ast::{At, Edges, Selector};
use crate::query::error::QueryError;
use crate::query::functions::between;
use crate::query::source::{Column, SelectError, Selected, TimeRange, View};
use crate::series::{Labels, Sample, Timestamp};

use super::Evaluator;
use super::grid::{ABSENT, Grid, Stream};
use super::pieces::in_pieces;
use super::shared::{KEPT_SAMPLES_MAX, Turn, samples_of};

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
    pub(super) fn grid(&self, grid: &Grid) -> Grid {
        match self.fixed {
            Some(at) => Grid::once(at - self.offset_ms),
            None => Grid { start: grid.start - self.offset_ms, ..*grid },
        }
    }
}

impl Evaluator<'_> {
    /// The last sample of each series within the lookback before each step.
    pub(crate) fn instant_selector(&self, selector: &Selector, grid: &Grid) -> Result<Vec<Stream>, QueryError> {
        if selector.edges == Edges::Smoothed {
            return self.smoothed_selector(selector, grid);
        }
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
        take: impl Fn(&Sample) -> f64 + Sync,
    ) -> Result<Vec<Stream>, QueryError> {
        let ends = self.ends(selector.at, selector.offset_ms);
        let times = ends.grid(grid);
        let (lookback_ms, meter) = (self.limits.lookback_ms, &self.meter);
        let range = TimeRange { from: times.start - lookback_ms + 1, to: times.last() };
        let view = View { column: Column::Last, window_ms: lookback_ms };
        self.each_series(selector, range, view, |labels, samples| {
            let mut values = Vec::with_capacity(grid.count);
            let (mut next, mut found) = (0, false);
            for step in 0..times.count {
                let at = times.at(step);
                next += samples[next..].iter().take_while(|sample| sample.t <= at).count();
                let last = next.checked_sub(1).map(|i| &samples[i]);
                let last = last.filter(|sample| sample.t > at - lookback_ms && !sample.is_stale());
                found |= last.is_some();
                values.push(last.map_or(ABSENT, &take));
            }
            if ends.is_fixed() {
                values.resize(grid.count, values.first().copied().unwrap_or(ABSENT));
            }
            meter.hold(values.len() as u64)?;
            meter.count_present(&values);
            Ok(found.then(|| Stream { labels: labels.clone(), drop_name: false, values }))
        })
    }

    /// At each step a line through the last sample before and the next one after, both within the lookback.
    fn smoothed_selector(&self, selector: &Selector, grid: &Grid) -> Result<Vec<Stream>, QueryError> {
        let ends = self.ends(selector.at, selector.offset_ms);
        let times = ends.grid(grid);
        let (lookback_ms, meter) = (self.limits.lookback_ms, &self.meter);
        let range = TimeRange { from: times.start - lookback_ms + 1, to: times.last() + lookback_ms };
        let view = View { column: Column::Last, window_ms: lookback_ms };
        self.each_series(selector, range, view, |labels, samples| {
            let samples = without_markers(samples);
            let mut values = Vec::with_capacity(grid.count);
            for step in 0..times.count {
                let at = times.at(step);
                let next = samples.partition_point(|sample| sample.t < at);
                let before = next.checked_sub(1).map(|i| &samples[i]).filter(|sample| sample.t > at - lookback_ms);
                let after = samples.get(next).filter(|sample| sample.t <= at + lookback_ms);
                values.push(match (before, after) {
                    (_, Some(after)) if after.t == at => after.v,
                    (Some(before), Some(after)) => between(before, after, at, false),
                    (Some(before), None) => before.v,
                    (None, _) => ABSENT,
                });
            }
            if ends.is_fixed() {
                values.resize(grid.count, values.first().copied().unwrap_or(ABSENT));
            }
            meter.hold(values.len() as u64)?;
            meter.count_present(&values);
            let stream = Stream { labels: labels.clone(), drop_name: false, values };
            Ok((!stream.is_empty()).then_some(stream))
        })
    }

    pub(super) fn ends(&self, at: Option<At>, offset_ms: i64) -> Ends {
        let fixed = at.map(|at| match at {
            At::Start => self.query.start,
            At::End => self.query.last(),
            At::Time(t) => t,
        });
        Ends { fixed, offset_ms }
    }

    /// What `of` makes of each series, in the order of the source. A selector that stands in the query twice is read once.
    pub(super) fn each_series<T: Send>(
        &self,
        selector: &Selector,
        range: TimeRange,
        view: View,
        of: impl Fn(&Labels, &[Sample]) -> Result<Option<T>, QueryError> + Sync,
    ) -> Result<Vec<T>, QueryError> {
        let key = match self.shared.turn(selector, range, view) {
            Turn::Alone(let_go) => {
                self.meter.end_keeping(let_go);
                return Ok(self.read_series(selector, range, view, of)?.0);
            }
            Turn::Again(series, let_go) => {
                self.meter.end_keeping(let_go);
                let series: &[Selected] = &series;
                return in_pieces(series.len(), |piece| {
                    series[piece].iter().filter_map(|one| of(&one.labels, &one.samples).transpose()).collect()
                });
            }
            Turn::First(key) => key,
        };
        let seen = AtomicU64::new(0);
        let (both, is_plain) = self.read_series(selector, range, view, |labels, samples| {
            let samples_seen = samples.len() as u64 + seen.fetch_add(samples.len() as u64, Ordering::Relaxed);
            let keeps = samples_seen <= KEPT_SAMPLES_MAX;
            let kept = keeps.then(|| Selected { labels: labels.clone(), samples: samples.to_vec() });
            Ok(Some((of(labels, samples)?, kept)))
        })?;
        let (made, kept): (Vec<_>, Vec<_>) = both.into_iter().unzip();
        if seen.into_inner() <= KEPT_SAMPLES_MAX {
            let kept: Vec<Selected> = kept.into_iter().flatten().collect();
            self.meter.keep(samples_of(&kept));
            self.shared.keep(key, range, (!is_plain).then_some(view), kept);
        }
        Ok(made.into_iter().flatten().collect())
    }

    /// What `of` makes of each series that is read, and whether any view would have seen the same samples.
    fn read_series<T: Send>(
        &self,
        selector: &Selector,
        range: TimeRange,
        view: View,
        of: impl Fn(&Labels, &[Sample]) -> Result<Option<T>, QueryError> + Sync,
    ) -> Result<(Vec<T>, bool), QueryError> {
        let (meter, samples_max) = (&self.meter, self.limits.samples_max);
        let failed = |error| match error {
            SelectError::TooManySamples { .. } => QueryError::TooManySamples { samples_max },
            SelectError::Read(_) => QueryError::Select(error),
        };
        let found = self.source.find(&selector.matchers, range, view, self.samples_left()).map_err(failed)?;
        let made = in_pieces(found.count(), |piece| {
            let mut made = Vec::with_capacity(piece.len());
            let mut stopped = None;
            let mut show = |labels: &Labels, samples: &[Sample]| {
                match meter.hold(samples.len() as u64).and_then(|()| of(labels, samples)) {
                    Ok(one) => made.extend(one),
                    Err(error) => stopped = Some(error),
                }
                if stopped.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            found.read(piece, &mut show).map_err(failed)?;
            stopped.map_or(Ok(made), Err)
        })?;
        let notes = found.notes();
        let is_plain = notes.is_empty();
        self.pass_on(notes);
        Ok((made, is_plain))
    }
}

/// The samples that are values.
pub(super) fn without_markers(samples: &[Sample]) -> Cow<'_, [Sample]> {
    if samples.iter().any(Sample::is_stale) {
        return samples.iter().copied().filter(|sample| !sample.is_stale()).collect();
    }
    Cow::Borrowed(samples)
}
