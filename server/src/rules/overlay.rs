//! A source that also shows what was recorded in this very evaluation and is not stored yet.
//!
//! Prometheus stores each rule's result before it evaluates the next rule; here results are stored in one commit at the
//! end, and rules that build on each other read through this.

use std::collections::HashMap;

use crate::query::source::{MetricMetadata, SelectError, Selected, Selection, Source, TimeRange, View};
use crate::series::{Labels, MatchOp, Matcher, NAME, Sample};

/// Fresh samples over a source. What is fresh wins over what is stored at the same time.
pub struct Overlay<'a> {
    base: &'a dyn Source,
    /// By metric name.
    fresh: HashMap<String, Vec<(Labels, Sample)>>,
}

impl<'a> Overlay<'a> {
    /// Nothing fresh yet.
    pub fn new(base: &'a dyn Source) -> Overlay<'a> {
        Overlay { base, fresh: HashMap::new() }
    }

    /// Shows a sample from now on.
    pub fn add(&mut self, labels: &Labels, sample: Sample) {
        self.fresh.entry(labels.name().to_owned()).or_default().push((labels.clone(), sample));
    }

    fn matching(&self, matchers: &[Matcher], range: TimeRange) -> Vec<(Labels, Sample)> {
        let name = matchers.iter().find_map(|matcher| match &matcher.op {
            MatchOp::Equal(value) if matcher.name == NAME => Some(value),
            _ => None,
        });
        let candidates: Box<dyn Iterator<Item = &(Labels, Sample)>> = match name {
            Some(name) => Box::new(self.fresh.get(name).into_iter().flatten()),
            None => Box::new(self.fresh.values().flatten()),
        };
        candidates
            .filter(|(_, sample)| (range.from..=range.to).contains(&sample.t))
            .filter(|(labels, _)| matchers.iter().all(|matcher| matcher.matches(labels)))
            .cloned()
            .collect()
    }
}

impl Source for Overlay<'_> {
    fn select(&self, matchers: &[Matcher], range: TimeRange, samples_max: u64) -> Result<Vec<Selected>, SelectError> {
        self.find(matchers, range, View::PLAIN, samples_max)?.all()
    }

    /// What has nothing fresh in it is read as the base reads it.
    fn find<'b>(
        &'b self,
        matchers: &[Matcher],
        range: TimeRange,
        view: View,
        samples_max: u64,
    ) -> Result<Box<dyn Selection + 'b>, SelectError> {
        let based = self.base.find(matchers, range, view, samples_max)?;
        let mut fresh = self.matching(matchers, range);
        if fresh.is_empty() {
            return Ok(based);
        }
        let mut selected = based.all()?;
        fresh.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.t.cmp(&b.1.t)));
        let mut places: HashMap<Labels, usize> =
            selected.iter().enumerate().map(|(i, series)| (series.labels.clone(), i)).collect();
        for (labels, sample) in fresh {
            let place = *places.entry(labels).or_insert_with_key(|labels| {
                selected.push(Selected { labels: labels.clone(), samples: Vec::new() });
                selected.len() - 1
            });
            let samples = &mut selected[place].samples;
            match samples.binary_search_by_key(&sample.t, |sample| sample.t) {
                Ok(i) => samples[i] = sample,
                Err(i) => samples.insert(i, sample),
            }
        }
        let total: usize = selected.iter().map(|series| series.samples.len()).sum();
        if total as u64 > samples_max {
            return Err(SelectError::TooManySamples { samples_max });
        }
        Ok(Box::new(selected))
    }

    fn series(&self, any_of: &[Vec<Matcher>], range: TimeRange) -> Result<Vec<Labels>, SelectError> {
        self.base.series(any_of, range)
    }

    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        self.base.metadata()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::query::source::Column;

    /// Notes the views that it is asked for.
    #[derive(Default)]
    struct Noting(Mutex<Vec<View>>);

    impl Source for Noting {
        fn select(&self, _: &[Matcher], _: TimeRange, _: u64) -> Result<Vec<Selected>, SelectError> {
            Ok(Vec::new())
        }

        fn find<'a>(
            &'a self,
            _: &[Matcher],
            _: TimeRange,
            view: View,
            _: u64,
        ) -> Result<Box<dyn Selection + 'a>, SelectError> {
            self.0.lock().unwrap().push(view);
            Ok(Box::new(Vec::new()))
        }

        fn series(&self, _: &[Vec<Matcher>], _: TimeRange) -> Result<Vec<Labels>, SelectError> {
            Ok(Vec::new())
        }

        fn metadata(&self) -> Vec<(String, MetricMetadata)> {
            Vec::new()
        }
    }

    #[test]
    fn the_view_is_passed_on() {
        let base = Noting::default();
        let mut overlay = Overlay::new(&base);
        let view = View { column: Column::Counter, window_ms: 60_000 };
        let range = TimeRange { from: 0, to: 10 };
        assert_eq!(overlay.find(&[], range, view, 10).unwrap().count(), 0);
        overlay.add(&Labels::new([(NAME, "up")]), Sample { t: 5, v: 1.0 });
        assert_eq!(overlay.find(&[], range, view, 10).unwrap().count(), 1);
        assert_eq!(*base.0.lock().unwrap(), [view, view]);
    }
}
