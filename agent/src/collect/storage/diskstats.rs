//! `/proc/diskstats`, with what sysfs and udev know of each device: work done by block devices, and what they are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use crate::collect::kernel_file::{KernelFile, read_word};
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Block devices.
pub(super) struct Diskstats {
    file: KernelFile,
    block: PathBuf,
    udev: PathBuf,
}

/// Name after `node_disk_`, type, factor to the base unit, help; in the kernel's order of columns.
type Column = (&'static str, Kind, f64, &'static str);

/// Sectors are 512 bytes here whatever the device's own are.
const SECTOR_BYTES: f64 = 512.0;
const TICK_SECONDS: f64 = 1.0 / 1000.0;

const COLUMNS: [Column; 17] = [
    ("reads_completed_total", Kind::Counter, 1.0, "The total number of reads completed successfully."),
    ("reads_merged_total", Kind::Counter, 1.0, "The total number of reads merged."),
    ("read_bytes_total", Kind::Counter, SECTOR_BYTES, "The total number of bytes read successfully."),
    ("read_time_seconds_total", Kind::Counter, TICK_SECONDS, "The total number of seconds spent by all reads."),
    ("writes_completed_total", Kind::Counter, 1.0, "The total number of writes completed successfully."),
    ("writes_merged_total", Kind::Counter, 1.0, "The number of writes merged."),
    ("written_bytes_total", Kind::Counter, SECTOR_BYTES, "The total number of bytes written successfully."),
    (
        "write_time_seconds_total",
        Kind::Counter,
        TICK_SECONDS,
        "This is the total number of seconds spent by all writes.",
    ),
    ("io_now", Kind::Gauge, 1.0, "The number of I/Os currently in progress."),
    ("io_time_seconds_total", Kind::Counter, TICK_SECONDS, "Total seconds spent doing I/Os."),
    ("io_time_weighted_seconds_total", Kind::Counter, TICK_SECONDS, "The weighted # of seconds spent doing I/Os."),
    ("discards_completed_total", Kind::Counter, 1.0, "The total number of discards completed successfully."),
    ("discards_merged_total", Kind::Counter, 1.0, "The total number of discards merged."),
    ("discarded_sectors_total", Kind::Counter, 1.0, "The total number of sectors discarded successfully."),
    (
        "discard_time_seconds_total",
        Kind::Counter,
        TICK_SECONDS,
        "This is the total number of seconds spent by all discards.",
    ),
    ("flush_requests_total", Kind::Counter, 1.0, "The total number of flush requests completed successfully"),
    (
        "flush_requests_time_seconds_total",
        Kind::Counter,
        TICK_SECONDS,
        "This is the total number of seconds spent by all flush requests.",
    ),
];

/// What udev says of ATA disks: property, name after `node_disk_`, help.
const ATA: [(&str, &str, &str); 3] = [
    ("ID_ATA_WRITE_CACHE", "ata_write_cache", "ATA disk has a write cache."),
    ("ID_ATA_WRITE_CACHE_ENABLED", "ata_write_cache_enabled", "ATA disk has its write cache enabled."),
    ("ID_ATA_ROTATION_RATE_RPM", "ata_rotation_rate_rpm", "ATA disk rotation rate in RPMs (0 for SSDs)."),
];

/// The families of what devices are.
struct Described {
    info: Family,
    filesystem: Family,
    mapper: Family,
    ata: Vec<Family>,
}

/// One device's identity.
struct Device<'a> {
    name: &'a str,
    major: &'a str,
    minor: &'a str,
}

impl Diskstats {
    pub(super) fn new(roots: &Roots) -> Diskstats {
        Diskstats {
            file: KernelFile::new(roots.procfs.join("diskstats")),
            block: roots.sysfs.join("block"),
            udev: roots.udev(),
        }
    }
}

impl Collector for Diskstats {
    fn name(&self) -> &'static str {
        "diskstats"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        let mut columns: Vec<Family> = COLUMNS
            .iter()
            .map(|(name, kind, _, help)| Family::new(*kind, format!("node_disk_{name}"), *help))
            .collect();
        let mut described = Described::new();
        for line in text.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (Some(major), Some(minor), Some(name)) = (fields.next(), fields.next(), fields.next()) else {
                return Err(text.malformed(line));
            };
            if is_left_out(name) {
                continue;
            }
            let labels = [("device", name)];
            // Kernels before 4.18 print no discards, before 5.5 no flushes: the columns that are there count.
            for ((column, (_, _, factor, _)), field) in columns.iter_mut().zip(&COLUMNS).zip(fields) {
                column.push(&labels, text.number(Some(field), line)? * factor);
            }
            let udev = udev_properties(&self.udev.join(format!("b{major}:{minor}")));
            let rotational = read_word(&self.block.join(name).join("queue/rotational"));
            described.push(&Device { name, major, minor }, &udev, rotational.as_deref().unwrap_or("0"));
        }
        families.append(&mut columns);
        families.extend([described.info, described.filesystem, described.mapper]);
        families.append(&mut described.ata);
        Ok(())
    }
}

impl Described {
    fn new() -> Described {
        let gauge = |name: &str, help: &'static str| Family::new(Kind::Gauge, format!("node_disk_{name}"), help);
        Described {
            info: gauge("info", "Info of /sys/block/<block_device>."),
            filesystem: gauge("filesystem_info", "Info about disk filesystem."),
            mapper: gauge("device_mapper_info", "Info about disk device mapper."),
            ata: ATA.iter().map(|(_, name, help)| gauge(name, help)).collect(),
        }
    }

    fn push(&mut self, device: &Device<'_>, udev: &HashMap<String, String>, rotational: &str) {
        let says = |key: &str| udev.get(key).map(String::as_str).unwrap_or_default();
        let serial = ["SCSI_IDENT_SERIAL", "ID_SERIAL_SHORT", "ID_SERIAL"].into_iter().map(says);
        let labels = [
            ("device", device.name),
            ("major", device.major),
            ("minor", device.minor),
            ("path", says("ID_PATH")),
            ("model", says("ID_MODEL")),
            ("serial", serial.into_iter().find(|serial| !serial.is_empty()).unwrap_or_default()),
            ("revision", says("ID_REVISION")),
            ("wwn", says("ID_WWN")),
            ("rotational", rotational),
        ];
        self.info.push(&labels, 1.0);
        if !says("ID_FS_TYPE").is_empty() {
            let labels = [
                ("device", device.name),
                ("type", says("ID_FS_TYPE")),
                ("usage", says("ID_FS_USAGE")),
                ("uuid", says("ID_FS_UUID")),
                ("version", says("ID_FS_VERSION")),
            ];
            self.filesystem.push(&labels, 1.0);
        }
        if !says("DM_NAME").is_empty() {
            let labels = [
                ("device", device.name),
                ("name", says("DM_NAME")),
                ("uuid", says("DM_UUID")),
                ("vg_name", says("DM_VG_NAME")),
                ("lv_name", says("DM_LV_NAME")),
                ("lv_layer", says("DM_LV_LAYER")),
            ];
            self.mapper.push(&labels, 1.0);
        }
        if !says("ID_ATA").is_empty() {
            for (family, (property, ..)) in self.ata.iter_mut().zip(&ATA) {
                if let Ok(value) = says(property).parse() {
                    family.push(&[("device", device.name)], value);
                }
            }
        }
    }
}

/// node_exporter's default: `^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$`, which is memory disks, loops, floppies
/// and partitions.
fn is_left_out(device: &str) -> bool {
    let stem = device.trim_end_matches(|letter: char| letter.is_ascii_digit());
    if stem.len() == device.len() {
        return false;
    }
    if matches!(stem, "ram" | "zram" | "loop" | "fd") {
        return true;
    }
    let disk = ["hd", "sd", "vd", "xvd"].iter().find_map(|begin| stem.strip_prefix(begin));
    if disk.is_some_and(|letter| letter.len() == 1 && letter.as_bytes()[0].is_ascii_lowercase()) {
        return true;
    }
    let nvme = stem.strip_prefix("nvme").and_then(|rest| rest.strip_suffix('p')).and_then(|rest| rest.split_once('n'));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    nvme.is_some_and(|(controller, namespace)| is_number(controller) && is_number(namespace))
}

/// Reads the lines `E:KEY=value` of udev's record of a device; empty where there is none.
fn udev_properties(path: &Path) -> HashMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.strip_prefix("E:")?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_and_memory_disks_are_left_out() {
        for device in ["ram0", "zram1", "loop7", "fd0", "sda1", "hdc12", "vdb2", "xvda1", "nvme0n1p1", "nvme10n2p15"] {
            assert!(is_left_out(device), "{device}");
        }
        for device in ["sda", "sdaa1", "vda", "dm-0", "md127", "nvme0n1", "mmcblk0p1", "sr0", "nvmen1p1", "sd1"] {
            assert!(!is_left_out(device), "{device}");
        }
    }
}
