//! OTLP metrics as series, by the rules of the OpenTelemetry specification's page «Prometheus and OpenMetrics compatibility».
//!
//! This file walks the request where it lies: gauges and cumulative sums of points that came before (`seen`) become rows
//! without being decoded. Everything else, and what comes for the first time, goes through `translate`, which knows the rules.

mod deltas;
mod exponential;
mod header;
mod histograms;
mod seen;
mod streams;
mod total;
mod translate;

use std::collections::BTreeSet;
use std::sync::Arc;

use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, any_value};
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, DataPointFlags, NumberDataPoint};
use petrel_agent::stream::protocol::SCOPE_TIME;

pub use seen::{Learned, Seen};
pub use streams::{Changes, StreamLimits, Streams};
pub(super) use translate::{any_text, text_of};

use super::labels::LabelLimits;
use super::problems::Problems;
use super::protobuf::{Fields, MalformedError, Value};
use crate::series::{Sample, Timestamp};
use crate::store::{Batch, Known, Row, Series};
use deltas::Deltas;
use header::{GAUGE, Header, MESSAGE_BYTES_MAX, SUM, TWICE, small};
use seen::Fingerprint;
use translate::{Family, Owner, Translation};

/// The scope name by which an agent says that its names are Prometheus' own.
const AGENT_SCOPE: &str = "petrel-agent";

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
    /// The lanes of the deltas. Where no changes were given, the deltas are not in the batch, and all is to be decoded again while the
    /// turns of these lanes are held.
    pub lanes: BTreeSet<u16>,
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
    let mut walk = Walk { limits, seen, find: &seen.points(), translation, newest: None, lanes: BTreeSet::new() };
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
    lanes: BTreeSet<u16>,
}

/// What the points of one scope share.
struct Scope<'a> {
    limits: LabelLimits,
    resource: &'a [u8],
    fingerprint: Fingerprint,
    is_agent: bool,
    /// When its numbers without a time were read, in nanoseconds since 1970; 0 where it does not say.
    time: u64,
    /// The resource, decoded when the first point needs it.
    owner: Option<Owner>,
}

impl<'a> Walk<'a> {
    fn resource(&mut self, message: &'a [u8]) -> Result<(), DecodeError> {
        let mut resource: &[u8] = &[];
        let mut fields = Fields(message);
        while let Some(field) = fields.take()? {
            if let (1, Value::Bytes(bytes)) = field {
                resource = bytes;
            }
        }
        self.newest = None;
        let fingerprint = self.seen.fingerprint(0, &[resource].into_iter());
        let mut scope = Scope { limits: self.limits, resource, fingerprint, is_agent: false, time: 0, owner: None };
        // Once more, because a list of the scopes would take eight times the bytes of empty ones.
        let mut fields = Fields(message);
        while let Some(field) = fields.take()? {
            if let (2, Value::Bytes(bytes)) = field {
                self.scope(bytes, &mut scope)?;
            }
        }
        self.target_info(&mut scope)
    }

    fn scope(&mut self, message: &'a [u8], scope: &mut Scope<'_>) -> Result<(), DecodeError> {
        (scope.is_agent, scope.time) = agent_scope(message)?.map_or((false, 0), |time| (true, time));
        let mut fields = Fields(message);
        while let Some(field) = fields.take()? {
            if let (2, Value::Bytes(metric)) = field {
                self.metric(metric, scope)?;
            }
        }
        Ok(())
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
        let header = Header::read(message)?;
        let number = header.data.map(|(number, _)| number);
        let monotonic = match number {
            Some(GAUGE) => Some(false),
            Some(SUM) => header.cumulative_sum()?,
            _ => None,
        };
        let Some(monotonic) = monotonic else {
            return self.decoded(&header, scope);
        };
        let kind = [number.unwrap_or_default() as u8, u8::from(monotonic), u8::from(scope.is_agent)];
        let parts = [header.name, header.unit, &kind].into_iter().chain(header.metadata.iter().copied());
        let fingerprint = self.seen.fingerprint(scope.fingerprint, &parts);
        let told = self.seen.fingerprint(0, &parts.chain([header.description]));
        let mut late = Late { header: &header, told, is_open: false, family: None };
        if !self.seen.has_metric(told) {
            late.open(&mut self.translation, scope)?;
        }
        let mut points = header.points();
        while let Some(point) = points.take()? {
            self.number(point, fingerprint, (&mut late, scope))?;
        }
        Ok(())
    }

    /// A metric that has no short way.
    fn decoded(&mut self, header: &Header<'_>, scope: &mut Scope<'_>) -> Result<(), DecodeError> {
        let (metric, points) = header.shell()?;
        if header.data.is_some_and(|(number, _)| number == TWICE) {
            self.translation.problems.add(1, format_args!("metric `{}` gives its data twice", metric.name));
            return Ok(());
        }
        let is_agent = scope.is_agent;
        let owner = owner(scope)?;
        let data = metric.data.as_ref();
        let is_delta = data.is_some_and(|data| translate::is(data, AggregationTemporality::Delta));
        if is_delta {
            self.lanes.insert(owner.lane(self.seen));
            if self.translation.changes.is_none() {
                return Ok(());
            }
        }
        let Some(family) = self.translation.open(&metric, points, owner, is_agent) else { return Ok(()) };
        let Some(data) = data else { return Ok(()) };
        if !is_delta && !translate::is_cumulative(data) {
            let reason = "says neither cumulative nor delta; set the sender's temporality";
            self.translation.problems.add(points, format_args!("metric `{}` {reason}", family.name));
            self.translation.batch.metadata.pop();
            return Ok(());
        }
        let deltas = is_delta.then(|| Deltas::new(self.seen, data));
        let mut points = header.points();
        while let Some(point) = points.take()? {
            let newest = self.translation.take((&family, owner), (data, deltas.as_ref()), point)?;
            self.newest = self.newest.max(newest);
        }
        Ok(())
    }

    /// One point of a gauge or sum.
    fn number(
        &mut self,
        message: &[u8],
        metric: Fingerprint,
        (late, scope): (&mut Late<'_>, &mut Scope<'_>),
    ) -> Result<(), DecodeError> {
        let mut fingerprint = None;
        if message.len() <= MESSAGE_BYTES_MAX {
            let (point, attributes) = number_point(message, scope.time)?;
            let found = self.seen.fingerprint(metric, &attributes.iter().copied());
            if let Some(sample) = point
                && let Some(series) = (self.find)(found)
            {
                self.newest = self.newest.max(Some(sample.t));
                self.translation.batch.rows.push(Row { series, sample });
                return Ok(());
            }
            fingerprint = Some(found);
        }
        late.open(&mut self.translation, scope)?;
        if let (Some(family), Some(owner)) = (&late.family, &scope.owner)
            && let Some(mut point) = self.translation.point_of::<NumberDataPoint>(family, message)?
        {
            if point.time_unix_nano == 0 {
                point.time_unix_nano = scope.time;
            }
            let newest = self.translation.number(family, owner, &point);
            self.newest = self.newest.max(newest);
            if let Some(fingerprint) = fingerprint {
                self.translation.learn_point(fingerprint);
            }
        }
        Ok(())
    }
}

/// A metric that is decoded only if one of its points is new.
struct Late<'a> {
    header: &'a Header<'a>,
    told: Fingerprint,
    is_open: bool,
    /// What its points share, where it is open and its name can be taken.
    family: Option<Family>,
}

impl Late<'_> {
    fn open(&mut self, translation: &mut Translation<'_>, scope: &mut Scope<'_>) -> Result<(), DecodeError> {
        if !self.is_open {
            let (metric, points) = self.header.shell()?;
            let is_agent = scope.is_agent;
            self.family = translation.open(&metric, points, owner(scope)?, is_agent);
            if self.family.is_some() {
                translation.learned.metrics.push(self.told);
            }
            self.is_open = true;
        }
        Ok(())
    }
}

fn owner<'a>(scope: &'a mut Scope<'_>) -> Result<&'a Owner, DecodeError> {
    let owner = match scope.owner.take() {
        Some(owner) => owner,
        None => Owner::new(&small(scope.resource)?, scope.limits),
    };
    Ok(scope.owner.insert(owner))
}

/// Where the scope is an agent's: when its points without a time were read, 0 where it does not say.
fn agent_scope(message: &[u8]) -> Result<Option<u64>, DecodeError> {
    let mut scope: &[u8] = &[];
    let mut fields = Fields(message);
    while let Some(field) = fields.take()? {
        if let (1, Value::Bytes(bytes)) = field {
            scope = bytes;
        }
    }
    let scope: InstrumentationScope = small(scope)?;
    if scope.name != AGENT_SCOPE {
        return Ok(None);
    }
    let time = scope.attributes.iter().find(|pair| pair.key == SCOPE_TIME).and_then(|pair| pair.value.as_ref());
    match time.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::IntValue(time)) => Ok(Some(u64::try_from(*time).unwrap_or(0))),
        _ => Ok(Some(0)),
    }
}

/// The sample of a point, `None` where the point is not in order, and the messages of its attributes. A point without a time has
/// that of its scope.
fn number_point(message: &[u8], scope_time: u64) -> Result<(Option<Sample>, Vec<&[u8]>), MalformedError> {
    let (mut nanos, mut value, mut flags) = (scope_time, None, 0);
    let mut attributes = Vec::with_capacity(4);
    let mut fields = Fields(message);
    while let Some(field) = fields.take()? {
        match field {
            (3, Value::Fixed64(bits)) if bits != 0 => nanos = bits,
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
