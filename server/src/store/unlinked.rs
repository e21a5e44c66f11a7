//! Days whose raw samples the retention took. Two things must hold for them, whenever the process ends: a replay of journals that are
//! still there brings nothing of them back, and a day that only rollups have takes no more samples, which nothing could roll into them.
//!
//! The order is: the day takes no more samples; what memory has of it is sealed; its rollups are built; `control.db` notes the day and
//! how far the journals are in it; its file goes; its rollups are closed; the note is done; its series forget it. From the note on
//! there is no way back: where a step fails the day stays closed, each pass of maintenance tries again, and so does a start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use rusqlite::{Transaction, params};

use super::control::{Control, ControlError, Migration};
use super::days::DayError;
use super::head::{DAY_MS, Day};
use super::journal::{self, Position};
use super::shared::Shared;

/// Days that were unlinked, as long as a journal may have samples of them.
pub const MIGRATION: Migration = (
    "store-unlinked-day-1",
    "CREATE TABLE unlinked_day (day INTEGER PRIMARY KEY, through INTEGER NOT NULL, done INTEGER NOT NULL) STRICT;",
);

/// Why a day could not be unlinked. It is tried again by the next pass, or by the next start.
#[derive(Debug, thiserror::Error)]
pub enum UnlinkDayError {
    /// Its rollups.
    #[error(transparent)]
    Day(#[from] DayError),
    /// The control database.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The file system refuses.
    #[error("samples of day {day} cannot be unlinked; check the data directory's owner")]
    Unlink {
        /// Days since 1970-01-01.
        day: Day,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
}

/// Notes that a day's file goes now. All its samples of positions up to `through` are in the file.
pub fn begin(control: &Control, day: Day, through: Position) -> Result<(), ControlError> {
    control.write(|tx| {
        tx.execute(
            "INSERT OR REPLACE INTO unlinked_day (day, through, done) VALUES (?1, ?2, 0)",
            params![day, through as i64],
        )
    })?;
    Ok(())
}

/// Unlinks the file of a day that [`begin`] noted. Doing it twice changes nothing.
pub fn finish(shared: &Shared, day: Day) -> Result<(), UnlinkDayError> {
    shared.days.unlink(day).map_err(|source| UnlinkDayError::Unlink { day, source })?;
    shared.rollups.close_day(day)?;
    shared.control.write(|tx| tx.execute("UPDATE unlinked_day SET done = 1 WHERE day = ?1", [day]))?;
    shared.unlinked_before.fetch_max((i64::from(day) + 1) * DAY_MS, Ordering::SeqCst);
    let index = shared.index.read().unwrap_or_else(PoisonError::into_inner);
    for series in index.iter() {
        series.head().remove_day(day);
    }
    Ok(())
}

/// At the start, before anything is read: ends what was begun, and knows again which days are gone.
pub fn resume(shared: &Shared) -> Result<(), UnlinkDayError> {
    let begun: Vec<Day> = shared.control.read(|connection| {
        let mut statement = connection.prepare("SELECT day FROM unlinked_day WHERE done = 0")?;
        let days = statement.query_map([], |row| row.get(0))?;
        days.collect()
    })?;
    for day in begun {
        finish(shared, day)?;
    }
    let unlinked = replayed_through(&shared.control)?.into_keys().chain(shared.rollups.closed_days());
    if let Some(newest) = unlinked.max() {
        shared.unlinked_before.fetch_max((i64::from(newest) + 1) * DAY_MS, Ordering::SeqCst);
    }
    shared.close_days([]);
    Ok(())
}

/// Positions up to which the samples of days that are gone must not be replayed.
pub fn replayed_through(control: &Control) -> Result<BTreeMap<Day, Position>, ControlError> {
    control.read(|connection| {
        let mut statement = connection.prepare("SELECT day, through FROM unlinked_day")?;
        let days = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as Position)))?;
        days.collect()
    })
}

/// Forgets days of which only journals up to a number have samples; those journals are not replayed any more.
pub fn forget(tx: &Transaction<'_>, number: u64) -> rusqlite::Result<usize> {
    let end = journal::first_position(number + 1);
    tx.execute("DELETE FROM unlinked_day WHERE done = 1 AND through < ?1", [end as i64])
}

impl Shared {
    /// Lets the days that only rollups have take no samples, nor those that are being unlinked. A batch that was let in before is
    /// applied once the gate was free.
    pub fn close_days(&self, closing: impl IntoIterator<Item = Day>) {
        let days: BTreeSet<Day> = self.rollups.closed_days().into_iter().chain(closing).collect();
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = days.into();
    }
}
