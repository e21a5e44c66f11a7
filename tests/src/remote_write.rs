//! Remote write requests as bytes, made without the server's own code, so that a mistake there cannot hide here.

use prost::Message;

/// Prometheus' prometheus.WriteRequest, field 1.
#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

/// Bytes, not strings: tests also send what is not UTF-8.
#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

/// Labels of a series, names sorted.
pub type Pairs<'a> = &'a [(&'a str, &'a str)];

/// A snappy-compressed request of series with (time in ms, value) samples.
pub fn request(series: &[(Pairs<'_>, &[(i64, f64)])]) -> Vec<u8> {
    let label =
        |(name, value): &(&str, &str)| Label { name: name.as_bytes().to_vec(), value: value.as_bytes().to_vec() };
    let series = series.iter().map(|(labels, samples)| TimeSeries {
        labels: labels.iter().map(label).collect(),
        samples: samples.iter().map(|(timestamp, value)| Sample { value: *value, timestamp: *timestamp }).collect(),
    });
    encode(&WriteRequest { timeseries: series.collect() })
}

/// A request of one good series and one whose label value is not UTF-8.
pub fn request_with_bad_label(good: Pairs<'_>, t: i64) -> Vec<u8> {
    let label =
        |(name, value): &(&str, &str)| Label { name: name.as_bytes().to_vec(), value: value.as_bytes().to_vec() };
    let sample = vec![Sample { value: 1.0, timestamp: t }];
    let bad = vec![label(&("__name__", "test_bad")), Label { name: b"host".to_vec(), value: vec![0xff, 0xfe] }];
    encode(&WriteRequest {
        timeseries: vec![
            TimeSeries { labels: good.iter().map(label).collect(), samples: sample.clone() },
            TimeSeries { labels: bad, samples: sample },
        ],
    })
}

fn encode(request: &WriteRequest) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).expect("a small request can be compressed")
}
