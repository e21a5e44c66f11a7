//! The decoders of the store's files, for whoever feeds them bytes that nobody wrote: fuzz targets and tests. Bytes from a disk
//! are bytes from outside: a damaged one is an error, never a panic, and never more memory than its length justifies.

use super::{chunk, record};
use crate::query::source::TimeRange;
use crate::series::Sample;

/// A sealed chunk, its checksum made right, so that what is behind it is reached. Whatever decodes is the same in parts, and when it
/// is written and decoded once more.
///
/// # Errors
/// Why it is damaged, as text.
pub fn chunk(bytes: &[u8]) -> Result<Vec<Sample>, String> {
    let told = |error: &dyn std::error::Error| error.to_string();
    let mut body = bytes.to_vec();
    chunk::set_checksum(&mut body);
    let (count, _) = chunk::span(&body).map_err(|error| told(&error))?;
    let samples = chunk::decode(&body).map_err(|error| told(&error))?;
    assert_eq!(samples.len(), count, "the head of a chunk tells its length");
    if samples.len() <= chunk::CHUNK_SAMPLES_MAX && samples.is_sorted_by(|a, b| a.t < b.t) {
        let (a, b) = (bytes.len() * 31 % count, bytes.len() * 17 % count);
        let wanted = &samples[a.min(b)..=a.max(b)];
        let mut part = Vec::new();
        let range = TimeRange { from: wanted[0].t, to: wanted[wanted.len() - 1].t };
        chunk::decode_within(&body, range, &mut part).map_err(|error| told(&error))?;
        assert!(is_same(wanted, &part), "a part of a chunk is what the whole has there");
        let again = chunk::encode(&samples, chunk::Effort::Fast).map_err(|error| told(&error))?;
        let again = chunk::decode(&again).map_err(|error| told(&error))?;
        assert!(is_same(&samples, &again), "what was decoded comes back bit for bit");
    }
    Ok(samples)
}

/// A chunk of samples that are sorted and unique in time, for a corpus.
///
/// # Errors
/// The codec refuses, as text.
pub fn encode_chunk(samples: &[Sample]) -> Result<Vec<u8>, String> {
    chunk::encode(samples, chunk::Effort::Best).map_err(|error| error.to_string())
}

/// A record of a journal; returns how many samples are in it.
///
/// # Errors
/// Why it is damaged, as text.
pub fn record(bytes: &[u8]) -> Result<usize, String> {
    let series = record::decode(bytes).map_err(|error| error.to_string())?;
    Ok(series.iter().map(|one| one.samples.len()).sum())
}

fn is_same(a: &[Sample], b: &[Sample]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a.t, a.v.to_bits()) == (b.t, b.v.to_bits()))
}
