//! What time drives: the loops that tick the stages. The only place beside `main` where the clock is read on its own account;
//! everything below is given `now`. A loop decides nothing: it calls a stage, stores what the stage derived, and passes on what
//! changed.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use petrel_agent::error_chain::chain;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Files, Reload};
use crate::decide::alert::{Alert, AlertState};
use crate::decide::engine::AlertEngine;
use crate::decide::verdict::{Change, Event as VerdictEvent, VerdictBook};
use crate::decide::witness::{self, Answer};
use crate::ingest::presence::Presence;
use crate::memory::{self, Level};
use crate::notify::Notifier;
use crate::own_metrics;
use crate::predict::Ledger;
use crate::query::source::Source;
use crate::remedy::service::Remedy;
use crate::series::Timestamp;
use crate::store::{AppendError, Batch, Store};
use crate::telemetry;

/// How often the verdicts are stored as series.
const VERDICTS_TOLD_MS: i64 = 15_000;
/// Editors write a file in several steps: changes within this time are read once.
const SETTLE: Duration = Duration::from_millis(300);

/// Calls `work` every `period` on a thread that may block, one call at a time, until `cancel`; a call that takes longer than the
/// period delays the next one. A panic in `work` ends the loop and so, through the join, the server.
pub fn every(
    tasks: &mut JoinSet<()>,
    period: Duration,
    clock: Clock,
    cancel: CancellationToken,
    mut work: impl FnMut(Timestamp) + Send + 'static,
) {
    tasks.spawn(async move {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = clock();
            let call = tokio::task::spawn_blocking(move || {
                work(now);
                work
            });
            work = match call.await {
                Ok(work) => work,
                Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                Err(_) => return,
            };
        }
    });
}

/// Stores what a stage derived. Derived series are made anew at the next tick, so one that cannot be stored now (full disk) is
/// counted and let go; what it was derived from is safe.
pub fn keep(store: &Store, batch: Batch, now: Timestamp) {
    if batch.series.is_empty() {
        return;
    }
    if let Err(error) = store.append_blocking(batch, now) {
        telemetry::DERIVED_BATCHES_LOST.inc();
        // While the disk takes nothing the store says so when that begins and ends; once a second more would fill the disk's logs.
        match error {
            AppendError::DiskFull { .. } | AppendError::DiskReserve { .. } | AppendError::Journal { .. } => {
                tracing::debug!(error = chain(&error), "derived series are not stored");
            }
            _ => tracing::warn!(error = chain(&error), "derived series are not stored"),
        }
    }
}

/// What fails of the store's maintenance, as the log has it: a pass comes every few seconds, and what stays wrong is said once.
#[derive(Debug, Default)]
pub struct Failing(BTreeSet<String>);

impl Failing {
    /// Takes what a pass said; returns what of it was not so in the pass before.
    fn news(&mut self, problems: BTreeSet<String>) -> Vec<String> {
        let news = problems.difference(&self.0).cloned().collect();
        self.0 = problems;
        news
    }
}

/// Seals, merges and expires what is stored.
pub fn maintain(store: &Store, failing: &mut Failing, now: Timestamp) {
    let problems = store.maintain(now);
    telemetry::STORE_MAINTENANCE_PROBLEMS.inc_by(problems.len() as u64);
    let is_over = problems.is_empty() && !failing.0.is_empty();
    for error in failing.news(problems.iter().map(|problem| chain(problem)).collect()) {
        tracing::error!(
            error,
            "the store cannot be maintained; it goes on with what it has in memory and journals, and tries again"
        );
    }
    if is_over {
        tracing::info!("the store is maintained again");
    }
}

/// Stores the server's own metrics beside the fleet's, as `job="petrel"`.
pub fn record_own_metrics(store: &Store, instance: &str, now: Timestamp) {
    own_metrics::measure(store.stats());
    keep(store, own_metrics::batch(instance, now), now);
}

/// Rules, alerts, notices and runs, in that order, once a second.
pub struct Judge {
    /// Where derived series go to.
    pub store: Arc<Store>,
    /// Where series are read from.
    pub source: Arc<dyn Source>,
    /// Rules and their alerts.
    pub engine: AlertEngine,
    /// Who is told.
    pub notifier: Arc<Notifier>,
    /// What is done.
    pub remedy: Arc<Remedy>,
    /// Predictions, to be censored where somebody acts.
    pub ledger: Arc<Ledger>,
    /// Files read again, until they are taken.
    pub fresh: Arc<Mutex<Option<Files>>>,
}

impl Judge {
    /// One round. Each part reads the state of the one before it, not its hints, so that a round missed is made good by the next.
    pub fn tick(&mut self, now: Timestamp) {
        if let Some(files) = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.engine.replace_rules(files.rules, now);
            self.remedy.replace_runbooks(files.runbooks);
            self.remedy.replace_facts(files.facts);
        }
        let judged = self.engine.tick(&*self.source, now);
        keep(&self.store, judged.batch, now);
        let alerts = self.engine.view().snapshot();
        if let Err(error) = self.notifier.observe(&alerts.alerts, now) {
            tracing::error!(error = chain(&error), "notices cannot be queued; tried again in a second");
        }
        let firing: Vec<Alert> =
            alerts.alerts.iter().filter(|alert| alert.state == AlertState::Firing).cloned().collect();
        // There are no silences yet: nothing is silenced.
        let acted = self.remedy.reconcile(&firing, &|_| false, now).and_then(|()| self.remedy.tick(&*self.source, now));
        match acted {
            Ok(batch) => keep(&self.store, batch, now),
            Err(error) => tracing::error!(error = chain(&error), "runs stand still; tried again in a second"),
        }
        self.censor(now);
    }

    /// Where we act, what was predicted can no longer be judged.
    fn censor(&self, now: Timestamp) {
        for subject in self.remedy.take_censored() {
            let Some(instance) = subject.strip_prefix("host:") else { continue };
            if let Err(error) = self.ledger.censor((instance, None), "a run acted on this host", now) {
                tracing::error!(error = chain(&error), subject, "predictions cannot be censored");
            }
        }
    }
}

/// The silence of agents: `up`, staleness, verdicts.
pub struct Watch {
    /// Where what is derived goes to.
    pub store: Arc<Store>,
    /// Which agents send.
    pub presence: Arc<Mutex<Presence>>,
    /// What is believed of each host.
    pub verdicts: Arc<Mutex<VerdictBook>>,
    /// When the verdicts were stored last.
    pub told_at: Timestamp,
}

impl Watch {
    /// One look.
    pub fn tick(&mut self, now: Timestamp) {
        let silence = Presence::tick_store(&self.presence, &self.store, now);
        match silence {
            Ok(batch) => keep(&self.store, batch, now),
            Err(error) => tracing::error!(error = chain(&error), "silent agents are not told; tried again in a second"),
        }
        let verdicts = || self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        // Samples are read without the lock, which every heartbeat wants, and each answer is weighed with a lock of its own.
        let asked = verdicts().in_question(now);
        for Answer { host: agent, statements } in witness::ask(&*self.store, asked, now) {
            verdicts().step(VerdictEvent::Witnessed { agent, statements }, now);
        }
        let mut verdicts = verdicts();
        let changes = verdicts.step(VerdictEvent::Tick, now);
        changes.iter().for_each(tell);
        // A clock that was set back must not keep them from being told until it has caught up.
        if !changes.is_empty() || !(0..VERDICTS_TOLD_MS).contains(&(now - self.told_at)) {
            self.told_at = now;
            let batch = verdicts.batch(now);
            drop(verdicts);
            keep(&self.store, batch, now);
        }
    }
}

/// Says every second that the server listens, until `cancel`. Apart from [`Watch`], which waits for the disk: a pause of those who
/// receive is forgiven to all hosts, and a slow disk is none.
pub async fn stay_awake(verdicts: Arc<Mutex<VerdictBook>>, clock: Clock, cancel: CancellationToken) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => {}
        }
        verdicts.lock().unwrap_or_else(PoisonError::into_inner).step(VerdictEvent::Awake, clock());
    }
}

/// The server's memory against its limit.
pub struct MemoryWatch {
    /// `memory_max` in bytes.
    pub bytes_max: u64,
    /// What is told to store, too.
    pub store: Arc<Store>,
    /// Who is told.
    pub level: watch::Sender<Level>,
}

impl MemoryWatch {
    /// One look.
    pub fn tick(&mut self) {
        let Some(used_bytes) = memory::used_bytes() else { return };
        let before = *self.level.borrow();
        let level = before.next(used_bytes, self.bytes_max);
        if level == before {
            return;
        }
        telemetry::MEMORY_LEVEL.set(level as i64);
        self.store.set_memory_tight(level != Level::Normal);
        self.level.send_replace(level);
        let bytes_max = self.bytes_max;
        match level {
            Level::Normal => tracing::info!(used_bytes, bytes_max, "memory has room again"),
            Level::Tight => tracing::warn!(used_bytes, bytes_max, "memory is near memory_max: no series are added"),
            Level::Over => tracing::error!(used_bytes, bytes_max, "memory is at memory_max: queries are refused, too"),
        }
    }
}

fn tell(Change { from, to }: &Change) {
    let because: Vec<String> = to.reasons.iter().map(ToString::to_string).collect();
    tracing::info!(host = to.host, %from, to = %to.verdict, because = because.join(", "), "verdict");
}

/// Reads rules, runbooks and facts again when their files change or on SIGHUP, until `cancel`. A mistake keeps what is in force,
/// is logged, counted and shown. `in_force` is the fingerprint of what was read at the start.
pub async fn follow_files(
    (reload, mut in_force): (Reload, u64),
    mut hangup: Signal,
    fresh: Arc<Mutex<Option<Files>>>,
    problems: Arc<RwLock<Vec<String>>>,
    cancel: CancellationToken,
) {
    // One place: what matters is that something changed, not how often.
    let (changed, mut changes) = mpsc::channel::<()>(1);
    // The first look is for what changed between the start and the watch.
    let _ = changed.try_send(());
    let _watcher = watch(&reload, changed);
    loop {
        let asked = tokio::select! {
            () = cancel.cancelled() => return,
            _ = hangup.recv() => true,
            Some(()) = changes.recv() => {
                tokio::time::sleep(SETTLE).await;
                let _ = changes.try_recv();
                false
            }
        };
        // Other files live in the same folders, a log for example; and an editor may write what was there before.
        let found = reload.fingerprint();
        if found == in_force && !asked {
            continue;
        }
        in_force = found;
        let again = reload.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || again.read()).await else { return };
        let told = match read {
            Ok(config) => {
                tracing::info!(
                    "rules, runbooks and facts are read again; other settings take effect at the next start"
                );
                *fresh.lock().unwrap_or_else(PoisonError::into_inner) = Some(config.files);
                Vec::new()
            }
            Err(found) => found.iter().map(|problem| format!("not in force: {problem}")).collect::<Vec<_>>(),
        };
        for problem in &told {
            tracing::error!("{problem}");
        }
        telemetry::CONFIG_IN_FORCE.set(i64::from(told.is_empty()));
        *problems.write().unwrap_or_else(PoisonError::into_inner) = told;
    }
}

fn watch(reload: &Reload, changed: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
    let tell = move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Full means that a change is told already.
            let _ = changed.try_send(());
        }
    };
    let mut watcher = notify::recommended_watcher(tell)
        .map_err(|error| tracing::warn!(%error, "files are not watched; SIGHUP reads them again"))
        .ok()?;
    for folder in reload.folders() {
        if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
            tracing::warn!(%error, folder = %folder.display(), "folder is not watched; SIGHUP reads it again");
        }
    }
    Some(watcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_wrong_is_said_once() {
        let mut failing = Failing::default();
        let mut news =
            |problems: &str| failing.news(problems.split_whitespace().map(str::to_owned).collect()).join(" ");
        let said: Vec<String> = ["full", "full", "full torn", "torn", "", "full"].map(&mut news).to_vec();
        assert_eq!(said, ["full", "", "torn", "", "", "full"]);
    }
}
