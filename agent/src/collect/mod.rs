//! Collectors: one file per source, each turning kernel text into series with node_exporter's names, types and labels.
//! A collector reads; it never decides, and one that fails never stops the others.

use std::borrow::Cow;

/// One metric with all its points, as a collector saw it at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// Metric name, for example `node_cpu_seconds_total`.
    pub name: Cow<'static, str>,
    /// What Prometheus calls its type.
    pub kind: Kind,
    /// One sentence for people.
    pub help: Cow<'static, str>,
    /// The points; label sets are unique.
    pub points: Vec<Point>,
}

/// The types that collectors produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until a restart.
    Counter,
    /// Goes up and down.
    Gauge,
    /// The kernel does not say.
    Untyped,
}

/// One value with its labels; `job` and `instance` come later.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Label names and values.
    pub labels: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The value.
    pub value: f64,
}
