//! Where reading stands: kept by the spool in the same synced record as the lines read so far, so that after a crash no
//! line is lost and none is sent twice.

use std::path::PathBuf;

use petrel_models::Timestamp;
use serde::{Deserialize, Serialize};

use super::journal::JournalPosition;
use super::kmsg::KmsgPosition;

/// Positions in all sources.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// When reading stood there: a file made later is new, and read from its begin after a restart.
    #[serde(default)]
    pub at: Timestamp,
    /// One for each file that was followed, and for each rotated one that is still read.
    pub files: Vec<FilePosition>,
    /// In the journal, where it was followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalPosition>,
    /// In the kernel's messages, where they were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kmsg: Option<KmsgPosition>,
}

/// Position in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePosition {
    /// The name the file had when it was opened.
    pub path: PathBuf,
    /// Device of the file system.
    pub device: u64,
    /// The file's inode: with the device, its identity through a rename.
    pub inode: u64,
    /// First byte that was not read as part of a whole line.
    pub offset: u64,
    /// How the file begins: tells a file from another that got its inode, or that was written anew in place.
    pub fingerprint: Fingerprint,
    /// Whether the bytes at the offset are the rest of a line that was too long.
    pub skipping: bool,
    /// Whether the file was rotated away and is only read to its end.
    pub rotated: bool,
}

/// Hash of a file's first bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// How many bytes.
    pub length: u32,
    /// Their hash.
    pub hash: u64,
}

impl Fingerprint {
    /// Most bytes taken: a line or two, with a time stamp in it.
    pub const LENGTH_MAX: usize = 256;
    /// From this length on a fingerprint tells files apart without an inode: a time stamp and some words.
    pub const LENGTH_TELLING: u32 = 32;

    /// Takes the fingerprint of a file that begins with `bytes`.
    pub fn of(bytes: &[u8]) -> Fingerprint {
        let bytes = &bytes[..bytes.len().min(Fingerprint::LENGTH_MAX)];
        // FNV-1a: there is nobody to defend against here, files only have to differ.
        let hash = bytes
            .iter()
            .fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
        Fingerprint { length: bytes.len() as u32, hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_ever_written_is_read() {
        let first: LogState = serde_json::from_str(include_str!("../../testdata/log-state-1.json")).unwrap();
        assert_eq!((first.files[0].offset, first.files[0].rotated, first.journal), (4711, true, None));
        let text = include_str!("../../testdata/log-state-2.json");
        let second: LogState = serde_json::from_str(text).unwrap();
        assert_eq!(second.kmsg.as_ref().map(|kmsg| kmsg.next), Some(1234));
        assert_eq!(serde_json::to_string(&second).unwrap(), text.trim_end(), "what is written today");
    }
}
