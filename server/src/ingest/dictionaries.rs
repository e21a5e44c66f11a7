//! The last body of each agent, uncompressed, as dictionary of its next one (docs/formats/stream.md). A cache and nothing more:
//! whoever finds no dictionary here sends its batch plain. Bounded in bytes; when full, agents that come now are not offered one,
//! and those that are silent give way after a while. Where memory is scarce all of it goes first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use petrel_agent::stream::dictionary::Dictionary;

use crate::series::Timestamp;
use crate::store::Mark;
use crate::telemetry;

/// An agent without a batch for this long has stopped, or is an ordinary one of ours without a server for many rounds.
const SILENT_MS: i64 = 300_000;
/// Silent agents are looked for at most this often: the table may have ten thousand entries.
const SWEEP_MS: i64 = 10_000;
/// After memory was scarce nothing is kept for this long, or the table would push memory over the same limit again at once.
const SCARCE_MS: i64 = 600_000;
/// What an entry takes beside its body: agent, epoch, hash, and the table's own; rounded up.
const ENTRY_BYTES: usize = 512;

/// Dictionaries of all agents.
#[derive(Debug)]
pub struct Dictionaries {
    bytes_max: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<String, Entry>,
    bytes: usize,
    swept_at: Timestamp,
    /// Nothing is kept before.
    rests_until: Timestamp,
}

#[derive(Debug)]
struct Entry {
    epoch: String,
    dictionary: Arc<Dictionary>,
    kept_at: Timestamp,
}

impl Entry {
    fn bytes(&self, agent: &str) -> usize {
        ENTRY_BYTES + agent.len() + self.epoch.len() + self.dictionary.body().len()
    }
}

impl Dictionaries {
    /// An empty table for so many bytes; 0 offers nobody a dictionary.
    pub fn new(bytes_max: usize) -> Dictionaries {
        Dictionaries { bytes_max, table: Mutex::default() }
    }

    /// Whether a body of so many bytes may be kept: to copy and hash it takes a tenth of the time that storing it does.
    pub fn may_keep(&self, mark: &Mark, bytes: usize, now: Timestamp) -> bool {
        let table = self.lock();
        let has_room = || table.bytes + ENTRY_BYTES + bytes <= self.bytes_max || table.may_sweep(now);
        now >= table.rests_until && (table.entries.contains_key(&mark.agent) || (self.bytes_max > 0 && has_room()))
    }

    /// The dictionary of who sends a batch.
    pub fn of(&self, mark: &Mark) -> Option<Arc<Dictionary>> {
        let table = self.lock();
        let entry = table.entries.get(&mark.agent).filter(|entry| entry.epoch == mark.epoch)?;
        Some(Arc::clone(&entry.dictionary))
    }

    /// Keeps a batch's body in place of the agent's last one; returns whether it is kept.
    pub fn keep(&self, mark: &Mark, dictionary: Dictionary, now: Timestamp) -> bool {
        let mut table = self.lock();
        table.remove(&mark.agent);
        if now < table.rests_until {
            return false;
        }
        let entry = Entry { epoch: mark.epoch.clone(), dictionary: Arc::new(dictionary), kept_at: now };
        let bytes = entry.bytes(&mark.agent);
        if table.bytes + bytes > self.bytes_max {
            table.sweep(now);
        }
        let fits = table.bytes + bytes <= self.bytes_max;
        if fits {
            table.bytes += bytes;
            table.entries.insert(mark.agent.clone(), entry);
        } else {
            telemetry::WRITE_DICTIONARIES.with_label_values(&["full"]).inc();
        }
        table.tell();
        fits
    }

    /// The agent's body of this time is not to be had: what there is, is older than what the agent has.
    pub fn forget(&self, mark: &Mark) {
        let mut table = self.lock();
        table.remove(&mark.agent);
        table.tell();
    }

    /// Memory is scarce: gives all of it back, and takes nothing for a while.
    pub fn rest(&self, now: Timestamp) {
        let mut table = self.lock();
        if !table.entries.is_empty() {
            tracing::info!(bytes = table.bytes, "memory is scarce: dictionaries of agents are given back");
        }
        *table = Table { rests_until: now + SCARCE_MS, ..Table::default() };
        table.tell();
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn remove(&mut self, agent: &str) {
        if let Some(entry) = self.entries.remove(agent) {
            self.bytes -= entry.bytes(agent);
        }
    }

    /// A clock that was set back sweeps, too.
    fn may_sweep(&self, now: Timestamp) -> bool {
        !(self.swept_at..self.swept_at.saturating_add(SWEEP_MS)).contains(&now)
    }

    fn sweep(&mut self, now: Timestamp) {
        if !self.may_sweep(now) {
            return;
        }
        self.swept_at = now;
        self.entries.retain(|_, entry| now.saturating_sub(entry.kept_at) < SILENT_MS);
        self.bytes = self.entries.iter().map(|(agent, entry)| entry.bytes(agent)).sum();
    }

    fn tell(&self) {
        telemetry::WRITE_DICTIONARY_BYTES.set(self.bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use petrel_agent::stream::protocol::Class;

    use super::*;

    fn mark(agent: &str, epoch: &str, seq: u64) -> Mark {
        Mark { agent: agent.to_owned(), epoch: epoch.to_owned(), class: Class::Metrics, seq }
    }

    fn body(seq: u64, bytes: usize) -> Dictionary {
        Dictionary::new(seq, &vec![7; bytes]).unwrap()
    }

    fn held(table: &Dictionaries, agent: &str, epoch: &str) -> Option<u64> {
        table.of(&mark(agent, epoch, 0)).map(|dictionary| dictionary.seq())
    }

    #[test]
    fn the_last_body_of_an_agents_epoch_is_kept() {
        let table = Dictionaries::new(1 << 20);
        assert_eq!(held(&table, "a", "e"), None);
        for seq in 1..=3 {
            assert!(table.keep(&mark("a", "e", seq), body(seq, 1_000), 0));
        }
        assert_eq!((held(&table, "a", "e"), held(&table, "a", "f"), held(&table, "b", "e")), (Some(3), None, None));
        table.forget(&mark("a", "e", 4));
        assert_eq!((held(&table, "a", "e"), table.lock().bytes), (None, 0));
    }

    #[test]
    fn a_full_table_takes_nobody_in_until_one_is_silent() {
        let table = Dictionaries::new(3 * (ENTRY_BYTES + 1_002));
        for agent in ["a", "b", "c"] {
            assert!(table.keep(&mark(agent, "e", 1), body(1, 1_000), 1_000));
        }
        assert!(!table.keep(&mark("d", "e", 1), body(1, 1_000), 20_000), "full");
        for agent in ["a", "b"] {
            assert!(table.keep(&mark(agent, "e", 2), body(2, 1_000), 200_000), "its own room is an agent's to use");
        }
        assert!(!table.keep(&mark("b", "e", 3), body(3, 2_000), 200_000), "but no more");
        assert_eq!(held(&table, "b", "e"), None, "what it sent before is no dictionary for what it sends next");
        assert!(table.keep(&mark("b", "e", 4), body(4, 1_000), 200_000));
        assert!(table.keep(&mark("d", "e", 2), body(2, 1_000), 1_000 + SILENT_MS), "c was silent");
        assert_eq!((held(&table, "c", "e"), held(&table, "a", "e")), (None, Some(2)));
    }

    #[test]
    fn where_memory_is_scarce_all_goes_for_a_while() {
        let table = Dictionaries::new(1 << 20);
        assert!(table.keep(&mark("a", "e", 1), body(1, 1_000), 0));
        table.rest(0);
        assert_eq!((held(&table, "a", "e"), table.lock().bytes), (None, 0));
        assert!(!table.keep(&mark("a", "e", 2), body(2, 1_000), SCARCE_MS - 1));
        assert!(table.keep(&mark("a", "e", 3), body(3, 1_000), SCARCE_MS));
    }
}
