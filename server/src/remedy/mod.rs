//! Remedy: runbooks, guards, plans, runs: decided here, journalled before each step, carried out by agents, verified from
//! fresh observations, undone where asked.
//!
//! The way of a run: an alert fires → [`runbook`] matches → [`plan`] turns it into legs (data) → [`guard`]s and PromQL
//! conditions are judged → shadow, approval or auto → per leg: guards again, `ordered` in the journal, pulled by the agent,
//! answered, verified → done, stopped or undone. [`engine`] decides all of it as a pure state machine; [`service`] is the rim
//! that persists every decision before it leaves, hands orders out and evaluates PromQL.
//!
//! What it must never do: let an order leave that is not in the journal on disk, hand one key out twice, act on a stale or blind
//! view, or override an operator's word. There is no action here that starts a guest: after a real failure Petrel reports.
//!
//! **A probability alone never evacuates.** A predicted alert starts `libvirt.evacuate` in `auto` only when the runbook has a guard
//! marked `precursor: true`, a hard fact observed now (for example «less than 30 % left and falling»); without one the run is
//! demoted to `approve`, and says so. Balancer actions (`haproxy.drain`, `haproxy.set_weight`, `haproxy.ready`) may follow a prediction
//! in `auto`: they touch no guest, drop no session, are refused for the last active server of a backend, and are undone exactly
//! from what the driver saw before; DESIGN section 6, 4 limits what moves machines.

pub mod action;
pub mod engine;
pub mod event;
pub mod fleet;
pub mod guard;
pub mod journal;
pub mod judge;
pub mod load;
pub mod plan;
pub mod progress;
mod raw;
pub mod run;
pub mod runbook;
pub mod service;
pub mod settings;
pub mod shipped;
pub mod template;
mod undo;
pub mod verify;
pub mod view;

pub use journal::MIGRATIONS;
pub use service::Remedy;

#[cfg(test)]
mod tests;
