//! Tests of OTLP deltas through the router: what is stored of them, and what PromQL says of that.

use axum::body::{Body as RequestBody, to_bytes};
use axum::http::Request;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
};
use petrel_agent::stream::protocol::{HEADER_AGENT, HEADER_CLASS, HEADER_EPOCH, HEADER_SEQ};
use tempfile::TempDir;
use tower::ServiceExt as _;

use super::*;
use crate::clock;
use crate::ingest::otlp::StreamLimits;
use crate::query::{self, Limits};
use crate::store::StoreOptions;

const NOW: i64 = 1_790_000_000_000;
const DELTA: i32 = AggregationTemporality::Delta as i32;

fn store(disk_reserve_bytes: u64) -> (TempDir, Arc<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let options = StoreOptions { disk_reserve_bytes, ..StoreOptions::default() };
    let store = Store::open(dir.path(), options, &[], NOW).unwrap();
    (dir, store)
}

fn receiver(store: &Arc<Store>, streams: StreamLimits) -> Receiver {
    Receiver {
        store: Arc::clone(store),
        clock: clock::fixed(NOW),
        limits: RawWriteLimits::default().check().unwrap(),
        presence: Arc::default(),
        verdicts: Arc::default(),
        decodes: Arc::new(Semaphore::new(DECODES_MAX)),
        budget: Budget::new(1 << 30),
        buffers: Arc::default(),
        seen: Arc::default(),
        streams: Arc::new(otlp::Streams::new(streams)),
        turns: Arc::default(),
        dictionaries: Arc::new(Dictionaries::new(0)),
        pacer: Arc::default(),
    }
}

async fn post(receiver: &Receiver, headers: &[(&str, &str)], data: metric::Data) -> (u16, String) {
    let metric = Metric { name: "work".to_owned(), data: Some(data), ..Metric::default() };
    let scope_metrics = vec![ScopeMetrics { metrics: vec![metric], ..ScopeMetrics::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }];
    let mut request = Request::post("/v1/metrics");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = RequestBody::from(ExportMetricsServiceRequest { resource_metrics }.encode_to_vec());
    let response = routes(receiver.clone()).oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    (status, String::from_utf8_lossy(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).into_owned())
}

/// The time of a delta that ends so many seconds before now and is ten seconds long.
fn nanos(before_s: i64) -> (u64, u64) {
    let end = (NOW - before_s * 1_000) as u64 * 1_000_000;
    (end - 10_000_000_000, end)
}

fn sum(before_s: i64, value: i64) -> metric::Data {
    let (start_time_unix_nano, time_unix_nano) = nanos(before_s);
    let value = Some(Value::AsInt(value));
    let point = NumberDataPoint { start_time_unix_nano, time_unix_nano, value, ..NumberDataPoint::default() };
    metric::Data::Sum(Sum { data_points: vec![point], aggregation_temporality: DELTA, is_monotonic: true })
}

fn ask(store: &Arc<Store>, text: &str) -> f64 {
    let answer = query::instant(&**store, &query::parse(text).unwrap(), NOW, &Limits::default()).unwrap();
    let query::Value::Vector(samples) = answer.value else { panic!("{text} is no vector") };
    assert_eq!(samples.len(), 1, "{text}");
    samples[0].sample.v
}

#[tokio::test]
async fn a_refused_batch_that_comes_again_counts_once() {
    let ((_full_dir, full), (_dir, store)) = (store(u64::MAX), store(0));
    let roomy = receiver(&store, StreamLimits::default());
    // The same server while its disk is full.
    let refusing = Receiver { store: full, ..roomy.clone() };
    assert_eq!(post(&roomy, &[], sum(20, 5)).await, (200, String::new()));
    assert_eq!(post(&refusing, &[], sum(10, 7)).await.0, 503);
    assert_eq!(post(&refusing, &[], sum(10, 7)).await.0, 503);
    assert_eq!(post(&roomy, &[], sum(10, 7)).await, (200, String::new()));
    assert_eq!(ask(&store, "work_total"), 12.0);
    // The answer was lost: it is sent again.
    let (status, answer) = post(&roomy, &[], sum(10, 7)).await;
    assert!(status == 200 && answer.contains("not newer than the one before"), "{answer}");
    assert_eq!(ask(&store, "work_total"), 12.0);
    assert_eq!(post(&roomy, &[], sum(0, 1)).await, (200, String::new()));
    assert_eq!(ask(&store, "work_total"), 13.0);
    // From the zero a millisecond after the first start to the last sample there are 29.999 s.
    assert!((ask(&store, "increase(work_total[30s])") - 13.0).abs() < 0.01);
}

#[tokio::test]
async fn a_restart_is_no_reset_and_what_came_before_it_stays_old() {
    // The last samples are in journals, or in the file of their day.
    restart(|_| ()).await;
    restart(|store| assert!(store.flush().is_empty())).await;
}

async fn restart(seal: impl Fn(&Store)) {
    let (dir, first) = store(0);
    let before = receiver(&first, StreamLimits::default());
    let level = |before_s, value| {
        let metric::Data::Sum(sum) = sum(before_s, value) else { unreachable!() };
        metric::Data::Sum(Sum { is_monotonic: false, ..sum })
    };
    for data in [sum(40, 1_000), sum(30, 5), level(30, 50), histogram(30)] {
        assert_eq!(post(&before, &[], data).await, (200, String::new()));
    }
    seal(&first);
    first.close();
    drop((before, first));
    let options = StoreOptions { disk_reserve_bytes: 0, ..StoreOptions::default() };
    let store = Store::open(dir.path(), options, &[], NOW).unwrap();
    let after = receiver(&store, StreamLimits::default());
    for data in [sum(40, 1_000), sum(30, 5), histogram(30)] {
        let (status, answer) = post(&after, &[], data).await;
        assert!(status == 200 && answer.contains("not newer than the one before"), "{answer}");
    }
    for data in [sum(20, 7), sum(10, 1), level(20, -20), histogram(20)] {
        assert_eq!(post(&after, &[], data).await, (200, String::new()));
    }
    assert_eq!((ask(&store, "work_total"), ask(&store, "work")), (1_013.0, 30.0));
    assert_eq!(ask(&store, "resets(work_total[1m])"), 0.0);
    let increase = ask(&store, "increase(work_count[1m])");
    assert!((3.0..=7.0).contains(&increase), "4 counted in 20 s, extrapolated: {increase}");
}

/// One value in each of two buckets.
fn histogram(before_s: i64) -> metric::Data {
    let (start_time_unix_nano, time_unix_nano) = nanos(before_s);
    let point = HistogramDataPoint {
        start_time_unix_nano,
        time_unix_nano,
        count: 2,
        bucket_counts: vec![1, 1],
        explicit_bounds: vec![1.0],
        ..HistogramDataPoint::default()
    };
    metric::Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: DELTA })
}

#[tokio::test]
async fn points_farther_apart_than_streams_are_kept_count_in_full() {
    let (_dir, store) = store(0);
    // Each request finds the stream forgotten.
    for n in (0..6).rev() {
        let receiver = receiver(&store, StreamLimits::default());
        for data in [sum(n * 10, 5), histogram(n * 10)] {
            assert_eq!(post(&receiver, &[], data).await, (200, String::new()));
        }
    }
    assert_eq!(ask(&store, "work_total"), 30.0);
    for (name, expected) in [("work_total", 30.0), ("work_count", 12.0)] {
        let increase = ask(&store, &format!("increase({name}[1m])"));
        assert!((increase - expected).abs() < 0.1, "{name}: {increase}");
    }
}

#[tokio::test]
async fn quantiles_are_right_when_the_range_of_an_exponential_histogram_grows() {
    let (_dir, store) = store(0);
    let receiver = receiver(&store, StreamLimits::default());
    // A thousand values in (1, 2], then as many around 2^10, and some around 2^-10.
    for (before_s, offset) in [(20, 0), (10, 10), (0, -10)] {
        let (start_time_unix_nano, time_unix_nano) = nanos(before_s);
        let point = ExponentialHistogramDataPoint {
            start_time_unix_nano,
            time_unix_nano,
            count: 1_000,
            positive: Some(Buckets { offset, bucket_counts: vec![1_000] }),
            ..ExponentialHistogramDataPoint::default()
        };
        let data = ExponentialHistogram { data_points: vec![point], aggregation_temporality: DELTA };
        assert_eq!(post(&receiver, &[], metric::Data::ExponentialHistogram(data)).await, (200, String::new()));
    }
    let at = |before_s: i64, text: &str| {
        let at = NOW - before_s * 1_000;
        let answer = query::instant(&*store, &query::parse(text).unwrap(), at, &Limits::default()).unwrap();
        let query::Value::Vector(samples) = answer.value else { panic!("{text}") };
        samples[0].sample.v
    };
    // Between the last two points of each time there is one bucket alone.
    for (before_s, low, high) in [(10, 1_024.0, 2_048.0), (0, 1.0 / 1_024.0, 2.0 / 1_024.0)] {
        let median = at(before_s, "histogram_quantile(0.5, rate(work_bucket[11s]))");
        assert!((low..=high).contains(&median), "{before_s} s ago: {median}");
    }
}

#[tokio::test]
async fn an_agents_batch_that_comes_twice_counts_once() {
    let (_dir, store) = store(0);
    let receiver = receiver(&store, StreamLimits::default());
    let agent = |seq| [(HEADER_AGENT, "h1"), (HEADER_EPOCH, "abc"), (HEADER_CLASS, "metrics"), (HEADER_SEQ, seq)];
    for (seq, data) in [("1", sum(20, 5)), ("1", sum(10, 7)), ("2", sum(0, 2))] {
        assert_eq!(post(&receiver, &agent(seq), data).await.0, 200);
    }
    assert_eq!(ask(&store, "work_total"), 7.0, "the second has the number of the first");
}

#[tokio::test]
async fn requests_of_one_stream_at_the_same_time_follow_each_other() {
    let (_dir, store) = store(0);
    let receiver = receiver(&store, StreamLimits::default());
    let sent: Vec<_> = (0..16)
        .map(|n| {
            let receiver = receiver.clone();
            // All but the end of the same time: whichever comes later than a newer one is dropped and told.
            tokio::spawn(async move { post(&receiver, &[], sum(-n, 1)).await.1.is_empty() })
        })
        .collect();
    let mut taken = 0;
    for one in sent {
        taken += u32::from(one.await.unwrap());
    }
    let last = query::instant(&*store, &query::parse("work_total").unwrap(), NOW + 20_000, &Limits::default());
    let query::Value::Vector(samples) = last.unwrap().value else { unreachable!() };
    assert_eq!(samples[0].sample.v, f64::from(taken));
}

#[tokio::test]
async fn what_is_large_when_decompressed_is_decoded_on_another_thread() {
    let (_dir, store) = store(0);
    let receiver = receiver(&store, StreamLimits::default());
    let here = std::thread::current().id();
    for (bytes, inline) in [(400 << 10, true), (600 << 10, false), (8 << 20, false)] {
        let body = zstd::stream::encode_all(&vec![0u8; bytes][..], 1).unwrap();
        assert!(body.len() < 8 << 10, "small as it is sent");
        let sent = receiver.sent("zstd".to_owned(), body.into()).await.unwrap();
        let decode = move |body: &[u8]| Ok((body.len(), std::thread::current().id()));
        let ((found, thread), sent) = receiver.decode_sent(sent, decode).await.unwrap();
        assert_eq!((found, thread == here), (bytes, inline));
        assert!(receiver.budget.held() < 8 << 10, "what it was decompressed to is given back");
        drop(sent);
        assert_eq!(receiver.budget.held(), 0);
    }
}

#[tokio::test]
async fn who_waits_too_long_for_a_turn_comes_again() {
    let (_dir, store) = store(0);
    let turns = Arc::new(Turns::new(std::time::Duration::from_millis(20)));
    let receiver = Receiver { turns, ..receiver(&store, StreamLimits::default()) };
    let lane = receiver.seen.fingerprint(0, &std::iter::empty()) as u16;
    let turn = receiver.turns.take([lane].into()).await.unwrap();
    let (status, words) = post(&receiver, &[], sum(10, 7)).await;
    assert!(status == 503 && words.contains("deltas of the same resources"), "{words}");
    drop(turn);
    assert_eq!(post(&receiver, &[], sum(10, 7)).await.0, 200);
}

#[tokio::test]
async fn a_stream_beyond_the_limit_is_named() {
    let (_dir, store) = store(0);
    let receiver = receiver(&store, StreamLimits { series_max: 0, ..StreamLimits::default() });
    let (status, answer) = post(&receiver, &[], sum(0, 1)).await;
    assert!(status == 200 && answer.contains("write.delta_series_max (0)"), "{answer}");
}

#[tokio::test]
async fn quantiles_of_exponential_histograms_are_right_within_a_bucket() {
    let (_dir, store) = store(0);
    let receiver = receiver(&store, StreamLimits::default());
    // Ten values in each bucket of scale 3 from 2^-4 to 2^4, then as many at scale 2.
    for (before_s, scale, per_bucket) in [(20, 3, 10), (10, 3, 10), (0, 2, 20)] {
        let (start_time_unix_nano, time_unix_nano) = nanos(before_s);
        let octaves = 4 << scale;
        let buckets = Buckets { offset: -octaves, bucket_counts: vec![per_bucket; 2 * octaves as usize] };
        let point = ExponentialHistogramDataPoint {
            start_time_unix_nano,
            time_unix_nano,
            count: 640,
            sum: Some(1_000.0),
            scale,
            positive: Some(buckets),
            ..ExponentialHistogramDataPoint::default()
        };
        let data_points = vec![point];
        let data = ExponentialHistogram { data_points, aggregation_temporality: DELTA };
        assert_eq!(post(&receiver, &[], metric::Data::ExponentialHistogram(data)).await, (200, String::new()));
    }
    assert_eq!(ask(&store, "work_count"), 1_920.0);
    assert_eq!(ask(&store, "work_sum"), 3_000.0);
    assert!((ask(&store, "increase(work_count[30s])") - 1_920.0).abs() < 2.0);
    assert_eq!(ask(&store, "count(work_bucket)"), 67.0, "65 boundaries of scale 3, of which 33 go on; zero, +Inf");
    let width = 0.25f64.exp2();
    for (q, exact) in [(0.25, -2.0f64), (0.5, 0.0), (0.75, 2.0), (0.99, 3.92)] {
        for of in ["work_bucket", "rate(work_bucket[30s])"] {
            let found = ask(&store, &format!("histogram_quantile({q}, {of})"));
            let off = found / exact.exp2();
            assert!((1.0 / width..=width).contains(&off), "{q} of {of}: {found}, not {}", exact.exp2());
        }
    }
}
