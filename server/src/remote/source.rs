//! The local store and the remote engine as one source. The local store is asked for what it has whole, the remote engine for what
//! is older. Where the remote engine is away there are two views: one for people, whose answers come from the local store with a
//! warning in them, and one for rules and guards, whose answers fail: a part of the truth is no ground for alerts or actions.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use petrel_agent::error_chain::chain;

use crate::query::source::{MetricMetadata, Note, SelectError, Selected, Selection, Show, Source, TimeRange, View};
use crate::series::{Labels, Matcher, Sample, Timestamp};

/// Two sources as one. Whoever asks in a way that has no room for notes gets an error where something is missing.
pub struct Merged {
    /// What is recent.
    pub local: Arc<dyn Source>,
    /// What is older, and how it is told apart.
    pub remote: Arc<dyn Source>,
    /// Which is asked for what.
    pub bounds: Bounds,
    /// Whether an answer without the remote engine fails.
    pub is_strict: bool,
}

/// Which source has what.
#[derive(Clone)]
pub struct Bounds {
    /// The instant from which on the local store has unlinked nothing.
    pub kept_from: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Where the data folder was new when the remote engine was switched on, that time: what is older may be there alone.
    pub since: Timestamp,
    /// Ask the remote engine for everything.
    pub read_recent: bool,
}

/// The parts of a question.
#[derive(Debug, PartialEq, Eq)]
struct Parts {
    local: Option<TimeRange>,
    remote: Option<TimeRange>,
}

impl Bounds {
    fn parts(&self, range: TimeRange) -> Parts {
        let kept_from = (self.kept_from)();
        let part = |from: Timestamp, to: Timestamp| (from <= to).then_some(TimeRange { from, to });
        let remote_to = if self.read_recent { range.to } else { range.to.min(kept_from.max(self.since) - 1) };
        Parts { local: part(range.from.max(kept_from), range.to), remote: part(range.from, remote_to) }
    }
}

impl Merged {
    /// What the answer lacks, or an error where it may lack nothing.
    fn without(&self, error: SelectError, notes: &mut Vec<Note>) -> Result<(), SelectError> {
        match error {
            SelectError::TooManySamples { .. } => Err(error),
            SelectError::Read(_) if self.is_strict => Err(error),
            SelectError::Read(cause) => {
                let text = format!("samples of the remote engine are missing: {}", chain(&*cause));
                notes.push(Note::Warning(text));
                Ok(())
            }
        }
    }

    /// This source for those who cannot be told that something is missing.
    fn strict(&self) -> Merged {
        let (local, remote) = (Arc::clone(&self.local), Arc::clone(&self.remote));
        Merged { local, remote, bounds: self.bounds.clone(), is_strict: true }
    }
}

impl Source for Merged {
    fn select(&self, matchers: &[Matcher], range: TimeRange, samples_max: u64) -> Result<Vec<Selected>, SelectError> {
        read_all(&self.strict(), matchers, (range, View::PLAIN), samples_max, &mut Vec::new())
    }

    fn find<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
        view: View,
        samples_max: u64,
    ) -> Result<Box<dyn Selection + 'a>, SelectError> {
        let Parts { local, remote } = self.bounds.parts(range);
        let Some(older) = remote else { return self.local.find(matchers, range, view, samples_max) };
        let mut notes = Vec::new();
        let older = match read_all(&*self.remote, matchers, (older, view), samples_max, &mut notes) {
            Ok(older) => older,
            Err(error) => {
                self.without(error, &mut notes)?;
                return Ok(Box::new(Noted { found: self.local.find(matchers, range, view, samples_max)?, notes }));
            }
        };
        let recent = match local {
            Some(range) => read_all(&*self.local, matchers, (range, view), samples_max, &mut notes)?,
            None => Vec::new(),
        };
        let merged = merge(older, recent);
        let samples: u64 = merged.iter().map(|series| series.samples.len() as u64).sum();
        if samples > samples_max {
            return Err(SelectError::TooManySamples { samples_max });
        }
        Ok(Box::new(Noted { found: Box::new(merged), notes }))
    }

    fn series(&self, any_of: &[Vec<Matcher>], range: TimeRange) -> Result<Vec<Labels>, SelectError> {
        self.strict().series_noting(any_of, range, &mut Vec::new())
    }

    fn series_noting(
        &self,
        any_of: &[Vec<Matcher>],
        range: TimeRange,
        notes: &mut Vec<Note>,
    ) -> Result<Vec<Labels>, SelectError> {
        let mut all: BTreeSet<Labels> = self.local.series_noting(any_of, range, notes)?.into_iter().collect();
        match self.bounds.parts(range).remote.map(|range| self.remote.series_noting(any_of, range, notes)) {
            Some(Ok(older)) => all.extend(older),
            Some(Err(error)) => self.without(error, notes)?,
            None => {}
        }
        Ok(all.into_iter().collect())
    }

    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        self.local.metadata()
    }
}

/// A selection with something to say.
struct Noted<'a> {
    found: Box<dyn Selection + 'a>,
    notes: Vec<Note>,
}

impl Selection for Noted<'_> {
    fn count(&self) -> usize {
        self.found.count()
    }

    fn read(&self, numbers: Range<usize>, show: &mut Show<'_>) -> Result<(), SelectError> {
        self.found.read(numbers, show)
    }

    fn notes(&self) -> Vec<Note> {
        self.notes.iter().cloned().chain(self.found.notes()).collect()
    }
}

/// All series of a source at once, with what it says of them.
fn read_all(
    source: &dyn Source,
    matchers: &[Matcher],
    (range, view): (TimeRange, View),
    samples_max: u64,
    notes: &mut Vec<Note>,
) -> Result<Vec<Selected>, SelectError> {
    let found = source.find(matchers, range, view, samples_max)?;
    let all = found.all()?;
    notes.extend(found.notes());
    Ok(all)
}

/// The series of both; where times are equal the local sample stands, because remote engines round.
fn merge(mut older: Vec<Selected>, mut recent: Vec<Selected>) -> Vec<Selected> {
    if older.is_empty() || recent.is_empty() {
        older.append(&mut recent);
        return older;
    }
    older.sort_by(|a, b| a.labels.cmp(&b.labels));
    let count = older.len();
    for series in recent {
        match older[..count].binary_search_by(|other| other.labels.cmp(&series.labels)) {
            Ok(at) => {
                let samples = std::mem::take(&mut older[at].samples);
                older[at].samples = merge_samples(samples, series.samples);
            }
            Err(_) => older.push(series),
        }
    }
    older
}

fn merge_samples(mut older: Vec<Sample>, recent: Vec<Sample>) -> Vec<Sample> {
    let in_order = older.last().zip(recent.first()).is_none_or(|(last, first)| last.t < first.t);
    older.extend(recent);
    if !in_order {
        // A stable sort leaves the recent one last among equals.
        older.sort_by_key(|sample| sample.t);
        older.reverse();
        older.dedup_by_key(|sample| sample.t);
        older.reverse();
    }
    older
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::Memory;
    use crate::query::source::recorded;

    struct Away;

    impl Source for Away {
        fn select(&self, _: &[Matcher], _: TimeRange, _: u64) -> Result<Vec<Selected>, SelectError> {
            Err(SelectError::Read("gone".into()))
        }

        fn series(&self, _: &[Vec<Matcher>], _: TimeRange) -> Result<Vec<Labels>, SelectError> {
            Err(SelectError::Read("gone".into()))
        }

        fn metadata(&self) -> Vec<(String, MetricMetadata)> {
            Vec::new()
        }
    }

    fn memory(line: &str) -> Arc<Memory> {
        let mut memory = Memory::default();
        memory.load(1_000, line);
        Arc::new(memory)
    }

    fn bounds(since: Timestamp) -> Bounds {
        Bounds { kept_from: Arc::new(|| 6_000), since, read_recent: false }
    }

    fn values(source: &Merged, range: TimeRange) -> (Vec<f64>, Vec<Note>) {
        let mut notes = Vec::new();
        let found = read_all(source, &[], (range, View::PLAIN), 1_000, &mut notes).unwrap();
        (found.iter().flat_map(|series| series.samples.iter().map(|sample| sample.v)).collect(), notes)
    }

    #[test]
    fn each_is_asked_for_its_part() {
        let range = |from, to| Some(TimeRange { from, to });
        let parts = |since, from, to| bounds(since).parts(TimeRange { from, to });
        assert_eq!(parts(0, 7_000, 9_000), Parts { local: range(7_000, 9_000), remote: None });
        assert_eq!(parts(0, 1_000, 9_000), Parts { local: range(6_000, 9_000), remote: range(1_000, 5_999) });
        assert_eq!(parts(0, 1_000, 2_000), Parts { local: None, remote: range(1_000, 2_000) });
        // Switched on a moment ago: either may have what came before.
        assert_eq!(parts(8_000, 1_000, 9_000), Parts { local: range(6_000, 9_000), remote: range(1_000, 7_999) });
        let all = Bounds { read_recent: true, ..bounds(0) };
        assert_eq!(all.parts(TimeRange { from: 7_000, to: 9_000 }).remote, range(7_000, 9_000));
    }

    #[test]
    fn local_samples_stand_and_an_absent_engine_is_told() {
        let (local, old) = (memory("up 100+1x10"), memory("up 0+1x10"));
        let range = TimeRange { from: 3_000, to: 9_000 };
        let merged = Merged { local: local.clone(), remote: old, bounds: bounds(8_000), is_strict: false };
        assert_eq!(values(&merged, range).0, [3.0, 4.0, 5.0, 106.0, 107.0, 108.0, 109.0]);
        assert!(matches!(merged.select(&[], range, 6), Err(SelectError::TooManySamples { samples_max: 6 })));

        let away = Merged { remote: Arc::new(Away), ..merged };
        let (found, notes) = values(&away, range);
        assert_eq!(found, [103.0, 104.0, 105.0, 106.0, 107.0, 108.0, 109.0]);
        assert_eq!(notes, [Note::Warning("samples of the remote engine are missing: gone".to_owned())]);
        let recent = TimeRange { from: 8_500, to: 9_000 };
        assert!(values(&away, recent).1.is_empty(), "what the local store has whole needs nobody else");
        let mut told = Vec::new();
        assert_eq!(away.series_noting(&[], range, &mut told).unwrap().len(), 1);
        assert_eq!(told.len(), 1);

        assert!(recorded(&away, &[], range, 1_000).is_err() && recorded(&away, &[], recent, 1_000).is_ok());
        assert!(away.select(&[], range, 1_000).is_err() && away.series(&[], range).is_err(), "nobody could be told");
        let strict = away.strict();
        assert!(strict.find(&[], range, View::PLAIN, 1_000).is_err());
        assert!(strict.select(&[], recent, 1_000).is_ok());
    }
}
