//! The files of bcache and their metrics.

use crate::collect::tables::{Column, counter, gauge};

/// Of a set of caches.
pub(super) const SET: [(&str, Column); 10] = [
    ("average_key_size", gauge("node_bcache_average_key_size_sectors", "Average data per key in the btree (sectors).")),
    (
        "btree_cache_size",
        gauge("node_bcache_btree_cache_size_bytes", "Amount of memory currently used by the btree cache."),
    ),
    (
        "cache_available_percent",
        gauge(
            "node_bcache_cache_available_percent",
            "Percentage of cache device without dirty data, usable for writeback (may contain clean cached data).",
        ),
    ),
    ("congested", gauge("node_bcache_congested", "Congestion.")),
    (
        "root_usage_percent",
        gauge(
            "node_bcache_root_usage_percent",
            "Percentage of the root btree node in use (tree depth increases if too high).",
        ),
    ),
    ("tree_depth", gauge("node_bcache_tree_depth", "Depth of the btree.")),
    (
        "internal/active_journal_entries",
        gauge("node_bcache_active_journal_entries", "Number of journal entries that are newer than the index."),
    ),
    ("internal/btree_nodes", gauge("node_bcache_btree_nodes", "Total nodes in the btree.")),
    (
        "internal/btree_read_average_duration_us",
        gauge("node_bcache_btree_read_average_duration_seconds", "Average btree read duration."),
    ),
    (
        "internal/cache_read_races",
        counter(
            "node_bcache_cache_read_races_total",
            "Counts instances where while data was being read from the cache, the bucket was reused and invalidated - i.e. where the pointer was stale after the read completed.",
        ),
    ),
];

/// Of a slow disk.
pub(super) const BACKING: [(&str, Column); 8] = [
    ("dirty_data", gauge("node_bcache_dirty_data_bytes", "Amount of dirty data for this backing device in the cache.")),
    (
        "stats_total/bypassed",
        counter(
            "node_bcache_bypassed_bytes_total",
            "Amount of IO (both reads and writes) that has bypassed the cache.",
        ),
    ),
    (
        "stats_total/cache_bypass_hits",
        counter("node_bcache_cache_bypass_hits_total", "Hits for IO intended to skip the cache."),
    ),
    (
        "stats_total/cache_bypass_misses",
        counter("node_bcache_cache_bypass_misses_total", "Misses for IO intended to skip the cache."),
    ),
    (
        "stats_total/cache_hits",
        counter("node_bcache_cache_hits_total", "Hits counted per individual IO as bcache sees them."),
    ),
    (
        "stats_total/cache_miss_collisions",
        counter(
            "node_bcache_cache_miss_collisions_total",
            "Instances where data insertion from cache miss raced with write (data already present).",
        ),
    ),
    (
        "stats_total/cache_misses",
        counter("node_bcache_cache_misses_total", "Misses counted per individual IO as bcache sees them."),
    ),
    (
        "stats_total/cache_readaheads",
        counter("node_bcache_cache_readaheads_total", "Count of times readahead occurred."),
    ),
];

/// Keys of a slow disk's `writeback_rate_debug`.
pub(super) const DEBUG: [(&str, Column); 5] = [
    (
        "target",
        gauge(
            "node_bcache_dirty_target_bytes",
            "Current dirty data target threshold for this backing device in bytes.",
        ),
    ),
    ("rate", gauge("node_bcache_writeback_rate", "Current writeback rate for this backing device in bytes.")),
    (
        "proportional",
        gauge(
            "node_bcache_writeback_rate_proportional_term",
            "Current result of proportional controller, part of writeback rate",
        ),
    ),
    (
        "integral",
        gauge(
            "node_bcache_writeback_rate_integral_term",
            "Current result of integral controller, part of writeback rate",
        ),
    ),
    ("change", gauge("node_bcache_writeback_change", "Last writeback rate change step for this backing device.")),
];

/// Of a fast disk.
pub(super) const CACHE: [(&str, Column); 3] = [
    ("io_errors", gauge("node_bcache_io_errors", "Number of errors that have occurred, decayed by io_error_halflife.")),
    (
        "metadata_written",
        counter(
            "node_bcache_metadata_written_bytes_total",
            "Sum of all non data writes (btree writes and all other metadata).",
        ),
    ),
    ("written", counter("node_bcache_written_bytes_total", "Sum of all data that has been written to the cache.")),
];

/// Keys of a fast disk's `priority_stats`.
pub(super) const PRIORITY: [(&str, Column); 2] = [
    (
        "Unused",
        gauge(
            "node_bcache_priority_stats_unused_percent",
            "The percentage of the cache that doesn't contain any data.",
        ),
    ),
    ("Metadata", gauge("node_bcache_priority_stats_metadata_percent", "Bcache's metadata overhead.")),
];
