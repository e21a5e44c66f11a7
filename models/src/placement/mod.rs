//! Placement: where the guests of a host can go so that the loss of one more host would still fit.
//!
//! Pure and deterministic: the same view gives the same moves. It must never return moves that overcommit a host or that
//! break N+1; when it cannot prove both it refuses, with the reason. [`capacity`] says what fits, [`evacuation`] searches.

pub mod capacity;
pub mod evacuation;

pub use capacity::{Guest, Host, Shape, View};
pub use evacuation::{Move, Options, Refusal, check_moves, plan_evacuation};
