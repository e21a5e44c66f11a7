//! `/proc/zoneinfo`: pages of each memory zone, by what they are used for, and the marks at which the kernel reclaims.

use std::collections::BTreeSet;

use crate::collect::kernel_file::{KernelFile, KernelText};
use crate::collect::tables::{Column, NamedFamilies, counter, gauge};
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Memory zones.
pub(super) struct Zoneinfo {
    file: KernelFile,
}

/// The first word of a line and the metric.
const FIELDS: [(&str, Column); 34] = [
    ("nr_free_pages", gauge("node_zoneinfo_nr_free_pages", "Total number of free pages in the zone")),
    ("min", gauge("node_zoneinfo_min_pages", "Zone watermark pages_min")),
    ("low", gauge("node_zoneinfo_low_pages", "Zone watermark pages_low")),
    ("high", gauge("node_zoneinfo_high_pages", "Zone watermark pages_high")),
    ("scanned", gauge("node_zoneinfo_scanned_pages", "Pages scanned since last reclaim")),
    ("spanned", gauge("node_zoneinfo_spanned_pages", "Total pages spanned by the zone, including holes")),
    ("present", gauge("node_zoneinfo_present_pages", "Physical pages existing within the zone")),
    ("managed", gauge("node_zoneinfo_managed_pages", "Present pages managed by the buddy system")),
    ("nr_active_anon", gauge("node_zoneinfo_nr_active_anon_pages", "Number of anonymous pages recently more used")),
    ("nr_inactive_anon", gauge("node_zoneinfo_nr_inactive_anon_pages", "Number of anonymous pages recently less used")),
    ("nr_isolated_anon", gauge("node_zoneinfo_nr_isolated_anon_pages", "Temporary isolated pages from anon lru")),
    ("nr_anon_pages", gauge("node_zoneinfo_nr_anon_pages", "Number of anonymous pages currently used by the system")),
    (
        "nr_anon_transparent_hugepages",
        gauge(
            "node_zoneinfo_nr_anon_transparent_hugepages",
            "Number of anonymous transparent huge pages currently used by the system",
        ),
    ),
    ("nr_active_file", gauge("node_zoneinfo_nr_active_file_pages", "Number of active pages with file-backing")),
    ("nr_inactive_file", gauge("node_zoneinfo_nr_inactive_file_pages", "Number of inactive pages with file-backing")),
    ("nr_isolated_file", gauge("node_zoneinfo_nr_isolated_file_pages", "Temporary isolated pages from file lru")),
    ("nr_file_pages", gauge("node_zoneinfo_nr_file_pages", "Number of file pages")),
    ("nr_slab_reclaimable", gauge("node_zoneinfo_nr_slab_reclaimable_pages", "Number of reclaimable slab pages")),
    ("nr_slab_unreclaimable", gauge("node_zoneinfo_nr_slab_unreclaimable_pages", "Number of unreclaimable slab pages")),
    ("nr_mlock_stack", gauge("node_zoneinfo_nr_mlock_stack_pages", "mlock()ed pages found and moved off LRU")),
    ("nr_kernel_stack", gauge("node_zoneinfo_nr_kernel_stacks", "Number of kernel stacks")),
    ("nr_mapped", gauge("node_zoneinfo_nr_mapped_pages", "Number of mapped pages")),
    ("nr_dirty", gauge("node_zoneinfo_nr_dirty_pages", "Number of dirty pages")),
    ("nr_writeback", gauge("node_zoneinfo_nr_writeback_pages", "Number of writeback pages")),
    ("nr_unevictable", gauge("node_zoneinfo_nr_unevictable_pages", "Number of unevictable pages")),
    ("nr_shmem", gauge("node_zoneinfo_nr_shmem_pages", "Number of shmem pages (included tmpfs/GEM pages)")),
    ("nr_dirtied", counter("node_zoneinfo_nr_dirtied_total", "Page dirtyings since bootup")),
    ("nr_written", counter("node_zoneinfo_nr_written_total", "Page writings since bootup")),
    ("numa_hit", counter("node_zoneinfo_numa_hit_total", "Allocated in intended node")),
    ("numa_miss", counter("node_zoneinfo_numa_miss_total", "Allocated in non intended node")),
    ("numa_foreign", counter("node_zoneinfo_numa_foreign_total", "Was intended here, hit elsewhere")),
    ("numa_interleave", counter("node_zoneinfo_numa_interleave_total", "Interleaver preferred this zone")),
    ("numa_local", counter("node_zoneinfo_numa_local_total", "Allocation from local node")),
    ("numa_other", counter("node_zoneinfo_numa_other_total", "Allocation from other node")),
];

/// More protection levels than there are kinds of zones.
const PROTECTION_MAX: usize = 16;

/// What one zone said so far.
struct Zone<'a> {
    node: &'a str,
    name: &'a str,
    values: [Option<f64>; FIELDS.len()],
    protection: Vec<f64>,
}

impl Zoneinfo {
    pub(super) fn new(roots: &Roots) -> Zoneinfo {
        Zoneinfo { file: KernelFile::new(roots.procfs.join("zoneinfo")) }
    }
}

impl Collector for Zoneinfo {
    fn name(&self) -> &'static str {
        "zoneinfo"
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        parse(&self.file.read()?, families);
        Ok(())
    }
}

fn parse(text: &KernelText<'_>, families: &mut Vec<Family>) {
    let mut columns: Vec<Family> = FIELDS.iter().map(|(_, column)| column.family()).collect();
    let mut protection = NamedFamilies::default();
    let mut told = BTreeSet::new();
    let mut zone = None;
    for line in text.lines() {
        if let Some(next) = begin(line) {
            emit(zone.replace(next), &mut told, &mut columns, &mut protection);
        } else if let Some(zone) = &mut zone {
            take(line, zone);
        }
    }
    emit(zone, &mut told, &mut columns, &mut protection);
    families.append(&mut columns);
    families.extend(protection.into_families());
}

/// `Node 0, zone   Normal` begins a zone.
fn begin(line: &str) -> Option<Zone<'_>> {
    let (node, name) = line.strip_prefix("Node ")?.split_once(", zone")?;
    Some(Zone { node: node.trim(), name: name.trim(), values: [None; FIELDS.len()], protection: Vec::new() })
}

fn take(line: &str, zone: &mut Zone<'_>) {
    let mut words = line.split_ascii_whitespace();
    let (Some(key), Some(value)) = (words.next(), words.next()) else { return };
    if key == "protection:" {
        let numbers = line.split_once(':').map_or("", |(_, rest)| rest.trim()).trim_matches(['(', ')']);
        zone.protection = numbers.split(", ").take(PROTECTION_MAX).filter_map(|number| number.parse().ok()).collect();
    } else if let (Some(place), Ok(value)) = (FIELDS.iter().position(|(word, _)| *word == key), value.parse::<i64>()) {
        zone.values[place] = Some(value as f64);
    }
}

fn emit<'a>(
    zone: Option<Zone<'a>>,
    told: &mut BTreeSet<(&'a str, &'a str)>,
    columns: &mut [Family],
    protection: &mut NamedFamilies,
) {
    // A zone that is printed twice would give one label set twice.
    let Some(zone) = zone.filter(|zone| told.insert((zone.node, zone.name))) else { return };
    let labels = [("node", zone.node), ("zone", zone.name)];
    for (family, value) in columns.iter_mut().zip(zone.values) {
        if let Some(value) = value {
            family.push(&labels, value);
        }
    }
    for (level, value) in zone.protection.iter().enumerate() {
        let family = || {
            let help = format!("Protection array {level}. field");
            Family::new(Kind::Gauge, format!("node_zoneinfo_protection_{level}"), help)
        };
        protection.at(&level.to_string(), family).push(&labels, *value);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const SAMPLE: &str = "\
Node 0, zone      DMA
  per-node stats
      nr_dirty     103
  pages free     2949
        min      8
        protection: (0, 2039)
      nr_free_pages 2949
  pagesets
    cpu: 0
              high:  14
Node 1, zone   Normal
        min      9
";

    #[test]
    fn zones_of_two_nodes() {
        let mut families = Vec::new();
        parse(&KernelText::of(SAMPLE.as_bytes()), &mut families);
        expect![[r#"
            node_zoneinfo_nr_free_pages{node="0",zone="DMA"} 2949
            node_zoneinfo_min_pages{node="0",zone="DMA"} 8
            node_zoneinfo_min_pages{node="1",zone="Normal"} 9
            node_zoneinfo_nr_dirty_pages{node="0",zone="DMA"} 103
            node_zoneinfo_protection_0{node="0",zone="DMA"} 0
            node_zoneinfo_protection_1{node="0",zone="DMA"} 2039
        "#]]
        .assert_eq(&trial::series(&text::render(&families)));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            parse(&KernelText::of(&bytes), &mut Vec::new());
        }
    }
}
