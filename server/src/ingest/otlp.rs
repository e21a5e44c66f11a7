//! OTLP metrics as series: names, labels, job and instance by the rules of the OpenTelemetry specification's page «Prometheus and
//! OpenMetrics compatibility». Petrel's own agent sends names that are Prometheus' already; they pass unchanged.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    SummaryDataPoint, metric, number_data_point,
};
use prost::Message;

use super::labels;
use super::names::{Shape, label_name, metric_name};
use super::problems::Problems;
use crate::series::{Labels, NAME, Sample, Timestamp};
use crate::store::{Batch, MetricMetadata};

/// The scope name by which an agent says that its names are Prometheus' own.
const AGENT_SCOPE: &str = "petrel-agent";
/// Metadata key by which a gauge says what it was before it came to OpenTelemetry.
const PROMETHEUS_TYPE: &str = "prometheus.type";

/// The body is not an OTLP request.
#[derive(Debug, thiserror::Error)]
#[error("body is not an OTLP {what} request in protobuf")]
pub struct DecodeError {
    /// `metrics` or `logs`.
    pub what: &'static str,
    /// prost's word.
    #[source]
    pub source: prost::DecodeError,
}

/// Most buckets of a histogram and quantiles of a summary: each becomes a series with all labels of its point, so a request
/// of a few megabytes could fill the memory.
const PARTS_MAX: usize = 1_000;

type Pair = (Arc<str>, Arc<str>);

/// Reads a decompressed body: what can be stored, and what cannot.
///
/// # Errors
/// The message as a whole is malformed.
pub fn decode(body: &[u8]) -> Result<(Batch, Problems), DecodeError> {
    let request =
        ExportMetricsServiceRequest::decode(body).map_err(|source| DecodeError { what: "metrics", source })?;
    let mut translation = Translation::default();
    for resource in request.resource_metrics {
        translation.resource(resource);
    }
    Ok((translation.batch, translation.problems))
}

/// What became of a request so far.
#[derive(Default)]
struct Translation {
    batch: Batch,
    problems: Problems,
}

/// What all points of one metric share.
struct Family<'a> {
    name: String,
    resource: &'a [Pair],
    name_label: Arc<str>,
}

impl Translation {
    fn resource(&mut self, resource: ResourceMetrics) {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let (identity, others) = identity(&attributes);
        if let Err(error) = labels::check(identity.iter().map(|(name, value)| (&**name, &**value))) {
            let metrics = resource.scope_metrics.iter().flat_map(|scope| &scope.metrics);
            let points: u64 = metrics.filter_map(|metric| metric.data.as_ref()).map(points_of).sum();
            self.problems.add(points, format_args!("resource: {error}"));
            return;
        }
        let before = self.batch.series.len();
        for scope in resource.scope_metrics {
            let is_agent = scope.scope.is_some_and(|scope| scope.name == AGENT_SCOPE);
            for metric in scope.metrics {
                self.metric(metric, &identity, is_agent);
            }
        }
        let newest = self.batch.series[before..].iter().flat_map(|(_, samples)| samples).map(|sample| sample.t).max();
        if let Some(t) = newest
            && !others.is_empty()
            && !identity.is_empty()
        {
            let family = Family { name: String::new(), resource: &identity, name_label: Arc::from(NAME) };
            match family.labels("target_info", &others, None) {
                Ok(labels) => self.push(labels, Sample { t, v: 1.0 }),
                Err(error) => self.problems.add(1, error),
            }
        }
    }

    fn metric(&mut self, metric: Metric, identity: &[Pair], is_agent: bool) {
        let Some(data) = metric.data else {
            self.problems.add(1, format_args!("metric `{}` has no data", metric.name));
            return;
        };
        let told = metric.metadata.iter().find(|pair| pair.key == PROMETHEUS_TYPE).and_then(text_of);
        let shape = match &data {
            metric::Data::Sum(sum) if sum.is_monotonic => Shape::Counter,
            metric::Data::Gauge(_) | metric::Data::Sum(_) if told.is_none() => Shape::Gauge,
            _ => Shape::Other,
        };
        let name = if is_agent { metric.name.clone() } else { metric_name(&metric.name, &metric.unit, shape) };
        if name.is_empty() {
            self.problems.add(1, format_args!("metric name `{}` has no letter or digit", metric.name));
            return;
        }
        // Every series of the metric carries its name: one that is too long is refused before it is copied for each.
        if let Err(error) = labels::check([(NAME, name.as_str())].into_iter()) {
            self.problems.add(points_of(&data), error);
            return;
        }
        let family = Family { name, resource: identity, name_label: Arc::from(NAME) };
        let kind = match &data {
            metric::Data::Histogram(_) | metric::Data::ExponentialHistogram(_) => "histogram",
            metric::Data::Summary(_) => "summary",
            _ if shape == Shape::Counter => "counter",
            _ => "gauge",
        };
        let known = MetricMetadata {
            kind: told.unwrap_or_else(|| kind.to_owned()),
            help: metric.description,
            unit: metric.unit,
        };
        if self.data(&family, data) {
            self.batch.metadata.push((family.name, known));
        }
    }

    /// Takes the points; `false` where none of them can be.
    fn data(&mut self, family: &Family<'_>, data: metric::Data) -> bool {
        let cumulative = AggregationTemporality::Cumulative as i32;
        let refused = |what: &str| format!("metric `{}` is {what}", family.name);
        let (points, reason) = match data {
            metric::Data::Gauge(gauge) => {
                self.numbers(family, &gauge.data_points);
                return true;
            }
            metric::Data::Sum(sum) if sum.aggregation_temporality == cumulative => {
                self.numbers(family, &sum.data_points);
                return true;
            }
            metric::Data::Histogram(histogram) if histogram.aggregation_temporality == cumulative => {
                histogram.data_points.iter().for_each(|point| self.histogram(family, point));
                return true;
            }
            metric::Data::Summary(summary) => {
                summary.data_points.iter().for_each(|point| self.summary(family, point));
                return true;
            }
            metric::Data::Sum(sum) => (sum.data_points.len(), refused("not cumulative; set the sender to cumulative")),
            metric::Data::Histogram(histogram) => {
                (histogram.data_points.len(), refused("not cumulative; set the sender to cumulative"))
            }
            metric::Data::ExponentialHistogram(histogram) => (
                histogram.data_points.len(),
                refused("an exponential histogram; set the sender to explicit bucket histograms"),
            ),
        };
        self.problems.add(points as u64, reason);
        false
    }

    fn numbers(&mut self, family: &Family<'_>, points: &[NumberDataPoint]) {
        for point in points {
            let value = match point.value {
                _ if is_absent(point.flags) => None,
                Some(number_data_point::Value::AsDouble(value)) => Some(value),
                Some(number_data_point::Value::AsInt(value)) => Some(value as f64),
                None => {
                    self.problems.add(1, format_args!("point of `{}` has no value", family.name));
                    continue;
                }
            };
            self.point(family, &point.attributes, point.time_unix_nano, &mut |add| add("", None, value));
        }
    }

    fn histogram(&mut self, family: &Family<'_>, point: &HistogramDataPoint) {
        let (bounds, counts) = (&point.explicit_bounds, &point.bucket_counts);
        let absent = is_absent(point.flags);
        if !absent && !counts.is_empty() && counts.len() != bounds.len() + 1 {
            let reason = format!(
                "point of histogram `{}` has {} bounds and {} buckets",
                family.name,
                bounds.len(),
                counts.len()
            );
            self.problems.add(1, reason);
            return;
        }
        if self.has_too_many(family, bounds.len()) {
            return;
        }
        self.point(family, &point.attributes, point.time_unix_nano, &mut |add| {
            let value = |value: f64| (!absent).then_some(value);
            let mut below = 0u64;
            for (bound, count) in bounds.iter().zip(counts.iter().chain(std::iter::repeat(&0))) {
                below = below.saturating_add(*count);
                if absent || !counts.is_empty() {
                    add("_bucket", Some(("le", bound.to_string())), value(below as f64))?;
                }
            }
            add("_bucket", Some(("le", "+Inf".to_owned())), value(point.count as f64))?;
            if let Some(sum) = point.sum.or(absent.then_some(0.0)) {
                add("_sum", None, value(sum))?;
            }
            add("_count", None, value(point.count as f64))
        });
    }

    fn summary(&mut self, family: &Family<'_>, point: &SummaryDataPoint) {
        let absent = is_absent(point.flags);
        if self.has_too_many(family, point.quantile_values.len()) {
            return;
        }
        self.point(family, &point.attributes, point.time_unix_nano, &mut |add| {
            let value = |value: f64| (!absent).then_some(value);
            for quantile in &point.quantile_values {
                add("", Some(("quantile", quantile.quantile.to_string())), value(quantile.value))?;
            }
            add("_sum", None, value(point.sum))?;
            add("_count", None, value(point.count as f64))
        });
    }

    fn has_too_many(&mut self, family: &Family<'_>, parts: usize) -> bool {
        let too_many = parts > PARTS_MAX;
        if too_many {
            let reason = format_args!("point of `{}` has {parts} buckets, more than {PARTS_MAX}", family.name);
            self.problems.add(1, reason);
        }
        too_many
    }

    /// Takes one point. `parts` names the series that it consists of: suffix, extra label, value (`None`: the series ended).
    fn point(&mut self, family: &Family<'_>, attributes: &[KeyValue], nanos: u64, parts: &mut Parts<'_>) {
        if nanos == 0 {
            self.problems.add(1, format_args!("point of `{}` has no time", family.name));
            return;
        }
        let t = (nanos / 1_000_000) as Timestamp;
        let taken = parts(&mut |suffix, extra, value| {
            let sample = value.map_or_else(|| Sample::stale(t), |v| Sample { t, v });
            let labels = if suffix.is_empty() {
                family.labels(&family.name, attributes, extra)?
            } else {
                family.labels(&format!("{}{suffix}", family.name), attributes, extra)?
            };
            self.push(labels, sample);
            Ok(())
        });
        if let Err(error) = taken {
            self.problems.add(1, format_args!("point of `{}`: {error}", family.name));
        }
    }

    /// Points of one series mostly follow each other.
    fn push(&mut self, labels: Labels, sample: Sample) {
        match self.batch.series.last_mut() {
            Some((last, samples)) if *last == labels => samples.push(sample),
            _ => self.batch.series.push((labels, vec![sample])),
        }
    }
}

/// Adds one series of a point.
type Add<'a> = dyn FnMut(&str, Option<(&str, String)>, Option<f64>) -> Result<(), labels::LabelError> + 'a;
/// Adds all series of a point.
type Parts<'a> = dyn FnMut(&mut Add<'_>) -> Result<(), labels::LabelError> + 'a;

impl Family<'_> {
    /// The labels of a point: its attributes, then an extra one, then job and instance, then the name; the later win.
    fn labels(
        &self,
        name: &str,
        attributes: &[KeyValue],
        extra: Option<(&str, String)>,
    ) -> Result<Labels, labels::LabelError> {
        // Equal names are looked for in all before, so the number is checked first.
        labels::check_count(attributes.len())?;
        let mut pairs: Vec<Pair> = Vec::with_capacity(attributes.len() + self.resource.len() + 2);
        for attribute in attributes {
            let Some(value) = text_of(attribute) else { continue };
            let name = label_name(&attribute.key);
            // Two attributes that become one label: both values, as the specification asks.
            match pairs.iter_mut().find(|(known, _)| **known == *name) {
                Some((_, known)) => *known = format!("{known};{value}").into(),
                None => pairs.push((name.into(), value.into())),
            }
        }
        labels::check(pairs.iter().map(|(name, value)| (&**name, &**value)))?;
        pairs.extend(extra.map(|(name, value)| (Arc::from(name), Arc::from(value))));
        pairs.extend(self.resource.iter().cloned());
        pairs.push((Arc::clone(&self.name_label), name.into()));
        Ok(Labels::new(pairs))
    }
}

fn points_of(data: &metric::Data) -> u64 {
    let points = match data {
        metric::Data::Gauge(gauge) => gauge.data_points.len(),
        metric::Data::Sum(sum) => sum.data_points.len(),
        metric::Data::Histogram(histogram) => histogram.data_points.len(),
        metric::Data::ExponentialHistogram(histogram) => histogram.data_points.len(),
        metric::Data::Summary(summary) => summary.data_points.len(),
    };
    points as u64
}

fn is_absent(flags: u32) -> bool {
    flags & DataPointFlags::NoRecordedValueMask as u32 != 0
}

/// `job` and `instance` of a resource, and its other attributes. The host's name stands in for a missing instance: without one the
/// series of different hosts would be the same.
fn identity(attributes: &[KeyValue]) -> (Vec<Pair>, Vec<KeyValue>) {
    let get = |key: &str| attributes.iter().find(|pair| pair.key == key).and_then(text_of);
    let mut pairs: Vec<Pair> = Vec::new();
    if let Some(name) = get("service.name") {
        let job = get("service.namespace").map_or(name.clone(), |namespace| format!("{namespace}/{name}"));
        pairs.push((Arc::from("job"), job.into()));
    }
    if let Some(instance) = get("service.instance.id").or_else(|| get("host.name")) {
        pairs.push((Arc::from("instance"), instance.into()));
    }
    let own = ["service.name", "service.namespace", "service.instance.id"];
    (pairs, attributes.iter().filter(|pair| !own.contains(&pair.key.as_str())).cloned().collect())
}

/// An attribute's value as text; `None` where it has none.
pub(super) fn text_of(attribute: &KeyValue) -> Option<String> {
    attribute.value.as_ref().and_then(any_text)
}

/// A value as text: scalars plainly, lists and maps as JSON.
pub(super) fn any_text(value: &AnyValue) -> Option<String> {
    match value.value.as_ref()? {
        any_value::Value::StringValue(text) => Some(text.clone()),
        any_value::Value::BoolValue(value) => Some(value.to_string()),
        any_value::Value::IntValue(value) => Some(value.to_string()),
        any_value::Value::DoubleValue(value) => Some(value.to_string()),
        other => Some(json(other, 0).to_string()),
    }
}

/// Depth at which nested values end: prost itself refuses messages nested deeper than a hundred.
const JSON_DEPTH_MAX: usize = 16;

fn json(value: &any_value::Value, depth: usize) -> serde_json::Value {
    use serde_json::Value;
    let inner = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(value) if depth < JSON_DEPTH_MAX => json(value, depth + 1),
        _ => Value::Null,
    };
    match value {
        any_value::Value::StringValue(text) => Value::from(text.clone()),
        any_value::Value::BoolValue(value) => Value::from(*value),
        any_value::Value::IntValue(value) => Value::from(*value),
        any_value::Value::DoubleValue(value) => Value::from(*value),
        any_value::Value::BytesValue(bytes) => Value::from(String::from_utf8_lossy(bytes).into_owned()),
        any_value::Value::ArrayValue(list) => list.values.iter().map(|value| inner(&Some(value.clone()))).collect(),
        any_value::Value::KvlistValue(list) => {
            let map: BTreeMap<String, Value> =
                list.values.iter().map(|pair| (pair.key.clone(), inner(&pair.value))).collect();
            map.into_iter().collect()
        }
        // An index into a table that only profiles have.
        any_value::Value::StringValueStrindex(_) => Value::Null,
    }
}

#[cfg(test)]
#[path = "tests/otlp.rs"]
mod tests;
