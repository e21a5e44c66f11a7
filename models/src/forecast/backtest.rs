//! Rolling-origin backtest: each candidate forecasts the later part of the history from the earlier, and the best one wins.

use super::method::Method;

/// Origins tried. Their forecasts overlap, so more of them tell little more.
const ORIGINS: usize = 16;
/// A season is used from this many cycles on: two to fit and half of one to prove it.
const CYCLES_MIN: f64 = 2.5;
/// A season has at least this many steps.
const SEASON_STEPS_MIN: f64 = 4.0;
/// A trend must beat the flat methods by this factor: a random walk shows trends that do not go on, and its backtests, which
/// overlap, believe them. A real fill beats the last value by far more (factors of 5 to 25 on synthetic ones).
const TREND_HANDICAP: f64 = 1.8;
/// Coming back to the median must beat them by this factor, for the same reason.
const RETURN_HANDICAP: f64 = 1.4;
/// A season must beat them by this factor: it has more parameters.
const SEASON_HANDICAP: f64 = 1.03;

/// The winner, and the errors it made.
pub struct Trial {
    /// The winner.
    pub method: Method,
    /// Seasons that were used, in steps.
    pub seasons: Vec<f64>,
    /// Errors (truth - forecast) of each origin at leads 1, 2, …; later origins have fewer.
    pub errors: Vec<Vec<f64>>,
    /// Smallest difference that means something in these values.
    pub resolution: f64,
}

/// Lets the methods compete. `values` has at least a dozen entries, `steps` is at least 1.
pub fn choose(values: &[f64], seasons: &[f64], steps: usize) -> Trial {
    let n = values.len();
    let seasons: Vec<f64> =
        seasons.iter().copied().filter(|s| *s >= SEASON_STEPS_MIN && CYCLES_MIN * s <= n as f64).collect();
    let longest = seasons.iter().copied().fold(0.0, f64::max);
    let first = (n / 2).max((2.0 * longest) as usize + 1).clamp(1, n - 1);
    let leads_max = steps.min(n - first);
    let origins = origins(first, n - 1);
    let mut best: Option<(f64, Method, Vec<Vec<f64>>)> = None;
    for method in Method::ALL {
        if method.seasonal() && seasons.is_empty() {
            continue;
        }
        let errors = errors_of(method, values, &seasons, (&origins, leads_max));
        let score = mean_absolute(&errors) * handicap(method);
        if best.as_ref().is_none_or(|(least, ..)| score < *least) {
            best = Some((score, method, errors));
        }
    }
    let (_, method, errors) = best.expect("the methods without season always compete");
    let size = values.iter().fold(0.0f64, |size, v| size.max(v.abs()));
    Trial { method, seasons, errors, resolution: size * 1e-9 }
}

fn handicap(method: Method) -> f64 {
    if method.trends() {
        TREND_HANDICAP
    } else if method.seasonal() {
        SEASON_HANDICAP
    } else if method == Method::Median {
        RETURN_HANDICAP
    } else {
        1.0
    }
}

/// Lengths of the training parts, evenly spread over `first..=last`.
fn origins(first: usize, last: usize) -> Vec<usize> {
    let count = ORIGINS.min(last - first + 1);
    let mut origins: Vec<usize> = (0..count).map(|k| first + (last - first) * k / (count.max(2) - 1)).collect();
    origins.dedup();
    origins
}

fn errors_of(method: Method, values: &[f64], seasons: &[f64], tried: (&[usize], usize)) -> Vec<Vec<f64>> {
    let (origins, leads_max) = tried;
    let mut all = Vec::with_capacity(origins.len());
    for &origin in origins {
        let leads = leads_max.min(values.len() - origin);
        let ahead = method.project(&values[..origin], seasons, leads);
        all.push(ahead.iter().zip(&values[origin..]).map(|(forecast, truth)| truth - forecast).collect());
    }
    all
}

/// Mean over leads of the mean over origins, so that long leads count though fewer origins reach them.
fn mean_absolute(errors: &[Vec<f64>]) -> f64 {
    let leads = errors.iter().map(Vec::len).max().unwrap_or(0);
    let mut total = 0.0;
    for lead in 0..leads {
        let reached = errors.iter().filter_map(|e| e.get(lead));
        let (sum, count) = reached.fold((0.0, 0.0), |(sum, count), e| (sum + e.abs(), count + 1.0));
        total += sum / count;
    }
    total / leads.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fitting_method_wins() {
        let noise = |i: usize| ((i * 7919) % 101) as f64 / 101.0 - 0.5;
        let line: Vec<f64> = (0..100).map(|i| 5.0 * i as f64 + noise(i)).collect();
        assert!(choose(&line, &[], 50).method.trends());
        let flat: Vec<f64> = (0..100).map(|i| 50.0 + noise(i)).collect();
        assert!(!choose(&flat, &[], 50).method.trends());
        let wave: Vec<f64> =
            (0..288).map(|i| 10.0 * (i as f64 / 72.0 * std::f64::consts::TAU).sin() + noise(i)).collect();
        assert!(choose(&wave, &[72.0, 504.0], 72).method.seasonal());
    }
}
