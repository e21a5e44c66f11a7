//! What Petrel's end-to-end tests share: the tree as text, real processes on ports of their own, waiting for conditions,
//! and saying by name what was left out. Test code: it panics where a test would.

<<<<<<< HEAD
pub mod crash;
pub mod dice;
=======
pub mod engine;
>>>>>>> a57745b (remote, tests: one suite for every source, and runs against the real engines)
pub mod filler;
pub mod haproxy;
pub mod hostile;
pub mod lab;
pub mod left_out;
pub mod petrel;
pub mod process;
pub mod prometheus;
pub mod remote_write;
pub mod smtp;
pub mod source_suite;
pub mod tree;
pub mod webhook;
