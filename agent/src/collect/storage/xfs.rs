//! `/sys/fs/xfs/*/stats/stats`: what each mounted XFS file system did.

use std::path::PathBuf;

use crate::collect::attribute::{AttributeReader, names_in};
use crate::collect::tables::{Column, counter};
use crate::collect::{CollectError, Collector, Family, Roots};

/// XFS file systems.
pub(super) struct Xfs {
    folder: PathBuf,
    reader: AttributeReader,
}

/// First word of a line, number of the field after it, metric.
const FIELDS: [(&str, usize, Column); 39] = [
    (
        "extent_alloc",
        0,
        counter("node_xfs_extent_allocation_extents_allocated_total", "Number of extents allocated for a filesystem."),
    ),
    (
        "extent_alloc",
        1,
        counter("node_xfs_extent_allocation_blocks_allocated_total", "Number of blocks allocated for a filesystem."),
    ),
    (
        "extent_alloc",
        2,
        counter("node_xfs_extent_allocation_extents_freed_total", "Number of extents freed for a filesystem."),
    ),
    (
        "extent_alloc",
        3,
        counter("node_xfs_extent_allocation_blocks_freed_total", "Number of blocks freed for a filesystem."),
    ),
    (
        "abt",
        0,
        counter("node_xfs_allocation_btree_lookups_total", "Number of allocation B-tree lookups for a filesystem."),
    ),
    (
        "abt",
        1,
        counter("node_xfs_allocation_btree_compares_total", "Number of allocation B-tree compares for a filesystem."),
    ),
    (
        "abt",
        2,
        counter(
            "node_xfs_allocation_btree_records_inserted_total",
            "Number of allocation B-tree records inserted for a filesystem.",
        ),
    ),
    (
        "abt",
        3,
        counter(
            "node_xfs_allocation_btree_records_deleted_total",
            "Number of allocation B-tree records deleted for a filesystem.",
        ),
    ),
    (
        "blk_map",
        0,
        counter("node_xfs_block_mapping_reads_total", "Number of block map for read operations for a filesystem."),
    ),
    (
        "blk_map",
        1,
        counter("node_xfs_block_mapping_writes_total", "Number of block map for write operations for a filesystem."),
    ),
    (
        "blk_map",
        2,
        counter("node_xfs_block_mapping_unmaps_total", "Number of block unmaps (deletes) for a filesystem."),
    ),
    (
        "blk_map",
        3,
        counter(
            "node_xfs_block_mapping_extent_list_insertions_total",
            "Number of extent list insertions for a filesystem.",
        ),
    ),
    (
        "blk_map",
        4,
        counter(
            "node_xfs_block_mapping_extent_list_deletions_total",
            "Number of extent list deletions for a filesystem.",
        ),
    ),
    (
        "blk_map",
        5,
        counter("node_xfs_block_mapping_extent_list_lookups_total", "Number of extent list lookups for a filesystem."),
    ),
    (
        "blk_map",
        6,
        counter(
            "node_xfs_block_mapping_extent_list_compares_total",
            "Number of extent list compares for a filesystem.",
        ),
    ),
    (
        "bmbt",
        0,
        counter("node_xfs_block_map_btree_lookups_total", "Number of block map B-tree lookups for a filesystem."),
    ),
    (
        "bmbt",
        1,
        counter("node_xfs_block_map_btree_compares_total", "Number of block map B-tree compares for a filesystem."),
    ),
    (
        "bmbt",
        2,
        counter(
            "node_xfs_block_map_btree_records_inserted_total",
            "Number of block map B-tree records inserted for a filesystem.",
        ),
    ),
    (
        "bmbt",
        3,
        counter(
            "node_xfs_block_map_btree_records_deleted_total",
            "Number of block map B-tree records deleted for a filesystem.",
        ),
    ),
    (
        "dir",
        0,
        counter(
            "node_xfs_directory_operation_lookup_total",
            "Number of file name directory lookups which miss the operating systems directory name lookup cache.",
        ),
    ),
    (
        "dir",
        1,
        counter(
            "node_xfs_directory_operation_create_total",
            "Number of times a new directory entry was created for a filesystem.",
        ),
    ),
    (
        "dir",
        2,
        counter(
            "node_xfs_directory_operation_remove_total",
            "Number of times an existing directory entry was created for a filesystem.",
        ),
    ),
    (
        "dir",
        3,
        counter(
            "node_xfs_directory_operation_getdents_total",
            "Number of times the directory getdents operation was performed for a filesystem.",
        ),
    ),
    (
        "ig",
        0,
        counter(
            "node_xfs_inode_operation_attempts_total",
            "Number of times the OS looked for an XFS inode in the inode cache.",
        ),
    ),
    (
        "ig",
        1,
        counter(
            "node_xfs_inode_operation_found_total",
            "Number of times the OS looked for and found an XFS inode in the inode cache.",
        ),
    ),
    (
        "ig",
        2,
        counter(
            "node_xfs_inode_operation_recycled_total",
            "Number of times the OS found an XFS inode in the cache, but could not use it as it was being recycled.",
        ),
    ),
    (
        "ig",
        3,
        counter(
            "node_xfs_inode_operation_missed_total",
            "Number of times the OS looked for an XFS inode in the cache, but did not find it.",
        ),
    ),
    (
        "ig",
        4,
        counter(
            "node_xfs_inode_operation_duplicates_total",
            "Number of times the OS tried to add a missing XFS inode to the inode cache, but found it had already been added by another process.",
        ),
    ),
    (
        "ig",
        5,
        counter(
            "node_xfs_inode_operation_reclaims_total",
            "Number of times the OS reclaimed an XFS inode from the inode cache to free memory for another purpose.",
        ),
    ),
    (
        "ig",
        6,
        counter(
            "node_xfs_inode_operation_attribute_changes_total",
            "Number of times the OS explicitly changed the attributes of an XFS inode.",
        ),
    ),
    ("rw", 0, counter("node_xfs_write_calls_total", "Number of write(2) system calls made to files in a filesystem.")),
    ("rw", 1, counter("node_xfs_read_calls_total", "Number of read(2) system calls made to files in a filesystem.")),
    ("vnodes", 0, counter("node_xfs_vnode_active_total", "Number of vnodes not on free lists for a filesystem.")),
    ("vnodes", 1, counter("node_xfs_vnode_allocate_total", "Number of times vn_alloc called for a filesystem.")),
    ("vnodes", 2, counter("node_xfs_vnode_get_total", "Number of times vn_get called for a filesystem.")),
    ("vnodes", 3, counter("node_xfs_vnode_hold_total", "Number of times vn_hold called for a filesystem.")),
    ("vnodes", 4, counter("node_xfs_vnode_release_total", "Number of times vn_rele called for a filesystem.")),
    ("vnodes", 5, counter("node_xfs_vnode_reclaim_total", "Number of times vn_reclaim called for a filesystem.")),
    ("vnodes", 6, counter("node_xfs_vnode_remove_total", "Number of times vn_remove called for a filesystem.")),
];

impl Xfs {
    pub(super) fn new(roots: &Roots) -> Xfs {
        Xfs { folder: roots.sysfs.join("fs/xfs"), reader: AttributeReader::new() }
    }
}

impl Collector for Xfs {
    fn name(&self) -> &'static str {
        "xfs"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let mut columns: Vec<Family> = FIELDS.iter().map(|(.., column)| column.family()).collect();
        // Beside the devices there is a folder `stats` for all of them together.
        for device in names_in(&self.folder).unwrap_or_default() {
            if let Ok(text) = self.reader.read(&self.folder.join(&device).join("stats/stats")) {
                parse(&text, &device, &mut columns);
            }
        }
        if columns[0].points.is_empty() {
            return Err(CollectError::Absent { path: self.folder.join("*/stats/stats") });
        }
        families.append(&mut columns);
        Ok(())
    }
}

/// Lines of a word and its numbers; what a kernel does not print counts as zero.
fn parse(text: &str, device: &str, columns: &mut [Family]) {
    let line = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    for (family, (key, field, _)) in columns.iter_mut().zip(FIELDS) {
        let value = line(key).and_then(|rest| rest.split_ascii_whitespace().nth(field)?.parse::<u64>().ok());
        family.push(&[("device", device)], value.unwrap_or_default() as f64);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const SAMPLE: &str = "extent_alloc 1 872 0 0\nrw 28 3\nrwx 9\n";

    #[test]
    fn fields_are_found_by_their_line() {
        let mut columns: Vec<Family> = FIELDS.iter().map(|(.., column)| column.family()).collect();
        parse(SAMPLE, "sda1", &mut columns);
        let shown = trial::series(&text::render(&columns));
        assert!(shown.contains("node_xfs_extent_allocation_blocks_allocated_total{device=\"sda1\"} 872\n"), "{shown}");
        assert!(shown.contains("node_xfs_read_calls_total{device=\"sda1\"} 3\n"), "{shown}");
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let mut columns: Vec<Family> = FIELDS.iter().map(|(.., column)| column.family()).collect();
            parse(&String::from_utf8_lossy(&bytes), "x", &mut columns);
        }
    }
}
