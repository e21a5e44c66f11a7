//! PromQL over a [`source::Source`]: parse, evaluate at one time or over a range, with bounded cost.

pub mod source;
