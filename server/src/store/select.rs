//! The store as a source of queries: chunks, then what is being sealed, then the heads; the later layer wins where times are
//! equal, because it was accepted later.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use rusqlite::Connection;

use super::chunk;
use super::days::{DayError, DayFile, chunk_keys};
use super::engine::Store;
use super::head::{Day, day_of, merge, within};
use super::index::{Series, SeriesId};
use crate::query::source::{MetricMetadata, SelectError, Selected, Source, TimeRange};
use crate::series::{Labels, Matcher, NAME, Sample, Timestamp};

impl Store {
    /// Label sets with these pairs that had a sample at or after `from` and were not ended since, as far as memory tells.
    pub fn alive(&self, pairs: &[(&str, &str)], from: Timestamp) -> Vec<Labels> {
        let matchers: Vec<Matcher> = pairs.iter().map(|(name, value)| Matcher::equal(name, value)).collect();
        let found = self.shared.index.read().unwrap_or_else(PoisonError::into_inner).select(&matchers);
        let alive = found.into_iter().filter(|series| series.head().is_alive_since(from));
        alive.map(|series| series.labels.clone()).collect()
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

/// A series with what of it was found so far.
struct Found {
    series: Arc<Series>,
    sealed: Vec<Sample>,
    memory: [Vec<Sample>; 2],
}

/// Counts samples against the query's limit.
struct Budget {
    left: u64,
    samples_max: u64,
}

impl Budget {
    fn take(&mut self, samples: usize) -> Result<(), SelectError> {
        self.left = self
            .left
            .checked_sub(samples as u64)
            .ok_or(SelectError::TooManySamples { samples_max: self.samples_max })?;
        Ok(())
    }
}

impl Source for Store {
    fn select(&self, matchers: &[Matcher], range: TimeRange, samples_max: u64) -> Result<Vec<Selected>, SelectError> {
        let candidates = self.shared.index.read().unwrap_or_else(PoisonError::into_inner).select(matchers);
        let mut budget = Budget { left: samples_max, samples_max };
        let (from, to) = (day_of(range.from), day_of(range.to));
        let mut by_day: BTreeMap<Day, Vec<usize>> = BTreeMap::new();
        let mut found = Vec::new();
        // Memory first: what sealing moves to disk meanwhile is then seen twice, and never not at all.
        for series in candidates {
            let head = series.head();
            let memory = head.copy(range);
            let days: Vec<Day> = head.days().iter().copied().filter(|day| (from..=to).contains(day)).collect();
            drop(head);
            if days.is_empty() && memory.iter().all(Vec::is_empty) {
                continue;
            }
            memory.iter().try_for_each(|layer| budget.take(layer.len()))?;
            for day in days {
                by_day.entry(day).or_default().push(found.len());
            }
            found.push(Found { series, sealed: Vec::new(), memory });
        }
        for (day, members) in by_day {
            // A day that retention unlinked a moment ago has no samples any more.
            let Some(file) = self.shared.days.get(day) else { continue };
            read_day(&file, &members, &mut found, range, &mut budget)?;
        }
        Ok(found.into_iter().filter_map(assemble).collect())
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
        Ok(present.map(|series| series.labels.clone()).collect())
    }

    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        self.shared.metadata.lock().unwrap_or_else(PoisonError::into_inner).all()
    }
}

fn assemble(found: Found) -> Option<Selected> {
    let [sealing, recent] = found.memory;
    let samples = merge(merge(found.sealed, &sealing), &recent);
    (!samples.is_empty()).then(|| Selected { labels: found.series.labels.clone(), samples })
}

fn read_day(
    file: &DayFile,
    members: &[usize],
    found: &mut [Found],
    range: TimeRange,
    budget: &mut Budget,
) -> Result<(), SelectError> {
    let read = file.read(|connection| {
        for &member in members {
            let of_day = read_series(file, connection, found[member].series.id, range)?;
            if let Err(limit) = budget.take(of_day.len()) {
                return Ok(Err(limit));
            }
            found[member].sealed.extend(of_day);
        }
        Ok(Ok(()))
    });
    read.map_err(|error| SelectError::Read(Box::new(error)))?
}

fn read_series(
    file: &DayFile,
    connection: &Connection,
    id: SeriesId,
    range: TimeRange,
) -> Result<Vec<Sample>, DayError> {
    let failed = |source| file.failed(source);
    let (first, last) = chunk_keys(id);
    let mut statement = connection
        .prepare_cached("SELECT key, body FROM chunk WHERE key BETWEEN ?1 AND ?2 ORDER BY key")
        .map_err(failed)?;
    let mut rows = statement.query([first, last]).map_err(failed)?;
    let mut samples = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let key: i64 = row.get(0).map_err(failed)?;
        let body = row.get_ref(1).and_then(|body| Ok(body.as_blob()?)).map_err(failed)?;
        let damaged = |source| file.damaged("chunk", key, source);
        let (_, span) = chunk::span(body).map_err(damaged)?;
        if span.from <= range.to && span.to >= range.from {
            samples = merge(samples, within(&chunk::decode(body).map_err(damaged)?, range));
        }
    }
    Ok(samples)
}
