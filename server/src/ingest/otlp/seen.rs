//! What senders said before: which series a point with these bytes belongs to, so that the rules of names and labels, which cost
//! twenty times as much as all the rest, are applied once for each series and not for each sample.
//!
//! Points are known by 128 bits of a hash that is keyed at random when the process starts. Two that differ in anything that
//! counts (resource, scope, metric, attributes) share one with a probability of 2^-128 for each pair.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::quality::RandomState;

use crate::store::Series;
use crate::telemetry;

/// Points remembered, about 40 bytes each: as many as the store has series by default. Then all are forgotten and learned anew.
const POINTS_MAX: usize = 2_000_000;
/// Metrics whose metadata was passed on.
const METRICS_MAX: usize = 100_000;

/// 128 bits that stand for the bytes of something.
pub type Fingerprint = u128;

/// Points and metrics that came before.
#[derive(Debug, Default)]
pub struct Seen {
    low: RandomState,
    high: RandomState,
    points: RwLock<HashMap<Fingerprint, Arc<Series>, RandomState>>,
    metrics: RwLock<HashSet<Fingerprint, RandomState>>,
}

/// What one request adds to [`Seen`].
#[derive(Debug, Default)]
pub struct Learned {
    /// Points and their series.
    pub points: Vec<(Fingerprint, Arc<Series>)>,
    /// Metrics whose metadata is in the batch.
    pub metrics: Vec<Fingerprint>,
}

impl Seen {
    /// The fingerprint of parts within something that has one itself.
    pub fn fingerprint<'a>(
        &self,
        within: Fingerprint,
        parts: &(impl Iterator<Item = &'a [u8]> + Clone),
    ) -> Fingerprint {
        let hash = |state: &RandomState| {
            let mut hasher = state.build_hasher();
            hasher.write_u128(within);
            for part in parts.clone() {
                hasher.write_usize(part.len());
                hasher.write(part);
            }
            hasher.finish()
        };
        u128::from(hash(&self.high)) << 64 | u128::from(hash(&self.low))
    }

    /// Looks at points without learning.
    pub fn points(&self) -> impl Fn(Fingerprint) -> Option<Arc<Series>> + '_ {
        let points = self.points.read().unwrap_or_else(PoisonError::into_inner);
        move |point| points.get(&point).filter(|series| !series.is_forgotten()).cloned()
    }

    /// Whether a metric's metadata was passed on.
    pub fn has_metric(&self, metric: Fingerprint) -> bool {
        self.metrics.read().unwrap_or_else(PoisonError::into_inner).contains(&metric)
    }

    /// Takes in what a request that was committed taught.
    pub fn learn(&self, learned: Learned) {
        if !learned.points.is_empty() {
            let mut points = self.points.write().unwrap_or_else(PoisonError::into_inner);
            if points.len() + learned.points.len() > POINTS_MAX {
                points.clear();
                telemetry::INGEST_SEEN_CLEARED.inc();
            }
            points.extend(learned.points);
        }
        if !learned.metrics.is_empty() {
            let mut metrics = self.metrics.write().unwrap_or_else(PoisonError::into_inner);
            if metrics.len() + learned.metrics.len() > METRICS_MAX {
                metrics.clear();
                telemetry::INGEST_SEEN_CLEARED.inc();
            }
            metrics.extend(learned.metrics);
        }
    }
}
