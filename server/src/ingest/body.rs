//! Request bodies out of their compression, never larger than a limit: the sender's word about sizes is not believed.

use std::borrow::Cow;
use std::io::Read;
use std::sync::{Mutex, PoisonError};

use petrel_agent::stream::dictionary;
use zstd::zstd_safe::{DCtx, get_error_name, get_frame_content_size};

use super::budget::ExhaustedError;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// A compression that is not taken.
    #[error("content encoding `{found}` is not taken here; send {allowed}")]
    Encoding {
        /// What was said.
        found: String,
        /// What is taken.
        allowed: &'static str,
    },
    /// Not what the encoding says.
    #[error("body is not valid {encoding}")]
    Damaged {
        /// The encoding.
        encoding: &'static str,
        /// What is wrong.
        #[source]
        source: std::io::Error,
    },
    /// Too large.
    #[error("body has more than {bytes_max} bytes when decompressed; send smaller batches (limit write.decoded_max)")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// No room beside the bodies of others.
    #[error(transparent)]
    Exhausted(#[from] ExhaustedError),
}

/// The largest window that zstd frames may ask for: 8 MiB, the most that RFC 8878 asks decoders to support.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Room for a body at first: more than one host's batch.
const READ_BYTES_FIRST: usize = 64 << 10;

/// Takes a body out of the compressions of OTLP/HTTP: none, gzip, zstd.
///
/// # Errors
/// The encoding is another one, the body is damaged, or larger than `bytes_max` afterwards.
pub fn decompress<'a>(encoding: &str, body: &'a [u8], bytes_max: usize) -> Result<Cow<'a, [u8]>, BodyError> {
    decompress_within(encoding, body, bytes_max, &mut |_| Ok(()))
}

/// Is asked before so many more bytes of memory are used.
pub type Take<'a> = dyn FnMut(usize) -> Result<(), ExhaustedError> + 'a;

/// As [`decompress`], and asks for the memory that it needs beside the body.
///
/// # Errors
/// As [`decompress`], and where `take` refuses.
pub fn decompress_within<'a>(
    encoding: &str,
    body: &'a [u8],
    bytes_max: usize,
    take: &mut Take<'_>,
) -> Result<Cow<'a, [u8]>, BodyError> {
    match encoding {
        "" | "identity" if body.len() > bytes_max => Err(BodyError::TooLarge { bytes_max }),
        "" | "identity" => Ok(Cow::Borrowed(body)),
        "gzip" => read_all(flate2::read::MultiGzDecoder::new(body), "gzip", bytes_max, take).map(Cow::Owned),
        "zstd" => {
            let damaged = |source| BodyError::Damaged { encoding: "zstd", source };
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(damaged)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(damaged)?;
            read_all(decoder, "zstd", bytes_max, take).map(Cow::Owned)
        }
        found => Err(BodyError::Encoding { found: found.to_owned(), allowed: "gzip, zstd or none" }),
    }
}

/// Takes a frame of zstd out of its compression against a dictionary. The frame says how large it becomes, and no more is made.
///
/// # Errors
/// As [`decompress_within`].
pub fn decompress_against(
    dictionary: &[u8],
    frame: &[u8],
    bytes_max: usize,
    take: &mut Take<'_>,
) -> Result<Vec<u8>, BodyError> {
    let damaged = |what: &str| {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
        BodyError::Damaged { encoding: dictionary::ENCODING, source }
    };
    let bytes = get_frame_content_size(frame).ok().flatten().ok_or_else(|| damaged("frame does not tell its size"))?;
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    if bytes > bytes_max {
        return Err(BodyError::TooLarge { bytes_max });
    }
    take(bytes)?;
    let mut out = Vec::with_capacity(bytes);
    let mut context = DCtx::try_create().ok_or_else(|| damaged("no memory for zstd"))?;
    let written = context.decompress_using_dict(&mut out, frame, dictionary);
    written.map_err(|code| damaged(get_error_name(code)))?;
    Ok(out)
}

/// Takes a remote write body out of snappy's block format, into a buffer that may hold older bytes.
///
/// # Errors
/// The encoding is another one, the body is damaged, or larger than `bytes_max` afterwards.
pub fn decompress_snappy<'a>(
    encoding: &str,
    body: &[u8],
    bytes_max: usize,
    buffer: &'a mut Vec<u8>,
) -> Result<&'a [u8], BodyError> {
    if !matches!(encoding, "snappy" | "") {
        return Err(BodyError::Encoding { found: encoding.to_owned(), allowed: "snappy" });
    }
    let damaged = |error: snap::Error| BodyError::Damaged { encoding: "snappy", source: error.into() };
    let length = snap::raw::decompress_len(body).map_err(damaged)?;
    if length > bytes_max {
        return Err(BodyError::TooLarge { bytes_max });
    }
    if buffer.len() < length {
        buffer.resize(length, 0);
    }
    let written = snap::raw::Decoder::new().decompress(body, &mut buffer[..length]).map_err(damaged)?;
    Ok(&buffer[..written])
}

/// Buffers for decompressed bodies, used again: fresh ones would have the kernel clear a quarter of a megabyte for each request.
#[derive(Debug, Default)]
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// Largest number kept, and largest buffer: 16 MiB in all.
    const KEPT_MAX: usize = 16;
    const BYTES_MAX: usize = 1 << 20;

    /// Runs `work` with a buffer of which only the length it sets means something.
    pub fn with<T>(&self, work: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let result = work(&mut buffer);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < Buffers::KEPT_MAX && buffer.len() <= Buffers::BYTES_MAX {
            kept.push(buffer);
        }
        result
    }
}

/// Reads at most one byte above the limit. Room is made here and doubled up to the limit: left to itself, reading to the end would
/// double past it, and a bomb would take several times what a good body may.
fn read_all(
    reader: impl Read,
    encoding: &'static str,
    bytes_max: usize,
    take: &mut Take<'_>,
) -> Result<Vec<u8>, BodyError> {
    let mut reader = reader.take(bytes_max as u64 + 1);
    let mut out = Vec::new();
    loop {
        let room = out.len().max(READ_BYTES_FIRST).min(bytes_max + 1 - out.len());
        take(room)?;
        out.reserve_exact(room);
        let read = reader.by_ref().take(room as u64).read_to_end(&mut out);
        let read = read.map_err(|source| BodyError::Damaged { encoding, source })?;
        if out.len() > bytes_max {
            return Err(BodyError::TooLarge { bytes_max });
        }
        if read < room {
            return Ok(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_encoding_comes_out_and_bombs_do_not() {
        let bytes = vec![7u8; 100_000];
        let zstd = zstd::stream::encode_all(&bytes[..], 1).unwrap();
        let snappy = snap::raw::Encoder::new().compress_vec(&bytes).unwrap();
        for (encoding, body) in [("", bytes.clone()), ("gzip", gzip(&bytes)), ("zstd", zstd)] {
            assert_eq!(*decompress(encoding, &body, 100_000).unwrap(), bytes[..]);
            assert!(matches!(decompress(encoding, &body, 99_999), Err(BodyError::TooLarge { .. })), "{encoding}");
        }
        let buffer = &mut vec![1; 200_000];
        assert_eq!(decompress_snappy("snappy", &snappy, 100_000, buffer).unwrap(), bytes);
        assert!(matches!(decompress_snappy("snappy", &snappy, 99_999, buffer), Err(BodyError::TooLarge { .. })));
    }

    #[test]
    fn memory_is_asked_for_before_it_is_used() {
        let body = zstd::stream::encode_all(&vec![7u8; 1 << 20][..], 1).unwrap();
        let mut asked = 0;
        let out = decompress_within("zstd", &body, 1 << 21, &mut |bytes| {
            asked += bytes;
            Ok(())
        });
        assert!(out.is_ok() && (1 << 20..=1 << 22).contains(&asked), "{asked}");
        let mut held = crate::ingest::budget::Budget::new(100_000).enter();
        let refused = decompress_within("zstd", &body, 1 << 21, &mut |bytes| held.take(bytes));
        assert!(refused.unwrap_err().to_string().starts_with("write.in_flight_max"), "after 64 KiB");
    }

    #[test]
    fn a_body_against_a_dictionary_is_as_bounded_as_any() {
        let plain = vec![7; 100_000];
        let dictionary = dictionary::Dictionary::new(1, &plain[..50_000]).unwrap();
        let body = dictionary.compress(&plain).unwrap();
        let (_, frame) = dictionary::split(&body).unwrap();
        let mut asked = 0;
        let mut decompress = |frame: &[u8], bytes_max| {
            asked = 0;
            decompress_against(dictionary.body(), frame, bytes_max, &mut |bytes| {
                asked += bytes;
                Ok(())
            })
        };
        assert_eq!(decompress(frame, 100_000).unwrap(), plain);
        assert!(matches!(decompress(frame, 99_999), Err(BodyError::TooLarge { .. })));
        for at in 0..frame.len() {
            assert!(decompress(&frame[..at], 100_000).is_err(), "torn at {at}");
        }
        // Two frames, of which the first alone tells its size.
        assert!(decompress(&[frame, frame].concat(), 1 << 20).is_err());
        assert_eq!(asked, 100_000);
    }

    #[test]
    fn damage_and_unknown_encodings_are_named() {
        assert!(decompress("gzip", b"no", 10).unwrap_err().to_string().contains("not valid gzip"));
        assert!(decompress("zstd", b"nothing here", 10).is_err());
        assert!(decompress("br", b"", 10).unwrap_err().to_string().contains("`br`"));
        // A snappy header that claims four gigabytes.
        assert!(decompress_snappy("snappy", &[0xff, 0xff, 0xff, 0xff, 0x0f], 1 << 20, &mut Vec::new()).is_err());
        assert!(decompress_snappy("gzip", b"", 10, &mut Vec::new()).is_err());
    }
}
