//! The bytes of a segment file: a header frame, then one frame for each batch. docs/formats/spool.md has the diagram.
//! Pure: bytes in, bytes out. Whatever the bytes are, reading them never panics and never allocates more than they hold.

use crc32c::crc32c;
use petrel_models::Timestamp;

use crate::stream::protocol::Class;

/// First bytes of every segment's header: format and version.
const MAGIC: &[u8; 8] = b"PTRLSPL1";
/// Length and checksum before each frame's body.
pub(super) const FRAME_PREFIX_BYTES: usize = 8;
/// Sequence, time, number of records and length of the state before a batch's state and body.
const BATCH_PREFIX_BYTES: usize = 24;
/// A frame that claims to be longer is damaged. The largest batch is one collection or one round of log lines, which are
/// far below a mebibyte compressed.
pub(super) const FRAME_BYTES_MAX: usize = 16 << 20;

/// What a segment's header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub class: Class,
    /// The number that the first batch of this segment has, or would have.
    pub first_seq: u64,
    /// The reader's state that went with the last batch before this segment.
    pub state: Vec<u8>,
}

/// A batch as it stands in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchFrame<'a> {
    pub seq: u64,
    pub spooled_at: Timestamp,
    pub records: u32,
    pub state: &'a [u8],
    pub body: &'a [u8],
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(17 + self.state.len());
        body.extend_from_slice(MAGIC);
        body.push(class_code(self.class));
        body.extend_from_slice(&self.first_seq.to_le_bytes());
        body.extend_from_slice(&self.state);
        frame(&body)
    }

    fn decode(body: &[u8]) -> Option<Header> {
        let rest = body.strip_prefix(MAGIC)?;
        let (&code, rest) = rest.split_first()?;
        let (first_seq, state) = rest.split_first_chunk::<8>()?;
        let class = Class::ALL.into_iter().find(|class| class_code(*class) == code)?;
        Some(Header { class, first_seq: u64::from_le_bytes(*first_seq), state: state.to_vec() })
    }
}

impl<'a> BatchFrame<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(BATCH_PREFIX_BYTES + self.state.len() + self.body.len());
        body.extend_from_slice(&self.seq.to_le_bytes());
        body.extend_from_slice(&self.spooled_at.to_le_bytes());
        body.extend_from_slice(&self.records.to_le_bytes());
        body.extend_from_slice(&(self.state.len() as u32).to_le_bytes());
        body.extend_from_slice(self.state);
        body.extend_from_slice(self.body);
        frame(&body)
    }

    pub(super) fn decode(body: &'a [u8]) -> Option<BatchFrame<'a>> {
        let (seq, rest) = body.split_first_chunk::<8>()?;
        let (spooled_at, rest) = rest.split_first_chunk::<8>()?;
        let (records, rest) = rest.split_first_chunk::<4>()?;
        let (state_bytes, rest) = rest.split_first_chunk::<4>()?;
        let (state, body) = rest.split_at_checked(u32::from_le_bytes(*state_bytes) as usize)?;
        Some(BatchFrame {
            seq: u64::from_le_bytes(*seq),
            spooled_at: Timestamp::from_le_bytes(*spooled_at),
            records: u32::from_le_bytes(*records),
            state,
            body,
        })
    }
}

/// Reads the header and where it ends; `None` where it is torn, damaged, or not ours.
pub(super) fn read_header(bytes: &[u8]) -> Option<(Header, usize)> {
    let body = unframe(bytes)?;
    Some((Header::decode(body)?, FRAME_PREFIX_BYTES + body.len()))
}

/// Reads the batch at the start of `bytes` and where it ends; `None` where it is torn or damaged.
pub(super) fn read_batch(bytes: &[u8]) -> Option<(BatchFrame<'_>, usize)> {
    let body = unframe(bytes)?;
    Some((BatchFrame::decode(body)?, FRAME_PREFIX_BYTES + body.len()))
}

/// Puts length and checksum before a body.
fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_PREFIX_BYTES + body.len());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32c(body).to_le_bytes());
    out.extend_from_slice(body);
    out
}

fn unframe(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return None;
    }
    let body = rest.get(..length)?;
    (crc32c(body) == u32::from_le_bytes(*checksum)).then_some(body)
}

/// Numbers in files, fixed for ever.
fn class_code(class: Class) -> u8 {
    match class {
        Class::Answers => 1,
        Class::Logs => 2,
        Class::Metrics => 3,
    }
}

/// Bytes as they could stand in a segment, whatever they are, bare and in a frame with a right checksum: for fuzzing.
pub fn hostile(bytes: &[u8]) {
    let framed = frame(bytes);
    let _ = (read_header(bytes), read_batch(bytes), read_header(&framed), read_batch(&framed));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|d| char::from_digit(d.into(), 16)).collect()
    }

    /// Version 1 as it was first written. These bytes must decode for ever.
    #[test]
    fn golden_bytes() {
        let header = Header { class: Class::Logs, first_seq: 258, state: b"st".to_vec() };
        expect_test::expect!["130000005f9098415054524c53504c310202010000000000007374"]
            .assert_eq(&hex(&header.encode()));
        let batch = BatchFrame { seq: 258, spooled_at: 1_700_000_000_000, records: 3, state: b"st", body: b"body" };
        expect_test::expect!["1e000000c20ed38302010000000000000068e5cf8b01000003000000020000007374626f6479"]
            .assert_eq(&hex(&batch.encode()));
        let bytes = header.encode();
        assert_eq!(read_header(&bytes), Some((header, bytes.len())));
        let bytes = batch.encode();
        assert_eq!(read_batch(&bytes), Some((batch, bytes.len())));
    }

    #[test]
    fn any_damage_is_seen() {
        let batch = BatchFrame { seq: 7, spooled_at: 1, records: 1, state: b"s", body: b"some bytes" };
        let good = batch.encode();
        for at in 0..good.len() {
            assert_eq!(read_batch(&good[..at]), None, "torn at {at}");
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(read_batch(&bad), None, "bit {bit} of byte {at}");
            }
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, ..Default::default() })]

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = (read_header(&bytes), read_batch(&bytes));
            // With a right checksum the bytes reach what is inside.
            let framed = frame(&bytes);
            let _ = (read_header(&framed), read_batch(&framed));
        }
    }
}
