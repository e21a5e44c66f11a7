//! Every command of `petrel` against a real server, as a person types it: what it prints, and its exit code (0 done, 1 the
//! answer is no, 2 wrong use, 3 the server is not there).

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use petrel_agent::logs::{LogRecord, Severity, Why};
use petrel_tests::petrel::Server;
use petrel_tests::process::{Process, free_port, program, wait_for, wait_to_find};
use petrel_tests::remote_write;
use serde_json::{Value, json};

#[test]
fn every_command_says_what_the_server_knows() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let server = Server::start(dir.path(), &config(dir.path(), "groups: []\n"));
    let shell = Shell { url: &server.url };
    shell.check("alerts", 0, &["No alerts"]);
    shell.check("hosts", 0, &["No host has reported yet"]);
    shell.check("outlooks", 0, &["No outlook yet"]);
    shell.check("ledger", 0, &["Nothing was predicted yet"]);
    shell.check("runs", 0, &["No runs"]);
    shell.check("logs", 0, &["No such line"]);
    shell.check("logs --limit 0", 2, &["limit", "10000"]);
    shell.check("logs --severity loud", 2, &["fatal"]);

    send_samples(&server);
    shell.check("hosts", 0, &["HOST", "web1", "active", "79 %"]);
    send_a_line(&server);
    shell.check("logs", 0, &["TIME", "ANNOUNCES", "web1", "error", "/var/log/syslog", "io_error", "disk sda failed"]);
    shell.check("logs --host web1 --severity error --contains sda --from 1h", 0, &["disk sda failed"]);
    shell.check("logs --host web2", 0, &["No such line"]);
    shell.check("query up", 0, &["SERIES", "up{instance=\"web1\", job=\"node\"}"]);
    shell.check("query 1+1", 0, &["2"]);
    shell.check("query 1+1 --at 0", 0, &["2"]);
    shell.check("query vector(7) --from 0 --to 60 --step 30s", 0, &["TIME", "7"]);
    shell.check("query absent_series", 0, &["Nothing"]);
    shell.check("query rate(", 2, &["unclosed"]);
    shell.check("query time() --at -5m", 0, &["1"]);
    shell.check("query vector(7) --from 2m", 0, &["TIME", "7"]);
    shell.check("query up --to now", 2, &["--from"]);
    shell.check("query up --at noon", 2, &["--at", "5m", "Unix seconds"]);
    shell.check("plan evacuate web1", 1, &["Refused", "web1"]);
    shell.check("hosts duty web1 maintenance", 0, &["web1 is maintenance"]);
    shell.check("hosts", 0, &["web1", "maintenance"]);
    shell.check("hosts duty web1 asleep", 2, &["quarantined"]);
    shell.check("hosts duty web1 active", 0, &["web1 is active"]);
    shell.check("hold", 0, &["Not held"]);
    shell.check("hold on", 0, &["Held"]);
    shell.check("hold", 0, &["Held"]);
    shell.check("hold off", 0, &["Not held"]);
    shell.check("runs show 99", 1, &["there is no run 99"]);
    let (code, out) = shell.run("hosts --json");
    let hosts: Value = serde_json::from_str(&out).expect("--json prints JSON");
    assert_eq!((code, hosts[0]["name"].as_str()), (0, Some("web1")), "{out}");
}

#[test]
fn runs_are_shown_approved_denied_and_aborted() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let server = Server::start(dir.path(), &config(dir.path(), RULES_FIRING));
    let shell = Shell { url: &server.url };
    // An agent that sees a balancer and allows draining, but never asks for its orders: what is approved stays at work.
    let servers = ["web1", "web2", "web3"].map(|name| {
        json!({"backend": "vms", "server": name, "status": "UP", "weight": 1, "sessions": 0, "backend_active": 3})
    });
    let inventory =
        json!({"agent": "lb1", "seen_at": now_ms(), "allowed": ["haproxy.drain"], "balancer_servers": servers});
    let body = inventory.to_string().into_bytes();
    let headers = [("petrel-agent", "lb1"), ("content-type", "application/json")];
    let (status, answer) = server.post_bytes("/petrel/v1/inventory", &headers, body).expect("the server is there");
    assert_eq!(status, 200, "{answer}");
    let waiting = wait_to_find("two runs that wait", Duration::from_secs(30), || {
        let runs = server.get("/petrel/v1/runs")?.as_array()?.clone();
        let waiting = runs.iter().filter(|run| run["state"] == "waiting").map(|run| run["id"].to_string());
        Some(waiting.collect::<Vec<_>>()).filter(|ids| ids.len() == 2)
    });
    let (deny, approve) = (&waiting[0], &waiting[1]);
    shell.check("alerts", 0, &["critical", "firing", "DiskAlmostFull", "/srv of web1 is almost full"]);
    shell.check("runs", 0, &["drain", "approve", "waiting", "web1", "web2", &format!("petrel runs approve {deny}")]);
    shell.check(&format!("runs show {deny}"), 0, &["haproxy.drain", "lb1", "backend=vms", "approval_asked"]);
    shell.check(&format!("runs deny {deny}"), 0, &["denied"]);
    shell.check(&format!("runs deny {deny}"), 1, &["petrel:"]);
    shell.check(&format!("runs approve {approve}"), 0, &["approved"]);
    wait_for("the approved run to be at work", Duration::from_secs(20), || {
        shell.run(&format!("runs show {approve}")).1.contains("running")
    });
    shell.check(&format!("runs abort {approve}"), 0, &["aborted"]);
    shell.check(&format!("runs show {approve}"), 0, &["stopped", "approved", "abort"]);
}

#[test]
fn a_server_that_is_not_there_is_told_apart_from_wrong_use() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let shell = Shell { url: &url };
    for command in ["alerts", "hosts", "logs", "outlooks", "ledger", "runs", "hold", "query up", "plan evacuate h1"] {
        shell.check(command, 3, &["cannot be reached", "petrel up"]);
    }
    let wrong = Shell { url: "nonsense" };
    wrong.check("alerts", 2, &["--server nonsense"]);
    shell.check("dance", 2, &["dance"]);
    shell.check("alerts --token-file /nonexistent/token", 2, &["/nonexistent/token"]);
}

#[test]
fn check_tells_what_is_wrong_and_where() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let (good, bad) = (dir.path().join("good.yaml"), dir.path().join("bad.yaml"));
    std::fs::write(&good, RULES_FIRING).expect("the test's folder is writable");
    std::fs::write(&bad, "groups:\n- {name: g, rules: [{alert: A, expr: 'up =='}]}\n").expect("as above");
    let check = |files: &[&Path]| {
        let output = Command::new(program("petrel")).arg("check").args(files).output().expect("petrel can be run");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, out) = check(&[&good]);
    assert!(code == Some(0) && out.contains("good.yaml: fine"), "{code:?} {out}");
    let (code, out) = check(&[&good, &bad]);
    assert!(code == Some(1) && out.contains("bad.yaml:2:"), "{code:?} {out}");
}

/// What `petrel up` proposes must work as it stands.
#[test]
fn the_greeting_of_up_proposes_what_works() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut command = Command::new(program("petrel"));
    command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(dir.path().join("data"));
    let up = Process::start(&mut command, &dir.path().join("up.log"));
    wait_for("the greeting", Duration::from_secs(20), || up.output().contains("Ctrl-C stops"));
    let greeting = up.output();
    let program = program("petrel").display().to_string();
    let proposed: Vec<&str> = greeting.lines().map(str::trim).filter(|line| line.starts_with(&program)).collect();
    assert_eq!(proposed.len(), 3, "{greeting}");
    for line in proposed {
        let output = Command::new("sh").args(["-c", line]).output().expect("a shell can be run");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A terminal.
struct Shell<'a> {
    url: &'a str,
}

impl Shell<'_> {
    /// Runs a command, words divided by blanks, and returns its code and all that it printed.
    fn run(&self, command: &str) -> (i32, String) {
        let mut petrel = Command::new(program("petrel"));
        petrel.args(command.split(' '));
        if !command.starts_with("dance") {
            petrel.args(["--server", self.url]);
        }
        let output = petrel.output().expect("petrel can be run");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }

    fn check(&self, command: &str, code: i32, words: &[&str]) {
        let (ended, out) = self.run(command);
        assert_eq!(ended, code, "petrel {command}\n{out}");
        for word in words {
            assert!(out.contains(word), "petrel {command} does not say `{word}`:\n{out}");
        }
    }
}

fn config(dir: &Path, groups: &str) -> String {
    let (rules, runbook) = (dir.join("rules.yaml"), dir.join("drain.yaml"));
    std::fs::write(&rules, groups).expect("the test's folder is writable");
    std::fs::write(&runbook, RUNBOOK).expect("the test's folder is writable");
    format!(
        "rules: {{ files: [{}], shipped: false }}\nremedy: {{ runbooks: [{}], settle: 1s, order_ttl: 5m, stale_after: 5m }}\n",
        rules.display(),
        runbook.display()
    )
}

fn send_a_line(server: &Server) {
    let record = LogRecord {
        at: now_ms(),
        source: "/var/log/syslog".to_owned(),
        severity: Severity::Error,
        template_id: "00000000000000aa".to_owned(),
        template: "disk <*> failed".to_owned(),
        body: "disk sda failed".to_owned(),
        unit: String::new(),
        precursor: "io_error".to_owned(),
        why: Why::Precursor,
    };
    let body = petrel_agent::stream::encode::logs("web1", &[record], now_ms()).body;
    let headers = [("content-type", "application/x-protobuf"), ("content-encoding", "zstd")];
    let (status, answer) = server.post_bytes("/v1/logs", &headers, body).expect("the server is there");
    assert_eq!(status, 200, "{answer}");
}

fn send_samples(server: &Server) {
    let now = now_ms();
    let host = |name| [("__name__", name), ("instance", "web1"), ("job", "node")];
    let disk =
        |name| [("__name__", name), ("fstype", "ext4"), ("instance", "web1"), ("job", "node"), ("mountpoint", "/")];
    let body = remote_write::request(&[
        (&host("up"), &[(now, 1.0)]),
        (&disk("node_filesystem_avail_bytes"), &[(now, 21.0)]),
        (&disk("node_filesystem_size_bytes"), &[(now, 100.0)]),
    ]);
    let (status, answer) = server.post_bytes("/api/v1/write", &[], body).expect("the server is there");
    assert!(status < 300, "{status} {answer}");
    server.wait_for_query("up", Duration::from_secs(20));
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as i64
}

const RULES_FIRING: &str = r#"
groups:
  - name: disks
    interval: 1s
    rules:
      - alert: DiskAlmostFull
        expr: label_replace(vector(1), "instance", "web1", "", "") or label_replace(vector(1), "instance", "web2", "", "")
        labels: { severity: critical }
        annotations: { summary: "/srv of {{ $labels.instance }} is almost full" }
"#;

const RUNBOOK: &str = r#"
runbook: drain
when: { alert: ['alertname="DiskAlmostFull"'] }
mode: approve
min_history: 0s
steps:
  - action: haproxy.drain
    on: lb1
    with: { backend: vms, server: "{{ labels.instance }}" }
    timeout: 5m
"#;
