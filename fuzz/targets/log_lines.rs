//! Lines of files, the journal and the kernel: counted, masked, mined, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| petrel_tests::hostile::knock_log_lines(bytes));
