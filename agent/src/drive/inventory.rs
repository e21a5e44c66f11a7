//! What the drivers of this host see, as one inventory. Every read has a deadline of its own; a driver that hangs costs
//! its own part and delays no other, and its part is missing with the reason, never empty without one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use petrel_models::Timestamp;

use super::execute::{Executor, hold};
use super::{Read, Reading};
use crate::collect::{Family, Kind, Point};
use crate::stream::protocol::Inventory;

/// A reading that takes longer is reported as hanging. Drivers end their calls sooner by themselves.
const READ_DEADLINE: Duration = Duration::from_secs(20);

/// Reads inventories. Cheap to clone.
#[derive(Clone)]
pub struct InventoryHandle {
    pub(super) agent: Arc<str>,
    pub(super) hold_file: PathBuf,
    pub(super) allowed: Vec<String>,
    pub(super) readers: Vec<Reader>,
    pub(super) clock: fn() -> Timestamp,
    pub(super) executor: Arc<Executor>,
}

#[derive(Clone)]
pub(super) struct Reader {
    read: Arc<dyn Read>,
    /// A read that hangs keeps this set, so that hanging reads never pile up.
    busy: Arc<AtomicBool>,
}

impl Reader {
    pub(super) fn of(read: Arc<dyn Read>) -> Reader {
        Reader { read, busy: Arc::default() }
    }

    async fn read(&self) -> Result<Reading, String> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Err("an earlier read still hangs".to_owned());
        }
        let Reader { read, busy } = self.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let done = Unset(busy);
            let reading = read.read();
            drop(done);
            reading
        });
        match tokio::time::timeout(READ_DEADLINE, reading).await {
            Ok(Ok(reading)) => Ok(reading),
            Ok(Err(_)) => Err("the driver broke down; please report this with the agent's log".to_owned()),
            Err(_) => Err(format!("no answer within {} s", READ_DEADLINE.as_secs())),
        }
    }
}

/// Unsets the flag when dropped, also by a panic.
struct Unset(Arc<AtomicBool>);

impl Drop for Unset {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl InventoryHandle {
    /// Reads all drivers at once. Ends within about 20 s, whatever hangs.
    pub async fn read(&self) -> Inventory {
        // Before the reads: what an order ends while they go on may be missing from them, and must not seem to be seen.
        let seen_at = (self.clock)();
        let mut reads = tokio::task::JoinSet::new();
        for reader in self.readers.clone() {
            reads.spawn(async move { (reader.read.name(), reader.read().await) });
        }
        let mut readings = BTreeMap::new();
        while let Some(read) = reads.join_next().await {
            if let Ok((name, reading)) = read {
                readings.insert(name, reading);
            }
        }
        let mut inventory = Inventory {
            agent: self.agent.to_string(),
            seen_at,
            hold: hold(&self.hold_file).is_some(),
            allowed: self.allowed.clone(),
            ..Inventory::default()
        };
        for reader in &self.readers {
            let name = reader.read.name();
            let reading = readings.remove(name).unwrap_or_else(|| Err("the read was broken off".to_owned()));
            let problem = match reading {
                Ok(reading) => {
                    inventory.hypervisors.extend(reading.hypervisors);
                    inventory.balancer_servers.extend(reading.balancer_servers);
                    reading.problems.join("; ")
                }
                Err(problem) => problem,
            };
            if !problem.is_empty() {
                inventory.problems.insert(name.to_owned(), problem);
            }
        }
        inventory
    }

    /// For so long drivers measure how fast guests change their memory, with each reading; those alone of which this host's config
    /// allows an action: no other host's guests are moved.
    pub fn measure_dirty_rate(&self, lasting: Duration) {
        let may =
            |name: &str| self.allowed.iter().any(|action| action.split_once('.').is_some_and(|(of, _)| of == name));
        self.readers.iter().filter(|reader| may(reader.read.name())).for_each(|reader| {
            reader.read.measure_dirty_rate(lasting);
        });
    }

    /// The hands' own counters and what drivers measure, for the agent's metrics.
    pub fn families(&self) -> Vec<Family> {
        let counts = &self.executor.counts;
        let point = |outcome: &'static str, count: &std::sync::atomic::AtomicU64| Point {
            labels: vec![("outcome".into(), outcome.into())],
            value: count.load(Ordering::Relaxed) as f64,
        };
        let orders = Family {
            name: "petrel_agent_orders_total".into(),
            kind: Kind::Counter,
            help: "Orders that came to an end on this agent, by outcome.".into(),
            points: vec![
                point("done", &counts.done),
                point("failed", &counts.failed),
                point("refused", &counts.refused),
                point("repeated", &counts.repeated),
                point("unknown", &counts.unknown),
            ],
        };
        std::iter::once(orders).chain(self.readers.iter().flat_map(|reader| reader.read.families())).collect()
    }
}
