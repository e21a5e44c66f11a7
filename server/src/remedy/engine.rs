//! The engine: one pure state machine over runs, alerts and inventories. `step(event, now)` returns what it wants; it reads no clock, no
//! disk and no samples. Runs move in `progress`; here is what starts them and who is told.

use std::collections::BTreeMap;

use petrel_agent::stream::protocol::OrderAnswer;

use super::event::{Effect, Entry, EntryKind, Event, Word};
use super::fleet::{Duty, DutyNote, Facts, Fleet};
use super::guard::{self, World};
use super::plan;
use super::progress::Mover;
use super::run::{Outcome, Run, RunId, State};
use super::runbook::{Mode, Runbook};
use super::settings::Settings;
use super::undo;
use crate::decide::alert::Alert;
use crate::series::Timestamp;

/// Alerts that are followed at once. Beyond this the fleet has other problems; further ones start nothing and are counted.
const ALERTS_MAX: usize = 10_000;
/// Runs in memory, ended ones included: for cooldowns, budgets and undoing. Older ones are read from the journal.
pub const RUNS_MAX: usize = 5_000;
/// How long after a refusal the same plan is tried again while its alert fires.
const RETRY_MS: i64 = 30_000;
/// Hosts with a duty: as many as a fleet has.
const DUTIES_MAX: usize = 20_000;

/// What the engine remembers across a restart.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Runs, the newest [`RUNS_MAX`].
    pub runs: Vec<Run>,
    /// Whether everything is held.
    pub held: bool,
    /// The fencing epoch.
    pub fencing_epoch: u64,
    /// Duties other than active.
    pub duties: BTreeMap<String, DutyNote>,
    /// The next run's number.
    pub run_next: RunId,
    /// When agents were heard.
    pub heard: BTreeMap<String, Timestamp>,
}

/// An alert that fires.
#[derive(Debug, Clone)]
struct Firing {
    alert: Alert,
    silenced: bool,
}

/// The engine.
pub struct Engine {
    settings: Settings,
    runbooks: Vec<Runbook>,
    fleet: Fleet,
    runs: BTreeMap<RunId, Run>,
    firing: BTreeMap<String, Firing>,
    held: bool,
    fencing_epoch: u64,
    run_next: RunId,
    started_at: Timestamp,
    /// Revision and time of the last question about each run, so that one time asks once.
    asked: BTreeMap<RunId, (u32, Timestamp)>,
    /// Alerts that found no room in [`ALERTS_MAX`].
    alerts_dropped: u64,
}

impl Engine {
    /// An engine that goes on where `memory` ends.
    pub fn new(settings: Settings, facts: Facts, memory: Memory, now: Timestamp) -> Engine {
        Engine {
            settings,
            runbooks: Vec::new(),
            fleet: Fleet { facts, inventories: BTreeMap::new(), duties: memory.duties, heard: memory.heard },
            runs: memory.runs.into_iter().map(|run| (run.id, run)).collect(),
            firing: BTreeMap::new(),
            held: memory.held,
            fencing_epoch: memory.fencing_epoch,
            run_next: memory.run_next.max(1),
            started_at: now,
            asked: BTreeMap::new(),
            alerts_dropped: 0,
        }
    }

    /// Replaces the runbooks; runs in progress keep what they were planned with.
    pub fn replace_runbooks(&mut self, runbooks: Vec<Runbook>) {
        self.runbooks = runbooks;
    }

    /// Replaces the fleet's facts.
    pub fn replace_facts(&mut self, facts: Facts) {
        self.fleet.facts = facts;
    }

    /// Forgets runs, holds and duties and takes them from `memory`: what is on disk counts after a failed write.
    pub fn recall(&mut self, memory: Memory) {
        self.runs = memory.runs.into_iter().map(|run| (run.id, run)).collect();
        self.held = memory.held;
        self.fleet.duties = memory.duties;
        self.fleet.heard = memory.heard;
        self.run_next = memory.run_next.max(self.run_next);
        self.asked.clear();
    }

    /// All runs in memory.
    pub fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.runs.values()
    }

    /// The fleet as known.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The budgets.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The runbooks in force.
    pub fn runbooks(&self) -> &[Runbook] {
        &self.runbooks
    }

    /// Whether everything is held.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Alerts that were not followed for want of room.
    pub fn alerts_dropped(&self) -> u64 {
        self.alerts_dropped
    }

    /// Fingerprints of the alerts that a run or a trigger still follows.
    pub fn followed(&self) -> Vec<String> {
        let by_runs = self.runs.values().filter(|run| !run.resolved && (!run.has_ended() || may_be_undone(run)));
        let mut all: Vec<String> = by_runs.map(|run| run.cause.fingerprint.clone()).collect();
        all.extend(self.firing.keys().cloned());
        all.sort_unstable();
        all.dedup();
        all
    }

    /// What happened, and what follows.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        let effects = match event {
            Event::AlertFiring { alert, silenced } => self.alert_firing(*alert, silenced, now),
            Event::AlertResolved { fingerprint } => self.alert_resolved(&fingerprint, now),
            Event::Word { run, word, by, reason } => self.word(run, word, &by, (&reason, now)),
            Event::Hold { on, by } => self.hold(on, &by, now),
            Event::Duty { host, duty, by } => self.duty(host, duty, by, now),
            Event::Pulled { agent } => self.pulled(&agent, now),
            Event::Answer { agent, answer } => self.answer(&agent, answer, now),
            Event::Inventory(inventory) => {
                let agent = inventory.agent.clone();
                if let Some(other) = inventory.hypervisors.iter().find(|seen| seen.host != agent) {
                    // Else one agent could draw another host's guests, or vouch for what was never done there.
                    vec![rejected(format!("agent {agent} speaks for itself only, not for host {}", other.host))]
                } else if self.fleet.see(*inventory, now) {
                    let mut effects = self.advance_all(now);
                    if self.fleet.is_news(&agent, now) {
                        effects.push(Effect::AgentHeard { agent, at: now });
                    }
                    effects
                } else {
                    vec![rejected(format!("no room for agent {agent}"))]
                }
            }
            Event::Judged { question, verdict } => {
                let current = self.runs.get(&question.run).map(|run| run.revision);
                if current == Some(question.revision) {
                    self.moved(question.run, now, |mover| mover.judged(verdict))
                } else {
                    Vec::new()
                }
            }
            Event::Tick => self.tick(now),
        };
        self.apply(&effects);
        if self.runs.len() > RUNS_MAX {
            self.drop_oldest();
        }
        effects
    }

    /// The world as guards see it now, all runs being others.
    pub fn world_now(&self, now: Timestamp) -> World<'_> {
        self.world(&self.runs, now)
    }

    fn world<'a>(&'a self, others: &'a BTreeMap<RunId, Run>, now: Timestamp) -> World<'a> {
        World {
            fleet: &self.fleet,
            others,
            settings: &self.settings,
            held: self.held,
            started_at: self.started_at,
            now,
        }
    }

    /// Takes a run in hand, lets `body` move it, and puts it back.
    fn moved(&mut self, id: RunId, now: Timestamp, body: impl FnOnce(&mut Mover<'_>)) -> Vec<Effect> {
        let Some(run) = self.runs.remove(&id) else { return Vec::new() };
        let mut mover = Mover::new(self.world(&self.runs, now), run);
        body(&mut mover);
        let (run, effects) = mover.finish();
        self.apply(&effects);
        self.runs.insert(id, run);
        effects
    }

    fn advance_all(&mut self, now: Timestamp) -> Vec<Effect> {
        let open: Vec<RunId> =
            self.runs.values().filter(|run| !run.has_ended() || may_be_undone(run)).map(|run| run.id).collect();
        open.into_iter()
            .flat_map(|id| {
                self.moved(id, now, |mover| {
                    mover.advance();
                })
            })
            .collect()
    }

    fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        self.fleet.forget(now);
        let mut effects = self.advance_all(now);
        let wanted = |firing: &&Firing| self.runbooks.iter().any(|runbook| runbook.when.matches(&firing.alert));
        let firing: Vec<Firing> = self.firing.values().filter(wanted).cloned().collect();
        for firing in firing {
            effects.extend(self.consider(&firing, now));
        }
        effects.extend(self.ask(now));
        effects
    }

    /// Questions that are open and were not asked at this time.
    fn ask(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut questions = Vec::new();
        let open: Vec<RunId> = self.runs.values().filter(|run| !run.has_ended()).map(|run| run.id).collect();
        for id in open {
            let Some(run) = self.runs.remove(&id) else { continue };
            let mover = Mover::new(self.world(&self.runs, now), run);
            let question = mover.question();
            let (run, _) = mover.finish();
            self.runs.insert(id, run);
            if let Some(question) = question.filter(|q| self.asked.get(&id) != Some(&(q.revision, now))) {
                self.asked.insert(id, (question.revision, now));
                questions.push(Effect::Evaluate(question));
            }
        }
        let runs = &self.runs;
        self.asked.retain(|id, _| runs.get(id).is_some_and(|run| !run.has_ended()));
        questions
    }

    fn alert_firing(&mut self, alert: Alert, silenced: bool, now: Timestamp) -> Vec<Effect> {
        if !self.firing.contains_key(&alert.fingerprint) && self.firing.len() >= ALERTS_MAX {
            self.alerts_dropped += 1;
            return Vec::new();
        }
        let firing = Firing { alert, silenced };
        self.firing.insert(firing.alert.fingerprint.clone(), firing.clone());
        self.consider(&firing, now)
    }

    fn alert_resolved(&mut self, fingerprint: &str, now: Timestamp) -> Vec<Effect> {
        self.firing.remove(fingerprint);
        let touched: Vec<RunId> = self
            .runs
            .values()
            .filter(|run| run.cause.fingerprint == fingerprint && !run.resolved)
            .map(|run| run.id)
            .collect();
        touched
            .into_iter()
            .flat_map(|id| {
                self.moved(id, now, |mover| {
                    mover.resolved();
                })
            })
            .collect()
    }

    /// Plans what a firing alert asks for and has not got: one run per runbook and episode; a refused one is tried again.
    fn consider(&mut self, firing: &Firing, now: Timestamp) -> Vec<Effect> {
        if firing.silenced {
            return Vec::new();
        }
        let cause = plan::cause(&firing.alert);
        let wanted: Vec<Runbook> =
            self.runbooks.iter().filter(|runbook| runbook.when.matches(&firing.alert)).cloned().collect();
        let mut effects = Vec::new();
        for runbook in wanted {
            // What was only shadowed does not stand in the way once its mode is raised.
            let known = self.runs.values().rev().find(|run| {
                run.runbook == runbook.name
                    && (run.mode != Mode::Shadow || runbook.mode == Mode::Shadow)
                    && (&run.cause.fingerprint, run.cause.fired_at) == (&cause.fingerprint, cause.fired_at)
            });
            let again = match known.map(|run| (run.id, run.outcome(), run.changed_at)) {
                None => None,
                Some((id, Some(Outcome::Refused), at)) if now - at >= RETRY_MS => Some(id),
                Some(_) => continue,
            };
            effects.extend(self.plan(&runbook, &firing.alert, again, now));
        }
        effects
    }

    fn plan(&mut self, runbook: &Runbook, alert: &Alert, again: Option<RunId>, now: Timestamp) -> Vec<Effect> {
        let before = again.and_then(|id| self.runs.remove(&id));
        let id = before.as_ref().map_or(self.run_next, |run| run.id);
        self.run_next = self.run_next.max(id + 1);
        let world = self.world(&self.runs, now);
        let mut run = plan::empty_run(id, runbook, alert, world);
        let refusal = plan::fill(&mut run, runbook, alert, world).and_then(|()| guard::at_planning(world, &run)).err();
        if let Some(before) = &before {
            run.created_at = before.created_at;
            run.revision = before.revision;
        }
        let mut mover = Mover::new(world, run);
        mover.refused_before(before.as_ref());
        match refusal {
            None => mover.planned(),
            Some(refusal) => mover.end(Outcome::Refused, refusal.to_string()),
        }
        let (run, effects) = mover.finish();
        self.runs.insert(id, run);
        effects
    }

    fn word(&mut self, id: RunId, word: Word, by: &str, (reason, now): (&str, Timestamp)) -> Vec<Effect> {
        if !self.runs.contains_key(&id) {
            return vec![rejected(format!("there is no run {id}, or it ended long ago"))];
        }
        let mut refused = None;
        let mut effects = self.moved(id, now, |mover| refused = mover.word(word, by, reason).err());
        effects.extend(refused.map(rejected));
        effects
    }

    fn hold(&mut self, on: bool, by: &str, now: Timestamp) -> Vec<Effect> {
        if self.held == on {
            return Vec::new();
        }
        self.held = on;
        let text = format!("everything is {} by {by}", if on { "held" } else { "released" });
        let entry = Entry { run: None, step: None, at: now, kind: EntryKind::Hold, text };
        let mut effects = vec![Effect::HoldChanged(on), Effect::Journal(entry)];
        let acting: Vec<RunId> = self.runs.values().filter(|run| run.is_acting()).map(|run| run.id).collect();
        for id in acting {
            effects.extend(self.moved(id, now, |mover| if on { mover.held() } else { mover.released() }));
        }
        effects
    }

    fn duty(&mut self, host: String, duty: Duty, by: String, now: Timestamp) -> Vec<Effect> {
        if self.fleet.duties.len() >= DUTIES_MAX && !self.fleet.duties.contains_key(&host) {
            return vec![rejected(format!("{DUTIES_MAX} hosts already have a duty; set some back to active"))];
        }
        let text = format!("{host} is {} by {by}", duty.as_str());
        let note = (duty != Duty::Active).then_some(DutyNote { duty, by });
        let entry = Entry { run: None, step: None, at: now, kind: EntryKind::Duty, text };
        vec![Effect::DutyChanged { host, note }, Effect::Journal(entry)]
    }

    fn pulled(&mut self, agent: &str, now: Timestamp) -> Vec<Effect> {
        let waiting: Vec<RunId> = self.runs.values().filter(|run| run.is_acting()).map(|run| run.id).collect();
        let mut effects = Vec::new();
        for id in waiting {
            let (mut order, epoch) = (None, self.fencing_epoch);
            effects.extend(self.moved(id, now, |mover| order = mover.pulled(agent, epoch)));
            effects.extend(order.map(|order| Effect::Deliver(Box::new(order))));
        }
        effects
    }

    fn answer(&mut self, agent: &str, answer: OrderAnswer, now: Timestamp) -> Vec<Effect> {
        let key = answer.key;
        let leg = self.runs.get(&key.run).and_then(|run| run.legs.get(key.step as usize));
        let Some(leg) = leg else {
            return vec![rejected(format!("there is no run {} with a step {}", key.run, key.step))];
        };
        if leg.agent != agent {
            return vec![rejected(format!("step {} of run {} was never given to agent {agent}", key.step, key.run))];
        }
        if answer.fencing_epoch != self.fencing_epoch {
            return vec![rejected(format!("the answer is of fencing epoch {}, not ours", answer.fencing_epoch))];
        }
        self.moved(key.run, now, |mover| mover.answered(key.step as usize, answer))
    }

    /// What the effects change in what the engine itself knows.
    fn apply(&mut self, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::DutyChanged { host, note: Some(note) } => {
                    self.fleet.duties.insert(host.clone(), note.clone());
                }
                Effect::DutyChanged { host, note: None } => {
                    self.fleet.duties.remove(host);
                }
                Effect::AgentHeard { agent, at } => {
                    self.fleet.heard.insert(agent.clone(), *at);
                }
                _ => {}
            }
        }
    }

    fn drop_oldest(&mut self) {
        // Those that did nothing go first: the others count for cooldowns and for the budget of a day.
        let over = || self.runs.values().filter(|run| run.has_ended() && !may_be_undone(run));
        let oldest = over().find(|run| !run.has_acted()).or_else(|| over().next());
        if let Some(id) = oldest.map(|run| run.id) {
            self.runs.remove(&id);
        }
    }
}

/// Whether a run is done but waits for its alert to be resolved, to be undone then.
fn may_be_undone(run: &Run) -> bool {
    matches!(run.state, State::Ended { outcome: Outcome::Done, .. })
        && run.policy.undo_when_resolved
        && run.legs.iter().any(undo::can_be_taken_back)
}

fn rejected(reason: String) -> Effect {
    Effect::Rejected { reason }
}
