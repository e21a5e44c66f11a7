//! One series, online: from samples to calibrated scores. Constant work per sample and a few hundred bytes of state.
//!
//! A sample is judged twice: by its step from what the last sample let expect (spikes, jumps), and by its distance from
//! the level (slow departures). Each distance has a tail of its own, learned from the series; the score is the smaller
//! probability, raised because it was chosen from two. NaN and infinity stop here.

use serde::{Deserialize, Serialize};

use super::level::{Distances, Level};
use super::rate::Rate;
use super::season::Season;
use super::tail::Tail;
use crate::Timestamp;

/// Samples until scores are told: ten minutes at 10 s.
pub const WARMUP_SAMPLES: u32 = 60;
/// Values beyond this overflow in squares and differences; no metric means them.
const VALUE_MAX: f64 = 1e150;
/// A gap of more than this many usual intervals makes the last sample useless for the next.
const GAP_INTERVALS: f64 = 10.0;
/// After a gap of this long the level starts anew.
const RESTART_MS: i64 = 6 * 3_600_000;
/// Samples without scores after such a gap.
const RESETTLE_SAMPLES: u8 = 30;
/// A sample at or below this probability belongs to a strange episode.
const EPISODE: f64 = 0.01;
/// The first samples of an episode teach in full, as a normal tail has them too; the rest weigh a quarter.
const EPISODE_FULL: u8 = 3;

/// What the values of a series mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Each value stands for itself.
    Gauge,
    /// Values only grow, but for resets; their rate is judged.
    Counter,
}

/// What the detector has to say of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Score {
    /// Probability that a normal series shows this or worse, in `[1e-9, 1]`; 1 while warming up.
    pub tail_probability: f64,
    /// What was expected: a value for gauges, a rate per second for counters.
    pub expected: f64,
    /// What came, in the same unit.
    pub observed: f64,
    /// Mean absolute error of the expectation, in the same unit.
    pub scale: f64,
    /// Too little is known of the series to score it.
    pub warmup: bool,
}

/// The detector of one series. Encodes to at most 512 bytes with postcard.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detector {
    kind: Kind,
    rate: Rate,
    level: Level,
    season: Season,
    tail_step: Tail,
    tail_level: Tail,
    last_t: Option<Timestamp>,
    interval_ms: f32,
    resettle: u8,
    episode: u8,
}

impl Detector {
    /// A detector that knows nothing yet.
    pub fn new(kind: Kind) -> Detector {
        Detector {
            kind,
            rate: Rate::default(),
            level: Level::default(),
            season: Season::default(),
            tail_step: Tail::default(),
            tail_level: Tail::default(),
            last_t: None,
            interval_ms: 0.0,
            resettle: 0,
            episode: 0,
        }
    }

    /// When the last sample was taken in.
    pub fn last_t(&self) -> Option<Timestamp> {
        self.last_t
    }

    /// Judges a sample and learns from it. `None`: not finite, beyond ±1e150, not later than the last one, or the first after a
    /// counter's start or reset. O(1).
    pub fn observe(&mut self, t: Timestamp, v: f64) -> Option<Score> {
        if v.is_nan() || v.abs() > VALUE_MAX || self.last_t.is_some_and(|last| t <= last) {
            return None;
        }
        let value = match self.kind {
            Kind::Gauge => Some(v),
            Kind::Counter => self.rate.step(t, v),
        };
        let after_gap = self.note_time(t);
        let value = value?;
        let offset = self.season.offset(t);
        if after_gap == Gap::Long {
            self.level.restart_at(value - offset);
            self.resettle = RESETTLE_SAMPLES;
        }
        let distances = self.level.step(value - offset, after_gap != Gap::None);
        self.season.learn(t, value);
        let probability = self.judge(&distances);
        let warmup = self.level.samples() <= WARMUP_SAMPLES || self.resettle > 0;
        self.resettle = self.resettle.saturating_sub(1);
        Some(Score {
            tail_probability: if warmup { 1.0 } else { probability },
            expected: distances.expected + offset,
            observed: value,
            scale: distances.scale,
            warmup,
        })
    }

    /// Both tails' word on the distances, and what they learn from them.
    fn judge(&mut self, distances: &Distances) -> f64 {
        let settled = self.level.samples() > WARMUP_SAMPLES / 2;
        let by_step = distances.step.map_or(1.0, |distance| self.tail_step.probability(distance));
        let by_level = self.tail_level.probability(distances.level);
        // Without persistence both distances are the same one; the more there is, the more they are two choices.
        let choices = 1.0 + distances.persistence;
        let probability = (choices * by_step.min(by_level)).min(1.0);
        self.episode = if probability <= EPISODE { self.episode.saturating_add(1) } else { 0 };
        if settled {
            let discounted = self.episode > EPISODE_FULL;
            if let Some(distance) = distances.step {
                self.tail_step.add(distance, discounted);
            }
            self.tail_level.add(distances.level, discounted);
        }
        probability
    }

    /// Learns the usual interval and tells how large the gap before this sample is.
    fn note_time(&mut self, t: Timestamp) -> Gap {
        let Some(last) = self.last_t.replace(t) else { return Gap::None };
        let elapsed_ms = t - last;
        let usual = f64::from(self.interval_ms);
        if usual > 0.0 && elapsed_ms as f64 > GAP_INTERVALS * usual {
            return if elapsed_ms > RESTART_MS { Gap::Long } else { Gap::Short };
        }
        self.interval_ms =
            if usual == 0.0 { elapsed_ms as f32 } else { (usual + 0.1 * (elapsed_ms as f64 - usual)) as f32 };
        Gap::None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gap {
    None,
    Short,
    Long,
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use rand::{Rng, SeedableRng};
    use rand_xoshiro::Xoshiro256PlusPlus;

    use super::*;

    const STEP_MS: i64 = 10_000;

    fn normal(rng: &mut Xoshiro256PlusPlus) -> f64 {
        let (u, w): (f64, f64) = (rng.r#gen::<f64>().max(1e-300), rng.r#gen());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * w).cos()
    }

    /// The share of samples scored below the level, after two hours, over several seeds.
    fn realised(family: impl Fn(&mut Xoshiro256PlusPlus, i64, &mut f64) -> f64, level: f64) -> f64 {
        let (mut below, mut scored) = (0u32, 0u32);
        for seed in 0..6 {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
            let mut detector = Detector::new(Kind::Gauge);
            let mut memory = 0.0;
            for i in 0..40_000 {
                let v = family(&mut rng, i, &mut memory);
                let score = detector.observe(i * STEP_MS, v).unwrap();
                if i >= 720 {
                    scored += 1;
                    below += u32::from(score.tail_probability < level);
                }
            }
        }
        f64::from(below) / f64::from(scored)
    }

    /// On normal samples a score below 0.001 must come about once in a thousand: between a fifth and twice that, in every family.
    #[test]
    fn scores_are_calibrated_on_many_kinds_of_noise() {
        type Family = fn(&mut Xoshiro256PlusPlus, i64, &mut f64) -> f64;
        let families: [(&str, Family); 7] = [
            ("gaussian", |rng, _, _| 100.0 + normal(rng)),
            ("laplace", |rng, _, _| {
                let u: f64 = rng.r#gen::<f64>() - 0.5;
                -u.signum() * (1.0 - 2.0 * u.abs()).max(1e-12).ln()
            }),
            ("ar1 0.9", |rng, _, memory| {
                *memory = 0.9 * *memory + normal(rng);
                *memory
            }),
            ("random walk", |rng, _, memory| {
                *memory += normal(rng);
                *memory
            }),
            ("lognormal", |rng, _, _| normal(rng).exp()),
            ("daily", |rng, i, _| {
                50.0 + 20.0 * ((i * STEP_MS) as f64 / 86_400_000.0 * std::f64::consts::TAU).sin() + 2.0 * normal(rng)
            }),
            (
                "sparse counts",
                |rng, _, _| if rng.r#gen::<f64>() < 0.05 { (rng.r#gen::<f64>() * 5.0).ceil() } else { 0.0 },
            ),
        ];
        let mut report = String::new();
        let mut wrong = false;
        for (name, family) in families {
            let (at_1e3, at_1e2) = (realised(family, 0.001), realised(family, 0.01));
            // Counts tie: all that can be asked of them is not to cry wolf.
            let at_least = if name == "sparse counts" { 0.0 } else { 0.0002 };
            wrong |= !(at_least..=0.002).contains(&at_1e3) || !(0.003..=0.02).contains(&at_1e2);
            writeln!(report, "{name}: below 0.001 {at_1e3:.5}, below 0.01 {at_1e2:.5}").unwrap();
        }
        assert!(!wrong, "{report}");
    }

    fn trained(kind: Kind, samples: i64) -> (Detector, Xoshiro256PlusPlus) {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut detector = Detector::new(kind);
        for i in 0..samples {
            detector.observe(i * STEP_MS, 100.0 + normal(&mut rng));
        }
        (detector, rng)
    }

    #[test]
    fn a_spike_is_strange_and_stays_strange_when_it_comes_again() {
        let (mut detector, mut rng) = trained(Kind::Gauge, 2000);
        for i in 2000..2400 {
            let spike = i % 100 == 0;
            let v = 100.0 + normal(&mut rng) + if spike { 15.0 } else { 0.0 };
            let score = detector.observe(i * STEP_MS, v).unwrap();
            assert!(!spike || score.tail_probability < 0.001, "spike at {i}: {score:?}");
        }
    }

    #[test]
    fn a_level_shift_is_strange_at_once_and_normal_within_an_hour() {
        let (mut detector, mut rng) = trained(Kind::Gauge, 2000);
        let mut strange = Vec::new();
        for i in 2000..2400 {
            let score = detector.observe(i * STEP_MS, 120.0 + normal(&mut rng)).unwrap();
            strange.push(score.tail_probability < 0.01);
        }
        assert!(strange[..30].iter().filter(|s| **s).count() >= 25, "an outage of five minutes stays strange");
        assert!(strange[360..].iter().filter(|s| **s).count() <= 4, "adapted after an hour");
    }

    #[test]
    fn flat_lines_wake_up_on_a_change_and_counters_are_judged_by_rate() {
        let mut flat = Detector::new(Kind::Gauge);
        let mut counter = Detector::new(Kind::Counter);
        let mut last = None;
        for i in 0..3000 {
            last = flat.observe(i * STEP_MS, 4.0);
            assert!(last.is_some_and(|score| score.tail_probability == 1.0));
            if let Some(score) = counter.observe(i * STEP_MS, (i % 1000) as f64 * 50.0) {
                assert!(score.tail_probability > 0.01, "a reset is not strange: {score:?}");
            }
        }
        assert!(last.is_some());
        assert!(flat.observe(3000 * STEP_MS, 3.0).unwrap().tail_probability < 0.001);
        let burst = counter.observe(3000 * STEP_MS, 999.0 * 50.0 + 5000.0).unwrap();
        assert!(burst.tail_probability < 0.001 && (burst.expected - 5.0).abs() < 0.1, "{burst:?}");
    }

    #[test]
    fn bad_and_late_samples_change_nothing_and_state_survives_encoding() {
        let (mut detector, mut rng) = trained(Kind::Gauge, 12_000);
        let before = detector.clone();
        for v in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e200] {
            assert_eq!(detector.observe(12_001 * STEP_MS, v), None);
        }
        assert_eq!(detector.observe(5 * STEP_MS, 1.0), None);
        assert_eq!(detector, before);
        let bytes = postcard::to_allocvec(&detector).unwrap();
        assert!(bytes.len() <= 512 && size_of::<Detector>() <= 512, "{} and {}", bytes.len(), size_of::<Detector>());
        let mut restored: Detector = postcard::from_bytes(&bytes).unwrap();
        let v = 100.0 + normal(&mut rng);
        assert_eq!(restored.observe(12_000 * STEP_MS, v), detector.observe(12_000 * STEP_MS, v));
    }

    #[test]
    fn extreme_values_never_give_a_nan() {
        let mut detector = Detector::new(Kind::Gauge);
        for (i, v) in [0.0, 1e149, -1e149, 1e-308, 0.0, 5e-324, 1e100, -1.0].into_iter().cycle().take(400).enumerate() {
            let score = detector.observe(i as i64 * STEP_MS, v).unwrap();
            assert!(score.tail_probability > 0.0 && score.tail_probability <= 1.0, "{score:?}");
        }
    }

    #[test]
    fn a_long_gap_is_not_strange_by_itself() {
        let (mut detector, mut rng) = trained(Kind::Gauge, 2000);
        let resumed = 2000 * STEP_MS + 86_400_000;
        let score = detector.observe(resumed, 150.0 + normal(&mut rng)).unwrap();
        assert!(score.warmup && score.tail_probability == 1.0);
    }
}
