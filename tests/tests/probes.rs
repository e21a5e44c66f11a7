//! What an agent checks and scrapes arrives at the server as Prometheus would have it: Debian's node_exporter scraped by a real
//! agent, checks beside it, and what happens when the target goes.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use petrel_tests::left_out;
use petrel_tests::petrel::{Server, http_client};
use petrel_tests::process::{Process, free_port, program, wait_for};

/// Debian's.
const NODE_EXPORTER: &str = "/usr/bin/prometheus-node-exporter";
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_node_exporter_is_scraped_checked_and_missed() {
    if !Path::new(NODE_EXPORTER).exists() {
        let why = "needs node_exporter: apt-get install prometheus-node-exporter";
        return left_out::note("a_node_exporter_is_scraped_checked_and_missed", why);
    }
    let dir = tempfile::tempdir().expect("a folder for the test");
    let (server, port) = (Server::start(dir.path(), ""), free_port());
    let address = format!("127.0.0.1:{port}");
    let mut exporter = Process::start(
        Command::new(NODE_EXPORTER).args(["--web.listen-address", &address, "--web.disable-exporter-metrics"]),
        &dir.path().join("exporter.log"),
    );
    let _agent = start_agent(dir.path(), &server.url, &address);

    let own = format!("{{job=\"exporter\",instance=\"web1:{port}\",site=\"here\"}}");
    let value = |query: &str| server.query(query).first().map(|(_, value)| *value);
    wait_for("the target to be up", DEADLINE, || value(&format!("up{own}")) == Some(1.0));
    let check = |name: &str| format!("probe_success{{job=\"node\",instance=\"web1\",check=\"{name}\"}}");
    for name in ["port", "page", "program"] {
        wait_for(name, DEADLINE, || value(&check(name)) == Some(1.0));
    }
    assert_eq!(value(&check("closed")), Some(0.0));
    assert_eq!(value("petrel_check_failure_info{check=\"closed\",reason=\"connect\"}"), Some(1.0));
    assert_eq!(value("petrel_check_perfdata{check=\"program\",label=\"load1\"}"), Some(0.5));

    // Everything that the exporter shows is there, under its own name and type.
    let shown =
        http_client().get(format!("http://{address}/metrics")).send().and_then(reqwest::blocking::Response::text);
    let shown = shown.expect("the exporter answers");
    let series = shown.lines().filter(|line| !line.starts_with('#')).count() as f64;
    let stored = value(&format!("count({{__name__!~\"up|scrape_.+\",{})", &own[1..])).unwrap_or(0.0);
    assert!((stored - series).abs() <= series * 0.02, "{stored} of {series} series");
    let metadata = server.ask("/api/v1/metadata", &[("metric", "node_cpu_seconds_total")]);
    assert_eq!(metadata["data"]["node_cpu_seconds_total"][0]["type"], "counter", "{metadata}");

    exporter.kill();
    wait_for("the target to be down", DEADLINE, || value(&format!("up{own}")) == Some(0.0));
    wait_for("its series to end", DEADLINE, || value(&format!("node_load1{own}")).is_none());
    wait_for("the check to fail", DEADLINE, || value(&check("port")) == Some(0.0));
    assert!(value("node_load1{job=\"node\"}").is_some(), "the host's own go on");
}

fn start_agent(dir: &Path, url: &str, exporter: &str) -> Process {
    let mut text = format!("servers: [{url}]\nagent: web1\nstate_dir: {}\n", dir.join("agent").display());
    let closed = free_port();
    write!(
        text,
        "collect: {{interval: 1s}}\nlogs: {{enabled: false}}\nchecks:\n\
         - {{name: port, interval: 1s, tcp: {{target: '{exporter}'}}}}\n\
         - {{name: closed, interval: 1s, tcp: {{target: '127.0.0.1:{closed}'}}}}\n\
         - {{name: page, interval: 1s, http: {{url: 'http://{exporter}/', body_matches: Node Exporter}}}}\n\
         - {{name: program, interval: 1s, exec: {{command: [/bin/echo, 'OK|load1=0.5;5;10'], perfdata: true}}}}\n\
         scrape: [{{name: exporter, url: 'http://{exporter}/metrics', interval: 1s, labels: {{site: here}}}}]\n"
    )
    .expect("text can be written");
    let config = dir.join("agent.yaml");
    std::fs::write(&config, text).expect("the test's folder is writable");
    Process::start(Command::new(program("petrel-agent")).arg("--config").arg(config), &dir.join("agent.log"))
}
