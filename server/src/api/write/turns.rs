//! Turns of requests that bring deltas: what such a request adds depends on what came before it, so two with streams of the same
//! lane follow each other, each until the store has it. Only lanes that somebody has or waits for take memory.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One place for each lane, as long as somebody has or waits for it.
#[derive(Debug)]
pub struct Turns {
    places: Mutex<HashMap<u16, Arc<Semaphore>>>,
    patience: Duration,
}

/// The turn of some lanes, or of the first of them while it waits for the others; given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    wanted: BTreeSet<u16>,
    taken: Vec<OwnedSemaphorePermit>,
}

/// Longest wait for a turn: below the 10 s after which senders give up by default.
const PATIENCE: Duration = Duration::from_secs(8);

impl Default for Turns {
    fn default() -> Turns {
        Turns::new(PATIENCE)
    }
}

impl Turns {
    /// Nobody has a turn yet; nobody waits longer than this.
    pub fn new(patience: Duration) -> Turns {
        Turns { places: Mutex::default(), patience }
    }

    /// Waits for the turn of these lanes; `None` where it does not come in time.
    pub async fn take(self: &Arc<Turns>, lanes: BTreeSet<u16>) -> Option<Turn> {
        tokio::time::timeout(self.patience, self.wait(lanes)).await.ok()
    }

    async fn wait(self: &Arc<Turns>, lanes: BTreeSet<u16>) -> Turn {
        let places: Vec<Arc<Semaphore>> = {
            let mut known = self.known();
            let mut place = |lane: &u16| Arc::clone(known.entry(*lane).or_insert_with(|| Arc::new(Semaphore::new(1))));
            lanes.iter().map(&mut place).collect()
        };
        // It is there from the first on: whoever stops waiting gives back what it has.
        let mut turn = Turn { turns: Arc::clone(self), wanted: lanes, taken: Vec::with_capacity(places.len()) };
        // Everybody takes them in this order, so nobody waits for one who waits.
        for place in places {
            // Nothing closes these, so no turn is ever missed.
            turn.taken.extend(place.acquire_owned().await);
        }
        turn
    }

    fn known(&self) -> MutexGuard<'_, HashMap<u16, Arc<Semaphore>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut known = self.turns.known();
        self.taken.clear();
        for lane in &self.wanted {
            // Others get theirs under the same lock: where there is one alone, nobody has it.
            if known.get(lane).is_some_and(|place| Arc::strong_count(place) == 1) {
                known.remove(lane);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_lane_has_one_turn_and_others_do_not_wait() {
        let turns = Arc::new(Turns::default());
        let first = turns.take(BTreeSet::from([1, 3])).await;
        let other = turns.take(BTreeSet::from([2])).await;
        let waiting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(BTreeSet::from([3, 4])).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        let second = waiting.await.unwrap();
        assert_eq!(turns.known().len(), 3);
        drop((second, other));
        assert!(turns.known().is_empty());
    }

    #[tokio::test]
    async fn who_stops_waiting_gives_back_what_it_has() {
        let turns = Arc::new(Turns::new(Duration::from_millis(20)));
        let first = turns.take(BTreeSet::from([7])).await;
        assert!(turns.take(BTreeSet::from([5, 7])).await.is_none());
        assert!(turns.take(BTreeSet::from([5])).await.is_some());
        drop(first);
        assert!(turns.take(BTreeSet::from([5, 7])).await.is_some());
        assert!(turns.known().is_empty());
    }
}
