//! The stages of one server: each opened on the same store, each with its loop, and what they hand to each other.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use petrel_agent::error_chain::chain;
use petrel_agent::units::Span;
use tokio::net::UdpSocket;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::ServeError;
use crate::api::auth::Policy;
use crate::api::{self, v1};
use crate::clock::Clock;
use crate::config::{Config, Files, Reload};
use crate::decide::engine::AlertEngine;
use crate::decide::verdict::{Event as VerdictEvent, VerdictBook};
use crate::ingest::heartbeat::{self, Heard};
use crate::ingest::presence::Presence;
use crate::memory::{self, Level};
use crate::notify::Notifier;
use crate::predict::{self, Predictor};
use crate::query::source::Source;
use crate::remedy::service::Remedy;
use crate::remote::RemoteEngine;
use crate::run_loop::{self, Judge, MemoryWatch, Watch};
use crate::score::{self, Scorer};
use crate::series::Timestamp;
use crate::store::Store;
use crate::{console, own_metrics, telemetry};

/// How often rules and runs are looked at; each group of rules keeps its own interval.
const DECIDE_PERIOD: Duration = Duration::from_secs(1);
/// How often the silence of agents is looked at, and the memory.
const WATCH_PERIOD: Duration = Duration::from_secs(1);
/// How often the store is looked after.
const MAINTAIN_PERIOD: Duration = Duration::from_secs(5);
/// How often the server's own metrics are stored.
const OWN_METRICS_PERIOD: Duration = Duration::from_secs(15);
/// Commits that scoring may be behind before it misses some, which is counted.
const TAP_GROUPS_MAX: usize = 1024;
/// How long the agent of this machine may take to hand over its last batches at the stop.
const AGENT_STOP_TIMEOUT: Duration = Duration::from_millis(500);
/// Heartbeats that may wait for the verdicts; the next ones come in a second.
const HEARD_MAX: usize = 65_536;

/// What runs, and what the routes read.
pub struct Stages {
    store: Arc<Store>,
    /// Where people's queries and predictions read.
    source: Arc<dyn Source>,
    /// Where rules and guards read: a part of an answer is none.
    strict_source: Arc<dyn Source>,
    clock: Clock,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// The agent of this machine, and what tells it to leave.
    agent: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
    views: v1::Views,
    presence: Arc<Mutex<Presence>>,
    verdicts: Arc<Mutex<VerdictBook>>,
    remedy: Arc<Remedy>,
    /// How scarce memory is.
    memory: watch::Receiver<Level>,
    /// Rules read again, until the judge takes them.
    fresh: Arc<Mutex<Option<Files>>>,
}

impl Stages {
    /// Opens every stage on what the store remembers, and starts its loop.
    ///
    /// # Errors
    /// What a stage remembers cannot be read.
    pub fn open(
        store: Arc<Store>,
        clock: Clock,
        cancel: CancellationToken,
        config: &Config,
        seed: u64,
    ) -> Result<Stages, ServeError> {
        let now = clock();
        let mut threads = Vec::new();
        let (source, strict_source): (Arc<dyn Source>, Arc<dyn Source>) = match &config.remote {
            None => (store.clone(), store.clone()),
            // First: what it has not sent yet must not be unlinked.
            Some(remote) => {
                let (engine, thread) = RemoteEngine::start(remote, Arc::clone(&store), clock.clone(), cancel.clone())?;
                threads.push(thread);
                (engine.source(), engine.strict_source())
            }
        };
        let control = store.control();
        let Files { rules, runbooks, facts } = config.files.clone();
        let engine = AlertEngine::open(Arc::clone(control), rules, config.rules.clone(), now)?;
        let notifier = Notifier::open(Arc::clone(control), config.notify.clone(), seed)?;
        let remedy = Remedy::open(Arc::clone(control), runbooks, facts, config.remedy.clone(), now)?;
        let scorer = Scorer::open(Arc::clone(control), config.score.clone())?;
        let predictor = Predictor::open(Arc::clone(control), config.predict.clone(), seed);
        let verdicts: Arc<Mutex<VerdictBook>> = Arc::default();
        let views = v1::Views {
            store: Arc::clone(&store),
            alerts: engine.view(),
            verdicts: Arc::clone(&verdicts),
            outlooks: Arc::default(),
            ledger: predictor.ledger(),
            remedy: Arc::clone(&remedy),
            problems: Arc::default(),
            clock: clock.clone(),
        };
        telemetry::CONFIG_IN_FORCE.set(1);
        telemetry::declare_limits();
        let (level, memory) = watch::channel(Level::default());
        let (presence, fresh) = (Arc::new(Mutex::new(Presence::from_store(&store, now)?)), Arc::default());
        let tasks = JoinSet::new();
        let mut stages = Stages {
            store,
            source,
            strict_source,
            clock,
            cancel,
            tasks,
            threads,
            agent: None,
            views,
            presence,
            verdicts,
            remedy,
            memory,
            fresh,
        };
        stages.watch_memory(config.memory_max.bytes(memory::machine_bytes()), level);
        stages.start_scoring(scorer);
        stages.start_predicting(predictor);
        stages.start_judging(engine, notifier);
        stages.start_looking_after();
        Ok(stages)
    }

    /// All routes.
    pub fn router(&self, config: &Config) -> Router {
        let (store, clock) = (&self.store, &self.clock);
        let source = Arc::clone(&self.source);
        let (presence, verdicts) = (Arc::clone(&self.presence), Arc::clone(&self.verdicts));
        let prometheus = api::prometheus::Parts {
            source,
            store: Arc::clone(store),
            presence: Arc::clone(&presence),
            clock: clock.clone(),
            options: config.query.clone(),
            memory: self.memory.clone(),
            about: about(config, clock()),
        };
        Router::new()
            .route("/-/healthy", get(|| async { "Petrel is healthy.\n" }))
            .route("/-/ready", get(|| async { "Petrel is ready.\n" }))
            .merge(console::router())
            .merge(own_metrics::router())
            .merge(api::write::router(Arc::clone(store), clock.clone(), config.write, presence, verdicts))
            .merge(api::prometheus::router(prometheus))
            .merge(api::prometheus::admin::router(Arc::clone(store)))
            .merge(api::alerting::router(self.views.alerts.clone()))
            .merge(api::remedy::router(Arc::clone(&self.remedy), clock.clone()))
            .merge(api::backup::router(Arc::clone(store), clock.clone()))
            .merge(v1::router(self.views.clone()))
    }

    /// Runs a task of the server until its token is cancelled.
    pub fn spawn<F: Future<Output = ()> + Send + 'static>(&mut self, task: impl FnOnce(CancellationToken) -> F) {
        self.tasks.spawn(task(self.cancel.clone()));
    }

    /// Returns only when a task broke. One that ended well had nothing to do, as the sender of notices without receivers.
    pub async fn broke(&mut self) -> JoinError {
        loop {
            match self.tasks.join_next().await {
                Some(Err(error)) => return error,
                Some(Ok(())) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn every(&mut self, period: Duration, work: impl FnMut(Timestamp) + Send + 'static) {
        run_loop::every(&mut self.tasks, period, self.clock.clone(), self.cancel.clone(), work);
    }

    fn start_scoring(&mut self, scorer: Scorer) {
        let (store, clock, cancel) = (Arc::clone(&self.store), self.clock.clone(), self.cancel.clone());
        let feed = store.tap(TAP_GROUPS_MAX);
        self.threads.push(std::thread::spawn(move || {
            let sink = |batch, now| run_loop::keep(&store, batch, now);
            if let Err(error) = score::run(scorer, feed, sink, &clock, &cancel) {
                tracing::error!(error = chain(&error), "scoring ended");
            }
        }));
    }

    fn start_predicting(&mut self, predictor: Predictor) {
        if !predictor.config().enabled {
            return;
        }
        let (store, clock, cancel) = (Arc::clone(&self.store), self.clock.clone(), self.cancel.clone());
        let (outlooks, source) = (Arc::clone(&self.views.outlooks), Arc::clone(&self.source));
        self.threads.push(std::thread::spawn(move || {
            let sink = |tick: predict::Tick, now| {
                run_loop::keep(&store, tick.batch, now);
                *outlooks.write().unwrap_or_else(PoisonError::into_inner) = tick.outlooks;
            };
            if let Err(error) = predict::run(predictor, &source, sink, &clock, &cancel) {
                tracing::error!(error = chain(&error), "predicting ended");
            }
        }));
    }

    fn start_judging(&mut self, engine: AlertEngine, notifier: Arc<Notifier>) {
        let sender = Arc::clone(&notifier);
        let clock = self.clock.clone();
        self.spawn(|cancel| sender.run(cancel, clock));
        let mut judge = Judge {
            store: Arc::clone(&self.store),
            source: Arc::clone(&self.strict_source),
            engine,
            notifier,
            remedy: Arc::clone(&self.remedy),
            ledger: Arc::clone(&self.views.ledger),
            fresh: Arc::clone(&self.fresh),
        };
        self.every(DECIDE_PERIOD, move |now| judge.tick(now));
    }

    fn start_looking_after(&mut self) {
        let mut watch = Watch {
            store: Arc::clone(&self.store),
            presence: Arc::clone(&self.presence),
            verdicts: Arc::clone(&self.verdicts),
            told_at: 0,
        };
        self.every(WATCH_PERIOD, move |now| watch.tick(now));
        let (verdicts, clock) = (Arc::clone(&self.verdicts), self.clock.clone());
        self.spawn(|cancel| run_loop::stay_awake(verdicts, clock, cancel));
        let store = Arc::clone(&self.store);
        let mut failing = run_loop::Failing::default();
        self.every(MAINTAIN_PERIOD, move |now| run_loop::maintain(&store, &mut failing, now));
        let (store, instance) = (Arc::clone(&self.store), petrel_agent::config::host_name());
        self.every(OWN_METRICS_PERIOD, move |now| run_loop::record_own_metrics(&store, &instance, now));
    }

    /// Without a limit nobody looks, and the level stays.
    fn watch_memory(&mut self, bytes_max: Option<u64>, level: watch::Sender<Level>) {
        let Some(bytes_max) = bytes_max else { return };
        telemetry::MEMORY_BYTES_MAX.set(i64::try_from(bytes_max).unwrap_or(i64::MAX));
        let mut watch = MemoryWatch { bytes_max, store: Arc::clone(&self.store), level };
        self.every(WATCH_PERIOD, move |_| watch.tick());
    }

    /// Receives heartbeats and tells the verdicts.
    pub fn listen_for_heartbeats(&mut self, socket: UdpSocket, policy: Arc<Policy>) {
        let (sender, mut receiver) = mpsc::channel::<Heard>(HEARD_MAX);
        let clock = self.clock.clone();
        let key_of = move |agent: &str| policy.heartbeat_key(agent);
        self.spawn(|cancel| heartbeat::run(socket, key_of, clock, sender, cancel));
        let verdicts = Arc::clone(&self.verdicts);
        self.tasks.spawn(async move {
            while let Some(Heard { beat, at }) = receiver.recv().await {
                let goodbye = beat.class == petrel_agent::heartbeat::codec::BeatClass::Goodbye;
                let event =
                    VerdictEvent::Beat { agent: beat.agent, path: beat.path, interval_ms: beat.interval_ms, goodbye };
                verdicts.lock().unwrap_or_else(PoisonError::into_inner).step(event, at);
            }
        });
    }

    /// Reads rules, runbooks and facts again when their files change or on SIGHUP. A mistake keeps the old ones in force.
    pub fn follow_files(&mut self, reload: Reload, in_force: u64, hangup: Signal) {
        let (fresh, problems) = (Arc::clone(&self.fresh), Arc::clone(&self.views.problems));
        self.spawn(|cancel| run_loop::follow_files((reload, in_force), hangup, fresh, problems, cancel));
    }

    /// Starts an agent of this machine in this process.
    pub fn start_agent(&mut self, url: &str, heartbeat_to: SocketAddr, state_dir: &Path) {
        let Ok(url) = reqwest::Url::parse(url) else { return };
        let agent = petrel_agent::config::Config::for_local(url, heartbeat_to, state_dir);
        let leave = CancellationToken::new();
        let told = leave.clone();
        // The server is worth running without its own agent, so this task is none of those that must not end.
        let task = tokio::spawn(async move {
            if let Err(error) = petrel_agent::run(agent, told).await {
                tracing::error!(
                    error = chain(&error),
                    "the agent of this machine ended; the server goes on without it"
                );
            }
        });
        self.agent = Some((leave, task));
    }

    /// Stops the stages within `timeout`, then closes the store, so that nothing acknowledged is half written.
    pub async fn stop(mut self, timeout: Duration) {
        let deadline = tokio::time::Instant::now() + timeout;
        if let Some((leave, task)) = self.agent.take() {
            // First, while the server still takes its last batches.
            leave.cancel();
            let abort = task.abort_handle();
            if tokio::time::timeout(AGENT_STOP_TIMEOUT, task).await.is_err() {
                abort.abort();
            }
        }
        self.cancel.cancel();
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a stage's thread ended by a panic");
                }
            }
        });
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline, drained).await.is_err() {
            tracing::warn!("some stage did not end in time and is cut off; what was acknowledged is on disk");
            self.tasks.abort_all();
        }
        // A forecast of a large fleet is not broken off in the middle; what it would still say is said after the next start.
        if tokio::time::timeout_at(deadline, joined).await.is_err() {
            tracing::warn!("scoring or predicting did not end in time and is cut off; it goes on from its last save");
        }
        let store = self.store;
        let closed = tokio::task::spawn_blocking(move || store.close());
        if closed.await.is_err() {
            tracing::error!("the store did not close cleanly; its journals bring it back");
        }
        tracing::info!("stopped");
    }
}

/// What the Prometheus API says of this server's settings, under the names of Prometheus' flags where it has them.
fn about(config: &Config, started_at: Timestamp) -> api::prometheus::About {
    let limits = &config.query.limits;
    let span = |span: Duration| Span(span).to_string();
    let flags = [
        ("query.lookback-delta", span(Duration::from_millis(limits.lookback_ms.unsigned_abs()))),
        ("query.max-concurrency", config.query.door.concurrent_max.to_string()),
        ("query.max-samples", limits.samples_max.to_string()),
        ("query.timeout", span(limits.timeout)),
        ("storage.tsdb.path", config.data.display().to_string()),
        ("storage.tsdb.retention.time", config.store.retention.map_or_else(|| "off".to_owned(), span)),
        ("web.enable-remote-write-receiver", "true".to_owned()),
        ("web.external-url", config.rules.external_url().to_owned()),
        ("web.listen-address", config.listen.to_string()),
    ];
    api::prometheus::About {
        started_at,
        config: config.text.clone(),
        flags: flags.into(),
        external_labels: config.rules.external_labels().clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::config::Overrides;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_thread_that_does_not_end_does_not_hold_up_the_stop() {
        let dir = tempfile::tempdir().unwrap();
        let overrides = Overrides { data: Some(dir.path().to_owned()), ..Overrides::default() };
        let config = Reload { path: None, overrides }.read().unwrap();
        let store = Store::open(dir.path(), config.store.clone(), &super::super::migrations(), 1_000).unwrap();
        let cancel = CancellationToken::new();
        let mut stages = Stages::open(store, crate::clock::fixed(1_000), cancel, &config, 1).unwrap();
        let (release, held) = std::sync::mpsc::channel::<()>();
        stages.threads.push(std::thread::spawn(move || {
            let _ = held.recv_timeout(Duration::from_secs(20));
        }));
        let begun = Instant::now();
        stages.stop(Duration::from_millis(1_200)).await;
        assert!(begun.elapsed() < Duration::from_secs(10), "the stop waited for the thread");
        drop(release);
        assert!(Store::open(dir.path(), config.store.clone(), &super::super::migrations(), 1_000).is_ok());
    }
}
