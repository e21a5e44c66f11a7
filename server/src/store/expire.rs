//! What is no longer needed: journals whose samples are all sealed, and days that the retention ended. Never unlinks a journal
//! that memory needs, nor one before an older one.

use std::sync::{Arc, PoisonError};

use super::engine::{Store, retire};
use super::head::{DAY_MS, Day};
use super::index::Series;
use super::journal::{self, Position};
use super::maintain::MaintainError;
use crate::series::Timestamp;

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

    /// Unlinks the oldest day that lies before the retention, and forgets series that have nothing left; says whether there was one.
    pub(super) fn expire_day(&self, now: Timestamp) -> Result<bool, MaintainError> {
        let Some(retention) = self.shared.options.retention else { return Ok(false) };
        let first = now - i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        let over = |day: &Day| (i64::from(*day) + 1) * DAY_MS <= first;
        let Some(day) = self.shared.days.all().iter().map(|file| file.day).filter(over).min() else { return Ok(false) };
        self.shared.days.unlink(day)?;
        let _gate = self.shared.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let mut index = self.shared.index.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<Arc<Series>> = index
            .iter()
            .filter(|series| {
                let mut head = series.head();
                head.remove_day(day);
                head.is_empty() && head.days().is_empty()
            })
            .cloned()
            .collect();
        for series in &gone {
            index.remove(series);
        }
        Ok(true)
    }
}
