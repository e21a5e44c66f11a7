//! Who is alive on shared storage, as seen by this host: a record that changes is a sign of life, at the time when this host saw
//! it change. Pure; compares no clocks of different hosts, and says nothing of a host until it has seen it change or stand
//! still for long enough.

use std::collections::BTreeMap;

use super::record::Slot;
use crate::heartbeat::codec::BeatClass;

/// Intervals of its writer for which a record may stand still, plus one of ours, until its host counts as silent.
const ALIVE_INTERVALS: i64 = 3;

/// What was seen of all others.
#[derive(Debug, Default)]
pub struct Sightings {
    slots: BTreeMap<u16, Sighting>,
}

#[derive(Debug)]
struct Sighting {
    host: String,
    /// Boot id and number: what changes.
    print: ([u8; 16], u64),
    interval_ms: i64,
    /// When this content was seen first.
    since_ms: i64,
    /// Whether it was seen to come, so that `since_ms` is its age.
    has_changed: bool,
}

/// What can be said of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The host's id.
    pub host: String,
    /// Since its record changed last; at least that, where it never did.
    pub age_ms: i64,
    /// Whether that is short enough.
    pub is_alive: bool,
}

impl Sightings {
    /// Takes a reading of all slots that are not free. An unreadable slot keeps what was seen there. O(slots).
    pub fn look(&mut self, slots: &[(u16, Slot)], own: &str, now_ms: i64) {
        let mut before = std::mem::take(&mut self.slots);
        for (slot, content) in slots {
            let old = before.remove(slot);
            match content {
                Slot::Free => {}
                Slot::Unreadable => {
                    self.slots.extend(old.map(|old| (*slot, old)));
                }
                Slot::Record(record) if record.host == own || record.class == BeatClass::Goodbye => {}
                Slot::Record(record) => {
                    let print = (record.boot_id, record.number);
                    let seen = match old {
                        Some(old) if old.host == record.host && old.print == print => old,
                        old => Sighting {
                            host: record.host.clone(),
                            print,
                            interval_ms: i64::from(record.interval_ms),
                            since_ms: now_ms,
                            // What is new in a slot may be old all the same, as everything is at the first look.
                            has_changed: old.is_some_and(|old| old.host == record.host),
                        },
                    };
                    self.slots.insert(*slot, seen);
                }
            }
        }
    }

    /// Forgets all: what was seen before a gap says nothing about the time in it.
    pub fn forget(&mut self) {
        self.slots.clear();
    }

    /// What can be said now, sorted by host; `interval_ms` is that of our own looks. O(slots · log).
    pub fn statements(&self, interval_ms: i64, now_ms: i64) -> Vec<Statement> {
        let mut youngest: BTreeMap<&str, Statement> = BTreeMap::new();
        for seen in self.slots.values() {
            let age_ms = now_ms - seen.since_ms;
            let is_young = age_ms <= ALIVE_INTERVALS * seen.interval_ms + interval_ms;
            if is_young && !seen.has_changed {
                continue;
            }
            let statement = Statement { host: seen.host.clone(), age_ms, is_alive: is_young };
            match youngest.get_mut(seen.host.as_str()) {
                Some(other) if other.age_ms <= age_ms => {}
                Some(other) => *other = statement,
                None => {
                    youngest.insert(&seen.host, statement);
                }
            }
        }
        youngest.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::area::tests::record;
    use super::super::record::Record;
    use super::*;

    fn told(sightings: &Sightings, now_ms: i64) -> String {
        let statements = sightings.statements(5_000, now_ms);
        let words = statements.iter().map(|one| format!("{} {} {}", one.host, one.age_ms, one.is_alive));
        words.collect::<Vec<_>>().join(", ")
    }

    fn beat(host: &str, number: u64) -> Slot {
        Slot::Record(record(host, 1, number))
    }

    #[test]
    fn a_record_that_changes_is_alive_and_one_that_stands_still_is_not() {
        let mut sightings = Sightings::default();
        sightings.look(&[(1, beat("a", 1)), (2, beat("b", 1)), (3, beat("me", 1))], "me", 0);
        assert_eq!(told(&sightings, 0), "", "nothing can be said after one look");
        sightings.look(&[(1, beat("a", 2)), (2, beat("b", 1))], "me", 5_000);
        assert_eq!(told(&sightings, 6_000), "a 1000 true");
        sightings.look(&[(1, Slot::Unreadable), (2, beat("b", 1))], "me", 20_001);
        assert_eq!(told(&sightings, 20_001), "a 15001 true, b 20001 false");
        assert_eq!(told(&sightings, 25_001), "a 20001 false, b 25001 false");
        let goodbye = Slot::Record(Record { class: BeatClass::Goodbye, ..record("b", 1, 2) });
        sightings.look(&[(1, beat("a", 3)), (2, goodbye)], "me", 30_000);
        assert_eq!(told(&sightings, 30_000), "a 0 true", "who said goodbye is not missed");
        sightings.forget();
        assert_eq!(told(&sightings, 30_000), "");
    }

    #[test]
    fn a_host_that_moved_to_another_slot_is_alive_by_the_younger_record() {
        let mut sightings = Sightings::default();
        sightings.look(&[(1, beat("a", 1)), (2, beat("a", 1))], "me", 0);
        sightings.look(&[(1, beat("a", 1)), (2, beat("a", 2))], "me", 25_000);
        assert_eq!(told(&sightings, 26_000), "a 1000 true");
    }
}
