//! `/proc/spl/kstat/zfs`: ZFS's cache, its pools and their data sets. OpenZFS names its numbers itself, and so the metrics.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::collect::attribute::names_in;
use crate::collect::tables::{Column, NamedFamilies, gauge};
use crate::collect::{CollectError, Collector, Family, Kind, Pace, Roots};

/// ZFS.
pub(super) struct Zfs {
    folder: PathBuf,
}

/// Part of the metrics' names, and the file.
const FILES: [(&str, &str); 11] = [
    ("abd", "abdstats"),
    ("arc", "arcstats"),
    ("dbuf", "dbufstats"),
    ("dmu_tx", "dmu_tx"),
    ("dnode", "dnodestats"),
    ("fm", "fm"),
    ("vdev_cache", "vdev_cache_stats"),
    ("vdev_mirror", "vdev_mirror_stats"),
    ("xuio", "xuio_stats"),
    ("zfetch", "zfetchstats"),
    ("zil", "zil"),
];
const STATE: Column = gauge("node_zfs_zpool_state", "kstat.zfs.misc.state");
const STATES: [&str; 7] = ["online", "degraded", "faulted", "offline", "removed", "unavail", "suspended"];
/// Most pools, and most data sets of all together, that are told: each data set is a file and six series.
const POOLS_MAX: usize = 64;
const DATASETS_MAX: usize = 512;
/// The kernel's numbers for signed and unsigned integers of 64 bits, and for text.
const NUMBERS: [&str; 2] = ["3", "4"];
const TEXT: &str = "7";
/// `arcstats`, the longest, has 10 KiB.
const BYTES_MAX: u64 = 256 << 10;

impl Zfs {
    pub(super) fn new(roots: &Roots) -> Zfs {
        Zfs { folder: roots.procfs.join("spl/kstat/zfs") }
    }

    fn read(&self, file: &str) -> Option<String> {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        std::fs::File::open(self.folder.join(file)).ok()?.take(BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Collector for Zfs {
    fn name(&self) -> &'static str {
        "zfs"
    }

    fn pace(&self) -> Pace {
        // A pool that is suspended may hold the files back.
        Pace::Apart { every: Duration::from_secs(30), within: Duration::from_secs(30) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let Ok(names) = names_in(&self.folder) else {
            return Err(CollectError::Absent { path: self.folder.clone() });
        };
        let mut named = NamedFamilies::default();
        for (part, file) in FILES {
            for (key, value) in self.read(file).iter().flat_map(|text| numbers(text)) {
                point(&mut named, (part, file), key, &[], value);
            }
        }
        let mut state = STATE.family();
        let pools = names.iter().filter(|name| self.folder.join(name.as_str()).is_dir()).take(POOLS_MAX);
        let mut datasets = BTreeSet::new();
        for pool in pools {
            let labels = [("zpool", pool.as_str())];
            for (key, value) in self.read(&format!("{pool}/io")).iter().flat_map(|text| columns(text)) {
                point(&mut named, ("zpool", "io"), key, &labels, value);
            }
            if let Some(text) = self.read(&format!("{pool}/state")) {
                let current = text.trim().to_ascii_lowercase();
                for known in STATES {
                    state.push(&[("state", known), labels[0]], f64::from(u8::from(current == known)));
                }
            }
            for file in names_in(&self.folder.join(pool)).unwrap_or_default() {
                if !file.starts_with("objset-") || datasets.len() >= DATASETS_MAX {
                    continue;
                }
                let Some(text) = self.read(&format!("{pool}/{file}")) else { continue };
                let Some(dataset) = dataset(&text).filter(|name| datasets.insert((pool, (*name).to_owned()))) else {
                    continue;
                };
                for (key, value) in numbers(&text) {
                    point(&mut named, ("zpool_dataset", "objset"), key, &[("dataset", dataset), labels[0]], value);
                }
            }
        }
        families.extend(named.into_families());
        families.push(state);
        Ok(())
    }
}

/// Adds a number of `place`: part of the metric's name, and the file.
fn point(named: &mut NamedFamilies, place: (&str, &str), key: &str, labels: &[(&'static str, &str)], value: f64) {
    let (part, file) = place;
    let letters = key.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' });
    let metric: String = format!("node_zfs_{part}_").chars().chain(letters).collect();
    let help = format!("kstat.zfs.misc.{file}.{key}");
    named.at(&metric, || Family::new(Kind::Untyped, metric.clone(), help)).push(labels, value);
}

/// Lines of name, type and number after the line that says so; a name counts once.
fn numbers(text: &str) -> Vec<(&str, f64)> {
    let mut seen = BTreeSet::new();
    body(text)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (key, kind, value) = (fields.next()?, fields.next()?, fields.next()?);
            let value = value.parse::<i128>().ok().filter(|_| NUMBERS.contains(&kind))?;
            seen.insert(key).then_some((key, value as f64))
        })
        .collect()
}

/// The data set's name, which may have spaces in it.
fn dataset(text: &str) -> Option<&str> {
    let rest = body(text).find_map(|line| line.strip_prefix("dataset_name"))?;
    Some(rest.trim_start().strip_prefix(TEXT)?.trim_start()).filter(|name| !name.is_empty())
}

fn body(text: &str) -> impl Iterator<Item = &str> {
    let is_header = |line: &&str| line.split_ascii_whitespace().eq(["name", "type", "data"]);
    text.lines().skip_while(move |line| !is_header(line)).skip(1)
}

/// A line of names, and below it a line of numbers.
fn columns(text: &str) -> Vec<(&str, f64)> {
    let mut lines = text.lines().skip_while(|line| !line.starts_with("nread"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut seen = BTreeSet::new();
    names
        .split_ascii_whitespace()
        .zip(values.split_ascii_whitespace())
        .filter_map(|(name, value)| Some((name, value.parse::<u64>().ok()? as f64)))
        .filter(|(name, _)| seen.insert(*name))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::trial;

    const STATS: &str = "23 1 0x01 7 2160 221578688875 6665999035587\nname                            type data\ndataset_name                    7    pool3/dataset with  space\nwrites                          4    4\nerpt-dropped                    3    -2\nwrites                          4    5\n";
    const IO: &str = "12 3 0x00 1 80 79205351707403 395818011156865\nnread    nwritten reads\n1884160  3206144  22\n";

    #[test]
    fn numbers_names_and_columns() {
        assert_eq!(numbers(STATS), [("writes", 4.0), ("erpt-dropped", -2.0)]);
        assert_eq!(dataset(STATS), Some("pool3/dataset with  space"));
        assert_eq!(columns(IO), [("nread", 1_884_160.0), ("nwritten", 3_206_144.0), ("reads", 22.0)]);
        assert_eq!((numbers("name 4 5\n").len(), dataset(""), columns("x").len()), (0, None, 0));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(stats in trial::near(STATS), io in trial::near(IO)) {
            let (stats, io) = (String::from_utf8_lossy(&stats), String::from_utf8_lossy(&io));
            let mut named = NamedFamilies::default();
            for (key, value) in numbers(&stats).into_iter().chain(columns(&io)) {
                point(&mut named, ("x", "y"), key, &[], value);
            }
            let _ = dataset(&stats);
        }
    }
}
