//! A rule file as written. The keys are Prometheus' own; any other key is refused, with its place.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

/// A whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawFile {
    /// Groups, evaluated independently of each other.
    #[serde(default)]
    pub groups: Vec<RawGroup>,
}

/// Rules that are evaluated one after the other, at the same time.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawGroup {
    /// Name, unique in its file.
    pub name: Spanned<String>,
    /// How often; the default is `rules.interval` of the server.
    pub interval: Option<Spanned<String>>,
    /// How far in the past the rules look, for data that comes late.
    pub query_offset: Option<Spanned<String>>,
    /// Most alerts, or recorded series, of one rule; 0 for no limit.
    pub limit: Option<usize>,
    /// Labels for every rule of the group; a rule's own label wins.
    #[serde(default)]
    pub labels: BTreeMap<String, Spanned<String>>,
    /// The rules.
    #[serde(default)]
    pub rules: Vec<RawRule>,
}

/// A recording or an alerting rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawRule {
    /// Name of the series to record.
    pub record: Option<Spanned<String>>,
    /// Name of the alert.
    pub alert: Option<Spanned<String>>,
    /// PromQL.
    pub expr: Spanned<String>,
    /// How long the condition must hold before the alert fires.
    #[serde(rename = "for")]
    pub hold: Option<Spanned<String>>,
    /// How long the alert keeps firing after the condition went away.
    pub keep_firing_for: Option<Spanned<String>>,
    /// Labels added to the result; templates in alerting rules.
    #[serde(default)]
    pub labels: BTreeMap<String, Spanned<String>>,
    /// Texts of the alert; templates.
    #[serde(default)]
    pub annotations: BTreeMap<String, Spanned<String>>,
}
