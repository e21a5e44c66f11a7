//! Histograms and summaries as the series that Prometheus has for them: `_bucket` with `le`, `_sum` and `_count`.

use opentelemetry_proto::tonic::metrics::v1::{ExponentialHistogramDataPoint, HistogramDataPoint, SummaryDataPoint};

use super::exponential::Exponential;
use super::total::Classic;
use super::translate::{Attributes, Family, Owner, Translation, is_absent};

/// Most buckets of a histogram and quantiles of a summary: each becomes a series with all labels of its point, so a request
/// of a few megabytes could fill the memory.
const PARTS_MAX: usize = 1_000;

/// What a histogram counted, from the least boundary on.
#[derive(Debug, Default)]
pub struct Buckets {
    /// Finite upper boundaries, each with the number of values up to it.
    pub below: Vec<(f64, u64)>,
    /// How many values there are.
    pub count: u64,
    /// Their sum, where it is known.
    pub sum: Option<f64>,
}

/// What is written of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// Its values.
    Values,
    /// A zero for each series: it begins.
    Zeros,
    /// The mark of staleness for each series: it ended.
    End,
}

impl Shown {
    /// The value to write; `None` for the mark.
    pub fn of(self, value: f64) -> Option<f64> {
        match self {
            Shown::Values => Some(value),
            Shown::Zeros => Some(0.0),
            Shown::End => None,
        }
    }
}

impl Translation<'_> {
    /// Takes a point of a cumulative histogram.
    pub fn histogram(&mut self, family: &Family, owner: &Owner, mut point: HistogramDataPoint) {
        let absent = is_absent(point.flags);
        if !self.has_buckets(family, &mut point) {
            return;
        }
        let (bounds, counts) = (&point.explicit_bounds, &point.bucket_counts);
        let below = if absent && counts.is_empty() {
            bounds.iter().map(|bound| (*bound, 0)).collect()
        } else {
            Classic::below(bounds, counts)
        };
        let buckets = Buckets { below, count: point.count, sum: point.sum };
        let attributes = Attributes { owner, of_point: &point.attributes };
        let shown = if absent { Shown::End } else { Shown::Values };
        self.buckets(family, &attributes, point.time_unix_nano, (&buckets, shown));
    }

    /// Takes a point of a cumulative exponential histogram.
    pub fn exponential(&mut self, family: &Family, owner: &Owner, point: &ExponentialHistogramDataPoint) {
        let below = match Exponential::read(point) {
            Ok(exponential) => exponential.below(),
            Err(error) => {
                self.problems.add(1, format_args!("point of `{}` {error}", family.name));
                return;
            }
        };
        let buckets = Buckets { below, count: point.count, sum: point.sum };
        let attributes = Attributes { owner, of_point: &point.attributes };
        let shown = if is_absent(point.flags) { Shown::End } else { Shown::Values };
        self.buckets(family, &attributes, point.time_unix_nano, (&buckets, shown));
    }

    /// Writes the series of a histogram.
    pub fn buckets(
        &mut self,
        family: &Family,
        attributes: &Attributes<'_>,
        nanos: u64,
        (buckets, shown): (&Buckets, Shown),
    ) {
        self.point(family, attributes, nanos, &mut |add| {
            for (bound, below) in &buckets.below {
                add("_bucket", Some(("le", bound.to_string())), shown.of(*below as f64))?;
            }
            add("_bucket", Some(("le", "+Inf".to_owned())), shown.of(buckets.count as f64))?;
            // A series that ended may have had a sum.
            if let Some(sum) = buckets.sum.or((shown == Shown::End).then_some(0.0)) {
                add("_sum", None, shown.of(sum))?;
            }
            add("_count", None, shown.of(buckets.count as f64))
        });
    }

    /// Takes a point of a summary.
    pub fn summary(&mut self, family: &Family, owner: &Owner, point: &SummaryDataPoint) {
        let absent = is_absent(point.flags);
        if self.has_too_many(family, point.quantile_values.len()) {
            return;
        }
        let attributes = Attributes { owner, of_point: &point.attributes };
        self.point(family, &attributes, point.time_unix_nano, &mut |add| {
            let value = |value: f64| (!absent).then_some(value);
            for quantile in &point.quantile_values {
                add("", Some(("quantile", quantile.quantile.to_string())), value(quantile.value))?;
            }
            add("_sum", None, value(point.sum))?;
            add("_count", None, value(point.count as f64))
        });
    }

    /// Whether boundaries and counts of a point fit together and are not too many; otherwise it is noted. A last boundary of +Inf,
    /// which the last bucket has anyway, is taken away.
    pub fn has_buckets(&mut self, family: &Family, point: &mut HistogramDataPoint) -> bool {
        let name = &family.name;
        let (bounds, counts) = (point.explicit_bounds.len(), point.bucket_counts.len());
        if !is_absent(point.flags) && counts != 0 && counts != bounds + 1 {
            self.problems.add(1, format_args!("point of histogram `{name}` has {bounds} bounds and {counts} buckets"));
            return false;
        }
        if point.explicit_bounds.pop_if(|last| *last == f64::INFINITY).is_some()
            && let Some(above) = point.bucket_counts.pop()
            && let Some(last) = point.bucket_counts.last_mut()
        {
            *last = last.saturating_add(above);
        }
        let bounds = &point.explicit_bounds;
        if !bounds.iter().all(|bound| bound.is_finite()) || !bounds.is_sorted_by(|a, b| a < b) {
            self.problems.add(1, format_args!("point of histogram `{name}` has bounds that are no rising numbers"));
            return false;
        }
        !self.has_too_many(family, bounds.len())
    }

    fn has_too_many(&mut self, family: &Family, parts: usize) -> bool {
        let too_many = parts > PARTS_MAX;
        if too_many {
            let reason = format_args!("point of `{}` has {parts} buckets, more than {PARTS_MAX}", family.name);
            self.problems.add(1, reason);
        }
        too_many
    }
}
