//! Every query of every panel of every dashboard gets data from a real server with a real agent, and every metric that a
//! shipped rule or runbook reads exists.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use petrel_server::query;
use petrel_server::rules;
use petrel_tests::petrel::Server;
use petrel_tests::process::{Process, program};
use petrel_tests::remote_write;
use petrel_tests::tree::{Source, files};
use serde_json::Value;

/// Time until all panels have data: scores come every 15 s, pressure needs two samples in a minute.
const DEADLINE: Duration = Duration::from_secs(120);
/// What a dashboard shows unless told otherwise.
const SHOWN_MINUTES: i64 = 30;

/// One query of one panel, with Grafana's variables filled in.
#[derive(Debug)]
struct Target {
    place: String,
    expr: String,
    instant: bool,
}

#[test]
fn every_query_of_every_panel_gets_data() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let rules = dir.path().join("rules.yaml");
    let always = "groups: [{name: test, interval: 1s, rules: [{alert: Always, expr: vector(1)}]}]\n";
    std::fs::write(&rules, always).expect("the test's folder is writable");
    let config =
        format!("rules: {{ files: [{}] }}\npredict: {{ interval: 1s, ledger_interval_min: 5s }}\n", rules.display());
    let server = Server::start(dir.path(), &config);
    let _agent = start_agent(dir.path(), &server.url);
    send_the_past_of_a_filling_disk(&server);

    let targets: Vec<Target> = dashboards().iter().flat_map(targets).collect();
    assert!(targets.len() > 15, "the dashboards have {} queries", targets.len());
    let empty = || targets.iter().filter(|target| !has_data(&server, target)).collect::<Vec<_>>();
    let begin = std::time::Instant::now();
    while !empty().is_empty() {
        assert!(begin.elapsed() < DEADLINE, "no data after {DEADLINE:?}: {:#?}", empty());
        std::thread::sleep(Duration::from_secs(1));
    }
    for file in dashboards() {
        assert_variables_have_values(&server, &file);
    }
    assert_what_rules_read_exists(&server);
}

#[test]
fn the_provisioning_files_name_what_the_dashboards_use() {
    let read = |path: &str| -> Value {
        let found = files("dashboards/grafana/provisioning");
        let file = found.iter().find(|file| file.path.ends_with(path)).expect("the file is there");
        petrel_agent::yaml::read(&file.path, &file.text).expect("it is YAML")
    };
    let source = &read("datasources/petrel.yaml")["datasources"][0];
    assert_eq!((&source["type"], &source["uid"]), (&Value::from("prometheus"), &Value::from("petrel")));
    assert_eq!(source["url"], "http://127.0.0.1:9780", "where petrel listens by default");
    let provider = &read("dashboards/petrel.yaml")["providers"][0];
    assert_eq!(provider["type"], "file");
    assert!(provider["options"]["path"].as_str().is_some_and(|path| path.starts_with('/')));
    for file in dashboards() {
        let board: Value = serde_json::from_str(&file.text).expect("it is JSON");
        for panel in board["panels"].as_array().expect("a dashboard has panels") {
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}: {}", file.path.display(), panel["title"]);
            assert_eq!(panel["datasource"]["type"], "prometheus", "{}: {}", file.path.display(), panel["title"]);
        }
    }
}

fn dashboards() -> Vec<Source> {
    let found: Vec<Source> = files("dashboards/grafana")
        .into_iter()
        .filter(|file| file.path.extension().is_some_and(|end| end == "json"))
        .collect();
    assert!(!found.is_empty(), "there are dashboards");
    found
}

fn targets(file: &Source) -> Vec<Target> {
    let board: Value = serde_json::from_str(&file.text).expect("a dashboard is JSON");
    let mut found = Vec::new();
    let mut waiting: Vec<&Value> = board["panels"].as_array().expect("a dashboard has panels").iter().collect();
    while let Some(panel) = waiting.pop() {
        // Rows hold panels of their own.
        waiting.extend(panel["panels"].as_array().into_iter().flatten());
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expr = target["expr"].as_str().expect("a target has an expression");
            found.push(Target {
                place: format!("{}: {}", file.path.display(), panel["title"]),
                expr: expr.replace("$host", ".*").replace("$__rate_interval", "1m"),
                instant: target["instant"].as_bool().unwrap_or(false),
            });
        }
    }
    found
}

/// Whether a query answers at least one number.
fn has_data(server: &Server, target: &Target) -> bool {
    assert!(!target.expr.contains('$'), "{}: a variable is not filled in: {}", target.place, target.expr);
    let now = now_ms() / 1000;
    let answer = if target.instant {
        server.ask("/api/v1/query", &[("query", &target.expr)])
    } else {
        let (from, to) = ((now - SHOWN_MINUTES * 60).to_string(), now.to_string());
        server.ask("/api/v1/query_range", &[("query", &target.expr), ("start", &from), ("end", &to), ("step", "15")])
    };
    assert_eq!(answer["status"], "success", "{}: `{}`: {answer}", target.place, target.expr);
    let result = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    let number = |pair: &Value| pair[1].as_str().is_some_and(|text| text.parse().is_ok_and(|v: f64| !v.is_nan()));
    result
        .iter()
        .any(|series| number(&series["value"]) || series["values"].as_array().is_some_and(|all| all.iter().any(number)))
}

/// `label_values(metric, label)` is what our dashboards ask for their variables.
fn assert_variables_have_values(server: &Server, file: &Source) {
    let board: Value = serde_json::from_str(&file.text).expect("a dashboard is JSON");
    for variable in board["templating"]["list"].as_array().expect("a dashboard has variables") {
        if variable["type"] != "query" {
            continue;
        }
        let asked = variable["query"]["query"].as_str().expect("a query variable has a query");
        let inner = asked.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).expect("label_values");
        let (metric, label) = inner.rsplit_once(", ").expect("a metric and a label");
        let answer = server.ask(&format!("/api/v1/label/{label}/values"), &[("match[]", metric)]);
        assert!(answer["data"].as_array().is_some_and(|values| !values.is_empty()), "{asked}: {answer}");
    }
}

/// A rule on a metric that nobody collects never fires, and nobody notices.
fn assert_what_rules_read_exists(server: &Server) {
    let mut known: BTreeSet<String> = ["up", "ALERTS", "ALERTS_FOR_STATE"].map(str::to_owned).into();
    let names = server.ask("/api/v1/label/__name__/values", &[]);
    known.extend(names["data"].as_array().expect("names").iter().filter_map(|name| name.as_str().map(str::to_owned)));
    // What this machine does not have (swap, pressure, disks) is in the recorded one; counters that nothing moved yet are in
    // the catalogues of our own metrics.
    for file in files("agent/testdata/collect").iter().filter(|file| file.path.ends_with("expected.prom")) {
        known.extend(
            file.text.lines().filter_map(|line| Some(line.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())),
        );
    }
    // The server names its metrics in one file, the agent each where it is made.
    let server_names = files("server/src").into_iter().filter(|file| file.path.ends_with("telemetry.rs"));
    for file in server_names.chain(files("agent/src")) {
        let is_own = |word: &&str| ["petrel_", "probe_", "scrape_"].iter().any(|prefix| word.starts_with(prefix));
        known.extend(file.text.split('"').filter(is_own).map(str::to_owned));
    }
    // What asks a program or a device has its names in its source; no machine has all of those.
    for file in files("agent/src/collect") {
        let is_name =
            |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        let begins =
            |word: &&str| ["ha_cluster_", "ipmi_", "petrel_", "smartctl_"].iter().any(|begin| word.starts_with(begin));
        known.extend(file.text.split('"').filter(is_name).filter(begins).map(str::to_owned));
    }
    let files: Vec<_> = rules::shipped().iter().map(|(name, text)| (name.into(), (*text).to_owned())).collect();
    let set = rules::load(&files).expect("the shipped rules are right");
    for (group, rule) in set.rules() {
        let expr = query::parse(&rule.expr).expect("the shipped rules are right");
        for metric in expr.selectors().iter().filter_map(|selector| selector.metric()) {
            assert!(known.contains(metric), "{}: {} reads `{metric}`, which nobody collects", group.file, rule.name);
        }
    }
    // Queries inside templates, of rules and of runbooks, by their shape: a name followed by a brace.
    let texts = rules::shipped().iter().chain(petrel_server::remedy::shipped::shipped());
    for (name, text) in texts {
        for (end, _) in text.match_indices('{') {
            let word = text[..end].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or("");
            if word.starts_with("node_") || word.starts_with("petrel_") || word.starts_with("haproxy_") {
                assert!(
                    known.contains(word) || word.starts_with("haproxy_"),
                    "{name} reads `{word}`, which nobody collects"
                );
            }
        }
    }
}

/// An hour is short for a forecast of a day, so one host's disk comes with its past: a day of filling, by remote write.
fn send_the_past_of_a_filling_disk(server: &Server) {
    const SIZE: f64 = 1e12;
    let (now, day) = (now_ms(), 24 * 3_600_000);
    let minutes = || (0..=24 * 60).map(|minute| now - day + minute * 60_000);
    // 60 % free a day ago, 12 % now: full in six hours.
    let avail: Vec<(i64, f64)> =
        minutes().map(|t| (t, SIZE * (0.60 - 0.48 * (t - (now - day)) as f64 / day as f64))).collect();
    let size: Vec<(i64, f64)> = minutes().map(|t| (t, SIZE)).collect();
    let labels = |name: &'static str| {
        [
            ("__name__", name),
            ("device", "/dev/vda1"),
            ("fstype", "ext4"),
            ("instance", "filling"),
            ("job", "node"),
            ("mountpoint", "/srv"),
        ]
    };
    let (avail_labels, size_labels) = (labels("node_filesystem_avail_bytes"), labels("node_filesystem_size_bytes"));
    let body = remote_write::request(&[(&avail_labels, &avail), (&size_labels, &size)]);
    let (status, words) = server.post_bytes("/api/v1/write", &[], body).expect("the server is there");
    assert_eq!(status, 204, "{words}");
}

fn start_agent(dir: &Path, url: &str) -> Process {
    let config = dir.join("agent.yaml");
    let state = dir.join("agent");
    let text = format!(
        "servers: [{url}]\nstate_dir: {}\ncollect: {{ interval: 1s }}\nlogs: {{ files: [] }}\n",
        state.display()
    );
    std::fs::write(&config, text).expect("the test's folder is writable");
    let mut command = std::process::Command::new(program("petrel-agent"));
    Process::start(command.arg("--config").arg(config), &dir.join("agent.log"))
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}
