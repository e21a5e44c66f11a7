//! Remote read as a client sees it: a request's bytes in, samples and frames out.

use axum::Router;
use axum::body::to_bytes;
use axum::http::{Request, StatusCode};
use tower::ServiceExt;

use super::super::gate::Gate;
use super::super::queries;
use super::*;
use crate::clock;
use crate::query::source::{MetricMetadata, Selection, View};
use crate::query::{DoorLimits, Memory};

fn api(limits: Limits) -> Router {
    let mut memory = Memory::default();
    memory.load(1000, r#"up{host="a",zone="own"} 1 2 NaN 4.5"#);
    memory.load(1000, r#"up{host="b"} 7"#);
    memory.load(1000, "long 0+1x299");
    queries(Api {
        source: Arc::new(memory),
        clock: clock::fixed(3_000),
        limits,
        gate: Arc::new(Gate::new(DoorLimits::default(), crate::api::prometheus::gate::roomy())),
        external_labels: Arc::new(BTreeMap::from([("zone".to_owned(), "z".to_owned())])),
    })
}

fn asked(matchers: &[(i32, &str, &str)], kinds: &[i32]) -> Vec<u8> {
    let matchers = matchers.iter().map(|(kind, name, value)| LabelMatcher {
        r#type: *kind,
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    });
    let query = prompb::Query { start_timestamp_ms: 0, end_timestamp_ms: 1_000_000, matchers: matchers.collect() };
    let request = ReadRequest { queries: vec![query], accepted_response_types: kinds.to_vec() };
    snap::raw::Encoder::new().compress_vec(&request.encode_to_vec()).unwrap()
}

async fn post(limits: Limits, body: Vec<u8>) -> (StatusCode, String, Vec<u8>) {
    let request =
        Request::post("/api/v1/read").header(header::CONTENT_ENCODING, "snappy").body(Body::from(body)).unwrap();
    let response = api(limits).oneshot(request).await.unwrap();
    let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    (response.status(), kind, to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec())
}

fn text(labels: &[Label]) -> String {
    labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn samples_come_in_one_message_with_the_servers_own_labels() {
    // The matcher of the server's own label is no matcher of series.
    let body = asked(&[(0, "__name__", "up"), (0, "zone", "z"), (2, "host", "a|b")], &[]);
    let (status, kind, body) = post(Limits::default(), body).await;
    assert_eq!((status, kind.as_str()), (StatusCode::OK, "application/x-protobuf"));
    let body = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let answer = ReadResponse::decode(body.as_slice()).unwrap();
    let series: Vec<String> = answer.results[0]
        .timeseries
        .iter()
        .map(|one| {
            let samples: Vec<String> =
                one.samples.iter().map(|sample| format!("{}@{}", sample.value, sample.timestamp)).collect();
            format!("{} {}", text(&one.labels), samples.join(" "))
        })
        .collect();
    assert_eq!(series, ["__name__=up,host=a,zone=own 1@0 2@1000 NaN@2000 4.5@3000", "__name__=up,host=b,zone=z 7@0"]);
}

/// Has only a summary: 7 is estimated, and 8 was recorded.
struct Summary;

impl Source for Summary {
    fn select(&self, matchers: &[Matcher], range: TimeRange, samples_max: u64) -> Result<Vec<Selected>, SelectError> {
        self.find(matchers, range, View::PLAIN, samples_max)?.all()
    }

    fn find<'a>(
        &'a self,
        _: &[Matcher],
        _: TimeRange,
        view: View,
        _: u64,
    ) -> Result<Box<dyn Selection + 'a>, SelectError> {
        let v = if view == View::RECORDED { 8.0 } else { 7.0 };
        let labels = Labels::new([("__name__", "old")]);
        Ok(Box::new(vec![Selected { labels, samples: vec![Sample { t: 2_500, v }] }]))
    }

    fn series(&self, _: &[Vec<Matcher>], _: TimeRange) -> Result<Vec<Labels>, SelectError> {
        Ok(Vec::new())
    }

    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        Vec::new()
    }
}

#[tokio::test]
async fn what_leaves_for_others_to_keep_was_recorded() {
    let router = || {
        queries(Api {
            source: Arc::new(Summary),
            clock: clock::fixed(3_000),
            limits: Limits::default(),
            gate: Arc::new(Gate::new(DoorLimits::default(), crate::api::prometheus::gate::roomy())),
            external_labels: Arc::default(),
        })
    };
    let read = Request::post("/api/v1/read").header(header::CONTENT_ENCODING, "snappy");
    let read = read.body(Body::from(asked(&[(0, "__name__", "old")], &[]))).unwrap();
    let body = to_bytes(router().oneshot(read).await.unwrap().into_body(), 1 << 20).await.unwrap();
    let answer = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
    let answer = ReadResponse::decode(answer.as_slice()).unwrap();
    assert_eq!(answer.results[0].timeseries[0].samples[0].value, 8.0);
    let federate = Request::get("/federate?match[]=old").body(Body::empty()).unwrap();
    let body = to_bytes(router().oneshot(federate).await.unwrap().into_body(), 1 << 20).await.unwrap();
    assert!(body.ends_with(b" 8 2500\n"), "{body:?}");
}

#[tokio::test]
async fn frames_are_whole_and_their_checksums_hold() {
    let (status, kind, body) =
        post(Limits::default(), asked(&[(2, "__name__", "up|long"), (1, "host", "a")], &[1, 0])).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(kind, "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse");
    let mut rest = body.as_slice();
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let length = prost::encoding::decode_varint(&mut rest).unwrap() as usize;
        let (sum, message) = rest[..4 + length].split_at(4);
        assert_eq!(sum, crc32c(message).to_be_bytes());
        rest = &rest[4 + length..];
        for series in ChunkedReadResponse::decode(message).unwrap().chunked_series {
            let chunks: Vec<String> = series
                .chunks
                .iter()
                .map(|chunk| {
                    format!(
                        "{}..{}: {}",
                        chunk.min_time_ms,
                        chunk.max_time_ms,
                        u16::from_be_bytes([chunk.data[0], chunk.data[1]])
                    )
                })
                .collect();
            seen.push(format!("{} {}", text(&series.labels), chunks.join(", ")));
        }
    }
    let want = [
        "__name__=long,zone=z 0..119000: 120, 120000..239000: 120, 240000..299000: 60",
        "__name__=up,host=b,zone=z 0..0: 1",
    ];
    assert_eq!(seen, want);
}

#[tokio::test]
async fn limits_and_mistakes_are_told_in_plain_words() {
    for kinds in [&[][..], &[1]] {
        let limits = Limits { samples_max: 3, ..Limits::default() };
        let (status, _, body) = post(limits, asked(&[(0, "__name__", "up")], kinds)).await;
        let body = String::from_utf8(body).unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(body.contains("exceeded sample limit (3)") && body.contains("query.samples_max"), "{body}");
    }
    let wrong = [
        (asked(&[(2, "a", "(")], &[]), "matcher of label a"),
        (asked(&[(9, "a", "b")], &[]), "unknown type 9"),
        (b"nonsense".to_vec(), "not valid snappy"),
        (snap::raw::Encoder::new().compress_vec(b"\xff\xff").unwrap(), "not a Prometheus remote read message"),
    ];
    for (body, reason) in wrong {
        let (status, _, body) = post(Limits::default(), body).await;
        let body = String::from_utf8(body).unwrap();
        assert!(status == StatusCode::BAD_REQUEST && body.contains(reason), "{status} {body}");
    }
    let (status, _, body) = post(Limits::default(), asked(&[(0, "__name__", "nothing")], &[1])).await;
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
}
