//! Bodies of remote write, written straight from the samples, and of remote read's questions. Formats only; nothing is sent here. The
//! messages themselves are in `prompb`.

use std::borrow::Cow;

use prost::Message;

use super::prompb::{LabelMatcher, Query, ReadRequest};
use crate::series::{Labels, MatchOp, Matcher, Sample};
use crate::store::TimeRange;

/// One series of a write request: labels in the order of their names, samples by time.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteSeries<'a> {
    /// Its labels.
    pub labels: &'a Labels,
    /// Its samples.
    pub samples: &'a [Sample],
}

/// A `prometheus.WriteRequest`.
pub fn write_request<'a>(series: impl IntoIterator<Item = WriteSeries<'a>>) -> Vec<u8> {
    let (mut out, mut one, mut part) = (Vec::new(), Vec::new(), Vec::new());
    for WriteSeries { labels, samples } in series {
        one.clear();
        for (name, value) in labels {
            part.clear();
            put_bytes(&mut part, 1, name.as_bytes());
            put_bytes(&mut part, 2, value.as_bytes());
            put_bytes(&mut one, 1, &part);
        }
        for sample in samples {
            part.clear();
            // Field 1, eight bytes; field 2, a varint.
            part.push(1 << 3 | 1);
            part.extend_from_slice(&sample.v.to_le_bytes());
            part.push(2 << 3);
            put_varint(&mut part, sample.t as u64);
            put_bytes(&mut one, 2, &part);
        }
        put_bytes(&mut out, 1, &one);
    }
    out
}

/// A field with a length.
fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A `prometheus.ReadRequest` with one query.
pub fn read_request(matchers: &[Matcher], range: TimeRange) -> Vec<u8> {
    let matchers = matchers.iter().map(|matcher| {
        let (r#type, value) = match &matcher.op {
            MatchOp::Equal(value) => (0, Cow::Borrowed(value.as_str())),
            MatchOp::NotEqual(value) => (1, Cow::Borrowed(value.as_str())),
            MatchOp::Regex(regex) => (2, exact_pattern(regex)),
            MatchOp::NotRegex(regex) => (3, exact_pattern(regex)),
        };
        LabelMatcher { r#type, name: matcher.name.clone(), value: value.into_owned() }
    });
    let query = Query { start_timestamp_ms: range.from, end_timestamp_ms: range.to, matchers: matchers.collect() };
    ReadRequest { queries: vec![query], accepted_response_types: Vec::new() }.encode_to_vec()
}

/// The expression for engines whose `.` may not match the end of a line, as Prometheus 2's does not.
pub fn exact_pattern(regex: &regex::Regex) -> Cow<'_, str> {
    let text = pattern(regex);
    if text.contains('.') { Cow::Owned(format!("(?s:{text})")) } else { Cow::Borrowed(text) }
}

/// The expression as it was written, without the anchors of [`Matcher::regex`].
pub fn pattern(regex: &regex::Regex) -> &str {
    let text = regex.as_str();
    text.strip_prefix("^(?s:").and_then(|text| text.strip_suffix(")$")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::super::prompb::WriteRequest;
    use super::*;

    #[test]
    fn what_is_written_is_read_bit_for_bit() {
        let labels = Labels::new([("__name__", "up"), ("host", "größe \"1\"")]);
        let samples = [Sample { t: -5, v: 1.5 }, Sample::stale(7), Sample { t: i64::MAX, v: f64::NEG_INFINITY }];
        let body = write_request([WriteSeries { labels: &labels, samples: &samples }]);
        let read = WriteRequest::decode(body.as_slice()).unwrap().timeseries;
        assert_eq!(read.len(), 1);
        let pairs: Vec<(&str, &str)> =
            read[0].labels.iter().map(|label| (label.name.as_str(), label.value.as_str())).collect();
        assert_eq!(pairs, labels.iter().collect::<Vec<_>>());
        let bits = |t: i64, v: f64| (t, v.to_bits());
        let got: Vec<_> = read[0].samples.iter().map(|sample| bits(sample.timestamp, sample.value)).collect();
        assert_eq!(got, samples.iter().map(|sample| bits(sample.t, sample.v)).collect::<Vec<_>>());
    }

    #[test]
    fn expressions_travel_as_they_were_written() {
        let matcher = Matcher::regex("host", "web(1|2)", true).unwrap();
        let body = read_request(&[matcher], TimeRange { from: 1, to: 2 });
        let read = ReadRequest::decode(body.as_slice()).unwrap();
        let sent = &read.queries[0].matchers[0];
        assert_eq!((sent.r#type, sent.name.as_str(), sent.value.as_str()), (3, "host", "web(1|2)"));
    }
}
