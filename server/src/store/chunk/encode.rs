//! Writing a chunk: for times and values the tag that takes the fewest bytes.

use crc32c::crc32c;
use pco::standalone::simple_compress;
use pco::{ChunkConfig, DeltaSpec, ModeSpec};

use super::{
    CHECKSUM_BYTES, CHUNK_SAMPLES_MAX, TIMES_REGULAR, TIMES_STOPS, TIMES_VARINT, TIMES_WALK, VALUES_CONSTANT,
    VALUES_DECIMAL, VALUES_FLOAT, VALUES_RAW, VALUES_STOPS, VALUES_WALK, VERSION, VERSION_CHECKED, decimals, walk,
};
use crate::series::{Sample, Timestamp};
use crate::store::varint;

/// Times farther apart than this are told as plain differences: a walk's arithmetic has 55 bits.
const WALK_SPAN_MAX: u64 = 1 << 53;
/// With more exceptions than one in so many values, none are made and the floats are coded as they are.
const EXCEPTIONS_SHARE: usize = 8;
/// Among no more different values than these pco may find a better code than a walk, which knows only near and far.
const DISTINCT_MAX: usize = 64;
/// Values on which pco's costly search is tried first.
const PROBE_SAMPLES: usize = 256;
/// Higher levels of pco gained under 1 % on floats of 720 and more.
const PCO_LEVEL: usize = 6;

/// How much time encoding may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// First sealing: the chunk will be merged soon.
    Fast,
    /// Merging: the chunk stays until retention takes it.
    Best,
}

/// A chunk could not be written. Only impossible settings of the codec lead here.
#[derive(Debug, thiserror::Error)]
#[error("{samples} samples cannot be compressed")]
pub struct EncodeError {
    samples: usize,
    #[source]
    source: pco::errors::PcoError,
}

/// Encodes 1 to [`CHUNK_SAMPLES_MAX`] samples, sorted and unique in time.
///
/// # Errors
/// The codec refuses; no data does that.
pub fn encode(samples: &[Sample], effort: Effort) -> Result<Vec<u8>, EncodeError> {
    debug_assert!(samples.is_sorted_by(|a, b| a.t < b.t) && samples.len() <= CHUNK_SAMPLES_MAX);
    let mut out = vec![VERSION];
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Ok(out) };
    let span = last.t.wrapping_sub(first.t) as u64;
    varint::put(&mut out, samples.len() as u64);
    varint::put_signed(&mut out, first.t);
    varint::put(&mut out, span);
    put_times(&mut out, samples, span);
    put_values(&mut out, samples, effort).map_err(|source| EncodeError { samples: samples.len(), source })?;
    out.extend_from_slice(&[0; CHECKSUM_BYTES]);
    set_checksum(&mut out);
    Ok(out)
}

/// Makes the checksum right of a body that has one.
pub(in crate::store) fn set_checksum(body: &mut [u8]) {
    if body.first().is_some_and(|version| *version >= VERSION_CHECKED)
        && let Some((content, checksum)) = body.split_last_chunk_mut::<CHECKSUM_BYTES>()
    {
        *checksum = crc32c(content).to_le_bytes();
    }
}

fn put_times(out: &mut Vec<u8>, samples: &[Sample], span: u64) {
    let mut steps = samples.windows(2).map(|pair| pair[1].t.wrapping_sub(pair[0].t));
    let step = steps.next();
    if i64::try_from(span).is_ok() && steps.all(|other| Some(other) == step) {
        out.push(TIMES_REGULAR);
        return;
    }
    let mut body = Vec::new();
    let tag = if span < WALK_SPAN_MAX {
        let times: Vec<Timestamp> = samples.iter().map(|sample| sample.t).collect();
        if walk::put(&mut body, &times) { TIMES_STOPS } else { TIMES_WALK }
    } else {
        for pair in samples.windows(2) {
            varint::put_signed(&mut body, pair[1].t.wrapping_sub(pair[0].t));
        }
        TIMES_VARINT
    };
    out.push(tag);
    varint::put_bytes(out, &body);
}

/// Values that are not finite stand as exceptions in front, so that a staleness marker does not spoil the rest.
fn put_values(out: &mut Vec<u8>, samples: &[Sample], effort: Effort) -> pco::errors::PcoResult<()> {
    let first = samples[0].v;
    if samples.iter().all(|sample| sample.v.to_bits() == first.to_bits()) {
        out.push(VALUES_CONSTANT);
        out.extend_from_slice(&first.to_le_bytes());
        return Ok(());
    }
    let mut values: Vec<f64> = samples.iter().map(|sample| sample.v).collect();
    let mut body = Vec::new();
    let count = values.iter().filter(|value| is_exception(**value)).count();
    let tag = if count * EXCEPTIONS_SHARE > values.len() {
        varint::put(&mut body, 0);
        put_floats(&mut body, &values, effort)?
    } else {
        varint::put(&mut body, count as u64);
        if count > 0 {
            take_exceptions(&mut body, &mut values);
        }
        put_finite(&mut body, &values, effort)?
    };
    out.push(tag);
    out.extend_from_slice(&body);
    Ok(())
}

fn is_exception(value: f64) -> bool {
    !value.is_finite() || value.to_bits() == (-0.0f64).to_bits()
}

fn take_exceptions(out: &mut Vec<u8>, values: &mut [f64]) {
    let mut held = values.iter().copied().find(|value| !is_exception(*value)).unwrap_or(0.0);
    let mut after = 0;
    for (i, value) in values.iter_mut().enumerate() {
        if is_exception(*value) {
            varint::put(out, (i - after) as u64);
            out.extend_from_slice(&value.to_le_bytes());
            (*value, after) = (held, i);
        } else {
            held = *value;
        }
    }
}

/// Appends values that are finite and not −0; returns their tag.
fn put_finite(out: &mut Vec<u8>, values: &[f64], effort: Effort) -> pco::errors::PcoResult<u8> {
    let Some((scale, integers)) = decimals::from_floats(values) else { return put_floats(out, values, effort) };
    let mut walked = vec![scale];
    varint::put_signed(&mut walked, integers[0]);
    let tag = if walk::put(&mut walked, &integers) { VALUES_STOPS } else { VALUES_WALK };
    if decimals::is_binary(scale) && effort == Effort::Best {
        let mut floats = Vec::new();
        let tag = put_floats(&mut floats, values, effort)?;
        if floats.len() < walked.len() {
            out.extend_from_slice(&floats);
            return Ok(tag);
        }
    }
    // From a quarter of a byte each on, few values have more order than a walk sees, such as a clock's few frequencies.
    if effort == Effort::Best && walked.len() > values.len() / 4 && is_of_few(&integers) {
        let packed = simple_compress(&integers, &config(DeltaSpec::NoOp))?;
        if packed.len() + 1 < walked.len() {
            out.push(scale);
            out.extend_from_slice(&packed);
            return Ok(VALUES_DECIMAL);
        }
    }
    out.extend_from_slice(&walked);
    Ok(tag)
}

/// Whether there are at most [`DISTINCT_MAX`] different numbers.
fn is_of_few(integers: &[i64]) -> bool {
    let mut distinct: Vec<i64> = Vec::with_capacity(DISTINCT_MAX);
    for integer in integers {
        if let Err(at) = distinct.binary_search(integer) {
            if distinct.len() == DISTINCT_MAX {
                return false;
            }
            distinct.insert(at, *integer);
        }
    }
    true
}

/// Appends floats of any kind; returns their tag.
fn put_floats(out: &mut Vec<u8>, values: &[f64], effort: Effort) -> pco::errors::PcoResult<u8> {
    let mut packed = simple_compress(values, &config(float_delta(values)))?;
    // pco finds multiples of what is no power of ten, at ten times the cost: only where a part of the values says it is worth it.
    if effort == Effort::Best {
        let part = &values[..values.len().min(PROBE_SAMPLES)];
        let searched = ChunkConfig::default().with_mode_spec(ModeSpec::Auto).with_delta_spec(DeltaSpec::Auto);
        let plain = simple_compress(part, &config(float_delta(part)))?;
        if simple_compress(part, &searched)?.len() * 10 < plain.len() * 9 {
            let found = simple_compress(values, &searched)?;
            if found.len() < packed.len() {
                packed = found;
            }
        }
    }
    if packed.len() < values.len() * 8 {
        out.extend_from_slice(&packed);
        return Ok(VALUES_FLOAT);
    }
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
    Ok(VALUES_RAW)
}

/// Differences where the floats' bits lie nearer to each other than to one in the middle: one pass, no trial compression.
fn float_delta(values: &[f64]) -> DeltaSpec {
    let bits = |a: f64, b: f64| u64::from(u64::BITS - a.to_bits().abs_diff(b.to_bits()).leading_zeros());
    let centre = values[values.len() / 2];
    let apart: u64 = values.iter().map(|value| bits(*value, centre)).sum();
    let steps: u64 = values.windows(2).map(|pair| bits(pair[0], pair[1])).sum();
    if apart <= steps { DeltaSpec::NoOp } else { DeltaSpec::TryConsecutive(1) }
}

fn config(delta: DeltaSpec) -> ChunkConfig {
    ChunkConfig::default().with_compression_level(PCO_LEVEL).with_mode_spec(ModeSpec::Classic).with_delta_spec(delta)
}
