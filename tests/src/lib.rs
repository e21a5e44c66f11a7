//! What Petrel's end-to-end tests share: the tree as text, real processes on ports of their own, waiting for conditions,
//! and saying by name what was left out. Test code: it panics where a test would.

pub mod agent_peer;
pub mod churn;
pub mod crash;
pub mod dice;
pub mod engine;
pub mod filler;
pub mod haproxy;
pub mod hostile;
pub mod lab;
pub mod left_out;
pub mod petrel;
pub mod process;
pub mod prometheus;
pub mod remote_write;
pub mod scale;
pub mod small_disk;
pub mod smtp;
pub mod source_suite;
pub mod tree;
pub mod webhook;
