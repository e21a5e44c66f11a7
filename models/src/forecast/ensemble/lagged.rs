//! Regression of a value on those a step, a day and a week before it, with older days weighing less; applied again and again it walks
//! into the future. On series with a season it is the strongest single member.
//! *Source:* ridge regression: A. Hoerl, R. Kennard, 1970.

use linfa_linalg::cholesky::SolveC;
use ndarray::{Array1, Array2};

/// Cycles after which a value weighs a third.
const FADE_CYCLES: f64 = 3.0;
/// What counts as a cycle of a series without a season.
const CYCLE: usize = 60;
/// What comes lies within the range of the past and half of it more: a recursion can run away.
const BEYOND: f64 = 0.5;

/// Walks `steps` ahead; `None` where there are too few values for the number of lags, or no answer.
pub(super) fn project(values: &[f64], seasons: &[usize], steps: usize, ridge: f64) -> Option<Vec<f64>> {
    let n = values.len();
    let lags = lags(n, seasons);
    let longest = *lags.last()?;
    let columns = lags.len() + 1;
    if n <= longest || n - longest < 3 * lags.len() + 10 {
        return None;
    }
    let cycle = seasons.last().copied().unwrap_or(CYCLE);
    let recent = &values[n - n.min(if seasons.is_empty() { cycle } else { 2 * cycle })..];
    let center = recent.iter().sum::<f64>() / recent.len() as f64;
    let mean = values.iter().sum::<f64>() / n as f64;
    let scale = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
    if scale <= 0.0 || !scale.is_finite() {
        return None;
    }
    let mut walk: Vec<f64> = values.iter().map(|value| (value - center) / scale).collect();
    let coefficients = fit(&walk, &lags, (ridge, FADE_CYCLES * cycle as f64))?;
    let (low, high) =
        walk.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    let room = BEYOND * (high - low);
    for _ in 0..steps {
        let end = walk.len();
        let terms = lags.iter().zip(&coefficients).map(|(lag, coefficient)| coefficient * walk[end - lag]);
        walk.push(terms.sum::<f64>() + coefficients[columns - 1]);
    }
    Some(walk[n..].iter().map(|value| value.clamp(low - room, high + room) * scale + center).collect())
}

/// A step, two, and around each season; twice the seasons where the history is long enough.
fn lags(n: usize, seasons: &[usize]) -> Vec<usize> {
    let mut lags = vec![1, 2];
    for season in seasons {
        lags.extend([season - 1, *season, season + 1]);
    }
    match seasons {
        [] => lags.extend([3, 4]),
        [.., long] if seasons.len() > 1 && n as f64 > 3.2 * *long as f64 => lags.extend([2 * seasons[0], 2 * long]),
        [short, ..] => lags.push(2 * short),
    }
    lags.retain(|lag| *lag > 0);
    lags.sort_unstable();
    lags.dedup();
    lags
}

/// Weighted ridge regression by normal equations; the constant comes last. O(n × lags²).
fn fit(walk: &[f64], lags: &[usize], (ridge, fade): (f64, f64)) -> Option<Array1<f64>> {
    let (longest, columns) = (*lags.last()?, lags.len() + 1);
    let (mut gram, mut right) = (Array2::<f64>::zeros((columns, columns)), Array2::<f64>::zeros((columns, 1)));
    let mut row = vec![1.0; columns];
    for place in longest..walk.len() {
        let weight = (-((walk.len() - 1 - place) as f64) / fade).exp();
        for (cell, lag) in row.iter_mut().zip(lags) {
            *cell = walk[place - lag];
        }
        for i in 0..columns {
            let weighted = weight * row[i];
            right[[i, 0]] += weighted * walk[place];
            for j in 0..=i {
                gram[[i, j]] += weighted * row[j];
            }
        }
    }
    for i in 0..columns {
        for j in 0..i {
            gram[[j, i]] = gram[[i, j]];
        }
        gram[[i, i]] += if i + 1 == columns { 0.1 * ridge } else { ridge };
    }
    let solved = gram.solvec(&right).ok()?.column(0).to_owned();
    solved.iter().all(|coefficient| coefficient.is_finite()).then_some(solved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wave_is_walked_on() {
        let value = |i: usize| 5.0 + (i as f64 / 24.0 * std::f64::consts::TAU).sin();
        let values: Vec<f64> = (0..200).map(value).collect();
        let ahead = project(&values, &[24], 30, 0.01).unwrap();
        assert!(ahead.iter().enumerate().all(|(i, v)| (v - value(200 + i)).abs() < 0.1), "{ahead:?}");
        assert_eq!(project(&values[..40], &[24], 30, 1.0), None);
        assert_eq!(project(&[3.0; 200], &[24], 30, 1.0), None, "what never changes has no scale");
    }
}
