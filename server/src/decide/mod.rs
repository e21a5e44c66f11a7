//! Alerts and verdicts: what the rules' outcomes and the hosts' silence amount to, as pure state machines.

pub mod alert;
pub mod book;
pub mod engine;
pub mod keep;
pub mod level;
pub mod testimony;
pub mod verdict;
pub mod witness;
