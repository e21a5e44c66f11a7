//! How wide the intervals are: quantiles of what the whole erred by on the series' own past, wider with the lead.

/// Past errors are those of weights that were chosen on them, and few: the intervals are wider by so much.
const WIDER: f64 = 1.15;
/// The error grows with the lead by a power between none and this.
const GROWTH_MAX: f64 = 0.7;
/// Where the past says nothing of growth.
const GROWTH_UNKNOWN: f64 = 0.3;

/// Half widths of the 80 % and the 95 % interval for each of `steps` leads.
pub(super) fn widths(errors: &[Vec<f64>], steps: usize, values: &[f64]) -> Vec<(f64, f64)> {
    let growth = growth(errors, steps);
    let scale = |lead: usize| (lead as f64 / steps as f64).powf(growth);
    let mut standard: Vec<f64> = errors
        .iter()
        .flat_map(|errors| errors.iter().enumerate().map(|(place, error)| error.abs() / scale(place + 1)))
        .filter(|error| error.is_finite())
        .collect();
    standard.sort_by(f64::total_cmp);
    // What cannot be told apart in a float of these values.
    let least = values.iter().fold(0.0f64, |size, value| size.max(value.abs())) * 1e-9;
    let width = |share| (quantile(&standard, share) * WIDER).max(least);
    let (inner, outer) = (width(0.8), width(0.95));
    (1..=steps).map(|lead| (inner * scale(lead), outer * scale(lead))).collect()
}

/// The power by which errors grow with the lead: a line through the logarithms of three blocks of leads.
fn growth(errors: &[Vec<f64>], steps: usize) -> f64 {
    let edges = [1, (steps / 6).max(1), (steps / 2).max(2), steps];
    let blocks: Vec<(f64, f64)> = edges
        .windows(2)
        .filter_map(|edge| {
            let of_block = |errors: &Vec<f64>| errors.get(edge[0] - 1..edge[1].min(errors.len())).map(<[f64]>::to_vec);
            let all: Vec<f64> = errors.iter().filter_map(of_block).flatten().map(f64::abs).collect();
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            (mean > 0.0).then(|| (((edge[0] + edge[1]) as f64 / 2.0).ln(), mean.ln()))
        })
        .collect();
    let count = blocks.len() as f64;
    let (mean_x, mean_y) =
        (blocks.iter().map(|(x, _)| x).sum::<f64>() / count, blocks.iter().map(|(_, y)| y).sum::<f64>() / count);
    let sxx: f64 = blocks.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
    let sxy: f64 = blocks.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    if sxx > 0.0 { (sxy / sxx).clamp(0.0, GROWTH_MAX) } else { GROWTH_UNKNOWN }
}

/// A quantile of sorted values, between neighbours; 0 of none.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let at = share * last as f64;
    let (place, rest) = (at as usize, at.fract());
    sorted[place] + (sorted[(place + 1).min(last)] - sorted[place]) * rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_hold_the_share_they_name_and_grow_with_the_lead() {
        let errors: Vec<Vec<f64>> =
            (0..50).map(|k| (1..=24).map(|lead| f64::from(k - 25) * f64::from(lead).sqrt()).collect()).collect();
        let widths = widths(&errors, 24, &[1.0]);
        assert!((widths[23].0 / widths[5].0 - 2.0).abs() < 0.1, "{widths:?}");
        let inside = errors.iter().filter(|errors| errors[11].abs() <= widths[11].0).count();
        assert!((40..=50).contains(&inside), "{inside}");
        assert_eq!(quantile(&[], 0.5), 0.0);
    }
}
