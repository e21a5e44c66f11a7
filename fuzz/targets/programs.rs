//! What programs of a cluster and the hardware print: families or an error, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| petrel_tests::hostile::knock_programs(bytes));
