//! PromQL over a [`source::Source`]: parse, evaluate at one time or over a range, with bounded cost.
//!
//! `scan` and `convert` make an [`Expr`] of a text, `eval` walks it once over all steps, `functions`, `aggregate` and
//! `binary` hold the arithmetic. Answers are those of Prometheus 3, with metric names dropped at the end
//! (`promql-delayed-name-removal`). It reads no clock but the monotonic one, for its deadline.

pub mod ast;
pub mod source;

mod aggregate;
mod answer;
mod binary;
mod convert;
mod error;
mod eval;
mod functions;
mod limits;
mod matching;
mod print;
mod scan;

pub use answer::{Answer, InstantSample, RangeSeries, Value, instant, range};
pub use ast::Expr;
pub use convert::{ParseQueryError, format, parse};
pub use error::QueryError;
pub use eval::grid::StepRange;
pub use limits::{Cancel, DoorLimits, Limits, QueryOptions, QueryOptionsError, RawQueryOptions};
pub use print::{number, write_number};

#[cfg(test)]
mod scenarios;
#[cfg(test)]
pub(crate) use scenarios::memory::Memory;
