//! The hands: take orders from the stream and have them carried out, one at a time for each driver. An order that undoes
//! the one under way has that one broken off, and follows it. The loop never waits for a platform: blocking work runs on threads of its own, and an
//! order's age counts from the moment it is taken here.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use petrel_models::Timestamp;
use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::execute::{Executor, Opening, Prepared, TIMEOUT_MAX, driver_of};
use super::inventory::Reader;
use super::journal::Started;
use super::{Act, DriveConfig, Haproxy, InventoryHandle, Journal, Libvirt, OpenJournalError, Read, Refusal, Watch};
use crate::stream::protocol::{Order, OrderAnswer, OrderOutcome};

/// Orders that may wait for their driver. A run has one step at a time, so more than this is a server gone wrong.
const WAITING_MAX: usize = 64;
/// Answers that may wait for the spool; beyond it no more orders are taken.
const ANSWERS_MAX: usize = 256;
/// How long a stop waits for work under way. What is not done by then is looked up at the next start.
const LEAVE_WITHIN: Duration = Duration::from_millis(1_500);
/// File name of the journal in the state directory.
const JOURNAL: &str = "orders.journal";

/// The hands of one agent.
pub struct Hands {
    executor: Arc<Executor>,
    inventory: InventoryHandle,
}

/// Why the hands cannot be used. The agent can go on observing without them.
#[derive(Debug, thiserror::Error)]
pub enum OpenHandsError {
    /// The state directory cannot be made.
    #[error("cannot make the state directory {path}")]
    StateDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The journal cannot be used.
    #[error(transparent)]
    Journal(#[from] OpenJournalError),
}

impl Hands {
    /// Opens the journal in `state_dir` and puts the configured drivers together. Talks to no platform yet.
    ///
    /// # Errors
    /// When the journal cannot be opened; nothing may be done without it.
    pub fn open(config: DriveConfig, agent_id: String, state_dir: &Path) -> Result<Hands, OpenHandsError> {
        let mut drivers: Vec<(Arc<dyn Read>, Arc<dyn Act>)> = Vec::new();
        if let Some(haproxy) = config.haproxy {
            let driver = Arc::new(Haproxy::over(haproxy));
            drivers.push((driver.clone(), driver));
        }
        if let Some(libvirt) = config.libvirt {
            let driver = Arc::new(Libvirt::over(libvirt, agent_id.clone()));
            drivers.push((driver.clone(), driver));
        }
        std::fs::create_dir_all(state_dir)
            .map_err(|source| OpenHandsError::StateDirectory { path: state_dir.to_owned(), source })?;
        let journal = Journal::open(&state_dir.join(JOURNAL))?;
        Ok(Hands::assemble(drivers, (config.allow, config.hold_file), agent_id, journal))
    }

    fn assemble(
        drivers: Vec<(Arc<dyn Read>, Arc<dyn Act>)>,
        (allow, hold_file): (BTreeSet<String>, PathBuf),
        agent_id: String,
        journal: Journal,
    ) -> Hands {
        let actors = drivers.iter().map(|(read, act)| (read.name(), act.clone())).collect();
        let allowed = allow.iter().cloned().collect();
        let executor = Arc::new(Executor::over(actors, allow, hold_file.clone(), journal, wall_clock_ms));
        let inventory = InventoryHandle {
            agent: agent_id.into(),
            hold_file,
            allowed,
            readers: drivers.into_iter().map(|(read, _)| Reader::of(read)).collect(),
            clock: wall_clock_ms,
            executor: executor.clone(),
        };
        Hands { executor, inventory }
    }

    /// Reads what the drivers see; works while the hands run.
    pub fn inventory_handle(&self) -> InventoryHandle {
        self.inventory.clone()
    }

    /// Carries out orders until `orders` or `answers` closes or `cancel` is cancelled, then ends within 1.5 s.
    pub async fn run(
        self,
        orders: mpsc::Receiver<Order>,
        answers: mpsc::Sender<OrderAnswer>,
        cancel: CancellationToken,
    ) {
        let outbox = self.executor.unsent().into();
        let mut desk = Desk {
            leave: cancel.child_token(),
            executor: self.executor,
            work: JoinSet::new(),
            jobs: HashMap::new(),
            waiting: VecDeque::new(),
            outbox,
        };
        for begun in desk.executor.unfinished() {
            desk.resolve(begun);
        }
        desk.run(orders, answers, cancel).await;
    }
}

/// What is on the hands' desk.
struct Desk {
    executor: Arc<Executor>,
    leave: CancellationToken,
    work: JoinSet<Stage>,
    /// Orders under way, by their thread.
    jobs: HashMap<Id, Job>,
    waiting: VecDeque<Job>,
    outbox: VecDeque<OrderAnswer>,
}

/// An order, waiting or under way.
#[derive(Clone)]
struct Job {
    order: Arc<Order>,
    received: Instant,
    /// Cancelled when its undo comes.
    cancel: CancellationToken,
}

impl Job {
    fn of(order: Order) -> Job {
        Job { order: Arc::new(order), received: Instant::now(), cancel: CancellationToken::new() }
    }
}

/// What a thread came back with.
enum Stage {
    Opened(Opening),
    Ended(Option<OrderAnswer>),
}

impl Desk {
    async fn run(
        &mut self,
        mut orders: mpsc::Receiver<Order>,
        answers: mpsc::Sender<OrderAnswer>,
        cancel: CancellationToken,
    ) {
        let mut open = true;
        while open || !self.work.is_empty() || !self.outbox.is_empty() || !self.waiting.is_empty() {
            self.start_waiting();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(ended) = self.work.join_next_with_id(), if !self.work.is_empty() => self.came_back(ended),
                permit = answers.reserve(), if !self.outbox.is_empty() => match (permit, self.outbox.pop_front()) {
                    (Ok(permit), Some(answer)) => {
                        let ended = (answer.outcome != OrderOutcome::Started).then_some(answer.key);
                        permit.send(answer);
                        if let Some(key) = ended {
                            self.executor.sent(key);
                        }
                    }
                    _ => break,
                },
                order = orders.recv(), if open && self.outbox.len() < ANSWERS_MAX => match order {
                    Some(order) => self.take(order),
                    None => open = false,
                },
            }
        }
        self.leave.cancel();
        let rest = async { while self.work.join_next().await.is_some() {} };
        if tokio::time::timeout(LEAVE_WITHIN, rest).await.is_err() {
            tracing::warn!("orders under way are left to their platform and looked up at the next start");
        }
    }

    fn take(&mut self, order: Order) {
        let same = |job: &Job| job.order.key == order.key;
        if self.jobs.values().any(same) || self.waiting.iter().any(same) {
            // Its answer comes from where it is.
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            let answer = self.executor.turn_away(&order, &Refusal::QueueFull { waiting: WAITING_MAX });
            self.outbox.push_back(answer);
            return;
        }
        self.break_off_what_it_undoes(&order);
        self.waiting.push_back(Job::of(order));
    }

    fn break_off_what_it_undoes(&self, order: &Order) {
        let Some(undone) = order.undo_of.as_ref().map(|answer| answer.key) else { return };
        let under_way = self.jobs.values().find(|job| job.order.key == undone);
        if let Some(job) = under_way
            && self.executor.admits(order)
        {
            job.cancel.cancel();
        }
    }

    /// Starts the first waiting order of each driver that is free.
    fn start_waiting(&mut self) {
        let mut at = 0;
        while let Some(job) = self.waiting.get(at) {
            let driver = driver_of(&job.order);
            let busy = self.jobs.values().any(|other| driver_of(&other.order) == driver);
            if busy {
                at += 1;
            } else if let Some(job) = self.waiting.remove(at) {
                self.open(job);
            }
        }
    }

    fn open(&mut self, job: Job) {
        let (executor, order, received) = (self.executor.clone(), Order::clone(&job.order), job.received);
        let thread = self.work.spawn_blocking(move || Stage::Opened(executor.open(order, received)));
        self.jobs.insert(thread.id(), job);
    }

    fn perform(&mut self, job: Job, prepared: Box<Prepared>) {
        let (executor, watch) = (self.executor.clone(), self.watch(&job));
        let thread = self.work.spawn_blocking(move || Stage::Ended(executor.perform(&prepared, watch)));
        self.jobs.insert(thread.id(), job);
    }

    fn resolve(&mut self, begun: Started) {
        let job = Job::of(begun.order.clone());
        let (executor, watch) = (self.executor.clone(), self.watch(&job));
        let thread = self.work.spawn_blocking(move || Stage::Ended(executor.resolve(&begun, watch)));
        self.jobs.insert(thread.id(), job);
    }

    fn watch(&self, job: &Job) -> Watch {
        // The order's own time-out comes into it when it begins.
        let deadline = Instant::now() + TIMEOUT_MAX;
        Watch { deadline, leave: self.leave.clone(), cancel: job.cancel.clone() }
    }

    fn came_back(&mut self, ended: Result<(Id, Stage), JoinError>) {
        let (id, stage) = match ended {
            Ok((id, stage)) => (id, Some(stage)),
            Err(error) => (error.id(), None),
        };
        let Some(job) = self.jobs.remove(&id) else { return };
        match stage {
            Some(Stage::Opened(Opening::Begun(prepared))) => {
                self.outbox.push_back(prepared.started.clone());
                self.perform(job, prepared);
            }
            Some(Stage::Opened(Opening::Answered(answer))) => self.outbox.push_back(*answer),
            Some(Stage::Ended(Some(answer))) => self.outbox.push_back(answer),
            Some(Stage::Opened(Opening::Running) | Stage::Ended(None)) => {}
            None => {
                let answer = self.executor.broke_down(&job.order);
                self.outbox.push_back(answer);
            }
        }
    }
}

/// The hands' own rim: answers and inventories carry the time at which they were made.
fn wall_clock_ms() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| Timestamp::try_from(since.as_millis()).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::drive::{ActError, Checked, Looked, Object, Reading};

    /// A platform that is one number. An order to set it to 13 takes until the test, a cancel or a stop ends it.
    #[derive(Default)]
    struct Dial {
        at: Mutex<u64>,
        turns: Mutex<u32>,
        release: CancellationToken,
    }

    impl Read for Dial {
        fn name(&self) -> &'static str {
            "dial"
        }

        fn read(&self) -> Reading {
            Reading { problems: vec!["the dial has no face".to_owned()], ..Reading::default() }
        }
    }

    impl Act for Dial {
        fn check(&self, _: &Order) -> Result<Checked, Refusal> {
            let mut before = Object::new();
            before.insert("at".to_owned(), (*self.at.lock().unwrap()).into());
            Ok(Checked { command: "turn".to_owned(), before })
        }

        fn apply(&self, order: &Order, _: &Checked, watch: &Watch) -> Result<(), ActError> {
            let to = order.with["to"].as_u64().unwrap();
            while to == 13 && !self.release.is_cancelled() {
                if watch.is_leaving() {
                    return Err(ActError::Left);
                }
                if watch.is_cancelled() || watch.is_over() {
                    return Err(ActError::failed("broken off"));
                }
                std::thread::yield_now();
            }
            *self.at.lock().unwrap() = to;
            *self.turns.lock().unwrap() += 1;
            Ok(())
        }

        fn undo(&self, order: &Order, _: &Checked, _: &Watch) -> Result<(), ActError> {
            *self.at.lock().unwrap() = order.undo_of.as_ref().unwrap().before["at"].as_u64().unwrap();
            Ok(())
        }

        fn progress(&self, _: &Order, _: &Checked) -> Looked {
            Looked::Unknown { reason: "the dial was left half-way".to_owned() }
        }
    }

    struct Bench {
        dial: Arc<Dial>,
        folder: tempfile::TempDir,
    }

    /// Hands at work.
    struct Working {
        orders: mpsc::Sender<Order>,
        answers: mpsc::Receiver<OrderAnswer>,
        cancel: CancellationToken,
        thread: tokio::task::JoinHandle<()>,
    }

    impl Bench {
        fn make() -> Bench {
            Bench { dial: Arc::new(Dial::default()), folder: tempfile::tempdir().unwrap() }
        }

        fn hold(&self) -> PathBuf {
            self.folder.path().join("hold")
        }

        fn hands(&self) -> Hands {
            let journal = Journal::open(&self.folder.path().join(JOURNAL)).unwrap();
            let allow = BTreeSet::from(["dial.turn".to_owned()]);
            Hands::assemble(vec![(self.dial.clone(), self.dial.clone())], (allow, self.hold()), "a".to_owned(), journal)
        }

        fn start(&self) -> Working {
            let (orders, to_do) = mpsc::channel(100);
            let (said, answers) = mpsc::channel(1);
            let cancel = CancellationToken::new();
            let thread = tokio::spawn(self.hands().run(to_do, said, cancel.clone()));
            Working { orders, answers, cancel, thread }
        }
    }

    impl Working {
        async fn next(&mut self) -> String {
            let wait = tokio::time::timeout(Duration::from_secs(20), self.answers.recv());
            let answer = wait.await.expect("an answer within 20 s").expect("the hands work");
            let outcome = match answer.outcome {
                OrderOutcome::Started => "started".to_owned(),
                OrderOutcome::Done => "done".to_owned(),
                OrderOutcome::Refused { reason } => format!("refused: {reason}"),
                OrderOutcome::Failed { reason } => format!("failed: {reason}"),
                OrderOutcome::Unknown { reason } => format!("unknown: {reason}"),
            };
            format!("{}.{} {outcome}", answer.key.run, answer.key.step)
        }

        async fn stop(self) {
            self.cancel.cancel();
            self.thread.await.unwrap();
        }
    }

    fn turn(run: u64, to: u64) -> Order {
        let json = serde_json::json!({
            "key": {"run": run, "step": 0}, "fencing_epoch": 1, "action": "dial.turn", "with": {"to": to},
            "ttl_ms": 60_000, "timeout_ms": 60_000,
        });
        serde_json::from_value(json).unwrap()
    }

    #[tokio::test]
    async fn an_order_is_carried_out_once() {
        let bench = Bench::make();
        let mut working = bench.start();
        working.orders.send(turn(1, 5)).await.unwrap();
        assert_eq!(working.next().await, "1.0 started");
        assert_eq!(working.next().await, "1.0 done");
        working.orders.send(turn(1, 5)).await.unwrap();
        assert_eq!(working.next().await, "1.0 done");
        working.stop().await;

        let mut working = bench.start();
        working.orders.send(turn(1, 5)).await.unwrap();
        assert_eq!(working.next().await, "1.0 done");
        working.orders.send(turn(1, 6)).await.unwrap();
        assert!(working.next().await.starts_with("1.0 refused: run 1 step 0 was another order"));
        working.stop().await;
        assert_eq!((*bench.dial.at.lock().unwrap(), *bench.dial.turns.lock().unwrap()), (5, 1));
    }

    #[tokio::test]
    async fn a_hold_file_stops_everything() {
        let bench = Bench::make();
        std::fs::write(bench.hold(), "").unwrap();
        let mut working = bench.start();
        working.orders.send(turn(1, 5)).await.unwrap();
        assert!(working.next().await.starts_with("1.0 refused: held on this host; remove "));
        std::fs::remove_file(bench.hold()).unwrap();
        // A refusal is an end: the same order does not begin later.
        working.orders.send(turn(1, 5)).await.unwrap();
        assert!(working.next().await.starts_with("1.0 refused: held on this host"));
        assert_eq!(*bench.dial.turns.lock().unwrap(), 0);
        working.stop().await;
    }

    #[tokio::test]
    async fn an_order_that_waits_too_long_expires() {
        let bench = Bench::make();
        let mut working = bench.start();
        working.orders.send(turn(1, 13)).await.unwrap();
        assert_eq!(working.next().await, "1.0 started");
        let mut second = turn(2, 5);
        second.ttl_ms = 1;
        working.orders.send(second).await.unwrap();
        working.orders.send(turn(1, 13)).await.unwrap();
        let taken = Instant::now();
        while working.orders.capacity() < working.orders.max_capacity() || taken.elapsed() < Duration::from_millis(5) {
            tokio::task::yield_now().await;
        }
        bench.dial.release.cancel();
        assert_eq!(working.next().await, "1.0 done");
        assert!(working.next().await.starts_with("2.0 refused: the order is "));
        working.stop().await;
    }

    #[tokio::test]
    async fn an_undo_breaks_off_what_is_under_way() {
        let bench = Bench::make();
        let mut working = bench.start();
        working.orders.send(turn(1, 13)).await.unwrap();
        let started = working.answers.recv().await.unwrap();
        let mut undo = turn(1, 13);
        (undo.key.step, undo.undo_of) = (1, Some(started));
        working.orders.send(undo).await.unwrap();
        assert_eq!(working.next().await, "1.0 failed: broken off");
        assert_eq!(working.next().await, "1.1 started");
        assert_eq!(working.next().await, "1.1 done");
        assert_eq!(*bench.dial.at.lock().unwrap(), 0);
        working.stop().await;
    }

    #[tokio::test]
    async fn what_a_stop_interrupts_is_looked_up_and_not_applied_again() {
        let bench = Bench::make();
        let mut working = bench.start();
        working.orders.send(turn(1, 13)).await.unwrap();
        assert_eq!(working.next().await, "1.0 started");
        working.stop().await;
        bench.dial.release.cancel();
        let mut working = bench.start();
        assert_eq!(working.next().await, "1.0 unknown: the agent was restarted: the dial was left half-way");
        working.orders.send(turn(1, 13)).await.unwrap();
        assert_eq!(working.next().await, "1.0 unknown: the agent was restarted: the dial was left half-way");
        assert_eq!(*bench.dial.turns.lock().unwrap(), 0);
        working.stop().await;
    }

    #[tokio::test]
    async fn more_orders_than_may_wait_are_turned_away() {
        let bench = Bench::make();
        let mut working = bench.start();
        working.orders.send(turn(1, 13)).await.unwrap();
        assert_eq!(working.next().await, "1.0 started");
        for run in 2..=(WAITING_MAX as u64 + 2) {
            working.orders.send(turn(run, 5)).await.unwrap();
        }
        assert_eq!(working.next().await, "66.0 refused: 64 orders wait on this agent already");
        working.stop().await;
    }

    #[tokio::test]
    async fn an_inventory_names_what_could_not_be_read() {
        let bench = Bench::make();
        std::fs::write(bench.hold(), "").unwrap();
        let inventory = bench.hands().inventory_handle().read().await;
        assert_eq!((inventory.agent.as_str(), inventory.hold), ("a", true));
        assert_eq!(inventory.allowed, ["dial.turn"]);
        assert_eq!(inventory.problems["dial"], "the dial has no face");
        assert!(inventory.hypervisors.is_empty());
    }
}
