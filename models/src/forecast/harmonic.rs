//! Seasons of any shape as sums of waves, with a trend: linear regression by linfa.

use linfa::Dataset;
use linfa::traits::Fit;
use linfa_linear::{FittedLinearRegression, LinearRegression};
use ndarray::{Array1, Array2};

/// Waves per season: four follow an office day with its two shoulders; more fit noise.
const WAVES: usize = 4;

/// A fitted sum of waves and a line.
pub struct Harmonic {
    fitted: FittedLinearRegression<f64>,
    periods: Vec<f64>,
    scale: f64,
}

impl Harmonic {
    /// Fits values at steps 0..n. `seasons` in steps. `None` where the regression has no unique answer. O(n × waves²).
    pub fn fit(values: &[f64], seasons: &[f64]) -> Option<Harmonic> {
        let periods = wave_periods(seasons);
        let scale = values.len() as f64;
        if values.len() < 2 * (periods.len() * 2 + 2) {
            return None;
        }
        let columns = 1 + 2 * periods.len();
        let features = Array2::from_shape_fn((values.len(), columns), |(i, j)| feature(i as f64, j, &periods, scale));
        let dataset = Dataset::new(features, Array1::from(values.to_vec()));
        let fitted = LinearRegression::new().fit(&dataset).ok()?;
        let finite = fitted.params().iter().all(|p| p.is_finite()) && fitted.intercept().is_finite();
        finite.then_some(Harmonic { fitted, periods, scale })
    }

    /// The fitted value at step `i`, which may lie beyond the fitted range.
    pub fn at(&self, i: f64) -> f64 {
        let waves = self.fitted.params().iter().enumerate();
        self.fitted.intercept() + waves.map(|(j, p)| p * feature(i, j, &self.periods, self.scale)).sum::<f64>()
    }
}

/// Periods of all waves, in steps; those of fewer than four steps cannot be seen, and a wave that two seasons share is taken once.
fn wave_periods(seasons: &[f64]) -> Vec<f64> {
    let mut periods: Vec<f64> = Vec::new();
    for season in seasons {
        for wave in 1..=WAVES {
            let period = season / wave as f64;
            if period >= 4.0 && periods.iter().all(|p| (p / period - 1.0).abs() > 0.01) {
                periods.push(period);
            }
        }
    }
    periods
}

fn feature(i: f64, j: usize, periods: &[f64], scale: f64) -> f64 {
    if j == 0 {
        return i / scale - 0.5;
    }
    let angle = std::f64::consts::TAU * i / periods[(j - 1) / 2];
    if j % 2 == 1 { angle.sin() } else { angle.cos() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_on_a_slope_is_found_exactly() {
        let value = |i: f64| 3.0 + 0.05 * i + 2.0 * (i / 24.0 * std::f64::consts::TAU).sin();
        let values: Vec<f64> = (0..96).map(|i| value(f64::from(i))).collect();
        let harmonic = Harmonic::fit(&values, &[24.0]).unwrap();
        assert!((harmonic.at(110.0) - value(110.0)).abs() < 1e-6, "{}", harmonic.at(110.0));
        assert!(Harmonic::fit(&values[..10], &[24.0]).is_none());
    }
}
