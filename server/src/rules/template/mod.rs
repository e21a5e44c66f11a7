//! Templates in rule labels and annotations: the part of Go's text/template that Prometheus rules use, by an evaluator of our own.
//!
//! A text is read once, when its rule is loaded: an unknown function, an undefined variable or a missing `end` is refused
//! then, with its position. Expanding is bounded in steps, queries and output, reads no clock and never panics on what a
//! user wrote. `lex` cuts, `parse` builds the tree, `expand` walks it, `functions` and `format` are Prometheus' own.

mod expand;
mod format;
mod functions;
mod humanize;
mod lex;
mod parse;
mod value;

use std::collections::BTreeMap;

use super::QueryFn;
use crate::series::{Labels, Timestamp};
use parse::Node;

pub use format::number as format_number;

/// A float as Go's `%e` writes it with the shortest digits: the form of values in Prometheus' API of alerts.
pub fn format_scientific(value: f64) -> String {
    format::scientific(value, None)
}

/// Longest text of one label or annotation; longer ones belong in a runbook page.
pub const TEXT_BYTES_MAX: usize = 4 << 10;

/// A template that was read without fault.
#[derive(Debug, Clone)]
pub struct Template {
    text: String,
    nodes: Vec<Node>,
}

/// What a template may speak of.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// `$labels`: the labels of the sample that the rule found.
    pub labels: &'a Labels,
    /// `$value`: its value.
    pub value: f64,
    /// `$externalLabels`.
    pub external_labels: &'a BTreeMap<String, String>,
    /// `$externalURL`.
    pub external_url: &'a str,
    /// The time of the evaluation, for the queries inside a template.
    pub at: Timestamp,
    /// Answers `query "…"`.
    pub query: QueryFn<'a>,
}

/// What is wrong with a template, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at} of the template: {fault}")]
pub struct TemplateError {
    /// Byte in the template's text.
    pub at: usize,
    /// What is wrong there.
    pub fault: Fault,
}

/// The kinds of faults in a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Longer than [`TEXT_BYTES_MAX`].
    #[error("text has {0} bytes; at most {TEXT_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// `{{` or a string without its end.
    #[error("`{0}` is not closed")]
    NotClosed(&'static str),
    /// A character that begins nothing.
    #[error("unexpected `{0}`")]
    Unexpected(String),
    /// A name that is no function.
    #[error("function `{0}` is not known; Prometheus' template functions are allowed, except define and template")]
    UnknownFunction(String),
    /// A variable that was not declared.
    #[error("variable `${0}` is not declared")]
    UnknownVariable(String),
    /// Nested too deeply.
    #[error("nested more than {0} deep")]
    TooDeep(usize),
    /// Wrong number of arguments.
    #[error("`{0}` cannot take {1} arguments")]
    Arguments(&'static str, usize),
    /// A value of the wrong kind.
    #[error("{0}")]
    Value(String),
    /// A query inside the template failed.
    #[error("query failed: {0}")]
    Query(String),
    /// More work than is allowed.
    #[error("it takes more than {0} {1}")]
    Exhausted(usize, &'static str),
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// The first fault, with its position.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TemplateError { at: 0, fault: Fault::TooLong(text.len()) });
        }
        Ok(Template { text: text.to_owned(), nodes: parse::parse(lex::lex(text)?)? })
    }

    /// The text as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Fills the template in.
    ///
    /// # Errors
    /// A value of the wrong kind, a failed query, or more work than is allowed.
    pub fn expand(&self, scope: &Scope<'_>) -> Result<String, TemplateError> {
        expand::expand(&self.nodes, scope)
    }
}

#[cfg(test)]
mod tests;
