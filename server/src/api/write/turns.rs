//! Turns of requests that bring deltas: what such a request adds depends on what came before it, so two with streams of the same
//! lane follow each other, each until the store has it.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One place for each lane, in the order of its bit.
#[derive(Debug)]
pub struct Turns([Arc<Semaphore>; u16::BITS as usize]);

/// The turn of some lanes; given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _lanes: Vec<OwnedSemaphorePermit>,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns(std::array::from_fn(|_| Arc::new(Semaphore::new(1))))
    }
}

impl Turns {
    /// Waits for the turn of the lanes whose bits are set.
    pub async fn take(&self, lanes: u16) -> Turn {
        let mut taken = Vec::new();
        // Everybody takes them in this order, so nobody waits for one who waits.
        for (bit, lane) in self.0.iter().enumerate() {
            if lanes >> bit & 1 == 1 {
                // Nothing closes these, so no turn is ever missed.
                taken.extend(Arc::clone(lane).acquire_owned().await);
            }
        }
        Turn { _lanes: taken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_lane_has_one_turn_and_others_do_not_wait() {
        let turns = Arc::new(Turns::default());
        let first = turns.take(0b101).await;
        let _other = turns.take(0b010).await;
        let waiting = tokio::spawn({
            let turns = Arc::clone(&turns);
            async move { turns.take(0b100).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
    }
}
