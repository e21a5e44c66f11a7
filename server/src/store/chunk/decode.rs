//! Reading a chunk, or the part of it in a range of time. Damaged bytes are an error, never a panic; those of version 3 are
//! known by their checksum.

use crc32c::crc32c;
use pco::standalone::simple_decompress_into;

use super::walk::Walk;
use super::{
    CHECKSUM_BYTES, TIMES_PCO, TIMES_REGULAR, TIMES_STOPS, TIMES_VARINT, TIMES_WALK, VALUES_CONSTANT, VALUES_DECIMAL,
    VALUES_DECIMAL_VARINT, VALUES_FLOAT, VALUES_RAW, VALUES_STOPS, VALUES_WALK, VERSION, VERSION_CHECKED,
    VERSION_FIRST, decimals,
};
use crate::query::source::TimeRange;
use crate::series::{Sample, Timestamp};
use crate::store::varint::{DecodeError, Reader};

/// More samples than this in a chunk are refused; later writers may go up to it.
const DECODE_SAMPLES_MAX: usize = 1 << 16;

/// How many samples a chunk has and from when to when, without decoding it.
///
/// # Errors
/// The bytes are damaged or of a newer version.
pub fn span(body: &[u8]) -> Result<(usize, TimeRange), DecodeError> {
    head(&mut Reader(body))
}

/// What the checksum is of, once it is found right.
fn checked(body: &[u8]) -> Result<&[u8], DecodeError> {
    if body.first().is_none_or(|version| *version < VERSION_CHECKED) {
        return Ok(body);
    }
    let (content, checksum) = body.split_last_chunk::<CHECKSUM_BYTES>().ok_or(DecodeError::Truncated)?;
    if crc32c(content) == u32::from_le_bytes(*checksum) { Ok(content) } else { Err(DecodeError::Checksum) }
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
    let mut reader = Reader(checked(body)?);
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
            let walk = Walk::parse(reader.bytes()?, count, tag == TIMES_STOPS)?;
            let places = walk.places(span.from, (range.from, range.to))?;
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
            let walk = Walk::parse(reader.0, count, tag == VALUES_STOPS)?;
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
