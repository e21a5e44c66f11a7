//! Ingest: OTLP and remote write in, checked and named, handed to the store in batches.

pub mod heartbeat;
