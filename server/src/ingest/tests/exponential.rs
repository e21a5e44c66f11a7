//! Tests of exponential histograms as classic buckets.

use proptest::prelude::*;

use super::*;

fn point(scale: i32, positive: (i32, Vec<u64>), negative: (i32, Vec<u64>)) -> ExponentialHistogramDataPoint {
    let buckets = |(offset, bucket_counts)| Some(Buckets { offset, bucket_counts });
    ExponentialHistogramDataPoint {
        scale,
        zero_count: 1,
        positive: buckets(positive),
        negative: buckets(negative),
        ..ExponentialHistogramDataPoint::default()
    }
}

/// A histogram of values, as an SDK makes it.
fn of(values: &[f64], scale: i32) -> Exponential {
    let index = |value: f64| (value.log2() * 2f64.powi(scale)).ceil() as i32 - 1;
    let mut read = Exponential::read(&ExponentialHistogramDataPoint { scale, ..Default::default() }).unwrap();
    for value in values {
        let one = point(scale, (index(*value), vec![1]), (0, vec![]));
        read.add(Exponential::read(&ExponentialHistogramDataPoint { zero_count: 0, ..one }).unwrap());
    }
    read
}

#[test]
fn zeros_are_as_wide_as_their_threshold() {
    let wide = ExponentialHistogramDataPoint { zero_threshold: 3.0, ..point(0, (0, vec![1, 1, 1]), (1, vec![1])) };
    // Values of (1, 2] are within it, those of (2, 4] may be; below -2 stands before it.
    assert_eq!(Exponential::read(&wide).unwrap().below(), [(-4.0, 0), (-2.0, 1), (3.0, 3), (4.0, 4), (8.0, 5)]);
}

#[test]
fn a_coarser_scale_keeps_every_second_boundary_bit_for_bit() {
    let fine = Exponential::read(&point(7, (-300, vec![1; 150]), (0, vec![]))).unwrap();
    let mut coarse = fine.clone();
    coarse.coarsen(1);
    let (fine, coarse) = (fine.below(), coarse.below());
    assert_eq!(coarse.len(), 77);
    assert!(coarse.iter().all(|pair| fine.contains(pair)), "{coarse:?} of {fine:?}");
}

#[test]
fn hostile_indices_end_within_the_bound() {
    for (scale, offset) in
        [(20, i32::MIN), (20, i32::MAX), (-11, i32::MIN), (-11, i32::MAX), (i32::MAX, 5), (i32::MAX, -5)]
    {
        let mut read =
            Exponential::read(&point(scale, (offset, vec![1; 9_999]), (-offset.max(-9), vec![1; 9_999]))).unwrap();
        read.add(Exponential::read(&point(20, (0, vec![1; 99_999]), (0, vec![1; 99_999]))).unwrap());
        let below = read.below();
        assert!(below.len() <= BOUNDARIES_MAX, "{} boundaries", below.len());
        assert!(below.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{below:?}");
    }
}

proptest! {
    #[test]
    fn boundaries_are_few_and_rise_and_nothing_is_lost(
        points in prop::collection::vec(
            (-11i32..24, -2_000i32..2_000, prop::collection::vec(0u64..9, 0..300), -90i32..90, prop::collection::vec(0u64..9, 0..300)),
            1..6,
        ),
    ) {
        let mut total: Option<Exponential> = None;
        let mut counted = 0;
        for (scale, offset, positive, below_zero, negative) in points {
            counted += 1 + positive.iter().sum::<u64>() + negative.iter().sum::<u64>();
            let read = Exponential::read(&point(scale, (offset, positive), (below_zero, negative))).unwrap();
            match &mut total {
                Some(total) => total.add(read),
                None => total = Some(read),
            }
        }
        let total = total.unwrap();
        let all = total.zero + total.positive.counts.iter().sum::<u64>() + total.negative.counts.iter().sum::<u64>();
        prop_assert_eq!(all, counted);
        let below = total.below();
        prop_assert!(below.len() <= BOUNDARIES_MAX);
        prop_assert!(below.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1));
    }

    /// The number of values up to each boundary is what it says.
    #[test]
    fn each_boundary_counts_the_values_up_to_it(exponents in prop::collection::vec(-40.0f64..40.0, 1..50), scale in -3i32..12) {
        let values: Vec<f64> = exponents.iter().map(|exponent| exponent.exp2()).collect();
        for (bound, count) in of(&values, scale).below() {
            // A value next to a boundary may be on either side of it by rounding of the logarithm.
            let up_to = |bound: f64| values.iter().filter(|value| **value <= bound).count() as u64;
            prop_assert!((up_to(bound * (1.0 - 1e-12))..=up_to(bound * (1.0 + 1e-12))).contains(&count));
        }
    }
}
