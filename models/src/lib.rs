//! Petrel's models: what is strange, what comes next, what a log line says, which host fails, where guests can go.
//!
//! Pure: no I/O, no clock, no threads, no global state, no logging; the time and the random seed are arguments, and the
//! same input gives the same bytes out. Public functions take slices and `Vec`, never the types of a numeric library.
//! The server feeds these from `score`, `predict`, `decide` and `remedy`; the agent uses `logs` alone.

#![warn(clippy::iter_over_hash_type)]

pub mod detect;
pub mod failure;
#[cfg(feature = "learn")]
pub mod forecast;
pub mod logs;
pub mod placement;

/// Milliseconds since the Unix epoch, as on every wire and in every file of Petrel.
pub type Timestamp = i64;
