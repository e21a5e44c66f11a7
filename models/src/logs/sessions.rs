//! Blocks of work (a request, a session, a copied block) as counts of their events: strange is one that is unlike every block seen before,
//! or like only a rare one. Knows nothing of what events mean; a block's label never reaches it.
//!
//! The distance to the nearest of the counts seen, each event in units of its own spread, in the manner of the clustering of Q. Lin et al.,
//! «Log clustering based problem identification», 2016; rarity as a code length.

use std::collections::BTreeMap;

/// Different counts remembered, the most frequent first: what is rarer has no weight.
const KINDS_MAX: usize = 10_000;
/// Events told apart.
const EVENTS_MAX: usize = 10_000;
/// A unit of distance against a unit of rarity (a natural logarithm).
const DISTANCE: f64 = 2.0;
const RARITY: f64 = 0.5;
/// An event that was never seen is as strange as five units of distance.
const UNSEEN: f64 = 10.0;
/// Share of training blocks below the alarm: one in two hundred may be strange, and normal blocks may be told as often.
const CALM: f64 = 0.995;

/// What normal blocks of work look like.
#[derive(Debug, Clone)]
pub struct Sessions {
    events: BTreeMap<String, usize>,
    /// Weight of one event more or less, by event: the inverse of its spread.
    weights: Vec<f64>,
    /// Counts that were seen, and how often; sparse: event and count.
    kinds: Vec<(Vec<(usize, f64)>, f64)>,
    blocks: f64,
    threshold: f64,
}

/// What is said of one block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Strangeness {
    /// How unlike all that was seen: 0 and more, in no unit.
    pub score: f64,
    /// Whether it is stranger than nearly all blocks of the training.
    pub is_alarm: bool,
}

/// The counts of a block: of known events, sorted, and how many of its events are unknown.
type Counts = (Vec<(usize, f64)>, usize);

impl Sessions {
    /// Learns from blocks, mostly normal, each a list of events. `None` where there are none. O(blocks × kinds × events of a block).
    pub fn learn(blocks: &[Vec<&str>]) -> Option<Sessions> {
        let mut events: BTreeMap<String, usize> = BTreeMap::new();
        for event in blocks.iter().flatten() {
            let next = events.len();
            if next < EVENTS_MAX && !events.contains_key(*event) {
                events.insert((*event).to_owned(), next);
            }
        }
        let mut model = Sessions {
            weights: vec![1.0; events.len()],
            events,
            kinds: Vec::new(),
            blocks: blocks.len() as f64,
            threshold: 0.0,
        };
        let mut kinds: BTreeMap<Vec<(usize, u64)>, f64> = BTreeMap::new();
        for block in blocks {
            let (counts, _) = model.counts(block);
            *kinds.entry(counts.iter().map(|(event, count)| (*event, *count as u64)).collect()).or_default() += 1.0;
        }
        let mut kinds: Vec<(Vec<(usize, f64)>, f64)> = kinds
            .into_iter()
            .map(|(counts, seen)| (counts.into_iter().map(|(event, count)| (event, count as f64)).collect(), seen))
            .collect();
        kinds.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        kinds.truncate(KINDS_MAX);
        model.weights = weights(&kinds, model.events.len());
        model.kinds = kinds;
        let mut own: Vec<f64> = blocks.iter().map(|block| model.score_without(block, 1.0)).collect();
        own.sort_by(f64::total_cmp);
        model.threshold = *own.get(((own.len().checked_sub(1)?) as f64 * CALM) as usize)?;
        Some(model)
    }

    /// How strange a block is. O(kinds × events of the block).
    pub fn judge(&self, block: &[&str]) -> Strangeness {
        let score = self.score_without(block, 0.0);
        Strangeness { score, is_alarm: score > self.threshold }
    }

    /// The score as if the block itself had been seen so many times less.
    fn score_without(&self, block: &[&str], itself: f64) -> f64 {
        let (counts, unknown) = self.counts(block);
        let of_kind = |(kind, seen): &(Vec<(usize, f64)>, f64)| {
            let distance = self.distance(kind, &counts);
            let seen = if distance == 0.0 { seen - itself } else { *seen };
            (seen > 0.0).then(|| DISTANCE * distance + RARITY * ((self.blocks + 1.0) / seen).ln())
        };
        let nearest = self.kinds.iter().filter_map(of_kind).fold(f64::INFINITY, f64::min);
        // A training of one block, seen without itself.
        let nearest = if nearest.is_finite() { nearest } else { RARITY * (self.blocks + 1.0).ln() };
        nearest + UNSEEN * unknown as f64
    }

    fn counts(&self, block: &[&str]) -> Counts {
        let (mut counts, mut unknown): (BTreeMap<usize, f64>, Vec<&str>) = (BTreeMap::new(), Vec::new());
        for event in block {
            match self.events.get(*event) {
                Some(place) => *counts.entry(*place).or_default() += 1.0,
                None => unknown.push(event),
            }
        }
        unknown.sort_unstable();
        unknown.dedup();
        (counts.into_iter().collect(), unknown.len())
    }

    /// Sum over events of the difference of their counts, weighted.
    fn distance(&self, one: &[(usize, f64)], other: &[(usize, f64)]) -> f64 {
        let (mut i, mut j, mut sum) = (0, 0, 0.0);
        loop {
            let (event, difference) = match (one.get(i), other.get(j)) {
                (Some((a, x)), Some((b, y))) if a == b => {
                    (i, j) = (i + 1, j + 1);
                    (*a, x - y)
                }
                (Some((a, x)), other) if other.is_none_or(|(b, _)| a < b) => {
                    i += 1;
                    (*a, *x)
                }
                (_, Some((b, y))) => {
                    j += 1;
                    (*b, *y)
                }
                _ => return sum,
            };
            sum += self.weights[event] * difference.abs();
        }
    }
}

/// The inverse of each event's standard deviation over the kinds, 1 at most.
fn weights(kinds: &[(Vec<(usize, f64)>, f64)], events: usize) -> Vec<f64> {
    let (mut sums, mut squares) = (vec![0.0; events], vec![0.0; events]);
    for (event, count) in kinds.iter().flat_map(|(kind, _)| kind) {
        sums[*event] += count;
        squares[*event] += count * count;
    }
    let n = (kinds.len() as f64).max(1.0);
    let weight = |(sum, squares): (&f64, &f64)| {
        let mean: f64 = sum / n;
        1.0 / (squares / n - mean * mean).max(0.0).sqrt().max(1.0)
    };
    sums.iter().zip(&squares).map(weight).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal() -> Vec<Vec<&'static str>> {
        let kinds: [&[&str]; 3] =
            [&["open", "write", "close"], &["open", "write", "write", "close"], &["open", "read", "close"]];
        (0..300).map(|n| kinds[n % 3].to_vec()).collect()
    }

    #[test]
    fn strange_is_what_is_unlike_all_that_was_seen() {
        let model = Sessions::learn(&normal()).unwrap();
        let usual = model.judge(&["close", "write", "open"]);
        let (missing, unknown) = (model.judge(&["open", "write"]), model.judge(&["open", "write", "panic", "close"]));
        assert!(!usual.is_alarm && missing.is_alarm && unknown.is_alarm, "{usual:?} {missing:?} {unknown:?}");
        assert!(usual.score < missing.score && missing.score < unknown.score);
        assert!(model.judge(&["open", "write", "write", "write", "close"]).is_alarm);
        assert!(model.judge(&[]).is_alarm);
        assert!(Sessions::learn(&[]).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn any_blocks_have_finite_scores(blocks in prop::collection::vec(prop::collection::vec("[a-c]", 0..6), 1..20), one in prop::collection::vec("[a-e]", 0..6)) {
            let blocks: Vec<Vec<&str>> = blocks.iter().map(|block| block.iter().map(String::as_str).collect()).collect();
            let model = Sessions::learn(&blocks).unwrap();
            let one: Vec<&str> = one.iter().map(String::as_str).collect();
            prop_assert!(model.judge(&one).score.is_finite());
        }
    }
}
