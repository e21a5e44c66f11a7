//! DRBD: disks mirrored between hosts, with ha_cluster_exporter's names. DRBD 9 is asked by `drbdsetup`; 8.4 has its state in
//! `/proc/drbd`, which `drbd_text` reads. Nothing is changed from here.
//! The reading of version 9 follows LINBIT's documentation of `drbdsetup status --json` and was not tried on a real DRBD 9.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::drbd_text;
use crate::collect::Kind::Gauge;
use crate::collect::asked::{ask, present, refused};
use crate::collect::columns::{Column, Columns};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Replicated block devices.
pub(super) struct Drbd {
    state: PathBuf,
    /// Links from resources to devices, made by udev.
    by_resource: PathBuf,
    split_brain: PathBuf,
}

const EVERY: Duration = Duration::from_secs(15);
const WITHIN: Duration = Duration::from_secs(5);
const STATUS: [&str; 2] = ["status", "--json"];
/// `/proc/drbd` has some 300 bytes for each device, the JSON some 1,000.
const STATE_BYTES_MAX: usize = 4 << 20;

pub(super) const COLUMNS: [Column; 18] = [
    ("ha_cluster_drbd_resources", Gauge, "The DRBD resources; 1 line per name, per volume"),
    ("ha_cluster_drbd_written", Gauge, "KiB written to DRBD; 1 line per res, per volume"),
    ("ha_cluster_drbd_read", Gauge, "KiB read from DRBD; 1 line per res, per volume"),
    ("ha_cluster_drbd_al_writes", Gauge, "Writes to activity log; 1 line per res, per volume"),
    ("ha_cluster_drbd_bm_writes", Gauge, "Writes to bitmap; 1 line per res, per volume"),
    ("ha_cluster_drbd_upper_pending", Gauge, "Upper pending; 1 line per res, per volume"),
    ("ha_cluster_drbd_lower_pending", Gauge, "Lower pending; 1 line per res, per volume"),
    ("ha_cluster_drbd_quorum", Gauge, "Quorum status per resource and per volume"),
    ("ha_cluster_drbd_connections", Gauge, "The DRBD resource connections; 1 line per per resource, per peer_node_id"),
    ("ha_cluster_drbd_connections_sync", Gauge, "The in sync percentage value for DRBD resource connections"),
    ("ha_cluster_drbd_connections_received", Gauge, "KiB received per connection"),
    ("ha_cluster_drbd_connections_sent", Gauge, "KiB sent per connection"),
    ("ha_cluster_drbd_connections_pending", Gauge, "Pending value per connection"),
    ("ha_cluster_drbd_connections_unacked", Gauge, "Unacked value per connection"),
    ("ha_cluster_drbd_split_brain", Gauge, "Whether a split brain has been detected; 1 line per resource, per volume."),
    ("petrel_drbd_connected", Gauge, "Whether the resource is connected to the peer."),
    (
        "petrel_drbd_connection_state",
        Gauge,
        "The state of the resource's connection to the peer; the value is always 1.",
    ),
    ("petrel_drbd_out_of_sync_bytes", Gauge, "What the peer's copy of the volume lacks."),
];

impl Drbd {
    pub(super) fn new(roots: &Roots) -> Drbd {
        Drbd {
            state: roots.procfs.join("drbd"),
            by_resource: roots.rootfs.join("dev/drbd/by-res"),
            split_brain: roots.rootfs.join("run/drbd/splitbrain"),
        }
    }
}

impl Collector for Drbd {
    fn name(&self) -> &'static str {
        "drbd_cluster"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        present(&self.state)?;
        let text =
            std::fs::read(&self.state).map_err(|source| CollectError::Read { path: self.state.clone(), source })?;
        let text = String::from_utf8_lossy(&text[..text.len().min(STATE_BYTES_MAX)]);
        let mut columns = Columns::new(&COLUMNS);
        for name in file_names(&self.split_brain) {
            push_split_brain(&name, &mut columns);
        }
        let read_well = if text.starts_with("version: 8") {
            drbd_text::read(&text, &names_by_minor(&self.by_resource), &mut columns);
            Ok(())
        } else {
            let said = ask("drbdsetup", &STATUS, WITHIN)?;
            read_json(&said.out, &mut columns).ok_or_else(|| refused("drbdsetup", &STATUS, &said))
        };
        columns.append_to(families)?;
        read_well
    }
}

/// Which resource and volume a device is: `by-res/r0 -> ../../drbd0`, or `by-res/r0/0 -> ../../../drbd0`.
fn names_by_minor(folder: &Path) -> BTreeMap<String, (String, String)> {
    let minor = |link: &Path| {
        let target = std::fs::read_link(link).ok()?;
        Some(target.file_name()?.to_str()?.strip_prefix("drbd")?.to_owned())
    };
    let mut names = BTreeMap::new();
    for resource in file_names(folder) {
        let path = folder.join(&resource);
        if let Some(minor) = minor(&path) {
            names.insert(minor, (resource, "0".to_owned()));
            continue;
        }
        for volume in file_names(&path) {
            if let Some(minor) = minor(&path.join(&volume)) {
                names.insert(minor, (resource.clone(), volume));
            }
        }
    }
    names
}

/// Names in a folder that may not be there, sorted; more than a host can have are left out.
fn file_names(folder: &Path) -> Vec<String> {
    const NAMES_MAX: usize = 10_000;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().take(NAMES_MAX);
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// The usual split-brain handler leaves a file `drbd-split-brain-detected-RESOURCE-VOLUME`.
fn push_split_brain(file: &str, columns: &mut Columns) {
    let names = file.strip_prefix("drbd-split-brain-detected-").and_then(|rest| rest.rsplit_once('-'));
    if let Some((resource, volume)) = names {
        columns.push("ha_cluster_drbd_split_brain", &[("resource", resource), ("volume", volume)], 1.0);
    }
}

/// Reads `drbdsetup status --json`: resources with devices and connections. `None` for what is no list.
fn read_json(text: &str, columns: &mut Columns) -> Option<()> {
    if text.len() > STATE_BYTES_MAX {
        return None;
    }
    let resources: Vec<Value> = serde_json::from_str(text).ok()?;
    for resource in &resources {
        let name = resource["name"].as_str().unwrap_or_default();
        for device in list(&resource["devices"]) {
            push_device(name, resource["role"].as_str().unwrap_or_default(), device, columns);
        }
        for connection in list(&resource["connections"]) {
            push_connection(name, connection, columns);
        }
    }
    Some(())
}

fn push_device(resource: &str, role: &str, device: &Value, columns: &mut Columns) {
    let volume = device["volume"].to_string();
    let disk = device["disk-state"].as_str().unwrap_or_default().to_lowercase();
    let labels = [("resource", resource), ("role", role), ("volume", &volume), ("disk_state", &disk)];
    columns.push("ha_cluster_drbd_resources", &labels, 1.0);
    let labels = [("resource", resource), ("volume", volume.as_str())];
    for (key, name) in [
        ("written", "ha_cluster_drbd_written"),
        ("read", "ha_cluster_drbd_read"),
        ("al-writes", "ha_cluster_drbd_al_writes"),
        ("bm-writes", "ha_cluster_drbd_bm_writes"),
        ("upper-pending", "ha_cluster_drbd_upper_pending"),
        ("lower-pending", "ha_cluster_drbd_lower_pending"),
    ] {
        if let Some(value) = device[key].as_f64() {
            columns.push(name, &labels, value);
        }
    }
    if let Some(quorum) = device["quorum"].as_bool() {
        columns.flag("ha_cluster_drbd_quorum", &labels, quorum);
    }
}

fn push_connection(resource: &str, connection: &Value, columns: &mut Columns) {
    let peer = connection["peer-node-id"].to_string();
    if let Some(state) = connection["connection-state"].as_str() {
        push_connection_state(resource, &peer, state, columns);
    }
    let role = connection["peer-role"].as_str().unwrap_or_default();
    for device in list(&connection["peer_devices"]) {
        let volume = device["volume"].to_string();
        let disk = device["peer-disk-state"].as_str().unwrap_or_default().to_lowercase();
        let labels = [
            ("resource", resource),
            ("peer_node_id", &peer),
            ("peer_role", role),
            ("volume", &volume),
            ("peer_disk_state", &disk),
        ];
        columns.push("ha_cluster_drbd_connections", &labels, 1.0);
        let labels = [("resource", resource), ("peer_node_id", &peer), ("volume", &volume)];
        for (key, name, factor) in [
            ("percent-in-sync", "ha_cluster_drbd_connections_sync", 1.0),
            ("received", "ha_cluster_drbd_connections_received", 1.0),
            ("sent", "ha_cluster_drbd_connections_sent", 1.0),
            ("pending", "ha_cluster_drbd_connections_pending", 1.0),
            ("unacked", "ha_cluster_drbd_connections_unacked", 1.0),
            ("out-of-sync", "petrel_drbd_out_of_sync_bytes", 1024.0),
        ] {
            if let Some(value) = device[key].as_f64() {
                columns.push(name, &labels, value * factor);
            }
        }
    }
}

/// Adds the state of a connection. 8.4 has what the connection does in the same word: all but these mean that there is one.
pub(super) fn push_connection_state(resource: &str, peer: &str, state: &str, columns: &mut Columns) {
    const APART: [&str; 12] = [
        "StandAlone",
        "Disconnecting",
        "Unconnected",
        "Timeout",
        "BrokenPipe",
        "NetworkFailure",
        "ProtocolError",
        "TearDown",
        "Connecting",
        "WFConnection",
        "WFReportParams",
        "Unconfigured",
    ];
    let labels = [("resource", resource), ("peer_node_id", peer)];
    columns.flag("petrel_drbd_connected", &labels, !APART.contains(&state));
    let labels = [("resource", resource), ("peer_node_id", peer), ("state", state)];
    columns.push("petrel_drbd_connection_state", &labels, 1.0);
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// All that is read here, from one text, whatever it is: for fuzzing.
pub(super) fn hostile(text: &str) {
    let mut columns = Columns::new(&COLUMNS);
    let _ = read_json(text, &mut columns);
    super::drbd_text::read(text, &BTreeMap::new(), &mut columns);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn version_9_is_read_after_its_documentation() {
        let mut columns = Columns::new(&COLUMNS);
        read_json(include_str!("../../../testdata/drbd/status-9.json"), &mut columns).unwrap();
        push_split_brain("drbd-split-brain-detected-web-data-0", &mut columns);
        push_split_brain("other", &mut columns);
        expect![[r#"
            ha_cluster_drbd_resources{resource="web",role="Primary",volume="0",disk_state="uptodate"} 1
            ha_cluster_drbd_written{resource="web",volume="0"} 4096
            ha_cluster_drbd_read{resource="web",volume="0"} 8192
            ha_cluster_drbd_al_writes{resource="web",volume="0"} 12
            ha_cluster_drbd_bm_writes{resource="web",volume="0"} 3
            ha_cluster_drbd_upper_pending{resource="web",volume="0"} 1
            ha_cluster_drbd_lower_pending{resource="web",volume="0"} 2
            ha_cluster_drbd_quorum{resource="web",volume="0"} 1
            ha_cluster_drbd_connections{resource="web",peer_node_id="1",peer_role="Secondary",volume="0",peer_disk_state="inconsistent"} 1
            ha_cluster_drbd_connections{resource="web",peer_node_id="2",peer_role="Unknown",volume="0",peer_disk_state="dunknown"} 1
            ha_cluster_drbd_connections_sync{resource="web",peer_node_id="1",volume="0"} 99.8
            ha_cluster_drbd_connections_sync{resource="web",peer_node_id="2",volume="0"} 0
            ha_cluster_drbd_connections_received{resource="web",peer_node_id="1",volume="0"} 16
            ha_cluster_drbd_connections_received{resource="web",peer_node_id="2",volume="0"} 0
            ha_cluster_drbd_connections_sent{resource="web",peer_node_id="1",volume="0"} 4096
            ha_cluster_drbd_connections_sent{resource="web",peer_node_id="2",volume="0"} 0
            ha_cluster_drbd_connections_pending{resource="web",peer_node_id="1",volume="0"} 5
            ha_cluster_drbd_connections_pending{resource="web",peer_node_id="2",volume="0"} 0
            ha_cluster_drbd_connections_unacked{resource="web",peer_node_id="1",volume="0"} 6
            ha_cluster_drbd_connections_unacked{resource="web",peer_node_id="2",volume="0"} 0
            ha_cluster_drbd_split_brain{resource="web-data",volume="0"} 1
            petrel_drbd_connected{resource="web",peer_node_id="1"} 1
            petrel_drbd_connected{resource="web",peer_node_id="2"} 0
            petrel_drbd_connection_state{resource="web",peer_node_id="1",state="Connected"} 1
            petrel_drbd_connection_state{resource="web",peer_node_id="2",state="StandAlone"} 1
            petrel_drbd_out_of_sync_bytes{resource="web",peer_node_id="1",volume="0"} 2097152
            petrel_drbd_out_of_sync_bytes{resource="web",peer_node_id="2",volume="0"} 1073741824
        "#]].assert_eq(&columns.samples(|_| true));
        assert!(read_json("status: unrecognized option '--json'", &mut Columns::new(&COLUMNS)).is_none());
    }

    #[test]
    fn resources_are_found_by_their_links() {
        let folder = tempfile::tempdir().unwrap();
        let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        std::fs::create_dir(folder.path().join("big")).unwrap();
        link("../../drbd0", "r0");
        link("../../../drbd7", "big/1");
        let pair = |resource: &str, volume: &str| (resource.to_owned(), volume.to_owned());
        let names = names_by_minor(folder.path());
        assert_eq!(names, [("0".to_owned(), pair("r0", "0")), ("7".to_owned(), pair("big", "1"))].into());
        assert!(names_by_minor(Path::new("/nonexistent")).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "(\\[|\\]|\\{|\\}|,|:|\"(name|devices|volume|connections|é)\"|[0-9]|true|null){0,40}", inner in "\\PC{0,40}") {
            let mut columns = Columns::new(&COLUMNS);
            read_json(&text, &mut columns);
            let inner = Value::String(inner);
            read_json(&format!("[{{\"name\":{inner},\"devices\":[{{\"volume\":{inner}}}],\"connections\":[{inner}]}}]"), &mut columns);
        }
    }
}
