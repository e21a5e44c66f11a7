//! Corosync's own counters (`corosync-cmapctl -m stats`): how well each link reaches each node, and how near the token came
//! to being lost. No other exporter has these; a lost token is how a cluster falls apart. Pure.

use crate::collect::Kind::{Counter, Gauge};
use crate::collect::columns::{Column, Columns};

const COLUMNS: [Column; 14] = [
    ("petrel_corosync_link_connected", Gauge, "Whether the link reaches the node."),
    ("petrel_corosync_link_down_total", Counter, "Times that the link to the node went down."),
    ("petrel_corosync_link_latency_seconds", Gauge, "Average time of a ping to the node over the link."),
    ("petrel_corosync_link_latency_max_seconds", Gauge, "Longest time of a ping to the node over the link so far."),
    (
        "petrel_corosync_link_transmit_errors_total",
        Counter,
        "Packets that could not be sent to the node over the link.",
    ),
    ("petrel_corosync_link_transmit_retries_total", Counter, "Packets that were sent to the node over the link again."),
    ("petrel_corosync_token_lost_total", Counter, "Tokens lost, by the state in which the ring was."),
    ("petrel_corosync_token_age_seconds", Gauge, "Time since the token was last here."),
    ("petrel_corosync_token_timeout_seconds", Gauge, "After this time without the token the ring is formed anew."),
    ("petrel_corosync_token_rotation_seconds", Gauge, "Mean time of a round of the token lately."),
    ("petrel_corosync_memberships_total", Counter, "Times that a ring was formed."),
    ("petrel_corosync_consensus_timeouts_total", Counter, "Times that nodes did not agree on a membership in time."),
    ("petrel_corosync_retransmits_total", Counter, "Messages that were sent to the ring again."),
    ("petrel_corosync_network_blocked", Gauge, "Whether a firewall or a failed interface keeps a ring from forming."),
];

/// The end of a key below `stats.knet.nodeN.linkM.`, its family, and the factor to the base unit. Times are in microseconds.
const LINK: [(&str, &str, f64); 6] = [
    ("connected", "petrel_corosync_link_connected", 1.0),
    ("down_count", "petrel_corosync_link_down_total", 1.0),
    ("latency_ave", "petrel_corosync_link_latency_seconds", 1e-6),
    ("latency_max", "petrel_corosync_link_latency_max_seconds", 1e-6),
    ("tx_total_errors", "petrel_corosync_link_transmit_errors_total", 1.0),
    ("tx_data_retries", "petrel_corosync_link_transmit_retries_total", 1.0),
];

/// The same below `stats.srp.`, without labels. Times are in milliseconds.
const RING: [(&str, &str, f64); 6] = [
    ("time_since_token_last_received", "petrel_corosync_token_age_seconds", 1e-3),
    ("mtt_rx_token", "petrel_corosync_token_rotation_seconds", 1e-3),
    ("operational_entered", "petrel_corosync_memberships_total", 1.0),
    ("consensus_timeouts", "petrel_corosync_consensus_timeouts_total", 1.0),
    ("mcast_retx", "petrel_corosync_retransmits_total", 1.0),
    ("firewall_enabled_or_nic_failure", "petrel_corosync_network_blocked", 1.0),
];

/// Reads the counters and the settings that are in force. The link of the node to itself is left out.
pub(super) fn read(stats: &str, totem: &str, own_node: &str) -> Columns {
    let mut columns = Columns::new(&COLUMNS);
    for (key, value) in stats.lines().filter_map(pair) {
        if let Some(key) = key.strip_prefix("stats.srp.") {
            if let Some(state) = key.strip_suffix("_token_lost") {
                columns.push("petrel_corosync_token_lost_total", &[("state", state)], value);
            } else if let Some((_, name, factor)) = RING.iter().find(|(end, ..)| *end == key) {
                columns.push(name, &[], scaled(value, *factor));
            }
        } else if let Some((node, link, end)) = link(key) {
            let family = LINK.iter().find(|(name, ..)| *name == end);
            if let Some((_, name, factor)) = family.filter(|_| node != own_node) {
                columns.push(name, &[("node_id", node), ("link", link)], scaled(value, *factor));
            }
        }
    }
    let timeout = totem.lines().filter_map(pair).find(|(key, _)| *key == "runtime.config.totem.token");
    if let Some((_, milliseconds)) = timeout {
        columns.push("petrel_corosync_token_timeout_seconds", &[], scaled(milliseconds, 1e-3));
    }
    columns
}

/// Divides rather than multiplies: 137 µs is 0.000137 s, not 0.00013699999999999998.
fn scaled(value: f64, factor: f64) -> f64 {
    value / factor.recip().round()
}

/// `stats.srp.mcast_rx (u64) = 127`; strings and what is no number are left out.
fn pair(line: &str) -> Option<(&str, f64)> {
    let (key, value) = line.split_once(" = ")?;
    let (key, _kind) = key.split_once(" (")?;
    Some((key, value.trim().parse().ok()?))
}

/// `stats.knet.node2.link0.latency_ave`: node, link and the rest.
fn link(key: &str) -> Option<(&str, &str, &str)> {
    let (node, rest) = key.strip_prefix("stats.knet.node")?.split_once(".link")?;
    let (link, end) = rest.split_once('.')?;
    Some((node, link, end))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn links_and_token_are_told() {
        let columns = read(
            include_str!("../../../testdata/corosync/cmapctl-stats-cut-off.txt"),
            include_str!("../../../testdata/corosync/cmapctl-totem.txt"),
            "1",
        );
        let text = columns.render();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        expect![[r#"
            petrel_corosync_link_connected{node_id="2",link="0"} 0
            petrel_corosync_link_connected{node_id="3",link="0"} 0
            petrel_corosync_link_down_total{node_id="2",link="0"} 2
            petrel_corosync_link_down_total{node_id="3",link="0"} 2
            petrel_corosync_link_latency_seconds{node_id="2",link="0"} 0.000098
            petrel_corosync_link_latency_seconds{node_id="3",link="0"} 0.000181
            petrel_corosync_link_latency_max_seconds{node_id="2",link="0"} 0.0002
            petrel_corosync_link_latency_max_seconds{node_id="3",link="0"} 0.000407
            petrel_corosync_link_transmit_errors_total{node_id="2",link="0"} 0
            petrel_corosync_link_transmit_errors_total{node_id="3",link="0"} 0
            petrel_corosync_link_transmit_retries_total{node_id="2",link="0"} 1
            petrel_corosync_link_transmit_retries_total{node_id="3",link="0"} 0
            petrel_corosync_token_lost_total{state="commit"} 0
            petrel_corosync_token_lost_total{state="gather"} 0
            petrel_corosync_token_lost_total{state="operational"} 1
            petrel_corosync_token_lost_total{state="recovery"} 0
            petrel_corosync_token_age_seconds 0.12
            petrel_corosync_token_timeout_seconds 1.65
            petrel_corosync_token_rotation_seconds 0.012
            petrel_corosync_memberships_total 4
            petrel_corosync_consensus_timeouts_total 1
            petrel_corosync_retransmits_total 0
            petrel_corosync_network_blocked 0
        "#]]
        .assert_eq(&(samples.join("\n") + "\n"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "((stats\\.|srp\\.|knet\\.|node|link|[0-9.= ()\né]){0,12} \\(u8\\) = [0-9]{0,3}\n){0,4}", noise in "\\PC{0,60}") {
            drop(read(&text, &noise, "1"));
            drop(read(&noise, &text, ""));
        }
    }
}
