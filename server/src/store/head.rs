//! The head of a series: its samples that no sealed chunk has yet. One writer inserts, sealing takes, queries copy, all under
//! the series' own lock and never for longer than a copy of a few hundred samples.

use super::column::Column;
use crate::query::source::TimeRange;
use crate::series::{Sample, Timestamp};

/// A day since 1970-01-01 UTC: what one samples file holds.
pub type Day = i32;

/// Milliseconds in a day.
pub const DAY_MS: i64 = 86_400_000;

/// The day that an instant belongs to; instants beyond the calendar, as ends of ranges, are in the first or last day.
pub fn day_of(t: Timestamp) -> Day {
    t.div_euclid(DAY_MS).clamp(i64::from(Day::MIN), i64::from(Day::MAX)) as Day
}

/// Samples in memory and where the others are.
#[derive(Debug, Default)]
pub struct Head {
    /// Since the last sealing.
    recent: Column,
    /// Taken by sealing and not yet known to be on disk; `recent` overrides it. Few heads are being sealed at a time.
    sealing: Option<Box<Sealing>>,
    /// Journal positions of the oldest and the newest sample of `recent`.
    recent_from: u64,
    recent_through: u64,
    /// Days whose files have chunks of the series, sorted.
    days: Vec<Day>,
    /// The sample with the latest time since the start of the process.
    newest: Newest,
}

/// The latest time of a series, and whether it ended there: without the value, because every series has one.
#[derive(Debug, Clone, Copy, Default)]
enum Newest {
    #[default]
    None,
    Alive(Timestamp),
    Ended(Timestamp),
}

impl Newest {
    fn of(sample: Sample) -> Newest {
        if sample.is_stale() { Newest::Ended(sample.t) } else { Newest::Alive(sample.t) }
    }

    fn time(self) -> Option<Timestamp> {
        match self {
            Newest::None => None,
            Newest::Alive(t) | Newest::Ended(t) => Some(t),
        }
    }
}

/// What sealing has taken and not yet confirmed; never empty.
#[derive(Debug)]
struct Sealing {
    samples: Column,
    /// Journal position of the oldest of them.
    from: u64,
}

/// What sealing took from a head.
#[derive(Debug)]
pub struct Taken {
    /// Sorted by time, unique in time.
    pub samples: Vec<Sample>,
    /// All samples of the series up to this journal position are in `samples` or were sealed before.
    pub through: u64,
}

impl Head {
    /// Adds a sample that the journal has at `position`. Of two at the same time the later call wins.
    pub fn insert(&mut self, sample: Sample, position: u64) {
        if self.recent.is_empty() {
            self.recent_from = position;
        }
        self.recent_through = position;
        if self.newest.time().is_none_or(|newest| newest <= sample.t) {
            self.newest = Newest::of(sample);
        }
        self.recent.insert(sample);
    }

    /// Samples that no sealing has taken.
    pub fn len(&self) -> usize {
        self.recent.len()
    }

    /// First and last instant of the samples in memory.
    pub fn span(&self) -> Option<TimeRange> {
        let spans = [self.recent.span(), self.sealing.as_ref().and_then(|sealing| sealing.samples.span())];
        let join = |a: TimeRange, b: TimeRange| TimeRange { from: a.from.min(b.from), to: a.to.max(b.to) };
        spans.into_iter().flatten().reduce(join)
    }

    /// Whether nothing is in memory.
    pub fn is_empty(&self) -> bool {
        self.recent.is_empty() && self.sealing.is_none()
    }

    /// Journal position of the oldest sample that is only in memory and in the journal.
    pub fn oldest_position(&self) -> Option<u64> {
        let sealing = self.sealing.as_ref().map(|sealing| sealing.from);
        let recent = (!self.recent.is_empty()).then_some(self.recent_from);
        sealing.into_iter().chain(recent).min()
    }

    /// Takes all of `recent` for sealing; it stays visible until [`Head::sealed`] or [`Head::not_sealed`]. `None` where there
    /// is nothing, and where a record after `applied` has begun to come in: a replay would skip what of it comes after.
    pub fn take(&mut self, applied: u64) -> Option<Taken> {
        debug_assert!(self.sealing.is_none(), "one sealing at a time");
        if self.recent.is_empty() || self.sealing.is_some() || self.recent_through > applied {
            return None;
        }
        let sealing = Sealing { samples: std::mem::take(&mut self.recent), from: self.recent_from };
        let samples = sealing.samples.to_vec();
        self.sealing = Some(Box::new(sealing));
        Some(Taken { samples, through: self.recent_through })
    }

    /// What was taken is on disk, in the files of `days`.
    pub fn sealed(&mut self, days: impl IntoIterator<Item = Day>) {
        for day in days {
            self.add_day(day);
        }
        self.sealing = None;
    }

    /// What was taken is not, or not all, on disk: it goes back under what came since.
    pub fn not_sealed(&mut self) {
        let Some(sealing) = self.sealing.take() else { return };
        let Sealing { samples, from } = *sealing;
        let recent = std::mem::replace(&mut self.recent, samples);
        let through = self.recent_through;
        for sample in recent.to_vec() {
            self.insert(sample, through);
        }
        (self.recent_from, self.recent_through) = (from, through);
    }

    /// Notes that a day's file has chunks of the series.
    pub fn add_day(&mut self, day: Day) {
        if let Err(at) = self.days.binary_search(&day) {
            self.days.insert(at, day);
        }
    }

    /// Notes that a day's file is gone.
    pub fn remove_day(&mut self, day: Day) {
        self.days.retain(|kept| *kept != day);
    }

    /// Days whose files have chunks.
    pub fn days(&self) -> &[Day] {
        &self.days
    }

    /// Whether memory has, or may have, a sample of the range.
    pub fn holds(&self, range: TimeRange) -> bool {
        let overlaps =
            |column: &Column| column.span().is_some_and(|span| span.from <= range.to && span.to >= range.from);
        overlaps(&self.recent) || self.sealing.as_ref().is_some_and(|sealing| overlaps(&sealing.samples))
    }

    /// Whether there is, or may be, a sample in the range.
    pub fn may_have(&self, range: TimeRange) -> bool {
        let (from, to) = (day_of(range.from), day_of(range.to));
        self.holds(range) || self.days.iter().any(|day| (from..=to).contains(day))
    }

    /// Whether the series had a sample at or after an instant and was not ended since. After a start, a series that is only on
    /// disk counts where its days reach that far.
    pub fn is_alive_since(&self, from: Timestamp) -> bool {
        match self.newest {
            Newest::Alive(newest) => newest >= from,
            Newest::Ended(_) => false,
            Newest::None => self.days.last().is_some_and(|day| *day >= day_of(from)),
        }
    }

    /// The samples of the range that are in memory, in two layers: the second overrides the first.
    pub fn copy(&self, range: TimeRange) -> [Vec<Sample>; 2] {
        let sealing = self.sealing.as_ref().map_or_else(Vec::new, |sealing| sealing.samples.within(range));
        [sealing, self.recent.within(range)]
    }
}

/// Merges two sorted lists; at equal times `newer` wins. O(n + m), and O(m) copies where they do not overlap.
pub fn merge(older: Vec<Sample>, newer: &[Sample]) -> Vec<Sample> {
    let (Some(last), Some(first)) = (older.last(), newer.first()) else {
        return if newer.is_empty() { older } else { newer.to_vec() };
    };
    if last.t < first.t {
        let mut merged = older;
        merged.extend_from_slice(newer);
        return merged;
    }
    let mut merged = Vec::with_capacity(older.len() + newer.len());
    let mut newer = newer.iter().copied().peekable();
    for sample in older {
        while let Some(earlier) = newer.next_if(|candidate| candidate.t < sample.t) {
            merged.push(earlier);
        }
        merged.push(newer.next_if(|candidate| candidate.t == sample.t).unwrap_or(sample));
    }
    merged.extend(newer);
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: TimeRange = TimeRange { from: i64::MIN, to: i64::MAX };

    fn samples(pairs: &[(i64, f64)]) -> Vec<Sample> {
        pairs.iter().map(|&(t, v)| Sample { t, v }).collect()
    }

    #[test]
    fn a_failed_sealing_keeps_what_came_since() {
        let mut head = Head::default();
        head.insert(Sample { t: 1, v: 1.0 }, 10);
        head.insert(Sample { t: 2, v: 2.0 }, 11);
        assert!(head.take(10).is_none(), "more of record 11 may come");
        assert_eq!(head.take(11).unwrap().through, 11);
        head.insert(Sample { t: 2, v: 9.0 }, 12);
        assert_eq!(head.oldest_position(), Some(10));
        let [older, newer] = head.copy(ALL);
        assert_eq!(merge(older, &newer), samples(&[(1, 1.0), (2, 9.0)]));
        head.not_sealed();
        assert_eq!(head.copy(ALL)[1], samples(&[(1, 1.0), (2, 9.0)]));
        assert_eq!((head.oldest_position(), head.take(12).unwrap().through), (Some(10), 12));
        head.sealed([0]);
        assert_eq!((head.is_empty(), head.days(), head.oldest_position()), (true, &[0][..], None));
    }

    #[test]
    fn merging_prefers_the_newer() {
        let merged =
            merge(samples(&[(1, 1.0), (3, 3.0), (5, 5.0)]), &samples(&[(0, 0.5), (3, 9.0), (4, 4.0), (6, 6.0)]));
        assert_eq!(merged, samples(&[(0, 0.5), (1, 1.0), (3, 9.0), (4, 4.0), (5, 5.0), (6, 6.0)]));
    }
}
