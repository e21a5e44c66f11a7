//! HTTP: the Prometheus API, OTLP and remote write receivers, and our own endpoints. A thin rim.

pub mod alerting;
pub mod auth;
pub mod backup;
pub mod body_deadline;
pub mod compress;
pub mod cors;
pub mod hosts;
pub mod listen;
pub mod logs;
pub mod prometheus;
pub mod remedy;
pub mod v1;
pub mod write;
