//! Detect: how strange is this sample of this series? One [`Detector`] per series, online, constant work and memory.
//!
//! `rate` turns counters into rates, `level` knows what to expect and how far samples usually lie from it, `season` the
//! time of day, `tail` turns a distance into a calibrated probability; `detector` puts them together. Nothing here knows
//! labels or limits: whether a strange sample matters is for rules to say.

mod detector;
mod level;
mod rate;
mod season;
mod tail;

pub use detector::{Detector, Kind, Score, WARMUP_SAMPLES};
pub use rate::Rate;
