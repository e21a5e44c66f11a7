//! How one run moves: every transition of a run and of its legs. Pure: it is given the world and what happened, and says what it wants.
//! An order is handed out once, after it stood in the journal; after an end, an abort or a hold nothing leaves.

use petrel_agent::stream::protocol::{Order, OrderAnswer, OrderOutcome};

use super::event::{Effect, Entry, EntryKind, Objection, Question, Word};
use super::guard::{self, Refusal, World};
use super::run::{Condition, Leg, Outcome, Phase, Run, State};
use super::runbook::{Is, Mode, OnFailure};
use super::undo;
use crate::series::Timestamp;

/// How much longer than its own limits an answer is awaited: the way through the agent's spool, and a restart of either end.
const ANSWER_GRACE_MS: i64 = 60_000;
/// How far ahead of ours an agent's clock is believed; beyond, its samples are refused anyway.
const CLOCK_AHEAD_MAX_MS: i64 = 600_000;

/// A run being moved, and what it wants.
pub struct Mover<'a> {
    world: World<'a>,
    /// The run.
    pub run: Run,
    effects: Vec<Effect>,
    changed: bool,
}

impl<'a> Mover<'a> {
    /// Takes a run in hand; `world.others` must not contain it.
    pub fn new(world: World<'a>, run: Run) -> Mover<'a> {
        Mover { world, run, effects: Vec::new(), changed: false }
    }

    /// The run as it stands now, and what it wants, its own change included.
    pub fn finish(mut self) -> (Run, Vec<Effect>) {
        if self.changed {
            self.effects.push(Effect::RunChanged(Box::new(self.run.clone())));
        }
        (self.run, self.effects)
    }

    /// The refused run that this one tries again.
    pub fn refused_before(&mut self, before: Option<&Run>) {
        self.run.refused_before = before.and_then(|run| match &run.state {
            State::Ended { reason, .. } => Some(reason.clone()),
            _ => None,
        });
    }

    /// A plan was made; its conditions come next.
    pub fn planned(&mut self) {
        if self.run.refused_before.is_none() {
            self.journal(None, EntryKind::Planned, self.plan_text());
        }
        self.enter(State::Planned);
    }

    /// Time passed, or the world changed: whatever can go on goes on.
    pub fn advance(&mut self) {
        match self.run.state.clone() {
            State::Ended { .. } => {
                let undo = self.run.resolved && self.run.policy.undo_when_resolved;
                if undo && self.run.outcome() == Some(Outcome::Done) && self.has_something_to_undo() {
                    self.begin_undo("the alert is resolved".to_owned());
                }
            }
            State::Planned if self.run.resolved => {
                self.end(Outcome::Refused, "the alert was resolved before anything was done".to_owned());
            }
            State::AwaitingApproval { .. } if self.run.resolved => {
                self.end(Outcome::Expired, "the alert was resolved before anybody approved".to_owned());
            }
            State::AwaitingApproval { expires_at } if self.world.now >= expires_at => {
                self.end(Outcome::Expired, "nobody approved in time".to_owned());
            }
            State::Planned | State::AwaitingApproval { .. } => {}
            State::Running | State::Undoing { .. } => self.advance_leg(),
        }
    }

    /// What is to be judged over samples now, if anything.
    pub fn question(&self) -> Option<Question> {
        let ask = |conditions, after, history| {
            Some(Question { run: self.run.id, revision: self.run.revision, conditions, after, history })
        };
        match (&self.run.state, self.run.current()) {
            (State::Planned, _) => {
                let host = guard::host(&self.run).map(str::to_owned);
                let history = host.filter(|_| self.run.policy.min_history_ms > 0);
                ask(self.run.guards.clone(), None, history.map(|host| (host, self.run.policy.min_history_ms)))
            }
            (State::Running, Some(number)) => match &self.run.legs[number].phase {
                Phase::Checking { .. } if self.clear(number).is_ok() => ask(self.run.guards.clone(), None, None),
                _ => self.proof(number).and_then(|(conditions, after)| ask(conditions, Some(after), None)),
            },
            (State::Undoing { .. }, Some(number)) => {
                self.proof(number).and_then(|(conditions, after)| ask(conditions, Some(after), None))
            }
            _ => None,
        }
    }

    /// The answer to [`Mover::question`].
    pub fn judged(&mut self, verdict: Result<(), Objection>) {
        match (self.run.state.clone(), self.run.current(), verdict) {
            (State::Planned, _, Ok(())) => self.begin(),
            (State::Planned, _, Err(objection)) => self.end(Outcome::Refused, objection.reason),
            (State::Running | State::Undoing { .. }, Some(number), verdict) => {
                match (self.run.legs[number].phase.clone(), verdict) {
                    (Phase::Checking { .. }, Ok(())) => self.order(number),
                    (Phase::Checking { .. }, Err(objection)) => self.check_failed(number, &objection.reason),
                    (Phase::Verifying { .. }, Ok(())) => self.verified(number),
                    (Phase::Verifying { deadline, .. }, Err(objection)) if self.world.now >= deadline => {
                        self.leg_failed(number, &format!("not verified in time: {}", objection.reason));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// A person's word.
    ///
    /// # Errors
    /// Why it cannot be followed.
    pub fn word(&mut self, word: Word, by: &str, reason: &str) -> Result<(), String> {
        let state = self.run.state.clone();
        let id = self.run.id;
        let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        match (word, state) {
            (Word::Approve, State::AwaitingApproval { expires_at }) if self.world.now < expires_at => {
                self.journal(None, EntryKind::Word, format!("approved by {by}{because}"));
                self.enter(State::Running);
                self.advance();
                Ok(())
            }
            (Word::Deny, State::AwaitingApproval { .. } | State::Planned) => {
                self.journal(None, EntryKind::Word, format!("denied by {by}{because}"));
                self.end(Outcome::Denied, format!("denied by {by}{because}"));
                Ok(())
            }
            (Word::Abort, State::Ended { .. }) => Err(format!("run {id} is over already")),
            (Word::Abort, _) => {
                self.journal(None, EntryKind::Word, format!("aborted by {by}{because}"));
                let in_flight = self.run.legs.iter().any(|leg| matches!(leg.phase, Phase::HandedOut { .. }));
                let note = if in_flight { "; an order is with its agent and may still be carried out" } else { "" };
                self.end(Outcome::Stopped, format!("aborted by {by}{because}{note}"));
                Ok(())
            }
            (Word::Approve | Word::Deny, _) => Err(format!("run {id} does not wait for approval")),
        }
    }

    /// The agent asks for orders: hands the pending one out, if an operator's word does not forbid it at this moment.
    pub fn pulled(&mut self, agent: &str, fencing_epoch: u64) -> Option<Order> {
        let number = self.run.current().filter(|_| self.run.is_acting())?;
        let leg = &self.run.legs[number];
        let Phase::Ordered { expires_at } = leg.phase else { return None };
        let left_ms = expires_at - self.world.now;
        // More than it ever had: the clock was set back, and how old it is nobody knows.
        if leg.agent != agent || !(1..=self.world.settings.order_ttl_ms).contains(&left_ms) {
            return None;
        }
        if let Err(refusal) = guard::operators_word(self.world, &self.run, number) {
            self.withdraw(number, &refusal.to_string());
            return None;
        }
        let first = !self.run.has_acted();
        let order = self.run.order(number, fencing_epoch, left_ms);
        let answer_by = expires_at + leg.timeout_ms + ANSWER_GRACE_MS;
        let text = format!("handed out to {agent}, to be started within {} s", left_ms / 1000);
        self.journal(Some(number), EntryKind::HandedOut, text);
        self.phase(number, Phase::HandedOut { answer_by, started: false });
        if first {
            self.effects.push(Effect::CensorLedger { subject: self.run.subject.clone() });
            self.quarantine_source();
        }
        Some(order)
    }

    /// The agent says what became of an order.
    pub fn answered(&mut self, number: usize, answer: OrderAnswer) {
        let now = self.world.now;
        self.journal(Some(number), EntryKind::Answered, describe(&answer));
        let Phase::HandedOut { answer_by, .. } = self.run.legs[number].phase else {
            // Too late for the run to go on with it, but what is known is kept.
            if !matches!(answer.outcome, OrderOutcome::Started) {
                self.run.legs[number].answer = Some(answer);
                self.touch();
            }
            return;
        };
        let is_over = self.run.has_ended();
        let leg = &mut self.run.legs[number];
        let earlier = leg.answer.take();
        let mut kept = answer.clone();
        // What was before the change may be told with either answer.
        if kept.before.is_empty() {
            kept.before = earlier.map(|answer| answer.before).unwrap_or_default();
        }
        leg.answer = Some(kept);
        if is_over && !matches!(answer.outcome, OrderOutcome::Started) {
            // Aborted with the order at its agent: now it is known how that ended, and nothing follows.
            let reason = format!("after the run was over: {}", describe(&answer));
            return self.phase(number, Phase::Failed { reason });
        }
        match answer.outcome {
            OrderOutcome::Started => {
                let answer_by = answer_by.max(now + leg.timeout_ms + ANSWER_GRACE_MS);
                self.phase(number, Phase::HandedOut { answer_by, started: true });
            }
            OrderOutcome::Done => {
                let deadline = now + leg.within_ms();
                self.phase(number, Phase::Verifying { since: now, deadline });
            }
            OrderOutcome::Refused { reason } => self.leg_failed(number, &format!("refused by its agent: {reason}")),
            OrderOutcome::Failed { reason } => self.leg_failed(number, &reason),
            OrderOutcome::Unknown { reason } => {
                self.stop(number, &format!("the agent cannot tell how it ended: {reason}"));
            }
        }
        self.advance();
    }

    /// Everything is held from now on: what was not handed out is taken back, and may be ordered again after the release.
    pub fn held(&mut self) {
        let current = self.run.current().filter(|_| self.run.is_acting());
        if let Some(number) = current.filter(|&number| matches!(self.run.legs[number].phase, Phase::Ordered { .. })) {
            self.withdraw(number, "everything is held");
        }
    }

    /// The hold is over: the patience of its guards begins anew.
    pub fn released(&mut self) {
        let current = self.run.current().filter(|_| self.run.is_acting());
        if let Some(number) = current.filter(|&number| matches!(self.run.legs[number].phase, Phase::Checking { .. })) {
            self.phase(number, Phase::Checking { since: self.world.now, waiting: None });
        }
    }

    /// The alert is resolved.
    pub fn resolved(&mut self) {
        if !self.run.resolved {
            self.run.resolved = true;
            self.touch();
        }
        self.advance();
    }

    /// Ends the run.
    pub fn end(&mut self, outcome: Outcome, reason: String) {
        for number in 0..self.run.legs.len() {
            match self.run.legs[number].phase {
                Phase::Ordered { .. } => {
                    self.journal(Some(number), EntryKind::Withdrawn, "the run ended before it was pulled".to_owned());
                    self.phase(number, Phase::Skipped);
                }
                Phase::Waiting | Phase::Checking { .. } => self.phase(number, Phase::Skipped),
                _ => {}
            }
        }
        // A plan that is tried again and refused for the same reason is not news.
        if outcome != Outcome::Refused || self.run.refused_before.as_ref() != Some(&reason) {
            self.journal(None, EntryKind::Ended, format!("{}: {reason}", outcome.as_str()));
            self.effects.push(Effect::Ended { runbook: self.run.runbook.clone(), outcome });
        }
        self.enter(State::Ended { outcome, reason });
    }

    /// All conditions hold for the first time: act as far as the mode allows.
    fn begin(&mut self) {
        if self.run.refused_before.take().is_some() {
            self.journal(None, EntryKind::Planned, self.plan_text());
        }
        match self.run.mode {
            Mode::Shadow => {
                for number in 0..self.run.legs.len() {
                    let text = format!("would have done {}", self.run.legs[number].describe());
                    self.journal(Some(number), EntryKind::WouldHave, text);
                }
                self.end(Outcome::Shadowed, "shadow mode: nothing was done".to_owned());
            }
            Mode::Approve => {
                let expires_at = self.world.now + self.run.policy.approve_within_ms;
                let why = self.run.demoted.clone().unwrap_or("its mode is approve".to_owned());
                self.journal(None, EntryKind::ApprovalAsked, format!("waits for approval: {why}"));
                self.enter(State::AwaitingApproval { expires_at });
            }
            Mode::Auto => {
                self.enter(State::Running);
                self.advance();
            }
        }
    }

    fn plan_text(&self) -> String {
        let run = &self.run;
        let head = format!("{} for {} because of {}", run.runbook, run.subject, run.cause.alertname);
        let legs = run.legs.iter().enumerate().map(|(number, leg)| format!("{number}: {}", leg.describe()));
        let demoted = run.demoted.iter().map(|reason| format!("needs approval: {reason}"));
        std::iter::once(head).chain(legs).chain(demoted).collect::<Vec<_>>().join("\n")
    }

    fn advance_leg(&mut self) {
        let now = self.world.now;
        let Some(number) = self.run.current() else {
            match self.run.state.clone() {
                State::Undoing { because } => self.end(Outcome::Undone, because),
                _ => self.end(Outcome::Done, "every step was done and verified".to_owned()),
            }
            return self.advance();
        };
        match self.run.legs[number].phase.clone() {
            Phase::Waiting => {
                self.phase(number, Phase::Checking { since: now, waiting: None });
                self.advance_leg();
            }
            Phase::Checking { since, waiting } => self.check(number, since, waiting.as_deref()),
            Phase::Ordered { expires_at }
                if now >= expires_at || expires_at - now > self.world.settings.order_ttl_ms =>
            {
                self.journal(Some(number), EntryKind::Withdrawn, "not pulled in time".to_owned());
                let agent = self.run.legs[number].agent.clone();
                self.leg_failed(number, &format!("agent {agent} did not ask for it in time"));
            }
            // After a restart the agents first get the time to tell what they did meanwhile.
            Phase::HandedOut { answer_by, .. } if now >= answer_by.max(self.world.started_at + ANSWER_GRACE_MS) => {
                self.stop(number, "no answer came in time, and how it ended is unknown");
            }
            Phase::Verifying { deadline, .. } => match verified_by_inventory(&self.run.legs[number], self.world) {
                Ok(()) if self.promql(number).is_none() => self.verified(number),
                Err(what) if now >= deadline => self.leg_failed(number, &format!("not verified in time: {what}")),
                _ => {}
            },
            _ => {}
        }
    }

    /// The built-in guards before a leg: refuse, wait, or leave it to the conditions (undoing has none: it is always wanted).
    fn check(&mut self, number: usize, since: Timestamp, waiting: Option<&str>) {
        match self.clear(number) {
            Ok(()) if matches!(self.run.state, State::Undoing { .. }) => self.order(number),
            Ok(()) => {}
            Err(refusal) => {
                // The time while the server was down is not held against the run.
                let waited_ms = self.world.now - since.max(self.world.started_at);
                let patient = refusal == Refusal::Held || waited_ms < self.world.settings.patience_ms;
                let reason = refusal.to_string();
                if !(refusal.is_transient() && patient) {
                    self.check_failed(number, &reason);
                } else if waiting != Some(reason.as_str()) {
                    self.journal(Some(number), EntryKind::Waiting, reason.clone());
                    self.phase(number, Phase::Checking { since, waiting: Some(reason) });
                }
            }
        }
    }

    fn clear(&self, number: usize) -> Result<(), Refusal> {
        guard::before_leg(self.world, &self.run, number)
    }

    /// Conditions and time of the samples for a leg that is being verified, once the inventory shows it.
    fn proof(&self, number: usize) -> Option<(Vec<Condition>, Timestamp)> {
        let leg = &self.run.legs[number];
        let Phase::Verifying { since, .. } = leg.phase else { return None };
        verified_by_inventory(leg, self.world).ok()?;
        let promql = self.promql(number)?;
        let ended_at = leg.answer.as_ref().map_or(since, |answer| answer.at.min(since + CLOCK_AHEAD_MAX_MS));
        let reason = format!("`{promql}` is not true");
        Some((vec![Condition { promql: promql.to_owned(), is: Is::True, reason }], ended_at.max(since)))
    }

    fn promql(&self, number: usize) -> Option<&str> {
        let proof = self.run.legs[number].verify.as_ref();
        proof.map(|proof| proof.promql.as_str()).filter(|promql| !promql.is_empty())
    }

    fn order(&mut self, number: usize) {
        let leg = &self.run.legs[number];
        let (text, agent) = (leg.describe(), leg.agent.clone());
        self.journal(Some(number), EntryKind::Ordered, text);
        self.phase(number, Phase::Ordered { expires_at: self.world.now + self.world.settings.order_ttl_ms });
        self.effects.push(Effect::SendOrder { agent });
    }

    fn withdraw(&mut self, number: usize, why: &str) {
        self.journal(Some(number), EntryKind::Withdrawn, format!("not handed out: {why}"));
        self.phase(number, Phase::Checking { since: self.world.now, waiting: Some(why.to_owned()) });
    }

    fn verified(&mut self, number: usize) {
        self.journal(Some(number), EntryKind::Verified, self.run.legs[number].describe());
        self.phase(number, Phase::Done);
        self.advance();
    }

    fn check_failed(&mut self, number: usize, reason: &str) {
        if self.run.has_acted() {
            self.leg_failed(number, reason);
        } else {
            self.end(Outcome::Refused, reason.to_owned());
        }
    }

    fn leg_failed(&mut self, number: usize, reason: &str) {
        self.journal(Some(number), EntryKind::Failed, reason.to_owned());
        self.phase(number, Phase::Failed { reason: reason.to_owned() });
        let what = format!("step {number} ({}): {reason}", self.run.legs[number].action);
        let undoes = matches!(self.run.state, State::Running) && self.run.policy.on_failure == OnFailure::Undo;
        if undoes && self.has_something_to_undo() {
            self.begin_undo(what);
        } else {
            self.end(Outcome::Stopped, what);
        }
    }

    /// What is unknown is never built upon: no undo either.
    fn stop(&mut self, number: usize, reason: &str) {
        self.journal(Some(number), EntryKind::Failed, reason.to_owned());
        self.phase(number, Phase::Failed { reason: reason.to_owned() });
        self.end(Outcome::Stopped, format!("step {number} ({}): {reason}", self.run.legs[number].action));
    }

    fn has_something_to_undo(&self) -> bool {
        self.run.legs.iter().any(undo::can_be_taken_back)
    }

    /// Appends legs that take back what was done, last first; each is journalled and verified as any other.
    fn begin_undo(&mut self, because: String) {
        for leg in &mut self.run.legs {
            if matches!(leg.phase, Phase::Waiting | Phase::Checking { .. }) {
                leg.phase = Phase::Skipped;
            }
        }
        let undo = undo::legs(&self.run.legs);
        self.run.legs.extend(undo);
        self.journal(None, EntryKind::Undoing, because.clone());
        self.enter(State::Undoing { because });
        self.advance();
    }

    /// The source of an evacuation stays quarantined until an operator lifts it.
    fn quarantine_source(&mut self) {
        let Some(host) = self.run.evacuates.clone() else { return };
        let note = super::fleet::DutyNote { duty: super::fleet::Duty::Quarantined, by: format!("run {}", self.run.id) };
        self.journal(None, EntryKind::Duty, format!("{host} is quarantined until an operator lifts it"));
        self.effects.push(Effect::DutyChanged { host, note: Some(note) });
    }

    fn enter(&mut self, state: State) {
        self.run.state = state;
        self.touch();
    }

    fn phase(&mut self, number: usize, phase: Phase) {
        self.run.legs[number].phase = phase;
        self.touch();
    }

    fn touch(&mut self) {
        self.changed = true;
        self.run.changed_at = self.world.now;
        self.run.revision = self.run.revision.wrapping_add(1);
    }

    fn journal(&mut self, number: Option<usize>, kind: EntryKind, text: String) {
        let step = number.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        self.effects.push(Effect::Journal(Entry { run: Some(self.run.id), step, at: self.world.now, kind, text }));
    }
}

fn verified_by_inventory(leg: &Leg, world: World<'_>) -> Result<(), String> {
    super::verify::platform(leg, world.fleet)
}

fn describe(answer: &OrderAnswer) -> String {
    let said = match &answer.outcome {
        OrderOutcome::Started => "started".to_owned(),
        OrderOutcome::Done => "done".to_owned(),
        OrderOutcome::Refused { reason } => format!("refused: {reason}"),
        OrderOutcome::Failed { reason } => format!("failed: {reason}"),
        OrderOutcome::Unknown { reason } => format!("unknown: {reason}"),
    };
    if answer.command.is_empty() { said } else { format!("{said}; ran `{}`", answer.command) }
}
