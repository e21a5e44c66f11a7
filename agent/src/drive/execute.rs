//! Carrying out one order, in two blocking halves: `open` admits it, lets the driver check it and syncs `started`;
//! `perform` looks at the hold file once more and applies. What an earlier process began and did not end is looked up
//! by `resolve` and never applied again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use petrel_models::Timestamp;

use super::journal::Started;
use super::{Act, ActError, Admission, Checked, Journal, Looked, Refusal, Standing, Watch, admit};
use crate::error_chain::chain;
use crate::stream::protocol::{Order, OrderAnswer, OrderKey, OrderOutcome};

/// An order may take a day at most, whatever it says: no deadline overflows, none is for ever.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(86_400);
/// The platform's own words are cut at this length in an answer.
const REASON_BYTES_MAX: usize = 4 << 10;
/// How often an order that outlived its agent is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Everything that carries out orders on one host.
pub struct Executor {
    /// Drivers by the word before the dot.
    pub(super) actors: Vec<(&'static str, Arc<dyn Act>)>,
    pub(super) allow: BTreeSet<String>,
    pub(super) hold_file: PathBuf,
    pub(super) clock: fn() -> Timestamp,
    pub(super) counts: Counts,
    journal: Mutex<Journal>,
}

/// How many orders came to which end, since start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Refused.
    pub refused: AtomicU64,
    /// Done.
    pub done: AtomicU64,
    /// Failed.
    pub failed: AtomicU64,
    /// Ended as unknown.
    pub unknown: AtomicU64,
    /// Answered from the journal, or under way when they came again.
    pub repeated: AtomicU64,
}

/// What `open` came to.
#[derive(Debug)]
pub enum Opening {
    /// `started` is on disk: tell the server, then `perform`.
    Begun(Box<Prepared>),
    /// Answered without beginning.
    Answered(Box<OrderAnswer>),
    /// The order is under way already; its answer comes from there.
    Running,
}

/// An order that is begun.
#[derive(Debug)]
pub struct Prepared {
    order: Order,
    checked: Checked,
    /// The answer `started`.
    pub started: OrderAnswer,
}

impl Executor {
    /// Puts drivers and journal together. `clock` stamps answers.
    pub fn over(
        actors: Vec<(&'static str, Arc<dyn Act>)>,
        allow: BTreeSet<String>,
        hold_file: PathBuf,
        journal: Journal,
        clock: fn() -> Timestamp,
    ) -> Executor {
        Executor { actors, allow, hold_file, clock, counts: Counts::default(), journal: Mutex::new(journal) }
    }

    /// First half: whether the order starts, and if so, `started` synced to disk. `received` is when it was received.
    pub fn open(&self, order: Order, received: Instant) -> Opening {
        if let Err(error) = self.journal().raise_fencing(order.fencing_epoch) {
            return self.refuse(&order, &Refusal::driver(chain(&error)), false);
        }
        let (seen, fencing_high) = {
            let journal = self.journal();
            (journal.seen(&order), journal.fencing_high())
        };
        let age_ms = u64::try_from(received.elapsed().as_millis()).unwrap_or(u64::MAX);
        let standing = Standing { allow: &self.allow, hold: hold(&self.hold_file), fencing_high, age_ms };
        match admit(&order, seen, &standing) {
            Admission::Start => {}
            Admission::Repeat(answer) => {
                self.counts.repeated.fetch_add(1, Ordering::Relaxed);
                return Opening::Answered(answer);
            }
            Admission::Running => {
                self.counts.repeated.fetch_add(1, Ordering::Relaxed);
                return Opening::Running;
            }
            Admission::Refuse(refusal) => {
                // These three leave the key free: it is another order's, or another server's, or too much to write down.
                let keep =
                    !matches!(refusal, Refusal::KeyReused { .. } | Refusal::Fenced { .. } | Refusal::TooLarge { .. });
                return self.refuse(&order, &refusal, keep);
            }
        }
        let checked = match self.actor(&order).and_then(|actor| actor.check(&order)) {
            Ok(checked) => checked,
            Err(refusal) => return self.refuse(&order, &refusal, true),
        };
        // Checking may have taken a while.
        let age_ms = u64::try_from(received.elapsed().as_millis()).unwrap_or(u64::MAX);
        if age_ms > order.ttl_ms {
            return self.refuse(&order, &Refusal::Expired { age_ms, ttl_ms: order.ttl_ms }, true);
        }
        if let Err(error) = self.journal().start(&order, &checked, (self.clock)()) {
            return self.refuse(&order, &Refusal::driver(chain(&error)), false);
        }
        tracing::info!(run = order.key.run, step = order.key.step, command = checked.command, "order started");
        let started = self.answer(&order, OrderOutcome::Started, &checked);
        Opening::Begun(Box::new(Prepared { order, checked, started }))
    }

    /// Whether an order would be admitted now, before its driver is asked. Changes nothing.
    pub fn admits(&self, order: &Order) -> bool {
        let (seen, fencing_high) = {
            let journal = self.journal();
            (journal.seen(order), journal.fencing_high())
        };
        let standing = Standing { allow: &self.allow, hold: hold(&self.hold_file), fencing_high, age_ms: 0 };
        admit(order, seen, &standing) == Admission::Start
    }

    /// Second half: applies, and says how it ended. Nothing, when the agent stops before the end is known.
    /// `watch` limits it, and so does the order's own time-out.
    pub fn perform(&self, prepared: &Prepared, watch: Watch) -> Option<OrderAnswer> {
        let Prepared { order, checked, .. } = prepared;
        if let Some(path) = hold(&self.hold_file) {
            return Some(self.end(order, checked, Refusal::Held { path }.outcome()));
        }
        let watch = watch.within(timeout(order));
        let ended = match self.actor(order) {
            Ok(actor) if order.undo_of.is_some() => actor.undo(order, checked, &watch),
            Ok(actor) => actor.apply(order, checked, &watch),
            Err(refusal) => return Some(self.end(order, checked, refusal.outcome())),
        };
        let outcome = match ended {
            Ok(()) => OrderOutcome::Done,
            Err(ActError::Failed { reason }) => OrderOutcome::Failed { reason },
            Err(ActError::Unknown { reason }) => OrderOutcome::Unknown { reason },
            Err(ActError::Left) => return None,
        };
        Some(self.end(order, checked, outcome))
    }

    /// Ends an order that an earlier process began, by what the driver sees now. Nothing, when the agent stops first.
    pub fn resolve(&self, begun: &Started, watch: Watch) -> Option<OrderAnswer> {
        let (order, checked) = (&begun.order, begun.checked());
        let watch = watch.within(timeout(order));
        let unknown = |reason: &str| OrderOutcome::Unknown { reason: format!("the agent was restarted: {reason}") };
        let outcome = loop {
            let Ok(actor) = self.actor(order) else { break unknown("its driver is not configured any more") };
            match actor.progress(order, &checked) {
                Looked::Done => break OrderOutcome::Done,
                Looked::NotStarted => {
                    let reason = "the agent was restarted before anything was changed".to_owned();
                    break OrderOutcome::Failed { reason };
                }
                Looked::Unknown { reason } => break unknown(&reason),
                Looked::Running if watch.is_leaving() => return None,
                Looked::Running if watch.is_cancelled() => break unknown("it was still at work when its undo came"),
                Looked::Running if watch.is_over() => break unknown("it is still at work after its time-out"),
                Looked::Running => std::thread::sleep(LOOK_EVERY.min(watch.left())),
            }
        };
        Some(self.end(order, &checked, outcome))
    }

    /// Refuses an order that was never looked at, for example because too many wait.
    pub fn turn_away(&self, order: &Order, refusal: &Refusal) -> OrderAnswer {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
        self.answer(order, refusal.outcome(), &Checked::default())
    }

    /// Ends an order whose driver broke down.
    pub fn broke_down(&self, order: &Order) -> OrderAnswer {
        let reason =
            "the driver broke down; this is a fault in Petrel, please report it with the agent's log".to_owned();
        self.end(order, &Checked::default(), OrderOutcome::Unknown { reason })
    }

    /// Orders that earlier processes began and did not end.
    pub fn unfinished(&self) -> Vec<Started> {
        self.journal().unfinished()
    }

    /// Answers that may not have reached the spool.
    pub fn unsent(&self) -> Vec<OrderAnswer> {
        self.journal().unsent()
    }

    /// Notes that an answer was handed on.
    pub fn sent(&self, key: OrderKey) {
        if let Err(error) = self.journal().sent(key) {
            tracing::warn!(error = chain(&error), "an answer may be sent twice");
        }
    }

    fn refuse(&self, order: &Order, refusal: &Refusal, keep: bool) -> Opening {
        let answer =
            if keep { self.end(order, &Checked::default(), refusal.outcome()) } else { self.turn_away(order, refusal) };
        Opening::Answered(Box::new(answer))
    }

    /// Writes and counts the end of an order.
    fn end(&self, order: &Order, checked: &Checked, outcome: OrderOutcome) -> OrderAnswer {
        let answer = self.answer(order, outcome, checked);
        let count = match &answer.outcome {
            OrderOutcome::Done | OrderOutcome::Started => &self.counts.done,
            OrderOutcome::Refused { .. } => &self.counts.refused,
            OrderOutcome::Failed { .. } => &self.counts.failed,
            OrderOutcome::Unknown { .. } => &self.counts.unknown,
        };
        count.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.journal().end(order, &answer) {
            tracing::error!(error = chain(&error), "the end of an order is not on disk");
        }
        tracing::info!(
            run = order.key.run,
            step = order.key.step,
            action = order.action,
            outcome = ?answer.outcome,
            "order ended"
        );
        answer
    }

    fn answer(&self, order: &Order, outcome: OrderOutcome, checked: &Checked) -> OrderAnswer {
        OrderAnswer {
            key: order.key,
            fencing_epoch: order.fencing_epoch,
            at: (self.clock)(),
            outcome: shorten(outcome),
            command: checked.command.clone(),
            before: checked.before.clone(),
        }
    }

    fn actor(&self, order: &Order) -> Result<&dyn Act, Refusal> {
        let name = driver_of(order);
        let actor = self.actors.iter().find(|(driver, _)| *driver == name);
        actor.map(|(_, actor)| actor.as_ref()).ok_or_else(|| Refusal::UnknownAction {
            action: order.action.clone(),
            known: "those of the drivers in its config",
        })
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        // A panic while the lock was held cannot leave half a change: lines are appended before they are remembered.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The word before the dot of an order's action.
pub fn driver_of(order: &Order) -> &str {
    order.action.split('.').next().unwrap_or_default()
}

/// The hold file, where it stands or where nobody can say whether it does.
pub fn hold(path: &Path) -> Option<String> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Ok(_) => Some(path.display().to_string()),
        Err(error) => Some(format!("{} (which cannot be looked at: {error})", path.display())),
    }
}

fn timeout(order: &Order) -> Duration {
    Duration::from_millis(order.timeout_ms).min(TIMEOUT_MAX)
}

fn shorten(outcome: OrderOutcome) -> OrderOutcome {
    let cut = |mut reason: String| {
        let end = (0..=REASON_BYTES_MAX.min(reason.len())).rev().find(|at| reason.is_char_boundary(*at));
        reason.truncate(end.unwrap_or(0));
        reason
    };
    match outcome {
        OrderOutcome::Refused { reason } => OrderOutcome::Refused { reason: cut(reason) },
        OrderOutcome::Failed { reason } => OrderOutcome::Failed { reason: cut(reason) },
        OrderOutcome::Unknown { reason } => OrderOutcome::Unknown { reason: cut(reason) },
        OrderOutcome::Started | OrderOutcome::Done => outcome,
    }
}
