//! Ingest: what senders send, decoded into batches of the store: OTLP metrics and logs, Prometheus remote write. Pure: bytes in,
//! batches and named problems out; `api::write` is the rim. What is good in a request is stored, what is bad is named.

pub mod body;
pub mod budget;
pub mod dictionaries;
pub mod heartbeat;
pub mod labels;
mod names;
pub mod otlp;
pub mod otlp_logs;
pub mod presence;
pub mod problems;
pub mod protobuf;
pub mod remote_write;
pub mod symbols;
