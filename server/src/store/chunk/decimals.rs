//! Floats as integers over a power of ten or of two, where dividing gives back every bit: hundredths of seconds, megabytes
//! with three decimals, percentages that a 32-bit float once held.

use crate::store::varint::DecodeError;

/// Powers of ten that values are scaled by: nanoseconds are the finest that the kernel tells.
const TENS: [f64; 10] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// A scale of `TWOS + n` is the power `2^n`.
const TWOS: u8 = 64;
/// Integers from here on are not all representable as floats.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Explicit bits of a float's mantissa.
const MANTISSA_BITS: i32 = 52;

/// The values, all finite and none of them −0, as integers over the smallest scale that gives back every bit. O(n).
pub fn from_floats(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let mut integers = Vec::with_capacity(values.len());
    let mut scale = 0u8;
    // The first values mostly tell the scale, so that beginning anew costs little.
    'scales: while let Some(&divisor) = TENS.get(usize::from(scale)) {
        integers.clear();
        for &value in values {
            let Some(integer) = integer(value, divisor) else {
                scale += 1;
                continue 'scales;
            };
            integers.push(integer);
        }
        return Some((scale, integers));
    }
    from_binary(values)
}

/// What an integer is divided by.
///
/// # Errors
/// No writer writes such a scale.
pub fn divisor(scale: u8) -> Result<f64, DecodeError> {
    match TENS.get(usize::from(scale)) {
        Some(divisor) => Ok(*divisor),
        None if scale > TWOS && scale < 2 * TWOS => Ok(f64::exp2(f64::from(scale - TWOS))),
        None => Err(DecodeError::Unknown { what: "scale", found: scale }),
    }
}

/// Whether a scale is a power of two.
pub fn is_binary(scale: u8) -> bool {
    scale > TWOS
}

fn integer(value: f64, divisor: f64) -> Option<i64> {
    let scaled = value * divisor;
    // Half away from zero by truncation: `f64::round` is a call where the processor's older instructions have to do.
    let nearest = (scaled + 0.5f64.copysign(scaled)) as i64;
    let exact = scaled.abs() < EXACT_MAX && (nearest as f64 / divisor).to_bits() == value.to_bits();
    exact.then_some(nearest)
}

fn from_binary(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let places = values.iter().map(|&value| binary_places(value)).max()?;
    let places = u8::try_from(places).ok().filter(|places| (1..TWOS).contains(places))?;
    let factor = f64::exp2(f64::from(places));
    let integers = values.iter().map(|value| {
        let scaled = value * factor;
        (scaled.abs() < EXACT_MAX).then_some(scaled as i64)
    });
    Some((TWOS + places, integers.collect::<Option<_>>()?))
}

/// Binary places behind the point that a finite value has.
fn binary_places(value: f64) -> i32 {
    let bits = value.to_bits();
    let mantissa = bits & ((1 << MANTISSA_BITS) - 1);
    let exponent = (bits >> MANTISSA_BITS & 0x7ff) as i32 - 1023;
    if value == 0.0 { 0 } else { MANTISSA_BITS - exponent - (mantissa | 1 << MANTISSA_BITS).trailing_zeros() as i32 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_taken_comes_back(values in prop::collection::vec(prop_oneof![
            (any::<i32>(), 0u32..9).prop_map(|(n, places)| f64::from(n) / 10f64.powi(places as i32)),
            any::<f32>().prop_map(f64::from),
            (-1e6f64..1e6),
        ], 1..8)) {
            let plain = |value: &f64| value.is_finite() && value.to_bits() != (-0.0f64).to_bits();
            if values.iter().all(plain) && let Some((scale, integers)) = from_floats(&values) {
                let divisor = divisor(scale).unwrap();
                for (value, integer) in values.iter().zip(integers) {
                    prop_assert_eq!(value.to_bits(), (integer as f64 / divisor).to_bits());
                }
            }
        }
    }

    #[test]
    fn scales_are_the_smallest() {
        let scale = |values: &[f64]| from_floats(values).map(|(scale, _)| scale);
        assert_eq!(scale(&[1.0, 2.0]), Some(0));
        assert_eq!(scale(&[1.0, 2.5, 3.25]), Some(2));
        assert_eq!(scale(&[0.1, 123_456.123_456_789]), Some(9));
        assert_eq!(scale(&[f64::from(0.1f32), f64::from(0.3f32)]), Some(TWOS + 27));
        assert_eq!(scale(&[1.0 / 3.0]), Some(TWOS + 54));
        assert_eq!(scale(&[1.0 / 3.0, 4e9]), None);
        assert_eq!(scale(&[f64::MAX]), None);
    }
}
