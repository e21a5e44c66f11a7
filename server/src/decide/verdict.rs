//! Verdicts: what heartbeats and batches, or their absence, say of each host. A pure machine over `petrel_models::failure`:
//! events and the time in, changes out. It blames its own ears first: after a pause of the server, and when many hosts fall
//! silent at once, nobody is called dead; nor is one of whom others were not asked. `host` has what is known of one host.

mod host;

use std::collections::BTreeMap;

use petrel_models::failure::{Reason, Verdict};

use super::testimony::{Standing, Statement, Testimony};
use crate::series::{Labels, NAME, Sample, Timestamp};
use crate::store::Batch;
use crate::telemetry;
use host::{Host, Waves};

/// Those who listen say so every second; a longer gap means that the server itself stood still and heard nothing.
const DEAF_MS_MIN: Timestamp = 5_000;
/// Hosts watched at most; the fleet has ten thousand.
const HOSTS_MAX: usize = 20_000;
/// Silent hosts that others are asked about in one tick at most: some ten milliseconds of reading.
const QUESTIONS_MAX: usize = 256;

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A heartbeat was accepted.
    Beat {
        /// The agent's id.
        agent: String,
        /// The path's number.
        path: u8,
        /// When the next is to be expected, in milliseconds.
        interval_ms: u32,
        /// The agent says that it stops now.
        goodbye: bool,
    },
    /// A batch of metrics arrived whole. Whether it can be stored is the server's trouble, and says nothing of the host.
    Batch {
        /// The agent's id.
        agent: String,
        /// Others wait behind it, so that it is no part of the agent's rhythm.
        is_backlog: bool,
    },
    /// What others say of a host that is silent.
    Witnessed {
        /// The agent's id.
        agent: String,
        /// All that stands now; `None` where it could not be read.
        statements: Option<Vec<Statement>>,
    },
    /// Whoever receives heartbeats and batches is awake: to be said every second, and never late for another reason than a server that
    /// stands still.
    Awake,
    /// Verdicts are due. This may be late, where the disk is slow, and `now` of a while ago.
    Tick,
    /// Operators took the host out of the fleet.
    Retired {
        /// The agent's id.
        agent: String,
    },
}

/// The verdict of a host changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What it was.
    pub from: Verdict,
    /// What it is.
    pub to: HostVerdict,
}

/// A host and what is believed of it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HostVerdict {
    /// Host name, as in `instance`.
    pub host: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What it rests on.
    pub reasons: Vec<Reason>,
    /// Since when.
    pub since: Timestamp,
    /// When it was last heard on any path.
    pub heard_at: Timestamp,
}

/// All hosts heard since the start.
#[derive(Debug, Default)]
pub struct VerdictBook {
    hosts: BTreeMap<String, Host>,
    /// When those who listen were awake last.
    awake_at: Option<Timestamp>,
}

impl VerdictBook {
    /// Nobody was heard yet.
    pub fn new() -> VerdictBook {
        VerdictBook::default()
    }

    /// Takes one event. Verdicts change at ticks only. O(log n) for a sign of life, O(n) to be awake, O(n log n) for a tick.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Vec<Change> {
        match event {
            Event::Beat { agent, path, interval_ms, goodbye } => {
                if let Some(host) = self.host(agent, now) {
                    host.beat(path, interval_ms, goodbye, now);
                }
            }
            Event::Batch { agent, is_backlog } => {
                if let Some(host) = self.host(agent, now) {
                    host.batch(is_backlog, now);
                }
            }
            Event::Witnessed { agent, statements } => self.witnessed(&agent, statements.as_deref(), now),
            Event::Retired { agent } => {
                self.hosts.remove(&agent);
            }
            Event::Awake => self.awake(now),
            Event::Tick => return self.tick(now),
        }
        Vec::new()
    }

    /// Hosts of which no path is beating: of them others should be asked before the next tick. At most 256, in rotation: first
    /// those that were never asked about, then those of whom it is longest ago. O(n log n).
    pub fn in_question(&self, now: Timestamp) -> Vec<String> {
        let silent = self.hosts.iter().filter(|(_, host)| host.is_in_question(now));
        let mut silent: Vec<(Option<Timestamp>, &String)> =
            silent.map(|(name, host)| (host.asked_at(), name)).collect();
        silent.sort_unstable();
        silent.truncate(QUESTIONS_MAX);
        silent.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// What is believed of every host, sorted by name.
    pub fn snapshot(&self) -> Vec<HostVerdict> {
        self.hosts.values().map(|host| host.current.clone()).collect()
    }

    /// What is believed of one host.
    pub fn verdict(&self, host: &str) -> Option<&HostVerdict> {
        self.hosts.get(host).map(|host| &host.current)
    }

    /// The verdicts as samples, and how close each path came to being late since the last call.
    pub fn batch(&mut self, now: Timestamp) -> Batch {
        let mut series = Vec::with_capacity(self.hosts.len() * 7);
        for (name, host) in &mut self.hosts {
            for verdict in Verdict::ALL {
                let labels = Labels::new([
                    (NAME, "petrel_host_verdict"),
                    ("instance", name.as_str()),
                    ("verdict", verdict.as_str()),
                ]);
                let value = f64::from(u8::from(host.current.verdict == verdict));
                series.push((labels, vec![Sample { t: now, v: value }]));
            }
            for (path, margin) in host.take_margins(now) {
                let labels = Labels::new([
                    (NAME, "petrel_heartbeat_margin"),
                    ("instance", name.as_str()),
                    ("path", path.as_str()),
                ]);
                series.push((labels, vec![Sample { t: now, v: margin }]));
            }
        }
        Batch { series, ..Batch::default() }
    }

    /// The host of that name, known from now on; `None` and counted where there are too many.
    fn host(&mut self, agent: String, now: Timestamp) -> Option<&mut Host> {
        if !self.hosts.contains_key(&agent) && self.hosts.len() >= HOSTS_MAX {
            telemetry::VERDICT_HOSTS_REFUSED.inc();
            return None;
        }
        Some(self.hosts.entry(agent).or_insert_with_key(|name| {
            Host::new(HostVerdict {
                host: name.clone(),
                verdict: Verdict::Unknown,
                reasons: vec![Reason::NeverHeard],
                since: now,
                heard_at: now,
            })
        }))
    }

    fn witnessed(&mut self, agent: &str, statements: Option<&[Statement]>, now: Timestamp) {
        let Some(heard_at) = self.hosts.get(agent).map(Host::heard_at) else { return };
        let standing = |by: &str| match self.hosts.get(by) {
            Some(other) if by != agent && other.is_heard(now) => Standing::Heard,
            Some(_) if by != agent => Standing::Silent,
            _ => Standing::Nobody,
        };
        let testimony = statements.map(|statements| Testimony::of(statements, heard_at, standing));
        if let Some(host) = self.hosts.get_mut(agent) {
            host.asked(testimony, now);
        }
    }

    fn awake(&mut self, now: Timestamp) {
        let gap_ms = now - self.awake_at.replace(now).unwrap_or(now);
        for host in self.hosts.values_mut() {
            if gap_ms > DEAF_MS_MIN {
                host.forgive(gap_ms, now);
            }
            // A clock that was set back must not hide the silence until it has caught up.
            host.not_after(now);
        }
    }

    fn tick(&mut self, now: Timestamp) -> Vec<Change> {
        // After a pause the tick may come before those who listen.
        if self.awake_at.is_none_or(|at| now - at > DEAF_MS_MIN) {
            self.awake(now);
        }
        let waves = Waves::of(self.hosts.values(), now);
        let mut changes = Vec::new();
        for host in self.hosts.values_mut() {
            changes.extend(host.judge(now, &waves).map(|from| Change { from, to: host.current.clone() }));
        }
        changes
    }
}

#[cfg(test)]
mod tests;
