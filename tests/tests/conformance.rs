//! The same answers as Prometheus, where the conformance tools stand beside the checkout: its own PromQL scripts through remote
//! write and the query API of a real `petrel serve`, and the queries of dashboards and rules against a real Prometheus.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use petrel_tests::left_out;
use petrel_tests::petrel::{Server, http_client};
use petrel_tests::process::{Process, free_port, program, run, wait_for};

/// Evaluations of the given scripts that must pass: all that do not ask for native histograms.
const PASSES_MIN: &str = "356";

#[test]
fn prometheus_own_scripts_give_prometheus_answers() {
    let name = "conformance: PromQL scripts";
    let (Some(compat), Some(data)) = (left_out::shared("compat", name), left_out::shared("data/promqltest", name))
    else {
        return;
    };
    let dir = tempfile::tempdir().expect("a folder for the test");
    let start = dir.path().join("start");
    let line = format!(
        "#!/bin/sh\nexec {} serve --listen 127.0.0.1:$1 --data \"$2\" --retention off\n",
        program("petrel").display()
    );
    std::fs::write(&start, line).expect("the test's folder is writable");
    std::fs::set_permissions(&start, std::fs::Permissions::from_mode(0o755))
        .expect("an own file can be made executable");
    let mut scripts: Vec<_> =
        std::fs::read_dir(&data).expect("the folder is there").flatten().map(|entry| entry.path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|end| end == "test"));
    let mut command = Command::new("python3");
    command.arg(compat.join("promqltest.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.arg("--server-cmd").arg(format!("{} {{port}} {{data}}", start.display()));
    let told = run(command.args(["--min-pass", PASSES_MIN]).args(&scripts));
    println!("{}", told.lines().last().unwrap_or_default());
}

/// Queries of the node-exporter mixin and requests for labels and series: all of them agree.
const QUERIES_AGREE_MIN: &str = "122";
/// Begin of the made-up history of two hours: before anything that the server says of itself.
const HISTORY: [&str; 2] = ["--start", "now-3h"];

/// A script of the tools; it leaves no files beside itself.
fn script(path: &Path) -> Command {
    let mut command = Command::new("python3");
    command.arg(path).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

#[test]
fn queries_of_dashboards_and_rules_agree_with_a_real_prometheus() {
    let name = "conformance: promdiff against a real Prometheus";
    let (Some(compat), Some(data)) = (left_out::shared("compat", name), left_out::shared("data", name)) else { return };
    let dir = tempfile::tempdir().expect("a folder for the test");
    let port = free_port();
    let mut prometheus = Command::new(compat.join("run-prometheus.sh"));
    prometheus.arg(port.to_string()).arg(dir.path().join("prometheus"));
    let _prometheus = Process::start(&mut prometheus, &dir.path().join("prometheus.log"));
    let reference = format!("http://127.0.0.1:{port}");
    let server = Server::start(dir.path(), "store:\n  retention: off\n");
    let client = http_client();
    wait_for("prometheus (apt-get install prometheus) to be ready", Duration::from_secs(20), || {
        client.get(format!("{reference}/-/ready")).send().is_ok_and(|answer| answer.status().is_success())
    });
    let mut feed = script(&compat.join("feed.py"));
    feed.arg("--expo").arg(data.join("node_snapshot.prom")).arg("--records").arg(compat.join("records-node.tsv"));
    let told = run(feed.args(["--ref", &reference]).args(HISTORY).args([&reference, &server.url]));
    // It prints `--start S --end E` for the next one.
    let words: Vec<&str> = told.split_whitespace().collect();
    let after = |flag: &str| {
        let at = words.iter().position(|word| *word == flag).unwrap_or_else(|| panic!("{flag} is not in:\n{told}"));
        [flag.to_owned(), words[at + 1].to_owned()]
    };
    let mut diff = script(&compat.join("promdiff.py"));
    diff.args([&reference, &server.url])
        .arg(compat.join("queries-node.txt"))
        .args(after("--start"))
        .args(after("--end"));
    let told = run(diff.args(["--min-pass", QUERIES_AGREE_MIN]));
    println!("{}", told.lines().last().unwrap_or_default());
}
