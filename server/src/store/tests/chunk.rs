//! Tests of the chunk layout: every bit comes back, damage is an error, sizes stay where they were measured.

use std::fmt::Write as _;

use proptest::prelude::*;

use crate::query::source::TimeRange;
use crate::series::{STALE_NAN_BITS, Sample};
use crate::store::chunk::{Effort, decode, decode_within, encode, span};
use crate::store::hostile;

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
        1 => any::<f32>().prop_map(f64::from),
        1 => -1.0f64..1.0,
    ]
}

/// Values as real hosts have them: each kind alone, in long runs, so that every tag is met.
fn values() -> impl Strategy<Value = Vec<f64>> {
    let pick = |of: Vec<f64>| prop::collection::vec(prop::sample::select(of), 1..800);
    prop_oneof![
        prop::collection::vec(any_value(), 1..800),
        (prop::collection::vec(0i64..100_000, 1..800), prop::sample::select(vec![1.0, 2.0, 100.0, 1e9])).prop_map(
            |(steps, scale)| {
                let mut sum = 0;
                steps
                    .into_iter()
                    .map(|step| {
                        sum += step;
                        sum as f64 / scale
                    })
                    .collect()
            }
        ),
        prop::collection::vec((0i64..1 << 20).prop_map(|page| (page * 4096) as f64), 1..800),
        prop::collection::vec(-1e3f64..1e3, 1..800),
        prop::collection::vec((-1e3f32..1e3).prop_map(f64::from), 1..800),
        pick(vec![800e6, 3_500e6]),
        pick(vec![0.0, 0.0, 0.0, 0.0, 1.0]),
        pick(vec![f64::NAN, f64::from_bits(STALE_NAN_BITS), 1.0]),
    ]
}

fn chunks() -> impl Strategy<Value = Vec<Sample>> {
    let step = prop_oneof![Just(10_000i64..10_001), Just(9_990..10_010), Just(1..20_000), Just(1..1 << 50)];
    let steps = step.prop_flat_map(|steps| prop::collection::vec(steps, 800));
    (-1_000_000i64..2_000_000_000_000, steps, values()).prop_map(|(start, steps, values)| {
        let mut t = start;
        values
            .into_iter()
            .zip(steps)
            .map(|(v, step)| {
                t += step;
                Sample { t, v }
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn chunks_come_back(samples in chunks(), best: bool, from in 0usize..800, length in 0usize..800) {
        let effort = if best { Effort::Best } else { Effort::Fast };
        let body = encode(&samples, effort).unwrap();
        prop_assert_eq!(bits(&decode(&body).unwrap()), bits(&samples));
        let (first, last) = (samples[0].t, samples[samples.len() - 1].t);
        let (count, range) = span(&body).unwrap();
        prop_assert_eq!((count, range.from, range.to), (samples.len(), first, last));
        // A part, from and to a sample or just beside it.
        let at = |i: usize| samples[i.min(samples.len() - 1)].t;
        let range = TimeRange { from: at(from) - (from % 2) as i64, to: at(from + length) - (length % 2) as i64 };
        let mut part = vec![Sample { t: 1, v: 2.0 }];
        decode_within(&body, range, &mut part).unwrap();
        let expected: Vec<Sample> = samples.into_iter().filter(|s| range.from <= s.t && s.t <= range.to).collect();
        prop_assert_eq!(bits(&part[1..]), bits(&expected));
    }

    #[test]
    fn damage_is_an_error(
        samples in chunks(), best: bool, at in 0usize..6_000, xor in 1u8..,
    ) {
        let effort = if best { Effort::Best } else { Effort::Fast };
        let whole = encode(&samples, effort).unwrap();
        let at = at % whole.len();
        let mut body = whole.clone();
        body[at] ^= xor;
        // Another version has another end; what else is wrong is found out, and in older versions if it can be.
        prop_assert!(decode(&body).is_err() || at == 0);
        let _ = hostile::chunk(&body);
        body.truncate(at);
        prop_assert!(decode(&body).is_err());
        prop_assert!(decode(&whole[..at]).is_err());
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
    let mut sizes = String::new();
    let mut note = |what: &str, samples: Vec<Sample>| writeln!(sizes, "{what} {:.2}", size(samples)).unwrap();
    note("constant", series((0..720).map(|_| 1.0)));
    note("gauge with two decimals, 8.6 bits", series((0..720).map(|_| (random() % 400) as f64 / 100.0)));
    let mut sum = 0.0;
    let mut counter = |step: &mut dyn FnMut() -> f64| {
        series((0..720).map(|_| {
            sum += step();
            sum
        }))
    };
    note("counter, 12.3 bits", counter(&mut || (random() % 5000) as f64));
    note("counter, still but for errors", counter(&mut || f64::from(random() % 200 == 0)));
    note("pages, 10 bits", series((0..720).map(|_| (random() % 1024 * 4096) as f64)));
    note("frequencies, 1 bit", series((0..720).map(|_| if random() % 2 == 0 { 800e6 } else { 3_517e6 })));
    note(
        "32-bit floats, 24 bits",
        series((0..720).map(|_| f64::from((random() as f32).fract() + random() as f32 / 2e9))),
    );
    note("64-bit floats", series((0..720).map(|i| f64::from(i).sin())));
    note("ten samples", series((0..10).map(|_| (random() % 5000) as f64)));
    let mut ended = series((0..720).map(|i| f64::from(i) * 3.0));
    ended[719].v = f64::from_bits(STALE_NAN_BITS);
    note("a staleness marker after a line", ended);
    let mut late = series((0..720).map(|_| 1.0));
    for sample in &mut late {
        sample.t += (random() % 16) as i64;
    }
    note("times that jitter by 4 bits", late);
    expect_test::expect![[r"
        constant 0.04
        gauge with two decimals, 8.6 bits 1.19
        counter, 12.3 bits 1.66
        counter, still but for errors 0.07
        pages, 10 bits 1.37
        frequencies, 1 bit 0.25
        32-bit floats, 24 bits 3.26
        64-bit floats 7.24
        ten samples 4.00
        a staleness marker after a line 0.07
        times that jitter by 4 bits 0.68
    "]]
    .assert_eq(&sizes);
}
