//! `/sys/bus/pci/devices`: every PCI device, with its link's speed and width (a card that runs below what it can is failing
//! or badly seated) and its virtual functions. Off by default: a server has hundreds, and reading a link may wake a device.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::collect::attribute::{AttributeReader, names_in};
use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// PCI devices.
pub(super) struct Pcidevice {
    devices: PathBuf,
    reader: AttributeReader,
}

/// Most devices that are told.
const DEVICES_MAX: usize = 2048;

const INFO: Column =
    gauge("node_pcidevice_info", "Non-numeric data from /sys/bus/pci/devices/<location>, value is always 1.");
const POWER_STATE: Column = gauge(
    "node_pcidevice_power_state",
    "PCIe device power state, one of: D0, D1, D2, D3hot, D3cold, unknown or error.",
);
const POWER_STATES: [&str; 7] = ["D0", "D1", "D2", "D3hot", "D3cold", "unknown", "error"];

/// How a file's text becomes a value.
#[derive(Clone, Copy)]
enum Reads {
    /// `8.0 GT/s PCIe`, or -1 where it is not known.
    Transfers,
    /// A number, or -1 where it is not known.
    Width,
    /// A number, or 0 where the device has no such file.
    Count,
    /// 1 for any number but 0.
    Flag,
    /// A number; nothing where it is -1.
    Node,
}

const FILES: [(&str, Reads, Column); 10] = [
    (
        "max_link_speed",
        Reads::Transfers,
        gauge("node_pcidevice_max_link_transfers_per_second", "Value of maximum link's transfers per second (T/s)"),
    ),
    (
        "max_link_width",
        Reads::Width,
        gauge("node_pcidevice_max_link_width", "Value of maximum link's width (number of lanes)"),
    ),
    (
        "current_link_speed",
        Reads::Transfers,
        gauge("node_pcidevice_current_link_transfers_per_second", "Value of current link's transfers per second (T/s)"),
    ),
    (
        "current_link_width",
        Reads::Width,
        gauge("node_pcidevice_current_link_width", "Value of current link's width (number of lanes)"),
    ),
    (
        "d3cold_allowed",
        Reads::Flag,
        gauge("node_pcidevice_d3cold_allowed", "Whether the PCIe device supports D3cold power state (0/1)."),
    ),
    (
        "sriov_drivers_autoprobe",
        Reads::Flag,
        gauge(
            "node_pcidevice_sriov_drivers_autoprobe",
            "Whether SR-IOV drivers autoprobe is enabled for the device (0/1).",
        ),
    ),
    (
        "sriov_numvfs",
        Reads::Count,
        gauge("node_pcidevice_sriov_numvfs", "Number of Virtual Functions (VFs) currently enabled for SR-IOV."),
    ),
    (
        "sriov_totalvfs",
        Reads::Count,
        gauge("node_pcidevice_sriov_totalvfs", "Total number of Virtual Functions (VFs) supported by the device."),
    ),
    (
        "sriov_vf_total_msix",
        Reads::Count,
        gauge("node_pcidevice_sriov_vf_total_msix", "Total number of MSI-X vectors for Virtual Functions."),
    ),
    (
        "numa_node",
        Reads::Node,
        gauge(
            "node_pcidevice_numa_node",
            "NUMA node number for the PCI device. -1 indicates unknown or not available.",
        ),
    ),
];

/// Files that identify a device: label, file, hexadecimal digits.
const IDENTITY: [(&str, &str, usize); 6] = [
    ("class_id", "class", 6),
    ("vendor_id", "vendor", 4),
    ("device_id", "device", 4),
    ("subsystem_vendor_id", "subsystem_vendor", 4),
    ("subsystem_device_id", "subsystem_device", 4),
    ("revision", "revision", 2),
];

impl Pcidevice {
    pub(super) fn new(roots: &Roots) -> Pcidevice {
        Pcidevice { devices: roots.sysfs.join("bus/pci/devices"), reader: AttributeReader::new() }
    }

    fn info(&mut self, folder: &Path, place: &[String; 4], info: &mut Family) {
        let parent =
            std::fs::read_link(folder).ok().and_then(|target| location(target.parent()?.file_name()?.to_str()?));
        let parent = parent.unwrap_or_else(|| std::array::from_fn(|_| "*".to_owned()));
        let identity = IDENTITY.map(|(_, file, digits)| {
            let text = self.reader.word(&folder.join(file)).unwrap_or_default();
            let number = u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or_default();
            // Two more for the `0x`.
            format!("{number:#0width$x}", width = digits + 2)
        });
        let mut labels = labels_of(place).to_vec();
        let names = ["parent_segment", "parent_bus", "parent_device", "parent_function"];
        labels.extend(names.into_iter().zip(parent.iter().map(String::as_str)));
        labels.extend(IDENTITY.iter().map(|(label, ..)| *label).zip(identity.iter().map(String::as_str)));
        info.push(&labels, 1.0);
    }
}

impl Collector for Pcidevice {
    fn name(&self) -> &'static str {
        "pcidevice"
    }

    fn is_default(&self) -> bool {
        false
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: Duration::from_secs(60), within: Duration::from_secs(30) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let Ok(names) = names_in(&self.devices) else {
            return Err(CollectError::Absent { path: self.devices.clone() });
        };
        let (mut info, mut power) = (INFO.family(), POWER_STATE.family());
        let mut columns = FILES.map(|(_, _, column)| column.family());
        for name in names.iter().take(DEVICES_MAX) {
            let Some(place) = location(name) else { continue };
            let folder = self.devices.join(name);
            self.info(&folder, &place, &mut info);
            for (family, (file, reads, _)) in columns.iter_mut().zip(FILES) {
                let text = self.reader.word(&folder.join(file));
                if let Some(value) = reads.value(text.as_deref()) {
                    family.push(&labels_of(&place), value);
                }
            }
            let Some(current) = self.reader.word(&folder.join("power_state")).filter(|state| !state.is_empty()) else {
                continue;
            };
            for state in POWER_STATES {
                let mut labels = labels_of(&place).to_vec();
                labels.push(("state", state));
                power.push(&labels, f64::from(u8::from(current == state)));
            }
        }
        families.push(info);
        families.extend(columns);
        families.push(power);
        Ok(())
    }
}

impl Reads {
    fn value(self, text: Option<&str>) -> Option<f64> {
        let number = |text: &str| text.parse::<f64>().ok().filter(|value| value.is_finite());
        match self {
            Reads::Transfers => {
                let rate = text.and_then(|text| number(text.split_once(" GT/s")?.0));
                Some(rate.map_or(-1.0, |rate| rate * 1e9))
            }
            Reads::Width => Some(text.and_then(number).unwrap_or(-1.0)),
            Reads::Count => Some(text.and_then(number).unwrap_or(0.0)),
            Reads::Flag => Some(f64::from(u8::from(text.and_then(number).is_some_and(|value| value != 0.0)))),
            Reads::Node => text.and_then(number).filter(|node| *node >= 0.0),
        }
    }
}

/// `0000:01:00.0` as segment, bus, device and function.
fn location(name: &str) -> Option<[String; 4]> {
    let (segment, rest) = name.split_once(':')?;
    let (bus, rest) = rest.split_once(':')?;
    let (device, function) = rest.split_once('.')?;
    let hexadecimal = |text: &str, width: usize| {
        let number = u32::from_str_radix(text, 16).ok()?;
        Some(format!("{number:0width$x}"))
    };
    Some([hexadecimal(segment, 4)?, hexadecimal(bus, 2)?, hexadecimal(device, 2)?, hexadecimal(function, 1)?])
}

fn labels_of(place: &[String; 4]) -> [(&'static str, &str); 4] {
    [("segment", &place[0]), ("bus", &place[1]), ("device", &place[2]), ("function", &place[3])]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::trial;

    #[test]
    fn locations_and_values() {
        let shown = |name| location(name).map(|place| place.join("/"));
        assert_eq!(shown("0000:45:1f.3").as_deref(), Some("0000/45/1f/3"));
        assert_eq!(shown("10000:e1:00.0").as_deref(), Some("10000/e1/00/0"));
        assert_eq!((shown("pci0000:00"), shown("0000:00:zz.0")), (None, None));
        assert_eq!(Reads::Transfers.value(Some("16.0 GT/s PCIe")), Some(16e9));
        assert_eq!(Reads::Transfers.value(Some("Unknown")), Some(-1.0));
        assert_eq!((Reads::Width.value(None), Reads::Count.value(None)), (Some(-1.0), Some(0.0)));
        assert_eq!((Reads::Flag.value(Some("1")), Reads::Node.value(Some("-1"))), (Some(1.0), None));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(text in "[0-9a-f:.zé]{0,14}") {
            let _ = location(&text);
            for reads in [Reads::Transfers, Reads::Width, Reads::Count, Reads::Flag, Reads::Node] {
                let _ = reads.value(Some(&text));
            }
        }
    }
}
