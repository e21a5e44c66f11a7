//! Block devices, file systems and what is built of them.

mod bcache;
mod bcache_files;
mod bcachefs;
mod btrfs;
mod diskstats;
mod dmmultipath;
mod drbd;
mod fibrechannel;
mod filesystem;
mod mdadm;
mod mdstat;
mod mounts;
mod mountstats;
mod mountstats_table;
mod nfs;
mod nfs_methods;
mod nvme;
mod statfs;
mod tapestats;
mod xfs;
mod zfs;

use super::{CollectConfig, Collector};

/// All collectors of this folder. Opens nothing yet.
pub(super) fn all(config: &CollectConfig) -> Vec<Box<dyn Collector>> {
    let roots = &config.roots;
    vec![
        Box::new(diskstats::Diskstats::new(roots)),
        Box::new(drbd::Drbd::new(roots)),
        Box::new(filesystem::Filesystem::new(roots)),
        Box::new(mdadm::Mdadm::new(roots, config.interval)),
        Box::new(bcache::Bcache::new(roots)),
        Box::new(bcachefs::Bcachefs::new(roots)),
        Box::new(btrfs::Btrfs::new(roots)),
        Box::new(dmmultipath::Dmmultipath::new(roots)),
        Box::new(fibrechannel::Fibrechannel::new(roots)),
        Box::new(mountstats::Mountstats::new(roots)),
        Box::new(nfs::Nfs::new(roots)),
        Box::new(nfs::Nfsd::new(roots)),
        Box::new(nvme::Nvme::new(roots)),
        Box::new(tapestats::Tapestats::new(roots)),
        Box::new(xfs::Xfs::new(roots)),
        Box::new(zfs::Zfs::new(roots)),
    ]
}
