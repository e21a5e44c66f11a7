//! Integers that go on from one another: counters, gauges in steps of their resolution, times. Told as how far each misses what
//! the ones before let expect, in codes that adapt, so that a walk has no header to speak of and a short one is as dense as a
//! long one. The layout stands in docs/formats/store.md.

use super::bits::{BitReader, BitWriter, Scale};
use super::varint::{self, DecodeError, Reader};

const LEVEL: u8 = 0;
const TREND: u8 = 1;
const CURVE: u8 = 2;
const LEVEL_RUNS: u8 = 3;
const TREND_RUNS: u8 = 4;

/// Binary places of the drifting mean: a slow counter's step is a fraction.
const MEAN_BITS: u32 = 6;
/// The drifting mean follows over about 32 samples: five minutes at 10 s.
const MEAN_SHIFT: u32 = 5;
/// Samples from which the encoder guesses how the stream begins.
const START_SAMPLES: usize = 32;
/// Magnitude that lengths of runs begin with.
const RUN_MAGNITUDE: u32 = 3;

/// Appends the walk of `numbers`, the first of which the reader is told otherwise; differences must fit 55 bits. O(n).
pub fn put(out: &mut Vec<u8>, numbers: &[i64]) {
    let Some(&first) = numbers.first() else { return };
    let divisor = divisor(numbers);
    let levels: Vec<i64> = if divisor == 1 {
        numbers[1..].iter().map(|number| number - first).collect()
    } else {
        numbers[1..].iter().map(|number| (number - first) / divisor).collect()
    };
    let mut before = 0;
    let steps: Vec<i64> = levels.iter().map(|&level| level - std::mem::replace(&mut before, level)).collect();
    let mut shortest = coded(TREND, start_mean(&steps), &steps);
    let mut try_too = |other: Coded| {
        if other.bytes.len() < shortest.bytes.len() {
            shortest = other;
        }
    };
    // A level is worth trying where samples stay nearer to it than to each other.
    if restless(&levels, start_mean(&levels)) < restless(&steps, 0) {
        try_too(coded(LEVEL, start_mean(&levels), &levels));
    }
    let curves = || steps.windows(2).map(|pair| pair[1] - pair[0]);
    let bends = curves().map(|bend| bend.unsigned_abs() as f64).sum::<f64>();
    if bends < restless(&steps, start_mean(&steps)) {
        try_too(coded(CURVE, steps.first().copied().unwrap_or(0), &steps));
    }
    for (method, told) in [(TREND_RUNS, &steps), (LEVEL_RUNS, &levels)] {
        if let Some(centre) = majority(told) {
            try_too(coded_runs(method, centre, told));
        }
    }
    out.push(shortest.method);
    varint::put(out, divisor.unsigned_abs());
    varint::put_signed(out, shortest.centre);
    out.push(shortest.magnitude as u8);
    out.extend_from_slice(&shortest.bytes);
}

/// Reads the first `count` numbers of a walk of at least as many and calls `each` with them in turn. O(count).
///
/// # Errors
/// The bytes are damaged or of a newer version.
pub fn read(bytes: &[u8], first: i64, count: usize, mut each: impl FnMut(i64)) -> Result<(), DecodeError> {
    if count == 0 {
        return Ok(());
    }
    each(first);
    let mut reader = Reader(bytes);
    let method = reader.byte()?;
    let divisor = reader.unsigned()? as i64;
    let start = Start { centre: reader.signed()?, magnitude: u32::from(reader.byte()?) };
    let bits = BitReader::new(reader.0);
    let left = count - 1;
    let mut level = 0i64;
    let scaled = |level: i64| first.wrapping_add(level.wrapping_mul(divisor));
    let of_level = |told: i64| each(scaled(told));
    match method {
        LEVEL => read_drifting(bits, start, left, of_level),
        LEVEL_RUNS => read_runs(bits, start, left, of_level),
        TREND | CURVE | TREND_RUNS => {
            let of_step = |told: i64| {
                level = level.wrapping_add(told);
                each(scaled(level));
            };
            match method {
                TREND => read_drifting(bits, start, left, of_step),
                CURVE => read_curve(bits, start, left, of_step),
                _ => read_runs(bits, start, left, of_step),
            }
        }
        found => Err(DecodeError::Unknown { what: "method of a walk", found }),
    }
}

/// How a stream begins.
#[derive(Debug, Clone, Copy)]
struct Start {
    centre: i64,
    magnitude: u32,
}

/// A walk in one method.
struct Coded {
    method: u8,
    centre: i64,
    magnitude: u32,
    bytes: Vec<u8>,
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

fn coded(method: u8, centre: i64, told: &[i64]) -> Coded {
    let start = &told[..told.len().min(START_SAMPLES)];
    let magnitude = if method == CURVE {
        magnitude(start.windows(2).map(|pair| zigzag(pair[1] - pair[0])))
    } else {
        magnitude(start.iter().map(|told| zigzag(told - centre)))
    };
    let mut writer = BitWriter::default();
    let mut scale = Scale::of_magnitude(magnitude);
    if method == CURVE {
        let mut expected = centre;
        for &told in told {
            writer.put(&mut scale, zigzag(told - expected));
            expected = told;
        }
    } else {
        let mut mean = Mean::new(centre);
        for &told in told {
            let code = zigzag(told - mean.expected());
            mean.learn(told, scale);
            writer.put(&mut scale, code);
        }
    }
    Coded { method, centre, magnitude, bytes: writer.finish() }
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
    Coded { method, centre, magnitude, bytes: writer.finish() }
}

fn read_drifting(
    mut bits: BitReader<'_>,
    start: Start,
    count: usize,
    mut each: impl FnMut(i64),
) -> Result<(), DecodeError> {
    let mut scale = Scale::of_magnitude(start.magnitude);
    let mut mean = Mean::new(start.centre);
    for _ in 0..count {
        let coded_with = scale;
        let told = mean.expected().wrapping_add(unzigzag(bits.next(&mut scale)));
        mean.learn(told, coded_with);
        each(told);
    }
    ended(&bits)
}

fn read_curve(
    mut bits: BitReader<'_>,
    start: Start,
    count: usize,
    mut each: impl FnMut(i64),
) -> Result<(), DecodeError> {
    let mut scale = Scale::of_magnitude(start.magnitude);
    let mut told = start.centre;
    for _ in 0..count {
        told = told.wrapping_add(unzigzag(bits.next(&mut scale)));
        each(told);
    }
    ended(&bits)
}

fn read_runs(
    mut bits: BitReader<'_>,
    start: Start,
    count: usize,
    mut each: impl FnMut(i64),
) -> Result<(), DecodeError> {
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
    ended(&bits)
}

fn ended(bits: &BitReader<'_>) -> Result<(), DecodeError> {
    if bits.is_past_end() { Err(DecodeError::Truncated) } else { Ok(()) }
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

    fn packed(numbers: &[i64]) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, numbers);
        out
    }

    fn unpacked(bytes: &[u8], first: i64, count: usize) -> Result<Vec<i64>, DecodeError> {
        let mut numbers = Vec::new();
        read(bytes, first, count, |number| numbers.push(number)).map(|()| numbers)
    }

    /// Noise around a level, sums of it, second sums, long stillness with leaps: what the methods are for.
    fn walks() -> impl Strategy<Value = Vec<i64>> {
        let steps = prop_oneof![
            prop::collection::vec(-50i64..50, 1..300),
            prop::collection::vec(prop_oneof![20 => Just(0i64), 1 => -1_000_000i64..1_000_000], 1..300),
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
        fn walks_come_back(numbers in walks(), part in 0usize..300) {
            let bytes = packed(&numbers);
            prop_assert_eq!(&unpacked(&bytes, numbers[0], numbers.len()).unwrap(), &numbers);
            let part = part.min(numbers.len());
            prop_assert_eq!(&unpacked(&bytes, numbers[0], part).unwrap(), &numbers[..part]);
        }

        #[test]
        fn any_bytes_are_numbers_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0usize..500) {
            let numbers = unpacked(&bytes, 7, count);
            prop_assert!(numbers.is_err() || numbers.unwrap().len() == count);
        }
    }

    fn bits_each(numbers: &[i64]) -> (u8, usize) {
        let bytes = packed(numbers);
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
        expect_test::expect!["[(0, 858), (1, 865), (2, 1137), (4, 25), (3, 42)]"].assert_eq(&format!("{all:?}"));
    }
}
