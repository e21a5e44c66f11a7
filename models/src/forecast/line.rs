//! A straight line through points that do not all deserve trust: least squares with Huber's weights.

/// Residuals beyond this many scales lose weight. *Source:* Huber 1981, «Robust Statistics», section 7.8 (1.345 keeps 95 %
/// efficiency on normal noise).
const HUBER: f64 = 1.345;
/// Rounds of reweighting; four are enough for the slope to settle to a hundredth of its error.
const ROUNDS: usize = 4;

/// `at_last + slope × (i - (n - 1))`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// The line's value at the last point.
    pub at_last: f64,
    /// Change per step.
    pub slope: f64,
    /// Median absolute residual × 1.4826: the scale of normal noise.
    pub noise: f64,
}

impl Line {
    /// Fits a line; a single point gives a flat one. `values` is not empty. O(n).
    pub fn fit(values: &[f64]) -> Line {
        let mut weights = vec![1.0; values.len()];
        let mut line = weighted(values, &weights);
        for _ in 0..ROUNDS {
            line.noise = line.noise_of(values);
            if line.noise <= 0.0 {
                break;
            }
            for (i, weight) in weights.iter_mut().enumerate() {
                let distance = (values[i] - line.at(i, values.len())).abs() / line.noise;
                *weight = if distance <= HUBER { 1.0 } else { HUBER / distance };
            }
            line = weighted(values, &weights);
        }
        line.noise = line.noise_of(values);
        line
    }

    /// The line at point `i` of `n`.
    pub fn at(&self, i: usize, n: usize) -> f64 {
        self.at_last - self.slope * (n - 1 - i) as f64
    }

    fn noise_of(&self, values: &[f64]) -> f64 {
        let mut distances: Vec<f64> =
            values.iter().enumerate().map(|(i, v)| (v - self.at(i, values.len())).abs()).collect();
        median(&mut distances) * 1.4826
    }
}

/// The median; reorders its input, which is not empty.
pub fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

fn weighted(values: &[f64], weights: &[f64]) -> Line {
    let n = values.len();
    let sum: f64 = weights.iter().sum();
    let x = |i: usize| i as f64 - (n - 1) as f64;
    let mean_x = weights.iter().enumerate().map(|(i, w)| w * x(i)).sum::<f64>() / sum;
    let mean_y = weights.iter().zip(values).map(|(w, y)| w * y).sum::<f64>() / sum;
    let (mut sxx, mut sxy) = (0.0, 0.0);
    for i in 0..n {
        sxx += weights[i] * (x(i) - mean_x).powi(2);
        sxy += weights[i] * (x(i) - mean_x) * (values[i] - mean_y);
    }
    let slope = if sxx > 0.0 { sxy / sxx } else { 0.0 };
    Line { at_last: mean_y - slope * mean_x, slope, noise: 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_do_not_bend_the_line() {
        let mut values: Vec<f64> = (0..50).map(|i| 10.0 + 2.0 * f64::from(i) + 0.1 * f64::from(i % 3)).collect();
        values[10] = 5000.0;
        values[45] = -3000.0;
        let line = Line::fit(&values);
        assert!((line.slope - 2.0).abs() < 0.02, "{line:?}");
        assert!((line.at_last - 108.1).abs() < 1.0, "{line:?}");
        assert_eq!(Line::fit(&[3.0]).slope, 0.0);
    }
}
