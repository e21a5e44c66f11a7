//! What the outlooks say, as series to store and as rows to show.

use petrel_agent::units::Span;
use petrel_models::forecast::QUANTILES;
use serde::Serialize;

use super::track::{Summary, TIME_QUANTILES, Track};
use crate::series::{Labels, NAME, Sample, Timestamp};

/// Places in [`QUANTILES`] of the quantiles that are stored; all of them would triple the series for little.
const STORED: [usize; 3] = [1, 3, 5];

/// What runs out when: one subject.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutlookRow {
    /// The host.
    pub instance: String,
    /// The host's job.
    pub job: String,
    /// `filesystem`, `memory` or `cpu`.
    pub resource: &'static str,
    /// The mount point, or the resource again.
    pub what: String,
    /// The newest value.
    pub value: f64,
    /// Where it has run out.
    pub limit: f64,
    /// The most it can be.
    pub ceiling: f64,
    /// Probability that the limit is met, per horizon, short to long. Empty where refused.
    pub probabilities: Vec<(String, f64)>,
    /// Seconds left with probability 0.1, 0.5 and 0.9; `None`: beyond the longest horizon.
    pub seconds_to_limit: [Option<f64>; TIME_QUANTILES.len()],
    /// Why there is no outlook.
    pub refused: Option<String>,
    /// Time of the newest value.
    pub seen_at: Timestamp,
}

/// The series of one subject at `now`.
pub fn series(track: &Track, summary: &Summary, now: Timestamp) -> Vec<(Labels, Vec<Sample>)> {
    let base = track
        .subject
        .labels
        .with("of", track.subject.resource.metric())
        .with("resource", track.subject.resource.as_str());
    let mut series = Vec::new();
    let mut add = |name: &str, labels: &[(&str, &str)], v: f64| {
        let labels = labels.iter().fold(base.with(NAME, name), |set, (name, value)| set.with(name, value));
        series.push((labels, vec![Sample { t: now, v }]));
    };
    for (horizon, probability) in &summary.probabilities {
        add("petrel_limit_probability", &[("horizon", &horizon_label(*horizon))], *probability);
    }
    for (q, seconds) in TIME_QUANTILES.iter().zip(summary.seconds) {
        add("petrel_time_to_limit_seconds", &[("quantile", &q.to_string())], seconds.unwrap_or(f64::INFINITY));
    }
    for view in &track.views {
        let Some(Ok(forecast)) = &view.outlook else { continue };
        if !forecast.whole {
            continue;
        }
        for place in STORED {
            let labels = [("horizon", &*horizon_label(view.horizon)), ("quantile", &QUANTILES[place].to_string())];
            add("petrel_forecast", &labels, forecast.values[place]);
        }
    }
    series
}

/// The row of one subject.
pub fn row(track: &Track, summary: Option<&Summary>) -> OutlookRow {
    let subject = &track.subject;
    OutlookRow {
        instance: subject.instance().to_owned(),
        job: subject.labels.get("job").unwrap_or("").to_owned(),
        resource: subject.resource.as_str(),
        what: subject.what().to_owned(),
        value: track.last.map_or(f64::NAN, |last| last.v),
        limit: track.limit,
        ceiling: track.ceiling,
        probabilities: summary.map_or(Vec::new(), |summary| {
            summary.probabilities.iter().map(|(horizon, p)| (horizon_label(*horizon), *p)).collect()
        }),
        seconds_to_limit: summary.map_or([None; TIME_QUANTILES.len()], |summary| summary.seconds),
        refused: if summary.is_none() { track.refused().map(|reason| reason.to_string()) } else { None },
        seen_at: track.last.map_or(0, |last| last.t),
    }
}

/// `1h`, `6h`, `24h`, `7d`, as the rules write them: hours up to two days, then days.
pub fn horizon_label(horizon: Span) -> String {
    const HOUR_MS: i64 = 3_600_000;
    let ms = horizon.as_ms();
    if ms % HOUR_MS == 0 && ms <= 48 * HOUR_MS {
        format!("{}h", ms / HOUR_MS)
    } else if ms % (24 * HOUR_MS) == 0 {
        format!("{}d", ms / (24 * HOUR_MS))
    } else {
        horizon.to_string()
    }
}
