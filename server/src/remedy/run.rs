//! A run: one execution of a plan, with everything it needs to go on, so that a changed runbook or a restart of the server does not
//! change it. Data only; `progress` moves it.

use petrel_agent::stream::protocol::{Order, OrderAnswer, OrderKey};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::runbook::{Is, Mode, OnFailure};
use crate::series::Timestamp;

/// A run's number, unique on its server.
pub type RunId = u64;

/// One execution of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its number.
    pub id: RunId,
    /// The runbook's name.
    pub runbook: String,
    /// What it is about: `host:<instance>`, or `alert:<fingerprint>` where the alert names no host.
    pub subject: String,
    /// The alert that started it.
    pub cause: Cause,
    /// How far it may go, after demotion.
    pub mode: Mode,
    /// Why it may go less far than its runbook says.
    #[serde(default)]
    pub demoted: Option<String>,
    /// The host that it empties.
    #[serde(default)]
    pub evacuates: Option<String>,
    /// When it was planned.
    pub created_at: Timestamp,
    /// When it last changed.
    pub changed_at: Timestamp,
    /// Conditions of the runbook, judged at planning and again before each leg.
    pub guards: Vec<Condition>,
    /// What is taken over from the runbook.
    pub policy: Policy,
    /// Where it stands.
    pub state: State,
    /// The orders, first those that act, later those that undo; a leg's number is its place.
    pub legs: Vec<Leg>,
    /// Whether the alert is resolved.
    #[serde(default)]
    pub resolved: bool,
    /// Why the same plan was refused before, while it is tried again.
    #[serde(default)]
    pub refused_before: Option<String>,
    /// Counts changes, so that an answer to an older question is told apart.
    #[serde(default)]
    pub revision: u32,
}

/// The alert that started a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Its fingerprint.
    pub fingerprint: String,
    /// When it began to fire: the same alert firing again later is another episode.
    pub fired_at: Timestamp,
    /// Its name, for people.
    pub alertname: String,
    /// Its summary, for people.
    #[serde(default)]
    pub summary: String,
}

/// What a run takes over from its runbook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Least time between two runs for the same subject.
    pub cooldown_ms: i64,
    /// How long the subject must have been watched.
    pub min_history_ms: i64,
    /// How long it waits for a person.
    pub approve_within_ms: i64,
    /// What happens after a failure.
    pub on_failure: OnFailure,
    /// Whether it is undone when the alert is resolved.
    pub undo_when_resolved: bool,
}

/// A PromQL condition with its template filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// The expression.
    pub promql: String,
    /// What it must answer.
    pub is: Is,
    /// What to tell people when it does not.
    pub reason: String,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum State {
    /// Its conditions are judged for the first time.
    Planned,
    /// A person is asked.
    AwaitingApproval {
        /// Until when.
        expires_at: Timestamp,
    },
    /// Its legs are carried out.
    Running,
    /// Its legs are taken back.
    Undoing {
        /// Why.
        because: String,
    },
    /// It is over.
    Ended {
        /// How.
        outcome: Outcome,
        /// Why.
        reason: String,
    },
}

/// The ends a run can come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every leg was done and verified.
    Done,
    /// It stopped before its end; things are as its reason says.
    Stopped,
    /// What was done was taken back and verified.
    Undone,
    /// A person said no.
    Denied,
    /// No person said anything in time.
    Expired,
    /// Shadow mode: recorded what would have been done.
    Shadowed,
    /// A guard spoke against it before anything was done.
    Refused,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Outcome; 7] = [
        Outcome::Done,
        Outcome::Stopped,
        Outcome::Undone,
        Outcome::Denied,
        Outcome::Expired,
        Outcome::Shadowed,
        Outcome::Refused,
    ];

    /// The word in metrics, files and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Stopped => "stopped",
            Outcome::Undone => "undone",
            Outcome::Denied => "denied",
            Outcome::Expired => "expired",
            Outcome::Shadowed => "shadowed",
            Outcome::Refused => "refused",
        }
    }
}

/// One order of a run and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Leg {
    /// Which agent carries it out.
    pub agent: String,
    /// `driver.verb`.
    pub action: String,
    /// Its arguments.
    pub with: Map<String, Value>,
    /// What must be true when the agent starts.
    #[serde(default)]
    pub expect: Map<String, Value>,
    /// How long it may take once started.
    pub timeout_ms: i64,
    /// How it is proven, beside the driver's own inventory.
    #[serde(default)]
    pub verify: Option<Proof>,
    /// How it is taken back.
    pub undo: LegUndo,
    /// Of a leg that undoes: the number of the leg that it takes back.
    #[serde(default)]
    pub undoes: Option<u32>,
    /// Of a leg that restores: the answer that holds what was before.
    #[serde(default)]
    pub undo_of: Option<OrderAnswer>,
    /// Of a migration: who goes where.
    #[serde(default)]
    pub migration: Option<Migration>,
    /// Where it stands.
    pub phase: Phase,
    /// The last word of the agent.
    #[serde(default)]
    pub answer: Option<OrderAnswer>,
}

/// How a leg is proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Must answer at least one element, over samples stamped after the leg ended; empty: only the inventory is asked.
    pub promql: String,
    /// How long it may take to come true.
    pub within_ms: i64,
}

/// How a leg is taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum LegUndo {
    /// Not at all.
    Never,
    /// The driver restores what it saw before.
    Restore,
    /// By another action on the same agent.
    Do {
        /// The action.
        action: String,
        /// Its arguments.
        with: Map<String, Value>,
    },
}

/// A guest's move.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Where it runs.
    pub from: String,
    /// Where it goes.
    pub to: String,
    /// Its identity.
    pub guest_uuid: String,
    /// Its name.
    pub guest_name: String,
}

/// Where a leg stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Phase {
    /// Its turn has not come.
    Waiting,
    /// Its guards are judged.
    Checking {
        /// Since when.
        since: Timestamp,
        /// The built-in guard that says «not now», for the journal to tell once.
        #[serde(default)]
        waiting: Option<String>,
    },
    /// In the journal, not yet pulled.
    Ordered {
        /// Until when it may be pulled.
        expires_at: Timestamp,
    },
    /// Given to the agent, once and for all.
    HandedOut {
        /// Until when an answer is awaited.
        answer_by: Timestamp,
        /// Whether the agent said that it has begun.
        started: bool,
    },
    /// Done by the agent's word; being proven.
    Verifying {
        /// Server's time of the answer: only what is seen later counts.
        since: Timestamp,
        /// Until when it must be proven.
        deadline: Timestamp,
    },
    /// Done and proven.
    Done,
    /// Failed, refused or not proven.
    Failed {
        /// Why.
        reason: String,
    },
    /// Its turn never came.
    Skipped,
}

impl Run {
    /// Whether it is over.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    /// How it ended, `None` while it goes on.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.state {
            State::Ended { outcome, .. } => Some(outcome),
            _ => None,
        }
    }

    /// Whether it acts now.
    pub fn is_acting(&self) -> bool {
        matches!(self.state, State::Running | State::Undoing { .. })
    }

    /// The leg whose turn it is, `None` where all are over.
    pub fn current(&self) -> Option<usize> {
        self.legs.iter().position(|leg| !matches!(leg.phase, Phase::Done | Phase::Failed { .. } | Phase::Skipped))
    }

    /// Whether any of its orders left the server.
    pub fn has_acted(&self) -> bool {
        self.legs.iter().any(Leg::was_handed_out)
    }

    /// Whether an order of it left, or may be pulled at any moment.
    pub fn is_under_way(&self) -> bool {
        self.has_acted() || self.legs.iter().any(|leg| matches!(leg.phase, Phase::Ordered { .. }))
    }

    /// The order of a leg, for an agent that pulls it at `now`.
    pub fn order(&self, number: usize, fencing_epoch: u64, ttl_ms: i64) -> Order {
        let leg = &self.legs[number];
        Order {
            key: OrderKey { run: self.id, step: u32::try_from(number).unwrap_or(u32::MAX) },
            fencing_epoch,
            action: leg.action.clone(),
            with: leg.with.clone(),
            expect: leg.expect.clone(),
            ttl_ms: u64::try_from(ttl_ms).unwrap_or(0),
            timeout_ms: u64::try_from(leg.timeout_ms).unwrap_or(0),
            undo_of: leg.undo_of.clone(),
        }
    }
}

impl Leg {
    /// Whether the agent got it.
    pub fn was_handed_out(&self) -> bool {
        self.answer.is_some() || matches!(self.phase, Phase::HandedOut { .. } | Phase::Verifying { .. } | Phase::Done)
    }

    /// One line for people: what, with what, where.
    pub fn describe(&self) -> String {
        let undo = self.undoes.map_or(String::new(), |step| format!("undo step {step}: "));
        let guest = self.migration.as_ref().map_or(String::new(), |migration| format!("{} ", migration.guest_name));
        format!("{undo}{} {guest}{} on {}", self.action, self.arguments(), self.agent)
    }

    /// The arguments as `name=value` words.
    pub fn arguments(&self) -> String {
        let words: Vec<String> = self.with.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
        words.join(" ")
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
