//! The remote engine: a Prometheus-compatible store (VictoriaMetrics, Mimir, Thanos, Prometheus) that keeps the samples of fleets
//! past one machine. What is acknowledged is in the local journals as ever; `forward` sends it on from there, and `source` answers
//! from the local store, and for what is older from the remote engine. It must never delay a commit, and never give a part of an
//! answer as the whole without saying so.
//!
//! `delivery` decides what becomes of a request, `parcel` makes requests of journal records, `cursor` remembers how far they are
//! sent, `client` speaks HTTP, `prompb`, `wire` and `answer` are the formats, `reader` asks.

mod answer;
mod client;
mod config;
mod cursor;
mod delivery;
mod engine;
mod forward;
mod parcel;
pub mod prompb;
mod reader;
mod source;
mod wire;

pub use config::{RawEngine, RawRemote, ReadProtocol, RemoteConfig, RemoteConfigError};
pub use cursor::MIGRATIONS;
pub use engine::{OpenRemoteError, RemoteEngine};
pub use source::Merged;
