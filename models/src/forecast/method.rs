//! The candidates: each projects a history onto the steps ahead. None of them knows how sure it is; `backtest` finds out.

use serde::{Deserialize, Serialize};

use super::harmonic::Harmonic;
use super::line::{Line, median};

/// Weight of the newest value in the smoothed level: about the last seven values count.
const LEVEL_GAIN: f64 = 0.25;
/// Cycles that the repeated season is the mean of.
const CYCLES: usize = 3;

/// A last residual of more than this many times the noise is a jump of the level.
const JUMP: f64 = 8.0;

/// A way to forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The last value stays.
    Naive,
    /// A smoothed level stays.
    Level,
    /// The median of the history comes back.
    Median,
    /// The mean of the last cycles, moved to the present level.
    Seasonal,
    /// Waves and a trend, by linear regression.
    Harmonic,
    /// The mean change goes on from the last value.
    Drift,
    /// A robust line through the whole history goes on.
    Line,
    /// A robust line through the last quarter goes on.
    LineRecent,
}

impl Method {
    /// All methods, simple ones first.
    pub const ALL: [Method; 8] = [
        Method::Naive,
        Method::Level,
        Method::Median,
        Method::Seasonal,
        Method::Harmonic,
        Method::Drift,
        Method::Line,
        Method::LineRecent,
    ];

    /// Whether the method carries a trend on for ever.
    pub fn trends(self) -> bool {
        matches!(self, Method::Drift | Method::Line | Method::LineRecent)
    }

    /// Whether the method needs a season.
    pub fn seasonal(self) -> bool {
        matches!(self, Method::Seasonal | Method::Harmonic)
    }

    /// Values at 1..=`steps` steps after the last of `values` (not empty). `seasons` in steps, shortest first.
    pub fn project(self, values: &[f64], seasons: &[f64], steps: usize) -> Vec<f64> {
        let n = values.len();
        let last = values[n - 1];
        let flat = |v: f64| vec![v; steps];
        match self {
            Method::Naive => flat(last),
            Method::Level => flat(values.iter().skip(1).fold(values[0], |level, v| level + LEVEL_GAIN * (v - level))),
            Method::Median => flat(median(&mut values.to_vec())),
            Method::Drift => {
                let slope = (last - values[0]) / (n.max(2) - 1) as f64;
                (1..=steps).map(|h| last + slope * h as f64).collect()
            }
            Method::Line => along(&Line::fit(values), values, steps),
            Method::LineRecent => {
                let recent = &values[n - (n / 4).clamp(n.min(12), n)..];
                along(&Line::fit(recent), recent, steps)
            }
            Method::Seasonal => repeat(values, seasons, steps),
            Method::Harmonic => match Harmonic::fit(values, seasons) {
                Some(fitted) => {
                    let residuals: Vec<f64> = values.iter().enumerate().map(|(i, v)| v - fitted.at(i as f64)).collect();
                    let stay = persistence(&residuals);
                    let ahead = |h: usize| fitted.at((n - 1 + h) as f64) + residuals[n - 1] * stay.powi(h as i32);
                    (1..=steps).map(ahead).collect()
                }
                None => flat(last),
            },
        }
    }
}

/// The line goes on; what the last value lay beside it fades as residuals of this series do. Where that is far more than
/// its noise, the level has jumped (space was freed): then it stays.
fn along(line: &Line, values: &[f64], steps: usize) -> Vec<f64> {
    let n = values.len();
    let residuals: Vec<f64> = values.iter().enumerate().map(|(i, v)| v - line.at(i, n)).collect();
    let jumped = residuals[n - 1].abs() > JUMP * line.noise;
    let stay = if jumped { 1.0 } else { persistence(&residuals) };
    (1..=steps).map(|h| line.at_last + line.slope * h as f64 + residuals[n - 1] * stay.powi(h as i32)).collect()
}

/// The mean of the same phase in the last cycles of the longest season, each cycle moved to the level of the last.
fn repeat(values: &[f64], seasons: &[f64], steps: usize) -> Vec<f64> {
    let Some(&period) = seasons.last() else { return vec![values[values.len() - 1]; steps] };
    let n = values.len();
    let cycles = ((n as f64 / period) as usize).clamp(1, CYCLES);
    let level = |k: usize| {
        let end = n - ((k as f64 * period) as usize).min(n - 1);
        let from = end.saturating_sub(period as usize);
        values[from..end].iter().sum::<f64>() / (end - from).max(1) as f64
    };
    let levels: Vec<f64> = (0..cycles).map(level).collect();
    let ahead = |h: usize| {
        let back = ((h - 1) as f64 / period).floor() + 1.0;
        let at = (n - 1 + h) as f64 - back * period;
        let phases =
            levels.iter().enumerate().map(|(k, own)| between(values, at - k as f64 * period) - own + levels[0]);
        phases.sum::<f64>() / cycles as f64
    };
    (1..=steps).map(ahead).collect()
}

/// The value at a place between two steps.
fn between(values: &[f64], at: f64) -> f64 {
    let at = at.clamp(0.0, (values.len() - 1) as f64);
    let (i, share) = (at as usize, at.fract());
    let next = values[(i + 1).min(values.len() - 1)];
    values[i] + (next - values[i]) * share
}

/// Lag-one correlation of residuals, in `[0, 0.98]`.
fn persistence(residuals: &[f64]) -> f64 {
    let products: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
    let squares: f64 = residuals.iter().map(|r| r * r).sum();
    if squares > 0.0 { (products / squares).clamp(0.0, 0.98) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_goes_on_as_its_name_says() {
        let rising: Vec<f64> = (0..60).map(f64::from).collect();
        for method in [Method::Drift, Method::Line, Method::LineRecent] {
            let ahead = method.project(&rising, &[], 5);
            assert!((ahead[4] - 64.0).abs() < 1e-6, "{method:?} {ahead:?}");
        }
        let wave: Vec<f64> = (0..96).map(|i| (f64::from(i) / 24.0 * std::f64::consts::TAU).cos()).collect();
        for method in [Method::Seasonal, Method::Harmonic] {
            let ahead = method.project(&wave, &[24.0], 24);
            let error = (1..=24).map(|h| (ahead[h - 1] - wave[h % 24]).abs()).fold(f64::INFINITY, f64::min);
            assert!((ahead[23] - wave[95 % 24]).abs() < 0.05 && error < 0.5, "{method:?} {ahead:?}");
        }
        assert_eq!(Method::Naive.project(&rising, &[], 2), [59.0, 59.0]);
        assert_eq!(Method::Median.project(&rising, &[], 1), [30.0]);
    }
}
