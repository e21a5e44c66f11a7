//! Freeing the slot of a host that is gone for good: an operator's word, by `petrel-agent storage-free`. The agent itself never
//! does it. The host is named beside the slot, and its record must stand still: what is freed is what was meant, and not alive.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::area::{Area, AreaError};
use super::record::{Record, Slot};

/// Intervals of the record for which it must stand still, as for a reader that takes a host for alive.
const STEADY_INTERVALS: u32 = 3;
/// The longest interval that an agent may have; a record that says more is not waited for longer.
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Why a slot was not freed.
#[derive(Debug, thiserror::Error)]
pub enum FreeSlotError {
    /// The area cannot be opened.
    #[error(transparent)]
    Area(#[from] AreaError),
    /// It cannot be read or written.
    #[error("{} cannot be read or written", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// Nothing is there.
    #[error("slot {0} is free already")]
    Free(u16),
    /// No whole record is there.
    #[error("slot {0} cannot be read; the agent whose config names it takes it by itself after a minute")]
    Unreadable(u16),
    /// Another host's.
    #[error(
        "slot {slot} holds the record of host {host}; nothing was changed, name that host if it is the one that is gone"
    )]
    Other {
        /// The slot.
        slot: u16,
        /// Whose it is.
        host: String,
    },
    /// The host writes there.
    #[error("host {host} writes into slot {slot}; nothing was changed, stop its agent first")]
    Alive {
        /// The slot.
        slot: u16,
        /// Who lives.
        host: String,
    },
}

/// Frees the slot of a host, after its record stood still for a time that goes by in `pause`.
///
/// # Errors
/// The slot holds something else, the record changed, or the storage failed. Then nothing was changed.
pub fn free(path: &Path, slot: u16, host: &str, pause: impl FnOnce(Duration)) -> Result<(), FreeSlotError> {
    let failed = |source| FreeSlotError::Io { path: path.to_owned(), source };
    let mut area = Area::open(path)?;
    let record = held(&mut area, slot).map_err(failed)?;
    let record = match record {
        Slot::Free => return Err(FreeSlotError::Free(slot)),
        Slot::Unreadable => return Err(FreeSlotError::Unreadable(slot)),
        Slot::Record(record) if record.host != host => return Err(FreeSlotError::Other { slot, host: record.host }),
        Slot::Record(record) => record,
    };
    pause(steady(&record));
    if held(&mut area, slot).map_err(failed)? != Slot::Record(record) {
        return Err(FreeSlotError::Alive { slot, host: host.to_owned() });
    }
    area.clear(slot).map_err(failed)
}

fn steady(record: &Record) -> Duration {
    Duration::from_millis(u64::from(record.interval_ms)).min(INTERVAL_MAX) * STEADY_INTERVALS
}

fn held(area: &mut Area, slot: u16) -> io::Result<Slot> {
    let slots = area.read()?;
    Ok(slots.into_iter().find(|(number, _)| *number == slot).map_or(Slot::Free, |(_, held)| held))
}

#[cfg(test)]
mod tests {
    use super::super::area::format;
    use super::super::area::tests::{disk, header, record};
    use super::*;

    #[test]
    fn the_slot_of_the_named_host_is_freed_after_it_stood_still() {
        let dir = disk();
        let path = dir.path().join("beats");
        format(&path, &header(3), false).unwrap();
        let mut area = Area::open(&path).unwrap();
        area.write(2, &record("old", 1, 7)).unwrap();
        let tried = |slot, host: &str| match free(&path, slot, host, |pause| assert_eq!(pause.as_secs(), 15)) {
            Ok(()) => "freed".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(tried(1, "old"), "slot 1 is free already");
        assert!(tried(2, "other").starts_with("slot 2 holds the record of host old; nothing was changed"));
        let lives = free(&path, 2, "old", |_| area.write(2, &record("old", 1, 8)).unwrap()).unwrap_err();
        assert!(lives.to_string().starts_with("host old writes into slot 2"), "{lives}");
        assert_eq!(area.read().unwrap(), [(2, Slot::Record(record("old", 1, 8)))]);
        assert_eq!((tried(2, "old").as_str(), area.read().unwrap()), ("freed", vec![]));
    }
}
