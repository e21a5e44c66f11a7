//! Host failure: accrual detection per heartbeat path, and the truth table from paths to a verdict. Pure: the caller says
//! what was heard and what time it is. docs/models/failure.md says how fast and how often wrong.

mod accrual;
mod verdict;

pub use accrual::{Accrual, AccrualConfig};
pub use verdict::{HostView, PathState, Reason, Verdict, judge};
