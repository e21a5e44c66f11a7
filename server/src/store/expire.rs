//! What is no longer needed: journals whose samples are all sealed, days that the retention ended by age or by size, and series
//! that have nothing left. Never unlinks a journal
//! that memory needs, nor one before an older one.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tracing::info;

use super::engine::{Store, retire};
use super::head::{DAY_MS, Day, day_of};
use super::index::Series;
use super::journal::{self, Position};
use super::maintain::MaintainError;
use super::sqlite;
use crate::series::Timestamp;
use crate::telemetry;

impl Store {
    /// Unlinks the oldest journals as long as nothing in memory needs them. Strictly in order: a later file's samples may
    /// override an earlier one's, and a replay of the earlier alone would bring back what was overridden.
    pub(super) fn retire_journals(&self) -> Result<(), MaintainError> {
        let active = self.shared.active_journal();
        let journals = journal::list(&self.shared.dir)?;
        if journals.iter().all(|(number, _)| *number >= active) {
            return Ok(());
        }
        let needed = {
            let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
            index.iter().filter_map(|series| series.head().oldest_position()).min().unwrap_or(Position::MAX)
        };
        for (number, path) in journals {
            if number >= active || journal::file_of(needed) <= number {
                break;
            }
            retire(&self.shared, number, &path)?;
        }
        Ok(())
    }

    /// Unlinks the oldest day that lies before the retention; says whether there was one.
    pub(super) fn expire_day(&self, now: Timestamp) -> Result<bool, MaintainError> {
        let Some(retention) = self.shared.options.retention else { return Ok(false) };
        let first = now - i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let over = |day: &Day| (i64::from(*day) + 1) * DAY_MS <= first;
        let Some(day) = self.shared.days.all().iter().map(|file| file.day).filter(over).min() else { return Ok(false) };
        self.unlink_day(day, Expiry::Age)
    }

    /// Unlinks the oldest day while the directory is larger than it may be; says whether it did. Never today's nor the newest,
    /// so that a clock set wrongly cannot take what is being written.
    pub(super) fn shrink_to_size(&self, now: Timestamp) -> Result<bool, MaintainError> {
        let Some(size_max) = self.shared.options.size_bytes_max else { return Ok(false) };
        let bytes = self.shared.disk_bytes();
        let days = self.shared.days.all();
        let (Some(oldest), Some(newest)) = (days.first(), days.last()) else { return Ok(false) };
        if bytes <= size_max || oldest.day >= day_of(now).min(newest.day) {
            return Ok(false);
        }
        self.unlink_day(oldest.day, Expiry::Size { bytes, size_max })
    }

    fn unlink_day(&self, day: Day, expiry: Expiry) -> Result<bool, MaintainError> {
        let Some(file) = self.shared.days.get(day) else { return Ok(false) };
        let freed = sqlite::bytes(&file.path);
        self.shared.days.unlink(day)?;
        self.shared.unlinked_before.fetch_max((i64::from(day) + 1) * DAY_MS, Ordering::SeqCst);
        expiry.tell(&file.path, freed);
        let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
        for series in index.iter() {
            series.head().remove_day(day);
        }
        Ok(true)
    }

    /// Forgets series that have no sample left, except those that a journal still declares: a replay must not meet their labels
    /// under two numbers. Says whether none is left.
    pub(super) fn forget_series(&self) -> Result<bool, MaintainError> {
        let sealed = self.shared.journal_sealed.load(Ordering::SeqCst);
        let mut journals = journal::list(&self.shared.dir)?.into_iter().map(|(number, _)| number);
        let oldest = journals.find(|number| *number > sealed).unwrap_or(u64::MAX);
        let _gate = self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
        let (gone, kept): (Vec<Arc<Series>>, Vec<Arc<Series>>) =
            index.iter().filter(|series| series.is_bare()).cloned().partition(|series| series.declared_in() < oldest);
        index.remove(&gone);
        Ok(kept.is_empty())
    }
}

/// Why a file is unlinked.
#[derive(Debug, Clone, Copy)]
enum Expiry {
    /// It is older than the retention.
    Age,
    /// The directory is too large.
    Size { bytes: u64, size_max: u64 },
}

impl Expiry {
    fn tell(self, path: &Path, freed: u64) {
        let file = path.display();
        match self {
            Expiry::Age => {
                telemetry::STORE_FILES_UNLINKED.with_label_values(&["age"]).inc();
                info!(%file, freed, "unlinked a file that is older than the retention");
            }
            Expiry::Size { bytes, size_max } => {
                telemetry::STORE_FILES_UNLINKED.with_label_values(&["size"]).inc();
                info!(%file, freed, bytes, size_max, "unlinked the oldest file because the data directory is above store.size_max");
            }
        }
    }
}
