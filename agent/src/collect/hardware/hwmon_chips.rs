//! The monitoring chips of this host and what they are called. Their numbers change from boot to boot, so a chip's label is
//! the place of its device, and its name only where several share a device.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::super::attribute::{AttributeReader, names_in};
use super::hwmon_file::clean;

/// One chip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chip {
    /// What its series are labelled with; unique.
    pub(super) label: String,
    /// What the driver calls it.
    pub(super) name: Option<String>,
    /// Where its files are.
    pub(super) folder: PathBuf,
}

/// Lists the chips below `class`, in the order of their folders' names.
pub(super) fn chips(class: &Path, reader: &mut AttributeReader) -> io::Result<Vec<Chip>> {
    let folders = names_in(class)?.into_iter().map(|entry| class.join(entry)).filter(|folder| folder.is_dir());
    let found = folders.map(|folder| {
        let name = reader.word(&folder.join("name")).map(|name| clean(&name)).filter(|name| !name.is_empty());
        let label = device_label(&folder).or_else(|| name.clone()).or_else(|| folder_label(&folder));
        Some(Chip { label: label?, name, folder })
    });
    let mut chips: Vec<Chip> = found.flatten().collect();
    tell_apart(&mut chips);
    Ok(chips)
}

/// `platform_coretemp_0` for a chip of device `/sys/devices/platform/coretemp.0`.
fn device_label(folder: &Path) -> Option<String> {
    let device = folder.join("device").canonicalize().ok()?;
    let part = |path: &Path| path.file_name().map(|name| clean(&name.to_string_lossy())).unwrap_or_default();
    let (bus, name) = (device.parent().map(part).unwrap_or_default(), part(&device));
    match (bus.is_empty(), name.is_empty()) {
        (_, true) => None,
        (true, false) => Some(name),
        (false, false) => Some(format!("{bus}_{name}")),
    }
}

/// `hwmon4`.
fn folder_label(folder: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    Some(clean(&folder.file_name()?.to_string_lossy())).filter(|label| !label.is_empty())
}

/// Adds the driver's name to labels that several chips have, or the folder's where the name does not tell them apart.
fn tell_apart(chips: &mut [Chip]) {
    let mut labels: BTreeMap<String, u32> = BTreeMap::new();
    let mut names: BTreeMap<(String, Option<String>), u32> = BTreeMap::new();
    for chip in chips.iter() {
        *labels.entry(chip.label.clone()).or_default() += 1;
        *names.entry((chip.label.clone(), chip.name.clone())).or_default() += 1;
    }
    for chip in chips {
        if labels[&chip.label] == 1 {
            continue;
        }
        let is_alone = names[&(chip.label.clone(), chip.name.clone())] == 1;
        let suffix = chip.name.clone().filter(|_| is_alone).or_else(|| folder_label(&chip.folder));
        if let Some(suffix) = suffix {
            chip.label = format!("{}_{suffix}", chip.label);
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn chips_of_one_device_are_told_apart() {
        let tree = tempfile::tempdir().unwrap();
        let class = tree.path().join("class/hwmon");
        std::fs::create_dir_all(&class).unwrap();
        for (number, device, name) in [
            (0, Some("platform/coretemp.0"), Some("coretemp")),
            (1, Some("platform/coretemp.1"), Some("coretemp")),
            (2, Some("platform/asus-nb-wmi"), Some("asus")),
            (3, Some("platform/asus-nb-wmi"), Some("asus_wmi_sensors")),
            (4, Some("pci0000:00/0000:01:00.0"), Some("mlx5")),
            (5, Some("pci0000:00/0000:01:00.0"), Some("mlx5")),
            (6, None, Some("acpitz\n")),
            (7, None, None),
        ] {
            let folder = class.join(format!("hwmon{number}"));
            std::fs::create_dir_all(&folder).unwrap();
            if let Some(device) = device {
                let device = tree.path().join("devices").join(device);
                std::fs::create_dir_all(&device).unwrap();
                std::os::unix::fs::symlink(device, folder.join("device")).unwrap();
            }
            if let Some(name) = name {
                std::fs::write(folder.join("name"), name).unwrap();
            }
        }
        std::fs::write(class.join("stray"), "").unwrap();
        let found = chips(&class, &mut AttributeReader::new()).unwrap();
        let shown: Vec<String> = found.iter().map(|chip| format!("{} {:?}\n", chip.label, chip.name)).collect();
        expect![[r#"
            platform_coretemp_0 Some("coretemp")
            platform_coretemp_1 Some("coretemp")
            platform_asus_nb_wmi_asus Some("asus")
            platform_asus_nb_wmi_asus_wmi_sensors Some("asus_wmi_sensors")
            pci0000:00_0000:01:00_0_hwmon4 Some("mlx5")
            pci0000:00_0000:01:00_0_hwmon5 Some("mlx5")
            acpitz Some("acpitz")
            hwmon7 None
        "#]]
        .assert_eq(&shown.concat());
    }
}
