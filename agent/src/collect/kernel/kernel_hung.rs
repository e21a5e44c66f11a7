//! `/proc/sys/kernel/hung_task_detect_count`: tasks that the kernel found hanging, which on a hypervisor mostly means
//! storage that does not answer.

use crate::collect::kernel_file::KernelFile;
use crate::collect::tables::{Column, counter};
use crate::collect::{CollectError, Collector, Family, Roots};

/// Hung tasks.
pub(super) struct KernelHung {
    file: KernelFile,
}

const TASKS: Column = counter(
    "node_kernel_hung_tasks_total",
    "Total number of tasks that have been detected as hung since the system booted.",
);

impl KernelHung {
    pub(super) fn new(roots: &Roots) -> KernelHung {
        KernelHung { file: KernelFile::new(roots.procfs.join("sys/kernel/hung_task_detect_count")) }
    }
}

impl Collector for KernelHung {
    fn name(&self) -> &'static str {
        "kernel_hung"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let count = self.file.read()?.only_number()?;
        families.push(TASKS.family().with(count));
        Ok(())
    }
}
