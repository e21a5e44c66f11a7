//! The messages of Prometheus' remote write 1.0 and remote read, with their own names: one vocabulary for all that send or read them.
//! Only what is used; what is received in bulk is read where it lies (`ingest::remote_write`), what is sent in bulk is written straight
//! from the samples (`wire`).

use prost::Message;

/// Numbers of `ReadRequest.ResponseType`: one message of samples.
pub const SAMPLES: i32 = 0;
/// Numbers of `ReadRequest.ResponseType`: frames of chunks.
pub const STREAMED_XOR_CHUNKS: i32 = 1;
/// Number of `Chunk.Encoding`.
pub const XOR: i32 = 1;

/// Samples to be stored.
#[derive(Clone, PartialEq, Message)]
pub struct WriteRequest {
    /// Series with samples.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
    /// What is told about metrics.
    #[prost(message, repeated, tag = "3")]
    pub metadata: Vec<MetricMetadata>,
}

/// A series with samples.
#[derive(Clone, PartialEq, Message)]
pub struct TimeSeries {
    /// Sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// In the order of time.
    #[prost(message, repeated, tag = "2")]
    pub samples: Vec<Sample>,
}

/// A label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Message)]
pub struct Label {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A sample.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Sample {
    /// Its value, bit for bit.
    #[prost(double, tag = "1")]
    pub value: f64,
    /// Its time in milliseconds.
    #[prost(int64, tag = "2")]
    pub timestamp: i64,
}

/// What is told about a metric.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct MetricMetadata {
    /// Number of its type.
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    /// The metric.
    #[prost(string, tag = "2")]
    pub metric_family_name: String,
    /// In words.
    #[prost(string, tag = "4")]
    pub help: String,
}

/// Questions for samples.
#[derive(Clone, PartialEq, Message)]
pub struct ReadRequest {
    /// The questions.
    #[prost(message, repeated, tag = "1")]
    pub queries: Vec<Query>,
    /// Numbers of the answers that the client takes, the best first; none stands for samples.
    #[prost(int32, repeated, tag = "2")]
    pub accepted_response_types: Vec<i32>,
}

/// A question. Hints, field 4, only tell what could be left out.
#[derive(Clone, PartialEq, Message)]
pub struct Query {
    /// First instant, in milliseconds.
    #[prost(int64, tag = "1")]
    pub start_timestamp_ms: i64,
    /// Last instant, in milliseconds.
    #[prost(int64, tag = "2")]
    pub end_timestamp_ms: i64,
    /// Conditions, all of which hold.
    #[prost(message, repeated, tag = "3")]
    pub matchers: Vec<LabelMatcher>,
}

/// A condition on a label.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LabelMatcher {
    /// 0 `=`, 1 `!=`, 2 `=~`, 3 `!~`.
    #[prost(int32, tag = "1")]
    pub r#type: i32,
    /// The label.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Value or expression.
    #[prost(string, tag = "3")]
    pub value: String,
}

/// The answer in one message.
#[derive(Clone, PartialEq, Message)]
pub struct ReadResponse {
    /// One for each question.
    #[prost(message, repeated, tag = "1")]
    pub results: Vec<QueryResult>,
}

/// The series of one question.
#[derive(Clone, PartialEq, Message)]
pub struct QueryResult {
    /// In the order of their labels.
    #[prost(message, repeated, tag = "1")]
    pub timeseries: Vec<TimeSeries>,
}

/// One frame of a streamed answer.
#[derive(Clone, PartialEq, Message)]
pub struct ChunkedReadResponse {
    /// Series with some of their chunks.
    #[prost(message, repeated, tag = "1")]
    pub chunked_series: Vec<ChunkedSeries>,
    /// Which question this answers.
    #[prost(int64, tag = "2")]
    pub query_index: i64,
}

/// A series with chunks.
#[derive(Clone, PartialEq, Message)]
pub struct ChunkedSeries {
    /// Sorted by name.
    #[prost(message, repeated, tag = "1")]
    pub labels: Vec<Label>,
    /// In the order of time.
    #[prost(message, repeated, tag = "2")]
    pub chunks: Vec<Chunk>,
}

/// Samples of some time.
#[derive(Clone, PartialEq, Message)]
pub struct Chunk {
    /// First instant, in milliseconds.
    #[prost(int64, tag = "1")]
    pub min_time_ms: i64,
    /// Last instant, in milliseconds.
    #[prost(int64, tag = "2")]
    pub max_time_ms: i64,
    /// Number of the encoding.
    #[prost(int32, tag = "3")]
    pub r#type: i32,
    /// Bytes of the chunk.
    #[prost(bytes = "vec", tag = "4")]
    pub data: Vec<u8>,
}
