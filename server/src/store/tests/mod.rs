//! Tests of the store that are larger than one file's own.

mod backup;
mod chunk;
mod damage;
mod deletion;
mod engine;
mod golden;
mod leaving;
mod rollups;
mod unlinked;
mod world;
