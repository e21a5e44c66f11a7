//! Prometheus' remote read, as a client: questions in, series with samples out. Asks for plain samples, which every source of
//! the protocol can give. Pure: bytes in, bytes out.

use petrel_agent::error_chain::chain;
use prost::Message;

use crate::query::ast::Expr;
use crate::remote::prompb::{LabelMatcher, Query, ReadRequest, ReadResponse, SAMPLES, TimeSeries};
use crate::series::{MatchOp, Timestamp};

/// Largest answer taken, decompressed. A time slice that comes to more is asked again in halves.
pub const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why an answer was not taken.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Too much for one question; ask for a shorter time.
    #[error("the answer is larger than {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
    /// Not snappy.
    #[error("the answer is not compressed as remote read asks")]
    Snappy(#[from] snap::Error),
    /// Not the protocol.
    #[error("the answer is not one of remote read")]
    Protobuf(#[from] prost::DecodeError),
}

/// The conditions of a selector such as `{job="node"}`.
///
/// # Errors
/// What is wrong with it.
pub fn matchers(selector: &str) -> Result<Vec<LabelMatcher>, String> {
    let selector = match crate::query::parse(selector) {
        Ok(Expr::Selector(selector)) => selector,
        Ok(_) => return Err("is no series selector such as {job=\"node\"}".to_owned()),
        Err(error) => return Err(chain(&error)),
    };
    if selector.at.is_some() || selector.offset_ms != 0 || selector.offset_expr.is_some() {
        return Err("must be plain: no offset, no @".to_owned());
    }
    let all = selector.matchers.into_iter().map(|matcher| {
        let (r#type, value) = match matcher.op {
            MatchOp::Equal(value) => (0, value),
            MatchOp::NotEqual(value) => (1, value),
            MatchOp::Regex(regex) => (2, regex.as_str().to_owned()),
            MatchOp::NotRegex(regex) => (3, regex.as_str().to_owned()),
        };
        // As compiled, with anchors; sources anchor once more, which changes nothing.
        LabelMatcher { r#type, name: matcher.name, value }
    });
    Ok(all.collect())
}

/// The body of a question for all samples from `from` to `to`, both included, of series that fulfil any of the selectors.
///
/// # Errors
/// The question cannot be compressed.
pub fn question(selectors: &[Vec<LabelMatcher>], from: Timestamp, to: Timestamp) -> Result<Vec<u8>, snap::Error> {
    let queries = selectors
        .iter()
        .map(|matchers| Query { start_timestamp_ms: from, end_timestamp_ms: to, matchers: matchers.clone() })
        .collect();
    let request = ReadRequest { queries, accepted_response_types: vec![SAMPLES] };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec())
}

/// The series of an answer; one that fulfils several selectors stands in it once.
///
/// # Errors
/// The answer is too large or none.
pub fn answer(body: &[u8]) -> Result<Vec<TimeSeries>, AnswerError> {
    if snap::raw::decompress_len(body)? > ANSWER_BYTES_MAX {
        return Err(AnswerError::TooLarge);
    }
    let response = ReadResponse::decode(snap::raw::Decoder::new().decompress_vec(body)?.as_slice())?;
    let several = response.results.len() > 1;
    let mut series: Vec<TimeSeries> = response.results.into_iter().flat_map(|result| result.timeseries).collect();
    if several {
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        series.dedup_by(|a, b| a.labels == b.labels);
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_become_conditions() {
        let told = matchers(r#"up{job=~"node|x",a!="b",c!~"d"}"#).unwrap();
        let all: Vec<(i32, &str, &str)> =
            told.iter().map(|one| (one.r#type, one.name.as_str(), one.value.as_str())).collect();
        let mut all = all;
        all.sort_unstable_by_key(|(_, name, _)| *name);
        let expected = [(0, "__name__", "up"), (1, "a", "b"), (3, "c", "^(?s:d)$"), (2, "job", "^(?s:node|x)$")];
        assert_eq!(all, expected);
        for wrong in ["rate(up[5m])", "up offset 5m", "1", "up{"] {
            assert!(matchers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_answer_that_claims_too_much_is_refused_unread() {
        // A length of 2 GiB in front of nothing.
        let claim = [0x80, 0x80, 0x80, 0x80, 0x08];
        assert!(matches!(answer(&claim), Err(AnswerError::TooLarge)));
        assert!(answer(b"no snappy").is_err());
    }
}
