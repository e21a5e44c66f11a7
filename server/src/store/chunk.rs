//! A sealed chunk: samples of one series, sorted by time and unique in time, as columns. The layout stands in
//! docs/formats/store.md. Constants, regular times and decimal numbers have tags of our own, because most of a host's series
//! are one of these and a general codec spends bytes on finding out; the rest is `pco`. Every bit of a value comes back.

use pco::standalone::{simple_compress, simple_decompress_into};
use pco::{ChunkConfig, DeltaSpec, ModeSpec};

use super::varint::{self, DecodeError, Reader};
use crate::query::source::TimeRange;
use crate::series::{Sample, Timestamp};

/// Largest number of samples in a chunk: what one read of a short range may have to decode (about 20 µs).
pub const CHUNK_SAMPLES_MAX: usize = 1440;
/// Decoding refuses more than this; later writers may go up to it.
const DECODE_SAMPLES_MAX: usize = 1 << 16;

const VERSION: u8 = 1;
const TIMES_REGULAR: u8 = 0;
const TIMES_PCO: u8 = 1;
const TIMES_VARINT: u8 = 2;
const VALUES_CONSTANT: u8 = 0;
const VALUES_FLOAT: u8 = 1;
const VALUES_DECIMAL: u8 = 2;
const VALUES_DECIMAL_VARINT: u8 = 3;
const VALUES_RAW: u8 = 4;

/// Powers of ten that decimal values are scaled by. Four decimals are what the kernel's files have at most.
const SCALES: [f64; 5] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0];
/// Integers from here on are not all representable as floats.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Up to this many numbers plain varints are tried against pco, whose headers are about 40 bytes.
const VARINT_COUNT_MAX: usize = 256;

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
    varint::put(&mut out, samples.len() as u64);
    varint::put_signed(&mut out, first.t);
    varint::put(&mut out, last.t.wrapping_sub(first.t) as u64);
    put_times(&mut out, samples)
        .and_then(|()| put_values(&mut out, samples, effort))
        .map_err(|source| EncodeError { samples: samples.len(), source })?;
    Ok(out)
}

fn put_times(out: &mut Vec<u8>, samples: &[Sample]) -> pco::errors::PcoResult<()> {
    let deltas: Vec<i64> = samples.windows(2).map(|pair| pair[1].t - pair[0].t).collect();
    if deltas.windows(2).all(|pair| pair[0] == pair[1]) {
        out.push(TIMES_REGULAR);
        return Ok(());
    }
    let packed = simple_compress(&deltas, &config(ModeSpec::Classic, DeltaSpec::NoOp, Effort::Fast))?;
    let plain = varints(&deltas);
    push_shorter(out, (TIMES_VARINT, &plain), (TIMES_PCO, &packed));
    Ok(())
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
    let mut exceptions = Vec::new();
    let mut count = 0u64;
    let mut held = values.iter().copied().find(|value| value.is_finite()).unwrap_or(0.0);
    let mut after = 0;
    for (i, value) in values.iter_mut().enumerate() {
        if value.is_finite() {
            held = *value;
        } else {
            varint::put(&mut exceptions, (i - after) as u64);
            exceptions.extend_from_slice(&value.to_le_bytes());
            (*value, after, count) = (held, i, count + 1);
        }
    }
    let mut body = Vec::new();
    varint::put(&mut body, count);
    body.extend_from_slice(&exceptions);
    let tag = put_finite(&mut body, &values, effort)?;
    out.push(tag);
    out.extend_from_slice(&body);
    Ok(())
}

fn put_finite(out: &mut Vec<u8>, values: &[f64], effort: Effort) -> pco::errors::PcoResult<u8> {
    if let Some((scale, integers)) = as_decimals(values) {
        out.push(scale);
        let packed = simple_compress(&integers, &config(ModeSpec::Classic, delta_of(&integers), effort))?;
        if integers.len() <= VARINT_COUNT_MAX {
            let deltas: Vec<i64> =
                std::iter::once(integers[0]).chain(integers.windows(2).map(|pair| pair[1] - pair[0])).collect();
            let plain = varints(&deltas);
            if plain.len() <= packed.len() {
                out.extend_from_slice(&plain);
                return Ok(VALUES_DECIMAL_VARINT);
            }
        }
        out.extend_from_slice(&packed);
        return Ok(VALUES_DECIMAL);
    }
    // `Auto` costs up to ten times as much and finds multiples and quantization that the decimals above do not cover.
    let (mode, delta) = match effort {
        Effort::Fast => (ModeSpec::Classic, DeltaSpec::NoOp),
        Effort::Best => (ModeSpec::Auto, DeltaSpec::Auto),
    };
    let packed = simple_compress(values, &config(mode, delta, effort))?;
    if packed.len() < values.len() * 8 {
        out.extend_from_slice(&packed);
        return Ok(VALUES_FLOAT);
    }
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
    Ok(VALUES_RAW)
}

fn config(mode: ModeSpec, delta: DeltaSpec, effort: Effort) -> ChunkConfig {
    let level = if effort == Effort::Fast { 4 } else { 8 };
    ChunkConfig::default().with_compression_level(level).with_mode_spec(mode).with_delta_spec(delta)
}

fn varints(numbers: &[i64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(numbers.len() * 2);
    for &number in numbers {
        varint::put_signed(&mut out, number);
    }
    out
}

/// The values as integers over a power of ten, where that gives back every bit.
fn as_decimals(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    SCALES.iter().enumerate().find_map(|(index, scale)| {
        let integer = |&value: &f64| {
            let scaled = (value * scale).round();
            let exact = scaled.abs() < EXACT_MAX && (scaled as i64 as f64 / scale).to_bits() == value.to_bits();
            exact.then_some(scaled as i64)
        };
        values.iter().map(integer).collect::<Option<Vec<i64>>>().map(|integers| (index as u8, integers))
    })
}

/// Differences or plain numbers, whichever spread less by the mean of their logarithms: one pass, no trial compression.
fn delta_of(integers: &[i64]) -> DeltaSpec {
    let spread = |numbers: &mut dyn Iterator<Item = i64>| {
        let mut before: Option<i64> = None;
        let mut bits = 0u64;
        for number in numbers {
            let apart = before.map_or(0, |before| number.abs_diff(before));
            bits += u64::from(u64::BITS - apart.leading_zeros());
            before = Some(number);
        }
        bits
    };
    let centre = integers[integers.len() / 2];
    let plain: u64 =
        integers.iter().map(|&number| u64::from(u64::BITS - number.abs_diff(centre).leading_zeros())).sum();
    let first = spread(&mut integers.iter().copied());
    let second = spread(&mut integers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])));
    if plain <= first && plain <= second { DeltaSpec::NoOp } else { DeltaSpec::TryConsecutive(1) }
}

fn push_shorter(out: &mut Vec<u8>, plain: (u8, &[u8]), packed: (u8, &[u8])) {
    let (tag, bytes) = if plain.1.len() <= packed.1.len() { plain } else { packed };
    out.push(tag);
    varint::put_bytes(out, bytes);
}

/// How many samples a chunk has and from when to when, without decoding it.
///
/// # Errors
/// The bytes are damaged or of a newer version.
pub fn span(body: &[u8]) -> Result<(usize, TimeRange), DecodeError> {
    head(&mut Reader(body))
}

fn head(reader: &mut Reader<'_>) -> Result<(usize, TimeRange), DecodeError> {
    match reader.byte()? {
        VERSION => {}
        found => return Err(DecodeError::Unknown { what: "chunk version", found }),
    }
    let count = reader.unsigned()? as usize;
    if count == 0 || count > DECODE_SAMPLES_MAX {
        return Err(DecodeError::Impossible { what: "number of samples in a chunk" });
    }
    let from = reader.signed()?;
    let to = from.checked_add_unsigned(reader.unsigned()?).ok_or(DecodeError::Impossible { what: "end of a chunk" })?;
    Ok((count, TimeRange { from, to }))
}

/// Decodes a chunk.
///
/// # Errors
/// The bytes are damaged or of a newer version.
pub fn decode(body: &[u8]) -> Result<Vec<Sample>, DecodeError> {
    let mut reader = Reader(body);
    let (count, range) = head(&mut reader)?;
    let times = times(&mut reader, count, range)?;
    let values = values(&mut reader, count)?;
    Ok(times.into_iter().zip(values).map(|(t, v)| Sample { t, v }).collect())
}

fn times(reader: &mut Reader<'_>, count: usize, range: TimeRange) -> Result<Vec<Timestamp>, DecodeError> {
    let steps = count - 1;
    let deltas = match reader.byte()? {
        TIMES_REGULAR => {
            let step = if steps == 0 { 0 } else { range.to.wrapping_sub(range.from) / steps as i64 };
            vec![step; steps]
        }
        TIMES_PCO => unpack(reader.bytes()?, steps)?,
        TIMES_VARINT => {
            let mut plain = Reader(reader.bytes()?);
            (0..steps).map(|_| plain.signed()).collect::<Result<_, _>>()?
        }
        found => return Err(DecodeError::Unknown { what: "tag of times", found }),
    };
    let mut t = range.from;
    let later = deltas.into_iter().map(|delta| {
        t = t.wrapping_add(delta);
        t
    });
    Ok(std::iter::once(range.from).chain(later).collect())
}

fn values(reader: &mut Reader<'_>, count: usize) -> Result<Vec<f64>, DecodeError> {
    let tag = reader.byte()?;
    if tag == VALUES_CONSTANT {
        return Ok(vec![reader.float()?; count]);
    }
    let mut exceptions = Vec::new();
    let mut at = 0usize;
    for _ in 0..reader.count(9)? {
        at = at.saturating_add(reader.unsigned()? as usize);
        exceptions.push((at, reader.float()?));
    }
    let mut values = finite(reader, tag, count)?;
    for (at, value) in exceptions {
        *values.get_mut(at).ok_or(DecodeError::Impossible { what: "place of an exception" })? = value;
    }
    Ok(values)
}

fn finite(reader: &mut Reader<'_>, tag: u8, count: usize) -> Result<Vec<f64>, DecodeError> {
    let integers: Vec<i64>;
    let scale;
    match tag {
        VALUES_FLOAT => return unpack(reader.0, count),
        VALUES_RAW => return (0..count).map(|_| reader.float()).collect(),
        VALUES_DECIMAL => {
            scale = reader.byte()?;
            integers = unpack(reader.0, count)?;
        }
        VALUES_DECIMAL_VARINT => {
            scale = reader.byte()?;
            let mut sum = 0i64;
            let next = |_| {
                sum = sum.wrapping_add(reader.signed()?);
                Ok(sum)
            };
            integers = (0..count).map(next).collect::<Result<_, DecodeError>>()?;
        }
        found => return Err(DecodeError::Unknown { what: "tag of values", found }),
    }
    let scale = SCALES.get(usize::from(scale)).ok_or(DecodeError::Unknown { what: "scale", found: scale })?;
    Ok(integers.into_iter().map(|integer| integer as f64 / scale).collect())
}

/// pco's numbers; fewer than `count` is damage.
fn unpack<T: pco::data_types::Number + Default>(bytes: &[u8], count: usize) -> Result<Vec<T>, DecodeError> {
    let mut numbers = vec![T::default(); count];
    match simple_decompress_into(bytes, &mut numbers) {
        Ok(progress) if progress.n_processed == count => Ok(numbers),
        _ => Err(DecodeError::Impossible { what: "pco stream" }),
    }
}
