//! `/sys/class/dmi/id`: maker, model, serial numbers and firmware of the machine, as labels. Read once: it changes with the
//! next boot. Serial numbers are for root only; without it they are left out.

use std::path::PathBuf;

use crate::collect::attribute::AttributeReader;
use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Roots};

/// What the machine is.
pub(super) struct Dmi {
    folder: PathBuf,
    info: Option<Family>,
}

const INFO: Column = gauge(
    "node_dmi_info",
    "A metric with a constant '1' value labeled by bios_date, bios_release, bios_vendor, bios_version, board_asset_tag, \
     board_name, board_serial, board_vendor, board_version, chassis_asset_tag, chassis_serial, chassis_vendor, \
     chassis_version, product_family, product_name, product_serial, product_sku, product_uuid, product_version, \
     system_vendor if provided by DMI.",
);
/// Files, which are labels too but for the last.
const FILES: [&str; 20] = [
    "bios_date",
    "bios_release",
    "bios_vendor",
    "bios_version",
    "board_asset_tag",
    "board_name",
    "board_serial",
    "board_vendor",
    "board_version",
    "chassis_asset_tag",
    "chassis_serial",
    "chassis_vendor",
    "chassis_version",
    "product_family",
    "product_name",
    "product_serial",
    "product_sku",
    "product_uuid",
    "product_version",
    "sys_vendor",
];

impl Dmi {
    pub(super) fn new(roots: &Roots) -> Dmi {
        Dmi { folder: roots.sysfs.join("class/dmi/id"), info: None }
    }
}

impl Collector for Dmi {
    fn name(&self) -> &'static str {
        "dmi"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        if self.info.is_none() {
            let mut reader = AttributeReader::new();
            let texts = FILES.map(|file| reader.word(&self.folder.join(file)));
            let labels: Vec<(&'static str, &str)> = FILES
                .into_iter()
                .map(|file| if file == "sys_vendor" { "system_vendor" } else { file })
                .zip(&texts)
                .filter_map(|(label, text)| Some((label, text.as_deref()?)))
                .collect();
            if labels.is_empty() {
                return Err(CollectError::Absent { path: self.folder.clone() });
            }
            let mut info = INFO.family();
            info.push(&labels, 1.0);
            self.info = Some(info);
        }
        families.extend(self.info.clone());
        Ok(())
    }
}
