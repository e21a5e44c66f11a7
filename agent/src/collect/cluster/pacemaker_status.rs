//! What `crm_mon` says in XML, as ha_cluster_exporter's families, with what that leaves out: quorum, fencing, failed
//! operations, node health. Pure.

use crate::collect::Kind::Gauge;
use crate::collect::columns::{Column, Columns};
use crate::collect::zone::Zone;
use crate::xml::{self, Element};

use super::moment;

const COLUMNS: [Column; 19] = [
    (
        "ha_cluster_pacemaker_nodes",
        Gauge,
        "The status of each node in the cluster; 1 means the node is in that status, 0 otherwise",
    ),
    ("ha_cluster_pacemaker_node_attributes", Gauge, "Metadata attributes of each node; value is always 1"),
    (
        "ha_cluster_pacemaker_resources",
        Gauge,
        "The status of each resource in the cluster; 1 means the resource is in that status, 0 otherwise",
    ),
    ("ha_cluster_pacemaker_stonith_enabled", Gauge, "Whether or not stonith is enabled"),
    ("ha_cluster_pacemaker_maintenance_mode_enabled", Gauge, "Whether or not cluster wide maintenance-mode is enabled"),
    ("ha_cluster_pacemaker_fail_count", Gauge, "The Fail count number per node and resource id"),
    ("ha_cluster_pacemaker_migration_threshold", Gauge, "The migration_threshold number per node and resource id"),
    // A counter for the exporter, but counters end in `_total` on the way to the server.
    ("ha_cluster_pacemaker_config_last_change", Gauge, "The timestamp of the last change of the cluster configuration"),
    ("petrel_pacemaker_connected", Gauge, "Whether the cluster manager of this host answers."),
    ("petrel_pacemaker_quorate", Gauge, "Whether this host's part of the cluster has quorum, as Pacemaker sees it."),
    ("petrel_pacemaker_dc_elected", Gauge, "Whether the cluster has a designated controller."),
    ("petrel_pacemaker_node_health", Gauge, "Health of a node: 0 green, 1 yellow, 2 red."),
    ("petrel_pacemaker_nodes_configured", Gauge, "Nodes that the cluster knows."),
    ("petrel_pacemaker_resources_configured", Gauge, "Instances of resources that are configured."),
    ("petrel_pacemaker_resources_disabled", Gauge, "Instances of resources that are configured to be stopped."),
    ("petrel_pacemaker_resources_blocked", Gauge, "Instances of resources that the cluster cannot go on with."),
    ("petrel_pacemaker_failed_operations", Gauge, "Failed operations that nobody has cleaned up, by node."),
    (
        "petrel_pacemaker_fence_events",
        Gauge,
        "Fencing operations in the cluster's history, by target, action and outcome.",
    ),
    (
        "petrel_pacemaker_fence_last_seconds",
        Gauge,
        "When the last such fencing operation ended, in seconds since the epoch.",
    ),
];

/// An attribute of a node, and what it is called in the label.
const NODE_STATUS: [(&str, &str); 9] = [
    ("online", "online"),
    ("standby", "standby"),
    ("standby_onfail", "standby_onfail"),
    ("maintenance", "maintenance"),
    ("pending", "pending"),
    ("unclean", "unclean"),
    ("shutdown", "shutdown"),
    ("expected_up", "expected_up"),
    ("is_dc", "dc"),
];
const RESOURCE_STATUS: [&str; 5] = ["active", "orphaned", "blocked", "failed", "failure_ignored"];
/// Pacemaker's infinity.
const SCORE_INFINITY: f64 = 1_000_000.0;

/// The text is not what `crm_mon` says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotUnderstood;

/// Reads one answer. That there is no cluster to talk to is an answer.
pub(super) fn read(text: &str, zone: &Zone) -> Result<Columns, NotUnderstood> {
    let roots = xml::read(text).map_err(|_| NotUnderstood)?;
    let [root] = roots.as_slice() else { return Err(NotUnderstood) };
    if !matches!(root.name.as_str(), "pacemaker-result" | "crm_mon") {
        return Err(NotUnderstood);
    }
    let mut columns = Columns::new(&COLUMNS);
    let summary = root.child("summary");
    columns.flag("petrel_pacemaker_connected", &[], summary.is_some());
    let Some(summary) = summary else {
        // The old form says nothing at all; the new one has a status that is not 0. With 0 and no summary we read a stranger.
        let code = root.child("status").and_then(|status| status.attribute("code"));
        return if code == Some("0") { Err(NotUnderstood) } else { Ok(columns) };
    };
    read_summary(summary, zone, &mut columns);
    for node in children(root, "nodes") {
        read_node(node, &mut columns);
    }
    if let Some(resources) = root.child("resources") {
        read_resources(resources, &Within::default(), &mut columns);
    }
    for node in children(root, "node_attributes") {
        for attribute in &node.children {
            let labels = [
                ("node", text_of(node, "name")),
                ("name", text_of(attribute, "name")),
                ("value", text_of(attribute, "value")),
            ];
            columns.push("ha_cluster_pacemaker_node_attributes", &labels, 1.0);
        }
    }
    read_history(root, &mut columns);
    read_failures(root, &mut columns);
    read_fencing(root, zone, &mut columns);
    Ok(columns)
}

fn read_summary(summary: &Element, zone: &Zone, columns: &mut Columns) {
    if let Some(options) = summary.child("cluster_options") {
        columns.flag("ha_cluster_pacemaker_stonith_enabled", &[], is(options, "stonith-enabled"));
        columns.flag("ha_cluster_pacemaker_maintenance_mode_enabled", &[], is(options, "maintenance-mode"));
    }
    let changed = summary.child("last_change").and_then(|change| moment::seconds(change.attribute("time")?, zone));
    if let Some(seconds) = changed {
        columns.push("ha_cluster_pacemaker_config_last_change", &[], seconds);
    }
    let dc = summary.child("current_dc");
    columns.flag("petrel_pacemaker_dc_elected", &[], dc.is_some_and(|dc| is(dc, "present")));
    columns.flag("petrel_pacemaker_quorate", &[], dc.is_some_and(|dc| is(dc, "with_quorum")));
    for (element, attribute, name) in [
        ("nodes_configured", "number", "petrel_pacemaker_nodes_configured"),
        ("resources_configured", "number", "petrel_pacemaker_resources_configured"),
        ("resources_configured", "disabled", "petrel_pacemaker_resources_disabled"),
        ("resources_configured", "blocked", "petrel_pacemaker_resources_blocked"),
    ] {
        if let Some(number) = summary.child(element).and_then(|element| number(element, attribute)) {
            columns.push(name, &[], number);
        }
    }
}

fn read_node(node: &Element, columns: &mut Columns) {
    let name = text_of(node, "name");
    for (attribute, status) in NODE_STATUS {
        let labels = [("node", name), ("type", text_of(node, "type")), ("status", status)];
        columns.flag("ha_cluster_pacemaker_nodes", &labels, is(node, attribute));
    }
    let health = match node.attribute("health") {
        Some("green") => 0.0,
        Some("yellow") => 1.0,
        Some("red") => 2.0,
        _ => return,
    };
    columns.push("petrel_pacemaker_node_health", &[("node", name)], health);
}

/// What a resource is part of.
#[derive(Debug, Clone, Copy, Default)]
struct Within<'a> {
    group: &'a str,
    clone: &'a str,
}

/// Resources, also those in groups, clones, groups in clones and bundles. As deep as the reader of XML lets it be.
fn read_resources<'a>(parent: &'a Element, within: &Within<'a>, columns: &mut Columns) {
    for element in &parent.children {
        let id = text_of(element, "id");
        match element.name.as_str() {
            "resource" => read_resource(element, within, columns),
            "group" => read_resources(element, &Within { group: id, ..*within }, columns),
            "clone" => read_resources(element, &Within { clone: id, ..*within }, columns),
            _ => read_resources(element, within, columns),
        }
    }
}

fn read_resource(resource: &Element, within: &Within<'_>, columns: &mut Columns) {
    let role = text_of(resource, "role").to_lowercase();
    let managed = if is(resource, "managed") { "true" } else { "false" };
    let on: Vec<&str> =
        resource.children.iter().filter(|child| child.name == "node").map(|node| text_of(node, "name")).collect();
    for node in if on.is_empty() { &[""] } else { on.as_slice() } {
        for status in RESOURCE_STATUS {
            let labels = [
                ("node", *node),
                ("resource", text_of(resource, "id")),
                ("role", &role),
                ("managed", managed),
                ("status", status),
                ("agent", text_of(resource, "resource_agent")),
                ("group", within.group),
                ("clone", within.clone),
            ];
            columns.flag("ha_cluster_pacemaker_resources", &labels, is(resource, status));
        }
    }
}

fn read_history(root: &Element, columns: &mut Columns) {
    for node in children(root, "node_history") {
        for history in node.children.iter().filter(|child| child.name == "resource_history") {
            let labels = [("node", text_of(node, "name")), ("resource", text_of(history, "id"))];
            let fails = match history.attribute("fail-count") {
                Some("INFINITY") => f64::INFINITY,
                Some(count) => count.parse().unwrap_or(0.0),
                None => 0.0,
            };
            let fails = if fails >= SCORE_INFINITY { f64::INFINITY } else { fails };
            columns.push("ha_cluster_pacemaker_fail_count", &labels, fails);
            if let Some(threshold) = number(history, "migration-threshold") {
                columns.push("ha_cluster_pacemaker_migration_threshold", &labels, threshold);
            }
        }
    }
}

/// Zero for nodes without failures, so that an alert ends.
fn read_failures(root: &Element, columns: &mut Columns) {
    let failures: Vec<&str> = children(root, "failures").map(|failure| text_of(failure, "node")).collect();
    for node in children(root, "nodes") {
        let name = text_of(node, "name");
        let count = failures.iter().filter(|failed| **failed == name).count();
        columns.push("petrel_pacemaker_failed_operations", &[("node", name)], count as f64);
    }
}

fn read_fencing(root: &Element, zone: &Zone, columns: &mut Columns) {
    let events: Vec<&Element> = children(root, "fence_history").filter(|event| event.name == "fence_event").collect();
    let key =
        |event: &&Element| ["target", "action", "status"].map(|name| event.attribute(name).unwrap_or("").to_owned());
    let mut keys: Vec<_> = events.iter().map(key).collect();
    keys.sort_unstable();
    keys.dedup();
    for wanted in keys {
        let same = || events.iter().filter(|event| key(event) == wanted);
        let [target, action, status] = &wanted;
        let labels = [("target", target.as_str()), ("action", action), ("status", status)];
        columns.push("petrel_pacemaker_fence_events", &labels, same().count() as f64);
        let last = same().filter_map(|event| moment::seconds(event.attribute("completed")?, zone)).reduce(f64::max);
        if let Some(seconds) = last {
            columns.push("petrel_pacemaker_fence_last_seconds", &labels, seconds);
        }
    }
}

fn children<'a>(root: &'a Element, name: &str) -> impl Iterator<Item = &'a Element> + use<'a> {
    root.child(name).into_iter().flat_map(|element| &element.children)
}

fn text_of<'a>(element: &'a Element, attribute: &str) -> &'a str {
    element.attribute(attribute).unwrap_or_default()
}

fn is(element: &Element, attribute: &str) -> bool {
    element.attribute(attribute) == Some("true")
}

fn number(element: &Element, attribute: &str) -> Option<f64> {
    element.attribute(attribute)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::peer::assert_covers;
    use super::*;

    fn said(text: &str) -> String {
        read(text, &Zone::utc()).map_or_else(|error| format!("{error:?}"), Columns::render)
    }

    /// Our own families of a text.
    fn ours(text: &str) -> String {
        read(text, &Zone::utc()).unwrap().samples(|line| line.starts_with("petrel_"))
    }

    #[test]
    fn every_series_of_the_usual_exporter_is_there() {
        let theirs = include_str!("../../../testdata/pacemaker/exporter.prom");
        let theirs: String =
            theirs.split_inclusive('\n').filter(|line| !line.contains("location_constraints")).collect();
        assert_covers(&said(include_str!("../../../testdata/pacemaker/troubled.xml")), &theirs);
    }

    #[test]
    fn fencing_and_failures_are_told() {
        expect![[r#"
            petrel_pacemaker_connected 1
            petrel_pacemaker_quorate 0
            petrel_pacemaker_dc_elected 1
            petrel_pacemaker_node_health{node="h1"} 0
            petrel_pacemaker_node_health{node="h2"} 0
            petrel_pacemaker_node_health{node="h3"} 0
            petrel_pacemaker_nodes_configured 3
            petrel_pacemaker_resources_configured 13
            petrel_pacemaker_resources_disabled 0
            petrel_pacemaker_resources_blocked 0
            petrel_pacemaker_failed_operations{node="h1"} 1
            petrel_pacemaker_failed_operations{node="h2"} 0
            petrel_pacemaker_failed_operations{node="h3"} 0
            petrel_pacemaker_fence_events{target="h2",action="off",status="failed"} 1
            petrel_pacemaker_fence_events{target="h3",action="reboot",status="success"} 1
            petrel_pacemaker_fence_last_seconds{target="h2",action="off",status="failed"} 1795386728
            petrel_pacemaker_fence_last_seconds{target="h3",action="reboot",status="success"} 1795386662
        "#]]
        .assert_eq(&ours(include_str!("../../../testdata/pacemaker/cut-off.xml")));
    }

    #[test]
    fn the_older_form_and_a_stopped_cluster_are_read() {
        let old = said(include_str!("../../../testdata/pacemaker/as-xml.xml"));
        assert!(old.contains("ha_cluster_pacemaker_nodes{node=\"h3\",type=\"member\",status=\"dc\"} 1\n"), "{old}");
        for stopped in [include_str!("../../../testdata/pacemaker/not-connected.xml"), "<crm_mon version=\"2.1.5\"/>"] {
            expect![["petrel_pacemaker_connected 0\n"]].assert_eq(&ours(stopped));
        }
        for other in
            ["", "crm_mon: unknown option", "<a/>", "<pacemaker-result><status code=\"0\"/></pacemaker-result>"]
        {
            assert_eq!(said(other), "NotUnderstood", "{other}");
        }
    }

    #[test]
    fn groups_in_clones_and_resources_on_two_nodes_are_told_apart() {
        let text = r#"<crm_mon><summary/><resources><clone id="c"><group id="g"><resource id="r" role="Migrating" managed="true" active="true">
            <node name="a"/><node name="b"/></resource></group></clone>
            <bundle id="u"><replica id="0"><resource id="s" role="Stopped"/></replica></bundle></resources></crm_mon>"#;
        let all = said(text);
        let active: Vec<&str> = all.lines().filter(|line| line.contains("status=\"active\"")).collect();
        expect![[r#"
            ha_cluster_pacemaker_resources{node="a",resource="r",role="migrating",managed="true",status="active",agent="",group="g",clone="c"} 1
            ha_cluster_pacemaker_resources{node="b",resource="r",role="migrating",managed="true",status="active",agent="",group="g",clone="c"} 1
            ha_cluster_pacemaker_resources{node="",resource="s",role="stopped",managed="false",status="active",agent="",group="",clone=""} 0"#]]
        .assert_eq(&active.join("\n"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), from in 0_usize..4000, length in 0_usize..400) {
            drop(read(&String::from_utf8_lossy(&bytes), &Zone::utc()));
            let whole = include_str!("../../../testdata/pacemaker/troubled.xml");
            let mut torn = whole.to_owned();
            torn.replace_range(from..from + length, &String::from_utf8_lossy(&bytes));
            drop(read(&torn, &Zone::utc()));
        }
    }
}
