//! General compression of the parts that are text or raw: journal records and lists of series. One tag byte, then zstd or
//! the bytes as they are, whichever is shorter.

use std::borrow::Cow;
use std::io;

use super::varint::{self, DecodeError, Reader};

/// Below this size zstd's frame costs more than it saves.
const COMPRESS_BYTES_MIN: usize = 128;
/// No writer packs more than this at once; a larger claim is damage and must not be allocated.
const UNPACKED_BYTES_MAX: u64 = 1 << 30;

const TAG_RAW: u8 = 0;
const TAG_ZSTD: u8 = 1;

/// Packs `bytes` at a zstd level.
///
/// # Errors
/// zstd cannot allocate.
pub fn pack(bytes: &[u8], level: i32) -> io::Result<Vec<u8>> {
    if bytes.len() >= COMPRESS_BYTES_MIN {
        let compressed = zstd::bulk::compress(bytes, level)?;
        if compressed.len() < bytes.len() {
            let mut out = Vec::with_capacity(compressed.len() + 8);
            out.push(TAG_ZSTD);
            varint::put(&mut out, bytes.len() as u64);
            out.extend_from_slice(&compressed);
            return Ok(out);
        }
    }
    Ok(raw(bytes))
}

/// The bytes as they are, for what is not worth compressing; [`unpack`] takes them too.
pub fn raw(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 1);
    out.push(TAG_RAW);
    out.extend_from_slice(bytes);
    out
}

/// Undoes [`pack`].
///
/// # Errors
/// The bytes are damaged or of a newer version.
pub fn unpack(packed: &[u8]) -> Result<Cow<'_, [u8]>, DecodeError> {
    let mut reader = Reader(packed);
    match reader.byte()? {
        TAG_RAW => Ok(Cow::Borrowed(reader.0)),
        TAG_ZSTD => {
            let length = reader.unsigned()?;
            if length > UNPACKED_BYTES_MAX {
                return Err(DecodeError::Impossible { what: "unpacked length" });
            }
            let bytes = zstd::bulk::decompress(reader.0, length as usize)
                .map_err(|_| DecodeError::Impossible { what: "zstd frame" })?;
            if bytes.len() as u64 == length {
                Ok(Cow::Owned(bytes))
            } else {
                Err(DecodeError::Impossible { what: "unpacked length" })
            }
        }
        found => Err(DecodeError::Unknown { what: "packing", found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_both_ways_and_refuses_damage() {
        for bytes in [Vec::new(), b"short".to_vec(), vec![7; 10_000]] {
            let packed = pack(&bytes, 1).unwrap();
            assert!(packed.len() <= bytes.len() + 1);
            assert_eq!(unpack(&packed).unwrap(), bytes);
        }
        let mut damaged = pack(&[7; 10_000], 1).unwrap();
        damaged.truncate(damaged.len() - 3);
        assert!(unpack(&damaged).is_err());
        assert_eq!(unpack(&[9]), Err(DecodeError::Unknown { what: "packing", found: 9 }));
        assert_eq!(unpack(&[]), Err(DecodeError::Truncated));
    }
}
