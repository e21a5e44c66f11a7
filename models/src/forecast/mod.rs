//! Forecast: what a gauge does next, how sure that is, and when it meets a limit.
//!
//! `grid` makes a history regular, `regime` finds where the present behaviour began, `method` has the candidates (with
//! `line` and `harmonic` below), `backtest` lets them compete on the history itself, `spread` turns the winner's errors into
//! intervals that grow with the lead, `outlook` holds the result, `limit` asks it for the time to a limit. A history that
//! carries nothing to forecast from is refused, with the reason. Counters are forecast as rates: see `detect::Rate`.

mod backtest;
mod ensemble;
mod grid;
mod harmonic;
mod limit;
mod line;
mod method;
mod outlook;
mod regime;
mod spread;

pub use ensemble::{Ahead, BAND_QUANTILES, ensemble};
pub use limit::{Direction, TimeToLimit};
pub use method::Method;
pub use outlook::{Outlook, QUANTILES};

use crate::Timestamp;

/// Fewest regular points to forecast from: fewer do not tell a trend from noise.
pub const POINTS_MIN: usize = 20;
/// A forecast reaches at most this many times as far as its history: beyond, even a straight line is a guess.
pub const REACH: i64 = 8;
/// Share of a history's steps that may be missing.
const MISSING_MAX: f64 = 0.5;
const DAY_MS: i64 = 86_400_000;

/// One value of a history. The value is finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// When.
    pub t: Timestamp,
    /// The value.
    pub v: f64,
}

/// What is asked of a forecast.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// How far to look, from the last point on. Cut to [`REACH`] times the history's length.
    pub horizon_ms: i64,
    /// The value never goes below this, such as 0 for free space.
    pub floor: Option<f64>,
    /// The value never goes above this, such as the size of a file system.
    pub ceiling: Option<f64>,
    /// Lengths of seasons to look for; each is used once the history holds two and a half of it.
    pub seasons_ms: Vec<i64>,
    /// The history is brought to at most this many regular points, which bounds the cost.
    pub points_max: usize,
    /// Steps of the outlook at most.
    pub steps_max: usize,
    /// Sample paths behind the quantiles.
    pub paths: usize,
    /// Seed of the sample paths: the same question with the same seed has the same answer.
    pub seed: u64,
}

impl Question {
    /// A question with the usual settings: daily and weekly seasons, 288 points, 60 steps, 400 paths.
    pub fn within(horizon_ms: i64) -> Question {
        Question {
            horizon_ms,
            floor: None,
            ceiling: None,
            seasons_ms: vec![DAY_MS, 7 * DAY_MS],
            points_max: 288,
            steps_max: 60,
            paths: 400,
            seed: 0,
        }
    }
}

/// Why there is no forecast.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum NotForecastable {
    /// Too little history.
    #[error("only {points} points of history, {needed} are needed")]
    TooShort {
        /// Finite points found.
        points: usize,
        /// Points needed.
        needed: usize,
    },
    /// Too many holes.
    #[error("{:.0} % of the history is missing", missing * 100.0)]
    TooManyGaps {
        /// Share of steps without a point, 0 to 1.
        missing: f64,
    },
    /// The horizon is not positive, or below one step.
    #[error("the horizon is shorter than one step of the history ({step_ms} ms)")]
    HorizonTooShort {
        /// The history's step.
        step_ms: i64,
    },
}

/// Forecasts a history of points sorted by time. Points that are not finite or not later than their predecessor are left out.
///
/// Cost: O(n × origins × methods) with n ≤ `points_max` and 16 origins, plus `paths × steps_max`; about 2 ms.
///
/// # Errors
/// The history is too short or has too many gaps.
pub fn forecast(history: &[Point], question: &Question) -> Result<Outlook, NotForecastable> {
    let grid = grid::regular(history, question.points_max)?;
    let start = regime::start(&grid.values);
    let values = &grid.values[start..];
    let reach_ms = question.horizon_ms.min(grid.step_ms * values.len() as i64 * REACH);
    let steps = usize::try_from(reach_ms / grid.step_ms).unwrap_or(0);
    if steps == 0 {
        return Err(NotForecastable::HorizonTooShort { step_ms: grid.step_ms });
    }
    let seasons: Vec<f64> = question.seasons_ms.iter().map(|&ms| ms as f64 / grid.step_ms as f64).collect();
    let trial = backtest::choose(values, &seasons, steps);
    let center = trial.method.project(values, &trial.seasons, steps);
    let spread = spread::Spread::fit(&trial);
    Ok(outlook::build(&grid, values, (trial.method, center, spread), question))
}

#[cfg(test)]
mod tests;
