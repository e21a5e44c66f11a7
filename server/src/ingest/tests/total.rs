//! Tests of what streams of deltas add up to.

use proptest::prelude::*;

use super::*;

fn number(start: u64, end: u64, value: f64) -> Stream {
    Stream { during: During { start, end }, total: Amount::Number(Sum::of(value)) }
}

#[test]
fn starts_and_ends_decide() {
    for (during, expected) in [
        ((20, 30), Ok(Added::Next)),
        ((0, 30), Ok(Added::Next)),
        ((21, 30), Ok(Added::Gap)),
        ((19, 30), Ok(Added::Overlap)),
        ((10, 20), Err(Dropped::Old)),
        ((10, 15), Err(Dropped::Old)),
        ((9, 30), Err(Dropped::OlderStart)),
    ] {
        let mut stream = number(10, 20, 1.0);
        let before = stream.clone();
        let during = During { start: during.0, end: during.1 };
        let added = stream.add(during, Amount::Number(Sum::of(2.0)));
        assert_eq!(added, expected, "{during:?}");
        let after = number(10, 30, 3.0);
        assert_eq!(stream, if added.is_ok() { after } else { before }, "{during:?}");
    }
}

#[test]
fn a_sum_that_was_missing_once_stays_so() {
    let mut counted = Counted { count: 1, sum: Some(Sum::of(1.0)) };
    counted.add(&Counted { count: 2, sum: None });
    counted.add(&Counted { count: 4, sum: Some(Sum::of(1.0)) });
    assert_eq!(counted, Counted { count: 7, sum: None });
}

#[test]
fn long_sums_keep_small_numbers() {
    let sum = (0..10_000).fold(Sum::of(1e16), |sum, _| sum.add(Sum::of(0.1)));
    assert!((sum.value() - 1e16 - 1_000.0).abs() <= 2.0, "{}", sum.value());
}

proptest! {
    /// Whatever comes twice, late or in gaps: what is written grows by exactly what was taken.
    #[test]
    fn increases_are_the_deltas(steps in prop::collection::vec((0u64..4, 1u64..4, 0u32..1_000), 1..60)) {
        let mut stream = number(100, 101, 0.0);
        let (mut clock, mut taken, mut increase, mut last) = (101u64, 0u64, 0.0, 0.0);
        for (start, length, value) in steps {
            let during = During { start: (clock + start).saturating_sub(2), end: clock + start + length - 2 };
            if stream.add(during, Amount::Number(Sum::of(f64::from(value)))).is_ok() {
                taken += u64::from(value);
                clock = during.end;
            }
            let Amount::Number(total) = &stream.total else { unreachable!() };
            prop_assert!(total.value() >= last);
            increase += total.value() - last;
            last = total.value();
        }
        prop_assert_eq!(increase, taken as f64);
    }
}
