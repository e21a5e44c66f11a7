//! One open log file: reads whole lines from where it stands. Knows nothing of names, rotation or other files.
//!
//! The offset always stands at the begin of a line (or inside one that is too long), so it is all there is to keep.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::state::{FilePosition, Fingerprint};

/// An open file with its position.
#[derive(Debug)]
pub(super) struct Tail {
    file: File,
    position: FilePosition,
    /// When the last whole line was read, or the file opened; by the caller's clock.
    pub(super) active_at: i64,
}

/// How much a caller takes from one file at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    /// Longest line.
    pub(super) line_bytes: usize,
    /// Most lines.
    pub(super) lines: usize,
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
        Ok(Tail { file, position, active_at: now })
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

    /// Reads whole lines and hands each out without its newline, within the budget. The position moves with every line
    /// handed out; `take` says whether it wants more.
    pub(super) fn read(
        &mut self,
        budget: Budget,
        now: i64,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> io::Result<Reading> {
        let mut reading = Reading::default();
        let length = self.file.metadata()?.len();
        if length == self.position.offset {
            return Ok(reading);
        }
        if self.was_rewritten()? {
            self.start_over();
            reading.restarted = true;
        }
        // Room for the longest line with its newline; most rounds need one read.
        let mut chunk = vec![0; budget.line_bytes + 1];
        loop {
            let filled = self.file.read_at(&mut chunk, self.position.offset)?;
            let used = self.hand_out(&chunk[..filled], budget, &mut reading, take);
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

    /// Cuts a chunk into lines; returns the bytes used, 0 when no line is whole.
    fn hand_out(
        &mut self,
        chunk: &[u8],
        budget: Budget,
        reading: &mut Reading,
        take: &mut dyn FnMut(&[u8]) -> bool,
    ) -> usize {
        let mut used = 0;
        while used < chunk.len() {
            let rest = &chunk[used..];
            let (line, advance) = match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) => (&rest[..end], end + 1),
                // Longer than any line may be: hand out its begin now and skip the rest.
                None if rest.len() > budget.line_bytes => (&rest[..budget.line_bytes], budget.line_bytes),
                None if self.position.skipping => (rest, rest.len()),
                None => break,
            };
            let is_ended = advance > line.len();
            let is_rest_of_cut = std::mem::replace(&mut self.position.skipping, !is_ended);
            used += advance;
            self.position.offset += advance as u64;
            if is_rest_of_cut {
                continue;
            }
            reading.lines += 1;
            reading.cut += usize::from(!is_ended);
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const SMALL: Budget = Budget { line_bytes: 8, lines: 100 };

    fn lines(tail: &mut Tail, budget: Budget) -> (Vec<String>, Reading) {
        let mut seen = Vec::new();
        let reading = tail
            .read(budget, 0, &mut |line| {
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
        let (seen, reading) = lines(&mut tail, Budget { line_bytes: 8, lines: 2 });
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
}
