//! An outlook: quantiles per step and the sample paths behind them.

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::Question;
use super::grid::Grid;
use super::method::Method;
use super::spread::{Spread, normal_below};
use crate::Timestamp;

/// The quantiles that an outlook tells.
pub const QUANTILES: [f64; 7] = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95];
/// Of trends as old as `T`, one in eleven ends within another `T`: a prior, until the ledger knows better. It keeps a line
/// seen for a minute from being certain of an hour.
const TREND_ENDS: f64 = 0.1;

/// Forecast of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Outlook {
    /// Time of the last value that it stands on.
    pub issued: Timestamp,
    /// Time between two steps; step `k` (from 0) is at `issued + (k + 1) × step_ms`.
    pub step_ms: i64,
    /// How it was forecast.
    pub method: Method,
    /// The last value.
    pub last: f64,
    /// For each step the values at [`QUANTILES`].
    pub values: Vec<[f64; QUANTILES.len()]>,
    pub(super) paths: Vec<Vec<f64>>,
    source: PathSource,
}

/// All that paths are drawn from.
#[derive(Debug, Clone, PartialEq)]
struct PathSource {
    /// The method's projection at every step of the outlook.
    center: Vec<f64>,
    /// Steps of the history's grid per step of the outlook.
    stride: f64,
    spread: Spread,
    /// For a trend: how long it has been seen, in steps of the outlook.
    trend_age: Option<f64>,
    floor: f64,
    ceiling: f64,
}

impl Outlook {
    /// How far it reaches. Less than asked where the history is short.
    pub fn reach_ms(&self) -> i64 {
        self.step_ms * self.values.len() as i64
    }

    /// `n` ways the series may go, each with a value per step. The same seed gives the same paths.
    pub fn sample_paths(&self, n: usize, seed: u64) -> Vec<Vec<f64>> {
        self.source.draw(self.last, n, seed)
    }
}

/// Puts an outlook together from a method, its projection at every step of the grid, and its errors.
pub(super) fn build(grid: &Grid, values: &[f64], by: (Method, Vec<f64>, Spread), question: &Question) -> Outlook {
    let (method, center, spread) = by;
    let stride = center.len().div_ceil(question.steps_max.max(1));
    let source = PathSource {
        center: center.chunks_exact(stride).map(|chunk| chunk[stride - 1]).collect(),
        stride: stride as f64,
        spread,
        trend_age: method.trends().then_some(values.len() as f64 / stride as f64),
        floor: question.floor.unwrap_or(f64::NEG_INFINITY),
        ceiling: question.ceiling.unwrap_or(f64::INFINITY),
    };
    let last = grid.values[grid.values.len() - 1];
    let paths = source.draw(last, question.paths.max(QUANTILES.len()), question.seed);
    let values = (0..source.center.len()).map(|k| quantiles_at(&paths, k)).collect();
    Outlook { issued: grid.last_t, step_ms: grid.step_ms * stride as i64, method, last, values, paths, source }
}

impl PathSource {
    fn draw(&self, last: f64, n: usize, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        (0..n).map(|_| self.draw_one(last, &mut rng)).collect()
    }

    /// One path. Its error is a stationary process in the logarithm of the lead (as that of a random walk is, divided by
    /// its scale), plus what is new at each step; the scale and the shape of the errors are those of the backtest.
    fn draw_one(&self, last: f64, rng: &mut Xoshiro256PlusPlus) -> Vec<f64> {
        let ends_at = self.trend_age.map_or(f64::INFINITY, |age| {
            let survive: f64 = rng.r#gen::<f64>().max(1e-9);
            age / TREND_ENDS * (1.0 / survive - 1.0)
        });
        let (carried, fresh) = (self.spread.carried.sqrt(), (1.0 - self.spread.carried).sqrt());
        let mut kept = normal(rng);
        let mut path = Vec::with_capacity(self.center.len());
        let mut center_last = last;
        for (k, &center) in self.center.iter().enumerate() {
            let step = (k + 1) as f64;
            if k > 0 {
                let memory = (k as f64 / step).powf(self.spread.forgetting());
                kept = memory * kept + (1.0 - memory * memory).sqrt() * normal(rng);
            }
            let z = carried * kept + if fresh > 0.0 { fresh * normal(rng) } else { 0.0 };
            if step <= ends_at {
                center_last = center;
            }
            let error = self.spread.error(step * self.stride, (z, normal_below(z)));
            path.push((center_last + error).clamp(self.floor, self.ceiling));
        }
        path
    }
}

fn quantiles_at(paths: &[Vec<f64>], step: usize) -> [f64; QUANTILES.len()] {
    let mut values: Vec<f64> = paths.iter().map(|path| path[step]).collect();
    values.sort_by(f64::total_cmp);
    QUANTILES.map(|q| {
        let at = q * (values.len() - 1) as f64;
        let (i, share) = (at as usize, at.fract());
        values[i] + (values[(i + 1).min(values.len() - 1)] - values[i]) * share
    })
}

/// A standard normal number. *Source:* Box and Muller 1958.
fn normal(rng: &mut Xoshiro256PlusPlus) -> f64 {
    let (radius, angle): (f64, f64) = (rng.r#gen::<f64>().max(f64::MIN_POSITIVE), rng.r#gen());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}
