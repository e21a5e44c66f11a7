//! Walks an expression once and gives its value at every step. Each node works on whole columns, so that the samples of
//! a selector are read once for all steps. It stops at the deadline, at a cancel and at the limit of samples.

pub(crate) mod grid;
mod meter;
mod pieces;
pub(crate) mod select;
mod shared;
pub(crate) mod windows;

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::query::aggregate;
use crate::query::ast::{Expr, Place};
use crate::query::binary;
use crate::query::error::QueryError;
use crate::query::functions;
use crate::query::limits::Limits;
use crate::query::print::general;
use crate::query::source::{Note, Source};

use grid::{Frame, Grid, Stream};
use meter::Meter;
use shared::Shared;

/// Warnings and infos shown of one query, as Prometheus does.
const NOTES_SHOWN: usize = 10;
/// Warnings and infos kept of one query to tell how many are not shown; those beyond are not counted.
const NOTES_MAX: usize = 1000;

/// One evaluation: its source, its limits and what it has used of them.
pub(crate) struct Evaluator<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) limits: &'a Limits,
    /// The steps of the whole query, which `@ start()` and `@ end()` mean also inside subqueries.
    pub(crate) query: Grid,
    /// A range query: its answer is ordered by labels, so that sorting has no effect.
    pub(crate) is_range: bool,
    pub(super) meter: Meter<'a>,
    shared: Shared,
    warnings: RefCell<BTreeSet<String>>,
    infos: RefCell<BTreeSet<String>>,
}

impl<'a> Evaluator<'a> {
    /// Of an expression whose durations are computed, at these steps.
    pub(crate) fn new(
        source: &'a dyn Source,
        limits: &'a Limits,
        (expr, query): (&Expr, Grid),
        is_range: bool,
    ) -> Evaluator<'a> {
        Evaluator {
            source,
            limits,
            query,
            is_range,
            meter: Meter::new(limits, if limits.counts_samples { query.count } else { 0 }),
            shared: Shared::of(expr, limits.lookback_ms),
            warnings: RefCell::default(),
            infos: RefCell::default(),
        }
    }

    /// The value of `expr` at each step of `grid`.
    pub(crate) fn eval(&self, expr: &Expr, grid: &Grid) -> Result<Frame, QueryError> {
        self.meter.check_stop()?;
        let before = self.meter.held();
        let frame = match expr {
            Expr::Number(value) => Frame::Scalar(vec![*value; grid.count]),
            Expr::Text(text) => Frame::Text(text.clone()),
            Expr::Paren(inner) => self.eval(inner, grid)?,
            Expr::Negate(inner) => negate(self.eval(inner, grid)?)?,
            Expr::Selector(selector) => Frame::Vector(self.instant_selector(selector, grid)?),
            Expr::Range(_) | Expr::Subquery(_) => {
                return Err(QueryError::Mistyped { expected: "instant vector", got: "range vector" });
            }
            Expr::Call(call) => functions::call(self, call, grid)?,
            Expr::Aggregate(aggregate) => aggregate::eval(self, aggregate, grid)?,
            Expr::Binary(binary) => binary::eval(self, binary, grid)?,
        };
        // What the node used on its way is gone, its value stays until its parent is done.
        self.meter.let_go(before);
        self.hold(frame.cells())?;
        Ok(frame)
    }

    /// An instant vector.
    pub(crate) fn vector(&self, expr: &Expr, grid: &Grid) -> Result<Vec<Stream>, QueryError> {
        match self.eval(expr, grid)? {
            Frame::Vector(streams) => Ok(streams),
            other => Err(QueryError::Mistyped { expected: "instant vector", got: other.kind() }),
        }
    }

    /// A number per step.
    pub(crate) fn scalar(&self, expr: &Expr, grid: &Grid) -> Result<Vec<f64>, QueryError> {
        match self.eval(expr, grid)? {
            Frame::Scalar(values) => Ok(values),
            other => Err(QueryError::Mistyped { expected: "scalar", got: other.kind() }),
        }
    }

    /// A string.
    pub(crate) fn text(&self, expr: &Expr, grid: &Grid) -> Result<String, QueryError> {
        match self.eval(expr, grid)? {
            Frame::Text(text) => Ok(text),
            other => Err(QueryError::Mistyped { expected: "string", got: other.kind() }),
        }
    }

    /// [`Meter::hold`].
    pub(crate) fn hold(&self, samples: u64) -> Result<(), QueryError> {
        self.meter.hold(samples)
    }

    /// [`Meter::samples_left`].
    pub(crate) fn samples_left(&self) -> u64 {
        self.meter.samples_left()
    }

    /// [`Meter::worked`].
    pub(crate) fn worked(&self, samples: u64) -> Result<(), QueryError> {
        self.meter.worked(samples)
    }

    /// Tells of something that is likely a mistake in the query.
    pub(crate) fn warn(&self, text: &str, place: Place) {
        note(&self.warnings, format!("PromQL warning: {text} ({place})"));
    }

    /// Tells of something worth knowing.
    pub(crate) fn inform(&self, text: &str, place: Place) {
        note(&self.infos, format!("PromQL info: {text} ({place})"));
    }

    /// Passes on what the source says of its samples.
    pub(crate) fn pass_on(&self, notes: Vec<Note>) {
        for said in notes {
            match said {
                Note::Warning(text) => note(&self.warnings, text),
                Note::Info(text) => note(&self.infos, text),
            }
        }
    }

    /// Warns of quantiles that are none, the first time one is met.
    pub(crate) fn check_quantiles(&self, quantiles: &[f64], place: Place) {
        for (i, wrong) in quantiles.iter().enumerate().filter(|(_, q)| !(0.0..=1.0).contains(*q)) {
            if i == 0 || quantiles[i - 1].to_bits() != wrong.to_bits() {
                self.warn(&format!("quantile value should be between 0 and 1, got {}", general(*wrong)), place);
            }
        }
    }

    /// Samples looked at at each step and the most held at a time.
    pub(crate) fn counted(&self) -> (Vec<u64>, u64) {
        self.meter.counter.result()
    }

    /// Warnings and infos, in this order.
    pub(crate) fn into_notes(self) -> (Vec<String>, Vec<String>) {
        (shown(self.warnings.into_inner(), "warning"), shown(self.infos.into_inner(), "info"))
    }
}

fn note(notes: &RefCell<BTreeSet<String>>, text: String) {
    let mut notes = notes.borrow_mut();
    if notes.len() < NOTES_MAX {
        notes.insert(text);
    }
}

/// The first notes and how many more there are.
fn shown(notes: BTreeSet<String>, kind: &str) -> Vec<String> {
    let omitted = notes.len().saturating_sub(NOTES_SHOWN);
    let mut shown: Vec<String> = notes.into_iter().take(NOTES_SHOWN).collect();
    if omitted > 0 {
        shown.push(format!("{omitted} more {kind} annotations omitted"));
    }
    shown
}

fn negate(frame: Frame) -> Result<Frame, QueryError> {
    match frame {
        Frame::Scalar(values) => Ok(Frame::Scalar(values.into_iter().map(|value| -value).collect())),
        Frame::Vector(mut streams) => {
            for stream in &mut streams {
                stream.drop_name = true;
                functions::map_values(&mut stream.values, |value| -value);
            }
            Ok(Frame::Vector(streams))
        }
        Frame::Text(_) => Err(QueryError::Mistyped { expected: "scalar or instant vector", got: "string" }),
    }
}
