//! Log templates: the constant part of a line, mined online with bounded memory.
//!
//! `mask` takes out what is plainly a value (numbers, addresses, paths); `miner` finds the rest by comparing lines of the
//! same shape; `sessions` judges blocks of work by what they count of each. Nothing here knows files, time stamps or severities: those are the agent's `logs`.

mod mask;
mod miner;
mod sessions;

pub use mask::{WILDCARD, mask_token};
pub use miner::{Miner, MinerLimits, SavedTemplate, Sighting, template_id};
pub use sessions::{Sessions, Strangeness};
