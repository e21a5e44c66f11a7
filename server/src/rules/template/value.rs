//! Values that a template computes with, and how they print and compare.

use std::collections::BTreeMap;
use std::fmt;

use super::format;

/// A value, as Go's templates know them.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// `nil`, or a field that is not there.
    Nothing,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// Labels.
    Map(BTreeMap<String, String>),
    /// One element of a query's answer.
    Sample(Box<Found>),
    /// A query's answer.
    Vector(Vec<Found>),
    /// The dot at the outermost level: its fields stand in [`super::Scope`].
    Root,
}

/// One element of a query's answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

impl Value {
    /// Go's truth: zero and empty are false.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Value::Nothing => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::Map(map) => !map.is_empty(),
            Value::Vector(vector) => !vector.is_empty(),
            Value::Sample(_) | Value::Root => true,
        }
    }

    /// Go's name of the type, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Value::Nothing => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::Map(_) => "map",
            Value::Sample(_) => "sample",
            Value::Vector(_) => "vector",
            Value::Root => "data",
        }
    }

    /// The number behind it, as Prometheus' functions take one: also out of text.
    pub(super) fn as_number(&self) -> Option<f64> {
        match self {
            Value::Int(value) => Some(*value as f64),
            Value::Float(value) => Some(*value),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        }
    }
}

/// As Go's `print` writes it.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Nothing => f.write_str("<no value>"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(value) => write!(f, "{value}"),
            Value::Float(value) => f.write_str(&format::number(*value)),
            Value::Text(text) => f.write_str(text),
            Value::Map(map) => write_map(f, map),
            Value::Sample(found) => write!(f, "{found}"),
            Value::Vector(vector) => {
                f.write_str("[")?;
                for (i, found) in vector.iter().enumerate() {
                    write!(f, "{}{found}", if i == 0 { "" } else { " " })?;
                }
                f.write_str("]")
            }
            Value::Root => f.write_str("{}"),
        }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_map(f, &self.labels)?;
        write!(f, " {}", format::number(self.value))
    }
}

fn write_map(f: &mut fmt::Formatter<'_>, map: &BTreeMap<String, String>) -> fmt::Result {
    f.write_str("map[")?;
    for (i, (name, value)) in map.iter().enumerate() {
        write!(f, "{}{name}:{value}", if i == 0 { "" } else { " " })?;
    }
    f.write_str("]")
}
