//! What makes the index large: the metrics, labels and pairs with the most series. For operators who look for the sender that
//! makes too many. Reads the index and nothing else.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::PoisonError;

use super::engine::Store;
use super::index::Index;
use crate::query::source::TimeRange;
use crate::series::NAME;

/// The largest parts of the index, each list sorted by count, then by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cardinality {
    /// Series known.
    pub series: u64,
    /// Different pairs of label and value.
    pub pairs: u64,
    /// Series with samples in memory.
    pub heads: u64,
    /// First and last instant of the samples in memory.
    pub span: Option<TimeRange>,
    /// Series of each metric.
    pub series_by_metric: Vec<Count>,
    /// Different values of each label.
    pub values_by_label: Vec<Count>,
    /// Bytes of the values of each label, counted once for each series that has them.
    pub bytes_by_label: Vec<Count>,
    /// Series of each pair, named `label=value`.
    pub series_by_pair: Vec<Count>,
}

/// A name and how many there are of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// How many.
    pub count: u64,
    /// Of what.
    pub name: String,
}

impl Store {
    /// The `most` largest parts of the index. O(label pairs + series).
    pub fn cardinality(&self, most: usize) -> Cardinality {
        let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
        let mut found = of_index(&index, most);
        for series in index.iter() {
            let Some(span) = series.head().span() else { continue };
            found.heads += 1;
            let known = found.span.get_or_insert(span);
            *known = TimeRange { from: known.from.min(span.from), to: known.to.max(span.to) };
        }
        found
    }
}

fn of_index(index: &Index, most: usize) -> Cardinality {
    let (mut metrics, mut values, mut bytes, mut pairs) =
        (Largest::new(most), Largest::new(most), Largest::new(most), Largest::new(most));
    let mut pairs_seen = 0;
    for (label, of_label) in index.pairs() {
        let (mut values_seen, mut bytes_seen) = (0, 0);
        for (value, series) in of_label {
            let series = series as u64;
            values_seen += 1;
            bytes_seen += value.len() as u64 * series;
            pairs.offer(series, || format!("{label}={value}"));
            if label == NAME {
                metrics.offer(series, || value.to_owned());
            }
        }
        pairs_seen += values_seen;
        values.offer(values_seen, || label.to_owned());
        bytes.offer(bytes_seen, || label.to_owned());
    }
    Cardinality {
        series: index.len() as u64,
        pairs: pairs_seen,
        series_by_metric: metrics.sorted(),
        values_by_label: values.sorted(),
        bytes_by_label: bytes.sorted(),
        series_by_pair: pairs.sorted(),
        ..Cardinality::default()
    }
}

/// Keeps the largest of what it is offered.
struct Largest {
    /// The smallest kept is on top; of equal ones the later name.
    kept: BinaryHeap<Reverse<(u64, Reverse<String>)>>,
    most: usize,
}

impl Largest {
    fn new(most: usize) -> Largest {
        Largest { kept: BinaryHeap::new(), most }
    }

    /// The name is made only where it may be kept.
    fn offer(&mut self, count: u64, name: impl FnOnce() -> String) {
        if self.kept.len() >= self.most && self.kept.peek().is_none_or(|Reverse((least, _))| count < *least) {
            return;
        }
        self.kept.push(Reverse((count, Reverse(name()))));
        if self.kept.len() > self.most {
            self.kept.pop();
        }
    }

    fn sorted(self) -> Vec<Count> {
        let largest_first = self.kept.into_sorted_vec().into_iter();
        largest_first.map(|Reverse((count, Reverse(name)))| Count { count, name }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Labels;

    #[test]
    fn the_largest_come_first_and_equal_ones_by_name() {
        let mut index = Index::default();
        for (name, mode) in [("cpu", "idle"), ("cpu", "user"), ("up", ""), ("load", ""), ("cpu", "io")] {
            index.get_or_add(&Labels::new([(NAME, name), ("mode", mode), ("job", "n")]));
        }
        let found = of_index(&index, 2);
        let text = |counts: &[Count]| {
            counts.iter().map(|one| format!("{} {}", one.name, one.count)).collect::<Vec<_>>().join(", ")
        };
        assert_eq!((found.series, found.pairs), (5, 7));
        assert_eq!(text(&found.series_by_metric), "cpu 3, load 1");
        assert_eq!(text(&found.values_by_label), "__name__ 3, mode 3");
        assert_eq!(text(&found.bytes_by_label), "__name__ 15, mode 10");
        assert_eq!(text(&found.series_by_pair), "job=n 5, __name__=cpu 3");
        assert!(of_index(&index, 0).series_by_pair.is_empty());
    }
}
