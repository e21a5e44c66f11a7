//! Samples of one series in memory, as columns: four bytes a sample while they come at one step and are narrow, which most are;
//! four more where a value is not, and four more where a time is not. Sorted by time, unique in time. What comes out of order
//! waits beside them and is merged in when there is enough of it, so that no order of arrival costs more than a few copies of each
//! sample. No bit of a value is ever lost.

use super::head::merge;
use crate::query::source::TimeRange;
use crate::series::{Sample, Timestamp};

/// Samples by which a column grows at least, so that short series stay short.
const GROW_MIN: usize = 8;

/// Sorted samples of one series.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Column {
    times: Times,
    values: Values,
    /// In the order of their arrival; none is later than the last of the columns. They override those and each other.
    late: Vec<Sample>,
}

/// The values of a column.
#[derive(Debug, Clone, PartialEq)]
enum Values {
    /// All come back from it bit for bit: whole numbers below 16 million, halves and quarters, what does not move, flags.
    Narrow(Vec<f32>),
    /// Any.
    Wide(Vec<f64>),
}

impl Default for Values {
    fn default() -> Values {
        Values::Narrow(Vec::new())
    }
}

/// Late samples that are merged into the columns at once, at least; with longer columns a quarter of their length.
const LATE_MIN: usize = 32;

/// The times of a column; as many as there are values.
#[derive(Debug, Clone, PartialEq)]
enum Times {
    /// All at one step from the first. With fewer than two samples the step has no meaning.
    Regular { first: Timestamp, step: i64 },
    /// Milliseconds after the first: up to 49 days.
    Offsets { first: Timestamp, offsets: Vec<u32> },
    /// Farther apart than that.
    Any(Vec<Timestamp>),
}

impl Default for Times {
    fn default() -> Times {
        Times::Regular { first: 0, step: 0 }
    }
}

impl Column {
    /// Number of samples; those that may take another's place are counted too.
    pub fn len(&self) -> usize {
        self.values.len() + self.late.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.len() == 0
    }

    /// The first and the last time; `None` where there is no sample.
    pub fn span(&self) -> Option<TimeRange> {
        let last = self.values.len().checked_sub(1)?;
        let from = self.late.iter().map(|sample| sample.t).fold(self.time(0), i64::min);
        Some(TimeRange { from, to: self.time(last) })
    }

    /// Adds a sample; at a time that is there already it takes the other's place. O(1) at the end, O(log n) on average elsewhere.
    pub fn insert(&mut self, sample: Sample) {
        let last = self.values.len().checked_sub(1).map(|last| self.time(last));
        if last.is_none_or(|last| last < sample.t) {
            self.push(sample);
            return;
        }
        self.late.push(sample);
        if self.late.len() >= LATE_MIN.max(self.values.len() / 4) {
            let all = self.to_vec();
            *self = Column::default();
            for sample in all {
                self.push(sample);
            }
        }
    }

    /// The samples of a range.
    pub fn within(&self, range: TimeRange) -> Vec<Sample> {
        let on_time = self.on_time(range);
        if self.late.is_empty() {
            return on_time;
        }
        let mut late: Vec<Sample> =
            self.late.iter().filter(|sample| (range.from..=range.to).contains(&sample.t)).copied().collect();
        // Of equal times the last one stands: reversed before a stable sort it comes first, where dedup keeps it.
        late.reverse();
        late.sort_by_key(|sample| sample.t);
        late.dedup_by_key(|sample| sample.t);
        merge(on_time, &late)
    }

    fn on_time(&self, range: TimeRange) -> Vec<Sample> {
        let from = self.count_before(range.from);
        let to = range.to.checked_add(1).map_or(self.values.len(), |end| self.count_before(end));
        (from..to.max(from)).map(|i| Sample { t: self.time(i), v: self.values.get(i) }).collect()
    }

    /// All samples.
    pub fn to_vec(&self) -> Vec<Sample> {
        self.within(TimeRange { from: Timestamp::MIN, to: Timestamp::MAX })
    }

    fn time(&self, i: usize) -> Timestamp {
        match &self.times {
            Times::Regular { first, step } => first + step * i as i64,
            Times::Offsets { first, offsets } => first + i64::from(offsets[i]),
            Times::Any(times) => times[i],
        }
    }

    /// Number of samples before an instant. O(log n).
    fn count_before(&self, t: Timestamp) -> usize {
        let (mut low, mut high) = (0, self.values.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.time(middle) < t {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    fn push(&mut self, sample: Sample) {
        let n = self.values.len();
        match &mut self.times {
            Times::Regular { first, step } => match n {
                0 => (*first, *step) = (sample.t, 0),
                1 if sample.t.checked_sub(*first).is_some() => *step = sample.t - *first,
                _ if step.checked_mul(n as i64).and_then(|after| first.checked_add(after)) == Some(sample.t) => {}
                _ => {
                    let times: Vec<Timestamp> = (0..n).map(|i| self.time(i)).chain([sample.t]).collect();
                    self.times = Times::of(times);
                }
            },
            Times::Offsets { first, offsets } => match sample.t.checked_sub(*first).map(u32::try_from) {
                Some(Ok(offset)) => {
                    grow(offsets);
                    offsets.push(offset);
                }
                _ => self.times = Times::Any((0..n).map(|i| self.time(i)).chain([sample.t]).collect()),
            },
            Times::Any(times) => times.push(sample.t),
        }
        self.values.push(sample.v);
    }
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Values::Narrow(values) => values.len(),
            Values::Wide(values) => values.len(),
        }
    }

    fn get(&self, i: usize) -> f64 {
        match self {
            Values::Narrow(values) => f64::from(values[i]),
            Values::Wide(values) => values[i],
        }
    }

    fn push(&mut self, v: f64) {
        if let Values::Narrow(narrow) = self {
            if let Some(v) = narrowed(v) {
                grow(narrow);
                narrow.push(v);
                return;
            }
            *self = Values::Wide(narrow.iter().copied().map(f64::from).collect());
        }
        if let Values::Wide(wide) = self {
            grow(wide);
            wide.push(v);
        }
    }
}

/// A value in half the bytes, where that loses no bit of it. Zeros keep their sign in both directions; NaN, which equals nothing, is
/// never narrow, because a conversion may change its payload.
fn narrowed(v: f64) -> Option<f32> {
    let narrow = v as f32;
    (f64::from(narrow) == v).then_some(narrow)
}

impl Times {
    /// Sorted times that have no one step.
    fn of(times: Vec<Timestamp>) -> Times {
        let Some(&first) = times.first() else { return Times::default() };
        let offset = |t: &Timestamp| t.checked_sub(first).and_then(|apart| u32::try_from(apart).ok());
        match times.iter().map(offset).collect::<Option<Vec<u32>>>() {
            Some(offsets) => Times::Offsets { first, offsets },
            None => Times::Any(times),
        }
    }
}

/// Makes room for a quarter of the power of two below: doubling would leave a third of the memory of all heads unused, and
/// allocators round sizes up to these, four to a doubling.
fn grow<T>(column: &mut Vec<T>) {
    let len = column.len();
    if len == column.capacity() {
        let below = len.checked_ilog2().map_or(0, |exponent| 1 << exponent);
        column.reserve_exact((below / 4).max(GROW_MIN));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Steps that keep to a raster, leave it, and leap further than an offset holds.
    fn times() -> impl Strategy<Value = Vec<i64>> {
        let near = (0i64..40).prop_map(|i| i * 10_000);
        let any = prop_oneof![8 => near, 2 => 0i64..400_000, 1 => any::<i64>()];
        prop_oneof![
            prop::collection::vec(any, 0..60),
            (0i64..100, 1i64..50).prop_map(|(n, step)| (0..n).map(|i| i * step).collect())
        ]
    }

    proptest! {
        #[test]
        fn a_column_is_a_sorted_map(times in times(), from in -100_000i64..400_000, length in 0i64..400_000) {
            let mut column = Column::default();
            let mut map = BTreeMap::new();
            for (i, t) in times.into_iter().enumerate() {
                column.insert(Sample { t, v: i as f64 });
                map.insert(t, i as f64);
            }
            let expected = |range: std::ops::RangeInclusive<i64>| {
                map.range(range).map(|(&t, &v)| Sample { t, v }).collect::<Vec<_>>()
            };
            prop_assert_eq!(column.to_vec(), expected(i64::MIN..=i64::MAX));
            prop_assert_eq!(column.within(TimeRange { from, to: from + length }), expected(from..=from + length));
            let span = map.keys().next().zip(map.keys().next_back());
            prop_assert_eq!(column.span().map(|span| (span.from, span.to)), span.map(|(&from, &to)| (from, to)));
        }
    }

    #[test]
    fn a_million_samples_newest_first_take_no_longer_than_in_order() {
        let mut column = Column::default();
        for t in (0..1_000_000).rev() {
            column.insert(Sample { t, v: t as f64 });
        }
        let all = column.to_vec();
        assert!(all.len() == 1_000_000 && all.is_sorted_by(|a, b| a.t < b.t));
    }

    #[test]
    fn samples_take_few_bytes() {
        let column = |value: fn(i64) -> f64| {
            let mut column = Column::default();
            (0..120).for_each(|i| column.insert(Sample { t: 1_000 + i * 15_000, v: value(i) }));
            assert!(matches!(column.times, Times::Regular { first: 1_000, step: 15_000 }));
            column.values
        };
        assert!(matches!(column(|i| i as f64), Values::Narrow(values) if values.capacity() == 128));
        let wide = column(|i| if i < 70 { i as f64 } else { i as f64 / 10.0 });
        assert!(matches!(wide, Values::Wide(values) if values.capacity() <= 144));
    }

    #[test]
    fn values_keep_every_bit() {
        let quiet_nan = f64::from_bits(0x7ff8_0000_2000_0000);
        let values = [
            0.0,
            -0.0,
            1.5,
            f64::INFINITY,
            quiet_nan,
            f64::NAN,
            16_777_216.0,
            16_777_217.0,
            Sample::stale(0).v,
            1e-320,
            -1e300,
            f64::from_bits(0xfff0_0000_0000_0001),
            f64::from_bits(0x7ff0_0000_2000_0000),
            0.1,
            f64::MIN_POSITIVE,
            1e-40,
            0.0,
        ];
        // In any order, so that each of them is the one that makes a column wide.
        for first in 0..values.len() {
            let turned: Vec<f64> = values[first..].iter().chain(&values[..first]).copied().collect();
            let forwards: Vec<usize> = (0..turned.len()).collect();
            let backwards: Vec<usize> = forwards.iter().rev().chain(&forwards).copied().collect();
            for order in [forwards, backwards] {
                let mut column = Column::default();
                for i in order {
                    column.insert(Sample { t: i as i64, v: turned[i] });
                }
                let bits: Vec<u64> = column.to_vec().iter().map(|sample| sample.v.to_bits()).collect();
                assert_eq!(bits, turned.iter().map(|v| v.to_bits()).collect::<Vec<_>>());
            }
        }
    }
}
