//! Alerts and verdicts: what the rules' outcomes and the hosts' silence amount to, as pure state machines.

pub mod alert;
