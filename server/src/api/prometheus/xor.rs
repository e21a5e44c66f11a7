//! Samples as Prometheus' XOR chunks, the form in which remote read streams them: times as differences of differences, values
//! as what differs from the one before. Encoding only; the bytes are those that Prometheus itself makes of the same samples.
//!
//! *Source:* Pelkonen et al., Gorilla: A Fast, Scalable, In-Memory Time Series Database, 2015, section 4.1; the widths of
//! times are Prometheus'. A test compares with chunks of a real Prometheus.

use crate::series::{Sample, Timestamp};

/// Most samples of one chunk; readers expect no more than Prometheus has.
pub(super) const SAMPLES_MAX: usize = 120;

/// Bits, the highest first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not used yet.
    free: u32,
}

impl Bits {
    /// Appends the lowest `count` bits.
    fn put(&mut self, value: u64, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let now = left.min(self.free);
            let part = (value >> (left - now)) & ((1 << now) - 1);
            if let Some(last) = self.bytes.last_mut() {
                *last |= (part as u8) << (self.free - now);
            }
            self.free -= now;
            left -= now;
        }
    }

    fn put_uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.put(value & 0x7f | 0x80, 8);
            value >>= 7;
        }
        self.put(value, 8);
    }
}

/// Which bits differed last; their place is only told anew where they do not fit.
#[derive(Clone, Copy)]
struct Window {
    leading: u32,
    trailing: u32,
}

/// One chunk of samples sorted by time, at most [`SAMPLES_MAX`]. O(n).
pub(super) fn encode(samples: &[Sample]) -> Vec<u8> {
    debug_assert!(samples.len() <= SAMPLES_MAX, "longer runs are cut first");
    let mut bits = Bits::default();
    bits.put(samples.len() as u64, 16);
    let mut window = None;
    let mut before: Option<(Timestamp, i64, f64)> = None;
    for (at, sample) in samples.iter().enumerate() {
        let mut step = 0;
        if let Some((t, last_step, value)) = before {
            step = sample.t.wrapping_sub(t);
            if at == 1 {
                bits.put_uvarint(step as u64);
            } else {
                put_time(&mut bits, step.wrapping_sub(last_step));
            }
            window = put_value(&mut bits, value.to_bits() ^ sample.v.to_bits(), window);
        } else {
            bits.put_uvarint(((sample.t << 1) ^ (sample.t >> 63)) as u64);
            bits.put(sample.v.to_bits(), 64);
        }
        before = Some((sample.t, step, sample.v));
    }
    bits.bytes
}

fn put_time(bits: &mut Bits, change: i64) {
    let fits = |width: u32| (-(1 << (width - 1)) + 1..=1 << (width - 1)).contains(&change);
    let (mark, mark_bits, width) = match change {
        0 => return bits.put(0, 1),
        _ if fits(14) => (0b10, 2, 14),
        _ if fits(17) => (0b110, 3, 17),
        _ if fits(20) => (0b1110, 4, 20),
        _ => (0b1111, 4, 64),
    };
    bits.put(mark, mark_bits);
    bits.put(change as u64, width);
}

fn put_value(bits: &mut Bits, change: u64, window: Option<Window>) -> Option<Window> {
    if change == 0 {
        bits.put(0, 1);
        return window;
    }
    // Five bits tell the leading zeros.
    let found = Window { leading: change.leading_zeros().min(31), trailing: change.trailing_zeros() };
    let fitting = window.filter(|known| found.leading >= known.leading && found.trailing >= known.trailing);
    let used = fitting.unwrap_or(found);
    let significant = 64 - used.leading - used.trailing;
    if fitting.is_some() {
        bits.put(0b10, 2);
    } else {
        bits.put(0b11, 2);
        bits.put(used.leading.into(), 5);
        // Six bits; all 64 are written as 0.
        bits.put(significant.into(), 6);
    }
    bits.put(change >> used.trailing, significant);
    Some(used)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::series::STALE_NAN_BITS;

    struct Reader<'a> {
        bytes: &'a [u8],
        at: usize,
    }

    impl Reader<'_> {
        fn bits(&mut self, count: u32) -> u64 {
            (0..count).fold(0, |value, _| {
                let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
                self.at += 1;
                value << 1 | u64::from(bit)
            })
        }

        fn uvarint(&mut self) -> u64 {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = self.bits(8);
                value |= (byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        }
    }

    fn decode(bytes: &[u8]) -> Vec<(i64, u64)> {
        let mut reader = Reader { bytes, at: 0 };
        let count = reader.bits(16);
        let (mut t, mut step, mut value, mut window) = (0i64, 0i64, 0u64, (0, 0));
        let mut samples = Vec::new();
        for at in 0..count {
            if at == 0 {
                let zigzag = reader.uvarint();
                t = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
                value = reader.bits(64);
            } else {
                if at == 1 {
                    step = reader.uvarint() as i64;
                } else {
                    let mark = (0..4).take_while(|_| reader.bits(1) == 1).count();
                    let width = [0, 14, 17, 20, 64][mark];
                    let raw = reader.bits(width) as i64;
                    let half = if width == 0 || width == 64 { i64::MAX } else { 1 << (width - 1) };
                    let change = if raw > half { raw - 2 * half } else { raw };
                    step = step.wrapping_add(change);
                }
                t = t.wrapping_add(step);
                if reader.bits(1) == 1 {
                    if reader.bits(1) == 1 {
                        let leading = reader.bits(5) as u32;
                        let significant = match reader.bits(6) as u32 {
                            0 => 64,
                            some => some,
                        };
                        window = (significant, 64 - leading - significant);
                    }
                    value ^= reader.bits(window.0) << window.1;
                }
            }
            samples.push((t, value));
        }
        samples
    }

    /// What Prometheus 2.42 streamed of these samples after it had taken them by remote write.
    const PROMETHEUS: &str = "000ad0b481bec0683ff0000000000000987536038001c07fffd8062c1040e7e6b2dfcee2f7e3dcd6500000003c35a997ff0\
        000000000007b94ad200040000000000078000000000051c9862fbff1000000000001ffffffffffff5c6d0bf301cd6c8b439590";

    #[test]
    fn the_bytes_are_those_of_a_real_prometheus() {
        let begin = 1_795_361_353_000;
        let samples = [
            (0, 1.0),
            (15_000, 1.0),
            (30_000, 1.5),
            (45_001, -2.25),
            (60_100, 1e9),
            (75_100, f64::from_bits(STALE_NAN_BITS)),
            (200_000, 3.0),
            (215_000, 3.125),
            (900_000, f64::from_bits(0x7ff8_0000_0000_0001)),
            (915_000, 12_345.678),
        ]
        .map(|(t, v)| Sample { t: begin + t, v });
        let digit = |half: u8| char::from_digit(half.into(), 16).unwrap();
        let hex: String = encode(&samples).iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        assert_eq!(hex, PROMETHEUS);
    }

    proptest! {
        #[test]
        fn what_is_read_back_is_what_was_written(
            start in any::<i32>(),
            steps in prop::collection::vec(
                (prop_oneof![1i64..70_000, 1i64..20_000_000, Just(15_000)], prop_oneof![any::<f64>(), Just(1.0), (0u8..4).prop_map(f64::from), Just(f64::from_bits(STALE_NAN_BITS))]),
                1..SAMPLES_MAX
            )
        ) {
            let mut t = i64::from(start);
            let samples: Vec<Sample> = steps.iter().map(|(step, v)| { t += step; Sample { t, v: *v } }).collect();
            let want: Vec<(i64, u64)> = samples.iter().map(|sample| (sample.t, sample.v.to_bits())).collect();
            prop_assert_eq!(decode(&encode(&samples)), want);
        }
    }
}
