//! `/proc/drbd` of DRBD 8.4, as the families that ha_cluster_exporter has of DRBD 9. Pure.

use std::collections::BTreeMap;

use super::drbd::push_connection_state;
use crate::collect::columns::Columns;

/// 8.4 has one peer, which it calls nothing; its own newer tools call it 0.
const PEER: &str = "0";

/// A device as far as it is read.
#[derive(Debug, Default)]
struct Device<'a> {
    minor: &'a str,
    /// `cs:Connected`.
    connection: &'a str,
    /// `ro:Primary/Secondary`, ours and the peer's.
    roles: (&'a str, &'a str),
    /// `ds:UpToDate/Inconsistent`.
    disks: (&'a str, &'a str),
    /// `ns:288 nr:0 …`.
    counters: BTreeMap<&'a str, f64>,
    /// `sync'ed: 25.0%`.
    percent: Option<f64>,
}

/// Reads all devices. `names` gives the resource and volume of a minor number; one without a name is called by its device.
pub(super) fn read(text: &str, names: &BTreeMap<String, (String, String)>, columns: &mut Columns) {
    let mut devices: Vec<Device<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(device) = first_line(line) {
            devices.push(device);
        } else if let Some(device) = devices.last_mut() {
            if let Some((_, rest)) = line.split_once("sync'ed:") {
                device.percent = rest.trim_start().split('%').next().and_then(|number| number.parse().ok());
            } else {
                device.counters.extend(words(line).filter_map(|(key, value)| Some((key, value.parse().ok()?))));
            }
        }
    }
    for device in devices.iter().filter(|device| device.connection != "Unconfigured") {
        let unnamed = (format!("drbd{}", device.minor), "0".to_owned());
        push(device, names.get(device.minor).unwrap_or(&unnamed), columns);
    }
}

/// ` 0: cs:Connected ro:Primary/Secondary ds:UpToDate/UpToDate C r-----`.
fn first_line(line: &str) -> Option<Device<'_>> {
    let (minor, rest) = line.trim_start().split_once(": ")?;
    if minor.is_empty() || !minor.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut device = Device { minor, ..Device::default() };
    for (key, value) in words(rest) {
        let pair = value.split_once('/').unwrap_or((value, ""));
        match key {
            "cs" => device.connection = value,
            "ro" => device.roles = pair,
            "ds" => device.disks = pair,
            _ => {}
        }
    }
    Some(device)
}

fn words(line: &str) -> impl Iterator<Item = (&str, &str)> {
    line.split_ascii_whitespace().filter_map(|word| word.split_once(':'))
}

fn push(device: &Device<'_>, (resource, volume): &(String, String), columns: &mut Columns) {
    let (disk, peer_disk) = (device.disks.0.to_lowercase(), device.disks.1.to_lowercase());
    let labels = [("resource", resource.as_str()), ("role", device.roles.0), ("volume", volume), ("disk_state", &disk)];
    columns.push("ha_cluster_drbd_resources", &labels, 1.0);
    let labels = [
        ("resource", resource.as_str()),
        ("peer_node_id", PEER),
        ("peer_role", device.roles.1),
        ("volume", volume),
        ("peer_disk_state", &peer_disk),
    ];
    columns.push("ha_cluster_drbd_connections", &labels, 1.0);
    push_connection_state(resource, PEER, device.connection, columns);
    let own = [("resource", resource.as_str()), ("volume", volume.as_str())];
    let peer = [("resource", resource.as_str()), ("peer_node_id", PEER), ("volume", volume)];
    for (key, name, factor, labels) in [
        ("dw", "ha_cluster_drbd_written", 1.0, &own[..]),
        ("dr", "ha_cluster_drbd_read", 1.0, &own),
        ("al", "ha_cluster_drbd_al_writes", 1.0, &own),
        ("bm", "ha_cluster_drbd_bm_writes", 1.0, &own),
        ("ap", "ha_cluster_drbd_upper_pending", 1.0, &own),
        ("lo", "ha_cluster_drbd_lower_pending", 1.0, &own),
        ("nr", "ha_cluster_drbd_connections_received", 1.0, &peer),
        ("ns", "ha_cluster_drbd_connections_sent", 1.0, &peer),
        ("pe", "ha_cluster_drbd_connections_pending", 1.0, &peer),
        ("ua", "ha_cluster_drbd_connections_unacked", 1.0, &peer),
        ("oos", "petrel_drbd_out_of_sync_bytes", 1024.0, &peer),
    ] {
        if let Some(value) = device.counters.get(key) {
            columns.push(name, labels, value * factor);
        }
    }
    // Without a synchronization the text has no share; nothing out of sync is all of it.
    let whole = || (device.counters.get("oos") == Some(&0.0)).then_some(100.0);
    if let Some(percent) = device.percent.or_else(whole) {
        columns.push("ha_cluster_drbd_connections_sync", &peer, percent);
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::drbd::COLUMNS;
    use super::*;

    fn said(text: &str) -> String {
        let names = [("0".to_owned(), ("r0".to_owned(), "0".to_owned()))].into();
        let mut columns = Columns::new(&COLUMNS);
        read(text, &names, &mut columns);
        columns.samples(|_| true)
    }

    #[test]
    fn a_volume_that_synchronizes() {
        expect![[r#"
            ha_cluster_drbd_resources{resource="r0",role="Primary",volume="0",disk_state="uptodate"} 1
            ha_cluster_drbd_written{resource="r0",volume="0"} 0
            ha_cluster_drbd_read{resource="r0",volume="0"} 288
            ha_cluster_drbd_al_writes{resource="r0",volume="0"} 8
            ha_cluster_drbd_bm_writes{resource="r0",volume="0"} 0
            ha_cluster_drbd_upper_pending{resource="r0",volume="0"} 0
            ha_cluster_drbd_lower_pending{resource="r0",volume="0"} 0
            ha_cluster_drbd_connections{resource="r0",peer_node_id="0",peer_role="Secondary",volume="0",peer_disk_state="inconsistent"} 1
            ha_cluster_drbd_connections_sync{resource="r0",peer_node_id="0",volume="0"} 25
            ha_cluster_drbd_connections_received{resource="r0",peer_node_id="0",volume="0"} 0
            ha_cluster_drbd_connections_sent{resource="r0",peer_node_id="0",volume="0"} 288
            ha_cluster_drbd_connections_pending{resource="r0",peer_node_id="0",volume="0"} 0
            ha_cluster_drbd_connections_unacked{resource="r0",peer_node_id="0",volume="0"} 0
            petrel_drbd_connected{resource="r0",peer_node_id="0"} 1
            petrel_drbd_connection_state{resource="r0",peer_node_id="0",state="SyncSource"} 1
            petrel_drbd_out_of_sync_bytes{resource="r0",peer_node_id="0",volume="0"} 16441344
        "#]].assert_eq(&said(include_str!("../../../testdata/drbd/proc-syncing.txt")));
    }

    #[test]
    fn connected_alone_and_unnamed() {
        let connected = said(include_str!("../../../testdata/drbd/proc-connected.txt"));
        assert!(
            connected.contains("connections_sync{resource=\"r0\",peer_node_id=\"0\",volume=\"0\"} 100\n"),
            "{connected}"
        );
        let alone = said(include_str!("../../../testdata/drbd/proc-alone.txt"));
        assert!(alone.contains("petrel_drbd_connected{resource=\"r0\",peer_node_id=\"0\"} 0\n"), "{alone}");
        let unnamed =
            said("version: 8.4.11\n 0: cs:Unconfigured\n 3: cs:StandAlone ro:Primary/Unknown ds:UpToDate/DUnknown\n");
        assert!(unnamed.contains("state{resource=\"drbd3\",peer_node_id=\"0\",state=\"StandAlone\"} 1\n"), "{unnamed}");
        assert!(!unnamed.contains("drbd0"), "{unnamed}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "(( [0-9]+: cs:|ro:|ds:|sync'ed:|oos:|[A-Za-z/%.0-9é]{1,5}|\\PC)[ \n]?){0,30}") {
            drop(said(&text));
        }
    }
}
