//! A sealed chunk: samples of one series, sorted by time and unique in time, as columns. The layout stands in
//! docs/formats/store.md. Constants, regular times and integers of any scale have tags of our own, because most of a host's
//! series are one of these and a general codec spends bytes on finding out; the rest is `pco`. Every bit of a value comes back.

mod bits;
mod decimals;
mod decode;
mod encode;
mod walk;

pub use decode::{decode, decode_within, span};
pub(in crate::store) use encode::set_checksum;
pub use encode::{Effort, EncodeError, encode};

/// Largest number of samples in a chunk.
pub const CHUNK_SAMPLES_MAX: usize = 1440;

const VERSION: u8 = 3;
const VERSION_FIRST: u8 = 1;
/// The first version that ends with a checksum: CRC-32C of all before it, little-endian.
const VERSION_CHECKED: u8 = 3;
const CHECKSUM_BYTES: usize = 4;
const TIMES_REGULAR: u8 = 0;
const TIMES_PCO: u8 = 1;
const TIMES_VARINT: u8 = 2;
const TIMES_WALK: u8 = 3;
const TIMES_STOPS: u8 = 4;
const VALUES_CONSTANT: u8 = 0;
const VALUES_FLOAT: u8 = 1;
const VALUES_DECIMAL: u8 = 2;
const VALUES_DECIMAL_VARINT: u8 = 3;
const VALUES_RAW: u8 = 4;
const VALUES_WALK: u8 = 5;
const VALUES_STOPS: u8 = 6;
