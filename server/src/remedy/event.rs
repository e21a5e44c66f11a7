//! All that can happen to remedy and all that it can want: one closed enum each. Nothing else goes in or out of the engine.

use petrel_agent::stream::protocol::{Inventory, Order, OrderAnswer};
use serde::Serialize;

use super::fleet::{Duty, DutyNote};
use super::run::{Condition, Outcome, Run, RunId};
use crate::decide::alert::Alert;
use crate::series::Timestamp;

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// An alert fires. Telling it again changes nothing.
    AlertFiring {
        /// The alert.
        alert: Box<Alert>,
        /// Whether a silence covers it: then it starts nothing.
        silenced: bool,
    },
    /// An alert no longer fires.
    AlertResolved {
        /// Its fingerprint.
        fingerprint: String,
    },
    /// A person's word on a run.
    Word {
        /// The run.
        run: RunId,
        /// What they said.
        word: Word,
        /// Who.
        by: String,
        /// Why, if they said so.
        reason: String,
    },
    /// A person holds everything, or releases it.
    Hold {
        /// Held from now on.
        on: bool,
        /// Who.
        by: String,
    },
    /// A person sets what a host does.
    Duty {
        /// The host.
        host: String,
        /// What it does from now on.
        duty: Duty,
        /// Who.
        by: String,
    },
    /// An agent asks for its orders.
    Pulled {
        /// The agent.
        agent: String,
    },
    /// An agent says what became of an order.
    Answer {
        /// The agent.
        agent: String,
        /// Its answer.
        answer: OrderAnswer,
    },
    /// An agent says what it sees.
    Inventory(Box<Inventory>),
    /// The answer to a [`Question`].
    Judged {
        /// The question.
        question: Question,
        /// `Ok(())` where everything holds; else what does not, in words.
        verdict: Result<(), Objection>,
    },
    /// Time passed.
    Tick,
}

/// What a person says on a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Go on.
    Approve,
    /// Do not begin.
    Deny,
    /// Stop at once.
    Abort,
}

/// Conditions to be judged over samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The run.
    pub run: RunId,
    /// The run's revision when asked; an answer to an older one is ignored.
    pub revision: u32,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Only samples stamped later than this count.
    pub after: Option<Timestamp>,
    /// The host that must have been watched for so many milliseconds.
    pub history: Option<(String, i64)>,
}

/// Why conditions do not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// In words.
    pub reason: String,
}

/// What the engine wants. The rim persists `Journal`, `RunChanged`, `HoldChanged`, `DutyChanged` and `AgentHeard` of one step in one
/// transaction before it does any of the others.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A line for the journal.
    Journal(Entry),
    /// The run's state to keep.
    RunChanged(Box<Run>),
    /// Everything is held, or released.
    HoldChanged(bool),
    /// A host's duty to keep; `None` is active.
    DutyChanged {
        /// The host.
        host: String,
        /// Its duty.
        note: Option<DutyNote>,
    },
    /// Keep that an agent was heard, so that a restarted server knows whom it misses.
    AgentHeard {
        /// The agent.
        agent: String,
        /// When.
        at: Timestamp,
    },
    /// Wake the agent's long-lived request: there is an order for it.
    SendOrder {
        /// The agent.
        agent: String,
    },
    /// Give the order to the agent that asked.
    Deliver(Box<Order>),
    /// Judge conditions over samples.
    Evaluate(Question),
    /// Predictions about the subject can no longer be settled: we acted.
    CensorLedger {
        /// The subject.
        subject: String,
    },
    /// A run came to an end, for the counter.
    Ended {
        /// The runbook.
        runbook: String,
        /// How.
        outcome: Outcome,
    },
    /// A person's word or an agent's message could not be followed.
    Rejected {
        /// Why, for them.
        reason: String,
    },
}

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The run; `None` for words on the whole fleet.
    pub run: Option<RunId>,
    /// The leg, where one is meant.
    pub step: Option<u32>,
    /// When, by the server's clock.
    pub at: Timestamp,
    /// What happened.
    pub kind: EntryKind,
    /// In words.
    pub text: String,
}

/// What a line of the journal tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A plan was made.
    Planned,
    /// Shadow mode: what would have been done.
    WouldHave,
    /// A person is asked.
    ApprovalAsked,
    /// A person said something.
    Word,
    /// A guard says «not now».
    Waiting,
    /// An order stands here before it can be pulled.
    Ordered,
    /// An order was not pulled, and no longer can be.
    Withdrawn,
    /// An order was given to its agent.
    HandedOut,
    /// The agent said something.
    Answered,
    /// A leg was proven.
    Verified,
    /// A leg failed.
    Failed,
    /// Legs are taken back from here.
    Undoing,
    /// The run is over.
    Ended,
    /// Held or released.
    Hold,
    /// A duty was set.
    Duty,
}

impl EntryKind {
    /// The word in the table and on pages.
    pub fn as_str(self) -> &'static str {
        match self {
            EntryKind::Planned => "planned",
            EntryKind::WouldHave => "would_have",
            EntryKind::ApprovalAsked => "approval_asked",
            EntryKind::Word => "word",
            EntryKind::Waiting => "waiting",
            EntryKind::Ordered => "ordered",
            EntryKind::Withdrawn => "withdrawn",
            EntryKind::HandedOut => "handed_out",
            EntryKind::Answered => "answered",
            EntryKind::Verified => "verified",
            EntryKind::Failed => "failed",
            EntryKind::Undoing => "undoing",
            EntryKind::Ended => "ended",
            EntryKind::Hold => "hold",
            EntryKind::Duty => "duty",
        }
    }
}
