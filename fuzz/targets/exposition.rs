//! What a scraped target shows, in both text formats: families or an error with its line, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| petrel_tests::hostile::knock_exposition(bytes));
