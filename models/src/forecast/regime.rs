//! Where the present behaviour began: a disk that was idle for hours and has been filling for a minute is forecast from
//! that minute alone.

use super::POINTS_MIN;
use super::line::Line;

/// A longer stretch belongs to the same line while its noise is at most this many times the shortest stretch's.
const NOISE_GROWTH_MAX: f64 = 1.5;
/// The line must climb this many times its noise, or it is no trend.
const CLEAR: f64 = 6.0;
/// The climb must be this many times the largest one ever seen over as many steps, or it has been seen before: seasons
/// and log rotation come back.
const UNSEEN: f64 = 2.0;

/// Index from which on the values follow one clear line that is unlike all before; 0 where there is no such break. O(n log n).
pub fn start(values: &[f64]) -> usize {
    let n = values.len();
    if n < 2 * POINTS_MIN {
        return start_of_short(values);
    }
    let length = longest_line(values);
    if length <= n - POINTS_MIN.min(n / 4) && is_clear(&values[n - length..]) && is_unseen(values, length) {
        n - length
    } else {
        0
    }
}

/// Between 20 and 40 points the break may leave fewer than usual before it; the line itself still has twenty.
fn start_of_short(values: &[f64]) -> usize {
    let n = values.len();
    if n < POINTS_MIN + 4 {
        return 0;
    }
    let length = longest_line(values);
    if length + 4 <= n && is_clear(&values[n - length..]) && is_unseen(values, length) { n - length } else { 0 }
}

/// The longest stretch up to the end that one line describes as well as the last twenty points.
fn longest_line(values: &[f64]) -> usize {
    let n = values.len();
    let mut length = POINTS_MIN;
    let noise_max = mean_error(&values[n - length..]) * NOISE_GROWTH_MAX;
    let climb = (values[n - 1] - values[n - length]).abs();
    // Exact lines have no noise to compare with; a thousandth of their climb stands for it.
    let noise_max = noise_max.max(climb * 1e-3);
    while length < n {
        let next = (length + (length / 8).max(1)).min(n);
        if mean_error(&values[n - next..]) > noise_max {
            break;
        }
        length = next;
    }
    length
}

/// Mean, not median: a bend at the far end touches few points and must be felt.
fn mean_error(values: &[f64]) -> f64 {
    let line = Line::fit(values);
    let n = values.len();
    values.iter().enumerate().map(|(i, v)| (v - line.at(i, n)).abs()).sum::<f64>() / n as f64
}

fn is_clear(values: &[f64]) -> bool {
    let line = Line::fit(values);
    let climb = line.slope.abs() * values.len() as f64;
    climb > CLEAR * mean_error(values) && climb > 0.0
}

fn is_unseen(values: &[f64], length: usize) -> bool {
    let n = values.len();
    let before = &values[..n - length];
    let climb = (values[n - 1] - values[n - length]).abs();
    let span = length.min(before.len() / 2).max(1);
    let seen = before.windows(span + 1).map(|w| (w[span] - w[0]).abs()).fold(0.0, f64::max);
    // Over a shorter stretch of the past the climb is compared in proportion.
    climb * span as f64 / length as f64 > UNSEEN * seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_fill_is_cut_out_and_seasons_are_not() {
        let idle_then_fill: Vec<f64> = (0..200)
            .map(|i| if i < 170 { 100.0 + f64::from(i % 2) * 0.1 } else { 100.0 - f64::from(i - 170) })
            .collect();
        let at = start(&idle_then_fill);
        assert!((165..=175).contains(&at), "{at}");
        let short: Vec<f64> = idle_then_fill[145..195].to_vec();
        assert!((20..=30).contains(&start(&short)), "{}", start(&short));
        let season: Vec<f64> = (0..288).map(|i| (f64::from(i) / 72.0 * std::f64::consts::TAU).sin()).collect();
        assert_eq!(start(&season), 0);
        let steady: Vec<f64> = (0..288).map(f64::from).collect();
        assert_eq!(start(&steady), 0);
        assert_eq!(start(&[5.0; 100]), 0);
    }
}
