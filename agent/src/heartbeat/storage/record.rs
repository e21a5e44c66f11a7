//! The bytes of a storage heartbeat; docs/formats/heartbeat.md has the diagrams. Pure. Decoding never panics, and a block is
//! free only if it holds nothing but zeros: what cannot be read is somebody's.

use petrel_models::Timestamp;
use serde::{Deserialize, Serialize};

use crate::heartbeat::codec::BeatClass;

/// One slot, and the header. What O_DIRECT needs on every disk that is made today.
pub const BLOCK_BYTES: usize = 4096;
/// Slots that an area may have: 1 MiB, which is read at every interval.
pub const HOSTS_MAX: u16 = 256;

const HEADER_MAGIC: &[u8; 4] = b"PTRS";
const RECORD_MAGIC: &[u8; 4] = b"PTRH";
const VERSION: u8 = 1;
/// Where the checksum stands; it covers all before it.
const SUM_AT: usize = BLOCK_BYTES - 4;
/// Bytes of a record before the host's id.
const PREFIX_BYTES: usize = 44;

/// The first block of an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Slots that follow, 1 to [`HOSTS_MAX`].
    pub hosts_max: u16,
    /// Drawn when the area was made.
    pub area_id: [u8; 16],
    /// When that was.
    pub made_at: Timestamp,
}

/// One host's sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Beat or goodbye.
    pub class: BeatClass,
    /// The agent's id, 1 to 255 bytes of printable ASCII.
    pub host: String,
    /// The kernel's boot id.
    pub boot_id: [u8; 16],
    /// Grows with every record within one boot.
    pub number: u64,
    /// The writer's clock.
    pub written_at: Timestamp,
    /// When the next one is to be expected, in milliseconds.
    pub interval_ms: u32,
}

/// What a slot holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slot {
    /// Nothing but zeros.
    Free,
    /// A record.
    Record(Record),
    /// Something else: a record that is being written, a torn one, or no record of ours.
    Unreadable,
}

impl Header {
    /// The block.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let mut block = [0; BLOCK_BYTES];
        block[..4].copy_from_slice(HEADER_MAGIC);
        block[4] = VERSION;
        block[8..10].copy_from_slice(&self.hosts_max.to_be_bytes());
        block[16..32].copy_from_slice(&self.area_id);
        block[32..40].copy_from_slice(&self.made_at.to_be_bytes());
        sealed(block)
    }

    /// Reads it back; `None` for anything that is not the header of an area.
    pub fn decode(block: &[u8]) -> Option<Header> {
        let fields = verified(block)?.strip_prefix(HEADER_MAGIC)?;
        let (version, hosts_max) = (fields.first()?, u16::from_be_bytes(*at(fields, 4)?));
        let header =
            Header { hosts_max, area_id: *at(fields, 12)?, made_at: Timestamp::from_be_bytes(*at(fields, 28)?) };
        (*version == VERSION && (1..=HOSTS_MAX).contains(&hosts_max)).then_some(header)
    }
}

impl Record {
    /// The block. A longer id than 255 bytes is cut.
    pub fn encode(&self) -> [u8; BLOCK_BYTES] {
        let id = &self.host.as_bytes()[..self.host.len().min(255)];
        let mut block = [0; BLOCK_BYTES];
        block[..4].copy_from_slice(RECORD_MAGIC);
        block[4] = VERSION;
        block[5] = match self.class {
            BeatClass::Beat => 0,
            BeatClass::Goodbye => 1,
        };
        block[7] = id.len() as u8;
        block[8..24].copy_from_slice(&self.boot_id);
        block[24..32].copy_from_slice(&self.number.to_be_bytes());
        block[32..40].copy_from_slice(&self.written_at.to_be_bytes());
        block[40..44].copy_from_slice(&self.interval_ms.to_be_bytes());
        block[PREFIX_BYTES..PREFIX_BYTES + id.len()].copy_from_slice(id);
        sealed(block)
    }
}

impl Slot {
    /// What a block holds. O(block).
    pub fn decode(block: &[u8]) -> Slot {
        if block.iter().all(|byte| *byte == 0) {
            return Slot::Free;
        }
        decode_record(block).map_or(Slot::Unreadable, Slot::Record)
    }
}

fn decode_record(block: &[u8]) -> Option<Record> {
    let fields = verified(block)?.strip_prefix(RECORD_MAGIC)?;
    let class = match (fields.first()?, fields.get(1)?) {
        (&VERSION, 0) => BeatClass::Beat,
        (&VERSION, 1) => BeatClass::Goodbye,
        _ => return None,
    };
    let id_bytes = usize::from(*fields.get(3)?);
    let id = fields.get(PREFIX_BYTES - 4..PREFIX_BYTES - 4 + id_bytes)?;
    if id.is_empty() || !id.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    Some(Record {
        class,
        host: String::from_utf8(id.to_vec()).ok()?,
        boot_id: *at(fields, 4)?,
        number: u64::from_be_bytes(*at(fields, 20)?),
        written_at: Timestamp::from_be_bytes(*at(fields, 28)?),
        interval_ms: u32::from_be_bytes(*at(fields, 36)?),
    })
}

/// The block with its checksum.
fn sealed(mut block: [u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
    let sum = crc32c::crc32c(&block[..SUM_AT]);
    block[SUM_AT..].copy_from_slice(&sum.to_be_bytes());
    block
}

/// The bytes before the checksum, if it is right.
fn verified(block: &[u8]) -> Option<&[u8]> {
    let (fields, sum) = block.split_at_checked(SUM_AT)?;
    let sum = u32::from_be_bytes(sum.try_into().ok()?);
    (crc32c::crc32c(fields) == sum).then_some(fields)
}

fn at<const N: usize>(bytes: &[u8], place: usize) -> Option<&[u8; N]> {
    bytes.get(place..)?.first_chunk()
}

/// Bytes as they could stand in an area, whatever they are, their checksum made right so that what is behind it is reached: for
/// fuzzing.
pub fn hostile(bytes: &[u8]) {
    let mut block = [0; BLOCK_BYTES];
    let kept = bytes.len().min(BLOCK_BYTES);
    block[..kept].copy_from_slice(&bytes[..kept]);
    let block = sealed(block);
    let _ = (Slot::decode(&block), Header::decode(&block), Slot::decode(bytes), Header::decode(bytes));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Record {
        Record {
            class: BeatClass::Beat,
            host: "web1".to_owned(),
            boot_id: *b"0123456789abcdef",
            number: 258,
            written_at: 1_700_000_000_000,
            interval_ms: 5_000,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|d| char::from_digit(d.into(), 16)).collect()
    }

    /// Version 1 as it was first written. These bytes must decode for ever.
    #[test]
    fn golden_bytes() {
        let block = record().encode();
        expect_test::expect![
            "50545248010000043031323334353637383961626364656600000000000001020000018bcfe568000000138877656231 eb2ce990"
        ]
        .assert_eq(&format!("{} {}", hex(&block[..48]), hex(&block[SUM_AT..])));
        assert_eq!(Slot::decode(&block), Slot::Record(record()));
        let goodbye = Record { class: BeatClass::Goodbye, ..record() };
        assert_eq!(Slot::decode(&goodbye.encode()), Slot::Record(goodbye));
        let header = Header { hosts_max: 64, area_id: *b"fedcba9876543210", made_at: 1_700_000_000_000 };
        let block = header.encode();
        expect_test::expect![
            "50545253010000000040000000000000666564636261393837363534333231300000018bcfe56800 fd32394f"
        ]
        .assert_eq(&format!("{} {}", hex(&block[..40]), hex(&block[SUM_AT..])));
        assert_eq!(Header::decode(&block), Some(header));
    }

    #[test]
    fn zeros_are_free_and_what_is_torn_is_not() {
        assert_eq!(Slot::decode(&[0; BLOCK_BYTES]), Slot::Free);
        let (old, new) = (record().encode(), Record { number: 259, ..record() }.encode());
        // A disk with sectors of 512 bytes may have taken any part of a write.
        for cut in (512..BLOCK_BYTES).step_by(512) {
            let torn = [&new[..cut], &old[cut..]].concat();
            assert_eq!(Slot::decode(&torn), Slot::Unreadable, "cut at {cut}");
        }
        for place in 0..BLOCK_BYTES {
            let mut changed = old;
            changed[place] ^= 1;
            assert_eq!(Slot::decode(&changed), Slot::Unreadable, "changed at {place}");
        }
        assert_eq!(Slot::decode(&old[..100]), Slot::Unreadable);
        assert_eq!(Header::decode(&old), None);
        assert_eq!(Header::decode(&Header { hosts_max: 0, area_id: [0; 16], made_at: 0 }.encode()), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), whole in any::<bool>()) {
            let mut block = [0; BLOCK_BYTES];
            block[..4].copy_from_slice(if whole { RECORD_MAGIC } else { HEADER_MAGIC });
            block[4] = VERSION;
            block[5..5 + bytes.len()].copy_from_slice(&bytes);
            let block = sealed(block);
            let _ = (Slot::decode(&block), Header::decode(&block), Slot::decode(&bytes), Header::decode(&bytes));
        }
    }
}
