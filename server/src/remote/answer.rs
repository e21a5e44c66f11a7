//! The remote engine's answers as series: remote read's protobuf, and the JSON of Prometheus' API. Whatever comes is checked against
//! the question: series that do not fit and samples outside the range are left out, and times are made unique.

use std::borrow::Cow;
use std::collections::BTreeMap;

use prost::Message as _;
use serde::Deserialize;

use super::prompb::ReadResponse;
use crate::query::source::Selected;
use crate::series::{Labels, Matcher, Sample, Timestamp};
use crate::store::TimeRange;

/// Why an answer could not be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It is not what the protocol says.
    #[error("the remote engine's answer cannot be read; is engine.remote.read_protocol right for it?")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It is larger than allowed when decompressed.
    #[error("the remote engine answers {bytes} bytes, more than the {bytes_max} of engine.remote.response_max")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// It has more samples than the query may load.
    #[error("more than {samples_max} samples")]
    TooManySamples {
        /// The limit.
        samples_max: u64,
    },
}

fn malformed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AnswerError {
    AnswerError::Malformed(error.into())
}

/// What was asked for.
pub struct Question<'a> {
    /// Which series.
    pub matchers: &'a [Matcher],
    /// Which times.
    pub range: TimeRange,
    /// Most samples.
    pub samples_max: u64,
}

impl Question<'_> {
    /// Keeps what was asked for.
    fn sift(&self, series: impl Iterator<Item = (Labels, Vec<Sample>)>) -> Result<Vec<Selected>, AnswerError> {
        let samples_max = self.samples_max;
        let mut left = samples_max;
        let mut by_labels: BTreeMap<Labels, Vec<Sample>> = BTreeMap::new();
        for (labels, mut samples) in series {
            if !self.matchers.iter().all(|matcher| matcher.matches(&labels)) {
                continue;
            }
            samples.retain(|sample| (self.range.from..=self.range.to).contains(&sample.t));
            left = left.checked_sub(samples.len() as u64).ok_or(AnswerError::TooManySamples { samples_max })?;
            if !samples.is_empty() {
                by_labels.entry(labels).or_default().extend(samples);
            }
        }
        let unique = |(labels, mut samples): (Labels, Vec<Sample>)| {
            samples.sort_by_key(|sample| sample.t);
            // Engines without deduplication keep what was sent twice after a crash.
            samples.reverse();
            samples.dedup_by_key(|sample| sample.t);
            samples.reverse();
            Selected { labels, samples }
        };
        Ok(by_labels.into_iter().map(unique).collect())
    }
}

/// Reads the answer of remote read, compressed.
///
/// # Errors
/// It is malformed or too large.
pub fn of_remote_read(body: &[u8], bytes_max: usize, question: &Question<'_>) -> Result<Vec<Selected>, AnswerError> {
    let bytes = snap::raw::decompress_len(body).map_err(malformed)?;
    if bytes > bytes_max {
        return Err(AnswerError::TooLarge { bytes, bytes_max });
    }
    let plain = snap::raw::Decoder::new().decompress_vec(body).map_err(malformed)?;
    let response = ReadResponse::decode(plain.as_slice()).map_err(malformed)?;
    let series = response.results.into_iter().flat_map(|result| result.timeseries);
    question.sift(series.map(|one| {
        let labels = Labels::new(one.labels.into_iter().map(|label| (label.name, label.value)));
        (labels, one.samples.iter().map(|sample| Sample { t: sample.timestamp, v: sample.value }).collect())
    }))
}

#[derive(Deserialize)]
struct Answered<T> {
    data: T,
}

#[derive(Deserialize)]
struct Matrix<'a> {
    #[serde(borrow)]
    result: Vec<MatrixSeries<'a>>,
}

#[derive(Deserialize)]
struct MatrixSeries<'a> {
    #[serde(borrow)]
    metric: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    #[serde(borrow, default)]
    values: Vec<(f64, Cow<'a, str>)>,
}

/// Reads the answer to a query for a range selector. `nan_is_stale` where the engine keeps no other NaN.
///
/// # Errors
/// It is malformed or too large.
pub fn of_query(body: &[u8], nan_is_stale: bool, question: &Question<'_>) -> Result<Vec<Selected>, AnswerError> {
    let answered: Answered<Matrix<'_>> = serde_json::from_slice(body).map_err(malformed)?;
    let mut series = Vec::with_capacity(answered.data.result.len());
    for MatrixSeries { metric, values } in answered.data.result {
        let mut samples = Vec::with_capacity(values.len());
        for (seconds, text) in values {
            let t = (seconds * 1000.0).round() as Timestamp;
            let v: f64 = text.parse().map_err(malformed)?;
            samples.push(if nan_is_stale && v.is_nan() { Sample::stale(t) } else { Sample { t, v } });
        }
        series.push((labels(&metric), samples));
    }
    question.sift(series.into_iter())
}

/// Reads a list of label sets.
///
/// # Errors
/// It is malformed.
pub fn of_series(body: &[u8]) -> Result<Vec<Labels>, AnswerError> {
    let answered: Answered<Vec<BTreeMap<Cow<'_, str>, Cow<'_, str>>>> =
        serde_json::from_slice(body).map_err(malformed)?;
    Ok(answered.data.iter().map(labels).collect())
}

fn labels(metric: &BTreeMap<Cow<'_, str>, Cow<'_, str>>) -> Labels {
    Labels::new(metric.iter().map(|(name, value)| (&**name, &**value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: TimeRange = TimeRange { from: 0, to: 10_000 };

    fn question(samples_max: u64) -> Question<'static> {
        Question { matchers: &[], range: ALL, samples_max }
    }

    #[test]
    fn a_query_answers_numbers_as_text_in_any_order_and_twice() {
        let body = br#"{"status":"success","data":{"resultType":"matrix","result":[
            {"metric":{"__name__":"up","a":"\u00fc"},"values":[[2,"+Inf"],[1.001,"-0.5"],[1.001,"1e3"],[3,"NaN"],[99,"7"]]}]}}"#;
        let got = of_query(body, true, &question(100)).unwrap();
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].labels.get("a"), Some("ü"));
        let shown: Vec<String> = got[0]
            .samples
            .iter()
            .map(|s| format!("{} {}", s.t, if s.is_stale() { "stale".into() } else { s.v.to_string() }))
            .collect();
        assert_eq!(shown, ["1001 1000", "2000 inf", "3000 stale"]);
        let plain = of_query(body, false, &question(100)).unwrap();
        assert!(!plain[0].samples[2].is_stale() && plain[0].samples[2].v.is_nan());
        assert!(matches!(of_query(body, true, &question(3)), Err(AnswerError::TooManySamples { samples_max: 3 })));
        assert!(matches!(of_query(b"<html>", true, &question(3)), Err(AnswerError::Malformed(_))));
    }

    #[test]
    fn a_bomb_is_refused_by_its_size() {
        let bomb = snap::raw::Encoder::new().compress_vec(&vec![0; 1 << 20]).unwrap();
        let error = of_remote_read(&bomb, 1 << 10, &question(1)).unwrap_err();
        assert!(matches!(error, AnswerError::TooLarge { bytes: 1_048_576, bytes_max: 1_024 }), "{error}");
        assert!(of_remote_read(b"\xff\xff\xff\xff\xff\xff", 1 << 10, &question(1)).is_err());
    }
}
