//! Points of delta temporality as points of cumulative series: each is added to what its stream had (`total`, `streams`), and the
//! sum is written. A stream is told from others as its series are, by their labels, and by its kind: two totals in one series would be
//! neither's.

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, NumberDataPoint, metric, number_data_point,
};

use petrel_agent::error_chain::chain;

use super::super::labels::LabelError;
use super::exponential::Exponential;
use super::histograms::{Buckets, Shown};
use super::seen::{Fingerprint, Seen};
use super::streams::DeltaError;
use super::total::{Added, Amount, Classic, Counted, During, Stream, Sum};
use super::translate::{Attributes, Family, Owner, Translation, is_absent, labels_of};
use crate::series::{Labels, Sample, Timestamp};
use crate::store::SelectError;

/// The streams of one metric.
pub struct Deltas<'a> {
    seen: &'a Seen,
    kind: &'static [u8],
}

const SUM: &[u8] = b"sum";
const MONOTONIC: &[u8] = b"monotonic sum";

/// Earliest that a stream's zero is written before its first point, in milliseconds: farther back a store may be closed.
const ZERO_BEFORE_MS_MAX: i64 = 86_400_000;

/// Why it cannot be known what came before a delta.
enum DeltaLabels {
    Label(LabelError),
    Unread(SelectError),
}

/// When the zero before a first point is, in nanoseconds: a millisecond after its start, at which the last sample of a stream before it
/// may be, and after what the series had until then. `None` where its start is not known or leaves no room.
fn zero_at(during: During, after: Option<Timestamp>) -> Option<u64> {
    let start = (during.start / 1_000_000) as Timestamp;
    let at = (start + 1).max(after.map_or(0, |after| after + 1)).max(during.end_ms() - ZERO_BEFORE_MS_MAX);
    (during.start != 0 && at < during.end_ms()).then_some(at as u64 * 1_000_000)
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
            metric::Data::Sum(sum) if sum.is_monotonic => MONOTONIC,
            metric::Data::Sum(_) => SUM,
            metric::Data::ExponentialHistogram(_) => b"exponential histogram",
            _ => b"histogram",
        };
        Deltas { seen, kind }
    }

    fn id(&self, labels: &Labels) -> Fingerprint {
        self.seen.fingerprint(0, &[self.kind, labels.as_wire()].into_iter())
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
        let end = point.during.end;
        if end == 0 {
            self.problems.add(1, format_args!("point of `{}` has no time", family.name));
            return;
        }
        let stream = labels_of(&family.name, point.attributes.owner, point.attributes.of_point, None);
        let (id, last) =
            match stream.map_err(DeltaLabels::Label).and_then(|labels| self.known_of(family, point, labels)) {
                Ok(found) => found,
                Err(DeltaLabels::Label(error)) => {
                    return error.note(&mut self.problems, 1, format_args!("point of `{:.100}`: ", family.name));
                }
                Err(DeltaLabels::Unread(error)) => {
                    let name = &family.name;
                    return self
                        .problems
                        .add(1, format_args!("point of `{name:.100}`: what came before: {}", chain(&error)));
                }
            };
        let Some(changes) = self.changes.as_mut() else { return };
        if ended {
            let stream = changes.end(id);
            let total = stream.map_or(delta, |stream| stream.total);
            return self.total(family, &point.attributes, end, (&total, Shown::End));
        }
        let is_number = matches!(delta, Amount::Number(_));
        let before = if is_number { None } else { changes.get(id) };
        match changes.add(id, point.during, delta, last) {
            Ok((stream, added)) => {
                let after = before.as_ref().map(|before| before.during.end_ms()).max(last.map(|last| last.t));
                let first = zero_at(point.during, after);
                match (added, first) {
                    (Added::Began | Added::Replaced, Some(first)) if point.is_monotonic => {
                        self.total(family, &point.attributes, first, (&stream.total, Shown::Zeros));
                    }
                    (Added::Began | Added::Replaced, _) => {}
                    _ => self.grown(family, &point.attributes, (before.as_ref(), &stream)),
                }
                self.total(family, &point.attributes, end, (&stream.total, Shown::Values));
            }
            Err(error) => self.refuse(family, &error),
        }
    }

    /// The number of a stream, and the last sample of it where the store alone knows it.
    fn known_of(
        &mut self,
        family: &Family,
        point: &Point<'_>,
        labels: Labels,
    ) -> Result<(Fingerprint, Option<Sample>), DeltaLabels> {
        let id = point.deltas.id(&labels);
        if self.changes.as_ref().is_none_or(|changes| changes.knows(id)) {
            return Ok((id, None));
        }
        let labels = match point.deltas.kind {
            SUM | MONOTONIC => labels,
            _ => {
                let name = format!("{}_count", family.name);
                labels_of(&name, point.attributes.owner, point.attributes.of_point, None).map_err(DeltaLabels::Label)?
            }
        };
        Ok((id, self.last_of(&labels).map_err(DeltaLabels::Unread)?))
    }

    /// Writes boundaries that an exponential histogram has now and had not before: with what it had counted then. A series that
    /// began only now would miss what all others have.
    fn grown(&mut self, family: &Family, attributes: &Attributes<'_>, (before, now): (Option<&Stream>, &Stream)) {
        let Some(before) = before else { return };
        let (Amount::Exponential(_, former), Amount::Exponential(_, now)) = (&before.total, &now.total) else { return };
        let grown = now.grown_from(former);
        if grown.is_empty() {
            return;
        }
        self.point(family, attributes, before.during.end, &mut |add| {
            grown
                .iter()
                .try_for_each(|(bound, below)| add("_bucket", Some(("le", bound.to_string())), Some(*below as f64)))
        });
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
