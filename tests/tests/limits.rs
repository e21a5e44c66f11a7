//! What the server does at its limits, on real processes: what is new is refused by name, what is known goes on, nothing that was
//! acknowledged is lost. And the guide's table of limits is true: every key, counter and alert in it exists, and speaks.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use petrel_server::query::source::{MetricMetadata, SelectError, Selected, Source, TimeRange};
use petrel_server::query::{self, Limits};
use petrel_server::rules;
use petrel_server::series::{Labels, Matcher, Sample};
use petrel_tests::left_out;
use petrel_tests::petrel::Server;
use petrel_tests::process::{is_root, wait_for};
use petrel_tests::remote_write;
use petrel_tests::small_disk::SmallDisk;
use petrel_tests::tree::repository;
use serde_json::{Value, json};

/// What a healthy server needs at most for any single answer on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// Room under the data directory of the server that runs out of it, and what it keeps.
const DISK_MIB: u64 = 48;
const RESERVE_MIB: u64 = 8;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// Asserts that the words name all these parts.
fn assert_says(words: &str, parts: &[&str]) {
    for part in parts {
        assert!(words.contains(part), "`{part}` is not in: {words}");
    }
}

/// A counter of `/metrics`, by the beginning of its line.
fn counter(server: &Server, name: &str) -> f64 {
    let metrics = server.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).map(str::to_owned);
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("`{name}` is not in:\n{metrics}"))
}

/// One series to which samples are sent, and what was acknowledged of it.
struct Sender {
    acknowledged: Vec<(i64, f64)>,
}

impl Sender {
    fn send(&mut self, server: &Server) -> (u16, String) {
        // Times rise, also where two come within a millisecond.
        let t = now_ms().max(self.acknowledged.last().map_or(0, |(t, _)| t + 1));
        let series: remote_write::Pairs<'_> = &[("__name__", "test_limits"), ("job", "test")];
        let body = remote_write::request(&[(series, &[(t, t as f64)])]);
        let (status, words) = server.post_bytes("/api/v1/write", &[], body).expect("the server is there");
        if status / 100 == 2 {
            self.acknowledged.push((t, t as f64));
        }
        (status, words)
    }

    fn assert_all_there(&self, server: &Server) {
        assert_eq!(server.samples("test_limits[1h]"), self.acknowledged, "all that was acknowledged, and nothing else");
    }
}

const RULES: &str = "groups:\n- name: test\n  interval: 1s\n  rules:\n  - alert: Early\n    expr: vector(1)\n";

#[test]
fn below_the_reserve_samples_are_refused_and_everything_else_goes_on() {
    if !is_root() {
        return left_out::note("limits", "a disk without room needs root to mount a small filesystem");
    }
    let dir = tempfile::tempdir().expect("a folder for the test");
    let disk = SmallDisk::mount(dir.path(), DISK_MIB);
    let rules = dir.path().join("rules.yaml");
    fs::write(&rules, RULES).expect("the test's folder is writable");
    let config = format!(
        "store: {{ disk_reserve: {RESERVE_MIB}MiB }}\nrules: {{ shipped: false, files: [{}] }}\n",
        rules.display()
    );
    let enter = disk.enter();
    let enter: Vec<&str> = enter.iter().map(String::as_str).collect();
    let mut server = Server::start_behind(&enter, dir.path(), &config);
    let mut sender = Sender { acknowledged: Vec::new() };
    for _ in 0..50 {
        assert_eq!(sender.send(&server).0, 204);
    }
    wait_for("the first alert to fire", SOON, || firing(&server).contains(&"Early".to_owned()));

    // Below the reserve: control state is still written, and survives a crash in this state.
    disk.fill((RESERVE_MIB << 20) / 2);
    refused_for_the_disk(&mut sender, &server);
    let counted = counter(&server, "petrel_ingest_limits_total{limit=\"store.disk_reserve\"}");
    assert!(counted >= 2.0, "counted by its key: {counted}");
    fs::write(&rules, RULES.to_owned() + "  - alert: Late\n    expr: vector(2)\n").expect("as above");
    wait_for("a rule that came below the reserve to fire", SOON, || firing(&server).contains(&"Late".to_owned()));
    let (status, answer) = server.post("/petrel/v1/hold", &json!({ "on": true, "by": "alice" }));
    assert_eq!(status, 200, "what operators say is written: {answer}");
    let (status, answer) = server.post("/petrel/v1/hosts/web1/duty", &json!({ "duty": "maintenance", "by": "alice" }));
    assert_eq!(status, 200, "{answer}");
    let since = active_since(&server, "Late");
    server.kill_and_restart();
    sender.assert_all_there(&server);
    wait_for("the alert to be known after the crash", SOON, || firing(&server).contains(&"Late".to_owned()));
    assert_eq!(active_since(&server, "Late"), since, "the alert is the one that began below the reserve");
    assert_eq!(server.get("/petrel/v1/hold").expect("the server answers")["on"], true);

    // Not a byte is left.
    disk.fill(0);
    refused_for_the_disk(&mut sender, &server);
    server.kill_and_restart();
    sender.assert_all_there(&server);
    refused_for_the_disk(&mut sender, &server);
    assert_says(&server.output(), &["samples are refused; senders keep what they have"]);
    assert!(!server.output().contains("derived series are not stored"), "told once, not at every tick");

    disk.free();
    wait_for("samples to be taken again", SOON, || sender.send(&server).0 == 204);
    assert_eq!(sender.send(&server).0, 204);
    sender.assert_all_there(&server);
    let (_, well) = server.stop();
    assert!(well, "{}", server.output());
    server.start_again();
    sender.assert_all_there(&server);
}

/// Samples and log lines get a 503 that says why, queries are answered.
fn refused_for_the_disk(sender: &mut Sender, server: &Server) {
    let (status, words) = sender.send(server);
    assert_eq!(status, 503, "{words}");
    let reserve = format!("free, less than the reserve of {}", RESERVE_MIB << 20);
    assert_says(&words, &[&reserve, "free space", "send again later", "data"]);
    let empty_logs = [("content-type", "application/x-protobuf")];
    let (status, words) = server.post_bytes("/v1/logs", &empty_logs, Vec::new()).expect("the server is there");
    assert_eq!(status, 503, "log lines may not use up the reserve either: {words}");
    sender.assert_all_there(server);
}

fn alerts(server: &Server) -> Vec<Value> {
    let answer = server.get("/api/v1/alerts").unwrap_or_default();
    answer["data"]["alerts"].as_array().cloned().unwrap_or_default()
}

fn firing(server: &Server) -> Vec<String> {
    let firing = alerts(server).into_iter().filter(|alert| alert["state"] == "firing");
    firing.filter_map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned())).collect()
}

fn active_since(server: &Server, name: &str) -> Value {
    let found = alerts(server).into_iter().find(|alert| alert["labels"]["alertname"] == name);
    found.map(|alert| alert["activeAt"].clone()).expect("the alert is there")
}

#[test]
fn near_the_limit_of_memory_known_series_go_on_and_new_ones_are_refused() {
    const MAX_MIB: u64 = 400;
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut server = Server::start(dir.path(), &format!("memory_max: {MAX_MIB}MiB\nrules: {{ shipped: false }}\n"));
    let mut sender = Sender { acknowledged: Vec::new() };
    assert_eq!(sender.send(&server).0, 204);
    let mut next = 0;
    let mut send_new = |bytes: usize, count: u64| {
        let values: Vec<[String; 8]> = (next..next + count)
            .map(|n| std::array::from_fn(|label| format!("{n}-{label}-{}", "x".repeat(bytes))))
            .collect();
        next += count;
        let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let labels: Vec<Vec<(&str, &str)>> = values
            .iter()
            .map(|values| {
                let labels = names.into_iter().zip(values.iter().map(String::as_str));
                [("__name__", "test_new")].into_iter().chain(labels).collect()
            })
            .collect();
        let samples = [(now_ms(), 1.0)];
        let series: Vec<(remote_write::Pairs<'_>, &[(i64, f64)])> =
            labels.iter().map(|labels| (&labels[..], &samples[..])).collect();
        server.post_bytes("/api/v1/write", &[], remote_write::request(&series)).expect("the server is there")
    };
    // Labels of four kilobytes fill the memory quickly; a little beyond the level nothing more is sent, until the server has seen it.
    let mut stored = 0;
    let begun = Instant::now();
    let words = loop {
        let is_near = server.memory_bytes() > (MAX_MIB << 20) * 87 / 100;
        let (bytes, count) = if is_near { (1, 1) } else { (3_900, 20) };
        match send_new(bytes, count) {
            (204, _) => stored += count,
            (400, words) => break words,
            (status, words) => panic!("{status} {words}"),
        }
        assert!(begun.elapsed() < 3 * SOON, "no series was refused at {} MiB", server.memory_bytes() >> 20);
    };
    assert_says(&words, &["not stored", "samples of new series", "limit memory_max", "test_new"]);
    assert_eq!(sender.send(&server).0, 204, "known series go on");
    assert!(counter(&server, "petrel_ingest_samples_total{outcome=\"memory_limit\"}") >= 1.0);
    assert!(counter(&server, "petrel_memory_level") >= 1.0);
    assert_eq!(counter(&server, "petrel_memory_bytes_max"), (MAX_MIB << 20) as f64);
    sender.assert_all_there(&server);
    // Of the request that was refused in part the good part is stored, so there may be more.
    let found = || server.query("count(last_over_time(test_new[1h]))").first().map_or(0.0, |(_, count)| *count);
    assert!(found() >= stored as f64, "{} of {stored} series", found());
    server.kill_and_restart();
    assert_eq!(sender.send(&server).0, 204, "and after a crash, as scarce as memory is");
    sender.assert_all_there(&server);
}

#[test]
fn slow_bodies_are_ended_and_take_no_memory() {
    const CALLERS: usize = 200;
    let dir = tempfile::tempdir().expect("a folder for the test");
    let server = Server::start(dir.path(), "write: { body_timeout: 1s }\n");
    let before = server.memory_bytes();
    let address = server.url.strip_prefix("http://").expect("it is HTTP").to_owned();
    // Each promises 30 MiB and sends a byte, at the doors of senders and elsewhere.
    let mut callers: Vec<(TcpStream, &str)> = ["/api/v1/write", "/v1/metrics", "/v1/logs", "/petrel/v1/hold"]
        .into_iter()
        .cycle()
        .take(CALLERS)
        .map(|path| {
            let mut caller = TcpStream::connect(&address).expect("the server listens");
            let json = "content-type: application/json\r\n";
            let head = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\n");
            let kind = if path == "/petrel/v1/hold" { json } else { "" };
            let head = format!("{head}{kind}content-length: {}\r\n\r\n{{", 30 << 20);
            caller.write_all(head.as_bytes()).expect("the server reads");
            caller.set_read_timeout(Some(SOON)).expect("sockets have time-outs");
            (caller, path)
        })
        .collect();
    let most = server.memory_bytes().saturating_sub(before);
    for (caller, path) in &mut callers {
        let mut answer = String::new();
        // The server may reset the connection after its answer, because the body never came.
        let _ = caller.read_to_string(&mut answer);
        let status = if *path == "/petrel/v1/hold" { 408 } else { 503 };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert_says(&answer, &["limit write.body_timeout"]);
    }
    assert!(most < 64 << 20, "{CALLERS} slow callers took {} MiB", most >> 20);
    let counted = counter(&server, "petrel_ingest_limits_total{limit=\"write.body_timeout\"}");
    assert_eq!(counted, (CALLERS / 4 * 3) as f64);
    assert_eq!(counter(&server, "petrel_requests_denied_total{reason=\"body_timeout\"}"), (CALLERS / 4) as f64);
    assert_eq!(counter(&server, "petrel_ingest_in_flight_bytes"), 0.0, "what they held is given back");
}

/// One row of the guide's table.
struct Row {
    keys: Vec<String>,
    counters: Vec<String>,
    alerts: Vec<String>,
}

#[test]
fn every_limit_in_the_guide_has_its_key_its_counter_and_an_alert_that_speaks() {
    let page = read("docs/guide/limits.md");
    // The table of the server; the agent's own limits have another form.
    let (servers, _) = page.split_once("\n## ").expect("the agent's limits follow");
    let rows: Vec<Row> = servers.lines().filter(|line| line.starts_with("| ")).skip(1).map(row).collect();
    assert!(rows.len() >= 14, "the table has {} rows", rows.len());
    let example: Value = petrel_agent::yaml::read(Path::new("petrel.yaml"), &read("deploy/petrel.example.yaml"))
        .expect("the example is YAML");
    let catalogue = read("server/src/telemetry.rs");
    let files: Vec<_> = rules::shipped().iter().map(|(name, text)| (name.into(), (*text).to_owned())).collect();
    let set = rules::load(&files).expect("the shipped rules are right");
    for row in &rows {
        for key in &row.keys {
            let value = key.split('.').fold(&example, |value, part| &value[part]);
            assert!(!value.is_null(), "{key} is no key of the config");
        }
        for counter in &row.counters {
            let name = counter.split('{').next().unwrap_or_default();
            assert!(catalogue.contains(&format!("\"{name}\"")), "{name} is not in the catalogue");
        }
        assert!(!row.alerts.is_empty() && !row.counters.is_empty(), "{:?} has no counter or no alert", row.keys);
        for alert in &row.alerts {
            let (_, rule) = set
                .rules()
                .find(|(_, rule)| rule.name == *alert)
                .unwrap_or_else(|| panic!("{alert} is no shipped rule"));
            let mut counters = row.counters.iter().flat_map(|counter| series_of(counter, &row.keys));
            let speaks = counters.any(|labels| speaks(&rule.expr, &Fixed(vec![(labels, steps(END, |n| n as f64))])));
            // These look at the disk and at silence: when nothing is stored there is no counter to look at.
            let looks_elsewhere = ["PetrelDiskNearReserve", "PetrelStoresNothing"].contains(&&**alert);
            assert!(speaks || looks_elsewhere, "{alert} is silent about {:?}", row.counters);
        }
    }
    let expr = |name: &str| set.rules().find(|(_, rule)| rule.name == name).expect("it was found above").1.expr.clone();
    let gauge =
        |name: &str, value: f64| (Labels::new([("__name__", name), ("instance", "here")]), steps(END, |_| value));
    let disk =
        |free| Fixed(vec![gauge("petrel_store_disk_bytes_free", free), gauge("petrel_store_disk_bytes_reserved", 9.0)]);
    let near = expr("PetrelDiskNearReserve");
    assert!(speaks(&near, &disk(17.0)) && !speaks(&near, &disk(18.0)));
    let stored = |until| Fixed(vec![(Labels::new([("__name__", "petrel_store_series")]), steps(until, |_| 1.0))]);
    let nothing = expr("PetrelStoresNothing");
    assert!(speaks(&nothing, &stored(END - 180_000)) && !speaks(&nothing, &stored(END)));
}

/// Whether a rule has something to say at [`END`].
fn speaks(expr: &str, source: &Fixed) -> bool {
    let expr = query::parse(expr).expect("the shipped rules are right");
    let answer = query::instant(source, &expr, END, &Limits::default()).expect("it can be evaluated");
    matches!(answer.value, query::Value::Vector(found) if !found.is_empty())
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn row(line: &str) -> Row {
    let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
    let [keys, _, _, counters, alerts] = cells[..] else { panic!("a row has five cells: {line}") };
    let code = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let words = alerts.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.starts_with("Petrel"));
    Row {
        keys: code(keys).into_iter().filter(|key| key.contains('.') || key.contains("_max")).collect(),
        counters: code(counters),
        alerts: words.map(str::to_owned).collect(),
    }
}

/// The series that a counter of the table stands for; `{limit}` alone for each key of its row.
fn series_of(counter: &str, keys: &[String]) -> Vec<Labels> {
    let (name, rest) = counter.split_once('{').unwrap_or((counter, ""));
    let rest = rest.trim_end_matches('}');
    let pairs: Vec<(String, String)> = match rest.split_once('=') {
        Some((label, value)) => vec![(label.to_owned(), value.trim_matches('"').to_owned())],
        None if rest.is_empty() => vec![(String::new(), String::new())],
        None => keys.iter().map(|key| (rest.to_owned(), key.trim_start_matches("query.").to_owned())).collect(),
    };
    let labels = |(label, value): &(String, String)| {
        let label = if label.is_empty() { "job" } else { label };
        let value = if value.is_empty() { "petrel" } else { value };
        Labels::new([("__name__", name), ("instance", "here"), (label, value)])
    };
    pairs.iter().map(labels).collect()
}

/// When rules are evaluated.
const END: i64 = 3_600_000;

/// A sample each 15 seconds.
fn steps(until: i64, value: impl Fn(i64) -> f64) -> Vec<Sample> {
    (0..=until / 15_000).map(|n| Sample { t: n * 15_000, v: value(n) }).collect()
}

/// A few series and their samples.
struct Fixed(Vec<(Labels, Vec<Sample>)>);

impl Source for Fixed {
    fn select(&self, matchers: &[Matcher], range: TimeRange, _: u64) -> Result<Vec<Selected>, SelectError> {
        let found = self.0.iter().filter(|(labels, _)| matchers.iter().all(|matcher| matcher.matches(labels)));
        let within = found.map(|(labels, samples)| {
            let samples = samples.iter().filter(|sample| (range.from..=range.to).contains(&sample.t)).copied();
            Selected { labels: labels.clone(), samples: samples.collect() }
        });
        Ok(within.filter(|one| !one.samples.is_empty()).collect())
    }

    fn series(&self, _: &[Vec<Matcher>], _: TimeRange) -> Result<Vec<Labels>, SelectError> {
        Ok(self.0.iter().map(|(labels, _)| labels.clone()).collect())
    }

    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        Vec::new()
    }
}
