//! What is known of each host now, in one row: verdict, duty, and how full it is. Read from stored series, like any client could.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::query::source::Source;
use crate::query::{Limits, Value, instant, parse};
use crate::series::{Labels, Timestamp};

/// One host.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HostRow {
    /// Its name, the `instance` of its series.
    pub name: String,
    /// What the failure detector believes.
    pub verdict: String,
    /// Why.
    pub reason: String,
    /// What operators have it do.
    pub duty: String,
    /// Processor time not idle, 0 to 1.
    pub cpu_ratio: Option<f64>,
    /// Memory not available, 0 to 1.
    pub memory_ratio: Option<f64>,
    /// How full its fullest filesystem is, 0 to 1.
    pub filesystem_ratio_max: Option<f64>,
    /// Where that one is mounted.
    pub filesystem_fullest: String,
    /// Share of its series that behave unlike themselves.
    pub anomaly_rate: Option<f64>,
}

const UP: &str = r#"up{job="node"}"#;
const CPU: &str = r#"1 - avg by (instance) (rate(node_cpu_seconds_total{job="node",mode="idle"}[2m]))"#;
const MEMORY: &str = r#"1 - node_memory_MemAvailable_bytes{job="node"} / node_memory_MemTotal_bytes{job="node"}"#;
/// Read-only images are always full and overlays show what lies below them; neither says how full a host is.
const FILESYSTEM: &str = r#"topk by (instance) (1, 1 - node_filesystem_avail_bytes{job="node",fstype!~"squashfs|iso9660|overlay|erofs|ramfs"}
    / (node_filesystem_size_bytes{job="node"} > 0))"#;
const ANOMALIES: &str = "petrel_host_anomaly_rate";

/// Rows of all hosts, sorted by name. A query that fails leaves its column empty.
pub fn measure(source: &dyn Source, now: Timestamp) -> BTreeMap<String, HostRow> {
    let mut rows: BTreeMap<String, HostRow> = BTreeMap::new();
    for (labels, up) in ask(source, UP, now) {
        let row = row(&mut rows, &labels);
        let (verdict, reason) = if up == 1.0 { ("healthy", "") } else { ("unknown", "its agent is silent") };
        (row.verdict, row.reason, row.duty) = (verdict.to_owned(), reason.to_owned(), "active".to_owned());
    }
    let mut set = |promql, put: fn(&mut HostRow, &Labels, f64)| {
        for (labels, value) in ask(source, promql, now) {
            if value.is_finite() && labels.get("instance").is_some_and(|name| rows.contains_key(name)) {
                put(row(&mut rows, &labels), &labels, value);
            }
        }
    };
    set(CPU, |row, _, value| row.cpu_ratio = Some(value.clamp(0.0, 1.0)));
    set(MEMORY, |row, _, value| row.memory_ratio = Some(value));
    set(FILESYSTEM, |row, labels, value| {
        row.filesystem_ratio_max = Some(value);
        labels.get("mountpoint").unwrap_or("").clone_into(&mut row.filesystem_fullest);
    });
    set(ANOMALIES, |row, _, value| row.anomaly_rate = Some(value));
    rows
}

fn row<'a>(rows: &'a mut BTreeMap<String, HostRow>, labels: &Labels) -> &'a mut HostRow {
    let name = labels.get("instance").unwrap_or("").to_owned();
    rows.entry(name.clone()).or_insert_with(|| HostRow { name, ..HostRow::default() })
}

fn ask(source: &dyn Source, promql: &str, now: Timestamp) -> Vec<(Labels, f64)> {
    let expr = parse(promql).expect("the queries of this file parse, as a test shows");
    match instant(source, &expr, now, &Limits::default()) {
        Ok(answer) => match answer.value {
            Value::Vector(vector) => vector.into_iter().map(|one| (one.labels, one.sample.v)).collect(),
            _ => Vec::new(),
        },
        Err(error) => {
            tracing::warn!(%error, promql, "a column of the hosts' table cannot be read");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queries_parse() {
        for promql in [UP, CPU, MEMORY, FILESYSTEM, ANOMALIES] {
            parse(promql).unwrap();
        }
    }
}
