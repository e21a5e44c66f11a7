//! Rows as samples. A query's function gets the samples over which its ordinary arithmetic gives the best answer that the rows allow:
//! a counter that rises evenly by the row's increase, the least or the greatest value, parts of the sum. Points lie closer together than a third of the window that is looked through, so that no window between rows is empty. Pure.

use super::row::Row;
use crate::query::source::{Column, View};
use crate::series::{Sample, Timestamp};

/// Samples made of rows that come in the order of time.
pub struct Drawing {
    view: View,
    before: Option<(Row, i64)>,
    /// Most samples in a row so far, and the step of that row.
    fullest: (u64, i64),
    /// What was drawn.
    pub samples: Vec<Sample>,
}

/// Parts that a full row's mean is drawn in at least: a row with fewer samples gets fewer, so that a mean over rows weighs them.
const MEAN_PARTS_MIN: i64 = 10;

impl Drawing {
    /// Nothing drawn yet.
    pub fn new(view: View) -> Drawing {
        Drawing { view, before: None, fullest: (0, 0), samples: Vec::new() }
    }

    /// Draws the next row, of a level with this step.
    pub fn push(&mut self, row: Row, step_ms: i64) {
        if row.count > 0 {
            match self.view.column {
                Column::Last => self.hold(&row),
                Column::Recorded => {
                    self.point(Sample { t: row.begin, v: row.first });
                    self.point(Sample { t: row.end, v: row.last });
                }
                Column::Counter | Column::Slope => self.rise(&row, step_ms),
                Column::Least => self.repeat(&row, self.parts(row.end - row.begin, row.count), row.least),
                Column::Greatest => self.repeat(&row, self.parts(row.end - row.begin, row.count), row.greatest),
                Column::Sum => {
                    let parts = self.parts(row.end - row.begin, row.count);
                    self.repeat(&row, parts, row.sum / parts as f64);
                }
                Column::Count => self.repeat(&row, i64::try_from(row.count).unwrap_or(i64::MAX), 1.0),
                Column::Mean => {
                    let parts = self.weighed_parts(&row, step_ms);
                    self.repeat(&row, parts, row.sum / row.count as f64);
                }
            }
        }
        if let (Column::Last | Column::Recorded, Some(ended)) = (self.view.column, row.ended) {
            self.point(Sample::stale(ended));
        }
        self.before = Some((row, step_ms));
    }

    fn point(&mut self, sample: Sample) {
        if self.samples.last().is_none_or(|last| last.t < sample.t) {
            self.samples.push(sample);
        }
    }

    /// How many parts a span is cut into: enough for the window, not more than there were samples.
    fn parts(&self, span_ms: i64, count: u64) -> i64 {
        let spacing = (self.view.window_ms / 3).max(1);
        let most = i64::try_from(count).unwrap_or(i64::MAX).max(1);
        (span_ms / spacing + i64::from(span_ms % spacing > 0)).clamp(1, most)
    }

    /// The first value until the last one: only values that were.
    fn hold(&mut self, row: &Row) {
        let span = row.end - row.begin;
        let parts = self.parts(span, row.count);
        for part in 0..parts {
            self.point(Sample { t: row.begin + span * part / parts, v: row.first });
        }
        self.point(Sample { t: row.end, v: row.last });
    }

    /// One value all through, the last time at the row's end.
    fn repeat(&mut self, row: &Row, parts: i64, value: f64) {
        let span = i128::from(row.end - row.begin);
        for part in 1..=parts {
            let t = row.begin + (span * i128::from(part) / i128::from(parts)) as Timestamp;
            self.point(Sample { t, v: value });
        }
    }

    /// Parts in proportion to the row's samples, measured by the fullest row of its level.
    fn weighed_parts(&mut self, row: &Row, step_ms: i64) -> i64 {
        if self.fullest.1 != step_ms || self.fullest.0 < row.count {
            self.fullest = (row.count, step_ms);
        }
        let full = self.parts(step_ms, u64::MAX).max(MEAN_PARTS_MIN);
        let share = row.count as f64 / self.fullest.0 as f64;
        ((full as f64 * share).round() as i64).max(1)
    }

    /// Even change from the last value of the row before, where that one is next to it, to the last value of this.
    fn rise(&mut self, row: &Row, step_ms: i64) {
        let next_to = |before: &Row, of: i64| before.count > 0 && row.start - before.start <= of.max(step_ms);
        let from = match self.before {
            Some((before, of)) if next_to(&before, of) && before.ended.is_none() => (before.end, before.last),
            _ => {
                self.point(Sample { t: row.begin, v: row.first });
                (row.begin, row.first)
            }
        };
        let is_counter = self.view.column == Column::Counter;
        let fallen =
            if is_counter && row.first < from.1 { from.1 } else { 0.0 } + if is_counter { row.fallen() } else { 0.0 };
        let rise = row.last - from.1 + fallen;
        let span = row.end - from.0;
        let parts = self.parts(span, row.count);
        let at = |share: f64| from.0 + (span as f64 * share) as Timestamp;
        // A counter that fell rises to a peak, begins at nothing, and rises to its last value; together that is the increase.
        let (peak, turn) =
            if fallen > 0.0 && rise > 0.0 { (rise - row.last, (rise - row.last) / rise) } else { (rise, 1.0) };
        let mut has_turned = false;
        for part in 1..=parts {
            let share = part as f64 / parts as f64;
            if share > turn && !has_turned {
                has_turned = true;
                self.point(Sample { t: at(turn), v: from.1 + peak });
                self.point(Sample { t: at(turn) + 1, v: 0.0 });
            }
            let v = if part == parts {
                row.last
            } else if has_turned {
                rise * share - peak
            } else {
                from.1 + rise * share
            };
            self.point(Sample { t: if part == parts { row.end } else { at(share) }, v });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::from_samples;
    use super::*;

    fn draw(samples: &[Sample], column: Column, window_ms: i64) -> Drawing {
        let mut drawing = Drawing::new(View { column, window_ms });
        for row in from_samples(samples, 300_000) {
            drawing.push(row, 300_000);
        }
        drawing
    }

    fn increase(samples: &[Sample]) -> f64 {
        let of = |pair: &[Sample]| if pair[1].v < pair[0].v { pair[1].v } else { pair[1].v - pair[0].v };
        samples.windows(2).map(of).sum()
    }

    #[test]
    fn a_counter_keeps_its_increase_whatever_falls() {
        let fallen: Vec<Sample> = (0..360)
            .map(|i| Sample {
                t: i * 10_000,
                v: if i < 100 { (i * 3) as f64 } else { ((i - 100) % 37 * 5 + i / 200) as f64 },
            })
            .collect();
        for window_ms in [60_000, 300_000, 3_600_000] {
            let drawn = draw(&fallen, Column::Counter, window_ms);
            let (got, want) = (increase(&drawn.samples), increase(&fallen));
            assert!((got - want).abs() < 1e-6, "{got} of {want} at {window_ms}");
            assert!(drawn.samples.is_sorted_by(|a, b| a.t < b.t));
        }
        let even: Vec<Sample> = (0..360).map(|i| Sample { t: i * 10_000, v: (i * 3) as f64 }).collect();
        let drawn = draw(&even, Column::Counter, 300_000).samples;
        let off = |sample: &&Sample| (sample.v - sample.t as f64 * 3.0 / 10_000.0).abs() > 0.01;
        assert_eq!(drawn.iter().find(off), None, "an even counter comes back as it was");
        assert!(drawn.windows(2).all(|pair| pair[1].t - pair[0].t <= 110_000), "no window of five minutes is empty");
    }

    #[test]
    fn sums_and_counts_are_exact_and_means_weigh() {
        let samples: Vec<Sample> = (0..90).map(|i| Sample { t: i * 10_000, v: (i % 30) as f64 }).collect();
        let sum =
            |column, window_ms| draw(&samples, column, window_ms).samples.iter().map(|sample| sample.v).sum::<f64>();
        for window_ms in [60_000, 300_000, 3_600_000] {
            assert!((sum(Column::Sum, window_ms) - 3.0 * 435.0).abs() < 1e-9);
            assert_eq!(draw(&samples, Column::Count, window_ms).samples.len(), 90);
        }
        let half: Vec<Sample> = (0..45).map(|i| Sample { t: i * 10_000, v: if i < 30 { 1.0 } else { 4.0 } }).collect();
        let means = draw(&half, Column::Mean, 3_600_000).samples;
        let mean = means.iter().map(|sample| sample.v).sum::<f64>() / means.len() as f64;
        assert!((mean - 2.0).abs() < 1e-9, "{mean}: half a row weighs half");
        assert!(draw(&samples, Column::Least, 60_000).samples.iter().all(|sample| sample.v == 0.0));
        assert!(draw(&samples, Column::Greatest, 60_000).samples.iter().all(|sample| sample.v == 29.0));
    }

    #[test]
    fn what_is_passed_on_was_recorded() {
        let mut samples: Vec<Sample> = (0..350).map(|i| Sample { t: i * 10_000 + i % 7, v: (i * i) as f64 }).collect();
        samples.push(Sample { t: 3_600_000, v: 1.0 });
        samples.push(Sample::stale(3_600_001));
        let drawn = draw(&samples, Column::Recorded, 0).samples;
        let key = |sample: &Sample| (sample.t, sample.v.to_bits());
        assert!(drawn.iter().all(|sample| samples.iter().any(|other| key(other) == key(sample))));
        assert_eq!(drawn.len(), 12 * 2 + 2, "the first and the last of each row");
        assert!(drawn.is_sorted_by(|a, b| a.t < b.t));
    }

    #[test]
    fn the_last_value_is_one_that_was_and_ends_with_the_series() {
        let mut samples: Vec<Sample> = (0..35).map(|i| Sample { t: i * 10_000, v: f64::from(i % 2 == 0) }).collect();
        samples.push(Sample::stale(350_000));
        let drawn = draw(&samples, Column::Last, 300_000).samples;
        assert!(drawn.iter().all(|sample| sample.is_stale() || sample.v == 0.0 || sample.v == 1.0));
        assert_eq!(drawn.last().map(|sample| (sample.t, sample.is_stale())), Some((350_000, true)));
    }
}
