//! What the host's cluster says: members, resources, fencing, locks, replicated and shared storage. Names are those of
//! ha_cluster_exporter where it has one.

mod corosync;
mod corosync_stats;
mod dlm;
mod drbd;
mod drbd_text;
mod gfs2;
mod moment;
mod multipath;
mod pacemaker;
mod pacemaker_constraints;
mod pacemaker_status;
mod sanlock;
mod sbd;

use super::{CollectConfig, Collector};

/// All collectors of this folder. Opens nothing yet.
pub(super) fn all(config: &CollectConfig) -> Vec<Box<dyn Collector>> {
    let roots = &config.roots;
    vec![
        Box::new(pacemaker::Pacemaker::new(roots)),
        Box::new(pacemaker_constraints::Constraints::new(roots)),
        Box::new(corosync::Corosync::new(roots)),
        Box::new(sbd::Sbd::new(roots)),
        Box::new(sanlock::Sanlock::new(roots)),
        Box::new(drbd::Drbd::new(roots)),
        Box::new(dlm::Dlm::new(roots)),
        Box::new(gfs2::Gfs2::new(roots)),
        Box::new(multipath::Multipath::new(roots)),
    ]
}

/// What reads the output of each program here, by its name: for fuzzing.
pub(super) const HOSTILE: [super::hostile::Reader; 10] = [
    ("corosync", corosync::hostile),
    ("corosync_stats", |text| drop(corosync_stats::read(text, text, "1"))),
    ("dlm", dlm::hostile),
    ("drbd", drbd::hostile),
    ("gfs2", gfs2::hostile),
    ("multipath", multipath::hostile),
    ("pacemaker", |text| drop(pacemaker_status::read(text, &super::zone::Zone::utc()))),
    ("pacemaker_constraints", pacemaker_constraints::hostile),
    ("sanlock", sanlock::hostile),
    ("sbd", sbd::hostile),
];

/// What a recorded reading of another exporter says, to compare ours with.
#[cfg(test)]
mod peer {
    use std::collections::BTreeMap;

    /// Every series of a Prometheus text, its labels sorted, with its value.
    pub(super) fn series(text: &str) -> BTreeMap<String, f64> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').expect("a sample has a value");
                let (name, labels) =
                    series.strip_suffix('}').map_or((series, ""), |open| open.split_once('{').unwrap());
                let mut labels: Vec<&str> =
                    labels.split_inclusive("\",").map(|one| one.trim_end_matches(',')).collect();
                labels.sort_unstable();
                (format!("{name}{{{}}}", labels.join(",")), value.parse().expect("a number"))
            })
            .collect()
    }

    /// Asserts that ours has every series of theirs, with the same value.
    pub(super) fn assert_covers(ours: &str, theirs: &str) {
        let ours = series(ours);
        for (name, value) in series(theirs) {
            let same = ours.get(&name).is_some_and(|our| *our == value || (our.is_nan() && value.is_nan()));
            assert!(same, "{name}: theirs {value}, ours {:?}", ours.get(&name));
        }
    }
}
