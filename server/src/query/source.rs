//! Where queries read from. The store is one source; a remote engine and sampled forecast paths are others.

use std::ops::{ControlFlow, Range};

use crate::series::{Labels, Matcher, Sample, Timestamp};

/// Series that fulfil all matchers, with samples in a time range.
///
/// Contract: `from..=to` is closed at both ends; samples are sorted by time and unique in time, staleness markers
/// included; what `store` acknowledged before the call is seen. Calls may block on disk and may run concurrently.
pub trait Source: Send + Sync {
    /// Series with at least one sample in the range. Fails once more than `samples_max` samples would be returned.
    ///
    /// # Errors
    /// The limit was met, or the samples cannot be read.
    fn select(&self, matchers: &[Matcher], range: TimeRange, samples_max: u64) -> Result<Vec<Selected>, SelectError>;

    /// The series of [`Source::select`], found but not read yet. A source that can read some without the others says so here. One
    /// that keeps only a summary of old samples shows there what the view needs, and says so in a note.
    ///
    /// # Errors
    /// As [`Source::select`]; reading may fail later.
    fn find<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
        _view: View,
        samples_max: u64,
    ) -> Result<Box<dyn Selection + 'a>, SelectError> {
        Ok(Box::new(self.select(matchers, range, samples_max)?))
    }

    /// Label sets of the series that fulfil any of the matcher lists (all series where there is none) and may have a sample
    /// in the range.
    ///
    /// # Errors
    /// The index cannot be read.
    fn series(&self, any_of: &[Vec<Matcher>], range: TimeRange) -> Result<Vec<Labels>, SelectError>;

    /// As [`Source::series`]; pushes to `notes` what the asker must know of the answer.
    ///
    /// # Errors
    /// As [`Source::series`].
    fn series_noting(
        &self,
        any_of: &[Vec<Matcher>],
        range: TimeRange,
        _notes: &mut Vec<Note>,
    ) -> Result<Vec<Labels>, SelectError> {
        self.series(any_of, range)
    }

    /// Type, help and unit per metric name, as far as senders told. Sorted by name.
    fn metadata(&self) -> Vec<(String, MetricMetadata)>;
}

/// Series that were found, to be read in any portions, also by several threads at a time, without holding all samples at once.
pub trait Selection: Sync {
    /// How many there are; some may turn out to have no sample in the range.
    fn count(&self) -> usize;

    /// Reads the series of these numbers, which must be below [`Selection::count`], and shows each that has a sample in the range,
    /// in the order of their numbers, until it is told to break off. The contract of [`Source`] holds for each series.
    ///
    /// # Errors
    /// The limit was met over all portions, or the samples cannot be read.
    fn read(&self, numbers: Range<usize>, show: &mut Show<'_>) -> Result<(), SelectError>;

    /// What the asker must know of the answer, for example that a part is missing. Complete once everything was read.
    fn notes(&self) -> Vec<Note> {
        Vec::new()
    }

    /// All series with their samples, held at once.
    ///
    /// # Errors
    /// As [`Selection::read`].
    fn all(&self) -> Result<Vec<Selected>, SelectError> {
        let mut all = Vec::with_capacity(self.count());
        self.read(0..self.count(), &mut |labels, samples| {
            all.push(Selected { labels: labels.clone(), samples: samples.to_vec() });
            ControlFlow::Continue(())
        })?;
        Ok(all)
    }
}

/// Takes one series of a [`Selection`].
pub type Show<'a> = dyn FnMut(&Labels, &[Sample]) -> ControlFlow<()> + 'a;

/// Series that were read already.
impl Selection for Vec<Selected> {
    fn count(&self) -> usize {
        self.len()
    }

    fn read(&self, numbers: Range<usize>, show: &mut Show<'_>) -> Result<(), SelectError> {
        for one in &self[numbers] {
            if show(&one.labels, &one.samples).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Samples as they were recorded, for those who pass them on as such and have no room for notes: nothing in them is an estimate, and
/// where something is missing there is an error.
///
/// # Errors
/// As [`Source::find`]; a part is missing.
pub fn recorded(
    source: &dyn Source,
    matchers: &[Matcher],
    range: TimeRange,
    samples_max: u64,
) -> Result<Vec<Selected>, SelectError> {
    let found = source.find(matchers, range, View::RECORDED, samples_max)?;
    let all = found.all()?;
    let missing = found.notes().into_iter().find_map(|note| match note {
        Note::Warning(text) => Some(text),
        Note::Info(_) => None,
    });
    missing.map_or(Ok(all), |missing| Err(SelectError::Read(missing.into())))
}

/// What a source has to say of an answer beside its samples; it stands in the answer to the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Something is missing.
    Warning(String),
    /// Worth knowing, and nothing is missing.
    Info(String),
}

/// What samples are looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// What of them counts.
    pub column: Column,
    /// Width of the windows, or the lookback, that they are seen through.
    pub window_ms: i64,
}

impl View {
    /// Values as they were, seen through Prometheus' lookback.
    pub const PLAIN: View = View { column: Column::Last, window_ms: 300_000 };
    /// Samples for others to keep.
    pub const RECORDED: View = View { column: Column::Recorded, window_ms: 0 };
}

/// What of samples counts for a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// Samples that were, at the times at which they were, and none between them.
    Recorded,
    /// Values that were.
    Last,
    /// How much a counter rises, falls seen as resets.
    Counter,
    /// How much a value changes.
    Slope,
    /// The least value.
    Least,
    /// The greatest value.
    Greatest,
    /// The sum of the values.
    Sum,
    /// How many samples there are.
    Count,
    /// The mean of the values.
    Mean,
}

/// A closed range of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeRange {
    /// First instant that belongs to it.
    pub from: Timestamp,
    /// Last instant that belongs to it.
    pub to: Timestamp,
}

/// One series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// The label set, metric name included.
    pub labels: Labels,
    /// Sorted by time; never empty.
    pub samples: Vec<Sample>,
}

/// What is known of a metric beside its samples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricMetadata {
    /// `counter`, `gauge`, `histogram`, `summary`, `info`, `stateset` or `unknown`.
    pub kind: String,
    /// Human text.
    pub help: String,
    /// Unit, often empty.
    pub unit: String,
}

/// Why samples could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// The query is too large.
    #[error(
        "query would load more than {samples_max} samples; narrow the selector or the range, or raise query.samples_max"
    )]
    TooManySamples {
        /// The limit.
        samples_max: u64,
    },
    /// The source failed.
    #[error("samples cannot be read")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
}
