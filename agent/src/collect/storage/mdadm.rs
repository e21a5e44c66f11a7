//! Software RAID: whether arrays are whole, and how far their repair is. From `/proc/mdstat` and sysfs.

use std::path::PathBuf;
use std::time::Duration;

use super::super::attribute::{AttributeReader, Minutes, names_in};
use super::super::kernel_file::KernelFile;
use super::super::{CollectError, Collector, Family, Kind, Roots};
use super::mdstat;

/// Arrays.
pub(super) struct Mdadm {
    mdstat: KernelFile,
    block: PathBuf,
    minutes: Minutes,
    /// Devices that sysfs knew to be arrays in this minute; a host may have hundreds of other block devices.
    devices: Vec<String>,
    reader: AttributeReader,
}

/// Label of `node_md_state`, and the state that it stands for.
const STATES: [(&str, &str); 5] = [
    ("active", "active"),
    ("inactive", "inactive"),
    ("recovering", "recovering"),
    ("resync", "resyncing"),
    ("check", "checking"),
];

/// Levels that can lose a disk.
const REDUNDANT: [&str; 5] = ["raid1", "raid4", "raid5", "raid6", "raid10"];

impl Mdadm {
    pub(super) fn new(roots: &Roots, interval: Duration) -> Mdadm {
        Mdadm {
            mdstat: KernelFile::new(roots.procfs.join("mdstat")),
            block: roots.sysfs.join("block"),
            minutes: Minutes::new(interval),
            devices: Vec::new(),
            reader: AttributeReader::new(),
        }
    }

    /// What sysfs adds: disks that an array should have, and how many of them it misses.
    fn collect_sysfs(&mut self, families: &mut Vec<Family>) {
        if self.minutes.is_due() {
            let is_array = |name: &String| name.starts_with("md") && self.block.join(name).join("md").is_dir();
            self.devices = names_in(&self.block).unwrap_or_default().into_iter().filter(is_array).collect();
        }
        let mut disks = Family::new(Kind::Gauge, "node_md_raid_disks", "Number of raid disks on device.");
        let mut degraded = Family::new(Kind::Gauge, "node_md_degraded", "Number of degraded disks on device.");
        for device in &self.devices {
            let folder = self.block.join(device).join("md");
            let labels = [("device", device.as_str())];
            // During a reshape the old number follows in parentheses.
            let number = self.reader.word(&folder.join("raid_disks"));
            let number = number.and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
            let Some(number) = number else { continue };
            disks.push(&labels, number);
            let level = self.reader.word(&folder.join("level")).unwrap_or_default();
            let missing = if REDUNDANT.contains(&level.as_str()) {
                self.reader.number(&folder.join("degraded"))
            } else {
                Some(0.0)
            };
            if let Some(missing) = missing {
                degraded.push(&labels, missing);
            }
        }
        families.extend([disks, degraded]);
    }
}

impl Collector for Mdadm {
    fn name(&self) -> &'static str {
        "mdadm"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let text = self.mdstat.read()?;
        let gauge = |name, help| Family::new(Kind::Gauge, name, help);
        let mut disks = gauge("node_md_disks", "Number of active/failed/spare disks of device.");
        let mut required = gauge("node_md_disks_required", "Total number of disks of device.");
        let mut states = gauge("node_md_state", "Indicates the state of md-device.");
        let mut blocks = gauge("node_md_blocks", "Total number of blocks on device.");
        let mut synced = gauge("node_md_blocks_synced", "Number of blocks synced on device.");
        for array in mdstat::arrays(text.as_str()) {
            let device = ("device", array.name);
            if let Some((active, needed)) = array.disks {
                disks.push(&[device, ("state", "active")], active as f64);
                required.push(&[device], needed as f64);
            }
            disks.push(&[device, ("state", "failed")], array.failed as f64);
            disks.push(&[device, ("state", "spare")], array.spare as f64);
            for (label, state) in STATES {
                states.push(&[device, ("state", label)], f64::from(u8::from(array.state == state)));
            }
            if let Some(count) = array.blocks {
                blocks.push(&[device], count as f64);
            }
            if let Some(count) = array.blocks_synced {
                synced.push(&[device], count as f64);
            }
        }
        families.extend([disks, required, states, blocks, synced]);
        self.collect_sysfs(families);
        Ok(())
    }
}
