//! Corosync's quorum and rings, asked by its own tools: ha_cluster_exporter's families. The links and the token are in
//! `corosync_stats`. It only asks.

use std::path::PathBuf;
use std::time::Duration;

use super::corosync_stats;
use crate::collect::Kind::Gauge;
use crate::collect::asked::{ask, present, refused};
use crate::collect::columns::{Column, Columns};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// The membership layer of the cluster.
pub(super) struct Corosync {
    config: PathBuf,
}

/// On a cluster of three, ha_cluster_exporter's reading of two of the four tools took 28 ms.
const EVERY: Duration = Duration::from_secs(15);
const WITHIN: Duration = Duration::from_secs(5);
const QUORUM: [&str; 1] = ["-p"];

const COLUMNS: [Column; 6] = [
    ("ha_cluster_corosync_quorate", Gauge, "Whether or not the cluster is quorate"),
    ("ha_cluster_corosync_rings", Gauge, "The status of each Corosync ring; 1 means healthy, 0 means faulty."),
    ("ha_cluster_corosync_ring_errors", Gauge, "The total number of faulty corosync rings"),
    (
        "ha_cluster_corosync_member_votes",
        Gauge,
        "How many votes each member node has contributed with to the current quorum",
    ),
    ("ha_cluster_corosync_quorum_votes", Gauge, "Cluster quorum votes; one line per type"),
    ("petrel_corosync_connected", Gauge, "Whether Corosync on this host answers."),
];

impl Corosync {
    pub(super) fn new(roots: &Roots) -> Corosync {
        Corosync { config: roots.rootfs.join("etc/corosync/corosync.conf") }
    }
}

impl Collector for Corosync {
    fn name(&self) -> &'static str {
        "corosync"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        present(&self.config)?;
        let mut columns = Columns::new(&COLUMNS);
        // Its exit code says whether there is quorum, so it is no sign of an error.
        let said = ask("corosync-quorumtool", &QUORUM, WITHIN)?;
        let membership = read_membership(&said.out, &mut columns);
        columns.flag("petrel_corosync_connected", &[], membership.is_some());
        let Some(membership) = membership else {
            let not_running = said.out.trim().is_empty() || said.out.starts_with("Cannot initialize");
            columns.append_to(families)?;
            return if not_running { Ok(()) } else { Err(refused("corosync-quorumtool", &QUORUM, &said)) };
        };
        let rings = ask("corosync-cfgtool", &["-s"], WITHIN)?;
        read_rings(&rings.out, &membership, &mut columns);
        columns.append_to(families)?;
        let stats = ask("corosync-cmapctl", &["-m", "stats"], WITHIN)?;
        let totem = ask("corosync-cmapctl", &["runtime.config.totem."], WITHIN)?;
        corosync_stats::read(&stats.out, &totem.out, &membership.node_id).append_to(families)
    }
}

/// Which node this is, in which ring.
#[derive(Debug, Default)]
struct Membership {
    node_id: String,
    ring_id: String,
}

/// Reads `corosync-quorumtool -p`; `None` when it says nothing of a quorum.
fn read_membership(text: &str, columns: &mut Columns) -> Option<Membership> {
    let mut membership = Membership::default();
    let (mut is_known, mut in_members) = (false, false);
    for line in text.lines() {
        let line = line.trim();
        if in_members {
            read_member(line, columns);
        } else if line.starts_with("Nodeid") {
            in_members = true;
        }
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key {
            "Node ID" => value.clone_into(&mut membership.node_id),
            "Ring ID" => value.clone_into(&mut membership.ring_id),
            "Quorate" => {
                is_known = true;
                columns.flag("ha_cluster_corosync_quorate", &[], value == "Yes");
            }
            "Expected votes" => push_votes("expected_votes", value, columns),
            "Highest expected" => push_votes("highest_expected", value, columns),
            "Total votes" => push_votes("total_votes", value, columns),
            "Quorum" => push_votes("quorum", value, columns),
            _ => {}
        }
    }
    is_known.then_some(membership)
}

/// `2 Activity blocked` is two.
fn push_votes(kind: &str, value: &str, columns: &mut Columns) {
    if let Some(votes) = value.split_ascii_whitespace().next().and_then(|word| word.parse().ok()) {
        columns.push("ha_cluster_corosync_quorum_votes", &[("type", kind)], votes);
    }
}

/// `1  1  NR h1 (local)`: id, votes, perhaps what the quorum device says, name.
fn read_member(line: &str, columns: &mut Columns) {
    let (row, local) = line.strip_suffix("(local)").map_or((line, "false"), |row| (row, "true"));
    let mut words = row.split_ascii_whitespace();
    let (Some(id), Some(votes)) = (words.next(), words.next()) else { return };
    if let (Some(name), Ok(votes)) = (words.last(), votes.parse()) {
        let labels = [("node_id", id), ("node", name), ("local", local)];
        columns.push("ha_cluster_corosync_member_votes", &labels, votes);
    }
}

/// Reads `corosync-cfgtool -s`: `RING ID 0` with an `id` and one status (Corosync 2), `LINK ID 0 udp` with an `addr` and one
/// status for each node (Corosync 3). A link that does not reach a node is faulty, also when the node is down.
fn read_rings(text: &str, membership: &Membership, columns: &mut Columns) {
    let mut rings: Vec<(&str, &str, bool)> = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        let begin = ["RING ID ", "LINK ID ", "Link ID "].iter().find_map(|begin| line.strip_prefix(begin));
        if let Some(rest) = begin {
            rings.push((rest.split_ascii_whitespace().next().unwrap_or_default(), "", false));
        } else if let Some((_, address, faulty)) = rings.last_mut() {
            match line.split_once('=') {
                Some((key, value)) if matches!(key.trim(), "id" | "addr") => *address = value.trim(),
                _ => *faulty |= ["FAULTY", "disconnected", "connected:0"].iter().any(|word| line.contains(word)),
            }
        }
    }
    for (number, address, faulty) in &rings {
        let labels = [
            ("ring_id", membership.ring_id.as_str()),
            ("node_id", &membership.node_id),
            ("number", number),
            ("address", address),
        ];
        columns.flag("ha_cluster_corosync_rings", &labels, !faulty);
    }
    let faulty = rings.iter().filter(|(_, _, faulty)| *faulty).count();
    columns.push("ha_cluster_corosync_ring_errors", &[], faulty as f64);
}

/// All that is read here, from one text, whatever it is: for fuzzing.
pub(super) fn hostile(text: &str) {
    let mut columns = Columns::new(&COLUMNS);
    let membership = read_membership(text, &mut columns).unwrap_or_default();
    read_rings(text, &membership, &mut columns);
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::super::peer::assert_covers;
    use super::*;

    fn said(quorum: &str, rings: &str) -> String {
        let mut columns = Columns::new(&COLUMNS);
        let membership = read_membership(quorum, &mut columns);
        if let Some(membership) = &membership {
            read_rings(rings, membership, &mut columns);
        }
        columns.render()
    }

    fn check(quorum: &str, rings: &str, expected: &Expect) {
        let text = said(quorum, rings);
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        expected.assert_eq(&(samples.join("\n") + "\n"));
    }

    #[test]
    fn every_series_of_the_usual_exporter_is_there() {
        let ours = said(
            include_str!("../../../testdata/corosync/quorumtool.txt"),
            include_str!("../../../testdata/corosync/cfgtool.txt"),
        );
        // It does not know this Corosync's links, and so finds none of them faulty.
        let theirs = include_str!("../../../testdata/corosync/exporter.prom").replace("ring_errors 0", "ring_errors 1");
        assert_covers(&ours, &theirs);
    }

    #[test]
    fn a_part_without_quorum_is_told() {
        check(
            include_str!("../../../testdata/corosync/quorumtool-cut-off.txt"),
            include_str!("../../../testdata/corosync/cfgtool-cut-off.txt"),
            &expect![[r#"
                ha_cluster_corosync_quorate 0
                ha_cluster_corosync_rings{ring_id="1.11",node_id="1",number="0",address="10.77.0.1"} 0
                ha_cluster_corosync_ring_errors 1
                ha_cluster_corosync_member_votes{node_id="1",node="h1",local="true"} 1
                ha_cluster_corosync_quorum_votes{type="expected_votes"} 3
                ha_cluster_corosync_quorum_votes{type="highest_expected"} 3
                ha_cluster_corosync_quorum_votes{type="total_votes"} 1
                ha_cluster_corosync_quorum_votes{type="quorum"} 2
            "#]],
        );
    }

    #[test]
    fn older_forms_and_a_quorum_device_are_read() {
        check(
            "Node ID: 1084780051\nRing ID: 1084780051/44\nQuorate: Yes\nNodeid  Votes Qdevice Name\n  1  1 A,V,NMW nfs01 (local)\n  2  1 A,V,NMW nfs02\n  0  1  Qdevice\n",
            "RING ID 0\n\tid\t= 10.0.0.1\n\tstatus\t= ring 0 active with no faults\nRING ID 1\n\tid\t= 10.1.0.1\n\tstatus\t= Marking ringid 1 interface 10.1.0.1 FAULTY\n",
            &expect![[r#"
                ha_cluster_corosync_quorate 1
                ha_cluster_corosync_rings{ring_id="1084780051/44",node_id="1084780051",number="0",address="10.0.0.1"} 1
                ha_cluster_corosync_rings{ring_id="1084780051/44",node_id="1084780051",number="1",address="10.1.0.1"} 0
                ha_cluster_corosync_ring_errors 1
                ha_cluster_corosync_member_votes{node_id="1",node="nfs01",local="true"} 1
                ha_cluster_corosync_member_votes{node_id="2",node="nfs02",local="false"} 1
                ha_cluster_corosync_member_votes{node_id="0",node="Qdevice",local="false"} 1
            "#]],
        );
        assert_eq!(said("Cannot initialize CMAP service\n", ""), "");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(quorum in "(Quorate|Nodeid|Quorum|[:0-9A-Za-z \n()é.]){0,40}", rings in "(RING ID |LINK ID |addr|=|[a-z0-9 \n\té]){0,40}") {
            drop(said(&format!("{quorum}\nQuorate: Yes"), &rings));
        }
    }
}
