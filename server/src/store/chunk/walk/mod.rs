//! Integers that go on from one another: counters, gauges in steps of their resolution, times. Told as how far each misses what
//! the ones before let expect, in codes that adapt, so that a walk has no header to speak of and a short one is as dense as a
//! long one. The layout stands in docs/formats/store.md.

mod decode;
mod encode;

pub use decode::Walk;
pub use encode::put;

use crate::store::chunk::bits::Scale;
use crate::store::varint::{self, DecodeError, Reader};

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
/// Magnitude that lengths of runs begin with.
const RUN_MAGNITUDE: u32 = 3;

/// How a block's codes begin.
#[derive(Debug, Clone, Copy)]
struct Start {
    centre: i64,
    magnitude: u32,
}

impl Start {
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

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;

    fn packed(numbers: &[i64]) -> (Vec<u8>, bool) {
        let mut out = Vec::new();
        let has_stops = put(&mut out, numbers);
        (out, has_stops)
    }

    fn unpacked(walk: &Walk<'_>, first: i64, wanted: Range<usize>) -> Result<Vec<i64>, DecodeError> {
        let mut numbers = Vec::new();
        walk.read(first, wanted, |number| numbers.push(number)).map(|()| numbers)
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
            let walk = Walk::parse(&bytes, numbers.len(), has_stops).unwrap();
            prop_assert_eq!(&unpacked(&walk, numbers[0], 0..numbers.len()).unwrap(), &numbers);
            let (from, to) = (part.0.min(part.1).min(numbers.len()), part.0.max(part.1).min(numbers.len()));
            prop_assert_eq!(&unpacked(&walk, numbers[0], from..to).unwrap(), &numbers[from..to]);
        }

        #[test]
        fn stops_tell_where_numbers_are(steps in prop::collection::vec(1i64..20_000, 1..900), within in any::<(u32, u32)>()) {
            let numbers: Vec<i64> = steps.iter().scan(0, |t, step| { *t += step; Some(*t) }).collect();
            let (bytes, has_stops) = packed(&numbers);
            let last = numbers[numbers.len() - 1];
            let (a, b) = (i64::from(within.0) % (last + 1), i64::from(within.1) % (last + 1));
            let (from, to) = (a.min(b), a.max(b));
            let places = Walk::parse(&bytes, numbers.len(), has_stops).unwrap().places(numbers[0], (from, to)).unwrap();
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
            count in 1usize..1500,
            part in (0usize..1500, 0usize..1500),
        ) {
            if let Ok(walk) = Walk::parse(&bytes, count, has_stops) {
                let part = part.0.min(count)..part.1.min(count);
                let numbers = unpacked(&walk, 7, part.clone());
                prop_assert!(numbers.is_err() || numbers.unwrap().len() == part.len());
                let _ = walk.places(7, (0, 1 << 40));
            }
        }

        #[test]
        fn a_damaged_walk_that_is_read_whole_is_the_same_in_parts(
            numbers in walks(), at in any::<prop::sample::Index>(), xor in 1u8.., part in (0usize..900, 0usize..900),
        ) {
            let (mut bytes, has_stops) = packed(&numbers);
            let at = at.index(bytes.len());
            bytes[at] ^= xor;
            if let Ok(walk) = Walk::parse(&bytes, numbers.len(), has_stops)
                && let Ok(whole) = unpacked(&walk, numbers[0], 0..numbers.len())
            {
                let part = part.0.min(part.1).min(numbers.len())..part.0.max(part.1).min(numbers.len());
                prop_assert_eq!(&unpacked(&walk, numbers[0], part.clone()).unwrap(), &whole[part]);
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
