//! Quality floors on fixed synthetic sets: better than naive, intervals that hold, limits met when told.

use std::fmt::Write as _;

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::*;

const MINUTE_MS: i64 = 60_000;

fn noise(rng: &mut Xoshiro256PlusPlus) -> f64 {
    (0..12).map(|_| rng.r#gen::<f64>()).sum::<f64>() - 6.0
}

fn points(values: &[f64], step_ms: i64) -> Vec<Point> {
    values.iter().enumerate().map(|(i, v)| Point { t: i as i64 * step_ms, v: *v }).collect()
}

/// A family of series: name, step, and the value at a step given the last value.
type Family = (&'static str, i64, fn(&mut Xoshiro256PlusPlus, usize, f64) -> f64);

const FAMILIES: [Family; 6] = [
    ("noise", MINUTE_MS, |rng, _, _| 50.0 + noise(rng)),
    ("walk", MINUTE_MS, |rng, i, last| if i == 0 { 100.0 } else { last + noise(rng) }),
    ("fill", MINUTE_MS, |rng, i, _| 1000.0 - 2.0 * i as f64 + 3.0 * noise(rng)),
    (
        "fill in steps",
        MINUTE_MS,
        |rng, i, last| if i == 0 { 1000.0 } else { last - (rng.r#gen::<f64>() * 4.0).floor() },
    ),
    ("daily", 20 * MINUTE_MS, |rng, i, _| {
        50.0 + 20.0 * (i as f64 / 72.0 * std::f64::consts::TAU).sin() + 2.0 * noise(rng)
    }),
    ("daily on a slope", 20 * MINUTE_MS, |rng, i, _| {
        0.1 * i as f64 + 10.0 * (i as f64 / 72.0 * std::f64::consts::TAU).cos().max(0.0) + noise(rng)
    }),
];

fn draw(family: &Family, n: usize, seed: u64) -> Vec<f64> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut values: Vec<f64> = Vec::with_capacity(n);
    for i in 0..n {
        let last = values.last().copied().unwrap_or(0.0);
        values.push((family.2)(&mut rng, i, last));
    }
    values
}

/// Mean absolute error of the median over that of naive, and the share of truths within the 90 % interval.
fn quality(family: &Family, (history, ahead): (usize, usize), seeds: u64) -> (f64, f64) {
    let (mut ours, mut naive, mut within, mut all) = (0.0, 0.0, 0.0, 0.0);
    for seed in 0..seeds {
        let values = draw(family, history + ahead, 1000 + seed);
        let question = Question { seed, ..Question::within(ahead as i64 * family.1) };
        let outlook = forecast(&points(&values[..history], family.1), &question).unwrap();
        for (k, quantiles) in outlook.values.iter().enumerate() {
            let lead = (k + 1) * (outlook.step_ms / family.1) as usize;
            let truth = values[history - 1 + lead];
            ours += (truth - quantiles[3]).abs();
            naive += (truth - values[history - 1]).abs();
            within += f64::from(u8::from(quantiles[0] <= truth && truth <= quantiles[6]));
            all += 1.0;
        }
    }
    (ours / naive, within / all)
}

#[test]
fn better_than_naive_with_intervals_that_hold() {
    let mut report = String::new();
    let (mut wrong, mut covered) = (false, 0.0);
    for family in &FAMILIES {
        let (ratio, coverage) = quality(family, (240, 60), 40);
        let floor = match family.0 {
            "walk" => 1.1,
            "fill in steps" => 0.35,
            _ => 0.8,
        };
        wrong |= ratio > floor || !(0.78..=0.99).contains(&coverage);
        covered += coverage / FAMILIES.len() as f64;
        writeln!(report, "{}: error {ratio:.3} of naive's, 90 % interval holds {coverage:.3}", family.0).unwrap();
    }
    assert!(!wrong && (0.82..=0.97).contains(&covered), "{report}all: {covered:.3}");
}

#[test]
fn a_steady_fill_seen_for_a_minute_runs_out_when_it_will() {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
    // 200 MB at 1 MB/s, seen for 60 s after 30 s of rest: 140 s are left.
    let values: Vec<f64> =
        (0..90).map(|i| if i < 30 { 200.0 } else { 200.0 - f64::from(i - 29) + 0.2 * noise(&mut rng) }).collect();
    let question = Question { floor: Some(0.0), ceiling: Some(200.0), ..Question::within(3_600_000) };
    let outlook = forecast(&points(&values, 1000), &question).unwrap();
    let left = outlook.time_to_limit(0.0, Direction::Below);
    let median = left.quantile(0.5).unwrap();
    assert!((median - 140.0).abs() < 20.0, "{median} by {:?}", outlook.method);
    assert!(left.probability_within(3600.0) > 0.75, "{}", left.probability_within(3600.0));
    assert!(left.probability_within(60.0) < 0.05, "{}", left.probability_within(60.0));
    assert!(left.quantile(0.1) <= left.quantile(0.5));
}

#[test]
fn rest_and_noise_do_not_run_out() {
    let noisy = draw(&FAMILIES[0], 240, 5);
    let outlook = forecast(&points(&noisy, MINUTE_MS), &Question::within(6 * 3_600_000)).unwrap();
    let left = outlook.time_to_limit(20.0, Direction::Below);
    assert!(left.probability_within(6.0 * 3600.0) < 0.01, "{}", left.probability_within(6.0 * 3600.0));
    let rest = forecast(&points(&[42.0; 100], 1000), &Question::within(3_600_000)).unwrap();
    assert_eq!(rest.time_to_limit(1.0, Direction::Below).quantile(0.9), None);
    assert_eq!(rest.time_to_limit(42.0, Direction::Below).probability_within(0.0), 1.0);
}

/// A walk of unit steps meets a limit 8 away within 60 steps with probability 2 × (1 - Φ(8 / √60)) = 0.30, less for
/// stepping over it; on average that must be said.
#[test]
fn random_walks_meet_limits_as_often_as_theory_says() {
    let mut said = 0.0;
    for seed in 0..150 {
        let values = draw(&FAMILIES[1], 240, 500 + seed);
        let question = Question { seed, ..Question::within(60 * MINUTE_MS) };
        let outlook = forecast(&points(&values, MINUTE_MS), &question).unwrap();
        said += outlook.time_to_limit(values[239] - 8.0, Direction::Below).probability_within(3600.0) / 150.0;
    }
    assert!((said - 0.29).abs() < 0.08, "said {said}");
}

#[test]
fn the_same_seed_gives_the_same_answer_and_bounds_hold() {
    let values = draw(&FAMILIES[2], 240, 9);
    let question = Question { floor: Some(500.0), ceiling: Some(1000.0), ..Question::within(600 * MINUTE_MS) };
    let (a, b) = (forecast(&points(&values, MINUTE_MS), &question), forecast(&points(&values, MINUTE_MS), &question));
    let outlook = a.unwrap();
    assert_eq!(outlook, b.unwrap());
    assert_eq!(outlook.sample_paths(3, 1), outlook.sample_paths(3, 1));
    assert_ne!(outlook.sample_paths(3, 1), outlook.sample_paths(3, 2));
    assert!(outlook.values.iter().flatten().all(|v| (500.0..=1000.0).contains(v)));
}

#[test]
fn the_reach_is_bounded_by_the_history() {
    let outlook = forecast(&points(&[1.0; 30], 1000), &Question::within(86_400_000)).unwrap();
    assert!(outlook.reach_ms() <= 30 * 1000 * REACH && outlook.reach_ms() > 200_000, "{}", outlook.reach_ms());
    let refused = forecast(&points(&[1.0; 30], 60_000), &Question::within(1000)).unwrap_err();
    assert_eq!(refused, NotForecastable::HorizonTooShort { step_ms: 60_000 });
}
