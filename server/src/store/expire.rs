//! What is no longer needed: journals whose samples are all sealed, days that the retention ended by age or by size, and series
//! that have nothing left. Never unlinks a journal
//! that memory needs, nor one before an older one.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tracing::info;

use super::days::{DayFile, OnDamage};
use super::engine::{Store, retire};
use super::head::{DAY_MS, Day, day_of};
use super::index::Series;
use super::journal::{self, Position};
use super::maintain::{MaintainError, Maintenance};
use super::rollup::RollupFile;
use super::{sqlite, unlinked};
use crate::query::source::TimeRange;
use crate::series::Timestamp;
use crate::telemetry;

/// Series sealed together before a day goes: bounds the copies in memory as sealing does.
const SLICE_SERIES: usize = 2_000;

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

    /// Unlinks the oldest day that lies before the retention, or else the oldest rollups before theirs; says whether it did.
    pub(super) fn expire_one(&self, maintenance: &mut Maintenance, now: Timestamp) -> Result<bool, MaintainError> {
        let is_over = |end: Day, kept: Option<Duration>| {
            let kept = kept.and_then(|kept| i64::try_from(kept.as_millis()).ok());
            kept.is_some_and(|kept| i64::from(end) * DAY_MS <= now - kept)
        };
        let options = &self.shared.options;
        let oldest = self.staying(maintenance).into_iter().next();
        if let Some(file) = oldest.filter(|file| is_over(file.day + 1, options.retention)) {
            return self.unlink_day(maintenance, &file, Expiry::Age);
        }
        let days = self.shared.days.all();
        let is_old = |file: &Arc<RollupFile>| {
            // Where a level was switched off, what is left of it stays as long as it would by the defaults.
            let kept = options.rollup(file.level).unwrap_or(file.level.kept_default());
            is_over(file.level.file_end(file.first), Some(kept)) && !has_raw(&days, file)
        };
        match self.shared.rollups.all().into_iter().find(is_old) {
            Some(file) => self.unlink_rollup(maintenance, &file, Expiry::Age),
            None => Ok(false),
        }
    }

    /// Unlinks the oldest day while the directory is larger than it may be, or else the oldest rollups; says whether it did.
    /// Never today's day nor the newest, so that a clock set wrongly cannot take what is being written.
    pub(super) fn shrink_to_size(&self, maintenance: &mut Maintenance, now: Timestamp) -> Result<bool, MaintainError> {
        let Some(size_max) = self.shared.options.size_bytes_max else { return Ok(false) };
        let bytes = self.shared.disk_bytes();
        if bytes <= size_max {
            return Ok(false);
        }
        let days = self.staying(maintenance);
        let newest = days.last().map_or(Day::MAX, |file| file.day).min(day_of(now));
        if let Some(oldest) = days.first().filter(|oldest| oldest.day < newest) {
            return self.unlink_day(maintenance, oldest, Expiry::Size { bytes, size_max });
        }
        match self.shared.rollups.all().into_iter().find(|file| !has_raw(&days, file)) {
            Some(file) => self.unlink_rollup(maintenance, &file, Expiry::Size { bytes, size_max }),
            None => Ok(false),
        }
    }

    /// All days but those that are leaving, oldest first: one that cannot be unlinked does not keep the others.
    fn staying(&self, maintenance: &Maintenance) -> Vec<Arc<DayFile>> {
        let mut days = self.shared.days.all();
        days.retain(|file| !maintenance.leaving.contains_key(&file.day));
        days
    }

    /// Unlinks a day once its rollups are built, which may take some passes; from the first on it takes no samples.
    fn unlink_day(&self, maintenance: &mut Maintenance, file: &DayFile, expiry: Expiry) -> Result<bool, MaintainError> {
        maintenance.closing = Some(file.day);
        self.shared.close_days(maintenance.closed());
        let through = self.seal_day(file.day)?;
        if !self.is_rolled_at_last(maintenance, file)? {
            return Ok(false);
        }
        maintenance.closing = None;
        let leaving = Leaving { path: file.path.clone(), through, freed: sqlite::bytes(&file.path), expiry };
        maintenance.leaving.insert(file.day, leaving);
        maintenance.goes(expiry);
        self.finish_day(maintenance, file.day)?;
        Ok(true)
    }

    /// Builds the rollups of a day that goes, of what is whole in it: damage must not keep the disk full for ever.
    fn is_rolled_at_last(&self, maintenance: &mut Maintenance, file: &DayFile) -> Result<bool, MaintainError> {
        let rolled = match self.is_rolled(file) {
            Ok(true) => Ok(true),
            Ok(false) => self.roll(&mut maintenance.rolling, file.day, OnDamage::Skip),
            Err(error) => Err(error.into()),
        };
        match rolled {
            Err(MaintainError::Day(error)) if error.is_damage_of(&file.path) => {
                file.skip_damage("rollup", &error);
                Ok(true)
            }
            rolled => rolled,
        }
    }

    /// Tries again to end the unlinking of days where it failed.
    pub(super) fn finish_leaving(&self, maintenance: &mut Maintenance, problems: &mut Vec<MaintainError>) {
        let days: Vec<Day> = maintenance.leaving.keys().copied().collect();
        for day in days {
            problems.extend(self.finish_day(maintenance, day).err());
        }
    }

    /// Ends the unlinking of a day, however far it came before.
    fn finish_day(&self, maintenance: &mut Maintenance, day: Day) -> Result<(), MaintainError> {
        let Some(leaving) = maintenance.leaving.get(&day) else { return Ok(()) };
        unlinked::begin(&self.shared.control, day, leaving.through)?;
        unlinked::finish(&self.shared, day)?;
        leaving.expiry.tell(&leaving.path, leaving.freed);
        maintenance.leaving.remove(&day);
        maintenance.forget_due = true;
        self.shared.close_days(maintenance.closed());
        Ok(())
    }

    /// Seals what memory holds of a day that takes no more samples; returns the position up to which the file has all of them.
    fn seal_day(&self, day: Day) -> Result<Position, MaintainError> {
        // Whoever was let in before the day was closed has been applied when the gate is free.
        let gate = self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let through = self.shared.applied();
        drop(gate);
        let range = TimeRange { from: i64::from(day) * DAY_MS, to: (i64::from(day) + 1) * DAY_MS - 1 };
        let members: Vec<Arc<Series>> = {
            let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
            index.iter().filter(|series| series.head().holds(range)).cloned().collect()
        };
        let mut problems = Vec::new();
        for slice in members.chunks(SLICE_SERIES) {
            self.seal_all(slice, &mut problems);
        }
        self.shared.days.close_writers();
        problems.pop().map_or(Ok(through), Err)
    }

    fn unlink_rollup(
        &self,
        maintenance: &mut Maintenance,
        file: &RollupFile,
        expiry: Expiry,
    ) -> Result<bool, MaintainError> {
        // What is half built may have gone with the file.
        maintenance.rolling = None;
        let freed = sqlite::bytes(&file.path);
        self.shared.rollups.unlink(file)?;
        self.shared.close_days(maintenance.closed());
        maintenance.goes(expiry);
        expiry.tell(&file.path, freed);
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

/// Whether a file has rollups of a day that has raw samples: they would only be built again.
fn has_raw(days: &[Arc<DayFile>], file: &RollupFile) -> bool {
    days.iter().any(|raw| file.level.file_of(raw.day) == file.first)
}

/// A day whose unlinking was begun and not ended.
#[derive(Debug)]
pub struct Leaving {
    path: PathBuf,
    /// How far the journals are in it.
    through: Position,
    /// Bytes of its file.
    freed: u64,
    expiry: Expiry,
}

/// Why a file is unlinked.
#[derive(Debug, Clone, Copy)]
pub enum Expiry {
    /// It is older than the retention.
    Age,
    /// The directory is too large.
    Size {
        /// Its bytes.
        bytes: u64,
        /// `store.size_max`.
        size_max: u64,
    },
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
