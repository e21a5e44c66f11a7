//! Multipath devices as the kernel has them: how many of a disk's paths work. What multipathd thinks of the paths is told
//! by the collector of that name.

use std::path::PathBuf;
use std::time::Duration;

use crate::collect::attribute::{AttributeReader, names_in};
use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Disks with several paths.
pub(super) struct Dmmultipath {
    blocks: PathBuf,
    reader: AttributeReader,
}

const COLUMNS: [Column; 7] = [
    gauge("node_dmmultipath_device_info", "Non-numeric information about a DM-multipath device."),
    gauge(
        "node_dmmultipath_device_active",
        "Whether the multipath device-mapper device is active (1) or suspended (0).",
    ),
    gauge(
        "node_dmmultipath_device_size_bytes",
        "Size of the multipath device in bytes, read from /sys/block/<dm>/size.",
    ),
    gauge("node_dmmultipath_device_paths", "Number of paths for a multipath device."),
    gauge(
        "node_dmmultipath_device_paths_active",
        "Number of paths in active state (SCSI running or NVMe live) for a multipath device.",
    ),
    gauge("node_dmmultipath_device_paths_failed", "Number of paths not in active state for a multipath device."),
    gauge(
        "node_dmmultipath_path_state",
        "Reports the underlying device state for a multipath path, as read from /sys/block/<dev>/device/state.",
    ),
];
const SECTOR_BYTES: f64 = 512.0;

impl Dmmultipath {
    pub(super) fn new(roots: &Roots) -> Dmmultipath {
        Dmmultipath { blocks: roots.sysfs.join("block"), reader: AttributeReader::new() }
    }

    fn device(&mut self, block: &str, uuid: &str, families: &mut [Family; 7]) {
        let folder = self.blocks.join(block);
        let Some(name) = self.reader.word(&folder.join("dm/name")) else { return };
        let [info, active, size, paths, paths_active, paths_failed, path_state] = families;
        let labels = [("device", name.as_str()), ("sysfs_name", block)];
        info.push(&[labels[0], labels[1], ("uuid", uuid)], 1.0);
        let suspended = self.reader.number::<u32>(&folder.join("dm/suspended"));
        active.push(&labels, f64::from(u8::from(suspended != Some(1))));
        if let Some(sectors) = self.reader.number::<u64>(&folder.join("size")) {
            size.push(&labels, sectors as f64 * SECTOR_BYTES);
        }
        let (mut all, mut working) = (0.0, 0.0);
        for path in names_in(&folder.join("slaves")).unwrap_or_default() {
            let state = self.reader.word(&self.blocks.join(&path).join("device/state"));
            let state = state.unwrap_or_else(|| "unknown".to_owned());
            all += 1.0;
            working += f64::from(u8::from(matches!(state.as_str(), "running" | "live")));
            path_state.push(&[labels[0], ("path", &path), ("state", &state)], 1.0);
        }
        paths.push(&labels, all);
        paths_active.push(&labels, working);
        paths_failed.push(&labels, all - working);
    }
}

impl Collector for Dmmultipath {
    fn name(&self) -> &'static str {
        "dmmultipath"
    }

    fn pace(&self) -> Pace {
        // Some files for each path; a storage network has hundreds.
        Pace::Apart { every: Duration::from_secs(10), within: Duration::from_secs(10) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let mut columns = COLUMNS.map(|column| column.family());
        for block in names_in(&self.blocks).unwrap_or_default() {
            if !block.starts_with("dm-") {
                continue;
            }
            let uuid = self.reader.word(&self.blocks.join(&block).join("dm/uuid"));
            if let Some(uuid) = uuid.filter(|uuid| uuid.starts_with("mpath-")) {
                self.device(&block, &uuid, &mut columns);
            }
        }
        if columns[0].points.is_empty() {
            return Err(CollectError::Absent { path: self.blocks.join("dm-*/dm/uuid") });
        }
        families.extend(columns);
        Ok(())
    }
}
