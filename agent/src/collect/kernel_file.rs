//! A file of procfs or sysfs that is read again and again: opened once, read from its start, into one buffer.
//! Reading such a file runs kernel code that prints a snapshot; opening it anew each time would double the cost.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::CollectError;

/// Largest text that is read: `/proc/stat` of a machine with 4,096 processors and interrupts has about 300 KiB.
const BYTES_MAX: usize = 8 << 20;
/// Longest piece of a line that an error repeats.
const LINE_SHOWN_MAX: usize = 120;

/// One kernel file, kept open.
#[derive(Debug)]
pub(in crate::collect) struct KernelFile {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

/// What the file said, with its path for errors.
pub(in crate::collect) struct KernelText<'a> {
    path: &'a Path,
    text: Cow<'a, str>,
}

impl KernelFile {
    pub(in crate::collect) fn new(path: PathBuf) -> KernelFile {
        KernelFile { path, file: None, buffer: Vec::new() }
    }

    /// Reads the whole file. Bytes that are not UTF-8 are replaced, as a mount point or a device may have any name.
    pub(in crate::collect) fn read(&mut self) -> Result<KernelText<'_>, CollectError> {
        let length = match self.fill() {
            Ok(length) => length,
            Err(source) => {
                // A device that went away leaves a dead handle: open it again next time.
                self.file = None;
                let path = self.path.clone();
                return Err(match source.kind() {
                    io::ErrorKind::NotFound => CollectError::Absent { path },
                    _ => CollectError::Read { path, source },
                });
            }
        };
        Ok(KernelText { path: &self.path, text: String::from_utf8_lossy(&self.buffer[..length]) })
    }

    fn fill(&mut self) -> io::Result<usize> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path)?,
        };
        let mut length = 0;
        loop {
            if length == self.buffer.len() {
                if length >= BYTES_MAX {
                    return Err(io::Error::from(io::ErrorKind::FileTooLarge));
                }
                self.buffer.resize((length * 2).max(4096), 0);
            }
            match file.read_at(&mut self.buffer[length..], length as u64) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.file = Some(file);
        Ok(length)
    }
}

impl KernelText<'_> {
    /// A text that no kernel wrote.
    #[cfg(test)]
    pub(in crate::collect) fn of(bytes: &[u8]) -> KernelText<'_> {
        KernelText { path: Path::new("/test"), text: String::from_utf8_lossy(bytes) }
    }

    pub(in crate::collect) fn lines(&self) -> std::str::Lines<'_> {
        self.text.lines()
    }

    pub(in crate::collect) fn as_str(&self) -> &str {
        &self.text
    }

    /// The error for a line that makes no sense.
    pub(in crate::collect) fn malformed(&self, line: &str) -> CollectError {
        CollectError::Malformed { path: self.path.to_owned(), line: line.chars().take(LINE_SHOWN_MAX).collect() }
    }

    /// Reads a text that is one number.
    pub(in crate::collect) fn only_number(&self) -> Result<f64, CollectError> {
        let line = self.text.trim();
        self.number(Some(line), line)
    }

    /// Reads a number out of a line.
    pub(in crate::collect) fn number(&self, field: Option<&str>, line: &str) -> Result<f64, CollectError> {
        field.and_then(|field| field.parse().ok()).ok_or_else(|| self.malformed(line))
    }
}

/// Reads a small file that is not worth keeping open, without its last newline; `None` when it cannot be read.
pub(in crate::collect) fn read_word(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

/// Reads the kernel's list of numbers, `0-3,8,10-11`; at most 65,536 of them, and what makes no sense is left out.
pub(in crate::collect) fn number_list(text: &str) -> Vec<u32> {
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else { continue };
        numbers.extend((first..=last).take(65_536 - numbers.len().min(65_536)));
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_again_what_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut file = KernelFile::new(path.clone());
        assert!(matches!(file.read(), Err(CollectError::Absent { .. })));
        std::fs::write(&path, "a".repeat(10_000)).unwrap();
        assert_eq!(file.read().unwrap().as_str().len(), 10_000);
        std::fs::write(&path, b"b\xff").unwrap();
        assert_eq!(file.read().unwrap().as_str(), "b\u{fffd}");
    }

    #[test]
    fn number_lists() {
        for (text, numbers) in
            [("0-3,8\n", vec![0, 1, 2, 3, 8]), ("", vec![]), ("7", vec![7]), ("x,1-y,5-4,9", vec![9])]
        {
            assert_eq!(number_list(text), numbers, "{text}");
        }
        assert_eq!(number_list("0-4294967295").len(), 65_536);
    }
}
