//! Block devices, file systems and what is built of them.

mod diskstats;
mod drbd;
mod filesystem;
mod mdadm;
mod mdstat;
mod mounts;
mod statfs;

use super::{CollectConfig, Collector};

/// All collectors of this folder. Opens nothing yet.
pub(super) fn all(config: &CollectConfig) -> Vec<Box<dyn Collector>> {
    let roots = &config.roots;
    vec![
        Box::new(diskstats::Diskstats::new(roots)),
        Box::new(drbd::Drbd::new(roots)),
        Box::new(filesystem::Filesystem::new(roots)),
        Box::new(mdadm::Mdadm::new(roots, config.interval)),
    ]
}
