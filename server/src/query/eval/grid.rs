//! The times of an evaluation and the values at them: a column per series, one slot per step.

use crate::series::{Labels, STALE_NAN_BITS, Timestamp};

/// The range of a range query, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRange {
    /// First step.
    pub start: Timestamp,
    /// No step lies after it.
    pub end: Timestamp,
    /// Distance of the steps.
    pub step_ms: i64,
}

/// Evenly spaced times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) start: Timestamp,
    pub(crate) step_ms: i64,
    pub(crate) count: usize,
}

impl Grid {
    /// One time.
    pub(crate) fn once(at: Timestamp) -> Grid {
        Grid { start: at, step_ms: 1, count: 1 }
    }

    pub(crate) fn at(&self, step: usize) -> Timestamp {
        self.start + self.step_ms * step as i64
    }

    pub(crate) fn last(&self) -> Timestamp {
        self.at(self.count.saturating_sub(1))
    }
}

/// Stands in a column where there is no value. The bit pattern is the staleness marker's: markers end at the selectors
/// and arithmetic gives quiet NaNs only, so no value has it.
pub(crate) const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether a slot of a column is empty.
pub(crate) fn is_absent(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// One series over all steps.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) labels: Labels,
    /// The metric name is dropped from the answer: the value is no longer that metric.
    pub(crate) drop_name: bool,
    pub(crate) values: Vec<f64>,
}

impl Stream {
    /// The steps that have a value, with the value.
    pub(crate) fn present(&self) -> impl Iterator<Item = (usize, f64)> {
        self.values.iter().copied().enumerate().filter(|(_, value)| !is_absent(*value))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.iter().all(|value| is_absent(*value))
    }
}

/// What an expression is over all steps.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    Scalar(Vec<f64>),
    Text(String),
    Vector(Vec<Stream>),
}

impl Frame {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Frame::Scalar(_) => "scalar",
            Frame::Text(_) => "string",
            Frame::Vector(_) => "instant vector",
        }
    }

    /// Values held.
    pub(crate) fn cells(&self) -> u64 {
        match self {
            Frame::Scalar(values) => values.len() as u64,
            Frame::Text(_) => 0,
            Frame::Vector(streams) => streams.iter().map(|stream| stream.values.len() as u64).sum(),
        }
    }
}
