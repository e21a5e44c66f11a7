//! How wrong a forecast may be at each lead: a scale that grows with the lead, and the shape of the errors, both from the backtest.

use super::backtest::Trial;
use super::line::median;

/// Leads at which the scale is measured, growing by about a half.
const LEAD_GROWTH: f64 = 1.5;
/// Entries of the error shape kept.
const SHAPE_MAX: usize = 101;
/// Errors of more than this many times the usual one are jumps.
const JUMP: f64 = 4.0;
/// Beyond the leads that were tested errors grow at least like a random walk's.
const GROWTH_UNTESTED_MIN: f64 = 0.5;
/// And those of a trend like the error of its slope.
const GROWTH_UNTESTED_TREND: f64 = 1.0;
/// Mean absolute value to standard deviation of a normal distribution.
const MEAN_ABSOLUTE_TO_DEVIATION: f64 = 1.2533;

/// Scale and shape of the errors.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// Scale at lead 1.
    scale: f64,
    /// Exponent of the scale's growth, within the tested leads and beyond.
    growth: f64,
    growth_untested: f64,
    tested: f64,
    /// Errors in units of their lead's scale, sorted; not empty.
    shape: Vec<f64>,
    /// Share of the error's variance that a path carries from step to step; the rest is new at each step.
    pub carried: f64,
}

impl Spread {
    /// Measures the errors of a trial.
    pub fn fit(trial: &Trial) -> Spread {
        let leads_max = trial.errors.iter().map(Vec::len).max().unwrap_or(1).max(1);
        let measured: Vec<(f64, f64, f64)> = leads(leads_max)
            .filter_map(|lead| {
                let at: Vec<f64> = trial.errors.iter().filter_map(|e| e.get(lead - 1)).map(|e| e.abs()).collect();
                let count = at.len() as f64;
                let scale = at.iter().sum::<f64>() / count * MEAN_ABSOLUTE_TO_DEVIATION;
                (count >= 2.0).then_some((lead as f64, scale.max(trial.resolution), count))
            })
            .collect();
        let (scale, growth) = power_law(&measured, trial.resolution);
        let least = if trial.method.trends() { GROWTH_UNTESTED_TREND } else { GROWTH_UNTESTED_MIN };
        let tested = measured.last().map_or(1.0, |(lead, ..)| *lead);
        let mut spread = Spread {
            scale,
            growth,
            growth_untested: growth.max(least),
            tested,
            shape: vec![0.0],
            carried: carried(trial),
        };
        spread.shape = spread.shape_of(trial, leads_max);
        // Few origins that overlap: the scale itself is uncertain by about 1/sqrt(2k), and a t distribution is wider by as much.
        let origins = trial.errors.len() as f64;
        spread.scale *= 1.0 + 1.0 / (2.0 * origins).sqrt();
        spread
    }

    /// Scale of the error at a lead, in steps.
    pub fn scale_at(&self, lead: f64) -> f64 {
        let within = lead.min(self.tested);
        self.scale * within.powf(self.growth) * (lead / within).powf(self.growth_untested)
    }

    /// The error at a lead for a standard normal `z` whose probability below is `p`: the shape's quantile, continued
    /// beyond its ends as a normal tail would.
    pub fn error(&self, lead: f64, (z, p): (f64, f64)) -> f64 {
        let count = self.shape.len() as f64;
        let at = p * (count + 1.0) - 1.0;
        let (first, last) = (self.shape[0], self.shape[self.shape.len() - 1]);
        let end_z = normal_quantile(1.0 / (count + 1.0));
        let standard = if at <= 0.0 {
            first * (z / end_z).max(1.0)
        } else if at >= count - 1.0 {
            last * (z / -end_z).max(1.0)
        } else {
            let (i, share) = (at as usize, at.fract());
            self.shape[i] + (self.shape[i + 1] - self.shape[i]) * share
        };
        standard * self.scale_at(lead)
    }

    /// How fast a carried error forgets, per logarithm of the lead: errors that grow like a slope's hardly do.
    pub fn forgetting(&self) -> f64 {
        (1.0 - self.growth).clamp(0.1, 0.5)
    }

    fn shape_of(&self, trial: &Trial, leads_max: usize) -> Vec<f64> {
        let mut standard: Vec<f64> = Vec::new();
        for errors in &trial.errors {
            for lead in leads(leads_max).take_while(|lead| *lead <= errors.len()) {
                let scale = self.scale_at(lead as f64);
                standard.push(if scale > 0.0 { errors[lead - 1] / scale } else { 0.0 });
            }
        }
        if standard.is_empty() {
            return vec![0.0];
        }
        // Both signs: origins overlap, and what looks like a bias of theirs is one accident seen many times. Jumps keep
        // theirs: space that was freed once is no sign that it will vanish.
        let usual = median(&mut standard.iter().map(|error| error.abs()).collect::<Vec<_>>());
        let mirrored = |error: f64| if error.abs() > JUMP * usual { [error, 0.0] } else { [error, -error] };
        let mut shape: Vec<f64> = standard.into_iter().flat_map(mirrored).collect();
        shape.sort_by(f64::total_cmp);
        if shape.len() <= SHAPE_MAX {
            return shape;
        }
        (0..SHAPE_MAX).map(|i| shape[i * (shape.len() - 1) / (SHAPE_MAX - 1)]).collect()
    }
}

/// 1, 2, 3, 4, 6, 9, … up to `max`.
fn leads(max: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1usize), |lead| Some(((*lead as f64 * LEAD_GROWTH).round() as usize).max(lead + 1)))
        .take_while(move |lead| *lead <= max)
}

/// `scale × lead^growth` through (lead, scale, weight), growth in `[0, 1.2]`.
fn power_law(measured: &[(f64, f64, f64)], resolution: f64) -> (f64, f64) {
    let usable: Vec<(f64, f64, f64)> = measured
        .iter()
        .filter(|(_, scale, _)| *scale > 0.0)
        .map(|(lead, scale, weight)| (lead.ln(), scale.ln(), *weight))
        .collect();
    let sum: f64 = usable.iter().map(|(_, _, w)| w).sum();
    if usable.is_empty() || sum <= 0.0 {
        return (resolution, GROWTH_UNTESTED_MIN);
    }
    let mean_x = usable.iter().map(|(x, _, w)| w * x).sum::<f64>() / sum;
    let mean_y = usable.iter().map(|(_, y, w)| w * y).sum::<f64>() / sum;
    let sxx: f64 = usable.iter().map(|(x, _, w)| w * (x - mean_x).powi(2)).sum();
    let sxy: f64 = usable.iter().map(|(x, y, w)| w * (x - mean_x) * (y - mean_y)).sum();
    let growth = if sxx > 0.0 { (sxy / sxx).clamp(0.0, 1.2) } else { GROWTH_UNTESTED_MIN };
    ((mean_y - growth * mean_x).exp(), growth)
}

/// Correlation of an origin's errors at neighbouring leads, in `[0, 1]`.
fn carried(trial: &Trial) -> f64 {
    let (mut products, mut squares) = (0.0, 0.0);
    for errors in &trial.errors {
        for pair in errors.windows(2) {
            products += pair[0] * pair[1];
            squares += f64::midpoint(pair[0] * pair[0], pair[1] * pair[1]);
        }
    }
    if squares > 0.0 { (products / squares).clamp(0.0, 1.0) } else { 1.0 }
}

/// Quantile of the standard normal distribution.
pub fn normal_quantile(p: f64) -> f64 {
    -std::f64::consts::SQRT_2 * statrs::function::erf::erfc_inv(2.0 * p)
}

/// Probability that a standard normal is below `z`.
pub fn normal_below(z: f64) -> f64 {
    0.5 * statrs::function::erf::erfc(-z / std::f64::consts::SQRT_2)
}
