//! Streams of bits, the lowest of each byte first, and the adaptive codes in them that `walk` is made of. The layout stands in
//! docs/formats/store.md. Reading past the end gives zeros and is told at the end, so that the loop has no check for it.

/// So many zeros announce a number that is written out: an outlier costs 11 bytes instead of any number of zeros.
const ZEROS_MAX: u32 = 24;
/// Bits that one look into the stream surely has: eight bytes without those of the first that are read already.
const PEEK_BITS: u32 = 57;
/// Larger codes teach no more than this, so that the sum of them cannot overflow.
const LEARN_MAX: u64 = 1 << 56;

/// How large codes lately were: 32 times their mean. The next code's length follows from it.
#[derive(Debug, Clone, Copy)]
pub struct Scale(u64);

impl Scale {
    /// A scale as after codes of about `1.5 × 2^magnitude`, at most 56.
    pub fn of_magnitude(magnitude: u32) -> Scale {
        Scale(3 << (magnitude.min(56) + 4))
    }

    /// Four times the mean of late codes.
    pub fn four_means(self) -> u64 {
        self.0 >> 3
    }

    /// Low bits of a code that are written out. The mean's logarithm is within 0.1 bits of the best for normal and exponential
    /// tails alike.
    fn low_bits(self) -> u32 {
        (self.0 >> 5).max(1).ilog2()
    }

    fn learn(&mut self, code: u64) {
        self.0 = self.0 - (self.0 >> 5) + code.min(2 * self.0 + 64).min(LEARN_MAX);
    }
}

/// Appends bits to bytes; [`BitWriter::finish`] writes the last of them.
#[derive(Debug, Default)]
pub struct BitWriter {
    out: Vec<u8>,
    held: u64,
    held_bits: u32,
}

impl BitWriter {
    /// Appends a number in the code of a scale, and teaches it.
    pub fn put(&mut self, scale: &mut Scale, code: u64) {
        let low = scale.low_bits();
        let zeros = code >> low;
        if zeros >= u64::from(ZEROS_MAX) {
            self.bits(0, ZEROS_MAX);
            self.bits(code, 64);
        } else {
            let zeros = zeros as u32;
            self.bits(1 << zeros, zeros + 1);
            self.bits(code & ((1 << low) - 1), low);
        }
        scale.learn(code);
    }

    /// The bytes, filled up with zero bits.
    pub fn finish(mut self) -> Vec<u8> {
        let bytes = self.held_bits.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.held.to_le_bytes()[..bytes]);
        self.out
    }

    /// `value` has no bits above the first `count`.
    fn bits(&mut self, value: u64, count: u32) {
        self.held |= value << self.held_bits;
        let total = self.held_bits + count;
        if total < 64 {
            self.held_bits = total;
            return;
        }
        self.out.extend_from_slice(&self.held.to_le_bytes());
        self.held = value.checked_shr(64 - self.held_bits).unwrap_or(0);
        self.held_bits = total - 64;
    }
}

/// Reads what [`BitWriter`] wrote.
#[derive(Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> BitReader<'a> {
    /// From the first bit of `bytes` on.
    pub fn new(bytes: &'a [u8]) -> BitReader<'a> {
        BitReader { bytes, at: 0 }
    }

    /// The next number in the code of a scale, and teaches it.
    pub fn next(&mut self, scale: &mut Scale) -> u64 {
        let low = scale.low_bits();
        let word = self.peek();
        let zeros = word.trailing_zeros();
        let code = if zeros >= ZEROS_MAX {
            self.at += ZEROS_MAX as usize;
            self.take(32) | self.take(32) << 32
        } else if zeros + 1 + low <= PEEK_BITS {
            self.at += (zeros + 1 + low) as usize;
            u64::from(zeros) << low | (word >> (zeros + 1)) & ((1 << low) - 1)
        } else {
            self.at += zeros as usize + 1;
            u64::from(zeros) << low | self.take(low)
        };
        scale.learn(code);
        code
    }

    /// Whether more was read than there is.
    pub fn is_past_end(&self) -> bool {
        self.at > self.bytes.len().saturating_mul(8)
    }

    /// Up to [`PEEK_BITS`] bits.
    fn take(&mut self, count: u32) -> u64 {
        let bits = self.peek() & ((1 << count) - 1);
        self.at += count as usize;
        bits
    }

    fn peek(&self) -> u64 {
        let byte = self.at / 8;
        let rest = self.bytes.get(byte..).unwrap_or(&[]);
        let word = match rest.first_chunk() {
            Some(eight) => u64::from_le_bytes(*eight),
            None => rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
        };
        word >> (self.at % 8)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn codes_come_back(
            codes in prop::collection::vec((0u32..64, any::<u64>()).prop_map(|(shift, code)| code >> shift), 0..200),
            magnitude in 0u32..=56,
        ) {
            let mut writer = BitWriter::default();
            let mut scale = Scale::of_magnitude(magnitude);
            for &code in &codes {
                writer.put(&mut scale, code);
            }
            let bytes = writer.finish();
            let mut reader = BitReader::new(&bytes);
            let mut scale = Scale::of_magnitude(magnitude);
            for &code in &codes {
                prop_assert_eq!(reader.next(&mut scale), code);
            }
            prop_assert!(!reader.is_past_end());
            let mut short = BitReader::new(&bytes[..bytes.len().saturating_sub(1)]);
            let mut scale = Scale::of_magnitude(magnitude);
            for _ in &codes {
                short.next(&mut scale);
            }
            prop_assert_eq!(short.is_past_end(), !codes.is_empty());
        }
    }
}
