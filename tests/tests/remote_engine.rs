//! Petrel on a remote engine: what Petrel acknowledged arrives there whole although the engine was stopped and Petrel was killed in
//! between, older samples are read back, an absent engine is told, and rules work. Against the real VictoriaMetrics and Prometheus.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use petrel_tests::engine::{Engine, Kind};
use petrel_tests::petrel::Server;
use petrel_tests::process::wait_for;
use petrel_tests::remote_write;
use serde_json::Value;

/// Series of each request, and requests of each phase.
const SERIES: usize = 20;
const ROUNDS: i64 = 15;
const SOON: Duration = Duration::from_secs(60);
const PROTOBUF: &[(&str, &str)] = &[("Content-Type", "application/x-protobuf"), ("Content-Encoding", "snappy")];

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// Writes one round of samples to Petrel; each must be acknowledged. Returns what was written as [`Engine::samples`] shows it.
fn write_round(server: &Server, name: &str, t: i64) -> Vec<(String, i64, String)> {
    let mut written = Vec::new();
    let hosts: Vec<String> = (0..SERIES).map(|i| format!("host{i:02}")).collect();
    let labels: Vec<[(&str, &str); 2]> =
        hosts.iter().map(|host| [("__name__", name), ("host", host.as_str())]).collect();
    let values: Vec<[(i64, f64); 1]> = (0..SERIES).map(|i| [(t, (t % 100_000) as f64 / 4.0 + i as f64)]).collect();
    let series: Vec<_> = labels.iter().zip(&values).map(|(labels, values)| (&labels[..], &values[..])).collect();
    let (status, text) =
        server.post_bytes("/api/v1/write", PROTOBUF, remote_write::request(&series)).expect("the server is there");
    assert!((200..300).contains(&status), "{status} {text}");
    for (host, [(t, value)]) in hosts.iter().zip(&values) {
        let metric = serde_json::json!({ "__name__": name, "host": host });
        written.push((metric.to_string(), *t, value.to_string()));
    }
    written
}

/// The remote engine is away at first and again later, and Petrel is killed while samples wait and while they are sent.
fn everything_acknowledged_arrives(kind: Kind) {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut engine = Engine::start(dir.path(), kind);
    let mut server = Server::start(dir.path(), &engine.config());
    let begin = (now_ms() - 600_000) / 1000 * 1000;
    let mut written = Vec::new();
    let mut t = begin;
    let mut write = |server: &Server, written: &mut Vec<_>, rounds: i64| {
        for _ in 0..rounds {
            t += 1_000;
            written.extend(write_round(server, "arrives_total", t));
        }
    };
    write(&server, &mut written, ROUNDS);
    engine.stop();
    write(&server, &mut written, ROUNDS);
    server.kill_and_restart();
    write(&server, &mut written, ROUNDS);
    engine.start_again();
    // Killed most likely in the middle of sending.
    write(&server, &mut written, ROUNDS);
    server.kill_and_restart();
    write(&server, &mut written, ROUNDS);
    written.sort();
    let at = now_ms() / 1000 + 60;
    let arrived = || {
        engine.flush();
        engine.samples("arrives_total[1h]", at)
    };
    wait_for("all samples to arrive", SOON, || arrived().len() >= written.len());
    assert_eq!(arrived(), written, "samples of {kind:?}");
    let metrics = server.metrics();
    assert!(!metrics.contains(r#"petrel_remote_samples_total{outcome="refused"}"#), "{metrics}");
    assert!(!metrics.contains(r#"petrel_remote_samples_total{outcome="dropped"}"#), "{metrics}");
    assert!(engine.samples("petrel_remote_lag_seconds[1h]", at).len() <= 100, "Petrel's own metrics go there, too");
}

#[test]
fn victoriametrics_gets_everything_that_was_acknowledged() {
    everything_acknowledged_arrives(Kind::VictoriaMetrics);
}

#[test]
fn prometheus_gets_everything_that_was_acknowledged() {
    everything_acknowledged_arrives(Kind::Prometheus);
}

/// Writes a counter to the engine alone: one sample a minute over an hour, a day ago, up to its staleness marker.
fn old_samples(engine: &Engine) -> i64 {
    let begin = (now_ms() - 86_400_000) / 60_000 * 60_000;
    let mut samples: Vec<(i64, f64)> = (0..60).map(|i| (begin + i * 60_000, i as f64 * 60.0)).collect();
    samples.push((begin + 60 * 60_000, f64::from_bits(0x7ff0_0000_0000_0002)));
    let labels: remote_write::Pairs<'_> = &[("__name__", "old_seconds_total"), ("instance", "web1")];
    engine.write(remote_write::request(&[(labels, &samples)]));
    begin
}

fn warnings(answer: &Value) -> String {
    answer["warnings"].to_string()
}

/// Queries over what only the engine has, without the engine, and with it again; rules on top.
fn older_samples_are_read_back(kind: Kind) {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut engine = Engine::start(dir.path(), kind);
    let begin = old_samples(&engine);
    wait_for("the engine to show what it has", SOON, || {
        engine.samples("old_seconds_total[2d]", now_ms() / 1000).len() >= 60
    });
    std::fs::write(dir.path().join("rules.yaml"), RULES).expect("the test's folder is writable");
    let config = format!(
        "store:\n  retention: 2h\nrules:\n  interval: 1s\n  files: [{}]\n{}",
        dir.path().join("rules.yaml").display(),
        engine.config()
    );
    let server = Server::start(dir.path(), &config);
    check_old(&server, begin);
    wait_for("the rule over yesterday to fire", SOON, || is_firing(&server));

    engine.stop();
    let (from, to) = ((begin / 1000).to_string(), (begin / 1000 + 3_600).to_string());
    let range = [("query", "old_seconds_total"), ("start", &from), ("end", &to), ("step", "60")];
    let answer = server.ask("/api/v1/query_range", &range);
    assert_eq!(answer["status"], "success", "{answer}");
    assert!(warnings(&answer).contains("samples of the remote engine are missing"), "{answer}");
    let list = [("match[]", "old_seconds_total"), ("start", &from), ("end", &to)];
    assert!(warnings(&server.ask("/api/v1/series", &list)).contains("are missing"));
    // What is recent needs nobody, and comes without a warning.
    let t = now_ms();
    write_round(&server, "recent_total", t);
    let at = (t as f64 / 1000.0).to_string();
    let recent = [("query", "count(recent_total)"), ("time", &at), ("lookback_delta", "1s")];
    let answer = server.ask("/api/v1/query", &recent);
    assert_eq!((answer["data"]["result"][0]["value"][1].as_str(), &answer["warnings"]), (Some("20"), &Value::Null));
    // The rule fails and keeps its alert: a part of an answer is no proof that the trouble is over.
    wait_for("the rule to fail", SOON, || server.metrics().contains("petrel_rule_failures_total{group=\"yesterday\"}"));
    assert!(is_firing(&server), "the alert is kept");

    engine.start_again();
    wait_for("answers without a warning", SOON, || server.ask("/api/v1/query_range", &range)["warnings"].is_null());
    check_old(&server, begin);
    wait_for("what was written meanwhile to arrive", SOON, || {
        engine.flush();
        engine.samples("recent_total[1h]", now_ms() / 1000 + 60).len() == SERIES
    });
}

const RULES: &str = "groups:
- name: yesterday
  interval: 1s
  rules:
  - alert: Yesterday
    expr: max_over_time(old_seconds_total[2d]) > 3000
";

fn is_firing(server: &Server) -> bool {
    let alerts = server.get("/api/v1/alerts").unwrap_or(Value::Null);
    let alerts = alerts["data"]["alerts"].as_array().cloned().unwrap_or_default();
    alerts.iter().any(|alert| alert["labels"]["alertname"] == "Yesterday" && alert["state"] == "firing")
}

/// Asks for yesterday in all the ways there are.
fn check_old(server: &Server, begin: i64) {
    let (from, to) = ((begin / 1000).to_string(), (begin / 1000 + 3_600).to_string());
    let ask = |query: &str, at: i64| {
        let answer = server.ask("/api/v1/query", &[("query", query), ("time", &(at / 1000).to_string())]);
        assert!(answer["warnings"].is_null(), "{answer}");
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    assert_eq!(ask("count_over_time(old_seconds_total[1d])", begin + 3_600_000).as_deref(), Some("60"));
    assert_eq!(ask("rate(old_seconds_total[10m])", begin + 1_800_000).as_deref(), Some("1"));
    assert_eq!(ask("old_seconds_total", begin + 3_540_000).as_deref(), Some("3540"));
    assert_eq!(ask("old_seconds_total", begin + 3_600_000), None, "the series ended there");
    let range = [("query", "old_seconds_total"), ("start", &from), ("end", &to), ("step", "60")];
    let answer = server.ask("/api/v1/query_range", &range);
    assert_eq!(answer["data"]["result"][0]["values"].as_array().map(Vec::len), Some(60), "{answer}");
    let list = [("start", from.as_str()), ("end", to.as_str()), ("match[]", "old_seconds_total")];
    let answer = server.ask("/api/v1/series", &list);
    assert_eq!(answer["data"][0]["instance"], "web1", "{answer}");
    let answer = server.ask("/api/v1/label/__name__/values", &list);
    assert_eq!(answer["data"], serde_json::json!(["old_seconds_total"]), "{answer}");
}

#[test]
fn victoriametrics_is_read_for_what_is_older() {
    older_samples_are_read_back(Kind::VictoriaMetrics);
}

#[test]
fn prometheus_is_read_for_what_is_older() {
    older_samples_are_read_back(Kind::Prometheus);
}
