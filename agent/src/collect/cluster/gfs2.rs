//! GFS2, a file system that several hosts mount at once: whether it withdrew after an error, is frozen or waits for a lost
//! host's journal, and how its cluster locks do. From the kernel's own files; nothing is written to them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::collect::Kind::{Counter, Gauge};
use crate::collect::asked::present;
use crate::collect::columns::{Column, Columns};
use crate::collect::kernel_file::read_word;
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Mounted GFS2 file systems.
pub(super) struct Gfs2 {
    mounted: PathBuf,
    /// Statistics of locks, where debugfs is mounted and may be read.
    debug: PathBuf,
}

const EVERY: Duration = Duration::from_secs(15);
/// A file here may wait for a lock of the file system.
const WITHIN: Duration = Duration::from_secs(5);
/// A host mounts a handful.
const FILESYSTEMS_MAX: usize = 64;
/// Nine kinds of locks with eight lines each, a column for each cpu.
const STATISTICS_BYTES_MAX: usize = 1 << 20;

const COLUMNS: [Column; 7] = [
    ("petrel_gfs2_withdrawn", Gauge, "Whether the file system withdrew from the cluster after an error."),
    ("petrel_gfs2_frozen", Gauge, "Whether the file system is frozen."),
    ("petrel_gfs2_locks_blocked", Gauge, "Whether locks wait until a lost host's journal is recovered."),
    ("petrel_gfs2_recovery_failed", Gauge, "Whether the last recovery of a journal here failed."),
    ("petrel_gfs2_lock_requests_total", Counter, "Requests for locks, by kind of lock."),
    (
        "petrel_gfs2_lock_remote_requests_total",
        Counter,
        "Requests for locks that went to the lock manager, by kind of lock.",
    ),
    (
        "petrel_gfs2_lock_round_trip_seconds",
        Gauge,
        "Smoothed time of a request to the lock manager that may wait, by kind of lock; the slowest cpu's.",
    ),
];

impl Gfs2 {
    pub(super) fn new(roots: &Roots) -> Gfs2 {
        Gfs2 { mounted: roots.sysfs.join("fs/gfs2"), debug: roots.sysfs.join("kernel/debug/gfs2") }
    }
}

impl Collector for Gfs2 {
    fn name(&self) -> &'static str {
        "gfs2"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        present(&self.mounted)?;
        let entries = std::fs::read_dir(&self.mounted)
            .map_err(|source| CollectError::Read { path: self.mounted.clone(), source })?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.take(FILESYSTEMS_MAX).collect();
        names.sort_unstable();
        let mut columns = Columns::new(&COLUMNS);
        for name in &names {
            read_state(&self.mounted.join(name), name, &mut columns);
            if let Ok(text) = std::fs::read(self.debug.join(name).join("sbstats")) {
                let text = String::from_utf8_lossy(&text[..text.len().min(STATISTICS_BYTES_MAX)]);
                read_statistics(&text, name, &mut columns);
            }
        }
        columns.append_to(families)
    }
}

fn read_state(folder: &Path, name: &str, columns: &mut Columns) {
    let labels = [("filesystem", name)];
    for (file, family) in [
        ("withdraw", "petrel_gfs2_withdrawn"),
        ("freeze", "petrel_gfs2_frozen"),
        ("lock_module/block", "petrel_gfs2_locks_blocked"),
        // 0 before the first recovery, 308 and 309 for done and given up.
        ("lock_module/recover_status", "petrel_gfs2_recovery_failed"),
    ] {
        let Some(value) = read_word(&folder.join(file)).and_then(|word| word.parse::<i64>().ok()) else { continue };
        let is_set = if file.ends_with("recover_status") { value == RECOVERY_GIVEN_UP } else { value != 0 };
        columns.flag(family, &labels, is_set);
    }
}

/// The kernel's `LM_RD_GAVEUP`.
const RECOVERY_GIVEN_UP: i64 = 308;

/// Reads `sbstats`: `inode srttb: 1052 983` in nanoseconds, `inode dlm:` and `inode queue:` in requests, a number for each cpu.
fn read_statistics(text: &str, name: &str, columns: &mut Columns) {
    for line in text.lines() {
        let Some((head, values)) = line.split_once(':') else { continue };
        let mut words = head.split_ascii_whitespace();
        let (Some(kind), Some(statistic)) = (words.next(), words.next()) else { continue };
        if kind == "reserved" {
            continue;
        }
        let values = values.split_ascii_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let labels = [("filesystem", name), ("lock", kind)];
        match statistic {
            "dlm" => columns.push("petrel_gfs2_lock_remote_requests_total", &labels, sum(values)),
            "queue" => columns.push("petrel_gfs2_lock_requests_total", &labels, sum(values)),
            "srttb" => {
                let slowest = values.max().unwrap_or_default();
                columns.push("petrel_gfs2_lock_round_trip_seconds", &labels, slowest as f64 / 1e9);
            }
            _ => {}
        }
    }
}

fn sum(values: impl Iterator<Item = u64>) -> f64 {
    values.map(|value| value as f64).sum()
}

/// All that is read here, from one text, whatever it is: for fuzzing.
pub(super) fn hostile(text: &str) {
    read_statistics(text, "x", &mut Columns::new(&COLUMNS));
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn state_and_locks_are_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lock_module")).unwrap();
        for (file, text) in [
            ("withdraw", "1\n"),
            ("freeze", "0\n"),
            ("lock_module/block", "0\n"),
            ("lock_module/recover_status", "308\n"),
        ] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        let mut columns = Columns::new(&COLUMNS);
        read_state(folder.path(), "vlab:g", &mut columns);
        read_statistics(include_str!("../../../testdata/gfs2/sbstats.txt"), "vlab:g", &mut columns);
        expect![[r#"
            petrel_gfs2_withdrawn{filesystem="vlab:g"} 1
            petrel_gfs2_frozen{filesystem="vlab:g"} 0
            petrel_gfs2_locks_blocked{filesystem="vlab:g"} 0
            petrel_gfs2_recovery_failed{filesystem="vlab:g"} 1
            petrel_gfs2_lock_requests_total{filesystem="vlab:g",lock="nondisk"} 0
            petrel_gfs2_lock_requests_total{filesystem="vlab:g",lock="inode"} 510
            petrel_gfs2_lock_requests_total{filesystem="vlab:g",lock="rgrp"} 0
            petrel_gfs2_lock_requests_total{filesystem="vlab:g",lock="meta"} 0
            petrel_gfs2_lock_requests_total{filesystem="vlab:g",lock="iopen"} 91
            petrel_gfs2_lock_requests_total{filesystem="vlab:g",lock="flock"} 0
            petrel_gfs2_lock_requests_total{filesystem="vlab:g",lock="plock"} 0
            petrel_gfs2_lock_requests_total{filesystem="vlab:g",lock="quota"} 0
            petrel_gfs2_lock_requests_total{filesystem="vlab:g",lock="journal"} 0
            petrel_gfs2_lock_remote_requests_total{filesystem="vlab:g",lock="nondisk"} 0
            petrel_gfs2_lock_remote_requests_total{filesystem="vlab:g",lock="inode"} 18
            petrel_gfs2_lock_remote_requests_total{filesystem="vlab:g",lock="rgrp"} 0
            petrel_gfs2_lock_remote_requests_total{filesystem="vlab:g",lock="meta"} 0
            petrel_gfs2_lock_remote_requests_total{filesystem="vlab:g",lock="iopen"} 10
            petrel_gfs2_lock_remote_requests_total{filesystem="vlab:g",lock="flock"} 0
            petrel_gfs2_lock_remote_requests_total{filesystem="vlab:g",lock="plock"} 0
            petrel_gfs2_lock_remote_requests_total{filesystem="vlab:g",lock="quota"} 0
            petrel_gfs2_lock_remote_requests_total{filesystem="vlab:g",lock="journal"} 0
            petrel_gfs2_lock_round_trip_seconds{filesystem="vlab:g",lock="nondisk"} 0
            petrel_gfs2_lock_round_trip_seconds{filesystem="vlab:g",lock="inode"} 0.000480112
            petrel_gfs2_lock_round_trip_seconds{filesystem="vlab:g",lock="rgrp"} 0
            petrel_gfs2_lock_round_trip_seconds{filesystem="vlab:g",lock="meta"} 0
            petrel_gfs2_lock_round_trip_seconds{filesystem="vlab:g",lock="iopen"} 0.00031
            petrel_gfs2_lock_round_trip_seconds{filesystem="vlab:g",lock="flock"} 0
            petrel_gfs2_lock_round_trip_seconds{filesystem="vlab:g",lock="plock"} 0
            petrel_gfs2_lock_round_trip_seconds{filesystem="vlab:g",lock="quota"} 0
            petrel_gfs2_lock_round_trip_seconds{filesystem="vlab:g",lock="journal"} 0
        "#]]
        .assert_eq(&columns.samples(|_| true));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "((inode|dlm|srttb|queue|[0-9]{1,22}|é|\\PC)[: \n]){0,30}") {
            read_statistics(&text, "x", &mut Columns::new(&COLUMNS));
        }
    }
}
