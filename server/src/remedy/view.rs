//! Runs as pages, the command line and programs see them: flat words, no secrets, stable names. Read-only.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fleet::DutyNote;
use super::run::{Leg, Migration, Phase, Run, RunId, State};
use super::runbook::{Mode, Runbook};
use crate::series::Timestamp;

/// What pages and the console show.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// Whether everything is held.
    pub held: bool,
    /// Runs, newest first, at most as many as asked for.
    pub runs: Vec<RunView>,
    /// Duties other than active, by host.
    pub duties: BTreeMap<String, DutyNote>,
    /// Runbooks in force.
    pub runbooks: Vec<RunbookView>,
}

/// A runbook in one line.
#[derive(Debug, Clone, Serialize)]
pub struct RunbookView {
    /// Its name.
    pub name: String,
    /// How far it may go.
    pub mode: Mode,
    /// One sentence.
    pub description: String,
}

/// What evacuating a host would do now.
#[derive(Debug, Clone, Serialize)]
pub struct EvacuationPlan {
    /// The host.
    pub host: String,
    /// The migrations, in order.
    pub moves: Vec<Migration>,
    /// Why it would be refused.
    pub refused: Option<String>,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunView {
    /// Its number.
    pub id: RunId,
    /// The runbook's name.
    pub runbook: String,
    /// What it is about.
    pub subject: String,
    /// How far it may go.
    pub mode: Mode,
    /// `planned`, `waiting` (for approval), `running`, `undoing`, or the outcome.
    pub state: &'static str,
    /// Why it stands where it stands; empty while nothing is to be said.
    pub reason: String,
    /// Until when a person may approve.
    pub expires_at: Option<Timestamp>,
    /// The alert that started it.
    pub alertname: String,
    /// That alert's fingerprint.
    pub fingerprint: String,
    /// That alert's summary.
    pub summary: String,
    /// The host it empties.
    pub evacuates: Option<String>,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it last changed.
    pub changed_at: Timestamp,
    /// Its legs, in order.
    pub steps: Vec<StepView>,
}

/// A leg.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepView {
    /// Its number.
    pub number: usize,
    /// `driver.verb`.
    pub action: String,
    /// Which agent.
    pub agent: String,
    /// `waiting`, `checking`, `ordered`, `handed_out`, `verifying`, `done`, `failed` or `skipped`.
    pub state: &'static str,
    /// What with, and what went wrong.
    pub detail: String,
    /// The number of the leg that it takes back.
    pub undoes: Option<u32>,
}

impl From<&Run> for RunView {
    fn from(run: &Run) -> RunView {
        let (state, reason, expires_at) = match &run.state {
            State::Planned => ("planned", String::new(), None),
            State::AwaitingApproval { expires_at } => {
                ("waiting", run.demoted.clone().unwrap_or_default(), Some(*expires_at))
            }
            State::Running => ("running", String::new(), None),
            State::Undoing { because } => ("undoing", because.clone(), None),
            State::Ended { outcome, reason } => (outcome.as_str(), reason.clone(), None),
        };
        RunView {
            id: run.id,
            runbook: run.runbook.clone(),
            subject: run.subject.clone(),
            mode: run.mode,
            state,
            reason,
            expires_at,
            alertname: run.cause.alertname.clone(),
            fingerprint: run.cause.fingerprint.clone(),
            summary: run.cause.summary.clone(),
            evacuates: run.evacuates.clone(),
            created_at: run.created_at,
            changed_at: run.changed_at,
            steps: run.legs.iter().enumerate().map(step).collect(),
        }
    }
}

impl From<&Runbook> for RunbookView {
    fn from(runbook: &Runbook) -> RunbookView {
        RunbookView { name: runbook.name.clone(), mode: runbook.mode, description: runbook.description.clone() }
    }
}

fn step((number, leg): (usize, &Leg)) -> StepView {
    let (state, said) = match &leg.phase {
        Phase::Waiting => ("waiting", None),
        Phase::Checking { waiting, .. } => ("checking", waiting.clone()),
        Phase::Ordered { .. } => ("ordered", None),
        Phase::HandedOut { .. } => ("handed_out", None),
        Phase::Verifying { .. } => ("verifying", None),
        Phase::Done => ("done", None),
        Phase::Failed { reason } => ("failed", Some(reason.clone())),
        Phase::Skipped => ("skipped", None),
    };
    let detail = match said {
        Some(said) => format!("{}: {said}", leg.arguments()),
        None => leg.arguments(),
    };
    StepView { number, action: leg.action.clone(), agent: leg.agent.clone(), state, detail, undoes: leg.undoes }
}
