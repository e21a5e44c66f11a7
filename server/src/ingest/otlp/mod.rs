//! OTLP metrics as series, by the rules of the OpenTelemetry specification's page «Prometheus and OpenMetrics compatibility».
//!
//! This file walks the request where it lies: gauges and cumulative sums of points that came before (`seen`) become rows
//! without being decoded. Everything else, and what comes for the first time, goes through `translate`, which knows the rules.

mod deltas;
mod exponential;
mod histograms;
mod seen;
mod streams;
mod total;
mod translate;

use std::sync::Arc;

use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, DataPointFlags, Metric, metric};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

pub use seen::{Learned, Seen};
pub use streams::{Changes, StreamLimits, Streams};
pub(super) use translate::{any_text, text_of};

use super::labels::LabelLimits;
use super::problems::Problems;
use super::protobuf::{Fields, MalformedError, Value};
use crate::series::{Sample, Timestamp};
use crate::store::{Batch, Known, Row, Series};
use deltas::Deltas;
use seen::Fingerprint;
use translate::{Family, Owner, Translation};

/// The scope name by which an agent says that its names are Prometheus' own.
const AGENT_SCOPE: &[u8] = b"petrel-agent";

/// The body is not an OTLP request.
#[derive(Debug, thiserror::Error)]
#[error("body is not an OTLP {what} request in protobuf")]
pub struct DecodeError {
    /// `metrics` or `logs`.
    pub what: &'static str,
    /// What is wrong.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl From<MalformedError> for DecodeError {
    fn from(error: MalformedError) -> DecodeError {
        DecodeError { what: "metrics", source: error.into() }
    }
}

impl From<prost::DecodeError> for DecodeError {
    fn from(error: prost::DecodeError) -> DecodeError {
        DecodeError { what: "metrics", source: error.into() }
    }
}

/// A decoded request.
#[derive(Debug)]
pub struct Decoded {
    /// What can be stored.
    pub batch: Batch,
    /// What cannot.
    pub problems: Problems,
    /// What [`Seen::learn`] is to be told once the batch is committed.
    pub learned: Learned,
    /// What becomes of streams of deltas once the batch is committed.
    pub changes: Option<Changes>,
    /// The lanes of the deltas, one bit each. Where no changes were given, the deltas are not in the batch, and all is to be decoded
    /// again while the turns of these lanes are held.
    pub lanes: u16,
}

/// Reads a decompressed body. `known` are the store's series, `seen` what came before; the labels of others are held against
/// `limits`. Deltas are added up in `changes`.
///
/// # Errors
/// The message as a whole is malformed.
pub fn decode(
    body: &[u8],
    known: &Known<'_>,
    seen: &Seen,
    limits: LabelLimits,
    changes: Option<Changes>,
) -> Result<Decoded, DecodeError> {
    let translation = Translation::new(known, changes);
    let mut walk = Walk { limits, seen, find: &seen.points(), translation, newest: None, lanes: 0 };
    // The smallest points of a real sender take about this many bytes.
    walk.translation.batch.rows.reserve(body.len() / 64);
    let mut fields = Fields(body);
    while let Some(field) = fields.take()? {
        if let (1, Value::Bytes(resource)) = field {
            walk.resource(resource)?;
        }
    }
    let Translation { batch, problems, learned, changes, .. } = walk.translation;
    Ok(Decoded { batch, problems, learned, changes, lanes: walk.lanes })
}

/// A request on its way.
struct Walk<'a> {
    limits: LabelLimits,
    seen: &'a Seen,
    find: &'a dyn Fn(Fingerprint) -> Option<Arc<Series>>,
    translation: Translation<'a>,
    /// The newest point of the resource.
    newest: Option<Timestamp>,
    lanes: u16,
}

/// What the points of one scope share.
struct Scope<'a> {
    limits: LabelLimits,
    resource: &'a [u8],
    fingerprint: Fingerprint,
    is_agent: bool,
    /// The scope's message, and what tells its resource from others, found when the first delta needs it.
    of_deltas: (&'a [u8], Option<Fingerprint>),
    /// The resource, decoded when the first point needs it.
    owner: Option<Owner>,
}

/// A metric's message, its fields found.
#[derive(Default)]
struct Header<'a> {
    name: &'a [u8],
    description: &'a [u8],
    unit: &'a [u8],
    metadata: Vec<&'a [u8]>,
    /// The number of its field of data, and the data.
    data: Option<(u32, &'a [u8])>,
}

/// Numbers of [`Metric`]'s fields of data.
const GAUGE: u32 = 5;
const SUM: u32 = 7;

impl<'a> Walk<'a> {
    fn resource(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        let (mut resource, mut scopes): (&[u8], Vec<&[u8]>) = (&[], Vec::new());
        let mut fields = Fields(message);
        while let Some(field) = fields.take()? {
            match field {
                (1, Value::Bytes(bytes)) => resource = bytes,
                (2, Value::Bytes(bytes)) => scopes.push(bytes),
                _ => {}
            }
        }
        self.newest = None;
        let fingerprint = self.seen.fingerprint(0, &[resource].into_iter());
        let mut scope =
            Scope { limits: self.limits, resource, fingerprint, is_agent: false, of_deltas: (&[], None), owner: None };
        for message in scopes {
            let (name, bytes) = scope_name(message)?;
            scope.is_agent = name == AGENT_SCOPE;
            scope.of_deltas.0 = bytes;
            let mut fields = Fields(message);
            while let Some(field) = fields.take()? {
                if let (2, Value::Bytes(metric)) = field {
                    self.metric(metric, &mut scope)?;
                }
            }
        }
        self.target_info(&mut scope)
    }

    /// The resource's other attributes, as a series of their own.
    fn target_info(&mut self, scope: &mut Scope<'_>) -> Result<(), DecodeError> {
        let Some(t) = self.newest else { return Ok(()) };
        let fingerprint = self.seen.fingerprint(scope.fingerprint, &[&b"target_info"[..]].into_iter());
        let sample = Sample { t, v: 1.0 };
        if let Some(series) = (self.find)(fingerprint) {
            self.translation.batch.rows.push(Row { series, sample });
        } else {
            let owner = owner(scope)?;
            self.translation.target_info(owner, sample);
            self.translation.learn_point(fingerprint);
        }
        Ok(())
    }

    fn metric(&mut self, message: &[u8], scope: &mut Scope<'_>) -> Result<(), DecodeError> {
        let header = header(message)?;
        let (number, data) = header.data.unwrap_or_default();
        let monotonic = match number {
            GAUGE => Some(false),
            SUM => cumulative_sum(data)?,
            _ => None,
        };
        let Some(monotonic) = monotonic else {
            return self.decoded(Metric::decode(message)?, scope);
        };
        let kind = [number as u8, u8::from(monotonic), u8::from(scope.is_agent)];
        let parts = [header.name, header.unit, &kind].into_iter().chain(header.metadata.iter().copied());
        let fingerprint = self.seen.fingerprint(scope.fingerprint, &parts);
        let told = self.seen.fingerprint(0, &parts.chain([header.description]));
        let mut late = Late { message, told, decoded: None };
        if !self.seen.has_metric(told) {
            late.open(&mut self.translation, scope)?;
        }
        let mut fields = Fields(data);
        let mut place = 0;
        while let Some(field) = fields.take()? {
            if let (1, Value::Bytes(point)) = field {
                self.number(point, fingerprint, place, (&mut late, scope))?;
                place += 1;
            }
        }
        Ok(())
    }

    /// A metric that has no short way.
    fn decoded(&mut self, metric: Metric, scope: &mut Scope<'_>) -> Result<(), DecodeError> {
        let is_agent = scope.is_agent;
        let seen = self.seen;
        let deltas = match &metric.data {
            Some(data) if translate::is(data, AggregationTemporality::Delta) => {
                let (bytes, origin) = scope.of_deltas;
                let origin = match origin {
                    Some(origin) => origin,
                    None => deltas::origin(&Resource::decode(scope.resource)?, seen),
                };
                scope.of_deltas.1 = Some(origin);
                self.lanes |= deltas::lane(origin);
                if self.translation.changes.is_none() {
                    return Ok(());
                }
                Some(Deltas::new(seen, (origin, bytes), &metric, data))
            }
            _ => None,
        };
        let newest = self.translation.metric(metric, owner(scope)?, is_agent, deltas.as_ref());
        self.newest = self.newest.max(newest);
        Ok(())
    }

    /// One point of a gauge or sum, the one at `place`.
    fn number(
        &mut self,
        message: &[u8],
        metric: Fingerprint,
        place: usize,
        (late, scope): (&mut Late<'_>, &mut Scope<'_>),
    ) -> Result<(), DecodeError> {
        let (point, attributes) = number_point(message)?;
        let fingerprint = self.seen.fingerprint(metric, &attributes.iter().copied());
        if let Some(sample) = point
            && let Some(series) = (self.find)(fingerprint)
        {
            self.newest = self.newest.max(Some(sample.t));
            self.translation.batch.rows.push(Row { series, sample });
            return Ok(());
        }
        late.open(&mut self.translation, scope)?;
        if let (Some((metric, Some(family))), Some(owner)) = (&late.decoded, &scope.owner)
            && let Some(point) = points_of(metric).get(place)
        {
            let newest = self.translation.number(family, owner, point);
            self.newest = self.newest.max(newest);
            self.translation.learn_point(fingerprint);
        }
        Ok(())
    }
}

/// A metric that is decoded only if one of its points is new.
struct Late<'a> {
    message: &'a [u8],
    told: Fingerprint,
    /// The metric, and what its points share where its name can be taken.
    decoded: Option<(Metric, Option<Family>)>,
}

impl Late<'_> {
    fn open(&mut self, translation: &mut Translation<'_>, scope: &mut Scope<'_>) -> Result<(), DecodeError> {
        if self.decoded.is_none() {
            let metric = Metric::decode(self.message)?;
            let is_agent = scope.is_agent;
            let family = translation.open(&metric, owner(scope)?, is_agent);
            if family.is_some() {
                translation.learned.metrics.push(self.told);
            }
            self.decoded = Some((metric, family));
        }
        Ok(())
    }
}

fn points_of(metric: &Metric) -> &[opentelemetry_proto::tonic::metrics::v1::NumberDataPoint] {
    match &metric.data {
        Some(metric::Data::Gauge(gauge)) => &gauge.data_points,
        Some(metric::Data::Sum(sum)) => &sum.data_points,
        _ => &[],
    }
}

fn owner<'a>(scope: &'a mut Scope<'_>) -> Result<&'a Owner, DecodeError> {
    let owner = match scope.owner.take() {
        Some(owner) => owner,
        None => Owner::new(&Resource::decode(scope.resource)?, scope.limits),
    };
    Ok(scope.owner.insert(owner))
}

/// A scope's name, and its message.
fn scope_name(message: &[u8]) -> Result<(&[u8], &[u8]), MalformedError> {
    let (mut name, mut message_of_scope): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields(message);
    while let Some(field) = fields.take()? {
        if let (1, Value::Bytes(scope)) = field {
            message_of_scope = scope;
            let mut fields = Fields(scope);
            while let Some(field) = fields.take()? {
                if let (1, Value::Bytes(bytes)) = field {
                    name = bytes;
                }
            }
        }
    }
    Ok((name, message_of_scope))
}

fn header(message: &[u8]) -> Result<Header<'_>, MalformedError> {
    let mut header = Header::default();
    let mut fields = Fields(message);
    while let Some(field) = fields.take()? {
        match field {
            (1, Value::Bytes(bytes)) => header.name = bytes,
            (2, Value::Bytes(bytes)) => header.description = bytes,
            (3, Value::Bytes(bytes)) => header.unit = bytes,
            (12, Value::Bytes(bytes)) => header.metadata.push(bytes),
            // Protocol buffers merge what is given twice: then the short way, which sees only one, must not be taken.
            (5 | 7 | 9 | 10 | 11, Value::Bytes(_)) if header.data.is_some() => header.data = Some((0, &[])),
            (number @ (5 | 7 | 9 | 10 | 11), Value::Bytes(bytes)) => header.data = Some((number, bytes)),
            _ => {}
        }
    }
    Ok(header)
}

/// Whether a sum is monotonic, where it is cumulative.
fn cumulative_sum(sum: &[u8]) -> Result<Option<bool>, MalformedError> {
    let (mut temporality, mut monotonic) = (0, false);
    let mut fields = Fields(sum);
    while let Some(field) = fields.take()? {
        match field {
            (2, Value::Varint(value)) => temporality = value,
            (3, Value::Varint(value)) => monotonic = value != 0,
            _ => {}
        }
    }
    Ok((temporality == AggregationTemporality::Cumulative as u64).then_some(monotonic))
}

/// The sample of a point, `None` where the point is not in order, and the messages of its attributes.
fn number_point(message: &[u8]) -> Result<(Option<Sample>, Vec<&[u8]>), MalformedError> {
    let (mut nanos, mut value, mut flags) = (0u64, None, 0);
    let mut attributes = Vec::with_capacity(4);
    let mut fields = Fields(message);
    while let Some(field) = fields.take()? {
        match field {
            (3, Value::Fixed64(bits)) => nanos = bits,
            (4, Value::Fixed64(bits)) => value = Some(f64::from_bits(bits)),
            (6, Value::Fixed64(bits)) => value = Some(bits as i64 as f64),
            (7, Value::Bytes(attribute)) => attributes.push(attribute),
            (8, Value::Varint(bits)) => flags = bits,
            _ => {}
        }
    }
    let t = (nanos / 1_000_000) as Timestamp;
    let is_absent = flags & DataPointFlags::NoRecordedValueMask as u64 != 0;
    let sample = if is_absent { Some(Sample::stale(t)) } else { value.map(|v| Sample { t, v }) };
    Ok((sample.filter(|_| nanos != 0), attributes))
}

#[cfg(test)]
#[path = "../tests/otlp.rs"]
mod tests;
