//! The previous batch as dictionary of the next: two rounds of one host differ in little but values, and a round compressed
//! against the last one is a third of one compressed alone. The coding is `dcz` of RFC 9842; docs/formats/stream.md says how both
//! ends agree. What is frozen in the spool stays plain zstd: whatever goes wrong here costs bytes, never a sample. Pure.

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use zstd::zstd_safe::{CCtx, CParameter, compress_bound, get_frame_content_size};

use super::delivery::Reply;

/// `Content-Encoding` of a body that was compressed against a dictionary.
pub const ENCODING: &str = "dcz";
/// Largest body that serves as dictionary, at both ends: fourteen thousand samples. The agent holds one.
pub const DICTIONARY_BYTES_MAX: usize = 2 << 20;
/// What a body opens with: a skippable frame of zstd that holds the dictionary's SHA-256.
const MAGIC: [u8; 8] = [0x5e, 0x2a, 0x4d, 0x18, 0x20, 0x00, 0x00, 0x00];
const HASH_BYTES: usize = 32;
/// The first of zstd's levels that looks at more than one place for a match: of a host's round it leaves a quarter less than level 1
/// (1,930 bytes of 485 samples after 2,680), and level 9 no less than it.
const ZSTD_LEVEL: i32 = 5;
/// Batches without a dictionary after so many misses in a row are doubled up to two to the power of this: an agent behind a
/// balancer that spreads its requests over servers does not send each batch twice.
const REST_LOG_MAX: u32 = 6;

/// An uncompressed request body that both ends have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dictionary {
    seq: u64,
    hash: [u8; HASH_BYTES],
    body: Box<[u8]>,
}

impl Dictionary {
    /// The body of batch `seq`; `None` where it is too large to be kept.
    pub fn new(seq: u64, body: &[u8]) -> Option<Dictionary> {
        (body.len() <= DICTIONARY_BYTES_MAX).then(|| Dictionary { seq, hash: sha256(body), body: body.into() })
    }

    /// The number of its batch.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The bytes that sender and receiver compress against.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether it is the one that a body was compressed against.
    pub fn has_hash(&self, hash: &[u8]) -> bool {
        self.hash == hash
    }

    /// Compresses a body against this one; `None` where zstd cannot.
    pub fn compress(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut context = CCtx::try_create()?;
        context.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL)).ok()?;
        context.ref_prefix(&self.body).ok()?;
        let mut frame = Vec::with_capacity(compress_bound(plain.len()));
        context.compress2(&mut frame, plain).ok()?;
        Some([&MAGIC[..], &self.hash, &frame].concat())
    }
}

/// Splits a `dcz` body into the dictionary's hash and the zstd frame.
pub fn split(body: &[u8]) -> Option<(&[u8; HASH_BYTES], &[u8])> {
    body.strip_prefix(&MAGIC)?.split_first_chunk()
}

/// Takes a frozen body out of its compression; `None` where it is none or too large for a dictionary.
fn decompress(frozen: &[u8]) -> Option<Vec<u8>> {
    let bytes = usize::try_from(get_frame_content_size(frozen).ok()??).ok()?;
    if bytes > DICTIONARY_BYTES_MAX {
        return None;
    }
    zstd::bulk::decompress(frozen, bytes).ok()
}

fn sha256(bytes: &[u8]) -> [u8; HASH_BYTES] {
    let mut hash = [0; HASH_BYTES];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// What one class's sender knows of the dictionary that its server holds.
#[derive(Debug, Default)]
pub struct Agreed {
    held: Option<Dictionary>,
    misses: u32,
    /// Batches that are still sent plain before a dictionary is tried again.
    rest: u32,
}

/// A batch as it goes out this time.
#[derive(Debug)]
pub struct Outgoing {
    /// The request body.
    pub body: Bytes,
    /// Whether it is compressed against the dictionary.
    pub is_against_dictionary: bool,
    /// The frozen body uncompressed, where it was needed.
    plain: Option<Vec<u8>>,
}

impl Outgoing {
    /// A frozen body as it is.
    pub fn plain(frozen: &Bytes) -> Outgoing {
        Outgoing { body: frozen.clone(), is_against_dictionary: false, plain: None }
    }
}

impl Agreed {
    /// The smaller of a frozen body and the same against the dictionary that the server holds. Takes about a millisecond.
    pub fn prepare(&self, frozen: &Bytes) -> Outgoing {
        let Some(dictionary) = self.held.as_ref().filter(|_| self.rest == 0) else { return Outgoing::plain(frozen) };
        let Some(plain) = decompress(frozen) else { return Outgoing::plain(frozen) };
        let smaller = dictionary.compress(&plain).filter(|body| body.len() < frozen.len());
        let is_against_dictionary = smaller.is_some();
        let body = smaller.map_or_else(|| frozen.clone(), Bytes::from);
        Outgoing { body, is_against_dictionary, plain: Some(plain) }
    }

    /// Takes how an attempt ended; `offered` is the batch that the server says it holds. `true`: the same batch goes out plain, at
    /// once, because its answer says nothing about the frozen bytes.
    pub fn step(&mut self, seq: u64, sent: Outgoing, reply: &Reply, offered: Option<u64>) -> bool {
        let Reply::Answered { status, .. } = *reply else {
            self.held = None;
            return false;
        };
        if (200..300).contains(&status) {
            self.rest = self.rest.saturating_sub(1);
            if sent.is_against_dictionary {
                self.misses = 0;
            }
            let Outgoing { body, plain, .. } = sent;
            let next = (offered == Some(seq)).then(|| plain.or_else(|| decompress(&body))).flatten();
            self.held = next.and_then(|plain| Dictionary::new(seq, &plain));
            return false;
        }
        self.held = None;
        // The server did not look at the batch: it has not our token, or no room now.
        if !sent.is_against_dictionary || matches!(status, 401 | 403 | 408 | 429 | 500..) {
            return false;
        }
        self.misses = (self.misses + 1).min(REST_LOG_MAX);
        self.rest = 1 << self.misses;
        true
    }

    /// Bytes held for the dictionary.
    pub fn bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.body.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> Reply {
        Reply::Answered { status, retry_after: None }
    }

    /// Rounds that differ in a few bytes of each series.
    fn round(n: u64) -> Vec<u8> {
        let line = |series: u64| format!("series {:x} is {}\n", series * 0x9e37_79b9, n * series % 7);
        (0..500).flat_map(|series| line(series).into_bytes()).collect()
    }

    fn frozen(n: u64) -> Bytes {
        zstd::bulk::compress(&round(n), 1).unwrap().into()
    }

    fn undo(dictionary: &Dictionary, body: &[u8]) -> Vec<u8> {
        let (hash, frame) = split(body).unwrap();
        assert!(dictionary.has_hash(hash));
        let mut plain = Vec::with_capacity(get_frame_content_size(frame).unwrap().unwrap() as usize);
        zstd::zstd_safe::DCtx::create().decompress_using_dict(&mut plain, frame, dictionary.body()).unwrap();
        plain
    }

    #[test]
    fn a_round_against_the_last_one_is_small_and_comes_back() {
        let dictionary = Dictionary::new(1, &round(1)).unwrap();
        let body = dictionary.compress(&round(2)).unwrap();
        assert_eq!(undo(&dictionary, &body), round(2));
        assert!(body.len() * 2 < frozen(2).len(), "{} of {}", body.len(), frozen(2).len());
        assert_eq!(Dictionary::new(1, &vec![0; DICTIONARY_BYTES_MAX + 1]), None);
    }

    /// `5e2a4d18 20000000`, 32 bytes of SHA-256, a frame of zstd: RFC 9842, section 5.
    #[test]
    fn golden_bytes() {
        let dictionary = Dictionary::new(1, b"abc").unwrap();
        let body = dictionary.compress(b"").unwrap();
        assert_eq!(body[..8], [0x5e, 0x2a, 0x4d, 0x18, 0x20, 0, 0, 0]);
        assert_eq!(body[8..16], [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea], "SHA-256 of abc");
        assert_eq!(body[40..44], [0x28, 0xb5, 0x2f, 0xfd]);
        assert_eq!((split(&body[..39]), split(&body[1..]), split(b"")), (None, None, None));
    }

    #[test]
    fn a_dictionary_is_used_only_where_the_server_says_it_holds_it() {
        let mut agreed = Agreed::default();
        let mut send = |seq, status, offered| {
            let sent = agreed.prepare(&frozen(seq));
            let was_against = sent.is_against_dictionary;
            (was_against, agreed.step(seq, sent, &answered(status), offered))
        };
        assert_eq!(send(1, 200, None), (false, false), "a server that offers none");
        assert_eq!(send(2, 200, Some(2)), (false, false));
        assert_eq!(send(3, 200, Some(3)), (true, false));
        assert_eq!(send(4, 200, Some(2)), (true, false), "an offer of another batch is none");
        assert_eq!(send(5, 200, Some(5)), (false, false));
        assert_eq!(send(6, 503, None), (true, false), "the server is busy: later, and plain");
        assert_eq!(send(6, 200, Some(6)), (false, false));
        assert_eq!(send(7, 409, None), (true, true), "the server lost it: plain, at once");
        assert_eq!(send(7, 200, Some(7)), (false, false));
        assert_eq!(send(8, 200, Some(8)), (false, false), "and not again at once");
        assert_eq!(send(9, 200, Some(9)), (true, false));
    }

    /// A batch is refused for good only for what its frozen bytes are.
    #[test]
    fn no_answer_to_a_dictionary_refuses_a_batch() {
        for status in [302, 400, 404, 409, 412, 413, 415, 422] {
            let mut agreed = Agreed { held: Dictionary::new(1, &round(1)), ..Agreed::default() };
            let sent = agreed.prepare(&frozen(2));
            assert!(agreed.step(2, sent, &answered(status), None), "{status}");
            let plain = agreed.prepare(&frozen(2));
            assert!(!agreed.step(2, plain, &answered(status), None), "{status}");
        }
    }

    #[test]
    fn misses_in_a_row_are_met_by_longer_rests_with_an_end() {
        let mut agreed = Agreed::default();
        let (mut seq, mut misses, mut last, mut gaps) = (0, 0, 0, Vec::new());
        while misses < 9 {
            seq += 1;
            let sent = agreed.prepare(&frozen(seq % 4));
            let status = if sent.is_against_dictionary { 409 } else { 200 };
            if agreed.step(seq, sent, &answered(status), Some(seq)) {
                misses += 1;
                gaps.push(seq - last);
                last = seq;
                seq -= 1;
            }
        }
        assert_eq!(gaps[1..], [2, 4, 8, 16, 32, 64, 64, 64]);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, ..Default::default() })]

        #[test]
        fn any_bytes_come_back(last: Vec<u8>, plain: Vec<u8>) {
            let dictionary = Dictionary::new(1, &last).unwrap();
            proptest::prop_assert_eq!(undo(&dictionary, &dictionary.compress(&plain).unwrap()), plain);
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = split(&bytes);
            let _ = decompress(&bytes);
        }
    }
}
