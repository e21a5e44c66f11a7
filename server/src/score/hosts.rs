//! How many of a host's series are strange at once: one strange series is noise, a third of them is trouble.

use std::collections::BTreeMap;

use super::Tracked;
use crate::series::{Labels, NAME, Sample, Timestamp};

/// A host with fewer series than this is counted as if it had so many: one of three strange series is not a third of a host.
const SERIES_MIN: usize = 20;

/// `petrel_host_anomaly_rate` of each host with series that are warm and were seen within the window. O(series).
pub fn rates<'a>(
    series: impl Iterator<Item = (&'a Labels, &'a Tracked)>,
    now: Timestamp,
    window_ms: i64,
) -> Vec<(Labels, Vec<Sample>)> {
    let since = now - window_ms;
    let mut hosts: BTreeMap<(&str, &str), (usize, usize)> = BTreeMap::new();
    for (labels, tracked) in series {
        let Some(instance) = labels.get("instance") else { continue };
        let seen = tracked.detector.last_t().is_some_and(|t| t >= since);
        if seen && tracked.warm {
            let (all, strange) = hosts.entry((instance, labels.get("job").unwrap_or(""))).or_default();
            *all += 1;
            *strange += usize::from(tracked.strange_at >= since);
        }
    }
    let rate = |((instance, job), (all, strange)): ((&str, &str), (usize, usize))| {
        let labels = Labels::new([(NAME, "petrel_host_anomaly_rate"), ("instance", instance), ("job", job)]);
        (labels, vec![Sample { t: now, v: strange as f64 / all.max(SERIES_MIN) as f64 }])
    };
    hosts.into_iter().map(rate).collect()
}
