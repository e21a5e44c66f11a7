//! The bytes of a heartbeat; docs/formats/heartbeat.md has the diagram. Pure. Both ends use this file. Decoding never
//! panics, and nothing of a datagram is believed before its tag is verified.

use petrel_models::Timestamp;
use ring::hmac;
use serde::{Deserialize, Serialize};

/// First bytes of every datagram.
const MAGIC: &[u8; 4] = b"PTRB";
/// The only version there is.
const VERSION: u8 = 1;
/// Bytes before the agent's id.
const PREFIX_BYTES: usize = 44;
/// HMAC-SHA256.
const TAG_BYTES: usize = 32;
/// The longest datagram: no id is longer than 255 bytes.
pub const DATAGRAM_BYTES_MAX: usize = PREFIX_BYTES + 255 + TAG_BYTES;

/// One heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Beat or goodbye.
    pub class: BeatClass,
    /// Which of the agent's paths carried it, from 0 on in the order of its config.
    pub path: u8,
    /// The agent's id, 1 to 255 bytes of printable ASCII.
    pub agent: String,
    /// The kernel's boot id: a new one means that the host was restarted.
    pub boot_id: [u8; 16],
    /// Grows with every beat of a path within one boot, across restarts of the agent.
    pub seq: u64,
    /// When it was sent, by the agent's clock.
    pub sent_at: Timestamp,
    /// When the next one is to be expected, in milliseconds.
    pub interval_ms: u32,
}

/// What a heartbeat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BeatClass {
    /// The host is alive.
    Beat,
    /// The agent stops now, on purpose.
    Goodbye,
}

/// Why a datagram is not a heartbeat of a known agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeBeatError {
    /// Not ours, cut short, or of another version.
    #[error("not a heartbeat of version 1")]
    Malformed,
    /// No token is known for the agent it names.
    #[error("heartbeat of an agent without a token here")]
    UnknownAgent,
    /// The tag was not made with the agent's token.
    #[error("heartbeat with a wrong tag; check that both ends have the same token")]
    WrongTag,
}

impl Beat {
    /// The datagram. `key` is the agent's token, empty where none is needed. The id must have 1 to 255 bytes.
    pub fn encode(&self, key: &[u8]) -> Vec<u8> {
        let id = &self.agent.as_bytes()[..self.agent.len().min(255)];
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + id.len() + TAG_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.push(VERSION);
        bytes.push(match self.class {
            BeatClass::Beat => 0,
            BeatClass::Goodbye => 1,
        });
        bytes.push(self.path);
        bytes.push(id.len() as u8);
        bytes.extend_from_slice(&self.boot_id);
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.sent_at.to_be_bytes());
        bytes.extend_from_slice(&self.interval_ms.to_be_bytes());
        bytes.extend_from_slice(id);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &bytes);
        bytes.extend_from_slice(tag.as_ref());
        bytes
    }

    /// Reads and verifies a datagram. `key_of` gives the token of an agent, empty where none is needed, `None` where the
    /// agent is not known.
    ///
    /// # Errors
    /// It is not a heartbeat, or not one of a known agent.
    pub fn decode(datagram: &[u8], key_of: impl FnOnce(&str) -> Option<Vec<u8>>) -> Result<Beat, DecodeBeatError> {
        let (beat, signed_bytes) = parse(datagram).ok_or(DecodeBeatError::Malformed)?;
        let key = key_of(&beat.agent).ok_or(DecodeBeatError::UnknownAgent)?;
        let (signed, tag) = datagram.split_at(signed_bytes);
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed, tag).map_err(|_| DecodeBeatError::WrongTag)?;
        Ok(beat)
    }
}

/// Reads the fields and how many bytes the tag covers.
fn parse(datagram: &[u8]) -> Option<(Beat, usize)> {
    let rest = datagram.strip_prefix(MAGIC)?;
    let (&[version, class, path, id_bytes], rest) = rest.split_first_chunk::<4>()?;
    let class = match (version, class) {
        (VERSION, 0) => BeatClass::Beat,
        (VERSION, 1) => BeatClass::Goodbye,
        _ => return None,
    };
    let (boot_id, rest) = rest.split_first_chunk::<16>()?;
    let (seq, rest) = rest.split_first_chunk::<8>()?;
    let (sent_at, rest) = rest.split_first_chunk::<8>()?;
    let (interval_ms, rest) = rest.split_first_chunk::<4>()?;
    let (id, tag) = rest.split_at_checked(usize::from(id_bytes))?;
    if id.is_empty() || !id.iter().all(u8::is_ascii_graphic) || tag.len() != TAG_BYTES {
        return None;
    }
    let beat = Beat {
        class,
        path,
        agent: String::from_utf8(id.to_vec()).ok()?,
        boot_id: *boot_id,
        seq: u64::from_be_bytes(*seq),
        sent_at: Timestamp::from_be_bytes(*sent_at),
        interval_ms: u32::from_be_bytes(*interval_ms),
    };
    Some((beat, PREFIX_BYTES + id.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beat() -> Beat {
        Beat {
            class: BeatClass::Beat,
            path: 2,
            agent: "web1".to_owned(),
            boot_id: *b"0123456789abcdef",
            seq: 258,
            sent_at: 1_700_000_000_000,
            interval_ms: 1_000,
        }
    }

    /// Version 1 as it was first written. These bytes must decode for ever.
    #[test]
    fn golden_bytes() {
        let bytes = beat().encode(b"secret");
        let hex: String = bytes
            .iter()
            .flat_map(|byte| [byte >> 4, byte & 15])
            .filter_map(|d| char::from_digit(d.into(), 16))
            .collect();
        expect_test::expect!["50545242010002043031323334353637383961626364656600000000000001020000018bcfe56800000003e8776562310e81580f8261995eba19de1a1fa8bcac14208c472d0e10a7262150e95f192f65"].assert_eq(&hex);
        assert_eq!(Beat::decode(&bytes, |_| Some(b"secret".to_vec())), Ok(beat()));
        let goodbye = Beat { class: BeatClass::Goodbye, ..beat() };
        assert_eq!(Beat::decode(&goodbye.encode(b""), |_| Some(Vec::new())), Ok(goodbye));
    }

    #[test]
    fn what_is_not_ours_is_told_apart() {
        let bytes = beat().encode(b"secret");
        assert_eq!(Beat::decode(&bytes, |_| None), Err(DecodeBeatError::UnknownAgent));
        assert_eq!(Beat::decode(&bytes, |_| Some(b"other".to_vec())), Err(DecodeBeatError::WrongTag));
        for at in 0..bytes.len() {
            assert!(Beat::decode(&bytes[..at], |_| Some(b"secret".to_vec())).is_err(), "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Beat::decode(&changed, |_| Some(b"secret".to_vec())).is_err(), "changed at {at}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Beat::decode(&bytes, |_| Some(Vec::new()));
            let mut ours = b"PTRB\x01\x00".to_vec();
            ours.extend_from_slice(&bytes);
            let _ = Beat::decode(&ours, |_| Some(Vec::new()));
        }
    }
}
