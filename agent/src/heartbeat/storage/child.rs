//! The process that touches shared storage: asked by lines on its input, it reads the slots or writes one, and answers by lines on its
//! output. It decides nothing. It may hang in the kernel for as long as the storage does, where no signal ends it; who asked
//! judges it from outside, and never waits for it.

use std::fs::File;
use std::io::{self, BufRead, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::area::Area;
use super::record::{Record, Slot};
use crate::error_chain::chain;

/// What the child is asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// All slots that are not free.
    Read,
    /// Write a record.
    Write {
        /// Into which slot.
        slot: u16,
        /// What.
        record: Record,
    },
}

/// What it answers.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// The first answer, before anything was asked: the area is open.
    Opened {
        /// Slots of the area.
        hosts_max: u16,
    },
    /// All slots that are not free.
    Slots(Vec<(u16, Slot)>),
    /// The storage has the record.
    Written,
    /// It did not go; the child ends.
    Failed(String),
}

/// Why the child ended.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// Its pipes.
    #[error("who asked is gone")]
    Pipe(#[from] io::Error),
    /// Another child holds the lock.
    #[error("{0}")]
    Failed(String),
}

/// Serves until its input ends. `lock` is a file on a local disk that is held for as long as this process lives, so that one
/// that hangs keeps the next agent from sending another after it.
///
/// # Errors
/// The area cannot be used or the pipes broke. What failed was told already.
pub fn serve(path: &Path, lock: &Path, input: impl BufRead, mut output: impl Write) -> Result<(), ChildError> {
    let opened = take(lock).and_then(|held| Area::open(path).map(|area| (held, area)).map_err(|error| chain(&error)));
    let (_held, mut area) = match opened {
        Ok(opened) => opened,
        Err(problem) => return fail(&mut output, problem),
    };
    tell(&mut output, &Told::Opened { hosts_max: area.hosts_max() })?;
    for line in input.lines() {
        let done = match serde_json::from_str(&line?) {
            Ok(Ask::Read) => area.read().map(Told::Slots),
            Ok(Ask::Write { slot, record }) => area.write(slot, &record).map(|()| Told::Written),
            Err(error) => Err(error.into()),
        };
        match done {
            Ok(told) => tell(&mut output, &told)?,
            // A path that failed may be another one by now: the next child opens it afresh.
            Err(error) => return fail(&mut output, format!("{}: {error}", path.display())),
        }
    }
    Ok(())
}

fn take(lock: &Path) -> Result<File, String> {
    let file = File::options().create(true).truncate(false).write(true).open(lock);
    let file = file.map_err(|error| format!("{} cannot be opened: {error}", lock.display()))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(_) => {
            Err("an earlier process still hangs on this storage, or another agent uses the same state_dir".to_owned())
        }
    }
}

fn tell(output: &mut impl Write, told: &Told) -> io::Result<()> {
    let mut line = serde_json::to_vec(told)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

fn fail(output: &mut impl Write, problem: String) -> Result<(), ChildError> {
    tell(output, &Told::Failed(problem.clone()))?;
    Err(ChildError::Failed(problem))
}

#[cfg(test)]
mod tests {
    use super::super::area::format;
    use super::super::area::tests::{disk, header, record};
    use super::*;

    fn talk(path: &Path, lock: &Path, asks: &[Ask]) -> Vec<Told> {
        let lines: Vec<String> = asks.iter().map(|ask| serde_json::to_string(ask).unwrap() + "\n").collect();
        let mut output = Vec::new();
        let _ = serve(path, lock, lines.concat().as_bytes(), &mut output);
        output
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    #[test]
    fn it_reads_and_writes_what_it_is_asked_and_ends_at_the_first_fault() {
        let dir = disk();
        let (path, lock) = (dir.path().join("beats"), dir.path().join("lock"));
        assert!(matches!(&talk(&path, &lock, &[])[..], [Told::Failed(why)] if why.contains("storage-format")));
        format(&path, &header(3), false).unwrap();
        let record = record("a", 1, 1);
        let asks = [
            Ask::Write { slot: 2, record: record.clone() },
            Ask::Read,
            Ask::Write { slot: 4, record: record.clone() },
            Ask::Read,
        ];
        let told = talk(&path, &lock, &asks);
        assert_eq!(
            told[..3],
            [Told::Opened { hosts_max: 3 }, Told::Written, Told::Slots(vec![(2, Slot::Record(record))])]
        );
        assert!(matches!(&told[3..], [Told::Failed(why)] if why.contains("there is no such slot")));
    }

    #[test]
    fn one_at_a_time() {
        let dir = disk();
        let (path, lock) = (dir.path().join("beats"), dir.path().join("lock"));
        format(&path, &header(3), false).unwrap();
        let held = take(&lock).unwrap();
        assert!(matches!(&talk(&path, &lock, &[])[..], [Told::Failed(why)] if why.contains("still hangs")));
        drop(held);
        assert_eq!(talk(&path, &lock, &[]), [Told::Opened { hosts_max: 3 }]);
    }
}
