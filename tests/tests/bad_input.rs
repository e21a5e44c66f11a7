//! What people and programs get wrong, on real processes: each mistake gets a clear answer, nothing that was stored is lost,
//! and what was in force stays in force.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use petrel_tests::petrel::{Server, refused_start};
use petrel_tests::process::{free_port, program, run_to_end, wait_for, wait_to_find};
use petrel_tests::remote_write;

/// What a healthy server needs at most for any single answer on a busy machine.
const SOON: Duration = Duration::from_secs(20);

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).expect("the test's folder is writable");
    path
}

/// The text of a path, for messages and arguments.
fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary folder's path is text")
}

/// Asserts that the output names all these parts.
fn assert_says(output: &str, parts: &[&str]) {
    for part in parts {
        assert!(output.contains(part), "`{part}` is not in:\n{output}");
    }
}

/// The config of a server that was never started: its data directory must not come to be.
struct Refused {
    dir: tempfile::TempDir,
}

impl Refused {
    fn new() -> Refused {
        Refused { dir: tempfile::tempdir().expect("a folder for the test") }
    }

    /// Starts with this config and returns what was printed; wrong use, and nothing started.
    fn start(&self, config: &str) -> String {
        let data = self.dir.path().join("data");
        let head = format!("data: {}\nlisten: 127.0.0.1:{}\n", data.display(), free_port());
        let config = write(self.dir.path(), "petrel.yaml", &(head + config));
        let (code, output) = refused_start(self.dir.path(), &["--config", text(&config)]);
        assert_eq!(code, 2, "{output}");
        assert!(!data.exists(), "something was started:\n{output}");
        assert_says(&output, &["nothing was started"]);
        output
    }
}

#[test]
fn a_wrong_key_or_value_in_the_servers_config_is_told_with_its_place() {
    let refused = Refused::new();
    assert_says(&refused.start("stroe: {}\n"), &["petrel.yaml:3:1: unknown field `stroe`", "store"]);
    let output = refused.start("store:\n  retention: 15d\n  disk_reserv: 1GiB\n");
    assert_says(&output, &["petrel.yaml:5:3: unknown field `disk_reserv`", "disk_reserve"]);
    assert_says(&refused.start("store: { disk_reserve: lots }\n"), &["petrel.yaml:3:24: `lots` is not a size"]);
    // Values that only their check refuses, all of them in one run.
    let output = refused.start("store:\n  retention: 5m\nscore:\n  series_max: 0\npredict:\n  interval: 0s\n");
    assert_says(
        &output,
        &[
            "petrel.yaml:4:14: store.retention: `5m` is neither",
            "petrel.yaml:6:15: score.series_max: 0 is not allowed; write",
            "petrel.yaml:8:13: predict.interval: 0s is not allowed; write 1s to 1h",
            "3 mistakes",
        ],
    );
}

#[test]
fn listening_off_loopback_needs_tls_and_tokens() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let data = dir.path().join("data");
    let (code, output) =
        refused_start(dir.path(), &["--data", text(&data), "--listen", &format!("0.0.0.0:{}", free_port())]);
    assert_eq!(code, 2, "{output}");
    assert_says(&output, &["can be reached from other machines, so tls and auth must be set", "docs/guide/fleet.md"]);
    let config = write(dir.path(), "petrel.yaml", "listen: 127.0.0.1:9780\nstore: { retention: 1d }\n");
    let (_, output) = refused_start(
        dir.path(),
        &["--config", text(&config), "--data", text(&data), "--listen", "0.0.0.0:1", "--retention", "5x"],
    );
    assert_says(&output, &["command line: listen: 0.0.0.0:1 can be", "command line: store.retention: `5x` is neither"]);
    assert!(!data.exists(), "something was started");
}

#[test]
fn a_wrong_key_in_the_agents_config_is_told_with_its_place() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let state = dir.path().join("state");
    let start = |rest: &str| {
        let head = format!("servers: ['http://127.0.0.1:1']\nstate_dir: {}\n", state.display());
        let config = write(dir.path(), "agent.yaml", &(head + rest));
        let mut command = Command::new(program("petrel-agent"));
        let (code, output) = run_to_end(command.arg("--config").arg(config), &dir.path().join("agent.log"), SOON);
        assert_eq!(code, 2, "{output}");
        assert!(!state.exists(), "something was started:\n{output}");
        output
    };
    assert_says(&start("colect: { interval: 1s }\n"), &["agent.yaml:3:1: unknown field `colect`", "collect"]);
    assert_says(&start("collect: { interval: 5m }\n"), &["agent.yaml:3:10: collect.interval: 5m is not allowed"]);
    assert_says(&start("drive: { allow: [haproxy.reboot] }\n"), &["no driver has an action `haproxy.reboot`"]);
}

const RULES: &str = "groups:\n- name: test\n  interval: 1s\n  rules:\n  - alert: Always\n    expr: vector(1)\n";

#[test]
fn a_broken_rule_file_or_runbook_is_refused_at_the_start() {
    let refused = Refused::new();
    let start = |key: &str, name: &str, content: &str| {
        let file = write(refused.dir.path(), name, content);
        refused.start(&format!("{}: [{}]\n", key.replace('.', ":\n  "), file.display()))
    };
    let output = start("rules.files", "rules.yaml", &RULES.replace("vector(1)", "vector("));
    assert_says(&output, &["rules.yaml:6:"]);
    let output = start("rules.files", "rules.yaml", &RULES.replace("expr:", "exp:"));
    assert_says(&output, &["rules.yaml:6:5: unknown field `exp`", "expr"]);
    let runbook = "runbook: r\nwhen: { level: warning }\nsteps:\n- action: haproxy.reboot\n  with: { server: a }\n";
    let output = start("remedy.runbooks", "runbook.yaml", runbook);
    assert_says(
        &output,
        &[
            "runbook.yaml:4:11: unknown action `haproxy.reboot`; known are",
            "haproxy.drain",
            "haproxy.ready",
            "haproxy.set_weight",
            "libvirt.evacuate",
        ],
    );
    let gone = refused.start(&format!("rules: {{ files: [{}/gone.yaml] }}\n", refused.dir.path().display()));
    assert_says(&gone, &["gone.yaml: cannot be read: No such file"]);
}

#[test]
fn a_rule_file_broken_while_running_keeps_the_old_rules_in_force() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let rules = write(dir.path(), "rules.yaml", RULES);
    let server = Server::start(dir.path(), &format!("rules: {{ files: [{}], shipped: false }}\n", rules.display()));
    let firing = || server.query("ALERTS{alertname=\"Always\",alertstate=\"firing\"}").len() == 1;
    let problems = || server.get("/petrel/v1/overview").expect("the server answers")["problems"].clone();
    wait_for("the rule to fire", SOON, firing);
    assert_eq!(problems(), serde_json::json!([]));

    write(dir.path(), "rules.yaml", &RULES.replace("vector(1)", "vector("));
    let told = wait_to_find("the problem to be shown", SOON, || {
        problems().as_array().and_then(|all| all.first().cloned()).map(|problem| problem.to_string())
    });
    assert_says(&told, &["not in force", "rules.yaml:6:"]);
    assert_says(&server.output(), &["ERROR not in force"]);
    let in_force =
        || server.metrics().lines().find_map(|line| line.strip_prefix("petrel_config_in_force ").map(str::to_owned));
    assert_eq!(in_force().as_deref(), Some("0"));
    let broken_at = now_ms();
    wait_for("the old rule to be evaluated after the file was broken", SOON, || {
        let newest = server.query("timestamp(ALERTS{alertname=\"Always\",alertstate=\"firing\"})");
        newest.first().is_some_and(|(_, seconds)| *seconds * 1000.0 > broken_at as f64)
    });

    write(dir.path(), "rules.yaml", &RULES.replace("Always", "Mended"));
    wait_for("the mended rule to fire", SOON, || !server.query("ALERTS{alertname=\"Mended\"}").is_empty());
    assert_eq!(problems(), serde_json::json!([]));
    assert_eq!(in_force().as_deref(), Some("1"));
}

#[test]
fn damaged_requests_are_refused_in_words_and_the_good_part_is_stored() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut server = Server::start(dir.path(), "rules: { shipped: false }\n");
    let post = |path: &str, headers: &[(&str, &str)], body: &[u8]| {
        server.post_bytes(path, headers, body.to_vec()).expect("the server is there")
    };
    let protobuf = ("content-type", "application/x-protobuf");
    for (path, what) in [("/v1/metrics", "metrics"), ("/v1/logs", "logs")] {
        let (status, words) = post(path, &[protobuf], b"\xff\xff nothing of ours");
        assert_eq!(status, 400, "{words}");
        assert_says(&words, &[&format!("body is not an OTLP {what} request in protobuf: ")]);
        assert_eq!(words.matches("body is not").count(), 1, "{words}");
    }
    let (status, words) = post("/v1/metrics", &[protobuf, ("content-encoding", "zstd")], b"not zstd at all");
    assert_eq!(status, 400, "{words}");
    assert_says(&words, &["body is not valid zstd"]);
    let (status, words) = post("/v1/metrics", &[("content-type", "application/json")], b"{}");
    assert_eq!(status, 415, "{words}");
    assert_says(&words, &["application/json", "application/x-protobuf"]);
    let (status, words) = post("/api/v1/write", &[], b"\x00\x01\x02");
    assert_eq!(status, 400, "{words}");
    assert_says(&words, &["snappy"]);

    let t = now_ms();
    let good: remote_write::Pairs<'_> = &[("__name__", "test_good"), ("job", "test")];
    let (status, words) = post("/api/v1/write", &[], &remote_write::request_with_bad_label(good, t));
    assert_eq!(status, 400, "{words}");
    assert_says(&words, &["1 not stored", "label `host`", "not UTF-8", "test_bad", "1 stored"]);
    assert_eq!(server.samples("test_good[1h]"), vec![(t, 1.0)], "the good series of the same request is stored");
    server.kill_and_restart();
    assert_eq!(server.samples("test_good[1h]"), vec![(t, 1.0)], "and still is after a crash");
}

#[test]
fn a_second_start_on_the_same_data_is_refused_and_a_stop_is_quick() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut server = Server::start(dir.path(), "");
    let data = dir.path().join("data");
    let (code, output) =
        refused_start(dir.path(), &["--data", text(&data), "--listen", &format!("127.0.0.1:{}", free_port())]);
    assert_eq!(code, 2, "{output}");
    assert_says(&output, &[text(&data), &format!("in use by the process with id {}", server.id()), "--data"]);
    server.wait_for_query("up or vector(1)", SOON);
    let (took, well) = server.stop();
    assert!(well, "a clean stop ends with exit code 0:\n{}", server.output());
    assert!(took < Duration::from_secs(2), "the stop took {took:?}");
}

#[test]
fn check_tells_good_files_of_every_kind_from_bad_ones() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let runbook = "runbook: r\nwhen: { level: warning }\nsteps:\n- action: haproxy.drain\n  on: lb1\n  with: { backend: b, server: s }\n";
    let two = format!("{runbook}---\n{}", runbook.replace("runbook: r", "runbook: q"));
    // Kind, a good file, what makes it bad, what is then said.
    let cases = [
        ("server", "store: { retention: 30d }\n".to_owned(), ("30d", "soon"), "store.retention: `soon`"),
        ("agent", "servers: ['http://127.0.0.1:9780']\n".to_owned(), ("http:", "ftp:"), ":1:11: servers: `ftp:"),
        ("rules", RULES.to_owned(), ("vector(1)", "vector(1"), ":6:"),
        ("runbook", runbook.to_owned(), ("haproxy.drain", "haproxy.explode"), ":4:11: unknown action"),
        ("runbooks", two, ("runbook: q", "runbook: r"), "defined twice"),
        ("fleet", "domains: [{ name: a, hosts: [h1] }]\n".to_owned(), ("hosts", "host"), ":1:22: unknown field `host`"),
    ];
    for (kind, good, (right, wrong), said) in cases {
        let file = write(dir.path(), &format!("{kind}.yaml"), &good);
        let bad = write(dir.path(), &format!("bad-{kind}.yaml"), &good.replace(right, wrong));
        let check = |files: &[&Path]| {
            let mut command = Command::new(program("petrel"));
            run_to_end(command.arg("check").args(files), &dir.path().join(format!("{kind}-{}.log", files.len())), SOON)
        };
        let (code, output) = check(&[&file]);
        assert_eq!((code, output.as_str()), (0, format!("{}: fine\n", file.display()).as_str()));
        let (code, output) = check(&[&file, &bad]);
        assert_eq!(code, 1, "{output}");
        assert_says(&output, &[&format!("bad-{kind}.yaml"), said, &format!("{}: fine", file.display())]);
    }
    let mut command = Command::new(program("petrel"));
    let (code, output) = run_to_end(command.args(["check", "/nowhere.yaml"]), &dir.path().join("none.log"), SOON);
    assert_eq!(code, 1, "{output}");
    assert_says(&output, &["/nowhere.yaml: cannot be read"]);
}
