//! What stands on shared storage and in the spool, and datagrams: read or refused, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| petrel_tests::hostile::knock_agent_blocks(bytes));
