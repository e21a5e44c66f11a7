//! Petrel's agent: senses and hands on every host.
//!
//! collect and logs feed the spool, the spool feeds the stream to the server; orders come back on the stream and are
//! carried out by `drive`, only as far as this host's own config allows. The agent opens connections and never listens.
//! The server uses `stream::protocol` for the types of the wire, and runs the agent in its own process for `petrel up`.

pub mod clock;
pub mod collect;
pub mod command;
pub mod config;
pub mod drive;
pub mod error_chain;
pub mod haproxy;
pub mod heartbeat;
pub mod libvirt;
pub mod limits;
pub mod logs;
pub mod probes;
pub mod rounds;
pub mod run_loop;
pub mod spool;
pub mod stream;
pub mod telemetry;
pub mod units;
pub(crate) mod xml;
pub mod yaml;

pub use run_loop::{AgentError, run};
