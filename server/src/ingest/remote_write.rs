//! Prometheus remote write 1.0: one protobuf message of series, read where it lies. A series' labels are compared as bytes
//! with those the store knows, so that a sender who repeats itself, as all do, costs no decoding; labels that are new are
//! checked one by one, and one that is wrong spoils its own series and not the request. Remote write 2.0 is in `symbols`.

use std::sync::Arc;

use prost::Message;
use prost::bytes::Bytes;

use super::labels::{LabelError, LabelLimits};
use super::problems::Problems;
use super::protobuf::{Fields, MalformedError, Value};
use crate::series::{Labels, NAME, Sample};
use crate::store::{Batch, Known, MetricMetadata, Row};

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "bytes", tag = "2")]
    name: Bytes,
    #[prost(bytes = "bytes", tag = "4")]
    help: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    unit: Bytes,
}

/// Words for the numbers of `MetricMetadata.MetricType`.
pub(super) const KINDS: [&str; 8] =
    ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];

/// The tag that a label has in a series: field 1, length-delimited.
const LABEL_TAG: u8 = 0x0a;

/// The body is not a remote write request.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The request itself.
    #[error("body is not a Prometheus remote write 1.0 message")]
    Request(#[from] MalformedError),
    /// The metadata in it.
    #[error("metadata of the body is not that of a Prometheus remote write 1.0 message")]
    Metadata(#[from] prost::DecodeError),
}

/// Reads a decompressed body: what can be stored, and what cannot. `known` are the store's series; the labels of others are held
/// against `limits`.
///
/// # Errors
/// The message as a whole is malformed.
pub fn decode(body: &[u8], known: &Known<'_>, limits: LabelLimits) -> Result<(Batch, Problems), DecodeError> {
    let mut problems = Problems::default();
    let mut batch = Batch::default();
    // The smallest series of a real sender takes about this many bytes.
    batch.rows.reserve(body.len() / 128);
    let mut samples = Vec::new();
    let mut finder = known.finder();
    let mut fields = Fields(body);
    while let Some(field) = fields.take()? {
        match field {
            (1, Value::Bytes(series)) => {
                samples.clear();
                let labels = series_fields(series, &mut samples, &mut problems)?;
                if samples.is_empty() {
                    continue;
                }
                if let WireLabels::Block(block) = &labels
                    && let Some(series) = finder.find(block)
                {
                    let row = |&sample| Row { series: Arc::clone(series), sample };
                    batch.rows.extend(samples.iter().map(row));
                    continue;
                }
                let pairs = labels.pairs()?;
                match check(&pairs, limits) {
                    Ok(labels) => batch.series.push((labels, samples.clone())),
                    Err(error) => error.note(&mut problems, samples.len() as u64, named(&pairs)),
                }
            }
            (3, Value::Bytes(told)) => batch.metadata.extend(metadata(told)?),
            _ => {}
        }
    }
    Ok((batch, problems))
}

/// Name and value of a label as they came.
pub(super) type Pair<'a> = (&'a [u8], &'a [u8]);

/// The labels of a series as they came.
enum WireLabels<'a> {
    /// All labels in one piece, as every known sender writes them.
    Block(&'a [u8]),
    /// Labels between other fields.
    Scattered(Vec<&'a [u8]>),
}

/// Takes the samples of a series out of its message and says where its labels are.
fn series_fields<'a>(
    series: &'a [u8],
    samples: &mut Vec<Sample>,
    problems: &mut Problems,
) -> Result<WireLabels<'a>, MalformedError> {
    let mut fields = Fields(series);
    while fields.0.first() == Some(&LABEL_TAG) {
        fields.take()?;
    }
    let block = &series[..series.len() - fields.0.len()];
    let mut scattered = Vec::new();
    while let Some(field) = fields.take()? {
        match field {
            (1, Value::Bytes(label)) => scattered.push(label),
            (2, Value::Bytes(bytes)) => samples.push(sample(bytes)?),
            (4, Value::Bytes(_)) => problems.add(1, "native histograms are not taken; send classic ones"),
            _ => {}
        }
    }
    if scattered.is_empty() {
        return Ok(WireLabels::Block(block));
    }
    let mut all = messages(block)?;
    all.extend(scattered);
    Ok(WireLabels::Scattered(all))
}

pub(super) fn sample(bytes: &[u8]) -> Result<Sample, MalformedError> {
    let mut sample = Sample { t: 0, v: 0.0 };
    let mut fields = Fields(bytes);
    while let Some(field) = fields.take()? {
        match field {
            (1, Value::Fixed64(bits)) => sample.v = f64::from_bits(bits),
            (2, Value::Varint(t)) => sample.t = t as i64,
            _ => {}
        }
    }
    Ok(sample)
}

/// The messages of a block of nothing else.
fn messages(block: &[u8]) -> Result<Vec<&[u8]>, MalformedError> {
    let mut fields = Fields(block);
    let mut found = Vec::new();
    while let Some((_, Value::Bytes(bytes))) = fields.take()? {
        found.push(bytes);
    }
    Ok(found)
}

impl<'a> WireLabels<'a> {
    /// Names and values, not checked.
    fn pairs(&self) -> Result<Vec<Pair<'a>>, MalformedError> {
        match self {
            WireLabels::Block(block) => messages(block)?.into_iter().map(pair).collect(),
            WireLabels::Scattered(labels) => labels.iter().copied().map(pair).collect(),
        }
    }
}

fn pair(label: &[u8]) -> Result<Pair<'_>, MalformedError> {
    let (mut name, mut value): Pair<'_> = (&[], &[]);
    let mut fields = Fields(label);
    while let Some(field) = fields.take()? {
        match field {
            (1, Value::Bytes(bytes)) => name = bytes,
            (2, Value::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((name, value))
}

/// The protocol asks for sorted, unique, valid labels with a metric name.
pub(super) fn check(wire: &[Pair<'_>], limits: LabelLimits) -> Result<Labels, LabelError> {
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(wire.len());
    for (name, value) in wire {
        let name = std::str::from_utf8(name).map_err(|_| LabelError::NameNotText { name: lossy(name) })?;
        let value = std::str::from_utf8(value)
            .map_err(|_| LabelError::ValueNotText { name: name.to_owned(), value: lossy(value) })?;
        if let Some((before, _)) = pairs.last()
            && *before >= name
        {
            return Err(LabelError::NotSorted { name: name.to_owned(), before: (*before).to_owned() });
        }
        pairs.push((name, value));
    }
    limits.check(pairs.iter().copied())?;
    let labels = Labels::new(pairs);
    if labels.get(NAME).is_none() { Err(LabelError::NoMetricName { labels }) } else { Ok(labels) }
}

/// `test_total: ` where the series has a name, so that its sender can be found. Of a long name only the beginning: what is wrong
/// must still find room behind it.
pub(super) fn named(pairs: &[Pair<'_>]) -> String {
    const BYTES_MAX: usize = 100;
    let name = pairs.iter().find(|(name, value)| *name == NAME.as_bytes() && !value.is_empty());
    name.map(|(_, value)| format!("{}: ", lossy(&value[..value.len().min(BYTES_MAX)]))).unwrap_or_default()
}

/// What a sender tells about a metric; `None` where the name is missing or no text.
fn metadata(bytes: &[u8]) -> Result<Option<(String, MetricMetadata)>, prost::DecodeError> {
    let told = Metadata::decode(bytes)?;
    let text = |bytes: &Bytes| lossy(bytes);
    let Some(name) = std::str::from_utf8(&told.name).ok().filter(|name| !name.is_empty()) else { return Ok(None) };
    let kind = usize::try_from(told.kind).ok().and_then(|kind| KINDS.get(kind)).unwrap_or(&KINDS[0]);
    let kept = MetricMetadata { kind: (*kind).to_owned(), help: text(&told.help), unit: text(&told.unit) };
    Ok(Some((name.to_owned(), kept)))
}

pub(super) fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
#[path = "tests/remote_write.rs"]
mod tests;
