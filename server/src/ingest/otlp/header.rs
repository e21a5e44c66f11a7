//! Metrics as they lie in the body: their fields are found, their points left where they are. Points are decoded one at a time, and
//! only small ones: two bytes of a request can be a point that takes 170 bytes decoded, so a request must never be decoded whole.

use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, Gauge, Histogram, Metric, Sum, Summary, metric,
};
use prost::Message;

use super::super::protobuf::{Fields, MalformedError, Value};
use super::DecodeError;

/// Largest message that is decoded as a whole: a point with all labels, buckets and exemplars that are taken has less.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most metadata of one metric.
const METADATA_MAX: usize = 1_000;

/// Numbers of [`Metric`]'s fields of data.
pub const GAUGE: u32 = 5;
/// A sum.
pub const SUM: u32 = 7;
const HISTOGRAM: u32 = 9;
const EXPONENTIAL: u32 = 10;
const SUMMARY: u32 = 11;
/// Data that a metric gives twice, which is not taken.
pub const TWICE: u32 = 0;

/// A message is larger than any that makes sense.
#[derive(Debug, thiserror::Error)]
#[error("a resource or the metadata of a metric has {bytes} bytes, more than {MESSAGE_BYTES_MAX}")]
struct LargeError {
    bytes: usize,
}

/// A metric's message, its fields found.
#[derive(Default)]
pub struct Header<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Its description.
    pub description: &'a [u8],
    /// Its unit.
    pub unit: &'a [u8],
    /// Its metadata, each a message.
    pub metadata: Vec<&'a [u8]>,
    /// The number of its field of data, and the data.
    pub data: Option<(u32, &'a [u8])>,
}

impl<'a> Header<'a> {
    /// Finds the fields of a metric.
    ///
    /// # Errors
    /// The message is malformed.
    pub fn read(message: &'a [u8]) -> Result<Header<'a>, MalformedError> {
        let mut header = Header::default();
        let mut fields = Fields(message);
        while let Some(field) = fields.take()? {
            match field {
                (1, Value::Bytes(bytes)) => header.name = bytes,
                (2, Value::Bytes(bytes)) => header.description = bytes,
                (3, Value::Bytes(bytes)) => header.unit = bytes,
                (12, Value::Bytes(bytes)) if header.metadata.len() < METADATA_MAX => header.metadata.push(bytes),
                (GAUGE | SUM | HISTOGRAM | EXPONENTIAL | SUMMARY, Value::Bytes(_)) if header.data.is_some() => {
                    header.data = Some((TWICE, &[]));
                }
                (number @ (GAUGE | SUM | HISTOGRAM | EXPONENTIAL | SUMMARY), Value::Bytes(bytes)) => {
                    header.data = Some((number, bytes));
                }
                _ => {}
            }
        }
        Ok(header)
    }

    /// The metric without its points, and their number.
    ///
    /// # Errors
    /// It is malformed.
    pub fn shell(&self) -> Result<(Metric, u64), DecodeError> {
        let (number, data) = self.data.unwrap_or_default();
        let (temporality, is_monotonic, points) = about(data)?;
        let aggregation_temporality = i32::try_from(temporality).unwrap_or_default();
        let data_points = Vec::new();
        let data = match number {
            GAUGE => Some(metric::Data::Gauge(Gauge::default())),
            SUM => Some(metric::Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })),
            HISTOGRAM => Some(metric::Data::Histogram(Histogram { aggregation_temporality, ..Histogram::default() })),
            EXPONENTIAL => Some(metric::Data::ExponentialHistogram(ExponentialHistogram {
                aggregation_temporality,
                ..ExponentialHistogram::default()
            })),
            SUMMARY => Some(metric::Data::Summary(Summary::default())),
            _ => None,
        };
        let metadata = self.metadata.iter().map(|message| small(message)).collect::<Result<_, _>>()?;
        let (name, unit, description) = (text(self.name)?, text(self.unit)?, text(self.description)?);
        Ok((Metric { name, description, unit, metadata, data }, points))
    }

    /// The messages of the points, in their order.
    pub fn points(&self) -> Points<'a> {
        Points(Fields(self.data.unwrap_or_default().1))
    }

    /// Whether a sum is monotonic, where it is cumulative.
    ///
    /// # Errors
    /// It is malformed.
    pub fn cumulative_sum(&self) -> Result<Option<bool>, MalformedError> {
        let (temporality, monotonic, _) = about(self.data.unwrap_or_default().1)?;
        Ok((temporality == AggregationTemporality::Cumulative as u64).then_some(monotonic))
    }
}

/// The points of one metric.
pub struct Points<'a>(Fields<'a>);

impl<'a> Points<'a> {
    /// The next point's message; `None` at the end.
    ///
    /// # Errors
    /// What follows is no field.
    pub fn take(&mut self) -> Result<Option<&'a [u8]>, MalformedError> {
        while let Some(field) = self.0.take()? {
            if let (1, Value::Bytes(point)) = field {
                return Ok(Some(point));
            }
        }
        Ok(None)
    }
}

/// Temporality, whether monotonic, and the number of points.
fn about(data: &[u8]) -> Result<(u64, bool, u64), MalformedError> {
    let (mut temporality, mut monotonic, mut points) = (0, false, 0);
    let mut fields = Fields(data);
    while let Some(field) = fields.take()? {
        match field {
            (1, Value::Bytes(_)) => points += 1,
            (2, Value::Varint(value)) => temporality = value,
            (3, Value::Varint(value)) => monotonic = value != 0,
            _ => {}
        }
    }
    Ok((temporality, monotonic, points))
}

/// Decodes a message that is not large.
///
/// # Errors
/// It is, or is malformed.
pub fn small<M: Message + Default>(message: &[u8]) -> Result<M, DecodeError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(DecodeError { what: "metrics", source: LargeError { bytes: message.len() }.into() });
    }
    Ok(M::decode(message)?)
}

fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    let text = str::from_utf8(bytes).map_err(|source| DecodeError { what: "metrics", source: source.into() })?;
    Ok(text.to_owned())
}
