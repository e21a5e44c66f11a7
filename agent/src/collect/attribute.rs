//! Attributes of sysfs: files that hold one value each, a page at most. What is read at every turn can be kept open, as
//! opening costs more than reading; a process may have about a thousand files open, so callers bound how many they keep.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// What the kernel prints for an attribute at most: a page.
const BYTES_MAX: usize = 4096;
/// Most names that a listing gives; a host with more guests than that has other worries.
const NAMES_MAX: usize = 8192;
/// What hardly ever changes, and which devices there are, is looked up so often.
const MINUTE: Duration = Duration::from_secs(60);

/// Reads attributes, all into one buffer.
pub(in crate::collect) struct AttributeReader {
    buffer: Box<[u8; BYTES_MAX]>,
}

/// An attribute that is read often.
pub(in crate::collect) struct Attribute {
    path: PathBuf,
    keeps_open: bool,
    file: Option<File>,
}

impl AttributeReader {
    pub(in crate::collect) fn new() -> AttributeReader {
        AttributeReader { buffer: Box::new([0; BYTES_MAX]) }
    }

    /// Reads an attribute without its last newline. What is not UTF-8 is replaced.
    pub(in crate::collect) fn read(&mut self, path: &Path) -> io::Result<Cow<'_, str>> {
        self.read_from(&File::open(path)?)
    }

    /// Reads one that may be kept open. An error closes it.
    pub(in crate::collect) fn read_kept(&mut self, attribute: &mut Attribute) -> io::Result<Cow<'_, str>> {
        let file = match attribute.file.take() {
            Some(file) => file,
            None => File::open(&attribute.path)?,
        };
        let text = self.read_from(&file)?;
        attribute.file = attribute.keeps_open.then_some(file);
        Ok(text)
    }

    /// Reads an attribute with space around it cut off; `None` when it cannot be read.
    pub(in crate::collect) fn word(&mut self, path: &Path) -> Option<String> {
        self.read(path).ok().map(|text| text.trim().to_owned())
    }

    /// Reads a number; `None` when there is none.
    pub(in crate::collect) fn number<T: FromStr>(&mut self, path: &Path) -> Option<T> {
        self.read(path).ok()?.trim().parse().ok()
    }

    /// One read and no more: some drivers answer EAGAIN for ever, and an attribute never has more than a page.
    fn read_from(&mut self, file: &File) -> io::Result<Cow<'_, str>> {
        let length = file.read_at(&mut self.buffer[..], 0)?;
        let bytes = &self.buffer[..length];
        Ok(valid(bytes.strip_suffix(b"\n").unwrap_or(bytes)))
    }
}

impl Attribute {
    pub(in crate::collect) fn new(path: PathBuf, keeps_open: bool) -> Attribute {
        Attribute { path, keeps_open, file: None }
    }
}

/// The text with each run of bytes that are not UTF-8 as one replacement character, which is how node_exporter shows them.
fn valid(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len());
    let mut in_run = false;
    for chunk in bytes.utf8_chunks() {
        in_run &= chunk.valid().is_empty();
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() && !in_run {
            text.push(char::REPLACEMENT_CHARACTER);
            in_run = true;
        }
    }
    Cow::Owned(text)
}

/// The names in a folder, sorted; those that are not UTF-8 are left out.
pub(in crate::collect) fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<String> = names.take(NAMES_MAX).collect();
    names.sort_unstable();
    Ok(names)
}

/// What follows `begin` in those names of a folder that begin with it and go on with a digit; empty without the folder.
pub(in crate::collect) fn numbered_in(folder: &Path, begin: &str) -> Vec<String> {
    let names = names_in(folder).unwrap_or_default();
    let rest = |name: String| name.strip_prefix(begin).map(str::to_owned);
    names.into_iter().filter_map(rest).filter(|rest| rest.starts_with(|first: char| first.is_ascii_digit())).collect()
}

/// Counts readings, so that what is due once a minute is known without a clock.
#[derive(Debug)]
pub(in crate::collect) struct Minutes {
    readings: u32,
    left: u32,
}

impl Minutes {
    /// `every` is the time from one reading to the next. The first reading is due.
    pub(in crate::collect) fn new(every: Duration) -> Minutes {
        let readings = MINUTE.as_millis() / every.as_millis().max(1);
        Minutes { readings: u32::try_from(readings).unwrap_or(u32::MAX).max(1), left: 0 }
    }

    /// How many readings a minute has, at least 1.
    pub(in crate::collect) fn readings(&self) -> u32 {
        self.readings
    }

    /// Whether this reading is the first of a minute.
    pub(in crate::collect) fn is_due(&mut self) -> bool {
        let is_due = self.left == 0;
        self.left = if is_due { self.readings - 1 } else { self.left - 1 };
        is_due
    }

    /// Makes the next reading the first of a minute.
    pub(in crate::collect) fn restart(&mut self) {
        self.left = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_again_and_closed_after_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("carrier");
        let mut reader = AttributeReader::new();
        let mut kept = Attribute::new(path.clone(), true);
        assert!(reader.read_kept(&mut kept).is_err());
        std::fs::write(&path, " 1 \n").unwrap();
        assert_eq!(reader.read_kept(&mut kept).unwrap(), " 1 ");
        std::fs::write(&path, "0\n").unwrap();
        assert_eq!(reader.read_kept(&mut kept).unwrap(), "0");
        assert!(kept.file.is_some());
        assert_eq!((reader.number::<u64>(&path), reader.word(folder.path())), (Some(0), None));
        std::fs::write(&path, vec![b'x'; 3 * BYTES_MAX]).unwrap();
        assert_eq!(reader.read(&path).unwrap().len(), BYTES_MAX);
    }

    #[test]
    fn bytes_that_are_not_text_are_shown_as_one_mark_a_run() {
        for (bytes, text) in [
            (&b"plain"[..], "plain"),
            (b"a\xff\xfe\xffb\xffc", "a\u{fffd}b\u{fffd}c"),
            (b"\xf0\x9f\x92", "\u{fffd}"),
            (b"", ""),
        ] {
            assert_eq!(valid(bytes), text);
        }
    }

    #[test]
    fn names_are_sorted_and_numbered_ones_found() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["mc10", "mc2", "mc", "mcx", "power"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        assert_eq!(numbered_in(folder.path(), "mc"), ["10", "2"]);
        assert!(names_in(&folder.path().join("gone")).is_err());
    }

    #[test]
    fn a_minute_has_as_many_readings_as_fit() {
        let mut minutes = Minutes::new(Duration::from_secs(20));
        let due: Vec<bool> = (0..7).map(|_| minutes.is_due()).collect();
        assert_eq!(due, [true, false, false, true, false, false, true]);
        minutes.restart();
        assert!(minutes.is_due());
        assert_eq!(
            (Minutes::new(Duration::from_secs(90)).readings(), Minutes::new(Duration::ZERO).readings()),
            (1, 60_000)
        );
    }
}
