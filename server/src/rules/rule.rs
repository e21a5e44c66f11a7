//! Rules as checked: what `load` gives and the rest of the server works with.

use std::fmt;
use std::sync::Arc;

use super::template::Template;
use crate::series::Labels;

/// All rules in force.
#[derive(Debug, Clone, Default)]
pub struct RuleSet {
    /// In the order of files and of groups in them.
    pub groups: Vec<Group>,
}

/// Rules that are evaluated one after the other, at the same time.
#[derive(Debug, Clone)]
pub struct Group {
    /// The file it came from, as given to `load`.
    pub file: String,
    /// Its name, unique in the file.
    pub name: String,
    /// Time between evaluations, in milliseconds; `None` for the server's default.
    pub interval_ms: Option<i64>,
    /// How far in the past the rules look, in milliseconds.
    pub query_offset_ms: i64,
    /// Most results of one rule; 0 for no limit.
    pub limit: usize,
    /// The rules, in the order of evaluation.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Identity across reloads and restarts.
    pub id: RuleId,
    /// Name of the alert or of the recorded series.
    pub name: String,
    /// The expression as written.
    pub expr: String,
    /// Names of the metrics that the expression reads; selectors without a name are not among them.
    pub metrics: Vec<String>,
    /// What becomes of the result.
    pub kind: RuleKind,
}

/// The two kinds of rules.
#[derive(Debug, Clone)]
pub enum RuleKind {
    /// The result is stored as a series.
    Record {
        /// Labels added to each series.
        labels: Labels,
    },
    /// Each element of the result is a condition.
    Alert(AlertRule),
}

/// What an alerting rule has beyond its expression.
#[derive(Debug, Clone)]
pub struct AlertRule {
    /// `for`, in milliseconds.
    pub hold_ms: i64,
    /// `keep_firing_for`, in milliseconds.
    pub keep_firing_ms: i64,
    /// Labels added to the alert, the group's included.
    pub labels: Vec<(String, Template)>,
    /// Texts of the alert.
    pub annotations: Vec<(String, Template)>,
}

/// Identity of a rule: file, group, name and labels as written, so that a changed expression or text keeps its alerts.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(Arc<str>);

impl RuleId {
    /// The identity that was made from this text before.
    pub fn from_text(text: &str) -> RuleId {
        RuleId(Arc::from(text))
    }

    /// As text, for the database.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl RuleSet {
    /// All rules with their groups.
    pub fn rules(&self) -> impl Iterator<Item = (&Group, &Rule)> {
        self.groups.iter().flat_map(|group| group.rules.iter().map(move |rule| (group, rule)))
    }
}

impl Rule {
    /// The alerting part, `None` for a recording rule.
    pub fn alert(&self) -> Option<&AlertRule> {
        match &self.kind {
            RuleKind::Alert(alert) => Some(alert),
            RuleKind::Record { .. } => None,
        }
    }
}
