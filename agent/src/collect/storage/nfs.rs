//! `/proc/net/rpc/nfs` and `nfsd`: what this host asks of NFS servers, and what it serves itself.

use super::nfs_methods::{CLIENT_V4, SERVER_V4, V2, V3};
use crate::collect::kernel_file::{KernelFile, KernelText};
use crate::collect::tables::{Column, counter, gauge};
use crate::collect::{CollectError, Collector, Family, Roots};

/// The NFS client.
pub(super) struct Nfs {
    file: KernelFile,
}

/// The NFS server.
pub(super) struct Nfsd {
    file: KernelFile,
}

/// First word of a line, number of the field after it, label if any, metric. Lines that stand one after the other and have
/// the same metric are one family.
type Field = (&'static str, usize, Option<(&'static str, &'static str)>, Column);

const CLIENT_PACKETS: Column =
    counter("node_nfs_packets_total", "Total NFSd network packets (sent+received) by protocol type.");
const CLIENT: [Field; 6] = [
    ("net", 1, Some(("protocol", "udp")), CLIENT_PACKETS),
    ("net", 2, Some(("protocol", "tcp")), CLIENT_PACKETS),
    ("net", 3, None, counter("node_nfs_connections_total", "Total number of NFSd TCP connections.")),
    ("rpc", 0, None, counter("node_nfs_rpcs_total", "Total number of RPCs performed.")),
    ("rpc", 1, None, counter("node_nfs_rpc_retransmissions_total", "Number of RPC transmissions performed.")),
    (
        "rpc",
        2,
        None,
        counter("node_nfs_rpc_authentication_refreshes_total", "Number of RPC authentication refreshes performed."),
    ),
];
const CLIENT_REQUESTS: Column = counter("node_nfs_requests_total", "Number of NFS procedures invoked.");

const SERVER_PACKETS: Column =
    counter("node_nfsd_packets_total", "Total NFSd network packets (sent+received) by protocol type.");
const SERVER_ERRORS: Column = counter("node_nfsd_rpc_errors_total", "Total number of NFSd RPC errors by error type.");
const SERVER: [Field; 16] = [
    (
        "rc",
        0,
        None,
        counter(
            "node_nfsd_reply_cache_hits_total",
            "Total number of NFSd Reply Cache hits (client lost server response).",
        ),
    ),
    (
        "rc",
        1,
        None,
        counter(
            "node_nfsd_reply_cache_misses_total",
            "Total number of NFSd Reply Cache an operation that requires caching (idempotent).",
        ),
    ),
    (
        "rc",
        2,
        None,
        counter(
            "node_nfsd_reply_cache_nocache_total",
            "Total number of NFSd Reply Cache non-idempotent operations (rename/delete/…).",
        ),
    ),
    ("fh", 0, None, counter("node_nfsd_file_handles_stale_total", "Total number of NFSd stale file handles")),
    ("io", 0, None, counter("node_nfsd_disk_bytes_read_total", "Total NFSd bytes read.")),
    ("io", 1, None, counter("node_nfsd_disk_bytes_written_total", "Total NFSd bytes written.")),
    ("th", 0, None, gauge("node_nfsd_server_threads", "Total number of NFSd kernel threads that are running.")),
    ("ra", 0, None, gauge("node_nfsd_read_ahead_cache_size_blocks", "How large the read ahead cache is in blocks.")),
    (
        "ra",
        11,
        None,
        counter("node_nfsd_read_ahead_cache_not_found_total", "Total number of NFSd read ahead cache not found."),
    ),
    ("net", 1, Some(("proto", "udp")), SERVER_PACKETS),
    ("net", 2, Some(("proto", "tcp")), SERVER_PACKETS),
    ("net", 3, None, counter("node_nfsd_connections_total", "Total number of NFSd TCP connections.")),
    ("rpc", 0, None, counter("node_nfsd_server_rpcs_total", "Total number of NFSd RPCs.")),
    ("rpc", 2, Some(("error", "fmt")), SERVER_ERRORS),
    ("rpc", 3, Some(("error", "auth")), SERVER_ERRORS),
    ("rpc", 4, Some(("error", "cInt")), SERVER_ERRORS),
];
const SERVER_REQUESTS: Column =
    counter("node_nfsd_requests_total", "Total number NFSd Requests by method and protocol.");

impl Nfs {
    pub(super) fn new(roots: &Roots) -> Nfs {
        Nfs { file: KernelFile::new(roots.procfs.join("net/rpc/nfs")) }
    }
}

impl Nfsd {
    pub(super) fn new(roots: &Roots) -> Nfsd {
        Nfsd { file: KernelFile::new(roots.procfs.join("net/rpc/nfsd")) }
    }
}

impl Collector for Nfs {
    fn name(&self) -> &'static str {
        "nfs"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        client(&self.file.read()?, families);
        Ok(())
    }
}

impl Collector for Nfsd {
    fn name(&self) -> &'static str {
        "nfsd"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        server(&self.file.read()?, families);
        Ok(())
    }
}

fn client(text: &KernelText<'_>, families: &mut Vec<Family>) {
    fields(text, &CLIENT, families);
    let mut requests = CLIENT_REQUESTS.family();
    for (line, version, methods) in [("proc2", "2", &V2[..]), ("proc3", "3", &V3), ("proc4", "4", &CLIENT_V4)] {
        // The line's first number is how many follow.
        push_methods(&numbers(text, line), 1, version, methods, &mut requests);
    }
    families.push(requests);
}

fn server(text: &KernelText<'_>, families: &mut Vec<Family>) {
    fields(text, &SERVER, families);
    let mut requests = SERVER_REQUESTS.family();
    // The first procedure of both versions does nothing and is not told.
    for (line, version, methods) in [("proc2", "2", &V2[1..]), ("proc3", "3", &V3[1..])] {
        push_methods(&numbers(text, line), 2, version, methods, &mut requests);
    }
    push_methods(&numbers(text, "proc4ops"), 1, "4", &SERVER_V4, &mut requests);
    push_methods(&numbers(text, "wdeleg_getattr"), 0, "4", &["WdelegGetattr"], &mut requests);
    families.push(requests);
}

/// What a kernel does not print counts as zero, as with node_exporter: NFS 2 is gone from new kernels.
fn push_methods(numbers: &[f64], skip: usize, version: &str, methods: &[&str], requests: &mut Family) {
    for (place, method) in methods.iter().enumerate().filter(|(_, method)| !method.is_empty()) {
        let count = numbers.get(skip + place).copied().unwrap_or_default();
        requests.push(&[("method", method), ("proto", version)], count);
    }
}

fn fields(text: &KernelText<'_>, fields: &[Field], families: &mut Vec<Family>) {
    let mut last = "";
    for (line, place, label, column) in fields {
        let value = numbers(text, line).get(*place).copied().unwrap_or_default();
        let family = column.family();
        if last != family.name {
            families.push(family);
        }
        if let Some(family) = families.last_mut() {
            family.push(label.as_slice(), value);
        }
        last = column.name();
    }
}

/// The numbers of the line that begins with a word, as far as they are whole numbers.
fn numbers(text: &KernelText<'_>, first: &str) -> Vec<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(first)?.strip_prefix(' '));
    let words = rest.unwrap_or_default().split_ascii_whitespace();
    words.map_while(|word| word.parse::<u64>().ok()).map(|number| number as f64).take(128).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const CLIENT_SAMPLE: &str = "net 70 70 69 45\nrpc 12 3 4\nproc3 22 0 106 48\nproc4 3 98 51 54\n";
    const SERVER_SAMPLE: &str = "rc 0 6 18622\nth 8 0 0.000 0.000\nra 32 0 0 0 0 0 0 0 0 0 0 9\nproc3 3 2 112 7\nproc4ops 5 0 0 0 1098 2\nwdeleg_getattr 15\n";

    fn check(shown: &str, lines: &[&str]) {
        for line in lines {
            assert!(shown.contains(&format!("{line}\n")), "{line} not in:\n{shown}");
        }
    }

    #[test]
    fn the_client() {
        let mut families = Vec::new();
        client(&KernelText::of(CLIENT_SAMPLE.as_bytes()), &mut families);
        check(
            &trial::series(&text::render(&families)),
            &[
                r#"node_nfs_packets_total{protocol="udp"} 70"#,
                r#"node_nfs_packets_total{protocol="tcp"} 69"#,
                "node_nfs_rpc_authentication_refreshes_total 4",
                r#"node_nfs_requests_total{method="GetAttr",proto="3"} 106"#,
                r#"node_nfs_requests_total{method="Null",proto="2"} 0"#,
                r#"node_nfs_requests_total{method="Write",proto="4"} 54"#,
                r#"node_nfs_requests_total{method="Clone",proto="4"} 0"#,
            ],
        );
    }

    #[test]
    fn the_server() {
        let mut families = Vec::new();
        server(&KernelText::of(SERVER_SAMPLE.as_bytes()), &mut families);
        let shown = trial::series(&text::render(&families));
        check(
            &shown,
            &[
                "node_nfsd_server_threads 8",
                "node_nfsd_read_ahead_cache_not_found_total 9",
                r#"node_nfsd_rpc_errors_total{error="auth"} 0"#,
                r#"node_nfsd_requests_total{method="GetAttr",proto="3"} 112"#,
                r#"node_nfsd_requests_total{method="Access",proto="4"} 1098"#,
                r#"node_nfsd_requests_total{method="WdelegGetattr",proto="4"} 15"#,
            ],
        );
        assert!(!shown.contains("Null"));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(one in trial::near(CLIENT_SAMPLE), other in trial::near(SERVER_SAMPLE)) {
            client(&KernelText::of(&one), &mut Vec::new());
            server(&KernelText::of(&other), &mut Vec::new());
        }
    }
}
