//! Prometheus remote write 1.0: one protobuf message of series. Labels are read as bytes, so that one that is not UTF-8 spoils
//! its own series and not the request.

use prost::Message;
use prost::bytes::Bytes;

use super::labels::LabelError;
use super::problems::Problems;
use crate::series::{Labels, NAME, Sample};
use crate::store::{Batch, MetricMetadata};

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<Metadata>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<WireSample>,
    /// Native histograms, kept as bytes to be counted.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    histograms: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct WireSample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

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
const KINDS: [&str; 8] = ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];

/// The body is not a remote write request.
#[derive(Debug, thiserror::Error)]
#[error("body is not a Prometheus remote write 1.0 message")]
pub struct DecodeError(#[from] prost::DecodeError);

/// Reads a decompressed body: what can be stored, and what cannot.
///
/// # Errors
/// The message as a whole is malformed.
pub fn decode(body: Vec<u8>) -> Result<(Batch, Problems), DecodeError> {
    let request = WriteRequest::decode(Bytes::from(body))?;
    let mut problems = Problems::default();
    let mut batch = Batch::default();
    batch.series.reserve(request.timeseries.len());
    for series in request.timeseries {
        if !series.histograms.is_empty() {
            let reason = "native histograms are not taken; send classic ones";
            problems.add(series.histograms.len() as u64, reason);
        }
        if series.samples.is_empty() {
            continue;
        }
        match labels(&series.labels) {
            Ok(labels) => {
                let samples = series.samples.iter().map(|sample| Sample { t: sample.timestamp, v: sample.value });
                batch.series.push((labels, samples.collect()));
            }
            Err(error) => problems.add(series.samples.len() as u64, format_args!("{}{error}", named(&series.labels))),
        }
    }
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    batch.metadata = request
        .metadata
        .iter()
        .filter(|told| std::str::from_utf8(&told.name).is_ok_and(|name| !name.is_empty()))
        .map(|told| {
            let kind = usize::try_from(told.kind).ok().and_then(|kind| KINDS.get(kind)).unwrap_or(&KINDS[0]);
            (
                text(&told.name),
                MetricMetadata { kind: (*kind).to_owned(), help: text(&told.help), unit: text(&told.unit) },
            )
        })
        .collect();
    Ok((batch, problems))
}

/// The protocol asks for sorted, unique, valid labels with a metric name.
fn labels(wire: &[Label]) -> Result<Labels, LabelError> {
    let mut pairs: Vec<(&str, &str)> = Vec::with_capacity(wire.len());
    for label in wire {
        let name =
            std::str::from_utf8(&label.name).map_err(|_| LabelError::NameNotText { name: lossy(&label.name) })?;
        let value = std::str::from_utf8(&label.value)
            .map_err(|_| LabelError::ValueNotText { name: name.to_owned(), value: lossy(&label.value) })?;
        if let Some((before, _)) = pairs.last()
            && *before >= name
        {
            return Err(LabelError::NotSorted { name: name.to_owned(), before: (*before).to_owned() });
        }
        pairs.push((name, value));
    }
    super::labels::check(pairs.iter().copied())?;
    let labels = Labels::new(pairs);
    if labels.get(NAME).is_none() { Err(LabelError::NoMetricName { labels }) } else { Ok(labels) }
}

/// `test_total: ` where the series has a name, so that its sender can be found.
fn named(wire: &[Label]) -> String {
    let name = wire.iter().find(|label| label.name == NAME && !label.value.is_empty());
    name.map(|label| format!("{}: ", lossy(&label.value))).unwrap_or_default()
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn series(labels: &[(&[u8], &[u8])], samples: &[(i64, f64)]) -> TimeSeries {
        let label = |(name, value): &(&[u8], &[u8])| Label {
            name: Bytes::copy_from_slice(name),
            value: Bytes::copy_from_slice(value),
        };
        TimeSeries {
            labels: labels.iter().map(label).collect(),
            samples: samples.iter().map(|&(timestamp, value)| WireSample { value, timestamp }).collect(),
            histograms: Vec::new(),
        }
    }

    #[test]
    fn the_good_is_taken_and_the_bad_is_named() {
        let request = WriteRequest {
            timeseries: vec![
                series(&[(b"__name__", b"up"), (b"job", b"node")], &[(1_000, 1.0), (2_000, f64::NAN)]),
                series(&[(b"__name__", b"up"), (b"job", b"caf\xe9")], &[(1_000, 1.0)]),
                series(&[(b"__name__", b"up"), (b"a\xff", b"x")], &[(1_000, 1.0)]),
                series(&[(b"job", b"node"), (b"__name__", b"up")], &[(1_000, 1.0)]),
                series(&[(b"__name__", b"up"), (b"job", b"a"), (b"job", b"b")], &[(1_000, 1.0)]),
                series(&[(b"job", b"node")], &[(1_000, 1.0)]),
                series(&[(b"", b"x"), (b"__name__", b"up")], &[(1_000, 1.0)]),
            ],
            metadata: vec![Metadata { kind: 1, name: "up".into(), help: "Help.".into(), unit: Bytes::new() }],
        };
        let (batch, problems) = decode(request.encode_to_vec()).unwrap();
        assert_eq!(batch.series.len(), 1);
        assert_eq!(batch.series[0].0.to_string(), "up{job=\"node\"}");
        assert_eq!(batch.series[0].1.len(), 2);
        assert_eq!((batch.metadata[0].0.as_str(), batch.metadata[0].1.kind.as_str()), ("up", "counter"));
        assert_eq!(problems.count(), 6);
        let text = problems.to_string();
        for part in ["not UTF-8", "`job`", "not sorted", "no metric name", "without a name"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(bytes);
        }
    }
}
