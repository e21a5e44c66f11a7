//! SQLite's write-ahead log, read as bytes. SQLite takes a log up to the first frame whose checksum is wrong and drops the rest without
//! a word: right for the torn end that a crash leaves, and a silent loss of acknowledged samples where a frame in the middle is
//! damaged. Here the two are told apart, and what follows a damaged frame is saved. The layout is SQLite's file format, section 4.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// The last bit says whether sums are of big-endian words.
const MAGIC: u32 = 0x377f_0682;

/// What was found in a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogCheck {
    /// Frames that SQLite takes.
    pub frames: u64,
    /// The first frame that is wrong, from 1 on, where there is one.
    pub broken_at: Option<u64>,
    /// Whole transactions behind it. Each was synced before the next began, so from the second on it is damage and no torn end.
    pub commits_after: u64,
}

impl LogCheck {
    /// Whether synced transactions would be dropped.
    pub fn is_damaged(&self) -> bool {
        self.commits_after > 1
    }
}

/// Checks the log of a database; a log that is not there is empty.
///
/// # Errors
/// It cannot be read.
pub fn check(log: &Path) -> io::Result<LogCheck> {
    walk(log, &mut |_, _, _| Ok(()))
}

/// Writes a log anew with all frames that are whole, also those behind damaged ones.
///
/// # Errors
/// A file cannot be read or written.
pub fn rewrite(from: &Path, to: &Path) -> io::Result<LogCheck> {
    let mut out = BufWriter::new(File::create(to)?);
    let mut sum = None;
    let found = walk(from, &mut |header, frame, page| {
        let words = Words::of(header);
        let mut chain = if let Some(sum) = sum {
            sum
        } else {
            let mut fresh = [0; HEADER_BYTES];
            fresh.copy_from_slice(header);
            let first = words.sum((0, 0), &fresh[..24]);
            fresh[24..28].copy_from_slice(&first.0.to_be_bytes());
            fresh[28..32].copy_from_slice(&first.1.to_be_bytes());
            out.write_all(&fresh)?;
            first
        };
        chain = words.sum(words.sum(chain, &frame[..8]), page);
        out.write_all(&frame[..16])?;
        out.write_all(&chain.0.to_be_bytes())?;
        out.write_all(&chain.1.to_be_bytes())?;
        out.write_all(page)?;
        sum = Some(chain);
        Ok(())
    })?;
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    Ok(found)
}

type EachFrame<'a> = &'a mut dyn FnMut(&[u8], &[u8], &[u8]) -> io::Result<()>;

/// Passes every whole frame on: the log's header, the frame's header, the page.
fn walk(log: &Path, each: EachFrame<'_>) -> io::Result<LogCheck> {
    let mut found = LogCheck::default();
    let file = match File::open(log) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    let mut input = BufReader::with_capacity(1 << 20, file);
    let mut header = [0; HEADER_BYTES];
    if !fill(&mut input, &mut header)? {
        return Ok(found);
    }
    let page_bytes = number(&header[8..12]) as usize;
    let known =
        number(&header[..4]) & !1 == MAGIC && page_bytes.is_power_of_two() && (512..=65_536).contains(&page_bytes);
    let words = Words::of(&header);
    let first = words.sum((0, 0), &header[..24]);
    if !known {
        // Without its header SQLite drops the whole log; what is behind it cannot be told from garbage.
        found.broken_at = Some(0);
        found.commits_after = if header.iter().all(|byte| *byte == 0) { 0 } else { 2 };
        return Ok(found);
    }
    let stored = (number(&header[24..28]), number(&header[28..32]));
    if stored != first {
        found.broken_at = Some(0);
    }
    let mut chain = stored;
    let (mut frame, mut page) = ([0; FRAME_HEADER_BYTES], vec![0; page_bytes]);
    for at in 1.. {
        if !fill(&mut input, &mut frame)? || !fill(&mut input, &mut page)? {
            break;
        }
        let sum = words.sum(words.sum(chain, &frame[..8]), &page);
        let stored = (number(&frame[16..20]), number(&frame[20..24]));
        let is_whole = frame[8..16] == header[16..24] && sum == stored;
        if is_whole {
            each(&header, &frame, &page)?;
            match found.broken_at {
                None => found.frames += 1,
                Some(_) => found.commits_after += u64::from(number(&frame[4..8]) != 0),
            }
        } else if found.broken_at.is_none() {
            found.broken_at = Some(at);
        }
        // Each sum builds on the one before it as it is stored, so a whole frame behind a damaged one is known as such.
        chain = stored;
    }
    Ok(found)
}

/// Which way round the words of a log's sums are.
#[derive(Clone, Copy)]
struct Words {
    is_big_endian: bool,
}

impl Words {
    fn of(header: &[u8]) -> Words {
        Words { is_big_endian: header[3] & 1 == 1 }
    }

    fn sum(self, (mut a, mut b): (u32, u32), bytes: &[u8]) -> (u32, u32) {
        for pair in bytes.chunks_exact(8) {
            let word = |bytes: &[u8]| {
                let bytes = [bytes[0], bytes[1], bytes[2], bytes[3]];
                if self.is_big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
            };
            a = a.wrapping_add(word(&pair[..4])).wrapping_add(b);
            b = b.wrapping_add(word(&pair[4..])).wrapping_add(a);
        }
        (a, b)
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Fills a buffer; `false` where the input ends before.
fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rusqlite::Connection;

    use super::*;
    use crate::store::sqlite;

    /// A database whose rows lie in its log, one transaction each.
    fn written(dir: &Path) -> (PathBuf, PathBuf) {
        let path = dir.join("j.db");
        let mut connection =
            sqlite::open_writer(&path, "CREATE TABLE word (n INTEGER PRIMARY KEY, body BLOB)").unwrap();
        sqlite::never_checkpoint(&connection).unwrap();
        for n in 0..20 {
            let tx = connection.transaction().unwrap();
            tx.execute("INSERT INTO word VALUES (?1, zeroblob(20000))", [n]).unwrap();
            tx.commit().unwrap();
        }
        let [database, log, _] = sqlite::files(&path);
        (database, log)
    }

    fn rows(path: &Path) -> i64 {
        let connection = Connection::open(path).unwrap();
        sqlite::never_checkpoint(&connection).unwrap();
        connection.query_row("SELECT count(*) FROM word", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn damage_in_the_middle_is_told_from_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let (database, log) = written(dir.path());
        let whole = check(&log).unwrap();
        assert!(whole.broken_at.is_none() && whole.frames > 40, "{whole:?}");
        let bytes = std::fs::read(&log).unwrap();
        std::fs::write(&log, &bytes[..bytes.len() - 100]).unwrap();
        assert!(!check(&log).unwrap().is_damaged());
        let mut torn = bytes.clone();
        let end = torn.len();
        torn[end - 20] ^= 1;
        std::fs::write(&log, &torn).unwrap();
        let found = check(&log).unwrap();
        assert!(found.broken_at.is_some() && !found.is_damaged(), "{found:?}");
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        std::fs::write(&log, &flipped).unwrap();
        let found = check(&log).unwrap();
        assert!(found.is_damaged() && found.commits_after > 5, "{found:?}");
        let lost = rows(&database);
        rewrite(&log, &dir.path().join("saved")).unwrap();
        std::fs::rename(dir.path().join("saved"), &log).unwrap();
        std::fs::remove_file(&sqlite::files(&database)[2]).unwrap();
        assert_eq!(check(&log).unwrap().broken_at, None);
        assert!(rows(&database) > lost + 5, "{} of {lost}", rows(&database));
    }
}
