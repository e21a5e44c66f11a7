//! Exponential histograms as classic buckets. Bucket `i` of scale `s` holds values above `2^(i/2^s)` up to `2^((i+1)/2^s)`; at one
//! scale less, each two of them are one. A boundary is computed from that exponent alone, so equal boundaries of different points
//! and scales are equal bit for bit: a series keeps its `le`, and when a stream gets coarser every second boundary goes on.
//! Pure; must never take more memory for a point than its own buckets.

use opentelemetry_proto::tonic::metrics::v1::ExponentialHistogramDataPoint;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;

/// Most finite boundaries of a histogram: as many as the buckets of an SDK by default.
pub const BOUNDARIES_MAX: usize = 160;
/// Buckets for these boundaries: one boundary more for each sign, and two for the zero bucket.
const BUCKETS_MAX: i64 = BOUNDARIES_MAX as i64 - 4;
/// The coarsest scale that is read: one bucket for all doubles above 1. Coarser ones say nothing.
const SCALE_MIN: i32 = -11;
/// The finest scale that is read as it is: the finest that SDKs use. Finer ones are made coarser first.
const SCALE_MAX: i32 = 20;

/// What an exponential histogram counted, within [`BOUNDARIES_MAX`].
#[derive(Debug, Clone, PartialEq)]
pub struct Exponential {
    scale: i32,
    zero_threshold: f64,
    zero: u64,
    positive: Run,
    negative: Run,
}

/// Neighbouring buckets; the first and the last are not empty.
#[derive(Debug, Clone, Default, PartialEq)]
struct Run {
    first: i64,
    counts: Vec<u64>,
}

/// A point that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ExponentialError {
    /// No double fits such buckets apart.
    #[error("has the scale {scale}, at least {SCALE_MIN} is taken")]
    Scale {
        /// The scale.
        scale: i32,
    },
    /// The width of the zero bucket is no width.
    #[error("has the zero threshold {threshold}")]
    ZeroThreshold {
        /// The threshold.
        threshold: f64,
    },
}

impl Exponential {
    /// Reads a point, made coarser until it is within the bound.
    ///
    /// # Errors
    /// Its scale or zero threshold cannot be.
    pub fn read(point: &ExponentialHistogramDataPoint) -> Result<Exponential, ExponentialError> {
        if point.scale < SCALE_MIN {
            return Err(ExponentialError::Scale { scale: point.scale });
        }
        if !(point.zero_threshold.is_finite() && point.zero_threshold >= 0.0) {
            return Err(ExponentialError::ZeroThreshold { threshold: point.zero_threshold });
        }
        let mut read = Exponential {
            scale: point.scale,
            zero_threshold: point.zero_threshold,
            zero: point.zero_count,
            positive: Run::read(point.positive.as_ref()),
            negative: Run::read(point.negative.as_ref()),
        };
        read.coarsen(read.scale.saturating_sub(SCALE_MAX).max(0));
        read.coarsen(shift(read.positive.range(), read.negative.range()));
        Ok(read)
    }

    /// Adds what another counted: at the coarser of both scales, or coarser still to stay within the bound.
    pub fn add(&mut self, mut other: Exponential) {
        let scale = self.scale.min(other.scale);
        self.coarsen(self.scale - scale);
        other.coarsen(other.scale - scale);
        let union = |a: &Run, b: &Run| match (a.range(), b.range()) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
        let by = shift(union(&self.positive, &other.positive), union(&self.negative, &other.negative));
        self.coarsen(by);
        other.coarsen(by);
        self.positive.add(&other.positive);
        self.negative.add(&other.negative);
        self.zero = self.zero.saturating_add(other.zero);
        self.zero_threshold = self.zero_threshold.max(other.zero_threshold);
    }

    /// The number of its buckets.
    pub fn len(&self) -> usize {
        self.positive.counts.len() + self.negative.counts.len()
    }

    /// Finite upper boundaries from the least on, each with the number of values up to it. The lower edge of either sign is among
    /// them, so that a quantile is sought within one bucket. Buckets within the zero bucket's width count as zero.
    pub fn below(&self) -> Vec<(f64, u64)> {
        let mut below: Vec<(f64, u64)> = Vec::with_capacity(self.len() + 4);
        let mut sum = 0u64;
        let mut push = |bound: f64, sum: u64| match below.last_mut() {
            _ if !bound.is_finite() => {}
            Some((last, known)) if bound <= *last => *known = sum,
            _ => below.push((bound, sum)),
        };
        let (positive, negative) = (&self.positive, &self.negative);
        if !negative.counts.is_empty() {
            push(0.0 - self.boundary(negative.first + negative.counts.len() as i64), 0);
            for (index, count) in (negative.first..).zip(&negative.counts).collect::<Vec<_>>().into_iter().rev() {
                sum = sum.saturating_add(*count);
                push(0.0 - self.boundary(index), sum);
            }
            push(0.0 - self.zero_threshold, sum);
        }
        sum = sum.saturating_add(self.zero);
        push(self.zero_threshold, sum);
        if !positive.counts.is_empty() {
            push(self.boundary(positive.first), sum);
            for (index, count) in (positive.first..).zip(&positive.counts) {
                sum = sum.saturating_add(*count);
                push(self.boundary(index + 1), sum);
            }
        }
        below
    }

    /// Boundaries that it did not have when it was `former`, each with the number of values up to it then: those of the nearest
    /// boundary below, because there was none between them.
    pub fn grown_from(&self, former: &Exponential) -> Vec<(f64, u64)> {
        let known = former.below();
        let bounds = self.below().into_iter().map(|(bound, _)| bound);
        let grown = bounds.filter_map(|bound| {
            let not_above = known.partition_point(|(known, _)| *known <= bound);
            match known[..not_above].last() {
                Some((last, _)) if *last == bound => None,
                nearest => Some((bound, nearest.map_or(0, |(_, below)| *below))),
            }
        });
        grown.collect()
    }

    /// The lower boundary of a bucket. The exponent is exact: the same boundary at another scale has the same.
    fn boundary(&self, index: i64) -> f64 {
        (index as f64 * 2f64.powi(-self.scale)).exp2()
    }

    fn coarsen(&mut self, by: i32) {
        self.scale -= by;
        self.positive.coarsen(by);
        self.negative.coarsen(by);
    }
}

impl Run {
    fn read(buckets: Option<&Buckets>) -> Run {
        let Some(buckets) = buckets else { return Run::default() };
        let counts = &buckets.bucket_counts;
        let Some(first) = counts.iter().position(|count| *count > 0) else { return Run::default() };
        let last = counts.iter().rposition(|count| *count > 0).unwrap_or(first);
        Run { first: i64::from(buckets.offset) + first as i64, counts: counts[first..=last].to_vec() }
    }

    /// The first and the last index.
    fn range(&self) -> Option<(i64, i64)> {
        (!self.counts.is_empty()).then(|| (self.first, self.first + self.counts.len() as i64 - 1))
    }

    fn coarsen(&mut self, by: i32) {
        let Some((first, last)) = self.range().filter(|_| by > 0) else { return };
        // Beyond 63 the sign alone is left of an index, as at 63.
        let by = by.min(63);
        let mut counts = vec![0u64; ((last >> by) - (first >> by) + 1) as usize];
        for (index, count) in (first..).zip(&self.counts) {
            let place = &mut counts[((index >> by) - (first >> by)) as usize];
            *place = place.saturating_add(*count);
        }
        *self = Run { first: first >> by, counts };
    }

    /// Both are of one scale, and together within the bound.
    fn add(&mut self, other: &Run) {
        let Some((first, last)) = other.range() else { return };
        let (own_first, own_last) = self.range().unwrap_or((first, last));
        let begin = first.min(own_first);
        let mut counts = vec![0u64; (last.max(own_last) - begin + 1) as usize];
        for run in [&*self, other] {
            for (index, count) in (run.first..).zip(&run.counts) {
                let place = &mut counts[(index - begin) as usize];
                *place = place.saturating_add(*count);
            }
        }
        *self = Run { first: begin, counts };
    }
}

/// By how many scales two runs must get coarser to be within the bound together.
fn shift(positive: Option<(i64, i64)>, negative: Option<(i64, i64)>) -> i32 {
    let len = |range: Option<(i64, i64)>, by: i32| range.map_or(0, |(first, last)| (last >> by) - (first >> by) + 1);
    // Two runs of two buckets are within it at the latest, because indices have 32 bits and a request's length.
    (0..63).find(|by| len(positive, *by) + len(negative, *by) <= BUCKETS_MAX).unwrap_or(63)
}

#[cfg(test)]
#[path = "../tests/exponential.rs"]
mod tests;
