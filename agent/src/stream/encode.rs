//! Families and log records as OTLP request bodies: protobuf, compressed with zstd, ready to be frozen. Metric names stay
//! as they are, because the server turns OTLP names into Prometheus names by the specification and these are both.

use std::borrow::Cow;
use std::collections::HashSet;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::{LogRecord as OtlpLogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, metric,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use petrel_models::Timestamp;
use prost::Message;

use crate::collect::{Family, Kind, Point};
use crate::logs::{LogRecord, Severity};
use crate::stream::protocol::SCOPE_TIME;

/// The fastest of zstd's usual levels: host metrics shrink about tenfold at it, and higher ones cost more than they save.
const ZSTD_LEVEL: i32 = 1;
/// What Prometheus would call the scrape job; fixed for hosts, as DESIGN's push identity says.
const SERVICE_NAME: &str = "node";

/// A request body and how many samples or records it carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// OTLP protobuf, compressed with zstd.
    pub body: Vec<u8>,
    /// Data points or log records.
    pub records: u32,
}

/// The points of `last` whose series are not in `round`, which the server is told to end. O(n) where rounds are alike, which they
/// nearly always are: then series are compared place by place and nothing is hashed.
pub fn vanished(last: &[Family], round: &[Family]) -> Vec<Family> {
    if last.len() == round.len() && last.iter().zip(round).all(|(a, b)| are_alike(a, b)) {
        Vec::new()
    } else {
        gone(last, round)
    }
}

/// Whether two families have the same series in the same order.
fn are_alike(a: &Family, b: &Family) -> bool {
    let same = |(a, b): (&Point, &Point)| a.labels == b.labels;
    a.name == b.name && a.points.len() == b.points.len() && a.points.iter().zip(&b.points).all(same)
}

fn gone(last: &[Family], round: &[Family]) -> Vec<Family> {
    let present: HashSet<Series<'_>> = round.iter().flat_map(series).map(|(key, _)| key).collect();
    let gone = last.iter().filter_map(|family| {
        let points: Vec<Point> =
            series(family).filter(|(key, _)| !present.contains(key)).map(|(_, p)| p.clone()).collect();
        (!points.is_empty()).then(|| Family { points, ..family.clone() })
    });
    gone.collect()
}

/// Series of one origin, read at one time: this host's own, or those of a target that it scrapes.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// `job` of its series.
    pub job: &'a str,
    /// `instance` of its series.
    pub instance: &'a str,
    /// What there is.
    pub families: &'a [Family],
    /// What was there before and is gone: sent without a value.
    pub vanished: &'a [Family],
    /// When it was read.
    pub at: Timestamp,
}

impl<'a> Part<'a> {
    /// A round of the host's own collectors.
    pub fn host(instance: &'a str, families: &'a [Family], vanished: &'a [Family], at: Timestamp) -> Part<'a> {
        Part { job: SERVICE_NAME, instance, families, vanished, at }
    }

    /// How many points it carries.
    pub fn points(&self) -> usize {
        self.families.iter().chain(self.vanished).map(|family| family.points.len()).sum()
    }
}

/// Encodes what one batch carries, each origin as a resource of its own.
pub fn metrics(parts: &[Part<'_>]) -> Encoded {
    let resource_metrics = parts.iter().map(resource_metrics).collect();
    let request = ExportMetricsServiceRequest { resource_metrics };
    let records = parts.iter().map(Part::points).sum::<usize>() as u32;
    Encoded { body: compress(&request.encode_to_vec()), records }
}

fn resource_metrics(part: &Part<'_>) -> ResourceMetrics {
    let present = part.families.iter().map(|family| metric(family, |point| data_point(point, true)));
    let gone = part.vanished.iter().map(|family| metric(family, |point| data_point(point, false)));
    let metrics = present.chain(gone).collect();
    let time = any_value::Value::IntValue(i64::try_from(nanos(part.at)).unwrap_or(i64::MAX));
    let time =
        KeyValue { key: SCOPE_TIME.to_owned(), value: Some(AnyValue { value: Some(time) }), ..KeyValue::default() };
    let scope = InstrumentationScope { attributes: vec![time], ..scope() };
    ResourceMetrics {
        resource: Some(resource(part.job, part.instance)),
        scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }],
        schema_url: String::new(),
    }
}

/// Encodes log records in their order; `at` is when they were read.
pub fn logs(instance: &str, records: &[LogRecord], at: Timestamp) -> Encoded {
    let log_records = records.iter().map(|record| log_record(record, at)).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope()), log_records, schema_url: String::new() }];
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource(SERVICE_NAME, instance)),
            scope_logs,
            schema_url: String::new(),
        }],
    };
    Encoded { body: compress(&request.encode_to_vec()), records: records.len() as u32 }
}

/// A series' identity: name and labels.
type Series<'a> = (&'a str, &'a [(Cow<'static, str>, Cow<'static, str>)]);

fn series(family: &Family) -> impl Iterator<Item = (Series<'_>, &Point)> {
    family.points.iter().map(|point| ((family.name.as_ref(), point.labels.as_slice()), point))
}

fn metric(family: &Family, data_point: impl Fn(&Point) -> NumberDataPoint) -> Metric {
    let data_points = family.points.iter().map(data_point).collect();
    let data = match family.kind {
        Kind::Counter => metric::Data::Sum(Sum {
            data_points,
            aggregation_temporality: AggregationTemporality::Cumulative as i32,
            is_monotonic: true,
        }),
        Kind::Gauge | Kind::Untyped => metric::Data::Gauge(Gauge { data_points }),
    };
    // OpenTelemetry has no type «unknown»; its Prometheus compatibility page says to carry it as metadata of a gauge.
    let metadata = match family.kind {
        Kind::Untyped => vec![attribute("prometheus.type", "unknown")],
        Kind::Counter | Kind::Gauge => Vec::new(),
    };
    Metric {
        name: family.name.clone().into_owned(),
        description: family.help.clone().into_owned(),
        unit: String::new(),
        metadata,
        data: Some(data),
    }
}

fn data_point(point: &Point, present: bool) -> NumberDataPoint {
    NumberDataPoint {
        attributes: point.labels.iter().map(|(name, value)| attribute(name, value)).collect(),
        start_time_unix_nano: 0,
        time_unix_nano: 0,
        exemplars: Vec::new(),
        flags: if present { 0 } else { DataPointFlags::NoRecordedValueMask as u32 },
        value: present.then_some(number_data_point::Value::AsDouble(point.value)),
    }
}

fn log_record(record: &LogRecord, at: Timestamp) -> OtlpLogRecord {
    let (number, text) = match record.severity {
        Severity::Debug => (SeverityNumber::Debug, "DEBUG"),
        Severity::Info => (SeverityNumber::Info, "INFO"),
        Severity::Warn => (SeverityNumber::Warn, "WARN"),
        Severity::Error => (SeverityNumber::Error, "ERROR"),
        Severity::Fatal => (SeverityNumber::Fatal, "FATAL"),
    };
    let mut attributes = vec![
        attribute("log.file.path", &record.source),
        attribute("petrel.template.id", &record.template_id),
        attribute("petrel.template", &record.template),
        attribute("petrel.why", record.why.as_str()),
    ];
    let more = [("systemd.unit", &record.unit), ("petrel.precursor", &record.precursor)];
    attributes.extend(more.iter().filter(|(_, text)| !text.is_empty()).map(|(name, text)| attribute(name, text)));
    OtlpLogRecord {
        time_unix_nano: nanos(record.at),
        observed_time_unix_nano: nanos(at),
        severity_number: number as i32,
        severity_text: text.to_owned(),
        body: Some(text_value(&record.body)),
        attributes,
        ..OtlpLogRecord::default()
    }
}

fn resource(job: &str, instance: &str) -> Resource {
    let attributes = vec![attribute("service.name", job), attribute("service.instance.id", instance)];
    Resource { attributes, ..Resource::default() }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "petrel-agent".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn attribute(name: &str, value: &str) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(text_value(value)), ..KeyValue::default() }
}

fn text_value(text: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text.to_owned())) }
}

/// OTLP counts unsigned nanoseconds; before 1970 there is nothing.
fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at).unwrap_or(0).saturating_mul(1_000_000)
}

fn compress(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, ZSTD_LEVEL)
        .expect("the output buffer is sized by zstd's own bound, and the level exists")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::Why;

    fn family(kind: Kind, devices: &[&'static str]) -> Family {
        let points = devices
            .iter()
            .map(|device| Point { labels: vec![(Cow::Borrowed("device"), Cow::Borrowed(*device))], value: 1.5 });
        Family { name: "node_x_total".into(), kind, help: "Some help.".into(), points: points.collect() }
    }

    fn decoded(encoded: &Encoded) -> ExportMetricsServiceRequest {
        let bytes = zstd::stream::decode_all(&encoded.body[..]).unwrap();
        ExportMetricsServiceRequest::decode(&bytes[..]).unwrap()
    }

    #[test]
    fn a_counter_becomes_a_cumulative_sum_and_a_vanished_series_has_no_value() {
        let round = vec![family(Kind::Counter, &["sdb", "sdc"])];
        let gone = vanished(&[family(Kind::Counter, &["sda", "sdb"])], &round);
        assert_eq!(gone, vec![family(Kind::Counter, &["sda"])]);
        assert_eq!(vanished(&round, &round), vec![]);

        let encoded = metrics(&[Part::host("h1", &round, &gone, 1_700_000_000_123)]);
        assert_eq!(encoded.records, 3);
        let request = decoded(&encoded);
        let resource_metrics = &request.resource_metrics[0];
        assert_eq!(
            resource_metrics.resource.as_ref().unwrap().attributes,
            vec![attribute("service.name", "node"), attribute("service.instance.id", "h1")]
        );
        let metrics = &resource_metrics.scope_metrics[0].metrics;
        assert_eq!((metrics[0].name.as_str(), metrics[0].description.as_str()), ("node_x_total", "Some help."));
        let points: Vec<_> = metrics
            .iter()
            .flat_map(|metric| match metric.data.as_ref().unwrap() {
                metric::Data::Sum(sum) => {
                    assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
                    sum.data_points.clone()
                }
                other => panic!("{other:?}"),
            })
            .map(|point| (point.attributes[0].clone(), point.flags, point.value, point.time_unix_nano))
            .collect();
        let value = Some(number_data_point::Value::AsDouble(1.5));
        let told = &resource_metrics.scope_metrics[0].scope.as_ref().unwrap().attributes[0];
        let time = any_value::Value::IntValue(1_700_000_000_123_000_000);
        assert_eq!((told.key.as_str(), &told.value), (SCOPE_TIME, &Some(AnyValue { value: Some(time) })));
        assert_eq!(
            points,
            vec![
                (attribute("device", "sdb"), 0, value, 0),
                (attribute("device", "sdc"), 0, value, 0),
                (attribute("device", "sda"), 1, None, 0),
            ]
        );
    }

    #[test]
    fn an_untyped_family_is_a_gauge_that_says_so() {
        let request = decoded(&metrics(&[Part::host("h1", &[family(Kind::Untyped, &["sda"])], &[], 1)]));
        let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
        assert!(matches!(metric.data, Some(metric::Data::Gauge(_))));
        assert_eq!(metric.metadata, vec![attribute("prometheus.type", "unknown")]);
    }

    #[test]
    fn each_origin_is_a_resource_of_its_own() {
        let families = [family(Kind::Gauge, &["sda"])];
        let scraped = Part { job: "haproxy", instance: "h1:8404", families: &families, vanished: &[], at: 2 };
        let encoded = metrics(&[Part::host("h1", &families, &[], 1), scraped]);
        assert_eq!(encoded.records, 2);
        let owners: Vec<_> =
            decoded(&encoded).resource_metrics.into_iter().map(|one| one.resource.unwrap().attributes).collect();
        let owner = |job, instance| vec![attribute("service.name", job), attribute("service.instance.id", instance)];
        assert_eq!(owners, [owner("node", "h1"), owner("haproxy", "h1:8404")]);
    }

    #[test]
    fn a_log_record_keeps_body_severity_and_template() {
        let record = LogRecord {
            at: 1_000,
            source: "/var/log/syslog".to_owned(),
            severity: Severity::Error,
            template_id: "00000000000000aa".to_owned(),
            template: "disk <*> failed".to_owned(),
            body: "disk sda failed".to_owned(),
            unit: String::new(),
            precursor: "io_error".to_owned(),
            why: Why::Precursor,
        };
        let encoded = logs("h1", &[record], 2_000);
        let bytes = zstd::stream::decode_all(&encoded.body[..]).unwrap();
        let request = ExportLogsServiceRequest::decode(&bytes[..]).unwrap();
        let got = &request.resource_logs[0].scope_logs[0].log_records[0];
        assert_eq!((got.time_unix_nano, got.observed_time_unix_nano), (1_000_000_000, 2_000_000_000));
        assert_eq!((got.severity_number, got.severity_text.as_str()), (17, "ERROR"));
        assert_eq!(got.body, Some(text_value("disk sda failed")));
        let more =
            [("petrel.template", "disk <*> failed"), ("petrel.why", "precursor"), ("petrel.precursor", "io_error")];
        assert_eq!(got.attributes[2..], more.map(|(name, text)| attribute(name, text)));
    }
}
