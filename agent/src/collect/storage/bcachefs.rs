//! `/sys/fs/bcachefs`: caches, compression, errors and devices of bcachefs file systems, and whatever its kernel counts. Of what is
//! counted since mounting and since the file system was made, the latter is told, as node_exporter does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::collect::attribute::{AttributeReader, names_in, numbered_in};
use crate::collect::tables::{Column, NamedFamilies, counter, gauge};
use crate::collect::{CollectError, Collector, Family, Kind, Pace, Roots};

/// bcachefs file systems.
pub(super) struct Bcachefs {
    folder: PathBuf,
    reader: AttributeReader,
}

const INFO: Column = gauge("node_bcachefs_info", "Filesystem information.");
const CACHE: Column = gauge("node_bcachefs_btree_cache_size_bytes", "Btree cache memory usage in bytes.");
const COMPRESSED: Column = gauge("node_bcachefs_compression_compressed_bytes", "Compressed size by algorithm.");
const UNCOMPRESSED: Column = gauge("node_bcachefs_compression_uncompressed_bytes", "Uncompressed size by algorithm.");
const ERRORS: Column = counter("node_bcachefs_errors_total", "Error count by error type.");
const WRITES: Column = counter("node_bcachefs_btree_writes_total", "Number of btree writes by type.");
const WRITE_SIZE: Column = gauge("node_bcachefs_btree_write_average_size_bytes", "Average btree write size by type.");
const DEVICE: Column = gauge("node_bcachefs_device_info", "Device information.");
const BUCKET_SIZE: Column = gauge("node_bcachefs_device_bucket_size_bytes", "Bucket size in bytes.");
const BUCKETS: Column = gauge("node_bcachefs_device_buckets", "Total number of buckets.");
const DURABILITY: Column = gauge("node_bcachefs_device_durability", "Device durability setting.");
const IO_DONE: Column =
    counter("node_bcachefs_device_io_done_bytes_total", "IO bytes by operation type and data type.");
const IO_ERRORS: Column = counter("node_bcachefs_device_io_errors_total", "IO errors by error type.");

/// Metrics that the counters' files must not take the names of.
const OWN_TOTALS: [Column; 4] = [ERRORS, WRITES, IO_DONE, IO_ERRORS];
/// Most counters of a file system that are read; kernels of 2026 have 130.
const COUNTERS_MAX: usize = 512;
/// Most lines of a table that are told.
const LINES_MAX: usize = 256;

impl Bcachefs {
    pub(super) fn new(roots: &Roots) -> Bcachefs {
        Bcachefs { folder: roots.sysfs.join("fs/bcachefs"), reader: AttributeReader::new() }
    }

    fn read_file_system(&mut self, uuid: &str, families: &mut NamedFamilies) {
        let folder = self.folder.join(uuid);
        let of_all = [("uuid", uuid)];
        at(families, INFO).push(&of_all, 1.0);
        if let Some(bytes) = self.reader.word(&folder.join("btree_cache_size")).and_then(|text| humane(&text)) {
            at(families, CACHE).push(&of_all, bytes);
        }
        let compression = self.reader.word(&folder.join("compression_stats")).unwrap_or_default();
        for [algorithm, compressed, uncompressed] in rows(&compression) {
            let labels = [("algorithm", algorithm), ("uuid", uuid)];
            if let Some((compressed, uncompressed)) = humane(compressed).zip(humane(uncompressed)) {
                at(families, COMPRESSED).push(&labels, compressed);
                at(families, UNCOMPRESSED).push(&labels, uncompressed);
            }
        }
        let errors = self.reader.word(&folder.join("errors")).unwrap_or_default();
        let mut pairs: Vec<[&str; 2]> = errors.lines().filter_map(columns).take(LINES_MAX).collect();
        for [kind, count] in unique(&mut pairs) {
            if let Ok(count) = count.parse::<u64>() {
                at(families, ERRORS).push(&[("error_type", kind), ("uuid", uuid)], count as f64);
            }
        }
        let writes = self.reader.word(&folder.join("btree_write_stats")).unwrap_or_default();
        for [kind, count, size] in rows(&writes) {
            let labels = [("type", kind.trim_end_matches(':')), ("uuid", uuid)];
            if let Some((count, size)) = count.parse::<u64>().ok().zip(humane(size)) {
                at(families, WRITES).push(&labels, count as f64);
                at(families, WRITE_SIZE).push(&labels, size);
            }
        }
        self.read_counters(&folder.join("counters"), uuid, families);
        for device in numbered_in(&folder, "dev-") {
            self.read_device(&folder.join(format!("dev-{device}")), &device, uuid, families);
        }
    }

    /// Which counters there are differs from kernel to kernel, so their files name the metrics.
    fn read_counters(&mut self, folder: &Path, uuid: &str, families: &mut NamedFamilies) {
        for name in names_in(folder).unwrap_or_default().iter().take(COUNTERS_MAX) {
            let metric = format!("node_bcachefs_{name}_total");
            let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            if !is_plain || OWN_TOTALS.iter().any(|own| own.name() == metric) {
                continue;
            }
            let text = self.reader.word(&folder.join(name)).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("since filesystem creation:"));
            if let Some(value) = line.and_then(humane) {
                let help = || format!("Bcachefs counter {name} since filesystem creation.");
                let family = families.at(&metric, || Family::new(Kind::Counter, metric.clone(), help()));
                family.push(&[("uuid", uuid)], value);
            }
        }
    }

    fn read_device(&mut self, folder: &Path, device: &str, uuid: &str, families: &mut NamedFamilies) {
        let mut word = |file: &str| self.reader.word(&folder.join(file)).unwrap_or_default();
        let labels = [("device", device), ("uuid", uuid)];
        let (label, state) = (word("label"), word("state"));
        at(families, DEVICE).push(&[labels[0], ("label", &label), ("state", &state), labels[1]], 1.0);
        for (column, file) in [(BUCKET_SIZE, "bucket_size"), (BUCKETS, "nbuckets"), (DURABILITY, "durability")] {
            if let Some(value) = humane(&word(file)) {
                at(families, column).push(&labels, value);
            }
        }
        for (operation, data, bytes) in moved(&word("io_done")) {
            let labels = [("data_type", data), labels[0], ("operation", operation), labels[1]];
            at(families, IO_DONE).push(&labels, bytes);
        }
        for [kind, count] in unique(&mut failed(&word("io_errors"))) {
            if let Ok(count) = count.parse::<u64>() {
                at(families, IO_ERRORS).push(&[labels[0], ("type", kind), labels[1]], count as f64);
            }
        }
    }
}

impl Collector for Bcachefs {
    fn name(&self) -> &'static str {
        "bcachefs"
    }

    fn pace(&self) -> Pace {
        // More than a hundred files each.
        Pace::Apart { every: Duration::from_secs(30), within: Duration::from_secs(30) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let names = names_in(&self.folder).unwrap_or_default();
        let mut found = NamedFamilies::default();
        for uuid in names.iter().filter(|name| name.contains('-')) {
            self.read_file_system(uuid, &mut found);
        }
        let found = found.into_families();
        if found.is_empty() {
            return Err(CollectError::Absent { path: self.folder.join("*-*") });
        }
        families.extend(found);
        Ok(())
    }
}

fn at(families: &mut NamedFamilies, column: Column) -> &mut Family {
    families.at(column.name(), || column.family())
}

/// The first words of a line that has as many.
fn columns<const N: usize>(line: &str) -> Option<[&str; N]> {
    let mut words = line.split_ascii_whitespace();
    let mut found = [""; N];
    for place in &mut found {
        *place = words.next()?;
    }
    Some(found)
}

/// The rows of a table below its head, each first word once.
fn rows(text: &str) -> Vec<[&str; 3]> {
    let mut rows: Vec<[&str; 3]> = text.lines().skip(1).filter_map(columns).take(LINES_MAX).collect();
    unique(&mut rows).to_vec()
}

/// In order, without rows whose first word was there: it becomes a label.
fn unique<'a, 'b, const N: usize>(rows: &'b mut Vec<[&'a str; N]>) -> &'b [[&'a str; N]] {
    rows.sort_by_key(|row| row[0]);
    rows.dedup_by_key(|row| row[0]);
    rows
}

/// `io_done`: what was read and written, each with a line for each type of data.
fn moved(text: &str) -> Vec<(&str, &str, f64)> {
    let mut operation = "";
    let mut moved: Vec<(&str, &str, f64)> = Vec::new();
    for line in text.lines().take(LINES_MAX) {
        let Some((name, rest)) = line.split_once(':') else { continue };
        match (name.trim(), rest.trim()) {
            (name @ ("read" | "write"), "") => operation = name,
            (data, bytes) if !operation.is_empty() => {
                let is_known = moved.iter().any(|known| (known.0, known.1) == (operation, data));
                if let (false, Ok(bytes)) = (is_known, bytes.parse::<u64>()) {
                    moved.push((operation, data, bytes as f64));
                }
            }
            _ => {}
        }
    }
    moved
}

/// `io_errors`: by kind, first since the file system was made, then since somebody reset them.
fn failed(text: &str) -> Vec<[&str; 2]> {
    let lines = text.lines().skip(1).take_while(|line| line.starts_with(' '));
    let pairs = lines.filter_map(|line| line.split_once(':'));
    pairs.map(|(kind, count)| [kind.trim(), count.trim()]).take(LINES_MAX).collect()
}

/// A number as bcachefs prints it for people, `48.9G`: powers of 1,024, and what is left of a whole one is cut off.
fn humane(text: &str) -> Option<f64> {
    const UNITS: &str = "kMGTPEZY";
    let text = text.trim();
    let unit = text.chars().last().and_then(|unit| UNITS.find(unit));
    let (digits, power) = unit.map_or((text, 0), |place| (&text[..text.len() - 1], place + 1));
    if !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let value = digits.parse::<f64>().ok()?;
    Some((value * 1024f64.powi(i32::try_from(power).ok()?)).trunc())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{CollectConfig, text, trial};

    const DONE: &str =
        "read:\nsb          :       86016\nuser        :3770452246528\nwrite:\nsb          :      645120\n";
    const FAILED: &str =
        "IO errors since filesystem creation\n  read:    197416\n  checksum:0\nIO errors since 8 y ago\n  read:    5\n";
    const RATIO: &str = "typetype          compressed    uncompressed     average extent size\nlz4                    48.9G           71.2G                   62.5k\n";

    #[test]
    fn a_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("sys/fs/bcachefs/deadbeef-1234");
        for (file, text) in [
            ("btree_cache_size", "2.05G\n"),
            ("compression_stats", RATIO),
            ("errors", "bset_bad_csum   2   1767112063\nbset_bad_csum 3\nodd\n"),
            ("btree_write_stats", "                   nr        size\ninitial:           3298401   28.2k\n"),
            ("counters/fsync", "since mount:     302707\nsince filesystem creation:     1515147\n"),
            ("counters/errors", "since mount:     1\nsince filesystem creation:     1\n"),
            ("counters/a-b", "since mount:     1\nsince filesystem creation:     1\n"),
            ("dev-0/label", "ssd.one\n"),
            ("dev-0/state", "[rw] ro evacuating spare \n"),
            ("dev-0/bucket_size", "2.00M\n"),
            ("dev-0/nbuckets", "7629824\n"),
            ("dev-0/io_done", DONE),
            ("dev-0/io_errors", FAILED),
        ] {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let config = CollectConfig::at(&folder.path().join("proc"), &folder.path().join("sys"));
        let mut families = Vec::new();
        Bcachefs::new(&config.roots).collect(&mut families).unwrap();
        expect![[r#"
            node_bcachefs_info{uuid="deadbeef-1234"} 1
            node_bcachefs_btree_cache_size_bytes{uuid="deadbeef-1234"} 2201170739
            node_bcachefs_compression_compressed_bytes{algorithm="lz4",uuid="deadbeef-1234"} 52505975193
            node_bcachefs_compression_uncompressed_bytes{algorithm="lz4",uuid="deadbeef-1234"} 76450417868
            node_bcachefs_errors_total{error_type="bset_bad_csum",uuid="deadbeef-1234"} 2
            node_bcachefs_btree_writes_total{type="initial",uuid="deadbeef-1234"} 3298401
            node_bcachefs_btree_write_average_size_bytes{type="initial",uuid="deadbeef-1234"} 28876
            node_bcachefs_fsync_total{uuid="deadbeef-1234"} 1515147
            node_bcachefs_device_info{device="0",label="ssd.one",state="[rw] ro evacuating spare",uuid="deadbeef-1234"} 1
            node_bcachefs_device_bucket_size_bytes{device="0",uuid="deadbeef-1234"} 2097152
            node_bcachefs_device_buckets{device="0",uuid="deadbeef-1234"} 7629824
            node_bcachefs_device_io_done_bytes_total{data_type="sb",device="0",operation="read",uuid="deadbeef-1234"} 86016
            node_bcachefs_device_io_done_bytes_total{data_type="user",device="0",operation="read",uuid="deadbeef-1234"} 3770452246528
            node_bcachefs_device_io_done_bytes_total{data_type="sb",device="0",operation="write",uuid="deadbeef-1234"} 645120
            node_bcachefs_device_io_errors_total{device="0",type="checksum",uuid="deadbeef-1234"} 0
            node_bcachefs_device_io_errors_total{device="0",type="read",uuid="deadbeef-1234"} 197416
        "#]].assert_eq(&trial::series(&text::render(&families)));
        let nothing = CollectConfig::at(&folder.path().join("proc"), &folder.path().join("none"));
        let outcome = Bcachefs::new(&nothing.roots).collect(&mut families);
        assert!(matches!(outcome, Err(CollectError::Absent { .. })));
    }

    #[test]
    fn numbers_for_people() {
        for (text, value) in [
            ("720", Some(720.0)),
            ("28.2k", Some(28_876.0)),
            ("44.5T", Some(48_928_267_436_032.0)),
            ("-1k", None),
            ("inf", None),
            ("k", None),
            ("", None),
        ] {
            assert_eq!(humane(text), value, "{text}");
        }
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(one in trial::near(DONE), two in trial::near(FAILED), three in trial::near(RATIO)) {
            for bytes in [one, two, three] {
                let text = String::from_utf8_lossy(&bytes);
                let _ = (moved(&text), failed(&text), rows(&text), humane(&text));
            }
        }
    }
}
