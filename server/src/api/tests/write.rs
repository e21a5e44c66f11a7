//! Tests of the receivers through the router, with a real store.

use axum::body::{Body as RequestBody, to_bytes};
use axum::http::Request;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::*;
use crate::clock;
use crate::query::source::{Source as _, TimeRange};
use crate::store::StoreOptions;

const NOW: i64 = 1_790_000_000_000;
const AGENT: [(&str, &str); 4] =
    [(HEADER_AGENT, "h1"), (HEADER_EPOCH, "abc"), (HEADER_CLASS, "metrics"), (HEADER_SEQ, "1")];

struct Server {
    _dir: TempDir,
    store: Arc<Store>,
    router: Router,
}

fn server(options: StoreOptions) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path(), options, &[], NOW).unwrap();
    let limits = WriteLimits { body_bytes_max: 1 << 20, decoded_bytes_max: 1 << 20 };
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

    fn stored(&self) -> Vec<String> {
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

fn otlp(values: &[(i64, f64)]) -> Vec<u8> {
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
            WRITTEN.iter().map(|name| response.headers()[*name].to_str().unwrap().to_owned()).collect();
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
        ("/v1/metrics", vec![("content-encoding", "zstd")], bomb, 413, "1048576 bytes when decompressed"),
        ("/v1/metrics", vec![], vec![0; 2 << 20], 413, "length limit"),
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
async fn a_disk_without_room_is_told_to_come_again() {
    let server = server(StoreOptions { disk_reserve_bytes: u64::MAX, ..StoreOptions::default() });
    let (status, answer) = server.post("/v1/metrics", &AGENT, otlp(&[(NOW, 1.0)])).await;
    assert_eq!(status, 503);
    assert!(answer.contains("less than the reserve"), "{answer}");
}

#[test]
fn limits_are_checked() {
    let limits = RawWriteLimits::default().check().unwrap();
    assert_eq!(limits, WriteLimits { body_bytes_max: 32 << 20, decoded_bytes_max: 64 << 20 });
    let wrong = RawWriteLimits { body_max: Size(1), ..RawWriteLimits::default() };
    assert!(wrong.check().unwrap_err().to_string().contains("write.body_max"));
}
