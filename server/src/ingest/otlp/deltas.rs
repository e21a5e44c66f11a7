//! Points of delta temporality as points of cumulative series: each is added to what its stream had (`total`, `streams`), and the
//! sum is written. A stream is told from others as its series are, by their labels, and by its kind: two totals in one series would be
//! neither's.

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, metric, number_data_point,
};

use super::super::labels::LabelError;
use super::exponential::Exponential;
use super::histograms::{Buckets, Shown};
use super::seen::{Fingerprint, Seen};
use super::streams::DeltaError;
use super::total::{Amount, Classic, Counted, During, Sum};
use super::translate::{Attributes, Family, Owner, Translation, is_absent, labels_of};

/// The streams of one metric.
pub struct Deltas<'a> {
    seen: &'a Seen,
    kind: &'static [u8],
}

/// Where and when a delta is.
struct Point<'a> {
    deltas: &'a Deltas<'a>,
    attributes: Attributes<'a>,
    during: During,
    /// Whether its stream only grows: then its first point is seen as an increase, too.
    is_monotonic: bool,
}

impl<'a> Deltas<'a> {
    /// The streams of a metric with such data.
    pub fn new(seen: &'a Seen, data: &metric::Data) -> Deltas<'a> {
        let kind: &[u8] = match data {
            metric::Data::Sum(sum) if sum.is_monotonic => b"monotonic sum",
            metric::Data::Sum(_) => b"sum",
            metric::Data::ExponentialHistogram(_) => b"exponential histogram",
            _ => b"histogram",
        };
        Deltas { seen, kind }
    }

    fn id(&self, family: &Family, attributes: &Attributes<'_>) -> Result<Fingerprint, LabelError> {
        let labels = labels_of(&family.name, attributes.owner, attributes.of_point, None)?;
        Ok(self.seen.fingerprint(0, &[self.kind, labels.as_wire()].into_iter()))
    }
}

impl Translation<'_> {
    /// Takes a delta of a sum.
    pub fn delta_number(
        &mut self,
        (family, owner): (&Family, &Owner),
        deltas: &Deltas<'_>,
        point: &NumberDataPoint,
        is_monotonic: bool,
    ) {
        let value = match point.value {
            Some(number_data_point::Value::AsDouble(value)) => value,
            Some(number_data_point::Value::AsInt(value)) => value as f64,
            None if is_absent(point.flags) => 0.0,
            None => {
                self.problems.add(1, format_args!("point of `{}` has no value", family.name));
                return;
            }
        };
        let amount = self.finite(family, value).filter(|value| {
            let fits = !is_monotonic || *value >= 0.0;
            if !fits {
                self.problems.add(1, format_args!("point of `{}` is a negative delta of what only grows", family.name));
            }
            fits
        });
        let Some(amount) = amount else { return };
        let attributes = Attributes { owner, of_point: &point.attributes };
        let during = During { start: point.start_time_unix_nano, end: point.time_unix_nano };
        let place = Point { deltas, attributes, during, is_monotonic };
        self.delta(family, &place, Amount::Number(Sum::of(amount)), is_absent(point.flags));
    }

    /// Takes a delta of a histogram.
    pub fn delta_histogram(
        &mut self,
        (family, owner): (&Family, &Owner),
        deltas: &Deltas<'_>,
        mut point: HistogramDataPoint,
    ) {
        if !self.has_buckets(family, &mut point) {
            return;
        }
        let Some(counted) = self.counted(family, point.count, point.sum) else { return };
        let classic = Classic { bounds: point.explicit_bounds, counts: point.bucket_counts };
        let attributes = Attributes { owner, of_point: &point.attributes };
        let during = During { start: point.start_time_unix_nano, end: point.time_unix_nano };
        let place = Point { deltas, attributes, during, is_monotonic: true };
        self.delta(family, &place, Amount::Histogram(counted, classic), is_absent(point.flags));
    }

    /// Takes a delta of an exponential histogram.
    pub fn delta_exponential(
        &mut self,
        (family, owner): (&Family, &Owner),
        deltas: &Deltas<'_>,
        point: &ExponentialHistogramDataPoint,
    ) {
        let exponential = match Exponential::read(point) {
            Ok(exponential) => exponential,
            Err(error) => {
                self.problems.add(1, format_args!("point of `{}` {error}", family.name));
                return;
            }
        };
        let Some(counted) = self.counted(family, point.count, point.sum) else { return };
        let attributes = Attributes { owner, of_point: &point.attributes };
        let during = During { start: point.start_time_unix_nano, end: point.time_unix_nano };
        let place = Point { deltas, attributes, during, is_monotonic: true };
        self.delta(family, &place, Amount::Exponential(counted, exponential), is_absent(point.flags));
    }

    /// Adds a delta to its stream, or ends the stream, and writes what there is now.
    fn delta(&mut self, family: &Family, point: &Point<'_>, delta: Amount, ended: bool) {
        let During { start, end } = point.during;
        if end == 0 {
            self.problems.add(1, format_args!("point of `{}` has no time", family.name));
            return;
        }
        let id = match point.deltas.id(family, &point.attributes) {
            Ok(id) => id,
            Err(error) => {
                return error.note(&mut self.problems, 1, format_args!("point of `{:.100}`: ", family.name));
            }
        };
        let Some(changes) = self.changes.as_mut() else { return };
        if ended {
            let stream = changes.end(id);
            let total = stream.map_or(delta, |stream| stream.total);
            return self.total(family, &point.attributes, end, (&total, Shown::End));
        }
        let stale_after = u64::try_from(changes.stale_after_ms()).unwrap_or(0).saturating_mul(1_000_000);
        match changes.add(id, point.during, delta) {
            Ok((stream, began)) => {
                // One millisecond later: at the start itself may be the last sample from before a restart of the server.
                let first = start.saturating_add(1_000_000);
                let is_near = start != 0 && first < end && end - start <= stale_after;
                if began && point.is_monotonic && is_near {
                    self.total(family, &point.attributes, first, (&stream.total, Shown::Zeros));
                }
                self.total(family, &point.attributes, end, (&stream.total, Shown::Values));
            }
            Err(error) => self.refuse(family, &error),
        }
    }

    fn refuse(&mut self, family: &Family, error: &DeltaError) {
        let reason = format_args!("point of `{:.100}` {error}", family.name);
        self.problems.add_counted(1, reason);
    }

    fn total(&mut self, family: &Family, attributes: &Attributes<'_>, nanos: u64, (total, shown): (&Amount, Shown)) {
        let (counted, below) = match total {
            Amount::Number(sum) => {
                self.point(family, attributes, nanos, &mut |add| add("", None, shown.of(sum.value())));
                return;
            }
            Amount::Histogram(counted, classic) => (counted, Classic::below(&classic.bounds, &classic.counts)),
            Amount::Exponential(counted, exponential) => (counted, exponential.below()),
        };
        let buckets = Buckets { below, count: counted.count, sum: counted.sum.map(Sum::value) };
        self.buckets(family, attributes, nanos, (&buckets, shown));
    }

    fn counted(&mut self, family: &Family, count: u64, sum: Option<f64>) -> Option<Counted> {
        let sum = match sum {
            Some(sum) => Some(Sum::of(self.finite(family, sum)?)),
            None => None,
        };
        Some(Counted { count, sum })
    }

    /// A sum that once took what is no number would be none for ever.
    fn finite(&mut self, family: &Family, value: f64) -> Option<f64> {
        if !value.is_finite() {
            self.problems
                .add(1, format_args!("point of `{}` is the delta {value}, which cannot be added", family.name));
        }
        value.is_finite().then_some(value)
    }
}
