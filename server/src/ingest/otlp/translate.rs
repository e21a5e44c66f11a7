//! The rules: names, labels, job and instance of OTLP metrics as Prometheus has them. Petrel's own agent sends names that are
//! Prometheus' already; they pass unchanged.

use std::collections::BTreeMap;
use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, DataPointFlags, Metric, NumberDataPoint, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::super::labels::{LabelError, LabelLimits};
use super::super::names::{Shape, label_name, metric_name};
use super::super::problems::Problems;
use super::DecodeError;
use super::deltas::Deltas;
use super::header::MESSAGE_BYTES_MAX;
use super::seen::{Fingerprint, Learned, Seen};
use super::streams::Changes;
use crate::series::{Labels, NAME, Sample, Timestamp};
use crate::store::{Batch, Finder, Known, MetricMetadata, Row, SelectError, Series};

/// Metadata key by which a gauge says what it was before it came to OpenTelemetry.
const PROMETHEUS_TYPE: &str = "prometheus.type";

/// Most bytes that the new series of one request take: a point of a dozen bytes has all labels of its resource, and a request could
/// become a thousand times as large.
const LABEL_BYTES_MAX: usize = 128 << 20;
/// What one of them takes beside its labels.
const SERIES_BYTES: usize = 96;

type Pair = (String, String);

/// What became of a request so far.
pub struct Translation<'a> {
    pub batch: Batch,
    pub problems: Problems,
    pub learned: Learned,
    /// What becomes of streams of deltas; `None` where none are taken in this pass.
    pub changes: Option<Changes>,
    known: &'a Known<'a>,
    finder: Finder<'a>,
    /// The series of the last point, where the store has it.
    last: Option<Arc<Series>>,
    /// How many samples were written, and the time of the last one.
    written: (u64, Timestamp),
    /// What labels of series that the store may not have take.
    label_bytes: usize,
}

/// Whose the points are: the labels that a resource gives them, and its other attributes; or why it cannot own any.
pub struct Owner {
    limits: LabelLimits,
    identity: Result<Vec<Pair>, LabelError>,
    others: Vec<KeyValue>,
}

/// What all points of one metric share.
pub struct Family {
    /// The Prometheus name.
    pub name: String,
}

impl Owner {
    /// Reads a resource.
    pub fn new(resource: &Resource, limits: LabelLimits) -> Owner {
        let (identity, others) = identity(&resource.attributes);
        let checked = limits.check(identity.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        Owner { limits, identity: checked.map(|()| identity), others }
    }

    /// The lane of its deltas: requests whose owners share none are taken in at the same time. Two owners of one series have the same.
    pub fn lane(&self, seen: &Seen) -> u16 {
        let pairs = self.identity.as_deref().unwrap_or_default();
        let parts = pairs.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]);
        seen.fingerprint(0, &parts) as u16
    }
}

impl<'a> Translation<'a> {
    /// Nothing yet.
    pub fn new(known: &'a Known<'a>, changes: Option<Changes>) -> Translation<'a> {
        Translation {
            changes,
            batch: Batch::default(),
            problems: Problems::default(),
            learned: Learned::default(),
            known,
            finder: known.finder(),
            last: None,
            written: (0, 0),
            label_bytes: 0,
        }
    }

    /// Remembers the series of the last point, where the store has it.
    pub fn learn_point(&mut self, fingerprint: Fingerprint) {
        self.learned.points.extend(self.last.take().map(|series| (fingerprint, series)));
    }

    /// `target_info`, where the resource has more than what all its series carry.
    pub fn target_info(&mut self, owner: &Owner, sample: Sample) {
        self.last = None;
        if owner.others.is_empty() || owner.identity.as_ref().is_ok_and(Vec::is_empty) {
            return;
        }
        match labels_of("target_info", owner, &owner.others, None) {
            // Where there is no room, other points were refused for it.
            Ok(labels) => _ = self.push(labels, sample),
            Err(error) => error.note(&mut self.problems, 1, ""),
        }
    }

    /// Takes a point, of deltas where streams are given, of a metric whose data is told without its points; returns its time where
    /// something was written for it.
    ///
    /// # Errors
    /// Its message is malformed.
    pub fn take(
        &mut self,
        (family, owner): (&Family, &Owner),
        (data, deltas): (&metric::Data, Option<&Deltas<'_>>),
        message: &[u8],
    ) -> Result<Option<Timestamp>, DecodeError> {
        let written = self.written;
        let of = (family, owner);
        match (data, deltas) {
            (metric::Data::Gauge(_), _) | (metric::Data::Sum(_), None) => {
                if let Some(point) = self.point_of(family, message)? {
                    self.number(family, owner, &point);
                }
            }
            (metric::Data::Sum(sum), Some(deltas)) => {
                if let Some(point) = self.point_of(family, message)? {
                    self.delta_number(of, deltas, &point, sum.is_monotonic);
                }
            }
            (metric::Data::Histogram(_), deltas) => match (self.point_of(family, message)?, deltas) {
                (Some(point), Some(deltas)) => self.delta_histogram(of, deltas, point),
                (Some(point), None) => self.histogram(family, owner, point),
                (None, _) => {}
            },
            (metric::Data::ExponentialHistogram(_), deltas) => match (self.point_of(family, message)?, deltas) {
                (Some(point), Some(deltas)) => self.delta_exponential(of, deltas, &point),
                (Some(point), None) => self.exponential(family, owner, &point),
                (None, _) => {}
            },
            (metric::Data::Summary(_), _) => {
                if let Some(point) = self.point_of(family, message)? {
                    self.summary(family, owner, &point);
                }
            }
        }
        Ok((self.written.0 > written.0).then_some(self.written.1))
    }

    /// Decodes a point; `None`, and the point refused, where it is large.
    ///
    /// # Errors
    /// Its message is malformed.
    pub fn point_of<M: Message + Default>(
        &mut self,
        family: &Family,
        message: &[u8],
    ) -> Result<Option<M>, DecodeError> {
        let bytes = message.len();
        if bytes > MESSAGE_BYTES_MAX {
            let name = &family.name;
            self.problems
                .add(1, format_args!("point of `{name:.100}` has {bytes} bytes, more than {MESSAGE_BYTES_MAX}"));
            return Ok(None);
        }
        Ok(Some(M::decode(message)?))
    }

    /// The name of a metric of so many points, with its metadata noted; `None`, and its points refused, where it has none that can be taken.
    pub fn open(&mut self, metric: &Metric, points: u64, owner: &Owner, is_agent: bool) -> Option<Family> {
        let Some(data) = &metric.data else {
            self.problems.add(1, format_args!("metric `{}` has no data", metric.name));
            return None;
        };
        if let Err(error) = &owner.identity {
            error.note(&mut self.problems, points, "resource: ");
            return None;
        }
        let told = metric.metadata.iter().find(|pair| pair.key == PROMETHEUS_TYPE).and_then(text_of);
        let shape = match data {
            metric::Data::Sum(sum) if sum.is_monotonic => Shape::Counter,
            metric::Data::Gauge(_) | metric::Data::Sum(_) if told.is_none() => Shape::Gauge,
            _ => Shape::Other,
        };
        let name = if is_agent { metric.name.clone() } else { metric_name(&metric.name, &metric.unit, shape) };
        if name.is_empty() {
            self.problems.add(1, format_args!("metric name `{}` has no letter or digit", metric.name));
            return None;
        }
        // Every series of the metric carries its name: one that is too long is refused before it is copied for each.
        if let Err(error) = owner.limits.check([(NAME, name.as_str())].into_iter()) {
            error.note(&mut self.problems, points, "");
            return None;
        }
        let kind = match data {
            metric::Data::Histogram(_) | metric::Data::ExponentialHistogram(_) => "histogram",
            metric::Data::Summary(_) => "summary",
            _ if shape == Shape::Counter => "counter",
            _ => "gauge",
        };
        let kind = told.unwrap_or_else(|| kind.to_owned());
        let known = MetricMetadata { kind, help: metric.description.clone(), unit: metric.unit.clone() };
        self.batch.metadata.push((name.clone(), known));
        Some(Family { name })
    }

    /// Takes one number; returns its time where it was taken.
    pub fn number(&mut self, family: &Family, owner: &Owner, point: &NumberDataPoint) -> Option<Timestamp> {
        self.last = None;
        let value = match point.value {
            _ if is_absent(point.flags) => None,
            Some(number_data_point::Value::AsDouble(value)) => Some(value),
            Some(number_data_point::Value::AsInt(value)) => Some(value as f64),
            None => {
                self.problems.add(1, format_args!("point of `{}` has no value", family.name));
                return None;
            }
        };
        let attributes = Attributes { owner, of_point: &point.attributes };
        self.point(family, &attributes, point.time_unix_nano, &mut |add| add("", None, value))
    }

    /// Takes one point. `parts` names the series that it consists of: suffix, extra label, value (`None`: the series ended).
    pub(super) fn point(
        &mut self,
        family: &Family,
        attributes: &Attributes<'_>,
        nanos: u64,
        parts: &mut Parts<'_>,
    ) -> Option<Timestamp> {
        if nanos == 0 {
            self.problems.add(1, format_args!("point of `{}` has no time", family.name));
            return None;
        }
        let t = (nanos / 1_000_000) as Timestamp;
        let mut fits = true;
        let taken = parts(&mut |suffix, extra, value| {
            let sample = value.map_or_else(|| Sample::stale(t), |v| Sample { t, v });
            let name = format!("{}{suffix}", family.name);
            fits &= self.push(labels_of(&name, attributes.owner, attributes.of_point, extra)?, sample);
            Ok(())
        });
        if let Err(error) = taken {
            error.note(&mut self.problems, 1, format_args!("point of `{:.100}`: ", family.name));
            return None;
        }
        if !fits {
            let reason = format_args!("new series of the request take more than {LABEL_BYTES_MAX} bytes; send less");
            self.problems.add(1, reason);
            return None;
        }
        self.written = (self.written.0 + 1, t);
        Some(t)
    }

    /// The last sample that the store has of a series.
    pub(super) fn last_of(&mut self, labels: &Labels) -> Result<Option<Sample>, SelectError> {
        self.finder.find(labels.as_wire()).map_or(Ok(None), |series| self.known.last(series))
    }

    /// Points of one series mostly follow each other. `false` where there is no room for one series more.
    fn push(&mut self, labels: Labels, sample: Sample) -> bool {
        if let Some(series) = self.finder.find(labels.as_wire()) {
            self.last = Some(Arc::clone(series));
            self.batch.rows.push(Row { series: Arc::clone(series), sample });
            return true;
        }
        if let Some((last, samples)) = self.batch.series.last_mut()
            && *last == labels
        {
            samples.push(sample);
            return true;
        }
        let label_bytes = self.label_bytes + labels.as_wire().len() + SERIES_BYTES;
        if label_bytes > LABEL_BYTES_MAX {
            return false;
        }
        self.label_bytes = label_bytes;
        self.batch.series.push((labels, vec![sample]));
        true
    }
}

/// Where the labels of a point come from.
pub(super) struct Attributes<'a> {
    pub owner: &'a Owner,
    pub of_point: &'a [KeyValue],
}

/// Adds one series of a point.
pub(super) type Add<'a> = dyn FnMut(&str, Option<(&str, String)>, Option<f64>) -> Result<(), LabelError> + 'a;
/// Adds all series of a point.
pub(super) type Parts<'a> = dyn FnMut(&mut Add<'_>) -> Result<(), LabelError> + 'a;

/// The labels of a point: its attributes, then an extra one, then job and instance, then the name; the later win.
pub(super) fn labels_of(
    name: &str,
    owner: &Owner,
    attributes: &[KeyValue],
    extra: Option<(&str, String)>,
) -> Result<Labels, LabelError> {
    // Equal names are looked for in all before, so the number is checked first.
    owner.limits.check_count(attributes.len())?;
    let identity = owner.identity.as_ref().map_err(Clone::clone)?;
    let mut pairs: Vec<Pair> = Vec::with_capacity(attributes.len() + identity.len() + 2);
    for attribute in attributes {
        let Some(value) = text_of(attribute) else { continue };
        let name = label_name(&attribute.key);
        // Two attributes that become one label: both values, as the specification asks.
        match pairs.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = format!("{known};{value}"),
            None => pairs.push((name, value)),
        }
    }
    owner.limits.check(pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
    pairs.extend(extra.map(|(name, value)| (name.to_owned(), value)));
    let pairs = pairs.iter().chain(identity).map(|(name, value)| (name.as_str(), value.as_str()));
    let labels = Labels::new(pairs.chain([(NAME, name)]));
    owner.limits.check_count(labels.len())?;
    Ok(labels)
}

/// Whether data with a temporality has this one.
pub(super) fn is(data: &metric::Data, temporality: AggregationTemporality) -> bool {
    let said = match data {
        metric::Data::Sum(sum) => sum.aggregation_temporality,
        metric::Data::Histogram(histogram) => histogram.aggregation_temporality,
        metric::Data::ExponentialHistogram(histogram) => histogram.aggregation_temporality,
        metric::Data::Gauge(_) | metric::Data::Summary(_) => return false,
    };
    said == temporality as i32
}

/// Whether data is cumulative, or has no temporality.
pub(super) fn is_cumulative(data: &metric::Data) -> bool {
    matches!(data, metric::Data::Gauge(_) | metric::Data::Summary(_)) || is(data, AggregationTemporality::Cumulative)
}

pub(super) fn is_absent(flags: u32) -> bool {
    flags & DataPointFlags::NoRecordedValueMask as u32 != 0
}

/// `job` and `instance` of a resource, and its other attributes. The host's name stands in for a missing instance: without one the
/// series of different hosts would be the same.
fn identity(attributes: &[KeyValue]) -> (Vec<Pair>, Vec<KeyValue>) {
    let get = |key: &str| attributes.iter().find(|pair| pair.key == key).and_then(text_of);
    let mut pairs: Vec<Pair> = Vec::new();
    if let Some(name) = get("service.name") {
        let job = get("service.namespace").map_or(name.clone(), |namespace| format!("{namespace}/{name}"));
        pairs.push(("job".to_owned(), job));
    }
    if let Some(instance) = get("service.instance.id").or_else(|| get("host.name")) {
        pairs.push(("instance".to_owned(), instance));
    }
    let own = ["service.name", "service.namespace", "service.instance.id"];
    (pairs, attributes.iter().filter(|pair| !own.contains(&pair.key.as_str())).cloned().collect())
}

/// An attribute's value as text; `None` where it has none.
pub fn text_of(attribute: &KeyValue) -> Option<String> {
    attribute.value.as_ref().and_then(any_text)
}

/// A value as text: scalars plainly, lists and maps as JSON.
pub fn any_text(value: &AnyValue) -> Option<String> {
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
