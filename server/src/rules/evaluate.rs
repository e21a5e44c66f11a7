//! Asks one rule at one time: its expression, then labels and annotations for each element of the answer.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use super::template::Scope;
use super::{AlertRule, QueryFailed, QueryFn, Rule};
use crate::query::source::Source;
use crate::query::{self, Limits, Value};
use crate::series::{Labels, NAME, Timestamp};

/// Where and when rules are evaluated.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Answers queries of rules and templates.
    pub query: QueryFn<'a>,
    /// Labels of this server to the outside.
    pub external_labels: &'a BTreeMap<String, String>,
    /// Address of the console as users reach it, without a slash at the end.
    pub external_url: &'a str,
    /// The time at which samples are read: the evaluation's, less the group's offset.
    pub at: Timestamp,
    /// Most results; 0 for no limit.
    pub limit: usize,
}

/// A rule that takes longer than this would miss its next turns.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The expression gives a string or a range.
#[derive(Debug, thiserror::Error)]
#[error("the expression gives neither an instant vector nor a number; take a function or an index over it")]
struct NotAVector;

/// Answers an instant query over a source, as [`QueryFn`] wants it.
///
/// # Errors
/// The text is no PromQL, its value is no vector or scalar, or the evaluation fails.
pub fn ask(source: &dyn Source, text: &str, at: Timestamp) -> Result<Vec<(Labels, f64)>, QueryFailed> {
    let limits = Limits { timeout: TIMEOUT, ..Limits::default() };
    let expr = query::parse(text)?;
    match query::instant(source, &expr, at, &limits)?.value {
        Value::Vector(found) => Ok(found.into_iter().map(|one| (one.labels, one.sample.v)).collect()),
        Value::Scalar(_, value) => Ok(vec![(Labels::empty(), value)]),
        Value::Text(_) | Value::Matrix(_) => Err(Box::new(NotAVector)),
    }
}

/// One condition that an alerting rule found.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// Labels of the alert, `alertname` included.
    pub labels: Labels,
    /// Texts with templates filled in.
    pub annotations: BTreeMap<String, String>,
    /// Value of the expression.
    pub value: f64,
}

/// Why a rule gave no result.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The query failed.
    #[error("expression cannot be evaluated")]
    Query(#[source] QueryFailed),
    /// Two elements became the same after the rule's labels were applied.
    #[error("two results have the same labels {0}; add a label that tells them apart, or aggregate")]
    SameLabels(Labels),
    /// More results than the group's limit.
    #[error("{found} results exceed the limit of {limit}; aggregate, or raise the group's limit")]
    Limit {
        /// Results.
        found: usize,
        /// The limit.
        limit: usize,
    },
}

/// What a recording rule gives: series, each with one value.
///
/// # Errors
/// The query fails, or the results cannot be told apart.
pub fn record(rule: &Rule, extra: &Labels, around: Surroundings<'_>) -> Result<Vec<(Labels, f64)>, EvaluateError> {
    let found = (around.query)(&rule.expr, around.at).map_err(EvaluateError::Query)?;
    let named = found.into_iter().map(|(labels, value)| {
        let pairs = labels.iter().filter(|(name, _)| *name != NAME);
        let own = std::iter::once((NAME, rule.name.as_str()));
        (Labels::new(pairs.chain(extra.iter()).chain(own)), value)
    });
    let series: Vec<(Labels, f64)> = named.collect();
    within(series.len(), around.limit)?;
    distinct(series.iter().map(|(labels, _)| labels))?;
    Ok(series)
}

/// What an alerting rule finds.
///
/// A template that fails does not hide the alert: its text says what failed, as in Prometheus.
///
/// # Errors
/// The query fails, or the results cannot be told apart.
pub fn alert(rule: &Rule, alert: &AlertRule, around: Surroundings<'_>) -> Result<Vec<Found>, EvaluateError> {
    let answer = (around.query)(&rule.expr, around.at).map_err(EvaluateError::Query)?;
    within(answer.len(), around.limit)?;
    let found: Vec<Found> =
        answer.iter().map(|(labels, value)| describe(rule, alert, labels, *value, around)).collect();
    distinct(found.iter().map(|found| &found.labels))?;
    Ok(found)
}

fn describe(rule: &Rule, alert: &AlertRule, labels: &Labels, value: f64, around: Surroundings<'_>) -> Found {
    let scope = Scope {
        labels,
        value,
        external_labels: around.external_labels,
        external_url: around.external_url,
        at: around.at,
        query: around.query,
    };
    let fill = |(name, template): &(String, super::template::Template)| {
        let text = template.expand(&scope).unwrap_or_else(|error| format!("<error expanding template: {error}>"));
        (name.clone(), text)
    };
    let own = labels.iter().filter(|(name, _)| *name != NAME);
    let filled: Vec<(String, String)> = alert.labels.iter().map(fill).collect();
    let added = filled.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    let called = std::iter::once(("alertname", rule.name.as_str()));
    Found {
        labels: Labels::new(own.chain(added).chain(called)),
        annotations: alert.annotations.iter().map(fill).collect(),
        value,
    }
}

fn within(found: usize, limit: usize) -> Result<(), EvaluateError> {
    if limit > 0 && found > limit { Err(EvaluateError::Limit { found, limit }) } else { Ok(()) }
}

fn distinct<'a>(series: impl Iterator<Item = &'a Labels>) -> Result<(), EvaluateError> {
    let mut seen = HashSet::new();
    for labels in series {
        if !seen.insert(labels) {
            return Err(EvaluateError::SameLabels(labels.clone()));
        }
    }
    Ok(())
}
