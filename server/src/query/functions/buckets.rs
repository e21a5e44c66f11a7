//! The arithmetic of one classic histogram's buckets: quantiles and fractions, interpolated linearly within a bucket.

/// Relative differences of counts below this are rounding, not a falling count.
const ROUNDING: f64 = 1e-12;

#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    pub(super) upper: f64,
    /// Observations up to the bound.
    pub(super) count: f64,
}

/// Where and by how much counts fell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fall {
    pub(super) lowest: f64,
    pub(super) highest: f64,
    pub(super) most: f64,
}

/// Sorts and merges equal bounds.
fn sort(buckets: &mut Vec<Bucket>) {
    buckets.sort_by(|a, b| a.upper.total_cmp(&b.upper));
    buckets.dedup_by(|later, kept| {
        let same = later.upper == kept.upper;
        if same {
            kept.count += later.count;
        }
        same
    });
}

/// Makes counts rise. Tells where they fell by more than rounding.
fn make_rise(buckets: &mut [Bucket]) -> Option<Fall> {
    let mut fall: Option<Fall> = None;
    let mut before = buckets.first()?.count;
    for bucket in &mut buckets[1..] {
        let count = bucket.count;
        if count == before {
            continue;
        }
        let distance = (count - before).abs();
        let is_rounding = distance / (count.abs() + before.abs()).min(f64::MAX) < ROUNDING;
        if is_rounding {
            bucket.count = before;
        } else if count < before {
            bucket.count = before;
            let known = fall.unwrap_or(Fall { lowest: bucket.upper, highest: bucket.upper, most: 0.0 });
            fall = Some(Fall {
                lowest: known.lowest.min(bucket.upper),
                highest: known.highest.max(bucket.upper),
                most: known.most.max(distance),
            });
        } else {
            before = count;
        }
    }
    fall
}

/// The quantile, and where counts fell. Without a bucket up to infinity there is none.
pub(super) fn quantile(q: f64, buckets: &mut Vec<Bucket>) -> (f64, Option<Fall>) {
    if q.is_nan() {
        return (f64::NAN, None);
    }
    if !(0.0..=1.0).contains(&q) {
        return (if q < 0.0 { f64::NEG_INFINITY } else { f64::INFINITY }, None);
    }
    sort(buckets);
    if buckets.last().is_none_or(|last| last.upper != f64::INFINITY) {
        return (f64::NAN, None);
    }
    let fall = make_rise(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 || observations.is_nan() {
        return (f64::NAN, None);
    }
    let rank = q * observations;
    let found = buckets[..last].partition_point(|bucket| bucket.count < rank);
    let value = if found == last {
        buckets[last - 1].upper
    } else if found == 0 && buckets[0].upper <= 0.0 {
        buckets[0].upper
    } else {
        let below = found.checked_sub(1).map_or(Bucket { upper: 0.0, count: 0.0 }, |i| buckets[i]);
        let within = buckets[found];
        below.upper + (within.upper - below.upper) * ((rank - below.count) / (within.count - below.count))
    };
    (value, fall)
}

/// The share of observations between two values.
pub(super) fn fraction(lower: f64, upper: f64, buckets: &mut Vec<Bucket>) -> f64 {
    sort(buckets);
    let Some(last) = buckets.last().filter(|last| last.upper == f64::INFINITY) else {
        return f64::NAN;
    };
    let observations = last.count;
    if lower.is_nan() || upper.is_nan() || observations == 0.0 || observations.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let rank = |value| rank_of(value, buckets).min(observations);
    (rank(upper) - rank(lower)) / observations
}

/// Observations up to a value.
fn rank_of(value: f64, buckets: &[Bucket]) -> f64 {
    // The lowest bucket begins at zero where its bound is positive, else nowhere.
    let mut start = if buckets[0].upper > 0.0 { 0.0 } else { f64::NEG_INFINITY };
    let mut below = 0.0;
    for bucket in buckets {
        if value <= start {
            return below;
        }
        if value < bucket.upper {
            // Nothing can be said of the inside of an endless bucket: below the first bound all of it lies before the
            // value, above the last bound all of it behind.
            return if start == f64::NEG_INFINITY {
                bucket.count
            } else if bucket.upper == f64::INFINITY {
                below
            } else {
                below + (bucket.count - below) * (value - start) / (bucket.upper - start)
            };
        }
        start = bucket.upper;
        below = bucket.count;
    }
    below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_fall_are_told_and_rounding_is_not() {
        let bucket = |upper, count| Bucket { upper, count };
        let mut falling = vec![bucket(1.0, 10.0), bucket(2.0, 8.0), bucket(4.0, 9.5), bucket(f64::INFINITY, 20.0)];
        let (value, fall) = quantile(0.5, &mut falling);
        assert_eq!((value, fall), (1.0, Some(Fall { lowest: 2.0, highest: 4.0, most: 2.0 })));
        let mut rounded = vec![bucket(1.0, 10.0), bucket(f64::INFINITY, 10.0 - 1e-12)];
        assert_eq!(quantile(0.5, &mut rounded).1, None);
    }
}
