//! PromQL over a [`source::Source`]: parse, evaluate at one time or over a range, with bounded cost.
//!
//! `parse` makes an [`Expr`] of a text, `durations` computes what stands for a duration, `eval` walks it once over all
//! steps, `functions`, `aggregate` and `binary` hold the arithmetic. Answers are those of Prometheus 3, with metric names dropped at the end
//! (`promql-delayed-name-removal`). It reads no clock but the monotonic one, for its deadline.

pub mod ast;
pub mod source;

mod aggregate;
mod answer;
mod binary;
mod durations;
mod error;
mod eval;
mod functions;
mod limits;
mod matching;
mod parse;
mod pretty;
mod print;
mod stats;

pub use answer::{Answer, InstantSample, RangeSeries, Value, instant, range};
pub use ast::Expr;
pub use error::QueryError;
pub use eval::grid::StepRange;
pub use limits::{Cancel, DoorLimits, Limits, QueryOptions, QueryOptionsError, RawQueryOptions};
pub use parse::{ParseQueryError, Type, function_names, parse, signature};
pub use pretty::format;
pub use print::{number, write_number};
pub use stats::Stats;

#[cfg(test)]
mod scenarios;
#[cfg(test)]
pub(crate) use scenarios::memory::Memory;
