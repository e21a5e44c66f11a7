//! Which series there are: by labels, by id, and by postings (label name, value, ids) for matchers. In memory, rebuilt at the
//! start from the series lists of the samples files and the journals.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::head::Head;
use crate::series::{Labels, MatchOp, Matcher};

/// A series' number: never given to two series at the same time, part of its chunks' keys.
pub type SeriesId = u64;

/// One series: who it is and what of it is in memory.
#[derive(Debug)]
pub struct Series {
    /// Its number.
    pub id: SeriesId,
    /// Its labels; equal strings of different series share memory.
    pub labels: Labels,
    head: Mutex<Head>,
    /// Number of the newest journal file that declares the labels; 0 for none.
    declared_in: AtomicU64,
}

impl Series {
    /// The head, locked.
    pub fn head(&self) -> MutexGuard<'_, Head> {
        // Every change of a head is complete before anything in it can panic.
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a journal file has the labels.
    pub fn is_declared_in(&self, journal: u64) -> bool {
        self.declared_in.load(Ordering::Relaxed) == journal
    }

    /// Whether there is no sample of it.
    pub fn is_bare(&self) -> bool {
        let head = self.head();
        head.is_empty() && head.days().is_empty()
    }

    /// The newest journal file that has the labels; 0 for none.
    pub fn declared_in(&self) -> u64 {
        self.declared_in.load(Ordering::Relaxed)
    }

    /// Notes that a journal file has the labels.
    pub fn declare_in(&self, journal: u64) {
        self.declared_in.store(journal, Ordering::Relaxed);
    }
}

/// All series.
#[derive(Debug, Default)]
pub struct Index {
    by_labels: HashMap<Labels, Arc<Series>>,
    by_id: BTreeMap<SeriesId, Arc<Series>>,
    postings: HashMap<Arc<str>, BTreeMap<Arc<str>, Vec<SeriesId>>>,
    id_last: SeriesId,
}

impl Index {
    /// Number of series.
    pub fn len(&self) -> usize {
        self.by_labels.len()
    }

    /// The series with these labels.
    pub fn get(&self, labels: &Labels) -> Option<&Arc<Series>> {
        self.by_labels.get(labels)
    }

    /// The series with this number.
    pub fn by_id(&self, id: SeriesId) -> Option<&Arc<Series>> {
        self.by_id.get(&id)
    }

    /// All series in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Series>> {
        self.by_id.values()
    }

    /// The series with these labels, made with the next number where it is missing.
    pub fn get_or_add(&mut self, labels: &Labels) -> Arc<Series> {
        if let Some(series) = self.by_labels.get(labels) {
            return Arc::clone(series);
        }
        self.add(self.id_last + 1, labels)
    }

    /// Takes over a series as a file declares it. `None` where the number or the labels already belong to another one; where that
    /// one has no sample left it was forgotten, and gives way.
    pub fn restore(&mut self, id: SeriesId, labels: &Labels) -> Option<Arc<Series>> {
        match (self.by_id.get(&id), self.by_labels.get(labels)) {
            (Some(known), _) if known.labels == *labels => Some(Arc::clone(known)),
            (None, None) => Some(self.add(id, labels)),
            (None, Some(known)) if known.is_bare() => {
                let known = Arc::clone(known);
                self.remove(&known);
                Some(self.add(id, labels))
            }
            _ => None,
        }
    }

    fn add(&mut self, id: SeriesId, labels: &Labels) -> Arc<Series> {
        let mut pairs = Vec::with_capacity(labels.len());
        for (name, value) in labels.pairs() {
            let name = match self.postings.get_key_value(name) {
                Some((known, _)) => Arc::clone(known),
                None => Arc::clone(name),
            };
            let values = self.postings.entry(Arc::clone(&name)).or_default();
            let value = match values.get_key_value(value) {
                Some((known, _)) => Arc::clone(known),
                None => Arc::clone(value),
            };
            let ids = values.entry(Arc::clone(&value)).or_default();
            if let Err(at) = ids.binary_search(&id) {
                ids.insert(at, id);
            }
            pairs.push((name, value));
        }
        let labels = Labels::new(pairs);
        let series = Arc::new(Series {
            id,
            labels: labels.clone(),
            head: Mutex::new(Head::default()),
            declared_in: AtomicU64::new(0),
        });
        self.by_labels.insert(labels, Arc::clone(&series));
        self.by_id.insert(id, Arc::clone(&series));
        self.id_last = self.id_last.max(id);
        series
    }

    /// Forgets a series.
    pub fn remove(&mut self, series: &Series) {
        self.by_labels.remove(&series.labels);
        self.by_id.remove(&series.id);
        for (name, value) in series.labels.pairs() {
            let Some(values) = self.postings.get_mut(name) else { continue };
            if let Some(ids) = values.get_mut(value) {
                ids.retain(|id| *id != series.id);
                if ids.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.postings.remove(name);
            }
        }
    }

    /// The series that fulfil all matchers, in the order of their numbers. O(the shortest list of postings that a matcher
    /// names × matchers); without a matcher that refuses the empty string, all series are looked at.
    pub fn select(&self, matchers: &[Matcher]) -> Vec<Arc<Series>> {
        // Expressions are tried on every value of their label, so they choose the list only where no equality can.
        let refuse_empty = |matcher: &&Matcher| !matcher.matches_value("");
        let is_equality = |matcher: &&Matcher| matches!(matcher.op, MatchOp::Equal(_));
        let has_equality = matchers.iter().filter(refuse_empty).any(|matcher| is_equality(&matcher));
        let shortest = matchers
            .iter()
            .filter(refuse_empty)
            .filter(|matcher| !has_equality || is_equality(matcher))
            .map(|matcher| self.candidates(matcher))
            .min_by_key(|lists| lists.iter().map(|ids| ids.len()).sum::<usize>());
        let fulfils = |series: &Arc<Series>| matchers.iter().all(|matcher| matcher.matches(&series.labels));
        match shortest {
            None => self.by_id.values().filter(|series| fulfils(series)).cloned().collect(),
            Some(lists) => {
                let mut ids: Vec<SeriesId> = lists.into_iter().flatten().copied().collect();
                ids.sort_unstable();
                ids.iter().filter_map(|id| self.by_id.get(id)).filter(|series| fulfils(series)).cloned().collect()
            }
        }
    }

    /// Lists of series whose label fulfils a matcher that refuses the empty string.
    fn candidates(&self, matcher: &Matcher) -> Vec<&Vec<SeriesId>> {
        let Some(values) = self.postings.get(matcher.name.as_str()) else { return Vec::new() };
        if let MatchOp::Equal(value) = &matcher.op {
            return values.get(value.as_str()).into_iter().collect();
        }
        values.iter().filter(|(value, _)| matcher.matches_value(value)).map(|(_, ids)| ids).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: &Index, matchers: &[Matcher]) -> Vec<u64> {
        index.select(matchers).iter().map(|series| series.id).collect()
    }

    #[test]
    fn matchers_find_series() {
        let mut index = Index::default();
        for (name, mode) in [("cpu", "idle"), ("cpu", "user"), ("up", ""), ("load", "")] {
            index.get_or_add(&Labels::new([("__name__", name), ("mode", mode)]));
        }
        let regex = |name: &str, pattern: &str, negated| Matcher::regex(name, pattern, negated).unwrap();
        assert_eq!(found(&index, &[Matcher::equal("__name__", "cpu")]), [1, 2]);
        assert_eq!(found(&index, &[Matcher::equal("__name__", "cpu"), regex("mode", "i.*", false)]), [1]);
        assert_eq!(found(&index, &[regex("mode", "i.*", true)]), [2, 3, 4]);
        assert_eq!(found(&index, &[Matcher::equal("mode", "")]), [3, 4]);
        assert_eq!(found(&index, &[regex("__name__", "up|load", false)]), [3, 4]);
        assert_eq!(found(&index, &[]), [1, 2, 3, 4]);
        assert!(found(&index, &[Matcher::equal("nothing", "x")]).is_empty());
        let user = Arc::clone(index.by_id(2).unwrap());
        index.remove(&user);
        assert_eq!(found(&index, &[Matcher::equal("__name__", "cpu")]), [1]);
        assert!(found(&index, &[Matcher::equal("mode", "user")]).is_empty());
        index.by_id(3).unwrap().head().add_day(1);
        assert!(index.restore(9, &Labels::new([("__name__", "up")])).is_none());
    }
}
