//! Verdicts: what heartbeats and batches, or their absence, say of each host. A pure machine over `petrel_models::failure`:
//! events and the time in, changes out. It blames its own ears first: after a pause of the server, and when many hosts fall
//! silent at once, nobody is called dead.

use std::collections::BTreeMap;

use petrel_models::failure::{Accrual, AccrualConfig, HostView, PathState, Reason, Verdict, judge};

use crate::series::{Labels, NAME, Sample, Timestamp};
use crate::store::Batch;

/// φ from which a path is late.
const LATE_PHI: f64 = 5.0;
/// φ from which a path is silent. The pause below, not this, decides how much loss is forgiven.
const SILENT_PHI: f64 = 12.0;
/// Missed beats forgiven before a path may be late: three lost datagrams in a row are 10⁻⁶ at 1 % loss.
const LATE_PAUSE_BEATS: f64 = 2.5;
/// Missed beats forgiven before a late path is silent.
const SILENT_PAUSE_BEATS: f64 = 5.5;
/// Expected time between an agent's batches until its own rhythm is known.
const STREAM_INTERVAL_MS: f64 = 10_000.0;
/// Rhythms up to this are learnt: agents collect at least once a minute.
const STREAM_LEARN_MS_MAX: f64 = 150_000.0;
/// Share of a batch interval that is forgiven before the stream may be late, and before it is silent.
const STREAM_PAUSES: (f64, f64) = (0.5, 1.0);
/// Ticks come every second; a longer gap means that the server itself stood still and heard nothing.
const TICK_GAP_MS_MAX: Timestamp = 5_000;
/// Silences that began within this of each other began at once.
const AT_ONCE_MS: Timestamp = 30_000;
/// So many at once are a fault of ours until shown otherwise.
const MANY_HOSTS: usize = 3;
/// Hosts watched at most; the fleet has ten thousand.
const HOSTS_MAX: usize = 20_000;
/// Silent hosts that others are asked about in one tick.
const QUESTIONS_MAX: usize = 256;
/// Heartbeat paths of a host watched at most, as many as an agent may have.
const PATHS_MAX: usize = 8;

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
    /// A batch was committed.
    Batch {
        /// The agent's id.
        agent: String,
    },
    /// What others say of a host that is silent.
    Witnessed {
        /// The agent's id.
        agent: String,
        /// What they say.
        witnessed: Witnessed,
    },
    /// A second has passed.
    Tick,
    /// Operators took the host out of the fleet.
    Retired {
        /// The agent's id.
        agent: String,
    },
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The verdict of a host changed.
    Changed {
        /// What it was.
        from: Verdict,
        /// What it is.
        to: HostVerdict,
    },
    /// There are more hosts than are watched; this one is not.
    TooManyHosts {
        /// The agent's id.
        agent: String,
    },
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

/// What others say of a host: who shares storage with it, and who can ask its BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Witnessed {
    /// Whether its record on shared storage changes; `None` where nobody can tell now.
    pub storage_alive: Option<bool>,
    /// Its BMC says that it is switched off.
    pub power_off: bool,
}

/// All hosts heard since the start.
#[derive(Debug, Default)]
pub struct VerdictBook {
    hosts: BTreeMap<String, Host>,
    last_tick: Option<Timestamp>,
}

#[derive(Debug)]
struct Host {
    beats: BTreeMap<u8, Path>,
    stream: Option<Path>,
    goodbye: bool,
    /// What others said last, while it is silent.
    witnessed: Witnessed,
    current: HostVerdict,
}

#[derive(Debug)]
struct Path {
    accrual: Accrual,
    /// Further silence allowed once it is late, in milliseconds.
    late_to_silent_ms: f64,
    /// Longest gap since the last export, in milliseconds.
    gap_ms_max: Timestamp,
}

impl VerdictBook {
    /// Nobody was heard yet.
    pub fn new() -> VerdictBook {
        VerdictBook::default()
    }

    /// Takes one event. Verdicts change at ticks only. O(log n) for a sign of life, O(n log n) for a tick.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        match event {
            Event::Beat { agent, path, interval_ms, goodbye } => match self.host(agent, now) {
                Ok(host) => host.beat(path, interval_ms, goodbye, now),
                Err(refused) => return vec![refused],
            },
            Event::Batch { agent } => match self.host(agent, now) {
                Ok(host) => host.batch(now),
                Err(refused) => return vec![refused],
            },
            Event::Witnessed { agent, witnessed } => {
                if let Some(host) = self.hosts.get_mut(&agent) {
                    host.witnessed = witnessed;
                }
            }
            Event::Retired { agent } => {
                self.hosts.remove(&agent);
            }
            Event::Tick => return self.tick(now),
        }
        Vec::new()
    }

    /// Hosts of which no path is beating, those first that were heard last: of them others should be asked before the next
    /// tick. At most 256; beyond, what was said last stands. O(n log n).
    pub fn in_question(&self, now: Timestamp) -> Vec<String> {
        let silent = self.hosts.iter().filter(|(_, host)| host.is_in_question(now));
        let mut silent: Vec<(Timestamp, &String)> = silent.map(|(name, host)| (host.heard_at(), name)).collect();
        silent.sort_unstable_by(|a, b| b.cmp(a));
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
            if host.goodbye {
                continue;
            }
            let numbered = host.beats.iter_mut().map(|(number, path)| (number.to_string(), path));
            let stream = host.stream.iter_mut().map(|path| ("stream".to_owned(), path));
            for (number, path) in numbered.chain(stream) {
                let labels = Labels::new([
                    (NAME, "petrel_heartbeat_margin"),
                    ("instance", name.as_str()),
                    ("path", number.as_str()),
                ]);
                series.push((labels, vec![Sample { t: now, v: path.take_margin(now) }]));
            }
        }
        Batch { series, ..Batch::default() }
    }

    fn host(&mut self, agent: String, now: Timestamp) -> Result<&mut Host, Effect> {
        if !self.hosts.contains_key(&agent) && self.hosts.len() >= HOSTS_MAX {
            return Err(Effect::TooManyHosts { agent });
        }
        Ok(self.hosts.entry(agent).or_insert_with_key(|name| Host {
            beats: BTreeMap::new(),
            stream: None,
            goodbye: false,
            witnessed: Witnessed::default(),
            current: HostVerdict {
                host: name.clone(),
                verdict: Verdict::Unknown,
                reasons: vec![Reason::NeverHeard],
                since: now,
                heard_at: now,
            },
        }))
    }

    fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        let gap_ms = now - self.last_tick.replace(now).unwrap_or(now);
        if gap_ms > TICK_GAP_MS_MAX {
            for path in self.hosts.values_mut().flat_map(Host::paths_mut) {
                path.accrual.forgive(gap_ms);
            }
        }
        let waves = Waves::of(self.hosts.values().filter(|host| host.is_lost(now)).map(Host::heard_at).collect());
        let mut effects = Vec::new();
        for host in self.hosts.values_mut() {
            let (verdict, reasons) = host.judge(now, &waves);
            host.current.heard_at = host.heard_at();
            host.current.reasons = reasons;
            let from = std::mem::replace(&mut host.current.verdict, verdict);
            if from != verdict {
                host.current.since = now;
                effects.push(Effect::Changed { from, to: host.current.clone() });
            }
        }
        effects
    }
}

impl Host {
    fn beat(&mut self, number: u8, interval_ms: u32, goodbye: bool, now: Timestamp) {
        self.goodbye = goodbye;
        if !self.beats.contains_key(&number) && self.beats.len() >= PATHS_MAX {
            return;
        }
        let interval_ms = f64::from(interval_ms.clamp(100, 60_000));
        let path = self.beats.entry(number).or_insert_with(|| Path::beats(interval_ms, now));
        if path.accrual.interval_ms() == interval_ms {
            path.heard(now);
        } else {
            *path = Path::beats(interval_ms, now);
        }
    }

    fn batch(&mut self, now: Timestamp) {
        // What was under way when the agent said goodbye does not take the word back; a beat does, or a batch later on.
        let last_beat = self.beats.values().map(|path| path.accrual.last()).max();
        if last_beat.is_none_or(|last| now - last > AT_ONCE_MS) {
            self.goodbye = false;
        }
        self.stream.get_or_insert_with(|| Path::stream(now)).heard(now);
    }

    fn paths_mut(&mut self) -> impl Iterator<Item = &mut Path> {
        self.beats.values_mut().chain(&mut self.stream)
    }

    fn heard_at(&self) -> Timestamp {
        let heard = self.beats.values().chain(&self.stream).map(|path| path.accrual.last());
        heard.max().unwrap_or(self.current.heard_at)
    }

    /// Whether what others say of it matters.
    fn is_in_question(&self, now: Timestamp) -> bool {
        !self.goodbye && !self.beats.values().chain(&self.stream).any(|path| path.state(now) == PathState::Beating)
    }

    /// Whether every path is silent.
    fn is_lost(&self, now: Timestamp) -> bool {
        !self.goodbye && self.beats.values().chain(&self.stream).all(|path| path.state(now) == PathState::Silent)
    }

    fn judge(&self, now: Timestamp, waves: &Waves) -> (Verdict, Vec<Reason>) {
        let beats: Vec<(u8, PathState)> = self.beats.iter().map(|(number, path)| (*number, path.state(now))).collect();
        let stream = self.stream.as_ref().map(|path| path.state(now));
        let many_silent = waves.many_at(self.heard_at());
        // What was said during an earlier silence is no news.
        let witnessed = if self.is_in_question(now) { self.witnessed } else { Witnessed::default() };
        let storage = witnessed.storage_alive.map(|alive| if alive { PathState::Beating } else { PathState::Silent });
        let (goodbye, power_off) = (self.goodbye, witnessed.power_off);
        judge(&HostView { beats: &beats, stream, storage, power_off, goodbye, many_silent })
    }
}

impl Path {
    fn beats(interval_ms: f64, now: Timestamp) -> Path {
        let config = AccrualConfig {
            interval_ms,
            pause_ms: LATE_PAUSE_BEATS * interval_ms,
            learn_ms_max: (1.0 + LATE_PAUSE_BEATS) * interval_ms,
        };
        let late_to_silent_ms = (SILENT_PAUSE_BEATS - LATE_PAUSE_BEATS) * interval_ms;
        Path { accrual: Accrual::new(config, now), late_to_silent_ms, gap_ms_max: 0 }
    }

    fn stream(now: Timestamp) -> Path {
        let interval_ms = STREAM_INTERVAL_MS;
        let config =
            AccrualConfig { interval_ms, pause_ms: STREAM_PAUSES.0 * interval_ms, learn_ms_max: STREAM_LEARN_MS_MAX };
        let late_to_silent_ms = (STREAM_PAUSES.1 - STREAM_PAUSES.0) * interval_ms;
        Path { accrual: Accrual::new(config, now), late_to_silent_ms, gap_ms_max: 0 }
    }

    fn heard(&mut self, now: Timestamp) {
        self.gap_ms_max = self.gap_ms_max.max(now - self.accrual.last());
        self.accrual.heard(now);
    }

    fn state(&self, now: Timestamp) -> PathState {
        if self.accrual.phi(now) < LATE_PHI {
            return PathState::Beating;
        }
        let later = now - self.late_to_silent_ms as Timestamp;
        if self.accrual.phi(later) >= SILENT_PHI { PathState::Silent } else { PathState::Late }
    }

    /// Share of the silence allowed before a path is late that the longest gap since the last call left over, 0 to 1.
    fn take_margin(&mut self, now: Timestamp) -> f64 {
        let gap_ms = self.gap_ms_max.max(now - self.accrual.last());
        self.gap_ms_max = 0;
        (1.0 - gap_ms as f64 / self.accrual.silence_ms_allowed(LATE_PHI)).clamp(0.0, 1.0)
    }
}

/// When the hosts that are lost now were last heard, sorted.
struct Waves(Vec<Timestamp>);

impl Waves {
    fn of(mut heard_at: Vec<Timestamp>) -> Waves {
        heard_at.sort_unstable();
        Waves(heard_at)
    }

    /// Whether many hosts were last heard close to `at`. O(log n).
    fn many_at(&self, at: Timestamp) -> bool {
        let before = self.0.partition_point(|other| *other < at - AT_ONCE_MS);
        let behind = self.0.partition_point(|other| *other <= at + AT_ONCE_MS);
        behind - before >= MANY_HOSTS
    }
}

#[cfg(test)]
mod tests;
