//! Tests of the chunk layout: every bit comes back, damage is an error, sizes stay where they were measured.

use proptest::prelude::*;

use crate::series::{STALE_NAN_BITS, Sample};
use crate::store::chunk::{Effort, decode, encode, span};

fn bits(samples: &[Sample]) -> Vec<(i64, u64)> {
    samples.iter().map(|sample| (sample.t, sample.v.to_bits())).collect()
}

fn series(values: impl IntoIterator<Item = f64>) -> Vec<Sample> {
    values.into_iter().enumerate().map(|(i, v)| Sample { t: 1_700_000_000_000 + i as i64 * 10_000, v }).collect()
}

fn any_value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-1000i64..1000).prop_map(|n| n as f64 / 100.0),
        2 => any::<u64>().prop_map(f64::from_bits),
        1 => Just(f64::from_bits(STALE_NAN_BITS)),
        1 => Just(-0.0),
        1 => Just(f64::INFINITY),
        1 => any::<i32>().prop_map(f64::from),
    ]
}

proptest! {
    #[test]
    fn chunks_come_back(
        start in -1_000_000i64..2_000_000_000_000,
        steps in prop::collection::vec((1i64..20_000, any_value()), 1..300),
        best: bool,
    ) {
        let mut t = start;
        let samples: Vec<Sample> = steps.into_iter().map(|(step, v)| { t += step; Sample { t, v } }).collect();
        let effort = if best { Effort::Best } else { Effort::Fast };
        let body = encode(&samples, effort).unwrap();
        prop_assert_eq!(bits(&decode(&body).unwrap()), bits(&samples));
        let (count, range) = span(&body).unwrap();
        prop_assert_eq!((count, range.from, range.to), (samples.len(), samples[0].t, t));
    }

    #[test]
    fn damage_is_an_error_or_other_numbers_but_never_a_panic(at in 0usize..200, xor in 1u8..) {
        let mut body = encode(&series((0..100).map(|i| f64::from(i * i % 37) / 8.1)), Effort::Fast).unwrap();
        let at = at % body.len();
        body[at] ^= xor;
        let _ = decode(&body);
        body.truncate(at);
        prop_assert!(decode(&body).is_err());
    }
}

#[test]
fn bytes_per_sample_stay_small() {
    let size = |samples: Vec<Sample>| encode(&samples, Effort::Best).unwrap().len() as f64 / samples.len() as f64;
    let mut seed = 7u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    assert!(size(series((0..720).map(|_| 1.0))) < 0.05, "constant");
    let gauge = size(series((0..720).map(|_| (random() % 400) as f64 / 100.0)));
    assert!(gauge < 1.3, "gauge with two decimals: {gauge}");
    let mut sum = 0.0;
    let counter = size(series((0..720).map(|_| {
        sum += (random() % 5000) as f64;
        sum
    })));
    assert!(counter < 1.8, "counter: {counter}");
    let mut ended = series((0..720).map(|i| f64::from(i) * 3.0));
    ended[719].v = f64::from_bits(STALE_NAN_BITS);
    assert!(size(ended) < 0.2, "a staleness marker costs little");
}
