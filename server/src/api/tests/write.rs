//! Tests of the receivers through the router, with a real store.

use axum::body::{Body as RequestBody, to_bytes};
use axum::http::Request;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric};
use opentelemetry_proto::tonic::resource::v1::Resource;
use petrel_agent::stream::protocol::{HEADER_AGENT, HEADER_CLASS, HEADER_EPOCH, HEADER_SEQ};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::*;
use crate::clock;
use crate::ingest::labels::LabelLimits;
use crate::query::source::{Source as _, TimeRange};
use crate::store::StoreOptions;

pub(super) const NOW: i64 = 1_790_000_000_000;
const AGENT: [(&str, &str); 4] =
    [(HEADER_AGENT, "h1"), (HEADER_EPOCH, "abc"), (HEADER_CLASS, "metrics"), (HEADER_SEQ, "1")];

pub(super) struct Server {
    _dir: TempDir,
    pub(super) store: Arc<Store>,
    pub(super) router: Router,
}

fn server(options: StoreOptions) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options, &[], NOW).unwrap();
    let limits = limits();
    let router = router(Arc::clone(&store), clock::fixed(NOW), limits, Arc::default(), Arc::default());
    Server { _dir: dir, store, router }
}

pub(super) fn limits() -> WriteLimits {
    let limits = RawWriteLimits::default().check().unwrap();
    WriteLimits { body_bytes_max: 1 << 20, decoded_bytes_max: 1 << 20, in_flight_bytes_max: 4 << 20, ..limits }
}

pub(super) fn server_with(limits: WriteLimits) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { disk_reserve_bytes: 0, ..StoreOptions::default() };
    let store = Store::open(dir.path(), options, &[], NOW).unwrap();
    let router = router(Arc::clone(&store), clock::fixed(NOW), limits, Arc::default(), Arc::default());
    Server { _dir: dir, store, router }
}

fn plain() -> Server {
    server(StoreOptions { disk_reserve_bytes: 0, ..StoreOptions::default() })
}

impl Server {
    async fn post(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, String) {
        let mut request = Request::post(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(RequestBody::from(body)).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let retry = response.headers().contains_key(header::RETRY_AFTER);
        assert_eq!(retry, status == 503, "Retry-After goes with 503 alone here");
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) fn stored(&self) -> Vec<String> {
        let all = TimeRange { from: 0, to: i64::MAX };
        let selected = self.store.select(&[], all, 1_000).unwrap();
        let mut lines: Vec<String> = selected
            .iter()
            .map(|one| format!("{} {:?}", one.labels, one.samples.iter().map(|s| s.v).collect::<Vec<_>>()))
            .collect();
        lines.sort();
        lines
    }
}

pub(super) fn otlp(values: &[(i64, f64)]) -> Vec<u8> {
    let point = |&(t, v): &(i64, f64)| NumberDataPoint {
        time_unix_nano: t as u64 * 1_000_000,
        value: Some(Value::AsDouble(v)),
        ..NumberDataPoint::default()
    };
    let text = |text: &str| Some(AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) });
    let attribute = |key: &str, value| KeyValue { key: key.to_owned(), value: text(value), ..KeyValue::default() };
    let data = metric::Data::Gauge(Gauge { data_points: values.iter().map(point).collect() });
    let metric = Metric { name: "node_load1".to_owned(), data: Some(data), ..Metric::default() };
    let attributes = vec![attribute("service.name", "node"), attribute("service.instance.id", "h1")];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }],
            schema_url: String::new(),
        }],
    }
    .encode_to_vec()
}

#[tokio::test]
async fn an_agents_batch_is_stored_once_with_up() {
    let server = plain();
    let body = zstd::stream::encode_all(&otlp(&[(NOW, 0.5)])[..], 1).unwrap();
    let headers = [&AGENT[..], &[("content-encoding", "zstd"), ("content-type", PROTOBUF)]].concat();
    for _ in 0..2 {
        assert_eq!(server.post("/v1/metrics", &headers, body.clone()).await, (200, String::new()));
    }
    assert_eq!(
        server.stored(),
        ["node_load1{instance=\"h1\", job=\"node\"} [0.5]", "up{instance=\"h1\", job=\"node\"} [1.0]"]
    );
}

#[tokio::test]
async fn the_good_is_stored_and_the_bad_is_named() {
    let server = plain();
    let (status, answer) = server.post("/v1/metrics", &[], otlp(&[(NOW, 1.0), (NOW + 700_000, 2.0)])).await;
    assert_eq!(status, 200);
    assert!(answer.contains("1 samples more than 10 minutes ahead"), "{answer}");
    assert_eq!(server.stored().len(), 1);
}

#[tokio::test]
async fn a_label_that_is_not_text_gets_a_400_and_the_others_are_stored() {
    let server = plain();
    // timeseries { labels { name, value } … samples { value, timestamp } }, by hand because the value is no text.
    let pair = |name: &[u8], value: &[u8]| {
        let inner = [&[0x0a, name.len() as u8], name, &[0x12, value.len() as u8], value].concat();
        [&[0x0a, inner.len() as u8][..], &inner].concat()
    };
    let sample = [&[0x12, 16, 0x09][..], &1.0f64.to_le_bytes(), &[0x10][..], &varint(NOW as u64)].concat();
    let series = |value: &[u8]| {
        let inner = [pair(b"__name__", b"up"), pair(b"job", value), sample.clone()].concat();
        [&[0x0a, inner.len() as u8][..], &inner].concat()
    };
    let body = [series(b"node"), series(b"caf\xe9")].concat();
    let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    let (status, answer) = server.post("/api/v1/write", &[("content-encoding", "snappy")], body).await;
    assert_eq!(status, 400);
    assert!(answer.contains("of label `job` is not UTF-8") && answer.contains("1 stored"), "{answer}");
    assert_eq!(server.stored(), ["up{job=\"node\"} [1.0]"]);
}

const V2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

#[tokio::test]
async fn a_remote_write_2_sender_is_told_what_was_written() {
    let server = plain();
    let sample = [&[0x12, 16, 0x09][..], &1.0f64.to_le_bytes(), &[0x10][..], &varint(NOW as u64)].concat();
    let field = |key: u8, bytes: &[u8]| [&[key, bytes.len() as u8], bytes].concat();
    let symbols: Vec<u8> =
        ["", "__name__", "up", "job", "node"].iter().flat_map(|text| field(0x22, text.as_bytes())).collect();
    let series = |references: &[u8]| field(0x2a, &[field(0x0a, references), sample.clone()].concat());
    let (good, bad) = (series(&[1, 2, 3, 4]), series(&[1, 2, 3, 5]));
    for (body, status, words) in [
        ([&symbols[..], &good].concat(), 204, ""),
        ([&symbols[..], &good, &bad].concat(), 400, "1 not stored: label reference 5 is beyond the 5 symbols"),
    ] {
        let body = snap::raw::Encoder::new().compress_vec(&body).unwrap();
        let request = Request::post("/api/v1/write").header("content-encoding", "snappy").header("content-type", V2);
        let response = server.router.clone().oneshot(request.body(RequestBody::from(body)).unwrap()).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        let written: Vec<_> =
            remote::WRITTEN.iter().map(|name| response.headers()[*name].to_str().unwrap().to_owned()).collect();
        assert_eq!(written, ["1", "0", "0"]);
        let answer = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        assert!(String::from_utf8_lossy(&answer).contains(words), "{answer:?}");
    }
    assert!(server.stored()[0].starts_with("up{job=\"node\"} [1.0"), "{:?}", server.stored());
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let server = plain();
    let bomb = zstd::stream::encode_all(&vec![0u8; 2 << 20][..], 1).unwrap();
    let v3 = [("content-type", "application/x-protobuf;proto=io.prometheus.write.v3.Request")];
    let with = |name, value| {
        let mut headers = AGENT.to_vec();
        headers.retain(|(known, _)| *known != name);
        headers.push((name, value));
        headers
    };
    for (path, headers, body, status, word) in [
        ("/v1/metrics", vec![], vec![0xff; 9], 400, "OTLP metrics"),
        ("/v1/logs", vec![], vec![0xff; 9], 400, "OTLP logs"),
        ("/v1/metrics", vec![("content-type", "application/json")], vec![], 415, "application/x-protobuf"),
        ("/v1/metrics", vec![("content-encoding", "br")], vec![], 415, "gzip, zstd"),
        ("/v1/metrics", vec![("content-encoding", "gzip")], vec![1, 2, 3], 400, "not valid gzip"),
        ("/v1/metrics", vec![("content-encoding", "zstd")], bomb, 413, "(limit write.decoded_max)"),
        ("/v1/metrics", vec![], vec![0; 2 << 20], 413, "1048576 bytes; send smaller batches (limit write.body_max)"),
        ("/v1/metrics", AGENT[..3].to_vec(), vec![], 400, "petrel-seq"),
        ("/v1/metrics", with(HEADER_SEQ, "0"), vec![], 400, "a number from 1 on"),
        ("/v1/metrics", with(HEADER_AGENT, "two words"), vec![], 400, "petrel-agent"),
        ("/v1/logs", AGENT.to_vec(), vec![], 400, "petrel-class"),
        ("/api/v1/write", vec![], vec![0xff; 9], 400, "not valid snappy"),
        ("/api/v1/write", vec![("content-type", V2)], vec![2, 4, 0xff, 0xff], 400, "remote write 2.0 message"),
        ("/api/v1/write", v3.to_vec(), vec![], 415, "io.prometheus.write.v2.Request"),
        ("/api/v1/write", vec![("content-type", "text/plain")], vec![], 415, "prometheus.WriteRequest"),
    ] {
        let (found, answer) = server.post(path, &headers, body).await;
        assert_eq!(found, status, "{path} {headers:?}: {answer}");
        assert!(answer.contains(word), "{path} {headers:?}: {answer}");
    }
    assert!(server.stored().is_empty());
}

#[tokio::test]
async fn a_server_without_room_says_to_come_again_and_takes_no_host_for_silent() {
    let mut server = server(StoreOptions { disk_reserve_bytes: u64::MAX, ..StoreOptions::default() });
    let no_memory = WriteLimits { in_flight_bytes_max: 1, ..limits() };
    for (limits, words) in [(limits(), "less than the reserve"), (no_memory, "write.in_flight_max")] {
        let verdicts: Arc<Mutex<VerdictBook>> = Arc::default();
        let store = Arc::clone(&server.store);
        server.router = router(store, clock::fixed(NOW), limits, Arc::default(), Arc::clone(&verdicts));
        let (status, answer) = server.post("/v1/metrics", &AGENT, otlp(&[(NOW, 1.0)])).await;
        assert_eq!(status, 503);
        assert!(answer.contains(words), "{answer}");
        assert!(verdicts.lock().unwrap().verdict("h1").is_some(), "its batch has arrived all the same");
    }
}

fn refused_by(limit: &str) -> u64 {
    telemetry::INGEST_LIMITS.with_label_values(&[limit]).get()
}

#[tokio::test]
async fn a_body_finds_no_room_beside_those_of_others() {
    let mut server = plain();
    let limits = WriteLimits { in_flight_bytes_max: 100_000, ..limits() };
    let router = router(Arc::clone(&server.store), clock::fixed(NOW), limits, Arc::default(), Arc::default());
    server.router = router.clone();
    // A body of which half has come: it holds that half, until its sender goes or the rest comes.
    let (parts, body) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let body = futures_util::stream::unfold(body, |mut body| async { body.recv().await.map(|part| (part, body)) });
    let request = Request::post("/v1/metrics").body(RequestBody::from_stream(body)).unwrap();
    let half = tokio::spawn(router.oneshot(request));
    let before = refused_by("write.in_flight_max");
    let good = otlp(&[(NOW, 1.0)]);
    // Each part is taken only after the one before it was.
    for _ in 0..3 {
        parts.send(Ok(vec![0; 45_000])).await.unwrap();
    }
    let large = zstd::stream::encode_all(&vec![0u8; 1 << 19][..], 1).unwrap();
    let (status, answer) = server.post("/v1/metrics", &[("content-encoding", "zstd")], large.clone()).await;
    assert!(status == 503 && answer.contains("write.in_flight_max"), "as sent it fits, decompressed not: {answer}");
    let (status, answer) = server.post("/v1/logs", &[("content-encoding", "zstd")], large).await;
    assert!(status == 503 && answer.contains("write.in_flight_max"), "{answer}");
    let snappy = snap::raw::Encoder::new().compress_vec(&vec![0u8; 1 << 19]).unwrap();
    let (status, answer) = server.post("/api/v1/write", &[], snappy).await;
    assert!(status == 503 && answer.contains("write.in_flight_max"), "{answer}");
    let refused = half.await.unwrap().unwrap();
    assert_eq!(refused.status(), 503, "its third part is more than there is room for");
    assert_eq!(refused_by("write.in_flight_max"), before + 4);
    // All of it is given back.
    assert_eq!(server.post("/v1/metrics", &[], good).await, (200, String::new()));
}

#[tokio::test]
async fn labels_beyond_a_limit_are_refused_by_its_name_at_every_door() {
    let server = plain();
    let router_with = |labels| {
        let limits = WriteLimits { labels, ..limits() };
        router(Arc::clone(&server.store), clock::fixed(NOW), limits, Arc::default(), Arc::default())
    };
    let labels = LabelLimits::default();
    let sample = [&[0x12, 16, 0x09][..], &1.0f64.to_le_bytes(), &[0x10][..], &varint(NOW as u64)].concat();
    let field = |key: u8, bytes: &[u8]| [&[key, bytes.len() as u8], bytes].concat();
    let pair =
        |name: &str, value: &str| field(0x0a, &[field(0x0a, name.as_bytes()), field(0x12, value.as_bytes())].concat());
    let one = field(0x0a, &[pair("__name__", "up"), pair("job", "node-exporter"), sample.clone()].concat());
    let symbols = ["", "__name__", "up", "job", "node-exporter"].map(|text| field(0x22, text.as_bytes())).concat();
    let two = [symbols, field(0x2a, &[field(0x0a, &[1, 2, 3, 4]), sample].concat())].concat();
    let snappy = |body: &[u8]| snap::raw::Encoder::new().compress_vec(body).unwrap();
    let doors = [
        ("/api/v1/write", vec![], snappy(&one), 400),
        ("/api/v1/write", vec![("content-type", V2)], snappy(&two), 400),
        // OTLP gives `node_load1{job="node", instance="h1"}`.
        ("/v1/metrics", vec![], otlp(&[(NOW, 1.0)]), 200),
    ];
    for (limits, key) in [
        (LabelLimits { labels_max: 1, ..labels }, "write.labels_max"),
        (LabelLimits { name_bytes_max: 2, ..labels }, "write.label_name_bytes_max"),
        (LabelLimits { value_bytes_max: 3, ..labels }, "write.label_value_bytes_max"),
    ] {
        for (path, headers, body, status) in &doors {
            let counted = || telemetry::INGEST_SAMPLES.with_label_values(&["label_limit"]).get();
            let before = counted();
            let server = Server {
                _dir: tempfile::tempdir().unwrap(),
                store: Arc::clone(&server.store),
                router: router_with(limits),
            };
            let (found, answer) = server.post(path, headers, body.clone()).await;
            assert!(found == *status && answer.contains(key), "{path}, {key}: {found} {answer}");
            assert!(counted() > before, "{path}, {key} is not counted");
        }
    }
    assert!(server.stored().is_empty(), "{:?}", server.stored());
}
