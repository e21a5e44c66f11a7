//! Stream: batches out to the server at least once, orders in on a long-lived request. A batch leaves the spool only when
//! the server has committed it or will never take it; docs/formats/stream.md specifies the wire for others.

pub mod client;
pub mod delivery;
pub mod dictionary;
pub mod encode;
pub mod orders;
pub mod pace;
pub mod protocol;
pub mod sender;
pub mod skew;

#[cfg(test)]
mod outage_tests;
