//! Petrel's server: memory and judgement of the fleet.
//!
//! The way of the data: `ingest` → `store` → `query`, and from there `score`, `predict`, `rules` → `decide` → `notify`
//! and `remedy`. Decisions are pure state machines `step(event, now) -> effects`; `run_loop` is the only place that reads
//! the clock, and `app` the only one that knows all parts. ARCHITECTURE.md has the map and the edges that are allowed.

pub mod api;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod decide;
pub mod ingest;
pub mod memory;
pub mod notify;
pub mod own_metrics;
pub mod predict;
pub mod query;
pub mod remedy;
pub mod remote;
pub mod rules;
pub mod run_loop;
pub mod score;
pub mod series;
pub mod store;
pub mod telemetry;
