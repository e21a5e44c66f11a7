//! What one stream of deltas adds up to, by the rules of OpenTelemetry's data model and of its collector's `deltatocumulative`: a
//! point that is not newer than the last is dropped, one that begins before the stream is, too; a gap loses what nobody sent and
//! the sum goes on, because a counter that begins anew without need would hide increases. Pure.

use super::exponential::Exponential;
use crate::series::{Sample, Timestamp};

/// Numbers, or what histograms count.
#[derive(Debug, Clone, PartialEq)]
pub enum Amount {
    /// A sum.
    Number(Sum),
    /// A histogram with boundaries of its own.
    Histogram(Counted, Classic),
    /// An exponential histogram.
    Exponential(Counted, Exponential),
}

/// A sum that is compensated against rounding (Neumaier 1974): streams add small numbers for months.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sum {
    value: f64,
    rest: f64,
}

/// Number and sum of a histogram's values; the sum is missing once a point had none.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: Option<Sum>,
}

/// Boundaries, and counts between them: one more, or none at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Classic {
    /// Upper boundaries, the last one left out.
    pub bounds: Vec<f64>,
    /// Values in each bucket.
    pub counts: Vec<u64>,
}

/// The time that a delta is of, in nanoseconds since 1970. A start of 0 is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct During {
    /// From here.
    pub start: u64,
    /// To here.
    pub end: u64,
}

/// A stream with what came so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// From its first point's start to its last point's end.
    pub during: During,
    /// What its points add up to.
    pub total: Amount,
}

/// How a point was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is the first of its stream.
    Began,
    /// It is the first that this process knows of its stream, and goes on from what the store has.
    Resumed,
    /// It follows the last one.
    Next,
    /// Nobody sent what was between it and the last.
    Gap,
    /// It begins before the last one ends: two senders may be one stream.
    Overlap,
    /// Its boundaries are others: the stream begins anew with it.
    Replaced,
}

/// Why a point was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// Not newer than the last.
    #[error("is a delta not newer than the one before; it was sent twice or is late")]
    Old,
    /// It begins before the stream does.
    #[error("is a delta that begins before its stream does; two senders may use the same attributes")]
    OlderStart,
    /// The sum would be no number any more.
    #[error("is a delta with which the sum is beyond all numbers")]
    Overflow,
}

impl During {
    /// Its end as the store has it.
    pub fn end_ms(self) -> Timestamp {
        (self.end / 1_000_000) as Timestamp
    }
}

impl Sum {
    /// One number.
    pub fn of(value: f64) -> Sum {
        Sum { value, rest: 0.0 }
    }

    /// The sum.
    pub fn value(self) -> f64 {
        self.value + self.rest
    }

    fn add(self, other: Sum) -> Sum {
        let value = self.value + other.value;
        let lost = if self.value.abs() >= other.value.abs() {
            (self.value - value) + other.value
        } else {
            (other.value - value) + self.value
        };
        Sum { value, rest: self.rest + other.rest + lost }
    }
}

impl Stream {
    /// The stream of a point that is the first since the start of the process, or since its stream was forgotten, where `last` is the
    /// last sample that the store has of it. Numbers go on from there; histograms, of which one sample is not all, begin anew.
    ///
    /// # Errors
    /// The point is not newer, or too large.
    pub fn begin(during: During, delta: Amount, last: Option<Sample>) -> Result<(Stream, Added), Dropped> {
        let Some(last) = last else { return Ok((Stream { during, total: delta }, Added::Began)) };
        // The store has milliseconds: a point that ends within the last one is that again.
        if during.end_ms() <= last.t {
            return Err(Dropped::Old);
        }
        let total = match &delta {
            Amount::Number(_) if last.v.is_finite() => Amount::Number(Sum::of(last.v)),
            _ => return Ok((Stream { during, total: delta }, Added::Began)),
        };
        let mut stream = Stream { during, total };
        if !stream.total.has_room(&delta) {
            return Err(Dropped::Overflow);
        }
        stream.total.add(delta);
        Ok((stream, Added::Resumed))
    }

    /// Adds a point.
    ///
    /// # Errors
    /// The point is dropped; the stream is as before.
    pub fn add(&mut self, during: During, delta: Amount) -> Result<Added, Dropped> {
        let known = during.start != 0;
        if known && during.start < self.during.start {
            return Err(Dropped::OlderStart);
        }
        if during.end <= self.during.end {
            return Err(Dropped::Old);
        }
        let added = match during.start.cmp(&self.during.end) {
            std::cmp::Ordering::Greater => Added::Gap,
            std::cmp::Ordering::Less if known => Added::Overlap,
            _ => Added::Next,
        };
        if !self.total.has_room(&delta) {
            return Err(Dropped::Overflow);
        }
        self.during.end = during.end;
        if self.total.add(delta) {
            return Ok(added);
        }
        self.during.start = during.start;
        Ok(Added::Replaced)
    }

    /// How many series it makes: what it counts for against the limit.
    pub fn series(&self) -> usize {
        match &self.total {
            Amount::Number(_) => 1,
            Amount::Histogram(_, classic) => classic.counts.len() + 3,
            Amount::Exponential(_, exponential) => exponential.len() + 7,
        }
    }
}

impl Amount {
    fn sum(&self) -> Option<Sum> {
        match self {
            Amount::Number(sum) => Some(*sum),
            Amount::Histogram(counted, _) | Amount::Exponential(counted, _) => counted.sum,
        }
    }

    /// Whether the sum stays finite.
    fn has_room(&self, delta: &Amount) -> bool {
        self.sum().zip(delta.sum()).is_none_or(|(sum, delta)| sum.add(delta).value().is_finite())
    }

    /// Adds; `false` where it took the other's place because they have different buckets.
    fn add(&mut self, delta: Amount) -> bool {
        match (&mut *self, delta) {
            (Amount::Number(total), Amount::Number(delta)) => *total = total.add(delta),
            (Amount::Histogram(counted, total), Amount::Histogram(more, delta)) if total.bounds_as(&delta) => {
                counted.add(&more);
                for (total, delta) in total.counts.iter_mut().zip(&delta.counts) {
                    *total = total.saturating_add(*delta);
                }
            }
            (Amount::Exponential(counted, total), Amount::Exponential(more, delta)) => {
                counted.add(&more);
                total.add(delta);
            }
            (_, other) => {
                *self = other;
                return false;
            }
        }
        true
    }
}

impl Counted {
    fn add(&mut self, more: &Counted) {
        self.count = self.count.saturating_add(more.count);
        self.sum = self.sum.zip(more.sum).map(|(sum, more)| sum.add(more));
    }
}

impl Classic {
    fn bounds_as(&self, other: &Classic) -> bool {
        self.bounds == other.bounds && self.counts.len() == other.counts.len()
    }

    /// Upper boundaries, each with the number of values up to it.
    pub fn below(bounds: &[f64], counts: &[u64]) -> Vec<(f64, u64)> {
        let mut sum = 0u64;
        let each = bounds.iter().zip(counts);
        each.map(|(bound, count)| {
            sum = sum.saturating_add(*count);
            (*bound, sum)
        })
        .collect()
    }
}

#[cfg(test)]
#[path = "../tests/total.rs"]
mod tests;
