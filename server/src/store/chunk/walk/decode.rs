//! Reading a walk, or a part of it from the last stop on.

use std::ops::Range;

use super::{BLOCK_NUMBERS, CURVE, LEVEL, LEVEL_RUNS, Mean, RUN_MAGNITUDE, Start, TREND, TREND_RUNS, unzigzag};
use crate::store::chunk::bits::{BitReader, Scale};
use crate::store::varint::{DecodeError, Reader};

/// A walk as it is read.
#[derive(Debug)]
pub struct Walk<'a> {
    method: u8,
    /// How many numbers there are, the first with them.
    count: usize,
    divisor: i64,
    start: Start,
    stops: &'a [u8],
    bits: &'a [u8],
}

/// Where a block begins.
#[derive(Debug, Clone)]
struct Place<'a> {
    block: usize,
    bit: u64,
    /// The number before the block's first, over the divisor and less the walk's first. Not known of methods that tell levels.
    level: i64,
    start: Start,
    /// The stops behind it.
    stops: Reader<'a>,
}

impl<'a> Walk<'a> {
    /// The walk of `count` numbers in bytes that [`put`] wrote, which said whether it has stops.
    ///
    /// # Errors
    /// The bytes are damaged or of a newer version.
    pub fn parse(bytes: &'a [u8], count: usize, has_stops: bool) -> Result<Walk<'a>, DecodeError> {
        let mut reader = Reader(bytes);
        let method = reader.byte()?;
        let divisor = reader.unsigned()? as i64;
        let start = Start::read(&mut reader, Start { centre: 0, magnitude: 0 })?;
        let stops = if has_stops { reader.bytes()? } else { &[] };
        match method {
            LEVEL | TREND | CURVE => {}
            LEVEL_RUNS | TREND_RUNS if stops.is_empty() => {}
            found => return Err(DecodeError::Unknown { what: "method of a walk", found }),
        }
        Ok(Walk { method, count, divisor, start, stops, bits: reader.0 })
    }

    /// Calls `each` with the `wanted` of the numbers. O(wanted) and what stands before them from the last stop on. What was
    /// read whole without an error gives the same in parts.
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn read(&self, first: i64, wanted: Range<usize>, mut each: impl FnMut(i64)) -> Result<(), DecodeError> {
        if wanted.contains(&0) {
            each(first);
        }
        // The first number is not among what the codes tell.
        let told = wanted.start.saturating_sub(1)..wanted.end.saturating_sub(1);
        if told.is_empty() {
            return Ok(());
        }
        let place = self.seek(told.start)?;
        let mut skip = told.start - place.block * BLOCK_NUMBERS;
        self.read_from(place, told.end, |level| {
            if skip > 0 {
                skip -= 1;
            } else {
                each(self.number(first, level));
            }
        })
    }

    /// Which of the rising numbers can lie from one value to another, as far as stops tell: all that do, and maybe more. Reads no
    /// code.
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn places(&self, first: i64, (from, to): (i64, i64)) -> Result<Range<usize>, DecodeError> {
        let mut places = 0..self.count;
        if self.tells_levels() {
            return Ok(places);
        }
        let mut place = self.first_place();
        while !place.stops.is_empty() {
            place = self.next_stop(place)?;
            let (stop, number) = (place.block * BLOCK_NUMBERS, self.number(first, place.level));
            if number < from {
                places.start = stop + 1;
            } else if number > to {
                places.end = stop;
                break;
            }
        }
        Ok(places)
    }

    fn number(&self, first: i64, level: i64) -> i64 {
        first.wrapping_add(level.wrapping_mul(self.divisor))
    }

    /// Whether the codes tell each number by itself, not how far it is from the one before.
    fn tells_levels(&self) -> bool {
        matches!(self.method, LEVEL | LEVEL_RUNS)
    }

    fn first_place(&self) -> Place<'a> {
        Place { block: 0, bit: 0, level: 0, start: self.start, stops: Reader(self.stops) }
    }

    /// The stop behind a place.
    fn next_stop(&self, mut place: Place<'a>) -> Result<Place<'a>, DecodeError> {
        place.block += 1;
        if place.block * BLOCK_NUMBERS + 1 >= self.count {
            return Err(DecodeError::Impossible { what: "number of stops" });
        }
        place.bit = place.bit.wrapping_add(place.stops.unsigned()?);
        if !self.tells_levels() {
            place.level = place.level.wrapping_add(place.start.way()).wrapping_add(place.stops.signed()?);
        }
        place.start = Start::read(&mut place.stops, place.start)?;
        Ok(place)
    }

    /// The beginning of the block that a number is in.
    fn seek(&self, told: usize) -> Result<Place<'a>, DecodeError> {
        let mut place = self.first_place();
        while !place.stops.is_empty() && (place.block + 1) * BLOCK_NUMBERS <= told {
            place = self.next_stop(place)?;
        }
        Ok(place)
    }

    /// Calls `each` with the numbers from a place on, up to what the code `to` tells; over the divisor and less the first.
    fn read_from(&self, mut place: Place<'a>, to: usize, mut each: impl FnMut(i64)) -> Result<(), DecodeError> {
        let mut bits = BitReader::new(self.bits, place.bit);
        let mut level = place.level;
        loop {
            let left = to - place.block * BLOCK_NUMBERS;
            // Without stops the walk is one block, whatever its length.
            let count = if place.stops.is_empty() { left } else { left.min(BLOCK_NUMBERS) };
            let step = |told: i64| {
                level = level.wrapping_add(told);
                each(level);
            };
            bits = match self.method {
                LEVEL => read_drifting(bits, place.start, count, &mut each),
                TREND => read_drifting(bits, place.start, count, step),
                CURVE => read_curve(bits, place.start, count, step),
                LEVEL_RUNS => read_runs(bits, place.start, count, &mut each),
                _ => read_runs(bits, place.start, count, step),
            };
            if bits.is_past_end() {
                return Err(DecodeError::Truncated);
            }
            if count == left {
                return Ok(());
            }
            place = self.next_stop(place)?;
            if place.bit != bits.position() || place.level != level {
                return Err(DecodeError::Impossible { what: "stop of a walk" });
            }
        }
    }
}

// The readers of codes take the bits and give them back: in a place of their own they would be in memory, not in registers.

fn read_drifting(mut bits: BitReader<'_>, start: Start, count: usize, mut each: impl FnMut(i64)) -> BitReader<'_> {
    let mut scale = Scale::of_magnitude(start.magnitude);
    let mut mean = Mean::new(start.centre);
    for _ in 0..count {
        let coded_with = scale;
        let told = mean.expected().wrapping_add(unzigzag(bits.next(&mut scale)));
        mean.learn(told, coded_with);
        each(told);
    }
    bits
}

fn read_curve(mut bits: BitReader<'_>, start: Start, count: usize, mut each: impl FnMut(i64)) -> BitReader<'_> {
    let mut scale = Scale::of_magnitude(start.magnitude);
    let mut told = start.centre;
    for _ in 0..count {
        told = told.wrapping_add(unzigzag(bits.next(&mut scale)));
        each(told);
    }
    bits
}

fn read_runs(mut bits: BitReader<'_>, start: Start, count: usize, mut each: impl FnMut(i64)) -> BitReader<'_> {
    let (mut runs, mut scale) = (Scale::of_magnitude(RUN_MAGNITUDE), Scale::of_magnitude(start.magnitude));
    let mut left = count as u64;
    while left > 0 {
        // A walk may be read in part: a run that goes on beyond what is asked for is no damage.
        let run = bits.next(&mut runs).min(left);
        for _ in 0..run {
            each(start.centre);
        }
        left -= run;
        if left > 0 {
            let code = bits.next(&mut scale).wrapping_add(1);
            each(start.centre.wrapping_add(unzigzag(code)));
            left -= 1;
        }
    }
    bits
}
