//! A runbook as checked: trigger, guards, steps. Data only; `load` makes it from files, `plan` turns it into a run's legs.

use serde::{Deserialize, Serialize};

use super::action::Action;
use super::template::Template;
use crate::decide::alert::{Alert, Level};
use crate::series::Matcher;

/// How far a runbook may go by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Decide, record, do nothing.
    #[default]
    Shadow,
    /// A person says yes to each run.
    Approve,
    /// Act.
    Auto,
}

impl Mode {
    /// The word in files and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Shadow => "shadow",
            Mode::Approve => "approve",
            Mode::Auto => "auto",
        }
    }
}

/// What happens after a step fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Leave things as they are and say so.
    #[default]
    Stop,
    /// Undo the steps that were done, last first.
    Undo,
}

/// One runbook.
#[derive(Debug, Clone)]
pub struct Runbook {
    /// Its name, unique among all files.
    pub name: String,
    /// One sentence for people.
    pub description: String,
    /// What starts it.
    pub when: Trigger,
    /// How far it may go.
    pub mode: Mode,
    /// Conditions beside the built-in ones.
    pub guards: Vec<Guard>,
    /// Least time between two runs for the same subject, milliseconds.
    pub cooldown_ms: i64,
    /// How long the subject must have been watched, milliseconds.
    pub min_history_ms: i64,
    /// How long a run waits for a person, milliseconds.
    pub approve_within_ms: i64,
    /// What happens after a step fails.
    pub on_failure: OnFailure,
    /// Whether the steps are undone once the alert is resolved.
    pub undo_when_resolved: bool,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// What starts a runbook: all given conditions together.
#[derive(Debug, Clone)]
pub struct Trigger {
    /// On the alert's labels.
    pub matchers: Vec<Matcher>,
    /// Least level.
    pub level: Option<Level>,
    /// Least probability; a plain alert, which has none, does not match.
    pub probability: Option<f64>,
    /// Longest median lead, seconds; an alert without a lead does not match.
    pub lead_seconds: Option<f64>,
}

/// What a PromQL condition must answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Is {
    /// At least one element; of a scalar, not zero. As an alerting rule's expression is read.
    #[default]
    True,
    /// No element; of a scalar, zero.
    Empty,
}

/// A condition under which the runbook may act.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The expression.
    pub promql: Template,
    /// What it must answer.
    pub is: Is,
    /// What to tell people when it does not.
    pub reason: String,
    /// Whether it is a hard fact that lets a predicted alert move machines in `auto`.
    pub precursor: bool,
}

/// One action of a runbook.
#[derive(Debug, Clone)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// Which agent does it; an evacuation defaults to the agent of its host.
    pub on: Option<Template>,
    /// The arguments.
    pub with: Vec<(String, Template)>,
    /// How long it may take once started, milliseconds.
    pub timeout_ms: i64,
    /// How it is proven.
    pub verify: Option<Verify>,
    /// How it is taken back.
    pub undo: Undo,
}

/// A proof over samples stamped after the step ended.
#[derive(Debug, Clone)]
pub struct Verify {
    /// The expression; it must answer at least one element.
    pub promql: Template,
    /// How long after the step it may take to come true, milliseconds.
    pub within_ms: i64,
}

/// How a step is taken back.
#[derive(Debug, Clone)]
pub enum Undo {
    /// Not at all.
    Never,
    /// The driver restores what it saw before.
    Restore,
    /// By another action on the same agent.
    Do(Action, Vec<(String, Template)>),
}

impl Trigger {
    /// Whether an alert starts the runbook.
    pub fn matches(&self, alert: &Alert) -> bool {
        let label = |name: &str| alert.labels.get(name).map_or("", String::as_str);
        let prediction = alert.prediction;
        self.matchers.iter().all(|matcher| matcher.matches_value(label(&matcher.name)))
            && self.level.is_none_or(|least| alert.level >= least)
            && self.probability.is_none_or(|least| prediction.is_some_and(|p| p.probability >= least))
            && self
                .lead_seconds
                .is_none_or(|most| prediction.and_then(|p| p.lead_seconds).is_some_and(|lead| lead <= most))
    }
}

impl Runbook {
    /// Whether a hard fact guards it.
    pub fn has_precursor(&self) -> bool {
        self.guards.iter().any(|guard| guard.precursor)
    }
}
