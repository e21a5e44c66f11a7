//! Streams of bits, the lowest of each byte first, and the adaptive codes in them that `walk` is made of. The layout stands in
//! docs/formats/store.md. Reading past the end gives zeros and is told at the end, so that the loop has no check for it.

/// So many zeros announce a number that is written out: an outlier costs 11 bytes instead of any number of zeros.
const ZEROS_MAX: u32 = 24;
/// Bits that are surely held after a refill: 64 without those of a byte that has no room as a whole.
const HELD_BITS_MIN: u32 = 56;
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
    #[inline]
    fn low_bits(self) -> u32 {
        (self.0 | 1 << 5).ilog2() - 5
    }

    #[inline]
    fn learn(&mut self, code: u64) {
        // Each code's length hangs on this sum, so only the last step may wait for the code.
        let (kept, bound) = (self.0 - (self.0 >> 5), (2 * self.0 + 64).min(LEARN_MAX));
        self.0 = kept + code.min(bound);
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

    /// How many bits there are.
    pub fn position(&self) -> u64 {
        self.out.len() as u64 * 8 + u64::from(self.held_bits)
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

/// Reads what [`BitWriter`] wrote. The next bits are held in a register: the place of a code is known only when the one before
/// is read, and a look into memory would stand between any two of them.
#[derive(Debug)]
pub struct BitReader<'a> {
    bytes: &'a [u8],
    /// Bytes taken into `held`, those behind the end counted too.
    at: usize,
    /// The next bits, lowest first. Those above `held_bits` are bits of the byte at `at`, or zero.
    held: u64,
    held_bits: u32,
}

impl<'a> BitReader<'a> {
    /// From a bit of `bytes` on; one behind the end is past it.
    pub fn new(bytes: &'a [u8], bit: u64) -> BitReader<'a> {
        let mut reader = BitReader { bytes, at: (bit / 8) as usize, held: 0, held_bits: 0 };
        reader.refill();
        reader.skip((bit % 8) as u32);
        reader
    }

    /// The next number in the code of a scale, and teaches it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "a call puts its state into memory between any two codes: twice the time")]
    pub fn next(&mut self, scale: &mut Scale) -> u64 {
        let low = scale.low_bits();
        self.refill();
        let zeros = (self.held | 1 << ZEROS_MAX).trailing_zeros();
        let code = if zeros < ZEROS_MAX && zeros + 1 + low <= HELD_BITS_MIN {
            let code = u64::from(zeros) << low | (self.held >> (zeros + 1)) & ((1 << low) - 1);
            self.skip(zeros + 1 + low);
            code
        } else {
            self.long(zeros, low)
        };
        scale.learn(code);
        code
    }

    /// A code that is written out or longer than what is held.
    #[cold]
    fn long(&mut self, zeros: u32, low: u32) -> u64 {
        if zeros == ZEROS_MAX {
            self.skip(ZEROS_MAX);
            return self.take(32) | self.take(32) << 32;
        }
        self.skip(zeros + 1);
        u64::from(zeros) << low | self.take(low)
    }

    /// How many bits were read.
    pub fn position(&self) -> u64 {
        self.at as u64 * 8 - u64::from(self.held_bits)
    }

    /// Whether more was read than there is.
    pub fn is_past_end(&self) -> bool {
        self.at.saturating_mul(8) - self.held_bits as usize > self.bytes.len().saturating_mul(8)
    }

    /// Up to [`HELD_BITS_MIN`] bits.
    fn take(&mut self, count: u32) -> u64 {
        self.refill();
        let bits = self.held & ((1 << count) - 1);
        self.skip(count);
        bits
    }

    /// Drops bits that are held.
    #[inline]
    fn skip(&mut self, count: u32) {
        self.held >>= count;
        self.held_bits -= count;
    }

    /// Holds as many whole bytes as there is room for. Without a branch: how many those are cannot be foretold.
    #[inline]
    fn refill(&mut self) {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let word = match rest.first_chunk() {
            Some(eight) => u64::from_le_bytes(*eight),
            None => rest.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte)),
        };
        self.held |= word << self.held_bits;
        let bytes = (63 - self.held_bits) / 8;
        self.at += bytes as usize;
        self.held_bits += bytes * 8;
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
            let mut reader = BitReader::new(&bytes, 0);
            let mut scale = Scale::of_magnitude(magnitude);
            for &code in &codes {
                prop_assert_eq!(reader.next(&mut scale), code);
            }
            prop_assert!(!reader.is_past_end());
            let mut short = BitReader::new(&bytes[..bytes.len().saturating_sub(1)], 0);
            let mut scale = Scale::of_magnitude(magnitude);
            for _ in &codes {
                short.next(&mut scale);
            }
            prop_assert_eq!(short.is_past_end(), !codes.is_empty());
        }
    }
}
