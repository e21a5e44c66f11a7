//! HAProxy's runtime API: one command and its answer (`runtime`), and its tables taken apart (`table`). The driver and the
//! collector read through this; what is sent is theirs to say.

pub mod runtime;
pub mod table;

pub use runtime::{Runtime, RuntimeError};
