//! From stored series to the points of each subject: free space, available memory, used processor time, with their limits.

use std::collections::{BTreeMap, BTreeSet};

use petrel_models::forecast::Point;

use super::config::RawLimits;
use super::resource::{Resource, Subject};
use crate::query::source::{SelectError, Selected, Source, TimeRange};
use crate::series::{Labels, Matcher, NAME, Sample, Timestamp};

/// File systems without space of their own to run out of.
const PSEUDO_FILESYSTEMS: [&str; 5] = ["overlay", "ramfs", "squashfs", "iso9660", "erofs"];
/// Processor time is averaged over this: shorter peaks run nobody out.
const CPU_WINDOW_MS: i64 = 60_000;

/// What was read of one subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Of whom.
    pub subject: Subject,
    /// Where it has run out, in the points' unit.
    pub limit: f64,
    /// The most it can be: the size, or 1 for a share.
    pub ceiling: f64,
    /// Sorted by time, all finite; may be empty.
    pub points: Vec<Point>,
    /// The source's series has ended: the file system was unmounted, the host is gone.
    pub ended: bool,
}

impl Reading {
    /// A reading without limits.
    fn of(subject: Subject, samples: &[Sample]) -> Reading {
        let finite = samples.iter().filter(|sample| sample.v.is_finite());
        Reading {
            subject,
            limit: 0.0,
            ceiling: 0.0,
            points: finite.map(|sample| Point { t: sample.t, v: sample.v }).collect(),
            ended: samples.last().is_some_and(Sample::is_stale),
        }
    }
}

/// Which part of the source to read.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// When.
    pub range: TimeRange,
    /// Of one subject only; `None`: all of them.
    pub only: Option<&'a Subject>,
    /// Samples per select at most.
    pub samples_max: u64,
}

/// Reads one resource of all hosts, or of one.
///
/// # Errors
/// The source failed or would return more samples than allowed.
pub fn read(
    source: &dyn Source,
    resource: Resource,
    part: Part<'_>,
    limits: &RawLimits,
) -> Result<Vec<Reading>, SelectError> {
    match resource {
        Resource::Filesystem => read_filesystems(source, part, limits.filesystem_avail_ratio),
        Resource::Memory => read_memory(source, part, limits.memory_available_ratio),
        Resource::Cpu => read_cpu(source, part, limits.cpu_busy_ratio),
    }
}

fn read_filesystems(source: &dyn Source, part: Part<'_>, ratio: f64) -> Result<Vec<Reading>, SelectError> {
    let sizes = last_values(select(source, "node_filesystem_size_bytes", &[], part)?);
    let read_only: BTreeSet<Labels> = last_values(select(source, "node_filesystem_readonly", &[], part)?)
        .into_iter()
        .filter_map(|(labels, flag)| (flag == 1.0).then_some(labels))
        .collect();
    let mut readings = Vec::new();
    for selected in select(source, Resource::Filesystem.metric(), &[], part)? {
        let labels = unnamed(&selected.labels);
        let pseudo = labels.get("fstype").is_some_and(|fstype| PSEUDO_FILESYSTEMS.contains(&fstype));
        let Some(&size) = sizes.get(&labels) else { continue };
        if pseudo || size <= 0.0 || read_only.contains(&labels) {
            continue;
        }
        let subject = Subject { resource: Resource::Filesystem, labels };
        readings.push(Reading { limit: ratio * size, ceiling: size, ..Reading::of(subject, &selected.samples) });
    }
    Ok(readings)
}

fn read_memory(source: &dyn Source, part: Part<'_>, ratio: f64) -> Result<Vec<Reading>, SelectError> {
    let totals = last_values(select(source, "node_memory_MemTotal_bytes", &[], part)?);
    let mut readings = Vec::new();
    for selected in select(source, Resource::Memory.metric(), &[], part)? {
        let labels = unnamed(&selected.labels);
        let Some(&total) = totals.get(&labels).filter(|total| **total > 0.0) else { continue };
        let subject = Subject { resource: Resource::Memory, labels };
        readings.push(Reading { limit: ratio * total, ceiling: total, ..Reading::of(subject, &selected.samples) });
    }
    Ok(readings)
}

fn read_cpu(source: &dyn Source, part: Part<'_>, ratio: f64) -> Result<Vec<Reading>, SelectError> {
    let mut hosts: BTreeMap<Labels, BTreeMap<Timestamp, (f64, u32)>> = BTreeMap::new();
    for selected in select(source, Resource::Cpu.metric(), &[Matcher::equal("mode", "idle")], part)? {
        let labels = selected.labels.without(|name| matches!(name, NAME | "cpu" | "mode"));
        let host = hosts.entry(labels).or_default();
        for sample in selected.samples.iter().filter(|sample| sample.v.is_finite()) {
            let (idle, cpus) = host.entry(sample.t).or_default();
            *idle += sample.v;
            *cpus += 1;
        }
    }
    let reading = |(labels, idle): (Labels, BTreeMap<Timestamp, (f64, u32)>)| Reading {
        subject: Subject { resource: Resource::Cpu, labels },
        limit: ratio,
        ceiling: 1.0,
        points: busy(&idle),
        ended: false,
    };
    Ok(hosts.into_iter().map(reading).collect())
}

/// Share of processor time used, over at least a minute each, from idle seconds summed over all processors. Where their
/// number changed or a counter went back there is no point.
fn busy(idle: &BTreeMap<Timestamp, (f64, u32)>) -> Vec<Point> {
    let mut points = Vec::new();
    let mut since: Option<(Timestamp, f64, u32)> = None;
    for (&t, &(seconds, cpus)) in idle {
        match since {
            Some((from, before, count)) if count == cpus && seconds >= before => {
                if t - from >= CPU_WINDOW_MS {
                    let all = (t - from) as f64 / 1000.0 * f64::from(cpus);
                    points.push(Point { t, v: (1.0 - (seconds - before) / all).clamp(0.0, 1.0) });
                    since = Some((t, seconds, cpus));
                }
            }
            _ => since = Some((t, seconds, cpus)),
        }
    }
    points
}

fn select(source: &dyn Source, name: &str, more: &[Matcher], part: Part<'_>) -> Result<Vec<Selected>, SelectError> {
    let mut matchers = vec![Matcher::equal(NAME, name)];
    matchers.extend_from_slice(more);
    if let Some(subject) = part.only {
        matchers.extend(subject.labels.iter().map(|(name, value)| Matcher::equal(name, value)));
    }
    source.select(&matchers, part.range, part.samples_max)
}

/// The last finite value of each series, unless the series ended.
fn last_values(selected: Vec<Selected>) -> BTreeMap<Labels, f64> {
    let last = |samples: &[Sample]| samples.last().filter(|sample| sample.v.is_finite()).map(|sample| sample.v);
    selected.into_iter().filter_map(|s| Some((unnamed(&s.labels), last(&s.samples)?))).collect()
}

fn unnamed(labels: &Labels) -> Labels {
    labels.without(|name| name == NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_the_share_that_is_not_idle_and_skips_resets() {
        let mut idle = BTreeMap::new();
        for i in 0..13i64 {
            idle.insert(i * 10_000, (i as f64 * 5.0, 2));
        }
        idle.insert(130_000, (1.0, 2));
        idle.insert(200_000, (1.0 + 140.0, 2));
        let points = busy(&idle);
        assert_eq!(points.iter().map(|p| p.t).collect::<Vec<_>>(), [60_000, 120_000, 200_000]);
        assert!((points[0].v - 0.75).abs() < 1e-9 && points[2].v.abs() < 1e-9, "{points:?}");
    }
}
