//! How loud an alert is: its level from the rule's severity, capped by what the alert rests on.

use std::collections::BTreeMap;

use super::alert::{AlertLabels, Basis, Level, PredictionNote};
use crate::rules::severity;

pub use crate::rules::severity::LEVEL_LABEL;

/// Annotation with the probability of a predicted alert, 0 to 1.
pub const PROBABILITY: &str = "petrel_probability";
/// Annotation with the time left, in seconds.
pub const LEAD: &str = "petrel_lead_seconds";

/// Metrics whose values speak of the future.
const PREDICTED: [&str; 4] =
    ["petrel_limit_probability", "petrel_time_to_limit_seconds", "petrel_forecast", "petrel_host_failure_probability"];
/// Beginnings of the names of metrics that only say that something is strange.
const STRANGE: [&str; 2] = ["petrel_anomaly_", "petrel_host_anomaly_"];

/// What an alert rests on, by the metrics that its rule reads and the annotations it gives.
///
/// One forecast among the inputs makes it a prediction; it is a mere anomaly only if nothing but anomalies is read.
pub fn basis_of<'a>(metrics: &[String], mut annotations: impl Iterator<Item = &'a str>) -> Basis {
    let strange = |metric: &String| STRANGE.iter().any(|start| metric.starts_with(start));
    if annotations.any(|name| name == PROBABILITY) || metrics.iter().any(|metric| PREDICTED.contains(&metric.as_str()))
    {
        Basis::Predicted
    } else if !metrics.is_empty() && metrics.iter().all(strange) {
        Basis::Anomaly
    } else {
        Basis::Measured
    }
}

/// The level of an alert: its `petrel_level` or else its `severity`, where a prediction is at most a warning.
pub fn level_of(labels: &AlertLabels, basis: Basis) -> Level {
    let own = labels.get(severity::LEVEL_LABEL).and_then(|word| named(word));
    let mapped = || labels.get("severity").and_then(|word| severity::level_of(word)).and_then(named);
    let level = own.or_else(mapped).unwrap_or(Level::Warning);
    if basis == Basis::Predicted { level.min(Level::Warning) } else { level }
}

/// The level of that name.
pub fn named(word: &str) -> Option<Level> {
    [Level::Info, Level::Warning, Level::Critical, Level::Emergency].into_iter().find(|level| level.as_str() == word)
}

/// What the annotations say of a prediction; nothing where the probability is no number from 0 to 1.
pub fn prediction_of(annotations: &BTreeMap<String, String>) -> Option<PredictionNote> {
    let number = |name| annotations.get(name).and_then(|text| text.trim().parse::<f64>().ok());
    let probability = number(PROBABILITY).filter(|p| (0.0..=1.0).contains(p))?;
    let lead_seconds = number(LEAD).filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    Some(PredictionNote { probability, lead_seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_map_to_levels_and_predictions_are_capped() {
        let level = |pairs: &[(&str, &str)], basis| {
            level_of(&pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(), basis).as_str()
        };
        for (severity, want) in [
            ("page", "critical"),
            ("P1", "critical"),
            ("error", "critical"),
            ("warning", "warning"),
            ("P3", "warning"),
            ("none", "info"),
            ("emergency", "emergency"),
            ("whatever", "warning"),
        ] {
            assert_eq!(level(&[("severity", severity)], Basis::Measured), want, "{severity}");
        }
        assert_eq!(level(&[], Basis::Measured), "warning");
        assert_eq!(level(&[("severity", "info"), ("petrel_level", "emergency")], Basis::Measured), "emergency");
        assert_eq!(level(&[("severity", "page")], Basis::Predicted), "warning");
        assert_eq!(level(&[("severity", "info")], Basis::Predicted), "info");
    }

    #[test]
    fn basis_follows_the_metrics_read() {
        let basis = |metrics: &[&str], annotations: &[&'static str]| {
            let metrics: Vec<String> = metrics.iter().map(|m| (*m).to_owned()).collect();
            basis_of(&metrics, annotations.iter().copied())
        };
        assert_eq!(basis(&["up"], &["summary"]), Basis::Measured);
        assert_eq!(basis(&["up"], &["petrel_probability"]), Basis::Predicted);
        assert_eq!(basis(&["up", "petrel_forecast"], &[]), Basis::Predicted);
        assert_eq!(basis(&["petrel_host_anomaly_rate"], &[]), Basis::Anomaly);
        assert_eq!(basis(&["petrel_anomaly_score", "up"], &[]), Basis::Measured);
        assert_eq!(basis(&[], &[]), Basis::Measured);
    }
}
