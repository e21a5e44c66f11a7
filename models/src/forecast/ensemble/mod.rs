//! Many short series with a season, many steps ahead: simple forecasters that err in different ways, each weighted by how well it did
//! on the series' own past. The errors of the whole on that past are the intervals. Regular values in, no clock, no chance.
//!
//! *Sources:* combination by past errors: J. Bates, C. Granger, «The combination of forecasts», 1969; intervals by the quantiles of
//! past errors (split conformal): J. Lei et al., «Distribution-free predictive inference for regression», 2018, of which the
//! exchangeability holds only roughly for a series.

mod bands;
mod lagged;
mod members;

use self::members::Member;
use super::{NotForecastable, POINTS_MIN};

/// Probabilities of the quantiles of [`Ahead`].
pub const BAND_QUANTILES: [f64; 5] = [0.025, 0.1, 0.5, 0.9, 0.975];
/// Parts of the past that are forecast as if they had not happened.
const ORIGINS: usize = 8;
/// Share of the history that is never forecast: members need something to learn from.
const HELD: f64 = 0.4;
/// A season of a day has a week above it, where the history holds two and a half of them.
const DAYS: usize = 7;
const DAY_STEPS_MAX: usize = 24;
const CYCLES_MIN: f64 = 2.5;
/// A member with twice the error has an eighth of the weight.
const SHARPNESS: i32 = 3;

/// What comes, step by step.
#[derive(Debug, Clone, PartialEq)]
pub struct Ahead {
    /// The expected values.
    pub mean: Vec<f64>,
    /// Quantiles at [`BAND_QUANTILES`].
    pub quantiles: Vec<[f64; 5]>,
}

/// Forecasts `steps` ahead of regular, finite `values`. `season`: period in steps; 1 or 0: none. Values that were never negative do
/// not become so. O(n × members × origins).
///
/// # Errors
/// Fewer than twenty values.
pub fn ensemble(values: &[f64], season: usize, steps: usize) -> Result<Ahead, NotForecastable> {
    if values.len() < POINTS_MIN {
        return Err(NotForecastable::TooShort { points: values.len(), needed: POINTS_MIN });
    }
    let members = members::of(&seasons(values.len(), season));
    let past = Past::of(values, season, steps, &members);
    let weights = past.weights();
    let seasons = seasons(values.len(), season);
    let (mut mean, mut total) = (vec![0.0; steps], 0.0);
    for (member, weight) in members.iter().zip(&weights).filter(|(_, weight)| **weight > 0.0) {
        let Some(ahead) = member.project(values, &seasons, steps) else { continue };
        for (sum, value) in mean.iter_mut().zip(&ahead) {
            *sum += weight * value;
        }
        total += weight;
    }
    let floor = if values.iter().all(|value| *value >= 0.0) { 0.0 } else { f64::NEG_INFINITY };
    for value in &mut mean {
        *value = (*value / total).max(floor);
    }
    let widths = bands::widths(&past.errors(&weights), steps, values);
    let quantiles = mean.iter().zip(&widths).map(|(center, (inner, outer))| {
        [center - outer, center - inner, *center, center + inner, center + outer].map(|value| value.max(floor))
    });
    let quantiles = quantiles.collect();
    Ok(Ahead { mean, quantiles })
}

/// Periods to use of a history of `n` values, shortest first.
fn seasons(n: usize, season: usize) -> Vec<usize> {
    if season < 2 || season * 2 > n {
        return Vec::new();
    }
    let week = season * DAYS;
    if season <= DAY_STEPS_MAX && n as f64 >= CYCLES_MIN * week as f64 { vec![season, week] } else { vec![season] }
}

/// Errors (truth less forecast) of each member at each origin and lead; none where a member could not say anything.
struct Past {
    errors: Vec<Vec<Option<Vec<f64>>>>,
}

impl Past {
    fn of(values: &[f64], season: usize, steps: usize, members: &[Member]) -> Past {
        let n = values.len();
        let stride = if n < 8 * steps { (steps / 2).max(1) } else { steps.max(1) };
        let longest = seasons(n, season).last().copied().unwrap_or(1);
        let least = (2 * longest + 2).max(POINTS_MIN).max((n as f64 * HELD) as usize);
        let mut ends: Vec<usize> =
            (1..=ORIGINS).map_while(|k| n.checked_sub(k * stride)).take_while(|end| *end >= least).collect();
        if ends.is_empty() {
            ends.push(n - (n / 4).max(1));
        }
        let errors_of = |member: &Member| -> Vec<Option<Vec<f64>>> {
            let at = |end: &usize| {
                let leads = steps.min(n - end).max(1);
                let ahead = member.project(&values[..*end], &seasons(*end, season), leads)?;
                Some(ahead.iter().zip(&values[*end..]).map(|(forecast, truth)| truth - forecast).collect())
            };
            ends.iter().map(at).collect()
        };
        Past { errors: members.iter().map(errors_of).collect() }
    }

    /// Weight of each member: nothing for one that could not say something each time.
    fn weights(&self) -> Vec<f64> {
        let mean_absolute = |errors: &[Option<Vec<f64>>]| -> Option<f64> {
            let of_origin = |errors: &Option<Vec<f64>>| {
                let errors = errors.as_ref()?;
                Some(errors.iter().map(|error| error.abs()).sum::<f64>() / errors.len() as f64)
            };
            let sum: Option<f64> = errors.iter().map(of_origin).sum();
            sum.map(|sum| sum / errors.len() as f64).filter(|mean| mean.is_finite())
        };
        let means: Vec<Option<f64>> = self.errors.iter().map(|errors| mean_absolute(errors)).collect();
        let best = means.iter().flatten().copied().fold(f64::INFINITY, f64::min).max(f64::MIN_POSITIVE);
        let weight = |mean: &Option<f64>| mean.map_or(0.0, |mean| (best / mean.max(best)).powi(SHARPNESS));
        means.iter().map(weight).collect()
    }

    /// Errors of the weighted whole at each origin.
    fn errors(&self, weights: &[f64]) -> Vec<Vec<f64>> {
        let total: f64 = weights.iter().sum();
        let origins = self.errors.first().map_or(0, Vec::len);
        let of_origin = |origin: usize| {
            let mut sum: Vec<f64> = Vec::new();
            for (errors, weight) in self.errors.iter().zip(weights).filter(|(_, weight)| **weight > 0.0) {
                let Some(errors) = &errors[origin] else { continue };
                sum.resize(errors.len(), 0.0);
                for (sum, error) in sum.iter_mut().zip(errors) {
                    *sum += weight / total * error;
                }
            }
            sum
        };
        (0..origins).map(of_origin).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wave(n: usize, level: f64) -> Vec<f64> {
        let noise = |i: usize| ((i * 7919) % 101) as f64 / 101.0 - 0.5;
        (0..n).map(|i| level + 10.0 * (i as f64 / 24.0 * std::f64::consts::TAU).sin() + noise(i)).collect()
    }

    #[test]
    fn a_daily_wave_goes_on_within_its_band() {
        let values = wave(600, 50.0);
        let ahead = ensemble(&values[..552], 24, 48).unwrap();
        let inside = ahead.quantiles.iter().zip(&values[552..]).filter(|(q, v)| q[0] <= **v && **v <= q[4]).count();
        let error = ahead.mean.iter().zip(&values[552..]).map(|(a, b)| (a - b).abs()).sum::<f64>() / 48.0;
        assert!(inside >= 43 && error < 0.6, "{inside} {error}");
        assert!(ahead.quantiles.iter().all(|q| q.is_sorted()));
    }

    #[test]
    fn what_was_never_negative_does_not_become_so() {
        let values: Vec<f64> = (0..60).map(|i| f64::from(60 - i)).collect();
        let ahead = ensemble(&values, 1, 30).unwrap();
        assert!(ahead.quantiles.iter().flatten().all(|value| *value >= 0.0));
    }

    #[test]
    fn few_values_are_refused() {
        assert_eq!(ensemble(&[1.0; 19], 1, 5), Err(NotForecastable::TooShort { points: 19, needed: POINTS_MIN }));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

        #[test]
        fn any_values_give_finite_bands_in_order(
            values in prop::collection::vec(prop_oneof![-1e9..1e9f64, Just(0.0)], 20..120), season in 0usize..50, steps in 1usize..40,
        ) {
            let ahead = ensemble(&values, season, steps).unwrap();
            prop_assert_eq!(ahead.mean.len(), steps);
            prop_assert!(ahead.quantiles.iter().all(|q| q.is_sorted() && q.iter().all(|v| v.is_finite())));
        }
    }
}
