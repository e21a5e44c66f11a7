//! `/proc/sys/kernel/random`: the pool that random numbers come from. Since Linux 5.18 it is always full at 256 bits.

use super::super::kernel_file::KernelFile;
use super::super::{CollectError, Collector, Family, Kind, Roots};

/// Entropy.
pub(super) struct Entropy {
    available: KernelFile,
    size: KernelFile,
}

impl Entropy {
    pub(super) fn new(roots: &Roots) -> Entropy {
        let file = |name| KernelFile::new(roots.procfs.join("sys/kernel/random").join(name));
        Entropy { available: file("entropy_avail"), size: file("poolsize") }
    }
}

impl Collector for Entropy {
    fn name(&self) -> &'static str {
        "entropy"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        for (file, name, help) in [
            (&mut self.available, "node_entropy_available_bits", "Bits of available entropy."),
            (&mut self.size, "node_entropy_pool_size_bits", "Bits of entropy pool."),
        ] {
            families.push(Family::new(Kind::Gauge, name, help).with(file.read()?.only_number()?));
        }
        Ok(())
    }
}
