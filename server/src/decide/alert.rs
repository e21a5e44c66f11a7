//! An alert: one deduplicated condition with a life. The type that `notify`, `remedy`, the API and the console share.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::series::Timestamp;

/// Labels of an alert; `alertname` is always there.
pub type AlertLabels = BTreeMap<String, String>;

/// One condition, deduplicated by its labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Identity: a hash of the labels, sixteen hexadecimal digits.
    pub fingerprint: String,
    /// Labels of the rule and of the series that made it fire.
    pub labels: AlertLabels,
    /// Texts, with templates already filled in: summary, description, runbook_url, …
    pub annotations: BTreeMap<String, String>,
    /// Where it is in its life.
    pub state: AlertState,
    /// How bad it is.
    pub level: Level,
    /// The value of the rule's expression when last evaluated.
    pub value: f64,
    /// When the condition was first seen.
    pub active_at: Timestamp,
    /// When it began to fire; `None` while pending.
    pub fired_at: Option<Timestamp>,
    /// When it ended; `None` while pending or firing.
    pub resolved_at: Option<Timestamp>,
    /// Link to the expression in the console.
    pub generator_url: String,
    /// For a predicted alert: how likely, and how long is left. From the rule's annotations or the prediction's labels.
    #[serde(default)]
    pub prediction: Option<PredictionNote>,
}

/// What a predicted alert says beyond a plain one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PredictionNote {
    /// Probability that the condition comes true within the horizon, 0 to 1.
    pub probability: f64,
    /// Median time left until it does, in seconds; `None` where not forecast.
    pub lead_seconds: Option<f64>,
}

/// The life of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// The condition holds, but not yet for as long as the rule's `for`.
    Pending,
    /// The condition has held long enough.
    Firing,
    /// The condition no longer holds.
    Resolved,
}

/// How bad, and so who is told and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth a log line.
    Info,
    /// Worth a ticket.
    Warning,
    /// Worth waking somebody.
    Critical,
    /// Worth waking everybody at once.
    Emergency,
}
