//! Rollups: what is left of samples when the raw ones are gone. Rows of five minutes and of an hour, with least, greatest, sum,
//! count, first, last and increase, in files of their own with a retention of their own. Built from a day's raw samples before
//! that day may be unlinked (`build`), read only where it was (`read`), shown to queries as samples that give the function at
//! hand the best answer (`view`). Never a second source of truth: while the raw samples are there, a rollup is made anew from them.

mod build;
mod codec;
mod file;
mod read;
mod row;
mod view;

pub use build::Rolling;
pub use file::{RollupFile, Rollups};
pub use read::Rolled;
#[cfg(test)]
pub use {
    codec::{decode, encode},
    row::{Row, from_samples},
};

use std::time::Duration;

use chrono::{DateTime, Datelike as _, NaiveDate};

use super::head::{DAY_MS, Day};

/// How much time a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Five minutes; a file a day.
    FiveMinutes,
    /// An hour; a file a month.
    Hour,
}

/// All levels, finest first: the order in which queries choose.
pub const LEVELS: [Level; 2] = [Level::FiveMinutes, Level::Hour];

impl Level {
    /// Milliseconds of a row.
    pub fn step_ms(self) -> i64 {
        match self {
            Level::FiveMinutes => 300_000,
            Level::Hour => 3_600_000,
        }
    }

    /// How long rows are kept unless something else is set: 60 days, and 13 months of 31 days.
    pub fn kept_default(self) -> Duration {
        let days = match self {
            Level::FiveMinutes => 60,
            Level::Hour => 403,
        };
        Duration::from_secs(days * 86_400)
    }

    /// As it stands in names of files and in notes.
    pub fn word(self) -> &'static str {
        match self {
            Level::FiveMinutes => "5m",
            Level::Hour => "1h",
        }
    }

    /// First day of the file that holds a day.
    pub fn file_of(self, day: Day) -> Day {
        match self {
            Level::FiveMinutes => day,
            Level::Hour => day - date(day).map_or(0, |date| date.day0() as Day),
        }
    }

    /// The day after the last of the file that begins with a day.
    pub fn file_end(self, first: Day) -> Day {
        match self {
            Level::FiveMinutes => first + 1,
            // 31 days on is the next month, wherever this one ends.
            Level::Hour => self.file_of(first + 31),
        }
    }
}

fn date(day: Day) -> Option<NaiveDate> {
    DateTime::from_timestamp_millis(i64::from(day) * DAY_MS).map(|time| time.date_naive())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_lie_in_months() {
        let day = |text: &str| {
            let date: NaiveDate = text.parse().unwrap();
            Day::try_from(date.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp() / 86_400).unwrap()
        };
        for (within, first, end) in [
            ("2026-11-22", "2026-11-01", "2026-12-01"),
            ("2026-12-31", "2026-12-01", "2027-01-01"),
            ("2028-02-29", "2028-02-01", "2028-03-01"),
        ] {
            assert_eq!(Level::Hour.file_of(day(within)), day(first));
            assert_eq!(Level::Hour.file_end(day(first)), day(end));
        }
        assert_eq!((Level::FiveMinutes.file_of(7), Level::FiveMinutes.file_end(7)), (7, 8));
    }
}
