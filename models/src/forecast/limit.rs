//! Time to a limit, as a distribution: when each sample path first meets it.

use serde::{Deserialize, Serialize};

use super::outlook::Outlook;

/// From which side a limit is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The value falls to the limit or below.
    Below,
    /// The value rises to the limit or above.
    Above,
}

impl Direction {
    /// Whether a value has met the limit.
    pub fn crossed(self, value: f64, limit: f64) -> bool {
        match self {
            Direction::Below => value <= limit,
            Direction::Above => value >= limit,
        }
    }
}

/// When a limit is met, counted from the outlook's last value.
#[derive(Debug, Clone, PartialEq)]
pub struct TimeToLimit {
    /// Seconds until each path that meets the limit meets it, sorted.
    crossings: Vec<f64>,
    paths: usize,
}

impl TimeToLimit {
    /// Seconds until the limit is met with probability `q`; `None`: beyond the outlook's reach.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (q * self.paths as f64).ceil().max(1.0) as usize;
        self.crossings.get(rank - 1).copied()
    }

    /// Probability that the limit is met within this time. Beyond the outlook's reach nothing is added: a lower bound.
    pub fn probability_within(&self, seconds: f64) -> f64 {
        self.crossings.partition_point(|crossing| *crossing <= seconds) as f64 / self.paths.max(1) as f64
    }
}

impl Outlook {
    /// When the series meets `limit`. A last value that has met it already gives 0 seconds and certainty.
    pub fn time_to_limit(&self, limit: f64, direction: Direction) -> TimeToLimit {
        let paths = self.paths.len();
        if direction.crossed(self.last, limit) {
            return TimeToLimit { crossings: vec![0.0; paths], paths };
        }
        let mut crossings: Vec<f64> =
            self.paths.iter().filter_map(|path| self.first_crossing(path, limit, direction)).collect();
        crossings.sort_by(f64::total_cmp);
        TimeToLimit { crossings, paths }
    }

    /// Between two steps the path runs in a straight line.
    fn first_crossing(&self, path: &[f64], limit: f64, direction: Direction) -> Option<f64> {
        let step = path.iter().position(|value| direction.crossed(*value, limit))?;
        let before = if step == 0 { self.last } else { path[step - 1] };
        let share = ((limit - before) / (path[step] - before)).clamp(0.0, 1.0);
        Some((step as f64 + share) * self.step_ms as f64 / 1000.0)
    }
}
