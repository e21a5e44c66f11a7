//! A sealed chunk: samples of one series, sorted by time and unique in time, as columns. The layout stands in
//! docs/formats/store.md. Constants, regular times and integers of any scale have tags of our own, because most of a host's
//! series are one of these and a general codec spends bytes on finding out; the rest is `pco`. Every bit of a value comes back.

use pco::standalone::{simple_compress, simple_decompress_into};
use pco::{ChunkConfig, DeltaSpec, ModeSpec};

use super::decimals;
use super::varint::{self, DecodeError, Reader};
use super::walk::{self, Walk};
use crate::query::source::TimeRange;
use crate::series::{Sample, Timestamp};

/// Largest number of samples in a chunk.
pub const CHUNK_SAMPLES_MAX: usize = 1440;
/// Decoding refuses more than this; later writers may go up to it.
const DECODE_SAMPLES_MAX: usize = 1 << 16;

/// Version 3 has stops in walks. A chunk without says 2, whose every byte it has.
const VERSION: u8 = 3;
const VERSION_WITHOUT_STOPS: u8 = 2;
const VERSION_FIRST: u8 = 1;
const TIMES_REGULAR: u8 = 0;
const TIMES_PCO: u8 = 1;
const TIMES_VARINT: u8 = 2;
const TIMES_WALK: u8 = 3;
const TIMES_STOPS: u8 = 4;
const VALUES_CONSTANT: u8 = 0;
const VALUES_FLOAT: u8 = 1;
const VALUES_DECIMAL: u8 = 2;
const VALUES_DECIMAL_VARINT: u8 = 3;
const VALUES_RAW: u8 = 4;
const VALUES_WALK: u8 = 5;
const VALUES_STOPS: u8 = 6;

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
    let mut out = vec![VERSION_WITHOUT_STOPS];
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else { return Ok(out) };
    let span = last.t.wrapping_sub(first.t) as u64;
    varint::put(&mut out, samples.len() as u64);
    varint::put_signed(&mut out, first.t);
    varint::put(&mut out, span);
    let times = put_times(&mut out, samples, span);
    let values =
        put_values(&mut out, samples, effort).map_err(|source| EncodeError { samples: samples.len(), source })?;
    if times == TIMES_STOPS || values == VALUES_STOPS {
        out[0] = VERSION;
    }
    Ok(out)
}

/// Appends the times; returns their tag.
fn put_times(out: &mut Vec<u8>, samples: &[Sample], span: u64) -> u8 {
    let mut steps = samples.windows(2).map(|pair| pair[1].t.wrapping_sub(pair[0].t));
    let step = steps.next();
    if steps.all(|other| Some(other) == step) {
        out.push(TIMES_REGULAR);
        return TIMES_REGULAR;
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
    tag
}

/// Appends the values; returns their tag. Those that are not finite stand as exceptions in front, so that a staleness marker
/// does not spoil the rest.
fn put_values(out: &mut Vec<u8>, samples: &[Sample], effort: Effort) -> pco::errors::PcoResult<u8> {
    let first = samples[0].v;
    if samples.iter().all(|sample| sample.v.to_bits() == first.to_bits()) {
        out.push(VALUES_CONSTANT);
        out.extend_from_slice(&first.to_le_bytes());
        return Ok(VALUES_CONSTANT);
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
    Ok(tag)
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

/// How many samples a chunk has and from when to when, without decoding it.
///
/// # Errors
/// The bytes are damaged or of a newer version.
pub fn span(body: &[u8]) -> Result<(usize, TimeRange), DecodeError> {
    head(&mut Reader(body))
}

fn head(reader: &mut Reader<'_>) -> Result<(usize, TimeRange), DecodeError> {
    match reader.byte()? {
        VERSION_FIRST..=VERSION => {}
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
    let mut samples = Vec::new();
    decode_within(body, TimeRange { from: Timestamp::MIN, to: Timestamp::MAX }, &mut samples)?;
    Ok(samples)
}

/// Appends the samples of a range. What comes after it is not decoded.
///
/// # Errors
/// The bytes are damaged or of a newer version; `out` is then as it was.
pub fn decode_within(body: &[u8], range: TimeRange, out: &mut Vec<Sample>) -> Result<(), DecodeError> {
    let mut reader = Reader(body);
    let (count, span) = head(&mut reader)?;
    let begin = out.len();
    let decoded = put_decoded_times(&mut reader, (count, span), range, out)
        .and_then(|before| fill_values(&mut reader, count, before, &mut out[begin..]));
    if decoded.is_err() {
        out.truncate(begin);
    }
    decoded
}

/// Appends samples of the range with their times only; returns how many of the chunk lie before them.
fn put_decoded_times(
    reader: &mut Reader<'_>,
    (count, span): (usize, TimeRange),
    range: TimeRange,
    out: &mut Vec<Sample>,
) -> Result<usize, DecodeError> {
    let tag = reader.byte()?;
    if tag == TIMES_REGULAR {
        let step = span.to.wrapping_sub(span.from) / (count as i64 - 1).max(1);
        let time = |i: usize| span.from.wrapping_add(step.wrapping_mul(i as i64));
        // Damaged bytes may have wrapped; what is then out of order is found out below like any other.
        let (from, to) = if range.from <= span.from && span.to <= range.to {
            (0, count)
        } else {
            (partition(count, |i| time(i) < range.from), partition(count, |i| time(i) <= range.to))
        };
        out.extend((from..to).map(|i| Sample { t: time(i), v: 0.0 }));
        return Ok(from);
    }
    let mut times = Vec::with_capacity(count);
    let mut before = 0;
    match tag {
        TIMES_WALK | TIMES_STOPS => {
            let walk = Walk::parse(reader.bytes()?, tag == TIMES_STOPS)?;
            let places = walk.places(span.from, count, (range.from, range.to))?;
            before = places.start;
            walk.read(span.from, places, |t| times.push(t))?;
        }
        TIMES_PCO => sum_times(span.from, unpack(reader.bytes()?, count - 1)?.into_iter().map(Ok), &mut times)?,
        TIMES_VARINT => {
            let mut plain = Reader(reader.bytes()?);
            sum_times(span.from, (1..count).map(|_| plain.signed()), &mut times)?;
        }
        found => return Err(DecodeError::Unknown { what: "tag of times", found }),
    }
    let from = times.partition_point(|t| *t < range.from);
    let to = times.partition_point(|t| *t <= range.to);
    out.extend(times.get(from..to).unwrap_or(&[]).iter().map(|&t| Sample { t, v: 0.0 }));
    Ok(before + from)
}

fn sum_times(
    first: Timestamp,
    differences: impl Iterator<Item = Result<i64, DecodeError>>,
    times: &mut Vec<Timestamp>,
) -> Result<(), DecodeError> {
    let mut t = first;
    times.push(t);
    for difference in differences {
        t = t.wrapping_add(difference?);
        times.push(t);
    }
    Ok(())
}

/// The first of `count` numbers for which a condition does not hold that no later one fulfils.
fn partition(count: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        if holds(middle) { low = middle + 1 } else { high = middle }
    }
    low
}

/// Sets the values of samples of which `before` are not asked for.
fn fill_values(
    reader: &mut Reader<'_>,
    count: usize,
    before: usize,
    samples: &mut [Sample],
) -> Result<(), DecodeError> {
    let tag = reader.byte()?;
    if tag == VALUES_CONSTANT {
        let value = reader.float()?;
        for sample in samples {
            sample.v = value;
        }
        return Ok(());
    }
    let exceptions_count = reader.count(9)?;
    let exceptions = reader.clone();
    for _ in 0..exceptions_count {
        reader.unsigned()?;
        reader.float()?;
    }
    fill_finite(reader, tag, (count, before), samples)?;
    let mut exceptions = exceptions;
    let mut at = 0usize;
    for _ in 0..exceptions_count {
        at = at.saturating_add(exceptions.unsigned()? as usize);
        let value = exceptions.float()?;
        if at >= count {
            return Err(DecodeError::Impossible { what: "place of an exception" });
        }
        if let Some(sample) = at.checked_sub(before).and_then(|at| samples.get_mut(at)) {
            sample.v = value;
        }
    }
    Ok(())
}

fn fill_finite(
    reader: &mut Reader<'_>,
    tag: u8,
    (count, before): (usize, usize),
    samples: &mut [Sample],
) -> Result<(), DecodeError> {
    let wanted = before..before + samples.len();
    let mut places = samples.iter_mut();
    let mut set = |value: f64| {
        if let Some(sample) = places.next() {
            sample.v = value;
        }
    };
    match tag {
        VALUES_FLOAT => unpack(reader.0, count)?.into_iter().skip(before).for_each(set),
        VALUES_RAW => {
            reader.take(8 * before)?;
            for _ in wanted {
                set(reader.float()?);
            }
        }
        VALUES_DECIMAL => {
            let divisor = decimals::divisor(reader.byte()?)?;
            let integers = unpack(reader.0, count)?.into_iter().skip(before);
            integers.for_each(|integer: i64| set(integer as f64 / divisor));
        }
        VALUES_DECIMAL_VARINT => {
            let divisor = decimals::divisor(reader.byte()?)?;
            let mut sum = 0i64;
            for i in 0..wanted.end {
                sum = sum.wrapping_add(reader.signed()?);
                if i >= before {
                    set(sum as f64 / divisor);
                }
            }
        }
        VALUES_WALK | VALUES_STOPS => {
            let divisor = decimals::divisor(reader.byte()?)?;
            let first = reader.signed()?;
            let walk = Walk::parse(reader.0, tag == VALUES_STOPS)?;
            walk.read(first, wanted, |integer| set(integer as f64 / divisor))?;
        }
        found => return Err(DecodeError::Unknown { what: "tag of values", found }),
    }
    Ok(())
}

/// pco's numbers; fewer than `count` is damage.
fn unpack<T: pco::data_types::Number + Default>(bytes: &[u8], count: usize) -> Result<Vec<T>, DecodeError> {
    let mut numbers = vec![T::default(); count];
    match simple_decompress_into(bytes, &mut numbers) {
        Ok(progress) if progress.n_processed == count => Ok(numbers),
        _ => Err(DecodeError::Impossible { what: "pco stream" }),
    }
}
