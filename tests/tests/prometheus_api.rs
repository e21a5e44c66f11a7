//! The Prometheus API against a real Prometheus: both get the same samples by remote write and must answer the same; and a
//! Prometheus that reads from Petrel by remote read finds every sample there.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use petrel_tests::petrel::{Server, http_client};
use petrel_tests::prometheus::{Prometheus, get};
use petrel_tests::remote_write;
use prost::Message;
use serde_json::Value;

/// Steps between samples, as many scrapers have them.
const STEP_MS: i64 = 15_000;
/// Samples of each series: more than a chunk of 120 holds.
const SAMPLES: i64 = 200;

/// Where Prometheus begins a new chunk whatever the old one holds.
const BLOCK_MS: i64 = 7_200_000;

/// A moment about an hour ago, off the full second: whether a window takes the sample at its left edge differs between
/// versions. The ten minutes from it on lie in one block of Prometheus.
fn begin() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as i64;
    let hour_ago = (now - 3_600_000) / 60_000 * 60_000 + 3_217;
    let left = BLOCK_MS - hour_ago % BLOCK_MS;
    if left > 600_000 { hour_ago } else { hour_ago - 900_000 }
}

/// Counters of two hosts, a gauge with odd values, one that ends with a staleness marker, and a histogram.
fn request(begin: i64) -> Vec<u8> {
    let times = || (0..SAMPLES).map(move |i| begin + i * STEP_MS);
    let counter =
        |rate: f64| -> Vec<(i64, f64)> { times().enumerate().map(|(i, t)| (t, (i % 150) as f64 * rate)).collect() };
    let (a, b) = (counter(1.5), counter(7.25));
    let mut odd: Vec<(i64, f64)> = times().map(|t| (t, (t / 1000 % 97) as f64 / 7.0)).collect();
    (odd[3].1, odd[4].1, odd[5].1) = (f64::NAN, f64::INFINITY, -1e-9);
    let mut ended: Vec<(i64, f64)> = times().take(20).map(|t| (t, 1.0)).collect();
    ended.push((begin + 20 * STEP_MS, f64::from_bits(0x7ff0_0000_0000_0002)));
    let bucket =
        |part: f64| -> Vec<(i64, f64)> { times().enumerate().map(|(i, t)| (t, (i as f64 * part).floor())).collect() };
    let (le1, le5, inf) = (bucket(0.5), bucket(2.25), bucket(3.0));
    remote_write::request(&[
        (&[("__name__", "jobs_total"), ("instance", "a:1"), ("job", "x")], &a),
        (&[("__name__", "jobs_total"), ("instance", "b:1"), ("job", "x")], &b),
        (&[("__name__", "odd"), ("job", "x"), ("text", "quote \" slash \\ line \n é")], &odd),
        (&[("__name__", "ended"), ("job", "y")], &ended),
        (&[("__name__", "took_bucket"), ("job", "x"), ("le", "1")], &le1),
        (&[("__name__", "took_bucket"), ("job", "x"), ("le", "5")], &le5),
        (&[("__name__", "took_bucket"), ("job", "x"), ("le", "+Inf")], &inf),
    ])
}

fn feed(petrel: &Server, body: Vec<u8>) {
    let headers = [("content-encoding", "snappy"), ("content-type", "application/x-protobuf")];
    let answer = petrel.post_bytes("/api/v1/write", &headers, body);
    assert!(answer.as_ref().is_some_and(|(status, _)| *status == 204), "{answer:?}");
}

fn petrel(dir: &Path, more: &str) -> Server {
    let dir = dir.join("petrel");
    std::fs::create_dir_all(&dir).expect("a folder for the server");
    // Its own and derived series would be in the lists beside the test's.
    Server::start(&dir, &format!("score: {{ enabled: false }}\npredict: {{ enabled: false }}\n{more}"))
}

/// Paths that must be answered with the same JSON, but for the words of errors.
fn paths(begin: i64) -> Vec<String> {
    let (start, end) = (begin / 1000 + 300, begin / 1000 + SAMPLES * STEP_MS / 1000 - 60);
    let only = "match[]=%7Bjob%3D~%22x%7Cy%22%7D";
    let mut paths: Vec<String> = [
        "/api/v1/series?match[]=jobs_total",
        "/api/v1/series?match[]=jobs_total&match[]=took_bucket",
        "/api/v1/series?match[]=%7Bjob%3D%22y%22%7D",
        "/api/v1/series",
        "/api/v1/series?match[]=%7B%7D",
        "/api/v1/series?match[]=jobs_total[5m]",
        "/api/v1/series?match[]=jobs_total&start=noon",
        "/api/v1/label/le/values",
        "/api/v1/label/nothing/values",
        "/api/v1/label/instance/values?match[]=jobs_total",
        "/api/v1/labels?match[]=jobs_total&match[]=odd",
        "/api/v1/query_exemplars?query=jobs_total&start=0&end=1",
        "/api/v1/query_exemplars?query=jobs_total&start=1&end=0",
        "/api/v1/query_exemplars?query=jobs_total%7B&start=0&end=1",
        "/api/v1/format_query?query=sum(rate(jobs_total[5m]))by(job)",
        "/api/v1/format_query?query=jobs_total%2B",
        "/api/v1/query?query=1%2B",
        "/api/v1/query?query=up&time=noon",
        "/api/v1/query?query=jobs_total%20%2B%20on(job)%20jobs_total",
        "/api/v1/query_range?query=up&start=2&end=1&step=1",
        "/api/v1/query_range?query=up&start=1&end=2&step=0",
        "/api/v1/query_range?query=up&start=0&end=100000&step=1",
        "/api/v1/query_range?query=odd[5m]&start=0&end=10&step=1",
        "/api/v1/rules?type=both",
        "/api/v1/rules",
        "/api/v1/alerts",
        "/api/v1/alertmanagers",
        "/api/v1/metadata?metric=nothing",
        "/api/v1/metadata?limit=many",
        "/api/v1/targets/metadata?metric=nothing",
        "/api/v1/targets?state=dropped",
        "/api/v1/nothing",
    ]
    .map(str::to_owned)
    .into();
    for query in
        ["jobs_total", "odd", "rate(jobs_total[5m])", "ended", "histogram_quantile(0.9,rate(took_bucket[5m]))", "1/0"]
    {
        paths.push(format!("/api/v1/query?query={query}&time={end}"));
        paths.push(format!("/api/v1/query?query={query}&time={start}"));
        paths.push(format!("/api/v1/query_range?query={query}&start={start}&end={end}&step=37"));
    }
    paths.push(format!("/api/v1/query?query=odd[2m]&time={}", begin / 1000 + 90));
    paths.push(format!("/api/v1/query?query=%22text%22&time={end}"));
    paths.push(format!("/api/v1/labels?{only}&start={start}&end={end}"));
    paths.push(format!("/api/v1/label/job/values?{only}&start={start}&end={end}"));
    paths
}

#[test]
fn the_same_samples_give_the_same_answers_as_prometheus() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let (petrel, prometheus) =
        (petrel(dir.path(), "rules: { shipped: false }\n"), Prometheus::start(&dir.path().join("prometheus"), ""));
    let begin = begin();
    prometheus.write(request(begin));
    feed(&petrel, request(begin));
    let client = http_client();
    let mut differences = Vec::new();
    for path in paths(begin) {
        let (ours, theirs) = (get(&client, &petrel.url, &path), prometheus.get(&path));
        if comparable(&ours) != comparable(&theirs) {
            differences.push(format!("{path}\n  ours:   {} {}\n  theirs: {} {}", ours.0, ours.1, theirs.0, theirs.1));
        }
    }
    assert!(differences.is_empty(), "{} answers differ:\n{}", differences.len(), differences.join("\n"));

    // The statistics are the same where nothing but these series is in them.
    let count = |answer: (u16, String), of: &str| -> Vec<String> {
        let json: Value = serde_json::from_str(&answer.1).expect("JSON");
        let rows = json["data"][of].as_array().cloned().unwrap_or_default();
        let ours = rows
            .iter()
            .filter(|row| ["jobs_total", "took_bucket", "odd", "ended"].iter().any(|name| row["name"] == *name));
        ours.map(ToString::to_string).collect()
    };
    let path = "/api/v1/status/tsdb?limit=10000";
    let of = "seriesCountByMetricName";
    let (mut ours, mut theirs) = (count(get(&client, &petrel.url, path), of), count(prometheus.get(path), of));
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
}

/// Status and JSON without the words of errors, which differ as languages do, and without what only newer versions have.
fn comparable((status, text): &(u16, String)) -> (u16, Value) {
    let mut json: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    if let Some(fields) = json.as_object_mut() {
        fields.remove("error");
        fields.remove("infos");
    }
    if let Some(data) = json["data"].as_object_mut() {
        data.remove("droppedTargetCounts");
    }
    (*status, numbers(json))
}

/// All numbers as floats (1.500 is 1.5), and values to twelve digits: the order of additions may differ.
fn numbers(json: Value) -> Value {
    match json {
        Value::Number(number) => number.as_f64().map_or(Value::Null, Value::from),
        Value::String(text) if text.contains('.') => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => format!("{value:.11e}").into(),
            _ => text.into(),
        },
        Value::Array(items) => items.into_iter().map(numbers).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, numbers(value))).collect::<serde_json::Map<_, _>>().into()
        }
        other => other,
    }
}

#[test]
fn a_prometheus_that_reads_from_petrel_finds_every_sample() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let petrel = petrel(dir.path(), "rules: { shipped: false, external_labels: { site: north } }\n");
    let begin = begin();
    feed(&petrel, request(begin));
    let config = format!("remote_read:\n- url: {}/api/v1/read\n  read_recent: true\n", petrel.url);
    let prometheus = Prometheus::start(&dir.path().join("prometheus"), &config);
    let end = begin + (SAMPLES - 1) * STEP_MS;
    let found = prometheus.query("count_over_time(jobs_total[1h])", end);
    assert_eq!(found.len(), 2, "{found:?}");
    for (labels, count) in &found {
        assert_eq!((count.as_str(), &labels["site"]), ("200", &Value::from("north")), "{labels}");
    }
    // The server's own label may be asked for though no series has it.
    assert_eq!(prometheus.query(r#"jobs_total{site="north"}"#, end).len(), 2);
    // Markers arrive as markers, and odd values as they are.
    assert!(prometheus.query("ended", begin + 21 * STEP_MS).is_empty());
    assert_eq!(prometheus.query("ended", begin + 10 * STEP_MS).len(), 1);
    assert_eq!(prometheus.query("odd", begin + 4 * STEP_MS)[0].1, "+Inf");
    for promql in ["rate(jobs_total[5m])", "histogram_quantile(0.9, rate(took_bucket[5m]))", "odd"] {
        let path = format!("/api/v1/query?query={}&time={}", promql.replace(' ', "%20"), end / 1000);
        let mut theirs: Value = serde_json::from_str(&prometheus.get(&path).1).expect("JSON");
        for one in theirs["data"]["result"].as_array_mut().expect("a vector") {
            one["metric"].as_object_mut().expect("labels").remove("site");
        }
        let ours: Value = serde_json::from_str(&get(&http_client(), &petrel.url, &path).1).expect("JSON");
        assert_eq!(sorted(&numbers(ours)), sorted(&numbers(theirs)), "{promql}");
    }
}

fn sorted(answer: &Value) -> Vec<String> {
    let mut rows: Vec<String> =
        answer["data"]["result"].as_array().expect("a vector").iter().map(ToString::to_string).collect();
    rows.sort();
    rows
}

/// A remote read request, made without the server's own code.
#[derive(Clone, PartialEq, Message)]
struct ReadRequest {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<Query>,
    #[prost(int32, repeated, tag = "2")]
    accepted: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Query {
    #[prost(int64, tag = "1")]
    start: i64,
    #[prost(int64, tag = "2")]
    end: i64,
    #[prost(message, repeated, tag = "3")]
    matchers: Vec<Matcher>,
}

#[derive(Clone, PartialEq, Message)]
struct Matcher {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    value: String,
}

#[test]
fn streamed_chunks_are_byte_for_byte_those_of_prometheus() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let (petrel, prometheus) = (petrel(dir.path(), ""), Prometheus::start(&dir.path().join("prometheus"), ""));
    let begin = begin();
    prometheus.write(request(begin));
    feed(&petrel, request(begin));
    // Less than a chunk: where a longer series is cut is each server's own choice.
    let matchers = vec![Matcher { kind: 2, name: "__name__".to_owned(), value: "ended|nothing".to_owned() }];
    let query = Query { start: begin, end: begin + SAMPLES * STEP_MS, matchers };
    let request = ReadRequest { queries: vec![query], accepted: vec![1] }.encode_to_vec();
    let body = snap::raw::Encoder::new().compress_vec(&request).expect("a small request can be compressed");
    let ask = |url: &str| {
        let request = http_client().post(format!("{url}/api/v1/read")).header("content-encoding", "snappy");
        let answer = request.body(body.clone()).send().expect("the server is there");
        let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
        (answer.status().as_u16(), kind, answer.bytes().expect("a body"))
    };
    let (ours, theirs) = (ask(&petrel.url), ask(&prometheus.url));
    assert!(ours.2.len() > 60, "{ours:?}");
    assert_eq!(ours, theirs);
}
