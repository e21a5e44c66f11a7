//! A backup as one file: a plain tar with the databases of a data directory, closed by their checksums. The layout stands in
//! docs/formats/backup.md. Reading trusts nothing: names, lengths and sums are checked, and an archive that ends early is refused.

use std::io::{self, Read, Write};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::series::Timestamp;

/// Version of the layout.
const VERSION: u32 = 1;
/// First entry: what this is.
const MANIFEST: &str = "petrel-backup.json";
/// Last entry: the checksums, as `sha256sum -c` takes them.
const SUMS: &str = "SHA256SUMS";
/// tar's unit.
const BLOCK: usize = 512;
/// A manifest or a list of sums is text of a line per file; more is damage and must not be allocated.
const TEXT_BYTES_MAX: u64 = 16 << 20;
/// Bytes copied at once.
const COPY_BYTES: usize = 256 << 10;

/// What an archive says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout.
    pub version: u32,
    /// When it was made, by the server's clock.
    pub made_at: Timestamp,
    /// The program that made it.
    pub program: String,
}

/// An archive that was read to its end: what it is and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// What it says of itself.
    pub manifest: Manifest,
    /// Its databases with their bytes.
    pub files: Vec<(String, u64)>,
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadArchiveError {
    /// It cannot be read, or what is read from it cannot be kept.
    #[error("the backup cannot be read")]
    Io(#[from] io::Error),
    /// Something else, or its first bytes are damaged.
    #[error("this is not a backup made by `petrel backup`")]
    NotABackup,
    /// Of a later program.
    #[error(
        "the backup has version {version}, this program reads up to {VERSION}; use the petrel that made it or a later one"
    )]
    Version {
        /// The version found.
        version: u32,
    },
    /// The end is missing.
    #[error("the backup is truncated at `{name}`; use another one")]
    Truncated {
        /// The entry that ends early, or the last one that is whole.
        name: String,
    },
    /// Bytes are not those that were written.
    #[error("the backup is damaged at `{name}`; use another one")]
    Damaged {
        /// The entry.
        name: String,
    },
    /// A name that no backup has, for example one with a folder.
    #[error("the backup holds `{name}`, which is no database of a data directory")]
    Name {
        /// The name.
        name: String,
    },
}

/// Writes an archive, entry by entry.
pub struct ArchiveWriter<'a> {
    out: &'a mut dyn Write,
    sums: String,
    made_at: Timestamp,
}

impl<'a> ArchiveWriter<'a> {
    /// Begins an archive.
    ///
    /// # Errors
    /// `out` refuses.
    pub fn new(out: &'a mut dyn Write, made_at: Timestamp) -> io::Result<ArchiveWriter<'a>> {
        let program = format!("petrel {}", env!("CARGO_PKG_VERSION"));
        let manifest = serde_json::to_vec(&Manifest { version: VERSION, made_at, program })?;
        let mut writer = ArchiveWriter { out, sums: String::new(), made_at };
        writer.entry(MANIFEST, manifest.len() as u64, &mut manifest.as_slice())?;
        Ok(writer)
    }

    /// Appends exactly `bytes` bytes of `input` under a name.
    ///
    /// # Errors
    /// `input` fails or ends early, or `out` refuses.
    pub fn entry(&mut self, name: &str, bytes: u64, input: &mut dyn Read) -> io::Result<()> {
        self.out.write_all(&header(name, bytes, self.made_at))?;
        let mut sum = Context::new(&SHA256);
        let mut buffer = vec![0; COPY_BYTES];
        let mut left = bytes;
        while left > 0 {
            let part = &mut buffer[..COPY_BYTES.min(usize::try_from(left).unwrap_or(COPY_BYTES))];
            input.read_exact(part)?;
            sum.update(part);
            self.out.write_all(part)?;
            left -= part.len() as u64;
        }
        self.out.write_all(&[0; BLOCK][..padding(bytes)])?;
        if name != SUMS {
            self.sums.push_str(&sum_line(sum.finish().as_ref(), name));
        }
        Ok(())
    }

    /// Closes the archive with the checksums.
    ///
    /// # Errors
    /// `out` refuses.
    pub fn finish(mut self) -> io::Result<()> {
        let sums = std::mem::take(&mut self.sums);
        self.entry(SUMS, sums.len() as u64, &mut sums.as_bytes())?;
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }
}

/// Reads an archive to its end and checks every byte of it. `each` is given every database with its length and must read it, or
/// leave it, which skips it; what it did is only good once this returns well.
///
/// # Errors
/// The archive is refused, or `each` fails.
pub fn read(
    input: &mut dyn Read,
    each: &mut dyn FnMut(&str, u64, &mut dyn Read) -> io::Result<()>,
) -> Result<Contents, ReadArchiveError> {
    let mut found = String::new();
    let mut files = Vec::new();
    let mut manifest = None;
    let mut at = MANIFEST.to_owned();
    loop {
        let (name, bytes) = match next_header(input, &at) {
            Err(_) if manifest.is_none() => return Err(ReadArchiveError::NotABackup),
            other => other?,
        };
        at.clone_from(&name);
        let mut body = Summed { input, left: bytes, sum: Context::new(&SHA256) };
        if manifest.is_none() || name == SUMS {
            let text = body.text(&name)?;
            skip_padding(input, bytes, &name)?;
            if name == SUMS {
                check_sums(&text, &found)?;
                break;
            }
            manifest = Some(read_manifest(&name, &text)?);
            found.push_str(&sum_line(ring::digest::digest(&SHA256, text.as_bytes()).as_ref(), &name));
            continue;
        }
        check_name(&name)?;
        each(&name, bytes, &mut body).or_else(|error| body.blame(&name, error))?;
        io::copy(&mut body, &mut io::sink()).map(drop).or_else(|error| body.blame(&name, error))?;
        found.push_str(&sum_line(body.sum.finish().as_ref(), &name));
        skip_padding(input, bytes, &name)?;
        files.push((name, bytes));
    }
    expect_end(input)?;
    Ok(Contents { manifest: manifest.ok_or(ReadArchiveError::NotABackup)?, files })
}

/// The bytes of one entry, summed as they are read.
struct Summed<'a> {
    input: &'a mut dyn Read,
    left: u64,
    sum: Context,
}

impl Read for Summed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let count = self.input.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.sum.update(&buffer[..count]);
        self.left -= count as u64;
        Ok(count)
    }
}

impl Summed<'_> {
    fn text(&mut self, name: &str) -> Result<String, ReadArchiveError> {
        if self.left > TEXT_BYTES_MAX {
            return Err(ReadArchiveError::Damaged { name: name.to_owned() });
        }
        let mut text = String::new();
        match self.read_to_string(&mut text) {
            Ok(_) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(ReadArchiveError::Damaged { name: name.to_owned() })
            }
            Err(error) => Err(ended(error, name)),
        }
    }

    /// An end of the archive is told by name; any other failure is the reader's or the writer's own.
    fn blame(&self, name: &str, error: io::Error) -> Result<(), ReadArchiveError> {
        if self.left == 0 { Err(error.into()) } else { Err(ended(error, name)) }
    }
}

fn ended(error: io::Error, name: &str) -> ReadArchiveError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        ReadArchiveError::Truncated { name: name.to_owned() }
    } else {
        error.into()
    }
}

fn read_manifest(name: &str, text: &str) -> Result<Manifest, ReadArchiveError> {
    let manifest: Manifest = serde_json::from_str(text).map_err(|_| ReadArchiveError::NotABackup)?;
    match manifest.version {
        _ if name != MANIFEST => Err(ReadArchiveError::NotABackup),
        1..=VERSION => Ok(manifest),
        version => Err(ReadArchiveError::Version { version }),
    }
}

/// Databases lie in no folder, so nothing can be written beside the data directory.
fn check_name(name: &str) -> Result<(), ReadArchiveError> {
    let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if plain && name.strip_suffix(".db").is_some_and(|stem| !stem.is_empty()) && !name.starts_with('.') {
        Ok(())
    } else {
        Err(ReadArchiveError::Name { name: name.to_owned() })
    }
}

fn check_sums(listed: &str, found: &str) -> Result<(), ReadArchiveError> {
    let (mut listed, mut found) = (listed.lines(), found.lines());
    loop {
        match (listed.next(), found.next()) {
            (None, None) => return Ok(()),
            (Some(a), Some(b)) if a == b => {}
            (_, Some(line)) | (Some(line), None) => {
                let name = line.rsplit("  ").next().unwrap_or(SUMS).to_owned();
                return Err(ReadArchiveError::Damaged { name });
            }
        }
    }
}

fn expect_end(input: &mut dyn Read) -> Result<(), ReadArchiveError> {
    let mut rest = Vec::new();
    input.take(2 * BLOCK as u64 + 1).read_to_end(&mut rest)?;
    if rest.len() < 2 * BLOCK {
        return Err(ReadArchiveError::Truncated { name: SUMS.to_owned() });
    }
    let clean = rest.len() == 2 * BLOCK && rest.iter().all(|byte| *byte == 0);
    clean.then_some(()).ok_or(ReadArchiveError::Damaged { name: SUMS.to_owned() })
}

fn next_header(input: &mut dyn Read, after: &str) -> Result<(String, u64), ReadArchiveError> {
    let mut block = [0; BLOCK];
    input.read_exact(&mut block).map_err(|error| ended(error, after))?;
    let damaged = || ReadArchiveError::Damaged { name: format!("the header after {after}") };
    if block[148..156] != sum_field(header_sum(&block)) {
        return Err(damaged());
    }
    let end = block[..100].iter().position(|byte| *byte == 0).unwrap_or(100);
    let name = std::str::from_utf8(&block[..end]).map_err(|_| damaged())?;
    let bytes = size(&block[124..136]).ok_or_else(damaged)?;
    Ok((name.to_owned(), bytes))
}

fn skip_padding(input: &mut dyn Read, bytes: u64, name: &str) -> Result<(), ReadArchiveError> {
    let mut rest = [0; BLOCK];
    let rest = &mut rest[..padding(bytes)];
    input.read_exact(rest).map_err(|error| ended(error, name))?;
    let clean = rest.iter().all(|byte| *byte == 0);
    clean.then_some(()).ok_or_else(|| ReadArchiveError::Damaged { name: name.to_owned() })
}

fn padding(bytes: u64) -> usize {
    (bytes.next_multiple_of(BLOCK as u64) - bytes) as usize
}

/// A ustar header of a plain file.
fn header(name: &str, bytes: u64, made_at: Timestamp) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000600");
    block[108..115].copy_from_slice(b"0000000");
    block[116..123].copy_from_slice(b"0000000");
    if bytes < 1 << 33 {
        block[124..135].copy_from_slice(format!("{bytes:011o}").as_bytes());
    } else {
        // What GNU and POSIX tar do beyond eleven octal digits: a set high bit, then the number in base 256.
        block[124] = 0x80;
        block[128..136].copy_from_slice(&bytes.to_be_bytes());
    }
    block[136..147].copy_from_slice(format!("{:011o}", (made_at / 1000).clamp(0, (1 << 33) - 1)).as_bytes());
    block[156] = b'0';
    block[257..265].copy_from_slice(b"ustar\x0000");
    let sum = header_sum(&block);
    block[148..156].copy_from_slice(&sum_field(sum));
    block
}

/// Six octal digits, a zero and a blank, as every tar writes them.
fn sum_field(sum: u64) -> [u8; 8] {
    let mut field = *b"000000\0 ";
    for (at, digit) in field[..6].iter_mut().enumerate() {
        *digit = b'0' + (sum >> (15 - 3 * at) & 7) as u8;
    }
    field
}

/// The sum of the header's bytes, those of the sum itself taken as blanks.
fn header_sum(block: &[u8; BLOCK]) -> u64 {
    let blank = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    block.iter().enumerate().map(|(at, byte)| u64::from(blank(at, *byte))).sum()
}

fn size(field: &[u8]) -> Option<u64> {
    if field[0] == 0x80 { Some(u64::from_be_bytes(field[4..12].try_into().ok()?)) } else { octal(field) }
}

fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok()
}

/// A line as `sha256sum` writes it.
fn sum_line(sum: &[u8], name: &str) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('?');
    let hex: String = sum.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
    format!("{hex}  {name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = ArchiveWriter::new(&mut out, 1_700_000_000_000).unwrap();
        writer.entry("control.db", 5, &mut &b"hello"[..]).unwrap();
        writer.entry("samples-2026-11-22.db", 1024, &mut &[7; 1024][..]).unwrap();
        writer.finish().unwrap();
        out
    }

    fn taken(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut all = Vec::new();
        read(&mut &*bytes, &mut |name, _, body| {
            let mut content = Vec::new();
            body.read_to_end(&mut content)?;
            all.push((name.to_owned(), content));
            Ok(())
        })
        .map_err(|error| error.to_string())?;
        Ok(all)
    }

    #[test]
    fn what_is_written_is_read_and_every_damage_is_refused() {
        let good = archive();
        let files = taken(&good).unwrap();
        assert_eq!(files[0], ("control.db".to_owned(), b"hello".to_vec()));
        assert_eq!((files[1].0.as_str(), files[1].1.len(), files.len()), ("samples-2026-11-22.db", 1024, 2));
        for end in 0..good.len() {
            assert!(taken(&good[..end]).is_err(), "cut off at {end}");
        }
        assert!(taken(&good[..2_000]).unwrap_err().contains("truncated at `control.db`"));
        // Names of owners and times in the headers stand outside the sums, and the header's own sum covers them.
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(taken(&bad).is_err(), "a flipped bit at {at} was not seen");
        }
        let mut longer = good.clone();
        longer.push(0);
        assert!(taken(&longer).is_err());
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["../evil.db", "a/b.db", "/etc/x.db", "lock", ".db", "control.db-wal"] {
            let mut out = Vec::new();
            let mut writer = ArchiveWriter::new(&mut out, 0).unwrap();
            writer.entry(name, 1, &mut &b"x"[..]).unwrap();
            writer.finish().unwrap();
            assert!(taken(&out).unwrap_err().contains(name), "{name}");
        }
        assert!(taken(b"SQLite format 3\0 and more").unwrap_err().contains("not a backup"));
    }

    #[test]
    fn sizes_beyond_octal_come_back() {
        for bytes in [0, 1, (1 << 33) - 1, 1 << 33, 1 << 40] {
            let block = header("x.db", bytes, 0);
            assert_eq!((size(&block[124..136]), &block[148..156]), (Some(bytes), &sum_field(header_sum(&block))[..]));
        }
    }
}
