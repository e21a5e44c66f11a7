//! Bonded interfaces: how many links each has, and how many of them are up.

use std::path::PathBuf;

use super::super::attribute::AttributeReader;
use super::super::kernel_file::KernelFile;
use super::super::{CollectError, Collector, Family, Kind, Roots};

/// Bonds.
pub(super) struct Bonding {
    masters: KernelFile,
    class_net: PathBuf,
    reader: AttributeReader,
}

impl Bonding {
    pub(super) fn new(roots: &Roots) -> Bonding {
        let class_net = roots.sysfs.join("class/net");
        Bonding {
            masters: KernelFile::new(class_net.join("bonding_masters")),
            class_net,
            reader: AttributeReader::new(),
        }
    }
}

impl Collector for Bonding {
    fn name(&self) -> &'static str {
        "bonding"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let gauge = |name, help| Family::new(Kind::Gauge, name, help);
        let mut configured = gauge("node_bonding_slaves", "Number of configured slaves per bonding interface.");
        let mut active = gauge("node_bonding_active", "Number of active slaves per bonding interface.");
        for master in self.masters.read()?.as_str().split_ascii_whitespace() {
            let folder = self.class_net.join(master);
            // A bond may be taken down at any time.
            let Some(slaves) = self.reader.word(&folder.join("bonding/slaves")) else { continue };
            let (mut count, mut up) = (0u32, 0u32);
            for slave in slaves.split_ascii_whitespace() {
                // Kernels before 3.9 name the link to it otherwise.
                let state = ["lower", "slave"].iter().find_map(|kind| {
                    self.reader.word(&folder.join(format!("{kind}_{slave}")).join("bonding_slave/mii_status"))
                });
                count += 1;
                up += u32::from(state.is_some_and(|state| state == "up"));
            }
            let labels = [("master", master)];
            configured.push(&labels, f64::from(count));
            active.push(&labels, f64::from(up));
        }
        families.extend([configured, active]);
        Ok(())
    }
}
