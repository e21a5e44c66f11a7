//! An alert: one deduplicated condition with a life. The type that `notify`, `remedy`, the API and the console share.

use std::collections::BTreeMap;
use std::fmt;

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
    /// The value of the rule's expression when last evaluated. As JSON, what is not finite is a string: `"NaN"`, `"+Inf"`.
    #[serde(with = "any_float")]
    pub value: f64,
    /// When the condition was first seen.
    pub active_at: Timestamp,
    /// When it began to fire; `None` while pending.
    pub fired_at: Option<Timestamp>,
    /// When it ended; `None` while pending or firing.
    pub resolved_at: Option<Timestamp>,
    /// Link that asks the rule's expression again.
    pub generator_url: String,
    /// For a predicted alert: how likely, and how long is left. From the rule's annotations or the prediction's labels.
    #[serde(default)]
    pub prediction: Option<PredictionNote>,
    /// What kind of statement it rests on; decides how loud it may be.
    #[serde(default)]
    pub basis: Basis,
}

/// What an alert rests on. Predictions are at most [`Level::Warning`], anomalies alone notify nobody unless a route asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Samples as measured.
    #[default]
    Measured,
    /// A forecast, or a probability.
    Predicted,
    /// Only that something is strange.
    Anomaly,
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

impl Level {
    /// The word of DESIGN and of every page, label and mail.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Critical => "critical",
            Level::Emergency => "emergency",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// JSON has no NaN and no infinity, and a rule's value may be either.
mod any_float {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() {
            serializer.serialize_f64(*value)
        } else {
            serializer.serialize_str(&crate::rules::template::format_number(*value))
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Number(value) => Ok(value),
            Written::Text(text) => text.parse().map_err(D::Error::custom),
        }
    }
}
