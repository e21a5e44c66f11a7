//! Writing a walk: each method that may be the shortest is tried, and the shortest is kept.

use super::{BLOCK_NUMBERS, CURVE, LEVEL, LEVEL_RUNS, Mean, RUN_MAGNITUDE, Start, TREND, TREND_RUNS, zigzag};
use crate::store::chunk::bits::{BitWriter, Scale};
use crate::store::varint;

/// Samples from which the encoder guesses how a block begins.
const START_SAMPLES: usize = 32;

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
