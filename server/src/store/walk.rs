//! Integers that go on from one another: counters, gauges in steps of their resolution, times. Told as how far each misses what
//! the ones before let expect, in codes that adapt, so that a walk has no header to speak of and a short one is as dense as a
//! long one. The layout stands in docs/formats/store.md.

use std::ops::Range;

use super::bits::{BitReader, BitWriter, Scale};
use super::varint::{self, DecodeError, Reader};

const LEVEL: u8 = 0;
const TREND: u8 = 1;
const CURVE: u8 = 2;
const LEVEL_RUNS: u8 = 3;
const TREND_RUNS: u8 = 4;

/// Numbers from one stop to the next: 43 minutes at 10 s. A query for the last minutes reads one block of a chunk instead of all.
/// Half as many would cost another 1 % of a chunk's bytes.
const BLOCK_NUMBERS: usize = 256;
/// Binary places of the drifting mean: a slow counter's step is a fraction.
const MEAN_BITS: u32 = 6;
/// The drifting mean follows over about 32 samples: five minutes at 10 s.
const MEAN_SHIFT: u32 = 5;
/// Samples from which the encoder guesses how a block begins.
const START_SAMPLES: usize = 32;
/// Magnitude that lengths of runs begin with.
const RUN_MAGNITUDE: u32 = 3;

/// Appends the walk of `numbers`, the first of which the reader is told otherwise; differences must fit 55 bits. Says whether it
/// has stops. O(n).
pub fn put(out: &mut Vec<u8>, numbers: &[i64]) -> bool {
    let Some(&first) = numbers.first() else { return false };
    let divisor = divisor(numbers);
    let levels: Vec<i64> = if divisor == 1 {
        numbers[1..].iter().map(|number| number - first).collect()
    } else {
        numbers[1..].iter().map(|number| (number - first) / divisor).collect()
    };
    let mut before = 0;
    let steps: Vec<i64> = levels.iter().map(|&level| level - std::mem::replace(&mut before, level)).collect();
    let mut shortest = coded(TREND, &steps);
    let mut try_too = |other: Coded| {
        if other.len() < shortest.len() {
            shortest = other;
        }
    };
    // A level is worth trying where samples stay nearer to it than to each other.
    if restless(&levels, start_mean(&levels)) < restless(&steps, 0) {
        try_too(coded(LEVEL, &levels));
    }
    let curves = || steps.windows(2).map(|pair| pair[1] - pair[0]);
    let bends = curves().map(|bend| bend.unsigned_abs() as f64).sum::<f64>();
    if bends < restless(&steps, start_mean(&steps)) {
        try_too(coded(CURVE, &steps));
    }
    for (method, told) in [(TREND_RUNS, &steps), (LEVEL_RUNS, &levels)] {
        if let Some(centre) = majority(told) {
            try_too(coded_runs(method, centre, told));
        }
    }
    let has_stops = !shortest.stops.is_empty();
    out.push(shortest.method);
    varint::put(out, divisor.unsigned_abs());
    varint::put_signed(out, shortest.start.centre);
    out.push(shortest.start.magnitude as u8);
    if has_stops {
        varint::put_bytes(out, &shortest.stops);
    }
    out.extend_from_slice(&shortest.bytes);
    has_stops
}

/// A walk as it is read.
#[derive(Debug)]
pub struct Walk<'a> {
    method: u8,
    divisor: i64,
    start: Start,
    stops: &'a [u8],
    bits: &'a [u8],
}

impl<'a> Walk<'a> {
    /// The walk in bytes that [`put`] wrote, which said whether it has stops.
    ///
    /// # Errors
    /// The bytes are damaged or of a newer version.
    pub fn parse(bytes: &'a [u8], has_stops: bool) -> Result<Walk<'a>, DecodeError> {
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
        Ok(Walk { method, divisor, start, stops, bits: reader.0 })
    }

    /// Calls `each` with the `wanted` of the numbers, of which there are at least so many. O(wanted) and what stands before them
    /// from the last stop on.
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
        let (mut level, mut skip) = (place.level, told.start - place.block * BLOCK_NUMBERS);
        let mut show = |level: i64| {
            if skip > 0 {
                skip -= 1;
            } else {
                each(self.number(first, level));
            }
        };
        if self.tells_levels() {
            return self.read_from(place, told.end, show);
        }
        self.read_from(place, told.end, |step| {
            level = level.wrapping_add(step);
            show(level);
        })
    }

    /// Which of `count` rising numbers can lie from one value to another, as far as stops tell: all that do, and maybe more. Reads
    /// no code.
    ///
    /// # Errors
    /// The bytes are damaged.
    pub fn places(&self, first: i64, count: usize, (from, to): (i64, i64)) -> Result<Range<usize>, DecodeError> {
        let mut places = 0..count;
        if self.tells_levels() {
            return Ok(places);
        }
        let mut place = self.first_place();
        while !place.stops.is_empty() {
            place = self.next_stop(place)?;
            let (stop, number) = (place.block.saturating_mul(BLOCK_NUMBERS), self.number(first, place.level));
            if number < from {
                places.start = (stop + 1).min(count);
            } else if number > to {
                places.end = stop.min(count);
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

    /// Calls `each` with what is told from a place on, up to the number `to`.
    fn read_from(&self, mut place: Place<'a>, to: usize, mut each: impl FnMut(i64)) -> Result<(), DecodeError> {
        let mut bits = BitReader::new(self.bits, place.bit);
        loop {
            let left = to - place.block * BLOCK_NUMBERS;
            // Without stops the walk is one block, whatever its length.
            let count = if place.stops.is_empty() { left } else { left.min(BLOCK_NUMBERS) };
            bits = match self.method {
                CURVE => read_curve(bits, place.start, count, &mut each),
                LEVEL | TREND => read_drifting(bits, place.start, count, &mut each),
                _ => read_runs(bits, place.start, count, &mut each),
            };
            if count == left {
                return if bits.is_past_end() { Err(DecodeError::Truncated) } else { Ok(()) };
            }
            place = self.next_stop(place)?;
        }
    }
}

/// How a block's codes begin.
#[derive(Debug, Clone, Copy)]
struct Start {
    centre: i64,
    magnitude: u32,
}

impl Start {
    /// What fits the first of a block's numbers.
    fn of(method: u8, told: &[i64]) -> Start {
        let head = &told[..told.len().min(START_SAMPLES)];
        if method == CURVE {
            let centre = head.first().copied().unwrap_or(0);
            let misses = head.windows(2).map(|pair| zigzag(pair[1] - pair[0]));
            return Start { centre, magnitude: magnitude(misses) };
        }
        let centre = start_mean(head);
        Start { centre, magnitude: magnitude(head.iter().map(|told| zigzag(told - centre))) }
    }

    fn put(self, out: &mut Vec<u8>, before: Start) {
        varint::put_signed(out, self.centre.wrapping_sub(before.centre));
        out.push(self.magnitude as u8);
    }

    fn read(reader: &mut Reader<'_>, before: Start) -> Result<Start, DecodeError> {
        Ok(Start { centre: before.centre.wrapping_add(reader.signed()?), magnitude: u32::from(reader.byte()?) })
    }

    /// How far a level goes in a block, if it goes on as the block begins.
    fn way(self) -> i64 {
        self.centre.wrapping_mul(BLOCK_NUMBERS as i64)
    }
}

/// A walk in one method.
struct Coded {
    method: u8,
    start: Start,
    stops: Vec<u8>,
    bytes: Vec<u8>,
}

impl Coded {
    fn len(&self) -> usize {
        self.bytes.len() + self.stops.len()
    }
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

/// The drifting mean.
struct Mean(i64);

impl Mean {
    fn new(centre: i64) -> Mean {
        Mean(centre.wrapping_shl(MEAN_BITS))
    }

    fn expected(&self) -> i64 {
        self.0.wrapping_add(1 << (MEAN_BITS - 1)) >> MEAN_BITS
    }

    fn learn(&mut self, told: i64, scale: Scale) {
        let bound = ((scale.four_means() + 1).min(1 << 56) << MEAN_BITS) as i64;
        let off = told.wrapping_shl(MEAN_BITS).wrapping_sub(self.0);
        self.0 = self.0.wrapping_add(off.clamp(-bound, bound) >> MEAN_SHIFT);
    }
}

fn zigzag(miss: i64) -> u64 {
    ((miss << 1) ^ (miss >> 63)) as u64
}

fn unzigzag(code: u64) -> i64 {
    (code >> 1) as i64 ^ -((code & 1) as i64)
}

fn coded(method: u8, told: &[i64]) -> Coded {
    let start = Start::of(method, &told[..told.len().min(BLOCK_NUMBERS)]);
    let (mut writer, mut stops) = (BitWriter::default(), Vec::new());
    let (mut block_start, mut bit, mut off_way) = (start, 0, 0i64);
    for (number, block) in told.chunks(BLOCK_NUMBERS).enumerate() {
        if number > 0 {
            varint::put(&mut stops, writer.position() - bit);
            if method != LEVEL {
                varint::put_signed(&mut stops, off_way);
            }
            bit = writer.position();
            let next = Start::of(method, block);
            next.put(&mut stops, block_start);
            block_start = next;
        }
        put_block(&mut writer, method, block_start, block);
        off_way = block.iter().fold(0i64, |sum, told| sum.wrapping_add(*told)).wrapping_sub(block_start.way());
    }
    Coded { method, start, stops, bytes: writer.finish() }
}

fn put_block(writer: &mut BitWriter, method: u8, start: Start, told: &[i64]) {
    let mut scale = Scale::of_magnitude(start.magnitude);
    if method == CURVE {
        let mut expected = start.centre;
        for &told in told {
            writer.put(&mut scale, zigzag(told - expected));
            expected = told;
        }
    } else {
        let mut mean = Mean::new(start.centre);
        for &told in told {
            let code = zigzag(told - mean.expected());
            mean.learn(told, scale);
            writer.put(&mut scale, code);
        }
    }
}

fn coded_runs(method: u8, centre: i64, told: &[i64]) -> Coded {
    let misses = || told.iter().map(|told| zigzag(told - centre));
    let magnitude = magnitude(misses().filter(|code| *code > 0).take(START_SAMPLES).map(|code| code - 1));
    let mut writer = BitWriter::default();
    let (mut runs, mut scale) = (Scale::of_magnitude(RUN_MAGNITUDE), Scale::of_magnitude(magnitude));
    let mut run = 0;
    for code in misses() {
        if code == 0 {
            run += 1;
        } else {
            writer.put(&mut runs, run);
            writer.put(&mut scale, code - 1);
            run = 0;
        }
    }
    if run > 0 {
        writer.put(&mut runs, run);
    }
    Coded { method, start: Start { centre, magnitude }, stops: Vec::new(), bytes: writer.finish() }
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

/// The greatest number that divides all differences; 1 where there are none.
fn divisor(numbers: &[i64]) -> i64 {
    let mut divisor = 0u64;
    for number in numbers {
        let mut rest = number.abs_diff(numbers[0]);
        while rest != 0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        if divisor == 1 {
            return 1;
        }
    }
    divisor.max(1) as i64
}

/// Sum of distances from a centre, as far as floats tell.
fn restless(numbers: &[i64], centre: i64) -> f64 {
    numbers.iter().map(|number| number.abs_diff(centre) as f64).sum()
}

fn start_mean(numbers: &[i64]) -> i64 {
    let start = &numbers[..numbers.len().min(START_SAMPLES)];
    let sum: i128 = start.iter().map(|&number| i128::from(number)).sum();
    (sum / start.len().max(1) as i128) as i64
}

/// The number that more than half of them are.
fn majority(numbers: &[i64]) -> Option<i64> {
    let mut votes = 0usize;
    let mut candidate = 0;
    for &number in numbers {
        if votes == 0 {
            candidate = number;
        }
        votes = if number == candidate { votes + 1 } else { votes - 1 };
    }
    let count = numbers.iter().filter(|number| **number == candidate).count();
    (count * 2 > numbers.len()).then_some(candidate)
}

/// The magnitude of the mean of codes.
fn magnitude(codes: impl Iterator<Item = u64>) -> u32 {
    let (sum, count) = codes.fold((0u128, 0u128), |(sum, count), code| (sum + u128::from(code), count + 1));
    (sum / count.max(1)).max(1).ilog2().min(56)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(numbers: &[i64]) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let has_stops = put(&mut out, numbers);
        (out, has_stops)
    }

    fn unpacked((bytes, has_stops): (&[u8], bool), first: i64, wanted: Range<usize>) -> Result<Vec<i64>, DecodeError> {
        let mut numbers = Vec::new();
        Walk::parse(bytes, has_stops)?.read(first, wanted, |number| numbers.push(number)).map(|()| numbers)
    }

    /// Noise around a level, sums of it, second sums, long stillness with leaps: what the methods are for.
    fn walks() -> impl Strategy<Value = Vec<i64>> {
        let steps = prop_oneof![
            prop::collection::vec(-50i64..50, 1..900),
            prop::collection::vec(prop_oneof![20 => Just(0i64), 1 => -1_000_000i64..1_000_000], 1..900),
            prop::collection::vec(-(1i64 << 40)..1 << 40, 1..50),
        ];
        (steps, -(1i64 << 40)..1 << 40, 1i64..5_000, 0..3).prop_map(|(steps, first, quantum, sums)| {
            let mut numbers: Vec<i64> = steps.into_iter().map(|step| step % (1 << 40) / quantum).collect();
            for _ in 0..sums {
                let mut sum = 0i64;
                for number in &mut numbers {
                    sum = (sum + *number) % (1 << 40);
                    *number = sum;
                }
            }
            numbers.iter().map(|number| first + number * quantum).collect()
        })
    }

    proptest! {
        #[test]
        fn walks_come_back_whole_and_in_parts(numbers in walks(), part in (0usize..900, 0usize..900)) {
            let (bytes, has_stops) = packed(&numbers);
            let walk = (&bytes[..], has_stops);
            prop_assert_eq!(&unpacked(walk, numbers[0], 0..numbers.len()).unwrap(), &numbers);
            let (from, to) = (part.0.min(part.1).min(numbers.len()), part.0.max(part.1).min(numbers.len()));
            prop_assert_eq!(&unpacked(walk, numbers[0], from..to).unwrap(), &numbers[from..to]);
        }

        #[test]
        fn stops_tell_where_numbers_are(steps in prop::collection::vec(1i64..20_000, 1..900), within in any::<(u32, u32)>()) {
            let numbers: Vec<i64> = steps.iter().scan(0, |t, step| { *t += step; Some(*t) }).collect();
            let (bytes, has_stops) = packed(&numbers);
            let last = numbers[numbers.len() - 1];
            let (a, b) = (i64::from(within.0) % (last + 1), i64::from(within.1) % (last + 1));
            let (from, to) = (a.min(b), a.max(b));
            let places = Walk::parse(&bytes, has_stops).unwrap().places(numbers[0], numbers.len(), (from, to)).unwrap();
            for (i, number) in numbers.iter().enumerate() {
                prop_assert!(places.contains(&i) || !(from..=to).contains(number));
            }
            let exact = numbers.iter().filter(|number| (from..=to).contains(number)).count();
            prop_assert!(!has_stops || places.len() <= exact + 2 * BLOCK_NUMBERS, "{} for {}", places.len(), exact);
        }

        #[test]
        fn any_bytes_are_numbers_or_an_error(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            has_stops in any::<bool>(),
            part in (0usize..900, 0usize..900),
        ) {
            let numbers = unpacked((&bytes, has_stops), 7, part.0..part.1);
            prop_assert!(numbers.is_err() || numbers.unwrap().len() == part.1.saturating_sub(part.0));
            if let Ok(walk) = Walk::parse(&bytes, has_stops) {
                let _ = walk.places(7, part.0, (0, 1 << 40));
            }
        }
    }

    fn bits_each(numbers: &[i64]) -> (u8, usize) {
        let (bytes, _) = packed(numbers);
        (bytes[0], bytes.len() * 8 * 100 / numbers.len())
    }

    #[test]
    fn each_method_is_chosen_for_what_it_is_good_at() {
        let mut seed = 7u64;
        let mut noise = move |below: i64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as i64 % below
        };
        let sum = |step: &mut dyn FnMut(i64) -> i64| -> Vec<i64> {
            let mut sum = 0;
            (0..600)
                .map(|i| {
                    sum += step(i);
                    sum
                })
                .collect()
        };
        let level: Vec<i64> = (0..600).map(|_| 5_000 + 4_096 * noise(256)).collect();
        let trend = sum(&mut |_| 1_000_000 + noise(256));
        let curve = sum(&mut |i| i * i + noise(4));
        let still = sum(&mut |_| i64::from(noise(100) == 0));
        let spikes: Vec<i64> = (0..600).map(|_| if noise(50) == 0 { noise(1_000) } else { 7 }).collect();
        let all: Vec<(u8, usize)> = [level, trend, curve, still, spikes].iter().map(|walk| bits_each(walk)).collect();
        // Hundredths of bits a number; 8 bits of noise cost 8.3 at the least with codes of this kind.
        expect_test::expect!["[(0, 870), (1, 882), (2, 1165), (4, 25), (3, 42)]"].assert_eq(&format!("{all:?}"));
    }
}
