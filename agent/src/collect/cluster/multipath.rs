//! Paths to shared storage, as the multipath daemon sees them: which are up, and how often maps had none and waited. Only the
//! daemon's listing is asked; no path is added, removed or failed from here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::collect::Kind::{Counter, Gauge};
use crate::collect::asked::{ask, refused};
use crate::collect::columns::{Column, Columns};
use crate::collect::kernel_file::read_word;
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Disks with several paths.
pub(super) struct Multipath {
    block: PathBuf,
}

const EVERY: Duration = Duration::from_secs(15);
const WITHIN: Duration = Duration::from_secs(10);
const MAPS: [&str; 3] = ["show", "maps", "json"];
/// A path takes some 500 bytes; this is 2,000 maps with eight paths each.
const ANSWER_BYTES_MAX: usize = 8 << 20;

const COLUMNS: [Column; 8] = [
    ("petrel_multipath_paths", Gauge, "Paths of the map, by state: up, down, or other while it is being checked."),
    (
        "petrel_multipath_path_up",
        Gauge,
        "Whether the path carries I/O; 0 when the kernel or the checker found it down.",
    ),
    ("petrel_multipath_path_faults_total", Counter, "Times that a path of the map failed."),
    ("petrel_multipath_group_switches_total", Counter, "Times that the map went to another group of paths."),
    ("petrel_multipath_loads_total", Counter, "Times that the map was loaded anew."),
    ("petrel_multipath_queueing_seconds_total", Counter, "Time in which the map had no path and its I/O waited."),
    (
        "petrel_multipath_queueing_timeouts_total",
        Counter,
        "Times that the map had no path for too long and failed its I/O.",
    ),
    ("petrel_multipath_map_active", Gauge, "Whether the kernel's map is active, and not suspended."),
];

impl Multipath {
    pub(super) fn new(roots: &Roots) -> Multipath {
        Multipath { block: roots.sysfs.join("block") }
    }
}

impl Collector for Multipath {
    fn name(&self) -> &'static str {
        "multipath"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        if !has_maps(&self.block) {
            return Err(CollectError::Absent { path: self.block.join("dm-*/dm/uuid with mpath-") });
        }
        let said = ask("multipathd", &MAPS, WITHIN)?;
        let mut columns = Columns::new(&COLUMNS);
        read(&said.out, &mut columns).ok_or_else(|| refused("multipathd", &MAPS, &said))?;
        columns.append_to(families)
    }
}

/// Whether the kernel has a map that the multipath tools made.
fn has_maps(block: &Path) -> bool {
    let entries = std::fs::read_dir(block).into_iter().flatten().flatten();
    let mapped = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("dm-"));
    mapped
        .map(|entry| read_word(&entry.path().join("dm/uuid")))
        .any(|uuid| uuid.is_some_and(|uuid| uuid.starts_with("mpath-")))
}

/// Reads `multipathd show maps json`; `None` for what is no list of maps.
fn read(text: &str, columns: &mut Columns) -> Option<()> {
    if text.len() > ANSWER_BYTES_MAX {
        return None;
    }
    let answer: Value = serde_json::from_str(text).ok()?;
    for map in answer["maps"].as_array()? {
        read_map(map, columns);
    }
    Some(())
}

fn read_map(map: &Value, columns: &mut Columns) {
    let name = map["name"].as_str().unwrap_or_default();
    let of_map = [("map", name)];
    for (key, family) in [
        ("path_faults", "petrel_multipath_path_faults_total"),
        ("switch_grp", "petrel_multipath_group_switches_total"),
        ("map_loads", "petrel_multipath_loads_total"),
        ("total_q_time", "petrel_multipath_queueing_seconds_total"),
        ("q_timeouts", "petrel_multipath_queueing_timeouts_total"),
    ] {
        if let Some(value) = map[key].as_f64() {
            columns.push(family, &of_map, value);
        }
    }
    columns.flag("petrel_multipath_map_active", &of_map, map["dm_st"] == "active");
    let mut counts = [("up", 0_u32), ("down", 0), ("other", 0)];
    for group in list(&map["path_groups"]) {
        for path in list(&group["paths"]) {
            let state = state_of(path);
            counts[state].1 += 1;
            let labels = [("map", name), ("device", path["dev"].as_str().unwrap_or_default())];
            columns.flag("petrel_multipath_path_up", &labels, state != DOWN);
        }
    }
    for (state, count) in counts {
        columns.push("petrel_multipath_paths", &[("map", name), ("state", state)], f64::from(count));
    }
}

/// Places in the counts of a map's paths.
const UP: usize = 0;
const DOWN: usize = 1;
const OTHER: usize = 2;

/// The kernel's state of a path and its checker's must both be good: ready, or ghost for the passive half of an array.
fn state_of(path: &Value) -> usize {
    match (path["dm_st"].as_str(), path["chk_st"].as_str()) {
        (Some("active"), Some("ready" | "ghost")) => UP,
        (Some("failed"), _) | (_, Some("faulty" | "shaky" | "removed" | "timeout")) => DOWN,
        _ => OTHER,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// All that is read here, from one text, whatever it is: for fuzzing.
pub(super) fn hostile(text: &str) {
    let _ = read(text, &mut Columns::new(&COLUMNS));
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lost_path_is_told() {
        let mut columns = Columns::new(&COLUMNS);
        read(include_str!("../../../testdata/multipath/maps.json"), &mut columns).unwrap();
        expect![[r#"
            petrel_multipath_paths{map="mpatha",state="up"} 1
            petrel_multipath_paths{map="mpatha",state="down"} 1
            petrel_multipath_paths{map="mpatha",state="other"} 1
            petrel_multipath_path_up{map="mpatha",device="sdb"} 1
            petrel_multipath_path_up{map="mpatha",device="sdc"} 0
            petrel_multipath_path_up{map="mpatha",device="sdd"} 1
            petrel_multipath_path_faults_total{map="mpatha"} 2
            petrel_multipath_group_switches_total{map="mpatha"} 1
            petrel_multipath_loads_total{map="mpatha"} 3
            petrel_multipath_queueing_seconds_total{map="mpatha"} 12
            petrel_multipath_queueing_timeouts_total{map="mpatha"} 0
            petrel_multipath_map_active{map="mpatha"} 1
        "#]]
        .assert_eq(&columns.samples(|_| true));
        assert!(read("timeout receiving packet", &mut Columns::new(&COLUMNS)).is_none());
    }

    #[test]
    fn maps_are_found_in_sysfs() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!has_maps(folder.path()));
        for (name, uuid) in [("dm-0", "LVM-abc"), ("dm-1", "mpath-3600")] {
            std::fs::create_dir_all(folder.path().join(name).join("dm")).unwrap();
            std::fs::write(folder.path().join(name).join("dm/uuid"), format!("{uuid}\n")).unwrap();
            assert_eq!(has_maps(folder.path()), name == "dm-1");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "(\\{|\\}|\\[|\\]|,|:|\"(maps|name|path_groups|paths|dm_st|é)\"|[0-9]|null){0,40}", inner in "\\PC{0,20}") {
            let mut columns = Columns::new(&COLUMNS);
            read(&text, &mut columns);
            let inner = Value::String(inner);
            read(&format!("{{\"maps\":[{inner},{{\"name\":{inner},\"path_groups\":[{{\"paths\":[{inner}]}}]}}]}}"), &mut columns);
        }
    }
}
