//! What `recorder.c` wrote: every change that a process made to the files of a folder, in order.

use std::ops::Range;
use std::path::Path;

/// One recorded call.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// A file or folder was opened.
    Open {
        /// Its descriptor.
        fd: i32,
        /// Below the root.
        path: String,
        /// Whether the call made it.
        created: bool,
        /// Whether the call emptied it.
        truncated: bool,
    },
    /// A descriptor was closed.
    Close {
        /// Which.
        fd: i32,
    },
    /// Bytes were written.
    Write {
        /// Where to.
        fd: i32,
        /// From this byte on.
        offset: u64,
        /// What, as a range of [`Trace::bytes`].
        data: Range<usize>,
    },
    /// A file was given a length.
    Truncate {
        /// Which.
        fd: i32,
        /// Its length.
        bytes: u64,
    },
    /// A file or folder was synced.
    Sync {
        /// Which.
        fd: i32,
    },
    /// A name was changed.
    Rename {
        /// From this.
        from: String,
        /// To this.
        to: String,
    },
    /// A name was removed.
    Unlink {
        /// Which.
        path: String,
    },
    /// A folder was made.
    Mkdir {
        /// Which.
        path: String,
    },
}

/// All calls of one process, and the data that they point to.
#[derive(Debug, Default)]
pub struct Trace {
    /// The file as it was read.
    pub bytes: Vec<u8>,
    /// In the order in which they happened.
    pub calls: Vec<Call>,
}

impl Trace {
    /// Reads a trace. `root` is the folder that was recorded. A record cut off by the end of its process is left out.
    pub fn read(file: &Path, root: &Path) -> Trace {
        let bytes = std::fs::read(file).expect("the recorder wrote a trace");
        let mut calls = Vec::new();
        let mut at = 0;
        while let Some((call, end)) = record(&bytes, at, root) {
            calls.push(call);
            at = end;
        }
        Trace { bytes, calls }
    }
}

/// Bytes of a record's fixed part: what, descriptor, offset, three lengths.
const HEAD_BYTES: usize = 1 + 4 + 8 + 4 + 4 + 8;

fn record(bytes: &[u8], at: usize, root: &Path) -> Option<(Call, usize)> {
    let head = bytes.get(at..at + HEAD_BYTES)?;
    let number = |from: usize, length: usize| {
        head[from..from + length].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (fd, offset) = (number(1, 4) as u32 as i32, number(5, 8));
    let (path_bytes, other_bytes, data_bytes) =
        (number(13, 4) as usize, number(17, 4) as usize, number(21, 8) as usize);
    let path_at = at + HEAD_BYTES;
    let data = path_at + path_bytes + other_bytes..path_at + path_bytes + other_bytes + data_bytes;
    let text = |range: Range<usize>| {
        let full = String::from_utf8_lossy(bytes.get(range)?).into_owned();
        Some(Path::new(&full).strip_prefix(root).map_or(full.clone(), |below| below.display().to_string()))
    };
    let (path, other) = (text(path_at..path_at + path_bytes)?, text(path_at + path_bytes..data.start)?);
    bytes.get(data.clone())?;
    let call = match head[0] {
        b'O' => Call::Open { fd, path, created: offset & 1 != 0, truncated: offset & 2 != 0 },
        b'C' => Call::Close { fd },
        b'W' => Call::Write { fd, offset, data: data.clone() },
        b'T' => Call::Truncate { fd, bytes: offset },
        b'S' => Call::Sync { fd },
        b'R' => Call::Rename { from: path, to: other },
        b'U' => Call::Unlink { path },
        b'M' => Call::Mkdir { path },
        _ => panic!("the recorded process called {path}, which tests/src/crash/recorder.c does not follow yet"),
    };
    Some((call, data.end))
}
