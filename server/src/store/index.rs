//! Which series there are: by labels, by id, and by postings (label name, value, ids) for matchers. In memory, rebuilt at the
//! start from the series lists of the samples files and the journals.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::head::Head;
use super::numbered::{Numbered, Numbers, Page};
use super::postings::{retain, union};
use crate::series::{Labels, MatchOp, Matcher};

/// A series' number: never given to two series at the same time, part of its chunks' keys.
pub type SeriesId = u64;

/// One series: who it is and what of it is in memory.
#[derive(Debug)]
pub struct Series {
    /// Its number.
    pub id: SeriesId,
    /// Its labels.
    pub labels: Labels,
    head: Mutex<Head>,
    /// Number of the newest journal file that declares the labels; 0 for none.
    declared_in: AtomicU64,
    forgotten: AtomicBool,
}

impl Series {
    /// A series of no store.
    #[cfg(test)]
    pub fn detached(id: SeriesId, labels: Labels) -> Series {
        let (declared_in, forgotten) = (AtomicU64::new(0), AtomicBool::new(false));
        Series { id, labels, head: Mutex::default(), declared_in, forgotten }
    }

    /// The head, locked.
    pub(super) fn head(&self) -> MutexGuard<'_, Head> {
        // Every change of a head is complete before anything in it can panic.
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a journal file has the labels.
    pub(super) fn is_declared_in(&self, journal: u64) -> bool {
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
    pub(super) fn declare_in(&self, journal: u64) {
        self.declared_in.store(journal, Ordering::Relaxed);
    }

    /// Whether the index no longer has it: whoever found it before must look for its labels again.
    pub fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }
}

/// A series as the set of all knows it: by its labels' bytes, which are in it. A map would hold the labels a second time.
#[derive(Debug)]
struct Labelled(Arc<Series>);

impl Borrow<[u8]> for Labelled {
    fn borrow(&self) -> &[u8] {
        self.0.labels.as_wire()
    }
}

impl Hash for Labelled {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.labels.as_wire().hash(state);
    }
}

impl PartialEq for Labelled {
    fn eq(&self, other: &Labelled) -> bool {
        self.0.labels == other.0.labels
    }
}

impl Eq for Labelled {}

/// Equal label sets have equal bytes, and foldhash, seeded at random, takes a tenth of the standard hasher's time for a hundred bytes.
type ByLabels = HashSet<Labelled, foldhash::quality::RandomState>;

/// All series.
#[derive(Debug, Default)]
pub struct Index {
    by_labels: ByLabels,
    by_id: Numbered,
    postings: HashMap<Box<str>, BTreeMap<Box<str>, Vec<SeriesId>>>,
    id_last: SeriesId,
}

impl Index {
    /// Number of series.
    pub fn len(&self) -> usize {
        self.by_labels.len()
    }

    /// The series with these labels.
    pub fn get(&self, labels: &Labels) -> Option<&Arc<Series>> {
        self.known(labels.as_wire())
    }

    fn known(&self, labels: &[u8]) -> Option<&Arc<Series>> {
        self.by_labels.get(labels).map(|Labelled(series)| series)
    }

    /// Finds the series of one request, one after the other.
    pub fn finder(&self) -> Finder<'_> {
        Finder { index: self, id_next: 0, page: None }
    }

    /// The series with this number.
    pub fn by_id(&self, id: SeriesId) -> Option<&Arc<Series>> {
        self.by_id.get(id)
    }

    /// Looks series up by their numbers, one after the other.
    pub(super) fn numbers(&self) -> Numbers<'_> {
        self.by_id.numbers()
    }

    /// All series in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Series>> {
        self.by_id.iter()
    }

    /// Every label with its values and the number of series of each.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = (&str, usize)>)> {
        self.postings.iter().map(|(name, values)| (&**name, values.iter().map(|(value, ids)| (&**value, ids.len()))))
    }

    /// Number of series that have this label. O(log of the values of the name): the postings are the count.
    pub fn count(&self, name: &str, value: &str) -> usize {
        self.postings.get(name).and_then(|values| values.get(value)).map_or(0, Vec::len)
    }

    /// The series with these labels, made with the next number where it is missing.
    pub fn get_or_add(&mut self, labels: &Labels) -> Arc<Series> {
        if let Some(series) = self.get(labels) {
            return Arc::clone(series);
        }
        self.add(self.id_last + 1, labels)
    }

    /// Takes over a series as a file declares it. `None` where the number or the labels already belong to another one; where that
    /// one has no sample left it was forgotten, and gives way.
    pub fn restore(&mut self, id: SeriesId, labels: &Labels) -> Option<Arc<Series>> {
        match (self.by_id.get(id), self.get(labels)) {
            (Some(known), _) if known.labels == *labels => Some(Arc::clone(known)),
            (None, None) => Some(self.add(id, labels)),
            (None, Some(known)) if known.is_bare() => {
                let known = Arc::clone(known);
                self.remove(&[known]);
                Some(self.add(id, labels))
            }
            _ => None,
        }
    }

    fn add(&mut self, id: SeriesId, labels: &Labels) -> Arc<Series> {
        for (name, value) in labels {
            let values = entry(&mut self.postings, name);
            if let Some(ids) = values.get_mut(value) {
                // Numbers are given in order, and files have them in order.
                if ids.last().is_none_or(|last| *last < id) {
                    ids.push(id);
                } else if let Err(at) = ids.binary_search(&id) {
                    ids.insert(at, id);
                }
            } else {
                values.insert(value.into(), vec![id]);
            }
        }
        let series = Arc::new(Series {
            id,
            labels: labels.clone(),
            head: Mutex::default(),
            declared_in: AtomicU64::new(0),
            forgotten: AtomicBool::new(false),
        });
        self.by_labels.insert(Labelled(Arc::clone(&series)));
        self.by_id.insert(Arc::clone(&series));
        self.id_last = self.id_last.max(id);
        series
    }

    /// Forgets series. O(their labels, and the lists of postings that have them).
    pub fn remove(&mut self, gone: &[Arc<Series>]) {
        let mut shrunk: HashSet<(&str, &str)> = HashSet::new();
        for series in gone {
            series.forgotten.store(true, Ordering::Relaxed);
            self.by_labels.remove(series.labels.as_wire());
            self.by_id.remove(series.id);
            shrunk.extend(series.labels.iter());
        }
        for (name, value) in shrunk {
            let Some(values) = self.postings.get_mut(name) else { continue };
            if let Some(ids) = values.get_mut(value) {
                ids.retain(|id| self.by_id.get(*id).is_some());
                if ids.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.postings.remove(name);
            }
        }
    }

    /// The series that fulfil all matchers, in the order of their numbers.
    pub fn select(&self, matchers: &[Matcher]) -> Vec<Arc<Series>> {
        self.find(matchers).iter().filter_map(|id| self.by_id.get(*id)).cloned().collect()
    }

    /// The numbers of the series that fulfil all matchers, sorted. Mostly O(the postings of the values that matchers name), without a
    /// look at the series; all series are taken where no matcher refuses the empty string.
    pub fn find(&self, matchers: &[Matcher]) -> Vec<SeriesId> {
        let mut equal = Vec::new();
        let mut others = Vec::new();
        for matcher in matchers {
            match &matcher.op {
                MatchOp::Equal(value) if !value.is_empty() => {
                    let ids = self.postings.get(matcher.name.as_str()).and_then(|values| values.get(value.as_str()));
                    let Some(ids) = ids else { return Vec::new() };
                    equal.push(ids);
                }
                _ => others.push(matcher),
            }
        }
        equal.sort_by_key(|ids| ids.len());
        // Those that refuse the empty string first: only they can be a beginning.
        others.sort_by_key(|matcher| matcher.matches_value(""));
        let mut equal = equal.into_iter();
        let mut others = others.into_iter().peekable();
        let mut found = match equal.next() {
            Some(shortest) => shortest.clone(),
            None => match others.next_if(|matcher| !matcher.matches_value("")) {
                Some(first) => union(self.lists(first, true)),
                None => self.by_id.iter().map(|series| series.id).collect(),
            },
        };
        equal.for_each(|ids| retain(&mut found, ids, true));
        others.for_each(|matcher| self.narrow(&mut found, matcher));
        found
    }

    /// Leaves those that fulfil a matcher: by the postings of its label, or by the series' labels where these are fewer.
    fn narrow(&self, found: &mut Vec<SeriesId>, matcher: &Matcher) {
        /// Looking at a series takes so many times as long as stepping over a number.
        const LOOK: usize = 16;
        let with_absent = matcher.matches_value("");
        let Some(values) = self.postings.get(matcher.name.as_str()) else {
            if !with_absent {
                found.clear();
            }
            return;
        };
        let values_tried = if matches!(matcher.op, MatchOp::NotEqual(_)) { 1 } else { values.len() };
        if values_tried <= found.len() {
            let lists = self.lists(matcher, !with_absent);
            if lists.iter().map(|ids| ids.len()).sum::<usize>() <= found.len() * LOOK {
                return retain(found, &union(lists), !with_absent);
            }
        }
        found.retain(|id| self.by_id.get(*id).is_some_and(|series| matcher.matches(&series.labels)));
    }

    /// The lists of the values that a matcher accepts, or of those that it refuses.
    fn lists(&self, matcher: &Matcher, accepted: bool) -> Vec<&Vec<SeriesId>> {
        let Some(values) = self.postings.get(matcher.name.as_str()) else { return Vec::new() };
        match (&matcher.op, accepted) {
            (MatchOp::Equal(value), true) | (MatchOp::NotEqual(value), false) => {
                values.get(value.as_str()).into_iter().collect()
            }
            _ => {
                let wanted = values.iter().filter(|(value, _)| matcher.matches_value(value) == accepted);
                wanted.map(|(_, ids)| ids).collect()
            }
        }
    }
}

/// Finds series by their labels' bytes. Senders repeat their series in the order in which they first came, which is that of the
/// numbers: so the one after the last found is tried first, and only where it is another one are the bytes hashed.
pub struct Finder<'a> {
    index: &'a Index,
    id_next: SeriesId,
    page: Option<&'a Page>,
}

impl<'a> Finder<'a> {
    /// The series whose labels are this block of [`Labels::as_wire`]; bytes that are no label set are nobody's.
    pub fn find(&mut self, labels: &[u8]) -> Option<&'a Arc<Series>> {
        let found = self.next().filter(|next| next.labels.as_wire() == labels);
        let found = found.or_else(|| self.index.known(labels))?;
        self.id_next = found.id + 1;
        Some(found)
    }

    fn next(&mut self) -> Option<&'a Arc<Series>> {
        if let Some(next) = self.page.and_then(|page| page.get(self.id_next)) {
            return Some(next);
        }
        self.page = self.index.by_id.page(self.id_next);
        self.page?.get(self.id_next)
    }
}

/// The values of a label name; the name is copied only where it is unknown.
fn entry<'a>(
    postings: &'a mut HashMap<Box<str>, BTreeMap<Box<str>, Vec<SeriesId>>>,
    name: &str,
) -> &'a mut BTreeMap<Box<str>, Vec<SeriesId>> {
    if !postings.contains_key(name) {
        postings.insert(name.into(), BTreeMap::new());
    }
    postings.get_mut(name).expect("it was there or has just been put there")
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
        assert_eq!(found(&index, &[regex("__name__", "up|load|cpu", false), regex("mode", ".+", false)]), [1, 2]);
        assert_eq!(found(&index, &[Matcher::equal("__name__", "cpu"), regex("mode", "user|", true)]), [1]);
        assert_eq!(found(&index, &[Matcher::equal("mode", "user"), Matcher::equal("nothing", "")]), [2]);
        assert!(found(&index, &[Matcher::equal("mode", "user"), regex("nothing", ".+", false)]).is_empty());
        assert_eq!(found(&index, &[]), [1, 2, 3, 4]);
        assert!(found(&index, &[Matcher::equal("nothing", "x")]).is_empty());
        assert_eq!((index.count("mode", "user"), index.count("__name__", "cpu"), index.count("x", "y")), (1, 2, 0));
        let user = Arc::clone(index.by_id(2).unwrap());
        index.remove(&[Arc::clone(&user)]);
        assert_eq!((index.count("mode", "user"), index.count("__name__", "cpu")), (0, 1));
        assert!(user.is_forgotten() && index.get(&user.labels).is_none());
        assert_eq!(found(&index, &[Matcher::equal("__name__", "cpu")]), [1]);
        assert!(found(&index, &[Matcher::equal("mode", "user")]).is_empty());
        index.by_id(3).unwrap().head().add_day(1);
        assert!(index.restore(9, &Labels::new([("__name__", "up")])).is_none());
    }

    proptest::proptest! {
        #[test]
        fn postings_find_what_labels_fulfil(
            all in proptest::collection::vec(("[ab]", "[xyz]{0,2}", "[xyz]?"), 0..60),
            asked in proptest::collection::vec(("[ab]", 0usize..4, "[xyz]{0,2}"), 0..4),
        ) {
            let mut index = Index::default();
            for (i, (name, value, other)) in all.iter().enumerate() {
                let i = i.to_string();
                index.get_or_add(&Labels::new([(name.as_str(), value.as_str()), ("c", other.as_str()), ("i", i.as_str())]));
            }
            let matchers: Vec<Matcher> = asked
                .iter()
                .map(|(name, op, value)| match op {
                    0 => Matcher::equal(name, value),
                    1 => Matcher { name: name.clone(), op: MatchOp::NotEqual(value.clone()) },
                    2 => Matcher::regex(name, &format!("{value}.?"), false).unwrap(),
                    _ => Matcher::regex(name, &format!("{value}.?"), true).unwrap(),
                })
                .collect();
            let fulfil = |series: &&Arc<Series>| matchers.iter().all(|matcher| matcher.matches(&series.labels));
            let want: Vec<SeriesId> = index.iter().filter(fulfil).map(|series| series.id).collect();
            proptest::prop_assert_eq!(index.find(&matchers), want);
        }
    }
}
