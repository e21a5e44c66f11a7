//! Remote write bodies in, batches and problems out.

use proptest::prelude::*;
use prost::Message;
use prost::bytes::Bytes;

use super::*;
use crate::store::{Store, StoreOptions};

/// The messages as their specification has them, to make bodies with.
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

const NOW: i64 = 10_000;

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

fn open(dir: &tempfile::TempDir) -> Arc<Store> {
    Store::open(dir.path(), StoreOptions { retention: None, ..StoreOptions::default() }, &[], NOW).unwrap()
}

fn text(batch: &Batch) -> Vec<String> {
    batch.samples().map(|(labels, sample)| format!("{labels} {} {}", sample.t, sample.v)).collect()
}

#[test]
fn the_good_is_taken_and_the_bad_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let request = WriteRequest {
        timeseries: vec![
            series(&[(b"__name__", b"up"), (b"job", b"node")], &[(1_000, 1.0), (2_000, f64::NAN)]),
            series(&[(b"__name__", b"up"), (b"job", b"caf\xe9")], &[(1_000, 1.0)]),
            series(&[(b"__name__", b"up"), (b"a\xff", b"x")], &[(1_000, 1.0)]),
            series(&[(b"job", b"node"), (b"__name__", b"up")], &[(1_000, 1.0)]),
            series(&[(b"__name__", b"up"), (b"job", b"a"), (b"job", b"b")], &[(1_000, 1.0)]),
            series(&[(b"job", b"node")], &[(1_000, 1.0)]),
            series(&[(b"", b"x"), (b"__name__", b"up")], &[(1_000, 1.0)]),
            TimeSeries { histograms: vec![Bytes::new()], ..series(&[(b"__name__", b"h")], &[]) },
        ],
        metadata: vec![Metadata { kind: 1, name: "up".into(), help: "Help.".into(), unit: Bytes::new() }],
    };
    let (batch, problems) = decode(&request.encode_to_vec(), &store.known(), LabelLimits::default()).unwrap();
    assert_eq!(text(&batch), ["up{job=\"node\"} 1000 1", "up{job=\"node\"} 2000 NaN"]);
    assert_eq!((batch.metadata[0].0.as_str(), batch.metadata[0].1.kind.as_str()), ("up", "counter"));
    assert_eq!(problems.count(), 7);
    let told = problems.to_string();
    for part in ["not UTF-8", "`job`", "not sorted", "no metric name", "without a name"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[test]
fn known_series_are_found_by_their_bytes_and_in_every_other_form() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let plain = |t: i64| WriteRequest {
        timeseries: vec![series(&[(b"__name__", b"up"), (b"job", b"node")], &[(t, 1.0)])],
        metadata: Vec::new(),
    };
    let (batch, _) = decode(&plain(1_000).encode_to_vec(), &store.known(), LabelLimits::default()).unwrap();
    assert_eq!((batch.rows.len(), batch.series.len()), (0, 1));
    store.append_blocking(batch, NOW).unwrap();
    let (batch, _) = decode(&plain(2_000).encode_to_vec(), &store.known(), LabelLimits::default()).unwrap();
    assert_eq!((batch.rows.len(), batch.series.len()), (1, 0));
    assert_eq!(text(&batch), ["up{job=\"node\"} 2000 1"]);

    // An empty value says that there is no such label; samples may stand before and between labels.
    let label = |name: &'static [u8], value: &'static [u8]| {
        let label = Label { name: name.into(), value: value.into() }.encode_to_vec();
        [&[0x0a, label.len() as u8][..], &label].concat()
    };
    let sample = WireSample { value: 1.0, timestamp: 3_000 }.encode_to_vec();
    let sample = [&[0x12, sample.len() as u8][..], &sample].concat();
    let (name, job, empty) = (label(b"__name__", b"up"), label(b"job", b"node"), label(b"a", b""));
    for parts in [[&name, &empty, &job, &sample], [&name, &sample, &empty, &job], [&sample, &name, &empty, &job]] {
        let series: Vec<u8> = parts.into_iter().flatten().copied().collect();
        let body = [&[0x0a, series.len() as u8][..], &series].concat();
        let (batch, problems) = decode(&body, &store.known(), LabelLimits::default()).unwrap();
        assert_eq!((text(&batch), problems.count()), (vec!["up{job=\"node\"} 3000 1".to_owned()], 0));
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        let _ = decode(&bytes, &open(&dir).known(), LabelLimits::default());
    }
}
