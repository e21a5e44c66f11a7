//! Whose slot is whose: from what the slots hold to «write there» or «wait, because». A pure machine; docs/formats/heartbeat.md
//! has the rules. It never lets the record of another host be overwritten, unless that one said goodbye: a host whose storage hangs writes nothing,
//! and may live. Only an operator knows that it is gone (`free`).

use std::fmt;

use super::record::{Record, Slot};
use crate::heartbeat::codec::BeatClass;

/// Intervals for which our own record of another boot must stand still: a second host of our name would change it.
const OWN_STEADY_INTERVALS: i64 = 3;
/// How long an unreadable slot must stand still.
const UNREADABLE_STEADY_MS: i64 = 60_000;
/// Rounds in a row in which our own slot may be unreadable: once it may be our own torn record, which the next write mends.
const UNREADABLE_ROUNDS_MAX: u32 = 1;

/// Who wants a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimant {
    /// The agent's id.
    pub host: String,
    /// The kernel's boot id.
    pub boot_id: [u8; 16],
    /// The slot that the config names.
    pub slot: Option<u16>,
    /// Time between two records.
    pub interval_ms: i64,
}

/// What to do in this round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write the next record there.
    Write {
        /// The slot, from 1 on.
        slot: u16,
    },
    /// Write nothing.
    Wait(Wait),
}

/// Why nothing is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// The slot holds our own record of another boot; is a second host of our name alive?
    OwnRecord {
        /// The slot.
        slot: u16,
    },
    /// The slot of our config holds the record of another host.
    Taken {
        /// The slot.
        slot: u16,
        /// Whose record it holds.
        host: String,
    },
    /// The slot cannot be read.
    Unreadable {
        /// The slot.
        slot: u16,
    },
    /// The area has no such slot.
    NoSuchSlot {
        /// The slot.
        slot: u16,
    },
    /// All slots belong to others.
    Full,
}

/// The claim of one host on one area.
#[derive(Debug)]
pub struct Claim {
    claimant: Claimant,
    hosts_max: u16,
    /// The slot that we own.
    owned: Option<u16>,
    /// Numbers of what this process wrote, from and to.
    written: Option<(u64, u64)>,
    watched: Option<Watched>,
    /// Rounds in a row in which the slot that we own could not be read.
    unreadable_rounds: u32,
    collisions: u64,
}

/// What a slot held, and since when.
#[derive(Debug)]
struct Watched {
    slot: u16,
    content: Slot,
    since_ms: i64,
}

impl Claim {
    /// Owns nothing yet.
    pub fn new(claimant: Claimant, hosts_max: u16) -> Claim {
        Claim { claimant, hosts_max, owned: None, written: None, watched: None, unreadable_rounds: 0, collisions: 0 }
    }

    /// What to do, given all slots that are not free, at a time of any clock that never goes back. O(slots).
    pub fn step(&mut self, slots: &[(u16, Slot)], now_ms: i64) -> Step {
        if let Some(slot) = self.owned {
            let content = content(slots, slot);
            self.unreadable_rounds = if *content == Slot::Unreadable { self.unreadable_rounds + 1 } else { 0 };
            if self.unreadable_rounds <= UNREADABLE_ROUNDS_MAX && self.is_ours(content) {
                return Step::Write { slot };
            }
            self.unreadable_rounds = 0;
            self.collisions += 1;
            self.owned = None;
            self.watched = None;
        }
        let slot = match self.claimant.slot {
            Some(slot) if slot > self.hosts_max => return Step::Wait(Wait::NoSuchSlot { slot }),
            Some(slot) => slot,
            None => match self.candidate(slots) {
                Some(slot) => slot,
                None => return Step::Wait(Wait::Full),
            },
        };
        let content = content(slots, slot);
        let (steady_ms, wait) = self.obstacle(content, slot);
        let is_new = self.watched.as_ref().is_none_or(|watched| watched.slot != slot || watched.content != *content);
        if is_new {
            self.watched = Some(Watched { slot, content: content.clone(), since_ms: now_ms });
        }
        let since_ms = self.watched.as_ref().map_or(now_ms, |watched| watched.since_ms);
        if steady_ms.is_none_or(|steady_ms| now_ms - since_ms < steady_ms) {
            return Step::Wait(wait);
        }
        self.owned = Some(slot);
        self.watched = None;
        Step::Write { slot }
    }

    /// A record with this number was given to the storage; it may have it or not.
    pub fn wrote(&mut self, number: u64) {
        let from = self.written.map_or(number, |(from, _)| from);
        self.written = Some((from, number));
    }

    /// The slot that we own.
    pub fn slot(&self) -> Option<u16> {
        self.owned
    }

    /// Times that something else stood in a slot that we owned.
    pub fn collisions(&self) -> u64 {
        self.collisions
    }

    /// Whether a slot that we own holds what may be there. What cannot be read may be our own torn record: `step` counts.
    fn is_ours(&self, content: &Slot) -> bool {
        match (content, self.written) {
            // Without a number nothing of ours went there so far, and what was there when it was claimed may still be.
            (Slot::Free | Slot::Unreadable, _) | (_, None) => true,
            (Slot::Record(record), Some((from, to))) => {
                self.is_own(record) && record.boot_id == self.claimant.boot_id && (from..=to).contains(&record.number)
            }
        }
    }

    fn is_own(&self, record: &Record) -> bool {
        record.host == self.claimant.host
    }

    /// The slot to look at where the config names none: our own, or a free one, or one that was left.
    fn candidate(&self, slots: &[(u16, Slot)]) -> Option<u16> {
        let own = |(_, slot): &&(u16, Slot)| matches!(slot, Slot::Record(record) if self.is_own(record));
        if let Some((slot, _)) = slots.iter().find(own) {
            return Some(*slot);
        }
        let hosts = u32::from(self.hosts_max);
        let begin = crc32c::crc32c(self.claimant.host.as_bytes()) % hosts;
        let round = || (0..hosts).map(|place| ((begin + place) % hosts) as u16 + 1);
        let left =
            |slot: &u16| matches!(content(slots, *slot), Slot::Record(record) if record.class == BeatClass::Goodbye);
        round()
            .find(|slot| *content(slots, *slot) == Slot::Free)
            .or_else(|| round().find(left))
            .or_else(|| round().find(|slot| *content(slots, *slot) == Slot::Unreadable))
    }

    /// For how long the content must stand still before we write over it (`None`: we never do), and what we wait for until then.
    fn obstacle(&self, content: &Slot, slot: u16) -> (Option<i64>, Wait) {
        match content {
            Slot::Free => (Some(0), Wait::Full),
            Slot::Unreadable => (Some(UNREADABLE_STEADY_MS), Wait::Unreadable { slot }),
            Slot::Record(record) if record.class == BeatClass::Goodbye => (Some(0), Wait::Full),
            Slot::Record(record) if self.is_own(record) => {
                let interval_ms = self.claimant.interval_ms.max(i64::from(record.interval_ms));
                let is_this_boot = record.boot_id == self.claimant.boot_id && self.collisions == 0;
                let steady_ms = if is_this_boot { 0 } else { OWN_STEADY_INTERVALS * interval_ms };
                (Some(steady_ms), Wait::OwnRecord { slot })
            }
            Slot::Record(record) => (None, Wait::Taken { slot, host: record.host.clone() }),
        }
    }
}

fn content(slots: &[(u16, Slot)], slot: u16) -> &Slot {
    slots.binary_search_by_key(&slot, |(number, _)| *number).map_or(&Slot::Free, |place| &slots[place].1)
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::OwnRecord { slot } => {
                write!(
                    f,
                    "slot {slot} holds a record of this host's name; waiting whether another host of that name is alive"
                )
            }
            Wait::Taken { slot, host } => {
                write!(
                    f,
                    "slot {slot} belongs to host {host}; give each host a slot of its own, or none to have one found; if {host} is gone for good, free its slot: petrel-agent storage-free --path PATH --slot {slot} --host {host}"
                )
            }
            Wait::Unreadable { slot } => write!(f, "slot {slot} cannot be read; waiting whether somebody writes there"),
            Wait::NoSuchSlot { slot } => {
                write!(f, "the area has no slot {slot}; make a larger one with storage-format")
            }
            Wait::Full => f.write_str(
                "all slots belong to other hosts; free those of hosts that are gone for good with petrel-agent storage-free, or make a larger area with storage-format",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::area::tests::record;
    use super::*;

    fn claim(host: &str, slot: Option<u16>) -> Claim {
        Claim::new(Claimant { host: host.to_owned(), boot_id: [1; 16], slot, interval_ms: 5_000 }, 4)
    }

    fn goodbye(host: &str) -> Slot {
        Slot::Record(Record { class: BeatClass::Goodbye, ..record(host, 9, 1) })
    }

    fn beat(host: &str, boot: u8, number: u64) -> Slot {
        Slot::Record(record(host, boot, number))
    }

    #[test]
    fn a_free_slot_is_taken_at_once_and_kept() {
        let mut claim = claim("a", None);
        let Step::Write { slot } = claim.step(&[], 0) else { panic!("a free area takes anybody") };
        claim.wrote(10);
        assert_eq!(claim.step(&[(slot, beat("a", 1, 10))], 5_000), Step::Write { slot });
        claim.wrote(11);
        // The last one did not arrive, or a torn one did: still ours.
        assert_eq!(claim.step(&[(slot, beat("a", 1, 10))], 10_000), Step::Write { slot });
        assert_eq!(claim.step(&[(slot, Slot::Unreadable)], 15_000), Step::Write { slot });
        assert_eq!((claim.collisions(), claim.slot()), (0, Some(slot)));
        // Once more, although a whole record was written meanwhile: somebody else writes there.
        assert_eq!(claim.step(&[(slot, Slot::Unreadable)], 20_000), {
            let found = claim.slot().unwrap();
            assert_ne!(found, slot);
            Step::Write { slot: found }
        });
        assert_eq!(claim.collisions(), 1);
    }

    #[test]
    fn the_own_slot_that_stays_unreadable_is_written_no_more_until_it_stands_still() {
        let mut a = claim("a", Some(1));
        assert_eq!(a.step(&[], 0), Step::Write { slot: 1 });
        a.wrote(10);
        let torn = [(1, Slot::Unreadable)];
        assert_eq!(a.step(&torn, 5_000), Step::Write { slot: 1 });
        a.wrote(11);
        for now_ms in [10_000, 15_000, 69_000] {
            assert_eq!(a.step(&torn, now_ms), Step::Wait(Wait::Unreadable { slot: 1 }));
        }
        assert_eq!((a.slot(), a.collisions()), (None, 1));
        assert_eq!(a.step(&torn, 70_000), Step::Write { slot: 1 });
        a.wrote(12);
        // One that can be read in between begins anew.
        assert_eq!(a.step(&torn, 75_000), Step::Write { slot: 1 });
        assert_eq!(a.step(&[(1, beat("a", 1, 12))], 80_000), Step::Write { slot: 1 });
        assert_eq!(a.step(&torn, 85_000), Step::Write { slot: 1 });
    }

    #[test]
    fn two_who_take_a_free_slot_at_once_part_at_the_next_read() {
        let mut a = claim("a", None);
        let Step::Write { slot } = a.step(&[], 0) else { panic!("free") };
        a.wrote(10);
        let Step::Write { slot: other } = a.step(&[(slot, beat("b", 2, 7))], 5_000) else { panic!("three are free") };
        assert_ne!(slot, other);
        assert_eq!(a.collisions(), 1);
    }

    #[test]
    fn a_foreign_record_is_never_written_over_however_long_it_stands_still() {
        let mut a = claim("a", Some(2));
        let taken = || Step::Wait(Wait::Taken { slot: 2, host: "b".to_owned() });
        for number in 0..100 {
            assert_eq!(a.step(&[(2, beat("b", 2, number))], number as i64 * 5_000), taken());
        }
        for days in 1..10 {
            assert_eq!(a.step(&[(2, beat("b", 2, 100))], days * 86_400_000), taken());
        }
        let Step::Wait(wait) = taken() else { unreachable!() };
        assert!(wait.to_string().ends_with("petrel-agent storage-free --path PATH --slot 2 --host b"), "{wait}");
        // An operator freed it, or the other host said goodbye.
        assert_eq!(a.step(&[], 864_000_000), Step::Write { slot: 2 });
        assert_eq!(claim("a", Some(2)).step(&[(2, goodbye("b"))], 0), Step::Write { slot: 2 });
        // Nor is a slot that is found by itself.
        let all: Vec<_> = (1..=4).map(|slot| (slot, beat("b", 2, 1))).collect();
        let mut found = claim("a", None);
        assert_eq!(found.step(&all, 0), Step::Wait(Wait::Full));
        assert_eq!(found.step(&all, 86_400_000), Step::Wait(Wait::Full));
        let left: Vec<_> =
            all.iter().cloned().map(|(slot, old)| (slot, if slot == 3 { goodbye("b") } else { old })).collect();
        assert_eq!(found.step(&left, 86_405_000), Step::Write { slot: 3 });
    }

    #[test]
    fn after_a_reboot_the_own_slot_is_taken_up_unless_somebody_else_beats_there() {
        let mut a = claim("a", None);
        let held = |boot, number| [(3, beat("a", boot, number))];
        assert_eq!(a.step(&held(2, 9), 0), Step::Wait(Wait::OwnRecord { slot: 3 }));
        assert_eq!(a.step(&held(2, 10), 14_000), Step::Wait(Wait::OwnRecord { slot: 3 }), "a host of the same name");
        assert_eq!(a.step(&held(2, 10), 29_000), Step::Write { slot: 3 });
        // A restart of the agent within one boot waits for nothing.
        assert_eq!(claim("a", None).step(&held(1, 9), 0), Step::Write { slot: 3 });
    }

    #[test]
    fn a_second_agent_of_the_same_name_and_boot_is_seen() {
        let mut a = claim("a", Some(1));
        assert_eq!(a.step(&[], 0), Step::Write { slot: 1 });
        a.wrote(100);
        assert_eq!(a.step(&[(1, beat("a", 1, 50))], 5_000), Step::Wait(Wait::OwnRecord { slot: 1 }));
        assert_eq!(a.step(&[(1, beat("a", 1, 51))], 10_000), Step::Wait(Wait::OwnRecord { slot: 1 }));
        assert_eq!(a.collisions(), 1);
    }

    #[test]
    fn a_slot_beyond_the_area_and_one_that_cannot_be_read_are_left_alone() {
        assert_eq!(claim("a", Some(5)).step(&[], 0), Step::Wait(Wait::NoSuchSlot { slot: 5 }));
        let mut torn = claim("a", Some(2));
        let held = [(2, Slot::Unreadable)];
        assert_eq!(torn.step(&held, 0), Step::Wait(Wait::Unreadable { slot: 2 }));
        assert_eq!(torn.step(&held, 60_000), Step::Write { slot: 2 });
    }
}
