//! What tests of collectors share: texts that are nearly right, and series without their headers.

use proptest::collection::vec;
use proptest::prelude::*;

/// Enough to find what panics, in milliseconds.
pub(in crate::collect) fn few() -> ProptestConfig {
    ProptestConfig::with_cases(64)
}

/// Texts near a sample: pieces of it in any order, with bytes of any kind between them. Bytes without a sample would
/// hardly ever come past the first field of a line.
pub(in crate::collect) fn near(sample: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let length = sample.len();
    let piece = (0..=length, 0..=length).prop_map(move |(one, other)| {
        let (first, last) = (one.min(other), one.max(other));
        sample.as_bytes()[first..last].to_vec()
    });
    let noise = vec(any::<u8>(), 0..8);
    let line = (0..sample.lines().count().max(1))
        .prop_map(move |number| sample.lines().nth(number).unwrap_or_default().as_bytes().to_vec());
    let newline = Just(b"\n".to_vec());
    let number = prop_oneof!["[0-9]{1,25}", "-?[0-9.e]{1,9}"].prop_map(String::into_bytes);
    vec(prop_oneof![3 => piece, 3 => line, 2 => newline, 1 => noise, 1 => number], 0..12)
        .prop_map(|pieces| pieces.concat())
}

/// The lines of an exposition that hold series.
pub(in crate::collect) fn series(exposition: &str) -> String {
    exposition.split_inclusive('\n').filter(|line| !line.starts_with('#')).collect()
}
