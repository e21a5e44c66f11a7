//! Tests of the store that are larger than one file's own.

mod chunk;
mod engine;
mod golden;
