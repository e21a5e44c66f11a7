//! The members of the ensemble: each a few lines, and wrong in its own way.

use super::lagged;
use crate::forecast::line::median;

/// Cycles that a profile is the mean of.
const CYCLES: usize = 4;
/// Weight of a cycle to that of the one after it.
const FADE: f64 = 0.6;
/// Values that levels are smoothed over at most.
const RECENT: usize = 300;
/// Values that a slope is taken from at most.
const SLOPE: usize = 200;
/// Gains of level and trend, and what is left of a trend at each step. *Source:* E. Gardner, E. McKenzie, 1985.
const DAMPED: (f64, f64, f64) = (0.5, 0.1, 0.9);
/// Gain of the level beneath the theta line, which keeps half of the slope. *Source:* V. Assimakopoulos, K. Nikolopoulos, 2000.
const THETA_GAIN: f64 = 0.5;

/// A way to forecast.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Member {
    /// The last cycle of the longest season comes again; without a season the last value stays.
    LastCycle,
    /// The last cycle of the shortest season comes again.
    ShortCycle,
    /// Recent cycles of the longest season, the later the heavier, at the level of the last.
    Cycles,
    /// Regression on lags, with this ridge.
    Lagged(f64),
    /// A level smoothed with this gain, and the profile of the longest season.
    Level(f64),
    /// A level with a trend that fades, and the same profile.
    Damped,
    /// A level with half of the slope, and the profile of the shortest season.
    Theta,
    /// The median of the recent past.
    Median,
}

/// Those that make sense with these seasons.
pub(super) fn of(seasons: &[usize]) -> Vec<Member> {
    use Member::{Cycles, Damped, Lagged, LastCycle, Level, Median, ShortCycle, Theta};
    let mut members = vec![LastCycle, Lagged(1.0), Level(0.1), Level(0.5), Damped];
    match seasons.len() {
        0 => members.extend([Lagged(8.0), Level(0.25), Median]),
        1 => members.extend([Cycles, Theta]),
        _ => members.extend([Cycles, Theta, ShortCycle]),
    }
    members
}

impl Member {
    /// `steps` values after the last of `values`, which is not empty; `None` where it cannot say.
    pub(super) fn project(self, values: &[f64], seasons: &[usize], steps: usize) -> Option<Vec<f64>> {
        let n = values.len();
        let (short, long) = (seasons.first().copied().unwrap_or(1), seasons.last().copied().unwrap_or(1));
        if n < 2 * long {
            return None;
        }
        let again = |period: usize| (0..steps).map(|step| values[n - period + step % period]).collect();
        Some(match self {
            Member::LastCycle => again(long),
            Member::ShortCycle => again(short),
            Member::Cycles => {
                let last = &values[n - long..];
                let level = last.iter().sum::<f64>() / long as f64;
                let profile = profile(values, long, FADE);
                (0..steps).map(|step| level + profile[step % long]).collect()
            }
            Member::Lagged(ridge) => return lagged::project(values, seasons, steps, ridge),
            Member::Level(gain) => {
                let (rest, profile) = deseasoned(values, long);
                let level = smoothed(&rest[n - n.min(RECENT)..], gain);
                (0..steps).map(|step| level + profile[step % long]).collect()
            }
            Member::Damped => {
                let (rest, profile) = deseasoned(values, long);
                let (level, trend) = damped(&rest[n - n.min(RECENT)..]);
                let ahead = (0..steps).scan((1.0, 0.0), |(power, sum), step| {
                    *power *= DAMPED.2;
                    *sum += *power * trend;
                    Some(level + *sum + profile[step % long])
                });
                ahead.collect()
            }
            Member::Theta => {
                let (rest, profile) = deseasoned(values, short);
                let slope = slope(&rest[n - n.min(SLOPE)..]);
                let level = smoothed(&rest, THETA_GAIN);
                (0..steps).map(|step| level + 0.5 * slope * (step + 1) as f64 + profile[step % short]).collect()
            }
            Member::Median => {
                let mut recent = values[n - n.min((2 * steps).max(24))..].to_vec();
                vec![median(&mut recent); steps]
            }
        })
    }
}

/// How the steps of a cycle lie about its level, as the mean of the last cycles; the first is the step after the last value.
fn profile(values: &[f64], period: usize, fade: f64) -> Vec<f64> {
    let mut sum = vec![0.0; period];
    let mut total = 0.0;
    if period > 1 {
        for (age, cycle) in values.rchunks_exact(period).take(CYCLES).enumerate() {
            let (weight, level) = (fade.powi(age as i32), cycle.iter().sum::<f64>() / period as f64);
            for (sum, value) in sum.iter_mut().zip(cycle) {
                *sum += weight * (value - level);
            }
            total += weight;
        }
        for value in &mut sum {
            *value /= total.max(f64::MIN_POSITIVE);
        }
    }
    sum
}

/// The values without their profile, and the profile.
fn deseasoned(values: &[f64], period: usize) -> (Vec<f64>, Vec<f64>) {
    let profile = profile(values, period, 1.0);
    let n = values.len();
    let phase = |place: usize| (period - (n - place) % period) % period;
    (values.iter().enumerate().map(|(place, value)| value - profile[phase(place)]).collect(), profile)
}

fn smoothed(values: &[f64], gain: f64) -> f64 {
    values.iter().fold(values[0], |level, value| level + gain * (value - level))
}

fn damped(values: &[f64]) -> (f64, f64) {
    let (gain, trend_gain, stay) = DAMPED;
    values.iter().skip(1).fold((values[0], 0.0), |(level, trend), value| {
        let expected = level + stay * trend;
        let next = expected + gain * (value - expected);
        (next, stay * trend + trend_gain * (next - level - stay * trend))
    })
}

/// Least squares.
fn slope(values: &[f64]) -> f64 {
    let middle = (values.len() - 1) as f64 / 2.0;
    let x = |place: usize| place as f64 - middle;
    let products: f64 = values.iter().enumerate().map(|(place, value)| x(place) * value).sum();
    let squares: f64 = (0..values.len()).map(|place| x(place).powi(2)).sum();
    if squares > 0.0 { products / squares } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_goes_on_as_its_name_says() {
        let day: Vec<f64> = (0..96).map(|i| f64::from(i % 24)).collect();
        for member in [Member::LastCycle, Member::ShortCycle, Member::Cycles, Member::Level(0.5), Member::Damped] {
            let ahead = member.project(&day, &[24], 30).unwrap();
            assert!(ahead.iter().enumerate().all(|(i, v)| (v - (i % 24) as f64).abs() < 1e-6), "{member:?} {ahead:?}");
        }
        let rising: Vec<f64> = (0..60).map(f64::from).collect();
        let theta = Member::Theta.project(&rising, &[], 10).unwrap();
        assert!((theta[9] - theta[0] - 4.5).abs() < 1e-6, "{theta:?}");
        assert_eq!(Member::Median.project(&rising, &[], 2).unwrap(), [48.0, 48.0]);
        assert_eq!(Member::LastCycle.project(&rising, &[], 2).unwrap(), [59.0, 59.0]);
        assert_eq!(Member::LastCycle.project(&rising[..40], &[24], 2), None);
    }
}
