//! The integers of every format in docs/formats/store.md: LEB128, and zigzag for signed ones. Reading checks every length,
//! so a damaged file gives an error and never a panic or a large allocation.

/// Why bytes of a store file could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("the bytes end early")]
    Truncated,
    /// A tag or version that this program does not know.
    #[error("unknown {what} {found}; the file was written by a newer version or is damaged")]
    Unknown {
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u8,
    },
    /// Not the bytes that were written.
    #[error("its checksum is wrong; the file is damaged")]
    Checksum,
    /// A field holds what no writer writes.
    #[error("{what} is impossible; the file is damaged")]
    Impossible {
        /// Which field.
        what: &'static str,
    },
}

/// Appends an unsigned number.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number; small magnitudes are short.
pub fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends bytes with their length before them.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Takes values from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether all bytes are taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.0.split_first().ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(first)
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(DecodeError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    /// An unsigned number.
    pub fn unsigned(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Impossible { what: "integer of more than ten bytes" })
    }

    /// A signed number.
    pub fn signed(&mut self) -> Result<i64, DecodeError> {
        let raw = self.unsigned()?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// Bytes with their length before them.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.unsigned()?;
        self.take(usize::try_from(length).map_err(|_| DecodeError::Truncated)?)
    }

    /// UTF-8 text with its length before it.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Impossible { what: "text that is not UTF-8" })
    }

    /// A count of things that each take at least `bytes_min` of the bytes left.
    pub fn count(&mut self, bytes_min: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.unsigned()?).map_err(|_| DecodeError::Truncated)?;
        if count.saturating_mul(bytes_min) > self.0.len() { Err(DecodeError::Truncated) } else { Ok(count) }
    }

    /// A float, bit for bit.
    pub fn float(&mut self) -> Result<f64, DecodeError> {
        let bytes = self.take(8)?.try_into().map_err(|_| DecodeError::Truncated)?;
        Ok(f64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(unsigned: u64, signed: i64) {
            let mut bytes = Vec::new();
            put(&mut bytes, unsigned);
            put_signed(&mut bytes, signed);
            let mut reader = Reader(&bytes);
            prop_assert_eq!((reader.unsigned(), reader.signed(), reader.is_empty()), (Ok(unsigned), Ok(signed), true));
        }
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        assert_eq!(Reader(&[0x80]).unsigned(), Err(DecodeError::Truncated));
        assert_eq!(
            Reader(&[0xff; 11]).unsigned(),
            Err(DecodeError::Impossible { what: "integer of more than ten bytes" })
        );
        assert_eq!(Reader(&[0xff, 0xff, 0x03, 1]).bytes(), Err(DecodeError::Truncated));
        assert_eq!(Reader(&[0x7f, 1]).count(1), Err(DecodeError::Truncated));
    }
}
