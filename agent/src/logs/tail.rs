//! One open log file: reads whole lines from where it stands. Knows nothing of names, rotation or other files.
//!
//! The offset always stands at the begin of a line (or inside one that is too long), so it is all there is to keep.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use memchr::memchr;

use super::join::{self, Trace};
use super::state::{FilePosition, Fingerprint};

/// An open file with its position.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    position: FilePosition,
    /// When the last whole line was read, or the file opened; by the caller's clock.
    pub(super) active_at: i64,
    /// The file's length at the last reading, and since when it has it.
    length: u64,
    length_since: i64,
}

/// A last line waits so long for what may belong to it.
const JOIN_MS: i64 = 1000;
/// Most lines of one record.
const JOINED_MAX: usize = 256;

/// How much a caller takes from one file at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Longest line, and longest record of joined lines.
    pub(super) line_bytes: usize,
    /// Most lines.
    pub(super) lines: usize,
    /// Whether the lines of a stack trace are handed out as one.
    pub(super) joins: bool,
}

/// What a reading came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reading {
    /// Whole lines handed out.
    pub(super) lines: usize,
    /// Lines that were cut.
    pub(super) cut: usize,
    /// The file was truncated or written anew since the last reading, and is read from its begin.
    pub(super) restarted: bool,
    /// The budget ended the reading, not the file.
    pub(super) more: bool,
    /// A last line is there that more may belong to; it is read again a second later.
    pub(super) waits: bool,
}

/// What stands at the begin of some bytes.
enum Piece {
    /// A record of so many bytes, and how many it takes with its newline. Longer ones are cut.
    Record { length: usize, advance: usize, is_cut: bool },
    /// The begin of a line that is too long, without its end.
    Begin { length: usize },
    /// A record that may go on.
    Undecided,
    /// No whole line.
    Nothing,
}

impl Tail {
    /// Opens a file to read from its begin.
    pub(super) fn open(path: &Path, now: i64) -> io::Result<Tail> {
        let file = File::open(path)?;
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let position = FilePosition {
            path: path.to_owned(),
            device: about.dev(),
            inode: about.ino(),
            offset: 0,
            fingerprint: Fingerprint::default(),
            skipping: false,
            rotated: false,
        };
        Ok(Tail { file, position, active_at: now, length: 0, length_since: now })
    }

    /// Stands where `position` says if this is the same file, still at least that long; otherwise says no.
    pub(super) fn resume(&mut self, position: &FilePosition) -> io::Result<bool> {
        let is_same_inode = (position.device, position.inode) == (self.position.device, self.position.inode);
        let is_telling = is_same_inode || position.fingerprint.length >= Fingerprint::LENGTH_TELLING;
        if !is_telling || self.file.metadata()?.len() < position.offset || !self.begins_as(position.fingerprint)? {
            return Ok(false);
        }
        self.position.offset = position.offset;
        self.position.skipping = position.skipping;
        self.position.fingerprint = position.fingerprint;
        Ok(true)
    }

    /// Skips all whole lines that are there now.
    pub(super) fn skip_to_end(&mut self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        // A last line without its newline is still being written: it will be new.
        let window = length.min(64 << 10);
        let mut last = vec![0; window as usize];
        self.file.read_exact_at(&mut last, length - window)?;
        let after_newline = last.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
        self.position.offset = length - window + after_newline as u64;
        self.grow_fingerprint()
    }

    pub(super) fn position(&self) -> &FilePosition {
        &self.position
    }

    /// From now on the file is only read to its end, under the name it had.
    pub(super) fn retire(&mut self, now: i64) {
        self.position.rotated = true;
        self.active_at = now;
    }

    /// Gives the file the name that its lines go by.
    pub(super) fn rename(&mut self, path: PathBuf) {
        self.position.path = path;
    }

    /// Whether `about` describes this very file.
    pub(super) fn is(&self, about: &Metadata) -> bool {
        (about.dev(), about.ino()) == (self.position.device, self.position.inode)
    }

    /// Whether the file is now shorter than what was read, or begins otherwise.
    pub(super) fn was_rewritten(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.len() < self.position.offset || !self.begins_as(self.position.fingerprint)?)
    }

    /// Reads whole lines and hands each out without its newline, within the budget; lines of a stack trace together. The
    /// position moves with what is handed out, so a trace that may go on is read again. `take` says whether it wants more.
    pub(super) fn read(
        &mut self,
        budget: Budget,
        now: i64,
        buffer: &mut Vec<u8>,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> io::Result<Reading> {
        let mut reading = Reading::default();
        let length = self.file.metadata()?.len();
        if length == self.position.offset {
            return Ok(reading);
        }
        if length != self.length {
            (self.length, self.length_since) = (length, now);
        }
        if self.was_rewritten()? {
            self.start_over();
            reading.restarted = true;
        }
        // Room for the longest record and the line after it, which says whether it is whole; most rounds need one read.
        buffer.resize((2 * budget.line_bytes + 2).max(BUFFER_BYTES_MIN), 0);
        let is_final = !(0..JOIN_MS).contains(&(now - self.length_since));
        loop {
            let filled = self.file.read_at(buffer, self.position.offset)?;
            let used = self.hand_out(&buffer[..filled], budget, is_final, &mut reading, take);
            if used > 0 {
                self.active_at = now;
                self.grow_fingerprint()?;
            }
            if reading.more || used == 0 {
                return Ok(reading);
            }
        }
    }

    /// Hands out what stands after the last newline: nobody will end that line any more.
    pub(super) fn read_rest(&mut self, budget: Budget, take: &mut dyn FnMut(&[u8]) -> bool) -> io::Result<()> {
        let mut rest = vec![0; budget.line_bytes];
        let filled = self.file.read_at(&mut rest, self.position.offset)?;
        if filled > 0 && !self.position.skipping {
            take(&rest[..filled]);
        }
        self.position.offset += filled as u64;
        Ok(())
    }

    /// Cuts a chunk into records; returns the bytes used, 0 when none is whole.
    fn hand_out(
        &mut self,
        chunk: &[u8],
        budget: Budget,
        is_final: bool,
        reading: &mut Reading,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> usize {
        let mut used = 0;
        reading.waits = false;
        while used < chunk.len() {
            let rest = &chunk[used..];
            if self.position.skipping {
                let end = memchr(b'\n', rest);
                self.position.skipping = end.is_none();
                let advance = end.map_or(rest.len(), |end| end + 1);
                used += advance;
                self.position.offset += advance as u64;
                continue;
            }
            let (line, advance) = match piece(rest, budget, is_final) {
                Piece::Record { length, advance, is_cut } => {
                    reading.cut += usize::from(is_cut);
                    (&rest[..length], advance)
                }
                Piece::Begin { length } => {
                    reading.cut += 1;
                    self.position.skipping = true;
                    (&rest[..length], length)
                }
                Piece::Undecided => {
                    reading.waits = true;
                    break;
                }
                Piece::Nothing => break,
            };
            used += advance;
            self.position.offset += advance as u64;
            reading.lines += 1;
            if !take(line) || reading.lines >= budget.lines {
                reading.more = true;
                break;
            }
        }
        used
    }

    fn start_over(&mut self) {
        self.position.offset = 0;
        self.position.skipping = false;
        self.position.fingerprint = Fingerprint::default();
    }

    /// Takes in more of the file's begin, as far as it was read.
    fn grow_fingerprint(&mut self) -> io::Result<()> {
        let wanted = (self.position.offset).min(Fingerprint::LENGTH_MAX as u64);
        if u64::from(self.position.fingerprint.length) < wanted {
            let mut begin = vec![0; wanted as usize];
            let filled = self.file.read_at(&mut begin, 0)?;
            self.position.fingerprint = Fingerprint::of(&begin[..filled]);
        }
        Ok(())
    }

    fn begins_as(&self, fingerprint: Fingerprint) -> io::Result<bool> {
        let mut begin = vec![0; (fingerprint.length as usize).min(Fingerprint::LENGTH_MAX)];
        let filled = self.file.read_at(&mut begin, 0)?;
        Ok(filled == begin.len() && Fingerprint::of(&begin).hash == fingerprint.hash || fingerprint.length == 0)
    }
}

/// Fewest bytes read at once.
const BUFFER_BYTES_MIN: usize = 128 << 10;

/// The record at the begin of `bytes`. `is_final` says that nobody has written more for a while.
fn piece(bytes: &[u8], budget: Budget, is_final: bool) -> Piece {
    let Some(end) = memchr(b'\n', bytes) else {
        let is_long = bytes.len() > budget.line_bytes;
        return if is_long { Piece::Begin { length: budget.line_bytes } } else { Piece::Nothing };
    };
    if end > budget.line_bytes {
        return Piece::Record { length: budget.line_bytes, advance: end + 1, is_cut: true };
    }
    let record = |end: usize| Piece::Record { length: end, advance: end + 1, is_cut: false };
    if !budget.joins {
        return record(end);
    }
    let (mut end, mut trace) = (end, join::begin(&bytes[..end]));
    for _ in 1..JOINED_MAX {
        let next = &bytes[end + 1..];
        // What cannot go on with a trace needs no look at its end.
        if trace == Trace::Plain && next.first().is_some_and(|first| !join::may_continue(*first)) {
            return record(end);
        }
        let Some(length) = memchr(b'\n', next).or((next.len() > budget.line_bytes).then_some(next.len())) else {
            return if is_final { record(end) } else { Piece::Undecided };
        };
        let is_long = end + 1 + length > budget.line_bytes;
        if is_long || !join::continues(&mut trace, &next[..length]) {
            return record(end);
        }
        end += 1 + length;
    }
    record(end)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const SMALL: Budget = Budget { line_bytes: 8, lines: 100, joins: false };

    fn lines(tail: &mut Tail, budget: Budget) -> (Vec<String>, Reading) {
        let mut seen = Vec::new();
        let reading = tail
            .read(budget, 0, &mut Vec::new(), &mut |line| {
                seen.push(String::from_utf8_lossy(line).into_owned());
                true
            })
            .unwrap();
        (seen, reading)
    }

    #[test]
    fn whole_lines_only_and_long_ones_are_cut_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let mut file = std::fs::File::create(&path).unwrap();
        let mut tail = Tail::open(&path, 0).unwrap();
        file.write_all(b"one\ntwo\n\xff\nhal").unwrap();
        assert_eq!(lines(&mut tail, SMALL).0, ["one", "two", "\u{fffd}"]);
        file.write_all(b"f\n0123456789abcdefghij").unwrap();
        let (seen, reading) = lines(&mut tail, SMALL);
        assert_eq!((seen, reading.cut), (vec!["half".to_owned(), "01234567".to_owned()], 1));
        // The position may be kept in the middle of a long line.
        let kept = tail.position().clone();
        let mut tail = Tail::open(&path, 0).unwrap();
        assert!(tail.resume(&kept).unwrap());
        file.write_all(b"klm\n12345678\nend\n").unwrap();
        assert_eq!(lines(&mut tail, SMALL).0, ["12345678", "end"]);
        assert_eq!(lines(&mut tail, SMALL).0, Vec::<String>::new());
    }

    #[test]
    fn a_budget_ends_a_reading_between_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, "a\nb\nc\n").unwrap();
        let mut tail = Tail::open(&path, 0).unwrap();
        let (seen, reading) = lines(&mut tail, Budget { lines: 2, ..SMALL });
        assert_eq!((seen, reading.more), (vec!["a".to_owned(), "b".to_owned()], true));
        assert_eq!(lines(&mut tail, SMALL).0, ["c"]);
    }

    #[test]
    fn a_file_written_anew_in_place_is_read_from_its_begin() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, "a\nb\n").unwrap();
        let mut tail = Tail::open(&path, 0).unwrap();
        assert_eq!(lines(&mut tail, SMALL).0, ["a", "b"]);
        std::fs::write(&path, "c\n").unwrap();
        assert_eq!(lines(&mut tail, SMALL).0, ["c"]);
        std::fs::write(&path, "longer\nthan\nbefore\n").unwrap();
        let (seen, reading) = lines(&mut tail, SMALL);
        assert!(reading.restarted);
        assert_eq!(seen, ["longer", "than", "before"]);
    }

    #[test]
    fn a_trace_is_one_record_and_its_last_line_waits_a_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, "a\nb\n  b1\n  b2\nc\n  c1\n").unwrap();
        let mut tail = Tail::open(&path, 0).unwrap();
        let budget = Budget { line_bytes: 11, lines: 100, joins: true };
        let read = |tail: &mut Tail, now| {
            let mut seen = Vec::new();
            let reading = tail.read(budget, now, &mut Vec::new(), &mut |line| {
                seen.push(String::from_utf8_lossy(line).replace('\n', "|"));
                true
            });
            (seen.join(" "), reading.unwrap().waits)
        };
        assert_eq!(read(&mut tail, 0), ("a b|  b1|  b2".to_owned(), true));
        assert_eq!(read(&mut tail, JOIN_MS - 1), (String::new(), true));
        assert_eq!(read(&mut tail, JOIN_MS), ("c|  c1".to_owned(), false));
        // A record is as long as a line may be; half a line is not waited for for ever.
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"d\n  d1\n  d2\n  d3\ne\n  half")
            .unwrap();
        assert_eq!(read(&mut tail, JOIN_MS), ("d|  d1|  d2   d3".to_owned(), true));
        assert_eq!(read(&mut tail, 2 * JOIN_MS), ("e".to_owned(), false));
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(64))]
        #[test]
        fn whatever_is_in_a_file_comes_out_in_bounds(bytes in proptest::collection::vec(proptest::prop_oneof![
            proptest::strategy::Just(b'\n'), proptest::strategy::Just(b' '), proptest::arbitrary::any::<u8>()
        ], 0..300)) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.log");
            std::fs::write(&path, &bytes).unwrap();
            let mut tail = Tail::open(&path, 0).unwrap();
            let mut lines = 0;
            for now in [0, JOIN_MS] {
                let budget = Budget { line_bytes: 8, lines: 1000, joins: true };
                tail.read(budget, now, &mut Vec::new(), &mut |line| {
                    assert!(line.len() <= 8);
                    lines += 1 + memchr::memchr_iter(b'\n', line).count();
                    true
                }).unwrap();
            }
            let whole = memchr::memchr_iter(b'\n', &bytes).count();
            let rest = bytes.iter().rev().take_while(|byte| **byte != b'\n').count();
            proptest::prop_assert_eq!(lines, whole + usize::from(rest > 8));
        }
    }
}
