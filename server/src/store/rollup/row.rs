//! One row of a rollup, made of samples or of finer rows. Pure. Staleness markers are no values: a row notes the one it ends with.
//! Other NaNs are values, as a query over the raw samples would have it: the sum becomes NaN, least and greatest give way to any number.

use crate::series::{Sample, Timestamp};

/// What a row keeps of the samples of one series in its time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Where its time begins, a multiple of the level's step.
    pub start: Timestamp,
    /// Samples, staleness markers left out. Where it is 0 only `start` and `ended` mean anything.
    pub count: u64,
    /// Time of the first and of the last sample.
    pub begin: Timestamp,
    /// Time of the last sample.
    pub end: Timestamp,
    /// First value.
    pub first: f64,
    /// Last value.
    pub last: f64,
    /// Least value.
    pub least: f64,
    /// Greatest value.
    pub greatest: f64,
    /// Sum of the values.
    pub sum: f64,
    /// Increase from the first to the last sample, if it is a counter: where a value falls, the one before is added.
    pub increase: f64,
    /// Time of the staleness marker that nothing follows.
    pub ended: Option<Timestamp>,
}

impl Row {
    /// A row without samples.
    pub fn empty(start: Timestamp) -> Row {
        let nothing = f64::NAN;
        Row {
            start,
            count: 0,
            begin: start,
            end: start,
            first: nothing,
            last: nothing,
            least: nothing,
            greatest: nothing,
            sum: 0.0,
            increase: 0.0,
            ended: None,
        }
    }

    /// What falls added to the increase beyond the plain difference; 0 where no value fell.
    pub fn fallen(&self) -> f64 {
        self.increase - (self.last - self.first)
    }
}

/// Rows of a step from samples sorted by time. O(n).
pub fn from_samples(samples: &[Sample], step_ms: i64) -> Vec<Row> {
    let start_of = |sample: &Sample| sample.t.div_euclid(step_ms) * step_ms;
    samples.chunk_by(|a, b| start_of(a) == start_of(b)).map(|part| row_of(part, start_of(&part[0]))).collect()
}

fn row_of(samples: &[Sample], start: Timestamp) -> Row {
    let mut row = Row::empty(start);
    let mut sum = Sum::default();
    let mut fallen = 0.0;
    for sample in samples {
        if sample.is_stale() {
            row.ended = Some(sample.t);
            continue;
        }
        row.ended = None;
        if row.count == 0 {
            (row.begin, row.first) = (sample.t, sample.v);
        } else if sample.v < row.last {
            fallen += row.last;
        }
        row.count += 1;
        (row.end, row.last) = (sample.t, sample.v);
        row.least = lesser(row.least, sample.v);
        row.greatest = greater(row.greatest, sample.v);
        sum.add(sample.v);
    }
    row.sum = sum.result();
    row.increase = if row.count == 0 { 0.0 } else { row.last - row.first + fallen };
    row
}

/// Rows of a longer step from rows sorted by time; the longer step is a multiple of theirs. O(n).
pub fn from_rows(rows: &[Row], step_ms: i64) -> Vec<Row> {
    let start_of = |row: &Row| row.start.div_euclid(step_ms) * step_ms;
    rows.chunk_by(|a, b| start_of(a) == start_of(b)).map(|part| joined(part, start_of(&part[0]))).collect()
}

fn joined(rows: &[Row], start: Timestamp) -> Row {
    let mut all = Row::empty(start);
    let mut sum = Sum::default();
    let mut fallen = 0.0;
    for row in rows {
        if row.count > 0 {
            if all.count == 0 {
                (all.begin, all.first) = (row.begin, row.first);
            } else if row.first < all.last {
                fallen += all.last;
            }
            fallen += row.fallen();
            all.count += row.count;
            (all.end, all.last) = (row.end, row.last);
            all.least = lesser(all.least, row.least);
            all.greatest = greater(all.greatest, row.greatest);
            sum.add(row.sum);
        }
        all.ended = row.ended;
    }
    all.sum = sum.result();
    all.increase = if all.count == 0 { 0.0 } else { all.last - all.first + fallen };
    all
}

fn lesser(least: f64, value: f64) -> f64 {
    if value < least || least.is_nan() { value } else { least }
}

fn greater(greatest: f64, value: f64) -> f64 {
    if value > greatest || greatest.is_nan() { value } else { greatest }
}

/// Neumaier's compensated sum: sums of decimals come out as the decimal, which then costs few bytes.
#[derive(Default)]
struct Sum {
    sum: f64,
    lost: f64,
}

impl Sum {
    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += if self.sum.abs() >= value.abs() { (self.sum - sum) + value } else { (value - sum) + self.sum };
        self.sum = sum;
    }

    fn result(&self) -> f64 {
        // With an infinity among the values what was lost is NaN.
        if self.sum.is_finite() { self.sum + self.lost } else { self.sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(pairs: &[(i64, f64)]) -> Vec<Sample> {
        pairs.iter().map(|&(t, v)| Sample { t, v }).collect()
    }

    #[test]
    fn a_row_keeps_what_queries_ask_for() {
        let rows = from_samples(&samples(&[(0, 1.0), (10, 4.0), (20, 2.0), (30, 3.5), (105, 0.1)]), 100);
        let first = rows[0];
        assert_eq!((first.count, first.begin, first.end, first.first, first.last), (4, 0, 30, 1.0, 3.5));
        assert_eq!((first.least, first.greatest, first.sum, first.increase), (1.0, 4.0, 10.5, 6.5));
        assert_eq!((rows.len(), rows[1].start, rows[1].increase, rows[1].sum), (2, 100, 0.0, 0.1));
        let hour = from_rows(&rows, 1_000)[0];
        assert_eq!((hour.count, hour.begin, hour.end, hour.least), (5, 0, 105, 0.1));
        assert!((hour.increase - 6.6).abs() < 1e-12, "{}: the fall between rows counts too", hour.increase);
        let tenths: Vec<Sample> = (0..10).map(|t| Sample { t, v: 0.1 }).collect();
        assert_eq!(from_samples(&tenths, 100)[0].sum, 1.0, "without what floats lose");
    }

    #[test]
    fn markers_end_rows_and_nan_is_a_value() {
        let mut all = samples(&[(0, 1.0), (10, f64::NAN), (20, 3.0)]);
        all.push(Sample::stale(30));
        let row = from_samples(&all, 100)[0];
        assert_eq!((row.count, row.ended, row.least, row.greatest, row.end), (3, Some(30), 1.0, 3.0, 20));
        assert!(row.sum.is_nan());
        all.push(Sample { t: 40, v: f64::INFINITY });
        let row = from_samples(&all, 100)[0];
        assert_eq!((row.count, row.ended, row.greatest), (4, None, f64::INFINITY));
        let only = from_samples(&[Sample::stale(205)], 100)[0];
        assert_eq!((only.count, only.start, only.ended, only.increase), (0, 200, Some(205), 0.0));
        let hour = from_rows(&[from_samples(&all[..3], 100)[0], only], 1_000)[0];
        assert_eq!((hour.count, hour.end, hour.ended), (3, 20, Some(205)));
    }
}
