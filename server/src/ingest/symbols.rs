//! Prometheus remote write 2.0: labels are references into a table of symbols that the request carries once. Samples and metadata
//! are taken; native histograms are counted and named as not taken; exemplars and start times are passed over, as in 1.0.
//!
//! A series' references are resolved into the bytes by which the store knows its series, in one buffer for the whole request, so
//! that a series that is known costs no allocation. A reference is a byte and a symbol may be a megabyte: what they resolve to is
//! bounded here, for the limits of a body do not bound it. The message 1.0 is `remote_write`'s.

use std::collections::HashSet;
use std::sync::Arc;

use super::labels::{LabelError, LabelLimits};
use super::problems::Problems;
use super::protobuf::{Fields, MalformedError, Value};
use super::remote_write::{KINDS, Pair, check, lossy, named, sample};
use crate::series::{Labels, Sample};
use crate::store::{Batch, Finder, Known, MetricMetadata, Row};

/// Most bytes that the labels of all series of one request have when resolved: 400,000 series of 300 bytes; senders put 2,000
/// into a request by default.
const LABEL_BYTES_MAX: usize = 128 << 20;

/// Most bytes of a symbol that becomes the help or unit of a metric.
const TEXT_BYTES_MAX: usize = 4_096;

/// Most symbols of a request. Each takes 16 bytes here and may take 2 in the body; a request of 2,000 series has some thousands.
const SYMBOLS_MAX: usize = 1 << 20;

/// The body is not a remote write 2.0 request, or not one that is taken.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It does not read.
    #[error("body is not a Prometheus remote write 2.0 message")]
    Malformed(#[from] MalformedError),
    /// Its table is too long.
    #[error("request has more than {SYMBOLS_MAX} symbols; send smaller batches")]
    TooManySymbols,
}

/// Why one series is not taken.
#[derive(Debug, thiserror::Error)]
enum SeriesError {
    #[error("series has {found} label references; names and values come in pairs")]
    OddReferences { found: usize },
    #[error("label reference {found} is beyond the {symbols} symbols of the request")]
    ReferenceBeyond { found: u64, symbols: usize },
    #[error("labels of the request take more than {LABEL_BYTES_MAX} bytes; send smaller batches")]
    TooManyBytes,
    #[error(transparent)]
    Label(#[from] LabelError),
}

/// Reads a decompressed body: what can be stored, and what cannot. `known` are the store's series; the labels of others are held
/// against `limits`.
///
/// # Errors
/// The message as a whole is malformed.
pub fn decode(body: &[u8], known: &Known<'_>, limits: LabelLimits) -> Result<(Batch, Problems), DecodeError> {
    let mut walk = Walk {
        limits,
        symbols: symbols(body)?,
        finder: known.finder(),
        batch: Batch::default(),
        problems: Problems::default(),
        references: Vec::new(),
        samples: Vec::new(),
        block: Vec::new(),
        label_bytes: 0,
        told: HashSet::new(),
    };
    // The smallest series of a real sender takes about this many bytes.
    walk.batch.rows.reserve(body.len() / 32);
    let mut fields = Fields(body);
    while let Some(field) = fields.take()? {
        if let (5, Value::Bytes(series)) = field {
            walk.series(series)?;
        }
    }
    Ok((walk.batch, walk.problems))
}

/// The table of symbols. It may stand behind the series that refer to it.
fn symbols(body: &[u8]) -> Result<Vec<&[u8]>, DecodeError> {
    let mut symbols = Vec::new();
    let mut fields = Fields(body);
    while let Some(field) = fields.take()? {
        if let (4, Value::Bytes(symbol)) = field {
            if symbols.len() == SYMBOLS_MAX {
                return Err(DecodeError::TooManySymbols);
            }
            symbols.push(symbol);
        }
    }
    Ok(symbols)
}

/// A request on its way; the vectors and the block are those of the series at hand.
struct Walk<'a> {
    limits: LabelLimits,
    symbols: Vec<&'a [u8]>,
    finder: Finder<'a>,
    batch: Batch,
    problems: Problems,
    references: Vec<u64>,
    samples: Vec<Sample>,
    block: Vec<u8>,
    /// Bytes of all labels and metadata resolved so far.
    label_bytes: usize,
    /// Metadata passed on already, and the name it is for: all series of a metric repeat it.
    told: HashSet<(&'a [u8], Metadata)>,
}

/// What a series tells about its metric: the number of its type, and the references of help and unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Metadata {
    kind: u64,
    help: u64,
    unit: u64,
}

impl<'a> Walk<'a> {
    fn series(&mut self, message: &'a [u8]) -> Result<(), MalformedError> {
        self.references.clear();
        self.samples.clear();
        let mut told = None;
        let mut fields = Fields(message);
        while let Some(field) = fields.take()? {
            match field {
                (1, Value::Bytes(packed)) => {
                    let mut packed = Fields(packed);
                    while !packed.0.is_empty() {
                        self.refer(packed.varint()?);
                    }
                }
                (1, Value::Varint(reference)) => self.refer(reference),
                (2, Value::Bytes(bytes)) => self.samples.push(sample(bytes)?),
                (3, Value::Bytes(_)) => self.problems.add(1, "native histograms are not taken; send classic ones"),
                (5, Value::Bytes(bytes)) => told = Some(metadata(bytes)?),
                _ => {}
            }
        }
        if self.samples.is_empty() {
            return Ok(());
        }
        let count = self.samples.len() as u64;
        match self.place() {
            Ok(()) => told.into_iter().for_each(|told| self.tell(told)),
            Err(error) => {
                let subject = named(&self.pairs().unwrap_or_default());
                match error {
                    SeriesError::Label(error) => error.note(&mut self.problems, count, subject),
                    error => self.problems.add(count, format_args!("{subject}{error}")),
                }
            }
        }
        Ok(())
    }

    /// Notes a reference. Those beyond one pair more than a series may have say no more than that there are too many.
    fn refer(&mut self, reference: u64) {
        if self.references.len() <= 2 * self.limits.labels_max + 1 {
            self.references.push(reference);
        }
    }

    /// Puts the samples where they belong.
    fn place(&mut self) -> Result<(), SeriesError> {
        self.resolve()?;
        if let Some(series) = self.finder.find(&self.block) {
            let row = |&sample| Row { series: Arc::clone(series), sample };
            self.batch.rows.extend(self.samples.iter().map(row));
            return Ok(());
        }
        let labels = check(&self.pairs()?, self.limits)?;
        self.batch.series.push((labels, self.samples.clone()));
        Ok(())
    }

    /// Writes the labels into the block.
    fn resolve(&mut self) -> Result<(), SeriesError> {
        self.block.clear();
        self.limits.check_count(self.references.len() / 2)?;
        for pair in self.references.chunks(2) {
            let &[name, value] = pair else {
                return Err(SeriesError::OddReferences { found: self.references.len() });
            };
            let (name, value) = (self.symbol(name)?, self.symbol(value)?);
            self.label_bytes = self.label_bytes.saturating_add(name.len() + value.len());
            if self.label_bytes > LABEL_BYTES_MAX {
                return Err(SeriesError::TooManyBytes);
            }
            Labels::put_wire(&mut self.block, name, value);
        }
        Ok(())
    }

    fn symbol(&self, reference: u64) -> Result<&'a [u8], SeriesError> {
        let found = usize::try_from(reference).ok().and_then(|place| self.symbols.get(place));
        found.copied().ok_or(SeriesError::ReferenceBeyond { found: reference, symbols: self.symbols.len() })
    }

    /// Names and values, not checked. Call after [`Walk::resolve`] found their number within its bound.
    fn pairs(&self) -> Result<Vec<Pair<'a>>, SeriesError> {
        self.limits.check_count(self.references.len() / 2)?;
        let pairs = self.references.chunks_exact(2);
        pairs.map(|pair| Ok((self.symbol(pair[0])?, self.symbol(pair[1])?))).collect()
    }

    /// Passes metadata on, once for each metric.
    fn tell(&mut self, told: Metadata) {
        let kind = usize::try_from(told.kind).ok().and_then(|kind| KINDS.get(kind)).copied().unwrap_or(KINDS[0]);
        let name = self.references.chunks_exact(2).find_map(|pair| {
            let name = self.symbol(pair[0]).ok()?;
            (name == crate::series::NAME.as_bytes()).then(|| self.symbol(pair[1]).ok())?
        });
        // A name in the store is text; what is not was refused before.
        let Some(name) = name.map(|name| family(name, kind)) else { return };
        if told == Metadata::default() || !self.told.insert((name, told)) {
            return;
        }
        let text = |reference| {
            let symbol = if reference == 0 { &[] } else { self.symbol(reference).unwrap_or_default() };
            lossy(&symbol[..symbol.len().min(TEXT_BYTES_MAX)])
        };
        let known = MetricMetadata { kind: kind.to_owned(), help: text(told.help), unit: text(told.unit) };
        self.label_bytes = self.label_bytes.saturating_add(known.help.len() + known.unit.len());
        if self.label_bytes > LABEL_BYTES_MAX {
            return;
        }
        self.batch.metadata.push((lossy(name), known));
    }
}

/// The metric that a series belongs to: histograms and summaries have several series, and metadata is that of the whole.
fn family<'a>(name: &'a [u8], kind: &str) -> &'a [u8] {
    let suffixes: &[&[u8]] = match kind {
        "histogram" | "gaugehistogram" => &[b"_bucket", b"_sum", b"_count"],
        "summary" => &[b"_sum", b"_count"],
        _ => &[],
    };
    suffixes.iter().find_map(|suffix| name.strip_suffix(*suffix)).unwrap_or(name)
}

fn metadata(bytes: &[u8]) -> Result<Metadata, MalformedError> {
    let mut told = Metadata::default();
    let mut fields = Fields(bytes);
    while let Some(field) = fields.take()? {
        match field {
            (1, Value::Varint(kind)) => told.kind = kind,
            (3, Value::Varint(help)) => told.help = help,
            (4, Value::Varint(unit)) => told.unit = unit,
            _ => {}
        }
    }
    Ok(told)
}

#[cfg(test)]
#[path = "tests/symbols.rs"]
mod tests;
