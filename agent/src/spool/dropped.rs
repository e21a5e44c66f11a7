//! What the budget took from a class, written down so that it is still known after a crash: each batch that was kept is delivered or
//! counted here, never both and never neither. docs/formats/spool.md has the diagram. Also says when dropping begins and ends.

use std::io;

use crc32c::crc32c;

use super::disk::{Disk, Mode, read_all};
use crate::stream::protocol::Class;

/// Batches, and the samples, log records or answers in them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Dropped {
    /// How many batches.
    pub batches: u64,
    /// What was in them, as far as that is known: of batches that were found missing it is not.
    pub records: u64,
}

impl Dropped {
    /// One batch.
    pub(super) fn one(records: u32) -> Dropped {
        Dropped { batches: 1, records: records.into() }
    }

    pub(super) fn add(&mut self, more: Dropped) {
        self.batches += more.batches;
        self.records += more.records;
    }
}

/// What was dropped of one class since its spool was born.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Note {
    /// The numbers that went last, `first..=last`: a file that still has them is counted already. `last` is 0 before the first.
    pub(super) first: u64,
    pub(super) last: u64,
    /// Taken out to make room.
    pub(super) oldest: Dropped,
    /// Never kept, because there was no room to make.
    pub(super) newest: Dropped,
}

impl Note {
    /// Missing, torn or damaged counts as nothing dropped.
    pub(super) fn read(disk: &dyn Disk, class: Class) -> io::Result<Note> {
        match read_all(disk, &name(class)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Note::default()),
            bytes => Ok(Note::decode(&bytes?).unwrap_or_default()),
        }
    }

    /// Not synced, like the note of what is acknowledged.
    pub(super) fn write(&self, disk: &dyn Disk, class: Class) -> io::Result<()> {
        disk.open(&name(class), Mode::Write)?.write_at(&self.encode(), 0)
    }

    /// Takes in a run of numbers that goes now.
    pub(super) fn drop_run(&mut self, first: u64, last: u64, dropped: Dropped) {
        // What goes next mostly follows what went before.
        if self.last == 0 || first > self.last + 1 {
            self.first = first;
        }
        self.last = last;
        self.oldest.add(dropped);
    }

    pub(super) fn has(&self, seq: u64) -> bool {
        (self.first..=self.last).contains(&seq)
    }

    /// How many of these numbers are not in the run that went last.
    pub(super) fn others(&self, from: u64, end: u64) -> u64 {
        let gone = end.min(self.last + 1).saturating_sub(from.max(self.first));
        end.saturating_sub(from) - gone
    }

    fn encode(&self) -> Vec<u8> {
        let Note { first, last, oldest, newest } = *self;
        let numbers = [first, last, oldest.batches, oldest.records, newest.batches, newest.records];
        let mut bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let checksum = crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Note> {
        let (body, checksum) = bytes.split_last_chunk::<4>()?;
        if crc32c(body) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let mut numbers = body.chunks_exact(8).filter_map(|chunk| Some(u64::from_le_bytes(chunk.try_into().ok()?)));
        let mut number = || numbers.next();
        let (first, last) = (number()?, number()?);
        let oldest = Dropped { batches: number()?, records: number()? };
        let newest = Dropped { batches: number()?, records: number()? };
        // A number beyond what can be counted up is damage that the checksum did not see.
        let is_sane = first <= last && last < u64::MAX >> 1;
        (numbers.next().is_none() && is_sane).then_some(Note { first, last, oldest, newest })
    }
}

fn name(class: Class) -> String {
    format!("{}.dropped", class.as_str())
}

/// What is worth a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// The budget begins to drop.
    Begins,
    /// There is room again; so much went in between.
    Ends(Dropped),
}

/// One time of dropping: a line where it begins and a line where it ends, however much goes.
#[derive(Debug)]
pub(super) struct Episode {
    before: Dropped,
    is_on: bool,
}

impl Episode {
    pub(super) fn new(total: Dropped) -> Episode {
        Episode { before: total, is_on: false }
    }

    /// Takes all that the budget dropped so far, and whether there is ample room. Ample, because a spool at its budget has a
    /// little room after each segment that goes.
    pub(super) fn step(&mut self, total: Dropped, has_room: bool) -> Option<News> {
        if !self.is_on && total != self.before {
            self.is_on = true;
            return Some(News::Begins);
        }
        if !self.is_on || !has_room {
            return None;
        }
        let Dropped { batches, records } = self.before;
        *self = Episode::new(total);
        Some(News::Ends(Dropped { batches: total.batches - batches, records: total.records - records }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dropped(batches: u64, records: u64) -> Dropped {
        Dropped { batches, records }
    }

    /// Version 1 as it was first written. These bytes must decode for ever.
    #[test]
    fn golden_bytes() {
        let note = Note { first: 258, last: 300, oldest: dropped(43, 86), newest: dropped(1, 2) };
        let digit = |d: u8| char::from_digit(d.into(), 16);
        let hex: String = note.encode().iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(digit).collect();
        expect_test::expect![
            "02010000000000002c010000000000002b000000000000005600000000000000010000000000000002000000000000000873b65b"
        ]
        .assert_eq(&hex);
        assert_eq!(Note::decode(&note.encode()), Some(note));
    }

    #[test]
    fn runs_that_follow_each_other_are_one() {
        let mut note = Note::default();
        assert_eq!((note.has(0), note.has(1), note.others(1, 5)), (true, false, 4));
        note.drop_run(5, 7, dropped(3, 30));
        note.drop_run(8, 9, dropped(2, 20));
        assert_eq!((note.first, note.last, note.oldest), (5, 9, dropped(5, 50)));
        assert_eq!((note.others(3, 12), note.others(5, 10), note.others(10, 12), note.others(1, 6)), (4, 0, 2, 4));
        note.drop_run(20, 21, dropped(2, 2));
        assert_eq!((note.has(9), note.has(20), note.oldest), (false, true, dropped(7, 52)));
    }

    #[test]
    fn dropping_is_told_where_it_begins_and_ends() {
        let mut episode = Episode::new(dropped(4, 40));
        assert_eq!(episode.step(dropped(4, 40), false), None);
        assert_eq!(episode.step(dropped(5, 50), false), Some(News::Begins));
        assert_eq!(episode.step(dropped(9, 90), false), None);
        assert_eq!(episode.step(dropped(9, 90), true), Some(News::Ends(dropped(5, 50))));
        assert_eq!(episode.step(dropped(9, 90), true), None);
        assert_eq!(episode.step(dropped(10, 91), true), Some(News::Begins));
        assert_eq!(episode.step(dropped(10, 91), true), Some(News::Ends(dropped(1, 1))));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn never_panics(mut bytes: Vec<u8>) {
            prop_assert_eq!(Note::decode(&bytes), None);
            let checksum = crc32c(&bytes);
            bytes.extend_from_slice(&checksum.to_le_bytes());
            if let Some(note) = Note::decode(&bytes) {
                let _ = (note.has(1), note.others(1, 9));
            }
        }
    }
}
