//! `/sys/class/nvme`: NVMe controllers and their namespaces. Their health is asked by `smart`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::collect::attribute::{AttributeReader, names_in};
use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// NVMe controllers.
pub(super) struct Nvme {
    class: PathBuf,
    reader: AttributeReader,
}

const INFO: Column = gauge("node_nvme_info", "Non-numeric data from /sys/class/nvme/<device>, value is always 1.");
const NAMESPACE_INFO: Column =
    gauge("node_nvme_namespace_info", "Information about NVMe namespaces. Value is always 1");
const CAPACITY: Column = gauge(
    "node_nvme_namespace_capacity_bytes",
    "Capacity of the NVMe namespace in bytes. Computed as namespace_size * namespace_logical_block_size",
);
const SIZE: Column = gauge(
    "node_nvme_namespace_size_bytes",
    "Size of the NVMe namespace in bytes. Available in /sys/class/nvme/<device>/<namespace>/size",
);
const USED: Column = gauge(
    "node_nvme_namespace_used_bytes",
    "Used space of the NVMe namespace in bytes. Available in /sys/class/nvme/<device>/<namespace>/nuse",
);
const BLOCK: Column = gauge(
    "node_nvme_namespace_logical_block_size_bytes",
    "Logical block size of the NVMe namespace in bytes. Usually 4Kb. Available in \
     /sys/class/nvme/<device>/<namespace>/queue/logical_block_size",
);

/// Files of a controller, in the order of the labels.
const TEXTS: [(&str, &str); 5] = [
    ("cntlid", "cntlid"),
    ("firmware_revision", "firmware_rev"),
    ("model", "model"),
    ("serial", "serial"),
    ("state", "state"),
];

/// The namespaces' families.
struct Namespaces {
    info: Family,
    capacity: Family,
    size: Family,
    used: Family,
    block: Family,
}

impl Nvme {
    pub(super) fn new(roots: &Roots) -> Nvme {
        Nvme { class: roots.sysfs.join("class/nvme"), reader: AttributeReader::new() }
    }

    fn namespace(&mut self, device: &str, nsid: &str, folder: &Path, into: &mut Namespaces) {
        let labels = [("device", device), ("nsid", nsid)];
        let state = self.reader.word(&folder.join("ana_state")).unwrap_or_else(|| "unknown".to_owned());
        into.info.push(&[("ana_state", &state), labels[0], labels[1]], 1.0);
        let Some(block) = self.reader.number::<u32>(&folder.join("queue/logical_block_size")) else { return };
        let block = f64::from(block);
        into.block.push(&labels, block);
        // The kernel counts the size in sectors of 512 bytes whatever the block is; node_exporter multiplies by the block,
        // and the same series must have the same value.
        if let Some(size) = self.reader.number::<u64>(&folder.join("size")) {
            into.size.push(&labels, size as f64 * block);
            into.capacity.push(&labels, size as f64 * block);
        }
        if let Some(used) = self.reader.number::<u64>(&folder.join("nuse")) {
            into.used.push(&labels, used as f64 * block);
        }
    }
}

impl Collector for Nvme {
    fn name(&self) -> &'static str {
        "nvme"
    }

    fn pace(&self) -> Pace {
        // The used space is asked of the device.
        Pace::Apart { every: Duration::from_secs(30), within: Duration::from_secs(10) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let devices = names_in(&self.class).unwrap_or_default();
        if devices.is_empty() {
            return Err(CollectError::Absent { path: self.class.join("nvme0") });
        }
        let mut info = INFO.family();
        let mut namespaces = Namespaces {
            info: NAMESPACE_INFO.family(),
            capacity: CAPACITY.family(),
            size: SIZE.family(),
            used: USED.family(),
            block: BLOCK.family(),
        };
        for device in &devices {
            let folder = self.class.join(device);
            let texts = TEXTS.map(|(_, file)| self.reader.word(&folder.join(file)).unwrap_or_default());
            let mut labels = vec![("device", device.as_str())];
            labels.extend(TEXTS.iter().zip(&texts).map(|((label, _), text)| (*label, text.as_str())));
            info.push(&labels, 1.0);
            for name in names_in(&folder).unwrap_or_default() {
                if let Some(nsid) = namespace_id(&name) {
                    self.namespace(device, nsid, &folder.join(&name), &mut namespaces);
                }
            }
        }
        families.push(info);
        families.extend([namespaces.info, namespaces.capacity, namespaces.size, namespaces.used, namespaces.block]);
        Ok(())
    }
}

/// The number in `nvme0n1`, or in `nvme0c1n1`, a path to a namespace that several controllers share.
fn namespace_id(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("nvme")?;
    let (controller, nsid) = rest.split_once('n')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (controller.split('c').all(is_number) && is_number(nsid)).then_some(nsid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_of_a_controller() {
        for (name, nsid) in [
            ("nvme0n1", Some("1")),
            ("nvme12c3n45", Some("45")),
            ("nvme0n1p1", None),
            ("nvme0", None),
            ("ng0n1", None),
            ("nvmen1", None),
        ] {
            assert_eq!(namespace_id(name), nsid, "{name}");
        }
    }
}
