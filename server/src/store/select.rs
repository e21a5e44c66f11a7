//! The store as a source of queries: chunks, then what is being sealed, then the heads; the later layer wins where times are
//! equal, because it was accepted later.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Statement;

use super::chunk;
use super::days::{DayError, DayFile, chunk_keys, series_of};
use super::engine::Store;
use super::head::{DAY_MS, Day, day_of, merge};
use super::index::{Series, SeriesId};
use super::rollup::Rolled;
use super::varint::DecodeError;
use crate::query::source::{MetricMetadata, Note, SelectError, Selected, Selection, Show, Source, TimeRange, View};
use crate::series::{Labels, Matcher, NAME, Sample, Timestamp};

impl Store {
    /// Label sets with these pairs that had a sample at or after `from` and were not ended since, as far as memory tells.
    pub fn alive(&self, pairs: &[(&str, &str)], from: Timestamp) -> Vec<Labels> {
        let matchers: Vec<Matcher> = pairs.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
        let found = self.shared.index.read().unwrap_or_else(PoisonError::into_inner).select(&matchers);
        let alive = found.into_iter().filter(|series| series.head().is_alive_since(from));
        alive.map(|series| series.labels.clone()).collect()
    }

    /// The last sample of a series. Does not look at the index, whose lock the caller may have.
    pub(super) fn last_sample(&self, series: &Arc<Series>) -> Result<Option<Sample>, SelectError> {
        let from = {
            let head = series.head();
            let day = head.days().last().map(|day| i64::from(*day) * DAY_MS);
            head.span().map(|span| span.to).max(day)
        };
        let Some(from) = from else { return Ok(None) };
        let range = TimeRange { from, to: Timestamp::MAX };
        let taken = AtomicU64::new(0);
        let one = Found {
            store: self,
            matchers: Vec::new(),
            range,
            view: View::PLAIN,
            samples_max: u64::MAX,
            members: Members::Ids(Vec::new()),
            taken,
            // Of a day that went meanwhile nothing is read.
            raw: BTreeSet::new(),
            rolled: Rolled::default(),
            late: Mutex::default(),
            alone: Vec::new(),
        };
        let samples = one.read_portion(std::slice::from_ref(series))?;
        Ok(samples.into_iter().flatten().last())
    }

    /// The last sample of each series of a metric in a range.
    ///
    /// # Errors
    /// More than `samples_max` samples are in the range, or they cannot be read.
    pub fn last_samples(
        &self,
        name: &str,
        range: TimeRange,
        samples_max: u64,
    ) -> Result<Vec<(Labels, Sample)>, SelectError> {
        let selected = self.select(&[Matcher::equal(NAME, name)], range, samples_max)?;
        Ok(selected.into_iter().filter_map(|one| Some((one.labels, *one.samples.last()?))).collect())
    }
}

/// Series read at a time: few enough for their samples to stay in a core's cache, enough to pay for a transaction.
const PORTION_SERIES: usize = 256;
/// Series whose numbers are no farther apart are read in one pass: stepping over a few others costs less than a new search.
const RUN_GAP_IDS: u64 = 4;

impl Source for Store {
    fn select(&self, matchers: &[Matcher], range: TimeRange, samples_max: u64) -> Result<Vec<Selected>, SelectError> {
        self.find(matchers, range, View::PLAIN, samples_max)?.all()
    }

    fn find<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
        view: View,
        samples_max: u64,
    ) -> Result<Box<dyn Selection + 'a>, SelectError> {
        let raw = self.shared.days.readable_between(day_of(range.from), day_of(range.to));
        let rolled = self.rolled(matchers, (range, &raw), view, samples_max)?;
        // The newest day goes only where nothing came for all of the retention.
        let newest = self.shared.days.newest();
        let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
        let may_go = rolled.samples() > 0 || raw.iter().any(|day| Some(*day) != newest);
        let members = if may_go { Members::Held(index.select(matchers)) } else { Members::Ids(index.find(matchers)) };
        let alone = rolled.alone(|labels| index.get(labels).is_some());
        drop(index);
        let taken = AtomicU64::new(rolled.samples());
        let (matchers, late) = (matchers.to_vec(), Mutex::default());
        Ok(Box::new(Found {
            store: self,
            matchers,
            range,
            view,
            samples_max,
            members,
            taken,
            raw,
            rolled,
            late,
            alone,
        }))
    }

    fn series(&self, any_of: &[Vec<Matcher>], range: TimeRange) -> Result<Vec<Labels>, SelectError> {
        let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
        let lists = if any_of.is_empty() {
            vec![index.select(&[])]
        } else {
            any_of.iter().map(|matchers| index.select(matchers)).collect()
        };
        drop(index);
        let unique: BTreeMap<SeriesId, Arc<Series>> =
            lists.into_iter().flatten().map(|series| (series.id, series)).collect();
        let present = unique.into_values().filter(|series| series.head().may_have(range));
        self.add_rolled_series(any_of, range, present.map(|series| series.labels.clone()).collect())
    }

    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        self.shared.metadata.lock().unwrap_or_else(PoisonError::into_inner).all()
    }
}

/// Series of a query, in the order of their numbers.
enum Members {
    /// What they stand for is looked up by those who read, side by side.
    Ids(Vec<SeriesId>),
    /// The same where the retention may take a day that is read, and with it the last that memory knows of a series.
    Held(Vec<Arc<Series>>),
}

/// Series whose labels fulfil the matchers.
struct Found<'a> {
    store: &'a Store,
    matchers: Vec<Matcher>,
    range: TimeRange,
    view: View,
    samples_max: u64,
    members: Members,
    /// Samples read so far, by all portions.
    taken: AtomicU64,
    /// Days whose raw samples are read; what rollups have of them is left out of `rolled`.
    raw: BTreeSet<Day>,
    /// What rollups add.
    rolled: Rolled,
    /// What they add of days of `raw` that the retention unlinked since.
    late: Mutex<BTreeMap<Day, Arc<Rolled>>>,
    /// Series that only rollups know.
    alone: Vec<Labels>,
}

impl Selection for Found<'_> {
    fn count(&self) -> usize {
        self.known() + self.alone.len()
    }

    fn read(&self, numbers: Range<usize>, show: &mut Show<'_>) -> Result<(), SelectError> {
        let known = self.known();
        let (mut begin, end) = (numbers.start.min(known), numbers.end.min(known));
        while begin < end {
            let portion = self.series(begin..end.min(begin + PORTION_SERIES));
            begin += PORTION_SERIES;
            for (series, samples) in portion.iter().zip(self.read_portion(&portion)?) {
                let samples = self.rolled.join(&series.labels, samples);
                if !samples.is_empty() && show(&series.labels, &samples).is_break() {
                    return Ok(());
                }
            }
        }
        for labels in &self.alone[numbers.start.max(known) - known..numbers.end.max(known) - known] {
            let samples = self.rolled.join(labels, Vec::new());
            if !samples.is_empty() && show(labels, &samples).is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn notes(&self) -> Vec<Note> {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        self.rolled.notes.iter().chain(late.values().flat_map(|late| &late.notes)).cloned().collect()
    }
}

impl Found<'_> {
    fn known(&self) -> usize {
        match &self.members {
            Members::Ids(ids) => ids.len(),
            Members::Held(series) => series.len(),
        }
    }

    /// Those that are still there, where they are not held.
    fn series(&self, numbers: Range<usize>) -> Vec<Arc<Series>> {
        match &self.members {
            Members::Held(series) => series[numbers].to_vec(),
            Members::Ids(ids) => {
                let index = self.store.shared.index.read().unwrap_or_else(PoisonError::into_inner);
                ids[numbers].iter().filter_map(|id| index.by_id(*id)).cloned().collect()
            }
        }
    }

    /// The samples of each series.
    fn read_portion(&self, portion: &[Arc<Series>]) -> Result<Vec<Vec<Sample>>, SelectError> {
        let (from, to) = (day_of(self.range.from), day_of(self.range.to));
        let mut by_day: BTreeMap<Day, Vec<usize>> = BTreeMap::new();
        let mut memory = Vec::with_capacity(portion.len());
        // Memory first: what sealing moves to disk meanwhile is then seen twice, and never not at all.
        for (at, series) in portion.iter().enumerate() {
            let head = series.head();
            memory.push(head.copy(self.range));
            for day in head.days().iter().filter(|day| (from..=to).contains(day)) {
                by_day.entry(*day).or_default().push(at);
            }
        }
        let mut samples = vec![Vec::new(); portion.len()];
        // Also those that no series here has, or has any more.
        for day in &self.raw {
            by_day.entry(*day).or_default();
        }
        for (day, members) in by_day {
            let lengths: Vec<usize> = samples.iter().map(Vec::len).collect();
            let read = match self.store.shared.days.readable(day) {
                Some(file) if !members.is_empty() => self.read_day(&file, portion, &members, &mut samples),
                _ => Ok(()),
            };
            // Asked after the reading: what was read of a file that is being unlinked may not be all.
            if self.store.shared.days.readable(day).is_some() {
                read?;
                continue;
            }
            let late = self.late(day)?;
            for ((samples, length), series) in samples.iter_mut().zip(lengths).zip(portion) {
                samples.truncate(length);
                *samples = late.join(&series.labels, std::mem::take(samples));
            }
        }
        for (samples, layers) in samples.iter_mut().zip(memory) {
            for layer in layers {
                self.take(layer.len())?;
                *samples = merge(std::mem::take(samples), &layer);
            }
        }
        Ok(samples)
    }

    /// What rollups have of a day that went after this query had begun.
    fn late(&self, day: Day) -> Result<Arc<Rolled>, SelectError> {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = late.get(&day) {
            return Ok(Arc::clone(known));
        }
        let begin = i64::from(day) * DAY_MS;
        let range = TimeRange { from: self.range.from.max(begin), to: self.range.to.min(begin + DAY_MS - 1) };
        // Where rollups had it already, it is in `rolled`.
        let rolled = if self.raw.contains(&day) {
            self.store.rolled(&self.matchers, (range, &BTreeSet::new()), self.view, self.samples_max)?
        } else {
            Rolled::default()
        };
        self.take(rolled.samples() as usize)?;
        let rolled = Arc::new(rolled);
        late.insert(day, Arc::clone(&rolled));
        Ok(rolled)
    }

    fn read_day(
        &self,
        file: &DayFile,
        portion: &[Arc<Series>],
        members: &[usize],
        samples: &mut [Vec<Sample>],
    ) -> Result<(), SelectError> {
        let read = file.read(|connection| {
            let failed = |source| file.failed(source);
            // One transaction: without it SQLite locks and unlocks the file for each series.
            let tx = connection.unchecked_transaction().map_err(failed)?;
            let mut chunks = tx
                .prepare_cached("SELECT key, body FROM chunk WHERE key BETWEEN ?1 AND ?2 ORDER BY key")
                .map_err(failed)?;
            let id = |member: usize| portion[member].id;
            for run in members.chunk_by(|a, b| id(*b).abs_diff(id(*a)) <= RUN_GAP_IDS) {
                let mut wanted = run.iter().map(|&member| (id(member), member)).peekable();
                let mut each = |series: SeriesId, body: &[u8]| {
                    while wanted.next_if(|(id, _)| *id < series).is_some() {}
                    match wanted.peek() {
                        Some((id, member)) if *id == series => self.add_chunk(body, &mut samples[*member]),
                        _ => Ok(ControlFlow::Continue(())),
                    }
                };
                if each_chunk(file, &mut chunks, (id(run[0]), id(run[run.len() - 1])), &mut each)?.is_break() {
                    return Ok(Err(SelectError::TooManySamples { samples_max: self.samples_max }));
                }
            }
            Ok(Ok(()))
        });
        read.map_err(|error| SelectError::Read(Box::new(error)))?
    }

    /// Adds what a chunk has in the range behind what older chunks had; breaks off at the query's limit.
    fn add_chunk(&self, body: &[u8], samples: &mut Vec<Sample>) -> Result<ControlFlow<()>, DecodeError> {
        let (_, span) = chunk::span(body)?;
        if span.from > self.range.to || span.to < self.range.from {
            return Ok(ControlFlow::Continue(()));
        }
        let begin = samples.len();
        chunk::decode_within(body, self.range, samples)?;
        let added = samples.len() - begin;
        if added > 0 && begin > 0 && samples[begin - 1].t >= samples[begin].t {
            let newer = samples.split_off(begin);
            *samples = merge(std::mem::take(samples), &newer);
        }
        Ok(if self.take(added).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }

    /// Counts samples against the query's limit.
    fn take(&self, samples: usize) -> Result<(), SelectError> {
        let taken = self.taken.fetch_add(samples as u64, Ordering::Relaxed).saturating_add(samples as u64);
        if taken > self.samples_max {
            return Err(SelectError::TooManySamples { samples_max: self.samples_max });
        }
        Ok(())
    }
}

/// Takes the chunks of a file in turn, each with its series.
type EachChunk<'a> = dyn FnMut(SeriesId, &[u8]) -> Result<ControlFlow<()>, DecodeError> + 'a;

/// Calls `each` with all chunks of the series from one to another, until it breaks off.
fn each_chunk(
    file: &DayFile,
    chunks: &mut Statement<'_>,
    (from, to): (SeriesId, SeriesId),
    each: &mut EachChunk<'_>,
) -> Result<ControlFlow<()>, DayError> {
    let failed = |source| file.failed(source);
    let mut rows = chunks.query([chunk_keys(from).0, chunk_keys(to).1]).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        let key: i64 = row.get(0).map_err(failed)?;
        let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(failed)?;
        if each(series_of(key), body).map_err(|source| file.damaged("chunk", key, source))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}
