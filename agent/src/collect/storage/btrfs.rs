//! `/sys/fs/btrfs`: space of btrfs file systems by what it is for, the duration of commits, and errors of their devices.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::collect::attribute::{AttributeReader, names_in};
use crate::collect::tables::{Column, counter, gauge};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Btrfs file systems.
pub(super) struct Btrfs {
    folder: PathBuf,
    reader: AttributeReader,
}

const COLUMNS: [Column; 12] = [
    gauge("node_btrfs_info", "Filesystem information"),
    gauge("node_btrfs_global_rsv_size_bytes", "Size of global reserve."),
    counter("node_btrfs_commits_total", "The total number of commits that have occurred."),
    gauge("node_btrfs_last_commit_seconds", "Duration of the most recent commit, in seconds."),
    gauge("node_btrfs_max_commit_seconds", "Duration of the slowest commit, in seconds."),
    counter("node_btrfs_commit_seconds_total", "Sum of the duration of all commits, in seconds."),
    gauge("node_btrfs_reserved_bytes", "Amount of space reserved for a data type"),
    gauge("node_btrfs_used_bytes", "Amount of used space by a layout/data type"),
    gauge("node_btrfs_size_bytes", "Amount of space allocated for a layout/data type"),
    gauge("node_btrfs_allocation_ratio", "Data allocation ratio for a layout/data type"),
    gauge("node_btrfs_device_size_bytes", "Size of a device that is part of the filesystem."),
    counter(
        "petrel_btrfs_device_errors_total",
        "Errors of a device since they were last reset, by the device's number.",
    ),
];
const GROUPS: [&str; 3] = ["data", "metadata", "system"];
/// Lines of `commit_stats`, and what to divide them by.
const COMMITS: [(&str, f64); 4] =
    [("commits", 1.0), ("last_commit_ms", 1000.0), ("max_commit_ms", 1000.0), ("total_commit_ms", 1000.0)];
/// Lines of `error_stats`, and what they count.
const ERRORS: [(&str, &str); 5] = [
    ("write_errs", "write"),
    ("read_errs", "read"),
    ("flush_errs", "flush"),
    ("corruption_errs", "corruption"),
    ("generation_errs", "generation"),
];
const SECTOR_BYTES: f64 = 512.0;

impl Btrfs {
    pub(super) fn new(roots: &Roots) -> Btrfs {
        Btrfs { folder: roots.sysfs.join("fs/btrfs"), reader: AttributeReader::new() }
    }

    /// A number; 0 where it is not there, as with node_exporter.
    fn number(&mut self, path: &Path) -> f64 {
        self.reader.number::<u64>(path).unwrap_or_default() as f64
    }

    fn file_system(&mut self, folder: &Path, uuid: &str, families: &mut [Family; 12]) {
        let [info, reserve, commits, last, max, total, reserved, used, size, ratios, devices, errors] = families;
        let labels = [("uuid", uuid)];
        let label = self.reader.word(&folder.join("label")).unwrap_or_default();
        info.push(&[("label", &label), ("uuid", uuid)], 1.0);
        reserve.push(&labels, self.number(&folder.join("allocation/global_rsv_size")));
        let text = self.reader.word(&folder.join("commit_stats")).unwrap_or_default();
        for ((key, divisor), family) in COMMITS.into_iter().zip([commits, last, max, total]) {
            family.push(&labels, keyed(&text, key).unwrap_or_default() / divisor);
        }
        let names = names_in(&folder.join("devices")).unwrap_or_default();
        for device in &names {
            let sectors = self.number(&folder.join("devices").join(device).join("size"));
            devices.push(&[("device", device), ("uuid", uuid)], sectors * SECTOR_BYTES);
        }
        for group in GROUPS {
            let folder = folder.join("allocation").join(group);
            reserved.push(&[("block_group_type", group), ("uuid", uuid)], self.number(&folder.join("bytes_reserved")));
            for mode in names_in(&folder).unwrap_or_default() {
                let layout = folder.join(&mode);
                if !layout.is_dir() {
                    continue;
                }
                let labels = [("block_group_type", group), ("mode", mode.as_str()), ("uuid", uuid)];
                used.push(&labels, self.number(&layout.join("used_bytes")));
                size.push(&labels, self.number(&layout.join("total_bytes")));
                ratios.push(&labels, ratio(&mode, names.len()));
            }
        }
        for device in names_in(&folder.join("devinfo")).unwrap_or_default() {
            let text = self.reader.word(&folder.join("devinfo").join(&device).join("error_stats")).unwrap_or_default();
            for (key, kind) in ERRORS {
                if let Some(count) = keyed(&text, key) {
                    errors.push(&[("devid", &device), ("type", kind), ("uuid", uuid)], count);
                }
            }
        }
    }
}

impl Collector for Btrfs {
    fn name(&self) -> &'static str {
        "btrfs"
    }

    fn pace(&self) -> Pace {
        // Some files take a lock that a commit holds.
        Pace::Apart { every: Duration::from_secs(30), within: Duration::from_secs(30) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let mut columns = COLUMNS.map(|column| column.family());
        // Beside the file systems there are folders such as `features`.
        let names = names_in(&self.folder).unwrap_or_default();
        for name in names.iter().filter(|name| name.contains('-')) {
            let folder = self.folder.join(name);
            let uuid = self.reader.word(&folder.join("metadata_uuid")).filter(|uuid| !uuid.is_empty());
            self.file_system(&folder, &uuid.unwrap_or_else(|| name.clone()), &mut columns);
        }
        if columns[0].points.is_empty() {
            return Err(CollectError::Absent { path: self.folder.join("*-*") });
        }
        families.extend(columns);
        Ok(())
    }
}

/// The number after a key in lines of both.
fn keyed(text: &str, key: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    rest.trim().parse::<u64>().ok().map(|number| number as f64)
}

/// How many bytes of disk a byte of data takes.
fn ratio(mode: &str, devices: usize) -> f64 {
    let devices = devices as f64;
    match mode {
        "single" | "raid0" => 1.0,
        "dup" | "raid1" | "raid10" => 2.0,
        "raid1c3" => 3.0,
        "raid1c4" => 4.0,
        "raid5" => devices / (devices - 1.0),
        "raid6" => devices / (devices - 2.0),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::trial;

    #[test]
    fn keys_and_ratios() {
        let text = "commits 258051\nlast_commit_ms 1000\n";
        assert_eq!((keyed(text, "last_commit_ms"), keyed(text, "last")), (Some(1000.0), None));
        assert_eq!((ratio("raid6", 4), ratio("raid5", 4), ratio("new", 4)), (2.0, 4.0 / 3.0, 0.0));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near("commits 258051\nlast_commit_ms 1000\n"), devices in 0usize..9) {
            let text = String::from_utf8_lossy(&bytes);
            let _ = (keyed(&text, "commits"), ratio("raid6", devices));
        }
    }
}
