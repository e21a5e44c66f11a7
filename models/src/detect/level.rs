//! What to expect next of a series without season, and how far samples usually lie from that: a slow level, a fast
//! one-step expectation around it, and a robust scale for each.

use serde::{Deserialize, Serialize};

/// The level forgets with this weight per sample: 200 samples, half an hour at 10 s.
const LEVEL_GAIN: f64 = 1.0 / 200.0;
/// Scales forget more slowly than the level, so that a shift is judged by the noise before it.
const SCALE_GAIN: f64 = 1.0 / 400.0;
/// A residual counts for at most this many scales where it moves level or scale: one spike moves the level by 1/50 scale.
const CLIP: f64 = 4.0;
/// After this many samples in a row far on one side the level is believed to have shifted (15 minutes at 10 s).
const SHIFT_SAMPLES: u16 = 90;
/// Then the level follows with this weight.
const SHIFT_GAIN: f64 = 0.1;
/// Scales are not below this part of the level: rounding noise of an f64 must not look like a movement.
const SCALE_RELATIVE_MIN: f64 = 1e-9;

/// Level, persistence and scales. 56 bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Level {
    center: f64,
    /// The residual to the level at the last sample.
    residual_last: f64,
    /// Mean absolute one-step error.
    scale_step: f64,
    /// Mean absolute residual to the level.
    scale_far: f64,
    /// Sums for the lag-one correlation of residuals, in units of `scale_far` squared.
    lag_sum: f32,
    square_sum: f32,
    samples: u32,
    /// Samples in a row far above (positive) or below (negative) the level.
    run: i16,
}

/// A sample's distances from what was expected, in mean absolute deviations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distances {
    /// From the one-step expectation; `None` just after a gap.
    pub step: Option<f64>,
    /// From the level.
    pub level: f64,
    /// The one-step expectation.
    pub expected: f64,
    /// The usual absolute error of the one-step expectation.
    pub scale: f64,
    /// How much of the last residual was expected to stay, in `[0, 1]`.
    pub persistence: f64,
}

impl Level {
    /// Samples taken in.
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// Forgets where the series was, but not how noisy it is: after a long gap.
    pub fn restart_at(&mut self, v: f64) {
        self.center = v;
        self.residual_last = 0.0;
        self.run = 0;
    }

    /// Judges `v` by what was known before, then learns from it. `after_gap`: the last sample is too old to predict from.
    pub fn step(&mut self, v: f64, after_gap: bool) -> Distances {
        if self.samples == 0 {
            self.center = v;
        }
        let persistence = self.persistence();
        let floor = (self.center.abs() * SCALE_RELATIVE_MIN).max(f64::MIN_POSITIVE);
        let expected = if after_gap { self.center } else { self.center + persistence * self.residual_last };
        let (scale_step, scale_far) = (self.scale_step.max(floor), self.scale_far.max(floor));
        let residual = v - self.center;
        let error = v - expected;
        let distances = Distances {
            step: (!after_gap).then_some(error.abs() / scale_step),
            level: residual.abs() / scale_far,
            expected,
            scale: scale_step,
            persistence,
        };
        self.learn(residual, error, after_gap);
        distances
    }

    fn learn(&mut self, residual: f64, error: f64, after_gap: bool) {
        self.samples = self.samples.saturating_add(1);
        let n = f64::from(self.samples);
        let scale_gain = SCALE_GAIN.max(1.0 / n);
        let clip = |r: f64, scale: f64| if n < 20.0 { r } else { r.clamp(-CLIP * scale, CLIP * scale) };
        let clipped = clip(residual, self.scale_far);
        if !after_gap {
            self.learn_persistence(clipped);
            self.scale_step += scale_gain * (clip(error, self.scale_step).abs() - self.scale_step);
        }
        // A scale that fell to zero on a constant stretch could never grow again by clipped steps.
        let step_floor = residual.abs() * SCALE_GAIN;
        self.scale_far += scale_gain * (clipped.abs() - self.scale_far);
        self.scale_far = self.scale_far.max(step_floor.min(residual.abs()));
        self.scale_step = self.scale_step.max(error.abs() * SCALE_GAIN);
        self.count_run(residual);
        let move_by = if self.run.unsigned_abs() >= SHIFT_SAMPLES {
            SHIFT_GAIN * residual
        } else {
            LEVEL_GAIN.max(1.0 / n) * clipped
        };
        self.center += move_by;
        self.residual_last = residual - move_by;
    }

    fn learn_persistence(&mut self, clipped: f64) {
        let scale = self.scale_far.max(f64::MIN_POSITIVE);
        let last = (self.residual_last / scale).clamp(-CLIP, CLIP) as f32;
        let now = (clipped / scale).clamp(-f64::from(f32::MAX), f64::from(f32::MAX)).clamp(-CLIP, CLIP) as f32;
        let keep = 1.0 - SCALE_GAIN as f32;
        self.lag_sum = self.lag_sum * keep + last * now;
        self.square_sum = self.square_sum * keep + last * last;
    }

    /// Lag-one regression coefficient of the residuals, in `[0, 1]`, shrunk towards 0 by ten samples.
    fn persistence(&self) -> f64 {
        f64::from(self.lag_sum / (self.square_sum + 10.0)).clamp(0.0, 1.0)
    }

    fn count_run(&mut self, residual: f64) {
        let far = residual.abs() > CLIP / 2.0 * self.scale_far;
        let side = if residual > 0.0 { 1 } else { -1 };
        self.run = match (far, self.run.signum() == side) {
            (true, true) => self.run.saturating_add(side),
            (true, false) => side,
            (false, _) => 0,
        };
    }
}
