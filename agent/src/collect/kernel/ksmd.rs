//! `/sys/kernel/mm/ksm`: memory that guests share because their pages are equal.

use std::path::PathBuf;

use crate::collect::attribute::AttributeReader;
use crate::collect::tables::{FileColumn, FileTable, counter, file, gauge};
use crate::collect::{CollectError, Collector, Family, Roots};

/// Merging of equal pages.
pub(super) struct Ksmd {
    folder: PathBuf,
    reader: AttributeReader,
}

const FILES: &[FileColumn] = &[
    file("full_scans", counter("node_ksmd_full_scans_total", "How many times all mergeable areas have been scanned.")),
    file(
        "general_profit",
        gauge(
            "node_ksmd_general_profit_bytes",
            "How effective is KSM. ksm_saved_pages * sizeof(page) - (all_rmap_items) * sizeof(rmap_item)",
        ),
    ),
    file(
        "merge_across_nodes",
        gauge("node_ksmd_merge_across_nodes", "Specifies if pages from different NUMA nodes can be merged."),
    ),
    file("pages_shared", gauge("node_ksmd_pages_shared", "How many shared pages are being used.")),
    file(
        "pages_sharing",
        gauge("node_ksmd_pages_sharing", "How many more sites are sharing them i.e. how much saved."),
    ),
    file("pages_to_scan", gauge("node_ksmd_pages_to_scan", "How many pages to scan before ksmd goes to sleep.")),
    file(
        "pages_unshared",
        gauge("node_ksmd_pages_unshared", "How many pages unique but repeatedly checked for merging."),
    ),
    file(
        "pages_volatile",
        gauge("node_ksmd_pages_volatile", "How many pages changing too fast to be placed in a tree."),
    ),
    file("run", gauge("node_ksmd_run", "The status of ksmd. stopped = 0, running = 1")),
    file("sleep_millisecs", gauge("node_ksmd_sleep_seconds", "How many seconds ksmd should sleep before next scan."))
        .times(0.001),
];

impl Ksmd {
    pub(super) fn new(roots: &Roots) -> Ksmd {
        Ksmd { folder: roots.sysfs.join("kernel/mm/ksm"), reader: AttributeReader::new() }
    }
}

impl Collector for Ksmd {
    fn name(&self) -> &'static str {
        "ksmd"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let run = self.folder.join("run");
        if !run.is_file() {
            return Err(CollectError::Absent { path: run });
        }
        let mut table = FileTable::new(FILES);
        table.read(&mut self.reader, &self.folder, &[]);
        families.extend(table.into_families());
        Ok(())
    }
}
