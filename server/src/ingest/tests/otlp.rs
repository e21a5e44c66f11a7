//! Tests of the translation of OTLP metrics: requests in, series as text out.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use opentelemetry_proto::tonic::common::v1::{ArrayValue, InstrumentationScope};
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, exponential_histogram_data_point,
};
use opentelemetry_proto::tonic::metrics::v1::{Gauge, Histogram, Metric, ScopeMetrics, Sum, Summary, metric};
use opentelemetry_proto::tonic::resource::v1::Resource;
use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::series::Labels;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    HistogramDataPoint, NumberDataPoint, ResourceMetrics, SummaryDataPoint, number_data_point,
};

use crate::store::{Store, StoreOptions};

const T: u64 = 1_700_000_000_123_456_789;

fn attribute(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn number(attributes: &[(&str, &str)], value: f64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
        time_unix_nano: T,
        value: Some(number_data_point::Value::AsDouble(value)),
        ..NumberDataPoint::default()
    }
}

fn gauge(points: Vec<NumberDataPoint>) -> metric::Data {
    metric::Data::Gauge(Gauge { data_points: points })
}

fn sum(points: Vec<NumberDataPoint>, temporality: AggregationTemporality) -> metric::Data {
    metric::Data::Sum(Sum { data_points: points, aggregation_temporality: temporality as i32, is_monotonic: true })
}

fn metric(name: &str, unit: &str, data: metric::Data) -> Metric {
    Metric { name: name.to_owned(), unit: unit.to_owned(), data: Some(data), ..Metric::default() }
}

fn request(resource: &[(&str, &str)], scope: &str, metrics: Vec<Metric>) -> Vec<u8> {
    let scope = InstrumentationScope { name: scope.to_owned(), ..InstrumentationScope::default() };
    let attributes = resource.iter().map(|(key, value)| attribute(key, value)).collect();
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }],
            schema_url: String::new(),
        }],
    }
    .encode_to_vec()
}

fn check(body: &[u8], expected: &Expect) {
    let dir = tempfile::tempdir().unwrap();
    let Decoded { batch, problems, .. } =
        decode(body, &open(&dir).known(), &Seen::default(), LabelLimits::default(), Some(changes())).unwrap();
    let mut text = String::new();
    for (labels, samples) in &batch.series {
        let samples: Vec<String> = samples
            .iter()
            .map(|sample| if sample.is_stale() { "stale".to_owned() } else { sample.v.to_string() })
            .collect();
        writeln!(text, "{labels} {}", samples.join(" ")).unwrap();
    }
    for (name, metadata) in &batch.metadata {
        writeln!(text, "# {name} {}", metadata.kind).unwrap();
    }
    if problems.count() > 0 {
        writeln!(text, "! {problems}").unwrap();
    }
    expected.assert_eq(&text);
}

fn changes() -> Changes {
    Changes::new(&Arc::default(), T as i64 / 1_000_000)
}

fn open(dir: &tempfile::TempDir) -> Arc<Store> {
    Store::open(dir.path(), StoreOptions { retention: None, ..StoreOptions::default() }, &[], 0).unwrap()
}

const AGENT: [(&str, &str); 2] = [("service.name", "node"), ("service.instance.id", "h1")];

#[test]
fn an_agents_names_pass_unchanged() {
    let stale = NumberDataPoint { flags: 1, value: None, ..number(&[("device", "sda")], 0.0) };
    let mut untyped = metric("node_vmstat_pgfault", "", gauge(vec![number(&[], 7.0)]));
    untyped.metadata = vec![attribute("prometheus.type", "unknown")];
    let cumulative = AggregationTemporality::Cumulative;
    let metrics = vec![
        metric("node_intr", "", sum(vec![number(&[], 5.0)], cumulative)),
        metric("node_disk_io_now", "", gauge(vec![stale])),
        untyped,
    ];
    check(
        &request(&AGENT, "petrel-agent", metrics),
        &expect![[r#"
            node_intr{instance="h1", job="node"} 5
            node_disk_io_now{device="sda", instance="h1", job="node"} stale
            node_vmstat_pgfault{instance="h1", job="node"} 7
            # node_intr counter
            # node_disk_io_now gauge
            # node_vmstat_pgfault unknown
        "#]],
    );
}

/// Points of an agent have the time of their scope, whether their series is new or was seen before; those of others do not.
#[test]
fn points_without_a_time_have_that_of_an_agents_scope() {
    let dir = tempfile::tempdir().unwrap();
    let (store, seen) = (open(&dir), Seen::default());
    let body = |scope: &str, told: i64| {
        let time = any_value::Value::IntValue(told);
        let time = KeyValue { value: Some(AnyValue { value: Some(time) }), ..attribute(SCOPE_TIME, "") };
        let timeless = NumberDataPoint { time_unix_nano: 0, ..number(&[("device", "sda")], 1.0) };
        let points = vec![timeless, number(&[("device", "sdb")], 1.0)];
        let request = request(&AGENT, scope, vec![metric("node_disk_io_now", "", gauge(points))]);
        let mut request = ExportMetricsServiceRequest::decode(&request[..]).unwrap();
        request.resource_metrics[0].scope_metrics[0].scope.as_mut().unwrap().attributes = vec![time];
        request.encode_to_vec()
    };
    let take = |body: &[u8]| {
        let Decoded { batch, problems, learned, .. } =
            decode(body, &store.known(), &seen, LabelLimits::default(), None).unwrap();
        let times: Vec<Timestamp> = batch.samples().map(|(_, sample)| sample.t).collect();
        store.append_blocking(batch, T as i64 / 1_000_000 + 1_000).unwrap();
        seen.learn(learned);
        (times, problems.count())
    };
    let own = T as i64 / 1_000_000;
    for round in 0..4 {
        let told = own + 10 + round;
        assert_eq!(take(&body("petrel-agent", told * 1_000_000)), (vec![told, own], 0), "round {round}");
    }
    assert_eq!(take(&body("petrel-agent", 0)), (vec![own], 1), "a scope that does not tell");
    assert_eq!(take(&body("petrel-agent", -1)), (vec![own], 1), "before 1970");
    assert_eq!(take(&body("lib", own * 1_000_000)), (vec![own], 1), "another's scope");
}

#[test]
fn names_labels_and_resources_follow_the_specification() {
    let resource = [("service.name", "api"), ("service.namespace", "shop"), ("host.name", "h9"), ("os.type", "linux")];
    let points = vec![number(&[("http.method", "GET"), ("http_method", "PUT")], 3.0), number(&[("job", "x")], 1.0)];
    let cumulative = AggregationTemporality::Cumulative;
    let metrics = vec![metric("http.server.duration", "ms", sum(points, cumulative))];
    check(
        &request(&resource, "lib", metrics),
        &expect![[r#"
            http_server_duration_milliseconds_total{http_method="GET;PUT", instance="h9", job="shop/api"} 3
            http_server_duration_milliseconds_total{instance="h9", job="shop/api"} 1
            target_info{host_name="h9", instance="h9", job="shop/api", os_type="linux"} 1
            # http_server_duration_milliseconds_total counter
        "#]],
    );
}

#[test]
fn histograms_and_summaries_become_classic_series() {
    let point = HistogramDataPoint {
        time_unix_nano: T,
        count: 6,
        sum: Some(4.5),
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: vec![0.005, 10.0],
        ..HistogramDataPoint::default()
    };
    let wrong = HistogramDataPoint { bucket_counts: vec![1], ..point.clone() };
    let ended = HistogramDataPoint { flags: 1, bucket_counts: Vec::new(), sum: None, ..point.clone() };
    let histogram = metric::Data::Histogram(Histogram {
        data_points: vec![point, wrong, ended],
        aggregation_temporality: AggregationTemporality::Cumulative as i32,
    });
    let summary = metric::Data::Summary(Summary {
        data_points: vec![SummaryDataPoint {
            time_unix_nano: T,
            count: 2,
            sum: 3.0,
            quantile_values: vec![ValueAtQuantile { quantile: 0.99, value: 1.5 }],
            ..SummaryDataPoint::default()
        }],
    });
    check(
        &request(&[], "lib", vec![metric("lat", "s", histogram), metric("rpc", "", summary)]),
        &expect![[r#"
            lat_seconds_bucket{le="0.005"} 1
            lat_seconds_bucket{le="10"} 3
            lat_seconds_bucket{le="+Inf"} 6
            lat_seconds_sum 4.5
            lat_seconds_count 6
            lat_seconds_bucket{le="0.005"} stale
            lat_seconds_bucket{le="10"} stale
            lat_seconds_bucket{le="+Inf"} stale
            lat_seconds_sum stale
            lat_seconds_count stale
            rpc{quantile="0.99"} 1.5
            rpc_sum 3
            rpc_count 2
            # lat_seconds histogram
            # rpc summary
            ! 1 not stored: point of histogram `lat_seconds` has 2 bounds and 1 buckets
        "#]],
    );
}

#[test]
fn what_is_not_taken_is_named() {
    let point = |scale| ExponentialHistogramDataPoint { time_unix_nano: T, scale, ..Default::default() };
    let wide = ExponentialHistogramDataPoint { zero_threshold: f64::NAN, ..point(0) };
    let exponential = metric::Data::ExponentialHistogram(ExponentialHistogram {
        data_points: vec![point(-12), wide],
        aggregation_temporality: AggregationTemporality::Cumulative as i32,
    });
    let no_value = NumberDataPoint { value: None, ..number(&[], 1.0) };
    let no_time = NumberDataPoint { time_unix_nano: 0, ..number(&[], 1.0) };
    let metrics = vec![
        metric("a", "", sum(vec![number(&[], 1.0); 2], AggregationTemporality::Unspecified)),
        metric("b", "", exponential),
        metric("c", "", gauge(vec![no_value, no_time, number(&[("", "x")], 1.0), number(&[], 2.0)])),
        metric("°", "", gauge(vec![])),
        Metric { name: "d".to_owned(), ..Metric::default() },
    ];
    check(
        &request(&[], "lib", metrics),
        &expect![[r"
            c 2
            # b histogram
            # c gauge
            ! 9 not stored: metric `a_total` says neither cumulative nor delta; set the sender's temporality; point of `b` has the scale -12, at least -11 is taken; point of `b` has the zero threshold NaN; point of `c` has no value; point of `c` has no time; point of `c`: label without a name, with the value `x`; metric name `°` has no letter or digit; metric `d` has no data
        "]],
    );
}

#[test]
fn values_of_every_type_become_text() {
    let list = ArrayValue {
        values: vec![
            AnyValue { value: Some(any_value::Value::IntValue(1)) },
            AnyValue { value: Some(any_value::Value::StringValue("b".to_owned())) },
        ],
    };
    let text = |value| any_text(&AnyValue { value: Some(value) }).unwrap();
    assert_eq!(text(any_value::Value::ArrayValue(list)), r#"[1,"b"]"#);
    assert_eq!(text(any_value::Value::BoolValue(true)), "true");
    assert_eq!(text(any_value::Value::DoubleValue(0.5)), "0.5");
}

#[test]
fn several_points_of_a_series_stay_together() {
    let points = (0..3u64).map(|i| NumberDataPoint { time_unix_nano: T + i * 1_000_000, ..number(&[], i as f64) });
    check(
        &request(&[], "lib", vec![metric("c", "", gauge(points.collect()))]),
        &expect![[r"
            c 0 1 2
            # c gauge
        "]],
    );
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        let _ = decode(&bytes, &open(&dir).known(), &Seen::default(), LabelLimits::default(), Some(changes()));
    }
}

#[test]
fn what_would_blow_up_is_refused_before_it_does() {
    let long = "x".repeat(100_000);
    let many: Vec<KeyValue> = (0..200_000).map(|n| attribute(&format!("a{n}"), "v")).collect();
    let same: Vec<KeyValue> = (0..200_000).map(|_| attribute("a", "value")).collect();
    let point = |attributes| NumberDataPoint { attributes, ..number(&[], 1.0) };
    let points = gauge(vec![point(many), point(same), number(&[], 1.0)]);
    let wide = HistogramDataPoint {
        time_unix_nano: T,
        explicit_bounds: (0..100_000).map(f64::from).collect(),
        bucket_counts: vec![1; 100_001],
        ..HistogramDataPoint::default()
    };
    let cumulative = AggregationTemporality::Cumulative as i32;
    let wide = metric::Data::Histogram(Histogram { data_points: vec![wide], aggregation_temporality: cumulative });
    let named = metric(&long, "", gauge(vec![number(&[], 1.0), number(&[], 2.0)]));
    let begun = std::time::Instant::now();
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let decode = |body: &[u8]| decode(body, &store.known(), &Seen::default(), LabelLimits::default(), None).unwrap();
    let Decoded { batch, problems, .. } =
        decode(&request(&[("service.name", "s")], "", vec![metric("m", "", points), metric("h", "", wide), named]));
    assert_eq!((batch.series.len(), problems.count()), (1, 5), "{problems}");
    let Decoded { batch, problems, .. } =
        decode(&request(&[("service.name", &long)], "", vec![metric("m", "", gauge(vec![number(&[], 1.0)]))]));
    assert_eq!((batch.series.len(), problems.count()), (0, 1), "{problems}");
    assert!(begun.elapsed().as_secs() < 20, "time grows with the square of a point's attributes");
}

/// What came before takes the short way and gives the same; what differs in anything that counts does not.
#[test]
fn points_that_came_before_give_the_same_without_being_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let (store, seen) = (open(&dir), Seen::default());
    let cumulative = AggregationTemporality::Cumulative;
    let body = |t: u64, value: f64, attributes: &[(&str, &str)], resource: &[(&str, &str)], unit: &str| {
        let point = || NumberDataPoint { time_unix_nano: T + t * 1_000_000, ..number(attributes, value) };
        let stale = NumberDataPoint { flags: 1, value: None, ..point() };
        let whole = NumberDataPoint { value: Some(number_data_point::Value::AsInt(value as i64)), ..point() };
        let metrics = vec![
            metric("http.requests", unit, sum(vec![whole], cumulative)),
            metric("temperature", "Cel", gauge(vec![point()])),
            metric("ended", "", gauge(vec![stale])),
        ];
        request(resource, "lib", metrics)
    };
    let resource = [("service.name", "api"), ("host.name", "h9"), ("os.type", "linux")];
    let take = |body: &[u8]| {
        let Decoded { batch, problems, learned, .. } =
            decode(body, &store.known(), &seen, LabelLimits::default(), None).unwrap();
        let show = |(labels, sample): (&Labels, &Sample)| format!("{labels} {} {:x}", sample.t, sample.v.to_bits());
        let text: Vec<String> = batch.samples().map(show).collect();
        let counts = (batch.rows.len(), batch.metadata.len(), learned.points.len(), problems.count());
        store.append_blocking(batch, T as i64 / 1_000_000 + 1_000).unwrap();
        seen.learn(learned);
        (text, counts)
    };
    let plain = |t, value| body(t, value, &[("path", "/")], &resource, "1");
    assert_eq!(take(&plain(0, 1.0)).1, (0, 3, 0, 0), "new series");
    assert_eq!(take(&plain(1, 2.0)).1, (4, 3, 4, 0), "series of the store");
    let (text, counts) = take(&plain(2, 3.0));
    assert_eq!(counts, (4, 0, 0, 0), "points seen before");
    let t = T as i64 / 1_000_000 + 2;
    let expected = [
        format!("http_requests_total{{instance=\"h9\", job=\"api\", path=\"/\"}} {t} {:x}", 3f64.to_bits()),
        format!("temperature_celsius{{instance=\"h9\", job=\"api\", path=\"/\"}} {t} {:x}", 3f64.to_bits()),
        format!("ended{{instance=\"h9\", job=\"api\", path=\"/\"}} {t} {:x}", crate::series::STALE_NAN_BITS),
        format!(
            "target_info{{host_name=\"h9\", instance=\"h9\", job=\"api\", os_type=\"linux\"}} {t} {:x}",
            1f64.to_bits()
        ),
    ];
    assert_eq!(text, expected);
    let other_resource = [("service.name", "api"), ("host.name", "h8"), ("os.type", "linux")];
    for (body, first) in [
        (body(3, 4.0, &[("path", "/a")], &resource, "1"), "path=\"/a\""),
        (body(3, 4.0, &[("path", "/")], &other_resource, "1"), "instance=\"h8\""),
        (body(3, 4.0, &[("path", "/")], &resource, "s"), "http_requests_seconds_total"),
    ] {
        let (text, _) = take(&body);
        assert!(text.iter().any(|line| line.contains(first)), "{first}: {text:?}");
    }
}

/// A number of the time from `start` to `end`, in seconds after `T`.
fn delta(attributes: &[(&str, &str)], (start, end): (u64, u64), value: f64) -> NumberDataPoint {
    let nanos = |s: u64| T + s * 1_000_000_000;
    let point = number(attributes, value);
    NumberDataPoint { start_time_unix_nano: nanos(start), time_unix_nano: nanos(end), ..point }
}

#[test]
fn deltas_are_added_up() {
    let (ab, ba) = ([("a", "1"), ("b", "2")], [("b", "2"), ("a", "1")]);
    let late = AggregationTemporality::Delta;
    let points = vec![
        delta(&ab, (0, 10), 1.0),
        delta(&ba, (10, 20), 2.0),
        // Sent twice; begins before the stream; a gap; an overlap.
        delta(&ab, (10, 20), 2.0),
        NumberDataPoint { start_time_unix_nano: T - 1, ..delta(&ab, (0, 25), 9.0) },
        delta(&ab, (30, 40), 4.0),
        delta(&ab, (35, 50), 8.0),
        delta(&ab, (50, 60), -1.0),
        delta(&ab, (50, 60), f64::NAN),
        delta(&ab, (0, 700), 1.0),
        NumberDataPoint { flags: 1, value: None, ..delta(&ab, (50, 60), 0.0) },
        delta(&ab, (60, 70), 16.0),
    ];
    let levels = vec![delta(&[], (0, 10), 5.0), delta(&[], (10, 20), -2.0)];
    let Some(metric::Data::Sum(level)) = metric("", "", sum(levels, late)).data else { unreachable!() };
    let level = metric::Data::Sum(Sum { is_monotonic: false, ..level });
    check(
        &request(&[], "lib", vec![metric("requests", "", sum(points, late)), metric("open", "", level)]),
        &expect![[r#"
            requests_total{a="1", b="2"} 0 1 3 7 15 stale 0 16
            open 5 3
            # requests_total counter
            # open gauge
            ! 5 not stored: point of `requests_total` is a delta not newer than the one before; it was sent twice or is late; point of `requests_total` is a delta that begins before its stream does; two senders may use the same attributes; point of `requests_total` is a negative delta of what only grows; point of `requests_total` is the delta NaN, which cannot be added; point of `requests_total` is a delta more than 10 minutes ahead of the server's clock
        "#]],
    );
}

#[test]
fn deltas_of_histograms_are_added_up_bucket_by_bucket() {
    let nanos = |s: u64| T + s * 1_000_000_000;
    let point = |start, counts: [u64; 3], sum| HistogramDataPoint {
        start_time_unix_nano: nanos(start),
        time_unix_nano: nanos(start + 10),
        count: counts.iter().sum(),
        sum,
        bucket_counts: counts.to_vec(),
        explicit_bounds: vec![1.0, 2.0],
        ..HistogramDataPoint::default()
    };
    let first = HistogramDataPoint { start_time_unix_nano: 0, ..point(0, [1, 0, 2], Some(9.5)) };
    let others = HistogramDataPoint { explicit_bounds: vec![1.0, 3.0], ..point(20, [1, 0, 0], None) };
    let histogram = metric::Data::Histogram(Histogram {
        data_points: vec![first, point(10, [1, 1, 0], Some(2.0)), others],
        aggregation_temporality: AggregationTemporality::Delta as i32,
    });
    check(
        &request(&[], "lib", vec![metric("lat", "s", histogram)]),
        &expect![[r#"
            lat_seconds_bucket{le="1"} 1
            lat_seconds_bucket{le="2"} 1
            lat_seconds_bucket{le="+Inf"} 3
            lat_seconds_sum 9.5
            lat_seconds_count 3
            lat_seconds_bucket{le="1"} 2
            lat_seconds_bucket{le="2"} 3
            lat_seconds_bucket{le="+Inf"} 5
            lat_seconds_sum 11.5
            lat_seconds_count 5
            lat_seconds_bucket{le="1"} 0
            lat_seconds_bucket{le="3"} 0
            lat_seconds_bucket{le="+Inf"} 0
            lat_seconds_count 0
            lat_seconds_bucket{le="1"} 1
            lat_seconds_bucket{le="3"} 1
            lat_seconds_bucket{le="+Inf"} 1
            lat_seconds_count 1
            # lat_seconds histogram
        "#]],
    );
}

#[test]
fn exponential_histograms_become_classic_series() {
    let buckets = |offset, counts: &[u64]| {
        let bucket_counts = counts.to_vec();
        Some(exponential_histogram_data_point::Buckets { offset, bucket_counts })
    };
    let point = ExponentialHistogramDataPoint {
        time_unix_nano: T,
        count: 10,
        sum: Some(12.5),
        scale: 0,
        zero_count: 2,
        zero_threshold: 0.25,
        positive: buckets(0, &[3, 0, 1]),
        negative: buckets(-1, &[4]),
        ..ExponentialHistogramDataPoint::default()
    };
    let ended = ExponentialHistogramDataPoint { flags: 1, positive: None, negative: None, ..point.clone() };
    let histogram = metric::Data::ExponentialHistogram(ExponentialHistogram {
        data_points: vec![point, ended],
        aggregation_temporality: AggregationTemporality::Cumulative as i32,
    });
    check(
        &request(&[], "lib", vec![metric("lat", "", histogram)]),
        &expect![[r#"
            lat_bucket{le="-1"} 0
            lat_bucket{le="-0.5"} 4
            lat_bucket{le="-0.25"} 4
            lat_bucket{le="0.25"} 6
            lat_bucket{le="1"} 6
            lat_bucket{le="2"} 9
            lat_bucket{le="4"} 9
            lat_bucket{le="8"} 10
            lat_bucket{le="+Inf"} 10
            lat_sum 12.5
            lat_count 10
            lat_bucket{le="0.25"} stale
            lat_bucket{le="+Inf"} stale
            lat_sum stale
            lat_count stale
            # lat histogram
        "#]],
    );
}

/// Points are never decoded together: two bytes of a request would be 176 in memory.
#[test]
fn points_stay_where_they_are_until_they_are_taken() {
    let points = [0x0a, 0x00].repeat(100_000);
    let mut message = vec![0x0a, 1, b'h', 0x4a];
    prost::encoding::encode_varint(points.len() as u64 + 2, &mut message);
    message.extend([points, vec![0x10, 2]].concat());
    let header = Header::read(&message).unwrap();
    let (shell, count) = header.shell().unwrap();
    let Some(metric::Data::Histogram(histogram)) = shell.data else { unreachable!() };
    assert_eq!((count, histogram.data_points.len(), histogram.aggregation_temporality), (100_000, 0, 2));
}

#[test]
fn large_points_and_many_large_series_are_refused_by_name() {
    let large = number(&[("a", &"x".repeat(2 << 20))], 1.0);
    let twice = metric("t", "", gauge(vec![number(&[], 1.0)])).encode_to_vec().repeat(2);
    let body = request(&[], "lib", vec![metric("c", "", gauge(vec![large, number(&[], 2.0)]))]);
    check(
        &body,
        &expect![[r"
            c 2
            # c gauge
            ! 1 not stored: point of `c` has 2097188 bytes, more than 1048576
        "]],
    );
    let header = Header::read(&twice).unwrap();
    assert!(header.shell().unwrap().0.data.is_none(), "data that is given twice");
    // A dozen bytes each, but every series has the resource's labels.
    let points = (0..35_000).map(|n| number(&[("n", &n.to_string())], 1.0)).collect();
    let body = request(&[("service.name", &"x".repeat(4_000))], "lib", vec![metric("c", "", gauge(points))]);
    let dir = tempfile::tempdir().unwrap();
    let Decoded { batch, problems, .. } =
        decode(&body, &open(&dir).known(), &Seen::default(), LabelLimits::default(), None).unwrap();
    assert_eq!(batch.series.len() as u64 + problems.count(), 35_000);
    assert!((30_000..34_000).contains(&batch.series.len()), "{}", batch.series.len());
    assert!(problems.to_string().contains("new series of the request take more than 134217728 bytes"), "{problems}");
}

#[test]
fn bounds_rise_and_a_last_infinite_one_is_the_last_bucket() {
    let point = |bounds: [f64; 2]| HistogramDataPoint {
        time_unix_nano: T,
        count: 6,
        bucket_counts: vec![1, 2, 3],
        explicit_bounds: bounds.to_vec(),
        ..HistogramDataPoint::default()
    };
    for temporality in [AggregationTemporality::Cumulative, AggregationTemporality::Delta] {
        let all = [[1.0, f64::INFINITY], [1.0, f64::NAN], [2.0, 1.0], [1.0, 1.0], [f64::NEG_INFINITY, 1.0]];
        let histogram = metric::Data::Histogram(Histogram {
            data_points: all.into_iter().map(point).collect(),
            aggregation_temporality: temporality as i32,
        });
        check(
            &request(&[], "lib", vec![metric("lat", "", histogram)]),
            &expect![[r#"
                lat_bucket{le="1"} 1
                lat_bucket{le="+Inf"} 6
                lat_count 6
                # lat histogram
                ! 4 not stored: point of histogram `lat` has bounds that are no rising numbers
            "#]],
        );
    }
}

#[test]
fn streams_are_told_apart_as_their_series_are_and_sums_stay_numbers() {
    let late = AggregationTemporality::Delta;
    let body = |os: &str, scope: &str, (start, end): (u64, u64), value: f64| {
        let resource = [("service.name", "api"), ("service.instance.id", "i1"), ("os.type", os)];
        request(&resource, scope, vec![metric("c", "", sum(vec![delta(&[], (start, end), value)], late))])
    };
    // Both have the same series.
    let both = [body("linux", "a", (0, 10), 1.0), body("bsd", "b", (10, 20), 2.0)].concat();
    check(
        &both,
        &expect![[r#"
            c_total{instance="i1", job="api"} 0 1
            target_info{instance="i1", job="api", os_type="linux"} 1
            c_total{instance="i1", job="api"} 3
            target_info{instance="i1", job="api", os_type="bsd"} 1
            # c_total counter
            # c_total counter
        "#]],
    );
    let dir = tempfile::tempdir().unwrap();
    let lanes = decode(&both, &open(&dir).known(), &Seen::default(), LabelLimits::default(), None).unwrap().lanes;
    assert_eq!(lanes.len(), 1);
    let points = vec![delta(&[], (0, 10), f64::MAX), delta(&[], (10, 20), f64::MAX), delta(&[], (20, 30), 0.0)];
    check(
        &request(&[], "lib", vec![metric("c", "", sum(points, late))]),
        &expect![[r"
            c_total 0 179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 179769313486231570000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
            # c_total counter
            ! 1 not stored: point of `c_total` is a delta with which the sum is beyond all numbers
        "]],
    );
}
