//! All collectors of this host, run one after the other, each with its own account of cost, success and errors.

use std::time::Instant;

use super::{
    CollectConfig, CollectError, Collector, Family, Kind, cpu, diskstats, filesystem, loadavg, meminfo, netdev,
    pressure, stat, time, uname, vmstat,
};

/// Every collector that the config leaves in.
pub struct Collectors {
    members: Vec<Member>,
}

struct Member {
    collector: Box<dyn Collector>,
    errors: u64,
    /// The last error was logged already; one line per outage, not one per interval.
    told: bool,
}

impl Collectors {
    /// Makes the collectors. Opens nothing yet.
    pub fn new(config: &CollectConfig) -> Collectors {
        let roots = &config.roots;
        let all: [Box<dyn Collector>; 11] = [
            Box::new(cpu::Cpu::new(roots)),
            Box::new(diskstats::Diskstats::new(roots)),
            Box::new(filesystem::Filesystem::new(roots)),
            Box::new(loadavg::Loadavg::new(roots)),
            Box::new(meminfo::Meminfo::new(roots)),
            Box::new(netdev::Netdev::new(roots)),
            Box::new(pressure::Pressure::new(roots)),
            Box::new(stat::Stat::new(roots)),
            Box::new(time::Time::new(roots)),
            Box::new(uname::Uname),
            Box::new(vmstat::Vmstat::new(roots)),
        ];
        let wanted = all.into_iter().filter(|collector| !config.without.iter().any(|name| name == collector.name()));
        Collectors { members: wanted.map(|collector| Member { collector, errors: 0, told: false }).collect() }
    }

    /// Collects from all sources. Blocks for a few hundred microseconds, and for about two seconds at most when a mount hangs.
    pub fn collect(&mut self) -> Vec<Family> {
        let mut families = Vec::with_capacity(160);
        let mut duration = Family::new(
            Kind::Gauge,
            "petrel_collector_duration_seconds",
            "Time the collector took for the last collection.",
        );
        let mut success =
            Family::new(Kind::Gauge, "petrel_collector_success", "Whether the collector's last collection succeeded.");
        let mut errors =
            Family::new(Kind::Counter, "petrel_collector_errors_total", "Collections of the collector that failed.");
        for member in &mut self.members {
            let labels = [("collector", member.collector.name())];
            let begin = Instant::now();
            let outcome = member.collector.collect(&mut families);
            duration.push(&labels, begin.elapsed().as_secs_f64());
            success.push(&labels, f64::from(u8::from(outcome.is_ok())));
            member.account(outcome);
            errors.push(&labels, member.errors as f64);
        }
        families.retain(|family| !family.points.is_empty());
        families.extend([duration, success, errors]);
        families
    }
}

impl Member {
    fn account(&mut self, outcome: Result<(), CollectError>) {
        let collector = self.collector.name();
        match outcome {
            Ok(()) if self.told => {
                self.told = false;
                tracing::info!(collector, "the collector works again");
            }
            Ok(()) => {}
            // An absent source is no error: kernels differ, and the success metric says it already.
            Err(CollectError::Absent { path }) => tracing::debug!(collector, path = %path.display(), "no such source"),
            Err(error) => {
                self.errors += 1;
                if !self.told {
                    self.told = true;
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(collector, %error, cause, "the collector failed; its series are missing");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The contract of [`Collector`], for every implementation, on a live kernel, a made-up one and none.
    #[test]
    fn every_collector_keeps_the_contract() {
        let made_up = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/collect");
        for tree in [Path::new("/"), &made_up, Path::new("/nonexistent")] {
            let config = CollectConfig::at(&tree.join("proc"), &tree.join("sys"));
            for member in &mut Collectors::new(&config).members {
                let name = member.collector.name();
                assert!(super::super::config::NAMES.contains(&name), "{name} cannot be left out by the config");
                let mut rounds = [Vec::new(), Vec::new()];
                let outcomes = rounds.each_mut().map(|round| member.collector.collect(round).is_ok());
                assert_eq!(outcomes[0], outcomes[1], "{name} on {tree:?}");
                for families in &rounds {
                    let names: Vec<_> = families.iter().map(|family| &family.name).collect();
                    assert!(names.iter().enumerate().all(|(place, name)| !names[..place].contains(name)), "{names:?}");
                    for family in families {
                        let mut labels: Vec<_> = family.points.iter().map(|point| &point.labels).collect();
                        labels.sort();
                        labels.dedup();
                        assert_eq!(labels.len(), family.points.len(), "{} has a label set twice", family.name);
                    }
                }
                let order = |round: &[Family]| round.iter().map(|family| family.name.clone()).collect::<Vec<_>>();
                assert_eq!(order(&rounds[0]), order(&rounds[1]), "{name} on {tree:?}");
            }
        }
    }

    #[test]
    fn a_missing_tree_fails_by_collector_and_is_counted() {
        let nowhere = Path::new("/nonexistent/proc");
        let mut collectors = Collectors::new(&CollectConfig::at(nowhere, Path::new("/nonexistent/sys")));
        let families = collectors.collect();
        let success = families.iter().find(|family| family.name == "petrel_collector_success").unwrap();
        let of = |name: &str| {
            let point = success.points.iter().find(|point| point.labels[0].1 == name).unwrap();
            point.value
        };
        assert_eq!((of("cpu"), of("meminfo"), of("uname")), (0.0, 0.0, 1.0));
        assert_eq!(success.points.len(), super::super::config::NAMES.len());
    }

    #[test]
    fn names_are_unique_and_left_out_collectors_stay_silent() {
        let mut config = CollectConfig::at(Path::new("/proc"), Path::new("/sys"));
        config.without = vec!["uname".to_owned()];
        let families = Collectors::new(&config).collect();
        let mut names: Vec<&str> = families.iter().map(|family| family.name.as_ref()).collect();
        assert!(names.contains(&"node_load1") && !names.contains(&"node_uname_info"), "{names:?}");
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
