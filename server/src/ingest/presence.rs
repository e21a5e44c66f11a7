//! Which agents send, and what is said of those that fell silent: the series `up`, and staleness markers once, so that a dead
//! host's last values do not live on. A pure machine: batches and ticks in, a batch for the store out. It says nothing about
//! hosts, only about their agents; the verdict on a host is `decide`'s, from heartbeats.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::series::{Labels, NAME, Sample, Timestamp};
use crate::store::control::ControlError;
use crate::store::{Batch, SelectError, Store, TimeRange};

/// An agent is silent after this many of its usual intervals,
const INTERVALS_MAX: i64 = 3;
/// and never before this time: one lost request is sent again within it.
const SILENT_MS_MIN: i64 = 45_000;
/// Interval assumed of an agent that sent one batch only: the agents' default.
const INTERVAL_MS_DEFAULT: i64 = 10_000;
/// Intervals that are believed: agents collect at least once a minute, and a clock that jumps must not make one that is never missed.
const INTERVAL_MS_RANGE: (i64, i64) = (1_000, 300_000);
/// Samples farther ahead are refused; so far ahead an agent's clock is believed here.
const AHEAD_MS_MAX: i64 = 600_000;
/// An agent says what time it has, and may say anything: more than a day off either way is told as a day, which is wrong enough.
const CLOCK_OFFSET_MS_MAX: i64 = 86_400_000;
/// Gaps that the usual interval is the median of.
const GAPS: usize = 7;
/// Agents remembered: ten times the largest fleet. The one silent for longest gives way.
const AGENTS_MAX: usize = 100_000;

/// How far back a start looks for agents that an earlier process knew.
const RESTORE_MS: i64 = 86_400_000;
/// How far back it looks where a day has too many samples.
const RESTORE_MS_FEW: i64 = 600_000;
/// Most `up` samples that a start reads: a day of a thousand agents, or ten minutes of a hundred thousand.
const RESTORE_SAMPLES_MAX: u64 = 10_000_000;

/// Who an agent's series belong to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// `job`.
    pub job: String,
    /// `instance`: the host's name.
    pub instance: String,
}

#[derive(Debug, Clone)]
struct Agent {
    /// The newest sample's time of the newest batch.
    newest: Timestamp,
    /// When that batch came, by the server's clock.
    seen_at: Timestamp,
    gaps: Vec<i64>,
    state: State,
    /// Its series are ended, and nothing came since.
    is_ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sending,
    /// Silent; `up` was written as 0 at this time.
    Silent {
        told_at: Timestamp,
    },
}

/// All agents that ever sent, since the start or as restored.
#[derive(Debug, Default)]
pub struct Presence {
    agents: BTreeMap<Source, Agent>,
    /// Not yet written down; each bounded by the number of agents.
    added: Vec<Source>,
    removed: Vec<Source>,
}

/// What is known of one agent, for those who show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Who it is.
    pub source: Source,
    /// Whether it fell silent.
    pub is_silent: bool,
    /// When its last batch came.
    pub seen_at: Timestamp,
    /// Its usual time between batches.
    pub interval_ms: i64,
    /// After this time without a batch it is silent.
    pub silent_after_ms: i64,
}

/// Why the agents of an earlier process could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PresenceError {
    /// Their names.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Their last samples.
    #[error(transparent)]
    Samples(#[from] SelectError),
}

impl Presence {
    /// The agents that an earlier process knew, with what it last said of them.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn from_store(store: &Store, now: Timestamp) -> Result<Presence, PresenceError> {
        let last = |back| store.last_samples("up", TimeRange { from: now - back, to: now }, RESTORE_SAMPLES_MAX);
        let up = match last(RESTORE_MS) {
            Err(SelectError::TooManySamples { .. }) => last(RESTORE_MS_FEW)?,
            up => up?,
        };
        let up: BTreeMap<Source, Sample> =
            up.iter().filter_map(|(labels, sample)| Some((source_of(labels)?, *sample))).collect();
        let mut presence = Presence::default();
        for (job, instance) in store.agent_sources()? {
            let source = Source { job, instance };
            // One that said nothing in all that time is long known to be silent.
            let last = up.get(&source).copied().unwrap_or(Sample { t: now - RESTORE_MS, v: 0.0 });
            presence.restore(source, last);
        }
        Ok(presence)
    }

    /// [`Presence::tick`] with the series that `store` has, after writing down who is an agent. The caller appends the batch.
    /// Receivers of batches wait for the lock, so it is not held while the control database writes.
    ///
    /// # Errors
    /// Agents that are new or retired could not be written down; the next call tries again.
    pub fn tick_store(presence: &Mutex<Presence>, store: &Store, now: Timestamp) -> Result<Batch, ControlError> {
        let (added, removed) = {
            let mut presence = lock(presence);
            (std::mem::take(&mut presence.added), std::mem::take(&mut presence.removed))
        };
        let pairs = |sources: &[Source]| -> Vec<(String, String)> {
            sources.iter().map(|source| (source.job.clone(), source.instance.clone())).collect()
        };
        let written = store.change_agent_sources(&pairs(&added), &pairs(&removed));
        let mut presence = lock(presence);
        if let Err(error) = written {
            presence.not_written(added, removed);
            return Err(error);
        }
        Ok(presence
            .tick(now, |source, from| store.alive(&[("job", &source.job), ("instance", &source.instance)], from)))
    }

    /// Takes back what could not be written down, as far as it still holds.
    fn not_written(&mut self, added: Vec<Source>, removed: Vec<Source>) {
        let known = &self.agents;
        self.added.extend(added.into_iter().filter(|source| known.contains_key(source)));
        self.removed.extend(removed.into_iter().filter(|source| !known.contains_key(source)));
    }

    /// Takes over an agent with the last `up` sample of an earlier process.
    pub fn restore(&mut self, source: Source, last: Sample) {
        let state = if last.v == 0.0 { State::Silent { told_at: last.t } } else { State::Sending };
        // Whether its series were ended nobody wrote down. Ending them twice does nothing.
        let is_ended = false;
        let agent = Agent { newest: last.t, seen_at: last.t, gaps: Vec::new(), state, is_ended };
        self.agents.entry(source).or_insert(agent);
    }

    /// Looks at a batch of an agent before it is stored: adds `up` 1 at the batch's newest time, unless the batch is an old one out
    /// of the spool, whose time may have been told as silent. Call [`Presence::committed`] with the answer once it is stored.
    pub fn announce(&self, batch: &mut Batch, now: Timestamp) -> Option<Seen> {
        let source = batch.samples().find_map(|(labels, _)| source_of(labels))?;
        let newest = batch.samples().map(|(_, sample)| sample.t).max()?;
        let limit = self.agents.get(&source).map_or(SILENT_MS_MIN, Agent::silent_after);
        if now.saturating_sub(newest) <= limit {
            batch.series.push((up(&source), vec![Sample { t: newest, v: 1.0 }]));
        }
        Some(Seen { source, newest })
    }

    /// The batch of [`Presence::announce`] is stored.
    pub fn committed(&mut self, seen: Seen, now: Timestamp) {
        let Seen { source, newest } = seen;
        let newest = newest.clamp(0, now.saturating_add(AHEAD_MS_MAX).max(0));
        if !self.agents.contains_key(&source) && self.agents.len() >= AGENTS_MAX {
            let oldest = self.agents.iter().min_by_key(|(_, agent)| agent.seen_at).map(|(source, _)| source.clone());
            if let Some(oldest) = oldest {
                self.agents.remove(&oldest);
                self.removed.push(oldest);
            }
        }
        if !self.agents.contains_key(&source) {
            self.removed.retain(|removed| *removed != source);
            self.added.push(source.clone());
        }
        let agent = self.agents.entry(source).or_insert(Agent {
            newest,
            seen_at: now,
            gaps: Vec::new(),
            state: State::Sending,
            is_ended: false,
        });
        agent.is_ended = false;
        let gap = newest - agent.newest;
        if gap > 0 {
            if agent.gaps.len() >= GAPS {
                agent.gaps.remove(0);
            }
            agent.gaps.push(gap);
            agent.newest = newest;
        }
        agent.seen_at = now;
        if now.saturating_sub(newest) <= agent.silent_after() {
            agent.state = State::Sending;
        }
    }

    /// What is to be stored now about agents that are silent: `up` 0 at each of their intervals, and once the end of each of
    /// their series, which `series_of` lists (those with samples since the given time). Call it every few seconds.
    pub fn tick(&mut self, now: Timestamp, mut series_of: impl FnMut(&Source, Timestamp) -> Vec<Labels>) -> Batch {
        let mut batch = Batch::default();
        for (source, agent) in &mut self.agents {
            // The clock may have been set back; what lies ahead of it would hide a silence.
            agent.seen_at = agent.seen_at.min(now);
            if let State::Silent { told_at } = &mut agent.state {
                *told_at = (*told_at).min(now);
            }
            let is_gone = now - agent.seen_at > agent.silent_after();
            // Also of one that is told as silent because its samples are old: what it sent, or we say of it, ends when it is gone.
            if is_gone && !agent.is_ended {
                let since = agent.newest.min(agent.seen_at) - agent.silent_after();
                let ended = series_of(source, since).into_iter().filter(|labels| labels.name() != "up");
                batch.series.extend(ended.map(|labels| (labels, vec![Sample::stale(now)])));
                agent.is_ended = true;
            }
            let is_due = match agent.state {
                State::Sending => is_gone,
                State::Silent { told_at } => now - told_at >= agent.interval(),
            };
            if is_due {
                agent.state = State::Silent { told_at: now };
                batch.series.push((up(source), vec![Sample { t: now, v: 0.0 }]));
            }
        }
        batch
    }

    /// Forgets an agent whose host was retired: nothing more is said of it.
    pub fn forget(&mut self, instance: &str) {
        let gone: Vec<Source> = self.agents.keys().filter(|source| source.instance == instance).cloned().collect();
        self.agents.retain(|source, _| source.instance != instance);
        self.added.retain(|source| source.instance != instance);
        self.removed.extend(gone);
    }

    /// All agents, sorted by job and instance.
    pub fn known(&self) -> Vec<Known> {
        let known = |(source, agent): (&Source, &Agent)| Known {
            source: source.clone(),
            is_silent: agent.state != State::Sending,
            seen_at: agent.seen_at,
            interval_ms: agent.interval(),
            silent_after_ms: agent.silent_after(),
        };
        self.agents.iter().map(known).collect()
    }

    /// Agents that send, and agents that are silent.
    pub fn count(&self) -> (usize, usize) {
        let silent = self.agents.values().filter(|agent| agent.state != State::Sending).count();
        (self.agents.len() - silent, silent)
    }
}

/// A batch that was announced, until it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    source: Source,
    newest: Timestamp,
}

impl Seen {
    /// How far the clock of `agent` is off, as a series at the server's time: an agent whose clock is so wrong that all its samples
    /// are refused cannot tell it. At most a day either way, and nothing where the batch is not of the agent's own host. The series
    /// ends with the others of its source.
    pub fn clock_offset(&self, agent: &str, offset_ms: i64, now: Timestamp) -> Option<(Labels, Vec<Sample>)> {
        let Source { job, instance } = &self.source;
        if instance != agent {
            return None;
        }
        let name = (NAME, "petrel_agent_clock_offset_seconds");
        let labels = Labels::new([name, ("job", job.as_str()), ("instance", instance.as_str())]);
        let offset_ms = offset_ms.clamp(-CLOCK_OFFSET_MS_MAX, CLOCK_OFFSET_MS_MAX);
        Some((labels, vec![Sample { t: now, v: offset_ms as f64 / 1_000.0 }]))
    }
}

impl Agent {
    fn interval(&self) -> i64 {
        let mut gaps = self.gaps.clone();
        gaps.sort_unstable();
        gaps.get(gaps.len() / 2).copied().unwrap_or(INTERVAL_MS_DEFAULT).clamp(INTERVAL_MS_RANGE.0, INTERVAL_MS_RANGE.1)
    }

    fn silent_after(&self) -> i64 {
        self.interval().saturating_mul(INTERVALS_MAX).max(SILENT_MS_MIN)
    }
}

fn lock(presence: &Mutex<Presence>) -> MutexGuard<'_, Presence> {
    presence.lock().unwrap_or_else(PoisonError::into_inner)
}

fn source_of(labels: &Labels) -> Option<Source> {
    Some(Source { job: labels.get("job")?.to_owned(), instance: labels.get("instance")?.to_owned() })
}

fn up(source: &Source) -> Labels {
    Labels::new([(NAME, "up"), ("job", source.job.as_str()), ("instance", source.instance.as_str())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;

    fn load() -> Labels {
        Labels::new([(NAME, "node_load1"), ("job", "node"), ("instance", "h1")])
    }

    fn send(presence: &mut Presence, t: Timestamp, now: Timestamp) -> usize {
        let mut batch = Batch { series: vec![(load(), vec![Sample { t, v: 1.0 }])], ..Batch::default() };
        let seen = presence.announce(&mut batch, now).unwrap();
        presence.committed(seen, now);
        batch.series.len() - 1
    }

    fn tick(presence: &mut Presence, now: Timestamp) -> String {
        let batch = presence.tick(now, |_, _| vec![load(), load().with(NAME, "up")]);
        let line = |(labels, samples): &(Labels, Vec<Sample>)| {
            let value = if samples[0].is_stale() { "stale".to_owned() } else { samples[0].v.to_string() };
            format!("{}={value}@{}", labels.name(), samples[0].t)
        };
        batch.series.iter().map(line).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_silent_agent_is_down_until_it_is_back() {
        let mut presence = Presence::default();
        for t in [0, 10_000, 20_000] {
            assert_eq!(send(&mut presence, t, t + 100), 1);
        }
        assert_eq!(tick(&mut presence, 60_000), "");
        assert_eq!(tick(&mut presence, 65_101), "node_load1=stale@65101 up=0@65101");
        assert_eq!(tick(&mut presence, 70_000), "");
        assert_eq!(tick(&mut presence, 75_101), "up=0@75101");
        assert_eq!(presence.count(), (0, 1));
        // The spool's backlog comes first; its times were told as silent.
        assert_eq!(send(&mut presence, 30_000, 80_000), 0);
        assert_eq!(tick(&mut presence, 86_000), "up=0@86000");
        assert_eq!(send(&mut presence, 86_500, 87_000), 1);
        assert_eq!(tick(&mut presence, 97_000), "");
        assert_eq!(presence.count(), (1, 0));
    }

    /// An agent whose clock is behind is told as silent while it sends; what it sends ends with it all the same.
    #[test]
    fn the_series_of_an_agent_with_a_wrong_clock_end_with_it() {
        let mut presence = Presence::default();
        let behind = 3_600_000;
        for now in [10_000, 20_000] {
            send(&mut presence, now, now);
        }
        assert_eq!(tick(&mut presence, 70_000), "node_load1=stale@70000 up=0@70000");
        for now in [5_000_000, 5_010_000] {
            send(&mut presence, now - behind, now);
            assert_eq!(tick(&mut presence, now + 1), format!("up=0@{}", now + 1));
        }
        let told = tick(&mut presence, 9_000_000);
        assert_eq!(told, "node_load1=stale@9000000 up=0@9000000");
        assert_eq!(tick(&mut presence, 9_020_000), "up=0@9020000", "they end once");
    }

    #[test]
    fn what_an_agent_claims_of_the_time_is_bounded() {
        let seen = |instance: &str| {
            let source = Source { job: "node".to_owned(), instance: instance.to_owned() };
            Seen { source, newest: 0 }
        };
        let offset = |instance, ms| seen(instance).clock_offset("h1", ms, 7).map(|(_, samples)| samples[0].v);
        assert_eq!(offset("h1", -1_500), Some(-1.5));
        assert_eq!((offset("h1", i64::MAX), offset("h1", i64::MIN)), (Some(86_400.0), Some(-86_400.0)));
        assert_eq!(offset("h2", 1), None, "of another host");
        // A sample from far ahead, and the agent would never be missed again.
        let mut presence = Presence::default();
        send(&mut presence, 0, 0);
        send(&mut presence, i64::MIN, 5_000);
        send(&mut presence, i64::MAX, 10_000);
        send(&mut presence, 20_000, 20_000);
        assert!(tick(&mut presence, 20_000 + 900_001).contains("up=0"));
    }

    #[test]
    fn a_slow_agent_is_given_its_own_time() {
        let mut presence = Presence::default();
        for t in [0, 60_000, 120_000] {
            send(&mut presence, t, t);
        }
        assert_eq!(tick(&mut presence, 290_000), "");
        assert_eq!(tick(&mut presence, 300_001), "node_load1=stale@300001 up=0@300001");
    }

    #[test]
    fn restored_agents_are_judged_too_and_retired_ones_are_not() {
        let mut presence = Presence::default();
        let source = |instance: &str| Source { job: "node".to_owned(), instance: instance.to_owned() };
        presence.restore(source("h1"), Sample { t: 0, v: 1.0 });
        presence.restore(source("h2"), Sample { t: 0, v: 0.0 });
        assert_eq!(presence.count(), (1, 1));
        presence.forget("h2");
        assert_eq!(tick(&mut presence, 50_000), "node_load1=stale@50000 up=0@50000");
    }

    #[test]
    fn a_restart_remembers_agents_and_ends_their_series() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { retention: None, disk_reserve_bytes: 0, ..StoreOptions::default() };
        let store = Store::open(dir.path(), options, &[], 0).unwrap();
        let mut presence = Presence::default();
        let foreign = load().with(NAME, "up").with("instance", "other");
        let mut batch = Batch { series: vec![(load(), vec![Sample { t: 1_000, v: 1.0 }])], ..Batch::default() };
        let seen = presence.announce(&mut batch, 1_000).unwrap();
        batch.series.push((foreign, vec![Sample { t: 1_000, v: 1.0 }]));
        store.append_blocking(batch, 1_000).unwrap();
        presence.committed(seen, 1_000);
        let presence = Mutex::new(presence);
        // Batches are taken while the control database is slow: its writer is held here.
        std::thread::scope(|scope| {
            store
                .control()
                .write(|_| {
                    let ticking = scope.spawn(|| Presence::tick_store(&presence, &store, 2_000).unwrap());
                    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
                    while !presence.try_lock().is_ok_and(|presence| presence.added.is_empty()) {
                        assert!(std::time::Instant::now() < deadline, "the lock is held over a write");
                        std::thread::yield_now();
                    }
                    Ok(ticking)
                })
                .unwrap()
                .join()
                .unwrap();
        });
        assert!(Presence::tick_store(&presence, &store, 2_000).unwrap().series.is_empty());

        let presence = Mutex::new(Presence::from_store(&store, 3_000).unwrap());
        assert_eq!(lock(&presence).count(), (1, 0));
        let ended = Presence::tick_store(&presence, &store, 60_000).unwrap();
        let names: Vec<&str> = ended.series.iter().map(|(labels, _)| labels.name()).collect();
        assert_eq!(names, ["node_load1", "up"]);
        lock(&presence).forget("h1");
        Presence::tick_store(&presence, &store, 61_000).unwrap();
        assert!(store.agent_sources().unwrap().is_empty());
    }
}
