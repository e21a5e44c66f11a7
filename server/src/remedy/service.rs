//! Remedy as the server runs it: the engine behind a lock, its decisions persisted before they leave, orders handed to the agents
//! that ask, conditions judged over samples. It decides nothing itself. When a write fails nothing leaves, and what is on disk counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use petrel_agent::stream::protocol::{Inventory, Order, OrderAnswer};
use tokio::sync::Notify;

use super::engine::Engine;
use super::event::{Effect, Event, Question};
use super::fleet::{Facts, Seen};
use super::journal;
use super::judge;
use super::plan;
use super::run::{Outcome, Run, RunId};
use super::runbook::Runbook;
use super::settings::Settings;
use super::view::{EvacuationPlan, RunView, RunbookView, Snapshot};
use crate::decide::alert::Alert;
use crate::query::source::Source;
use crate::series::{Labels, NAME, Sample, Timestamp};
use crate::store::control::{Control, ControlError};
use crate::store::marks::commit_mark;
use crate::store::{Batch, Mark};
use crate::telemetry;

/// Rounds of questions and answers in one tick: from planning over the guards to the order are three.
const ROUNDS_MAX: usize = 6;
/// How often the counters are written as samples, milliseconds.
const TOTALS_EVERY_MS: i64 = 10_000;
/// Subjects whose predictions are to be censored, at most; the ledger takes them every tick.
const CENSORED_MAX: usize = 10_000;
/// Agents that are woken: twice the largest fleet.
const WAKES_MAX: usize = 20_000;

/// So long a plan that somebody asked for is thought about.
pub const PLANNED_MS: Timestamp = 300_000;
/// Hosts that plans were asked for at once, beyond which those asked for last are planned without measuring.
const PLANNED_MAX: usize = 256;

/// Runs, guards and orders of one server. Share it as `Arc<Remedy>`; calls block on disk.
pub struct Remedy {
    control: Arc<Control>,
    state: Mutex<Inside>,
    /// Wakes the long-lived request of each agent that ever asked, at most [`WAKES_MAX`].
    wakes: Mutex<BTreeMap<String, Arc<Notify>>>,
}

struct Inside {
    engine: Engine,
    /// A write failed: the engine may be ahead of the disk and must be recalled first.
    ahead_of_disk: bool,
    totals_at: Option<Timestamp>,
    censored: BTreeSet<String>,
    /// When somebody last asked for a plan that empties a host.
    planned: BTreeMap<String, Timestamp>,
}

impl Remedy {
    /// Takes up what `control` remembers. The tables come with [`super::MIGRATIONS`].
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn open(
        control: Arc<Control>,
        runbooks: Vec<Runbook>,
        facts: Facts,
        settings: Settings,
        now: Timestamp,
    ) -> Result<Arc<Remedy>, ControlError> {
        let memory = control.read(journal::load)?;
        // Told again after a restart, in case the ledger had not heard of it; it changes nothing twice.
        let acted = memory.runs.iter().filter(|run| run.has_acted());
        let censored = acted.map(|run| run.subject.clone()).take(CENSORED_MAX).collect();
        let mut engine = Engine::new(settings, facts, memory, now);
        engine.replace_runbooks(runbooks);
        let inside = Inside { engine, ahead_of_disk: false, totals_at: None, censored, planned: BTreeMap::new() };
        Ok(Arc::new(Remedy { control, state: Mutex::new(inside), wakes: Mutex::new(BTreeMap::new()) }))
    }

    /// Puts a new set of runbooks in force; runs in progress keep what they were planned with.
    pub fn replace_runbooks(&self, runbooks: Vec<Runbook>) {
        self.inside().engine.replace_runbooks(runbooks);
    }

    /// Puts new facts of the fleet in force.
    pub fn replace_facts(&self, facts: Facts) {
        self.inside().engine.replace_facts(facts);
    }

    /// One event in, its effects out; what is to be kept is on disk when this returns.
    ///
    /// # Errors
    /// The database failed: nothing was done, nothing may leave.
    pub fn handle(&self, event: Event, now: Timestamp) -> Result<Vec<Effect>, ControlError> {
        let mut inside = self.recalled()?;
        let effects = inside.engine.step(event, now);
        let kept = if journal::is_worth_keeping(&effects) {
            self.control.write(|tx| journal::keep(tx, &effects))
        } else {
            Ok(())
        };
        inside.settle(kept)?;
        drop(self.let_out(&mut inside, &effects));
        Ok(effects)
    }

    /// Tells which alerts fire now: new ones start runs, those that are gone are resolved. Telling the same again changes nothing;
    /// after a restart the first call must come when the alerts' state is loaded.
    ///
    /// # Errors
    /// The database failed.
    pub fn reconcile(
        &self,
        firing: &[Alert],
        silenced: &dyn Fn(&Alert) -> bool,
        now: Timestamp,
    ) -> Result<(), ControlError> {
        let present: BTreeSet<&str> = firing.iter().map(|alert| alert.fingerprint.as_str()).collect();
        let followed = self.inside().engine.followed();
        for fingerprint in followed.into_iter().filter(|fingerprint| !present.contains(fingerprint.as_str())) {
            self.handle(Event::AlertResolved { fingerprint }, now)?;
        }
        for alert in firing {
            let silenced = silenced(alert);
            self.handle(Event::AlertFiring { alert: Box::new(alert.clone()), silenced }, now)?;
        }
        Ok(())
    }

    /// Time passed: expiries, guards and proofs over `source`. To be called about once a second; returns samples to store.
    ///
    /// # Errors
    /// The database failed.
    pub fn tick(&self, source: &dyn Source, now: Timestamp) -> Result<Batch, ControlError> {
        for _ in 0..ROUNDS_MAX {
            let effects = self.handle(Event::Tick, now)?;
            let questions: Vec<Question> = effects
                .into_iter()
                .filter_map(|effect| match effect {
                    Effect::Evaluate(question) => Some(question),
                    _ => None,
                })
                .collect();
            if questions.is_empty() {
                break;
            }
            for question in questions {
                let verdict = judge::judge(source, &question, now);
                self.handle(Event::Judged { question, verdict }, now)?;
            }
        }
        self.totals(now)
    }

    /// Subjects on which runs acted since the last call: their predictions can no longer be settled.
    pub fn take_censored(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.inside().censored)
    }

    /// The orders for an agent, handed out once and for all.
    ///
    /// # Errors
    /// The database failed: nothing is handed out.
    pub fn pull(&self, agent: &str, now: Timestamp) -> Result<Vec<Order>, ControlError> {
        let effects = self.handle(Event::Pulled { agent: agent.to_owned() }, now)?;
        Ok(effects
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Deliver(order) => Some(*order),
                _ => None,
            })
            .collect())
    }

    /// What wakes an agent's request when there is an order for it.
    pub fn wake(&self, agent: &str) -> Arc<Notify> {
        let mut wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        // Beyond the bound an agent is not woken; it finds its orders when it asks again.
        if wakes.len() >= WAKES_MAX && !wakes.contains_key(agent) {
            return Arc::new(Notify::new());
        }
        wakes.entry(agent.to_owned()).or_default().clone()
    }

    /// Takes a batch of answers, once: its mark is committed with what the answers change. Returns why single ones were not
    /// followed.
    ///
    /// # Errors
    /// The database failed: the agent sends the batch again.
    pub fn answers(&self, mark: &Mark, answers: Vec<OrderAnswer>, now: Timestamp) -> Result<Vec<String>, ControlError> {
        let mut inside = self.recalled()?;
        let engine = &mut inside.engine;
        let kept = self.control.write(|tx| {
            if !commit_mark(tx, mark)? {
                return Ok(Vec::new());
            }
            let agent = &mark.agent;
            let step = |answer| engine.step(Event::Answer { agent: agent.clone(), answer }, now);
            let effects: Vec<Effect> = answers.into_iter().flat_map(step).collect();
            journal::keep(tx, &effects)?;
            Ok(effects)
        });
        let effects = inside.settle(kept)?;
        Ok(self.let_out(&mut inside, &effects))
    }

    /// Takes an inventory.
    ///
    /// # Errors
    /// The database failed.
    pub fn see(&self, inventory: Inventory, now: Timestamp) -> Result<Option<String>, ControlError> {
        let effects = self.handle(Event::Inventory(Box::new(inventory)), now)?;
        Ok(rejection(&effects))
    }

    /// What pages show.
    pub fn snapshot(&self, runs_max: usize) -> Snapshot {
        let inside = self.inside();
        let engine = &inside.engine;
        Snapshot {
            held: engine.is_held(),
            runs: engine.runs().rev().take(runs_max).map(RunView::from).collect(),
            duties: engine.fleet().duties.clone(),
            runbooks: engine.runbooks().iter().map(RunbookView::from).collect(),
        }
    }

    /// The newest inventory of every agent.
    pub fn inventories(&self) -> BTreeMap<String, Seen> {
        self.inside().engine.fleet().inventories.clone()
    }

    /// One run with its journal.
    ///
    /// # Errors
    /// The database failed.
    pub fn run(&self, id: RunId) -> Result<Option<(Run, Vec<journal::Line>)>, ControlError> {
        self.control.read(|connection| journal::run(connection, id))
    }

    /// What evacuating a host would do now; nothing is done.
    pub fn plan_evacuation(&self, host: &str, now: Timestamp) -> EvacuationPlan {
        let mut inside = self.inside();
        inside.planned.retain(|_, at| now - *at < PLANNED_MS);
        if inside.planned.len() < PLANNED_MAX {
            inside.planned.insert(host.to_owned(), now);
        }
        let (moves, refused) = match plan::evacuation(host, None, None, inside.engine.world_now(now)) {
            Ok(legs) => (legs.into_iter().filter_map(|leg| leg.migration).collect(), None),
            Err(refusal) => (Vec::new(), Some(refusal.to_string())),
        };
        EvacuationPlan { host: host.to_owned(), moves, refused }
    }

    /// Whether somebody plans to move the guests of a host, so that its agent is to measure how fast they change their memory: a plan
    /// was asked for in the last five minutes, or a run that empties it has not ended.
    pub fn plans_to_empty(&self, host: &str, now: Timestamp) -> bool {
        let inside = self.inside();
        inside.planned.get(host).is_some_and(|at| now - *at < PLANNED_MS)
            || inside.engine.runs().any(|run| run.evacuates.as_deref() == Some(host) && !run.has_ended())
    }

    /// `petrel_runs_total` as samples, every ten seconds.
    fn totals(&self, now: Timestamp) -> Result<Batch, ControlError> {
        let mut inside = self.inside();
        if inside.totals_at.is_some_and(|at| now - at < TOTALS_EVERY_MS) {
            return Ok(Batch::default());
        }
        inside.totals_at = Some(now);
        let mut totals = self.control.read(journal::totals)?;
        // A counter that starts at one hides its first increase: those that may come are shown as zero.
        for runbook in inside.engine.runbooks() {
            for outcome in Outcome::ALL {
                totals.entry((runbook.name.clone(), outcome.as_str().to_owned())).or_insert(0);
            }
        }
        let series = totals.into_iter().map(|((runbook, outcome), count)| {
            let labels = Labels::new([(NAME, "petrel_runs_total"), ("runbook", &runbook), ("outcome", &outcome)]);
            (labels, vec![Sample { t: now, v: count as f64 }])
        });
        Ok(Batch { series: series.collect(), ..Batch::default() })
    }

    /// What may leave after the commit. Returns why events were not followed.
    fn let_out(&self, inside: &mut Inside, effects: &[Effect]) -> Vec<String> {
        let mut rejected = Vec::new();
        for effect in effects {
            match effect {
                Effect::SendOrder { agent } => {
                    let wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(wake) = wakes.get(agent) {
                        wake.notify_one();
                    }
                }
                Effect::CensorLedger { subject } if inside.censored.len() < CENSORED_MAX => {
                    inside.censored.insert(subject.clone());
                }
                Effect::Ended { runbook, outcome } => {
                    telemetry::RUNS.with_label_values(&[runbook.as_str(), outcome.as_str()]).inc();
                }
                Effect::Journal(entry) => {
                    let (run, step) = (entry.run.unwrap_or_default(), entry.step);
                    tracing::info!(run, step, kind = entry.kind.as_str(), text = %entry.text, "run");
                }
                Effect::Rejected { reason } => {
                    telemetry::REMEDY_REJECTED.inc();
                    rejected.push(reason.clone());
                }
                _ => {}
            }
        }
        rejected
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inside, recalled from disk where a write had failed before.
    fn recalled(&self) -> Result<MutexGuard<'_, Inside>, ControlError> {
        let mut inside = self.inside();
        if inside.ahead_of_disk {
            let memory = self.control.read(journal::load)?;
            inside.engine.recall(memory);
            inside.ahead_of_disk = false;
        }
        Ok(inside)
    }
}

impl Inside {
    fn settle<T>(&mut self, kept: Result<T, ControlError>) -> Result<T, ControlError> {
        self.ahead_of_disk = kept.is_err();
        kept
    }
}

/// Why an event was not followed, if it was not.
pub fn rejection(effects: &[Effect]) -> Option<String> {
    effects.iter().find_map(|effect| match effect {
        Effect::Rejected { reason } => Some(reason.clone()),
        _ => None,
    })
}
