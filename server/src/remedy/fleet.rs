//! What is known of the fleet beside samples: facts that no driver knows (`fleet.yaml`), the agents' inventories with their age,
//! and what operators have hosts do. From these the view that placement plans on. Anything unknown makes a host ineligible.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use petrel_agent::stream::protocol::{Inventory, Owner};
use petrel_agent::yaml::{self, Problem};
use petrel_models::placement::{self, Shape, View};
use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::series::Timestamp;

/// `fleet.yaml` as written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawFleet {
    /// Hosts between which guests may move. Hosts in no cluster are one cluster together.
    pub clusters: Vec<RawGroup>,
    /// Hosts that fail together: racks, power feeds, rooms.
    pub domains: Vec<RawGroup>,
    /// Guests, by name or UUID, that stay where they are.
    pub never_move: Vec<String>,
    /// Guests that matter more: the higher, the earlier it is moved.
    pub priorities: BTreeMap<String, i32>,
}

/// A named set of hosts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawGroup {
    /// Its name.
    pub name: String,
    /// Hosts, as in `instance`.
    pub hosts: Vec<String>,
}

/// The facts as checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    clusters: BTreeMap<String, String>,
    domains: BTreeMap<String, String>,
    /// Guests that stay.
    pub never_move: Vec<String>,
    priorities: BTreeMap<String, i32>,
    /// The host or guest that the server itself runs in.
    server_host: String,
}

/// Why the facts were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// YAML or keys, with their place.
    #[error(transparent)]
    Yaml(Problem),
    /// A host in two groups of a kind.
    #[error("host {host} is in {first} and in {second}; a host has one {kind}")]
    Twice {
        /// `cluster` or `domain`.
        kind: &'static str,
        /// The host.
        host: String,
        /// One group.
        first: String,
        /// The other.
        second: String,
    },
}

impl Facts {
    /// Checks the text of `fleet.yaml`; `path` is only for messages.
    ///
    /// # Errors
    /// What is wrong, with line and column where it is the syntax.
    pub fn parse(path: &Path, text: &str) -> Result<Facts, FactsError> {
        let raw: RawFleet = yaml::read(path, text).map_err(FactsError::Yaml)?;
        Ok(Facts {
            clusters: by_host("cluster", &raw.clusters)?,
            domains: by_host("domain", &raw.domains)?,
            never_move: raw.never_move,
            priorities: raw.priorities,
            server_host: String::new(),
        })
    }

    /// The same facts, told which machine the server itself runs in: that one is never touched, neither as a host nor as a guest,
    /// whatever the agents say.
    pub fn seen_from(mut self, server_host: &str) -> Facts {
        server_host.clone_into(&mut self.server_host);
        self.never_move.push(server_host.to_owned());
        self
    }

    /// The host's cluster; empty for the hosts in none.
    pub fn cluster(&self, host: &str) -> &str {
        self.clusters.get(host).map_or("", String::as_str)
    }

    /// The host's failure domain, `None` where unknown.
    pub fn domain(&self, host: &str) -> Option<&str> {
        self.domains.get(host).map(String::as_str)
    }

    /// How much a guest matters.
    pub fn priority(&self, guest: &str) -> i32 {
        self.priorities.get(guest).copied().unwrap_or(0)
    }

    /// All hosts that the facts name.
    pub fn hosts(&self) -> BTreeSet<&str> {
        self.clusters.keys().chain(self.domains.keys()).map(String::as_str).collect()
    }
}

fn by_host(kind: &'static str, groups: &[RawGroup]) -> Result<BTreeMap<String, String>, FactsError> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    for group in groups {
        for host in &group.hosts {
            if let Some(first) = found.insert(host.clone(), group.name.clone()) {
                return Err(FactsError::Twice { kind, host: host.clone(), first, second: group.name.clone() });
            }
        }
    }
    Ok(found)
}

/// What operators have a host do. Only operators lift it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Duty {
    /// In service.
    Active,
    /// Being emptied.
    Draining,
    /// Worked on.
    Maintenance,
    /// Not trusted; nothing goes there.
    Quarantined,
}

impl Duty {
    /// The word in pages and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Duty::Active => "active",
            Duty::Draining => "draining",
            Duty::Maintenance => "maintenance",
            Duty::Quarantined => "quarantined",
        }
    }
}

/// A duty and who set it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DutyNote {
    /// The duty.
    pub duty: Duty,
    /// An operator, or `run N`.
    pub by: String,
}

/// An inventory and when it came, by the server's clock.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seen {
    /// As the agent sent it.
    pub inventory: Inventory,
    /// When it came.
    pub received_at: Timestamp,
}

/// The fleet as it is known now.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// Facts of `fleet.yaml`.
    pub facts: Facts,
    /// The newest inventory of each agent.
    pub inventories: BTreeMap<String, Seen>,
    /// Duties other than active, by host.
    pub duties: BTreeMap<String, DutyNote>,
    /// When agents were heard, as kept on disk: after a restart, whom to miss.
    pub heard: BTreeMap<String, Timestamp>,
}

/// Agents whose inventories are kept. Beyond DESIGN's 10,000 hosts something is wrong; then new agents are refused.
const AGENTS_MAX: usize = 20_000;
/// After this long an agent that fell silent is taken for retired and no longer counts as silent.
const FORGOTTEN_AFTER_MS: i64 = 24 * 3600 * 1000;
/// How often it is kept that an agent was heard: little against the day after which it is forgotten.
const HEARD_EVERY_MS: i64 = 3600 * 1000;

impl Fleet {
    /// Takes an inventory in. False where there is no room for another agent.
    ///
    /// An agent sends one after the other, so the last to come is the newest, also after its clock was set back.
    pub fn see(&mut self, inventory: Inventory, now: Timestamp) -> bool {
        if !self.inventories.contains_key(&inventory.agent) && self.inventories.len() >= AGENTS_MAX {
            return false;
        }
        self.inventories.insert(inventory.agent.clone(), Seen { inventory, received_at: now });
        true
    }

    /// Drops agents that have been silent for a day.
    pub fn forget(&mut self, now: Timestamp) {
        // After the clock was set back nobody may seem fresh until it is where it was.
        for seen in self.inventories.values_mut() {
            seen.received_at = seen.received_at.min(now);
        }
        self.inventories.retain(|_, seen| now - seen.received_at < FORGOTTEN_AFTER_MS);
        let inventories = &self.inventories;
        self.heard.retain(|agent, at| inventories.contains_key(agent) || now - *at < FORGOTTEN_AFTER_MS);
    }

    /// Whether it is to be kept on disk that the agent was heard now.
    pub fn is_news(&self, agent: &str, now: Timestamp) -> bool {
        self.heard.get(agent).is_none_or(|at| now - at >= HEARD_EVERY_MS)
    }

    /// Milliseconds since the agent's inventory came, `None` where there is none.
    pub fn age_ms(&self, agent: &str, now: Timestamp) -> Option<i64> {
        self.inventories.get(agent).map(|seen| now - seen.received_at)
    }

    /// Agents that were heard of and are silent now, and how many are known.
    pub fn silent(&self, settings: &Settings, now: Timestamp) -> (usize, usize) {
        let silent = self.inventories.values().filter(|seen| now - seen.received_at > settings.stale_after_ms).count();
        // Heard by an earlier process and not by this one: a server that starts with half its sight gone must know.
        let missed = self.heard.keys().filter(|agent| !self.inventories.contains_key(*agent)).count();
        (silent + missed, self.inventories.len() + missed)
    }

    /// Whether a host carries Petrel: the server runs there, or an agent says so.
    pub fn carries_petrel(&self, host: &str) -> bool {
        host == self.facts.server_host
            || self.hypervisors().any(|(_, hypervisor)| hypervisor.host == host && hypervisor.carries_petrel)
    }

    /// The agent that speaks for a host.
    pub fn agent_of(&self, host: &str) -> Option<&str> {
        self.hypervisors().find(|(_, hypervisor)| hypervisor.host == host).map(|(agent, _)| agent)
    }

    /// The duty of a host that is not active.
    pub fn duty(&self, host: &str) -> Option<&DutyNote> {
        self.duties.get(host)
    }

    /// All hypervisors with the agent that sees them.
    pub fn hypervisors(&self) -> impl Iterator<Item = (&str, &petrel_agent::stream::protocol::Hypervisor)> {
        self.inventories
            .iter()
            .flat_map(|(agent, seen)| seen.inventory.hypervisors.iter().map(move |host| (agent.as_str(), host)))
    }

    /// The hosts of a cluster as placement wants them. A guest's demand is its maximum memory, which no forecast's quantile
    /// exceeds, and its virtual processors over the overcommitment that is allowed.
    pub fn view(&self, source: &str, settings: &Settings, now: Timestamp) -> View {
        let cluster = self.facts.cluster(source);
        let mut hosts: Vec<placement::Host> = self
            .hypervisors()
            .filter(|(_, hypervisor)| self.facts.cluster(&hypervisor.host) == cluster)
            .map(|(agent, hypervisor)| self.host(agent, hypervisor, source, (settings, now)))
            .collect();
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        // Two agents that claim one host contradict each other; the first stands, and takes nothing.
        hosts.dedup_by(|later, kept| {
            let same = later.name == kept.name;
            if same {
                kept.excluded = Some("two agents claim to be it".to_owned());
            }
            same
        });
        View { hosts }
    }

    fn host(
        &self,
        agent: &str,
        hypervisor: &petrel_agent::stream::protocol::Hypervisor,
        source: &str,
        (settings, now): (&Settings, Timestamp),
    ) -> placement::Host {
        placement::Host {
            name: hypervisor.host.clone(),
            capacity: Shape {
                memory_bytes: hypervisor.memory_bytes.saturating_sub(settings.memory_bytes_reserve),
                cores: f64::from(hypervisor.cpus) * settings.cpu_overcommit,
            },
            memory_bytes_free: hypervisor.memory_bytes_available.saturating_sub(settings.memory_bytes_reserve),
            excluded: self.excluded(agent, hypervisor, source, (settings, now)),
            carries_petrel: self.carries_petrel(&hypervisor.host),
            domain: self.facts.domain(&hypervisor.host).unwrap_or("").to_owned(),
            guests: hypervisor.guests.iter().map(guest).collect(),
        }
    }

    /// Why a host takes no guests now.
    fn excluded(
        &self,
        agent: &str,
        hypervisor: &petrel_agent::stream::protocol::Hypervisor,
        source: &str,
        (settings, now): (&Settings, Timestamp),
    ) -> Option<String> {
        let seen = self.inventories.get(agent)?;
        let age_ms = now - seen.received_at;
        let source_cpu =
            self.hypervisors().find(|(_, host)| host.host == source).map_or("", |(_, host)| &host.cpu_model);
        if age_ms > settings.stale_after_ms {
            Some(format!("its inventory is {} s old", age_ms / 1000))
        } else if seen.inventory.hold {
            Some("its hold file forbids every action".to_owned())
        } else if let Some(reason) = seen.inventory.problems.get("libvirt") {
            Some(format!("libvirt cannot be read there: {reason}"))
        } else if let Some(note) = self.duty(&hypervisor.host) {
            Some(format!("its duty is {} (by {})", note.duty.as_str(), note.by))
        } else if hypervisor.migration_uri.is_empty() {
            Some("it has no migration address; set `migration_uri` in its agent's config".to_owned())
        } else if !source_cpu.is_empty() && !hypervisor.cpu_model.is_empty() && source_cpu != hypervisor.cpu_model {
            Some(format!("its processor is {}, not {source_cpu}", hypervisor.cpu_model))
        } else {
            None
        }
    }
}

fn guest(guest: &petrel_agent::stream::protocol::Guest) -> placement::Guest {
    // What is neither off nor crashed holds memory; what does not simply run cannot be moved live.
    let off = matches!(guest.state.as_str(), "shut off" | "crashed");
    let mut obstacles = guest.obstacles.clone();
    if !off && !matches!(guest.state.as_str(), "running" | "idle" | "blocked") {
        obstacles.push(format!("it is {}", guest.state));
    }
    placement::Guest {
        uuid: guest.uuid.clone(),
        name: guest.name.clone(),
        demand: Shape { memory_bytes: guest.memory_bytes, cores: f64::from(guest.vcpus) },
        running: !off,
        foreign: match &guest.owner {
            Owner::Petrel => None,
            Owner::Foreign { reason } => Some(reason.clone()),
        },
        obstacles,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_own_host_and_guest_are_never_touched() {
        let facts = Facts::default().seen_from("mon1");
        assert_eq!(facts.never_move, ["mon1"]);
        let fleet = Fleet { facts, ..Fleet::default() };
        assert!(fleet.carries_petrel("mon1") && !fleet.carries_petrel("h1"));
    }

    #[test]
    fn facts_are_read_whole_or_refused() {
        let facts = Facts::parse(Path::new("fleet.yaml"), 
            "clusters: [{name: c1, hosts: [h1, h2]}]\ndomains: [{name: rack1, hosts: [h1]}]\nnever_move: [db]\npriorities: {web: 5}\n",
        )
        .unwrap();
        assert_eq!((facts.cluster("h1"), facts.cluster("h9")), ("c1", ""));
        assert_eq!((facts.domain("h1"), facts.domain("h2")), (Some("rack1"), None));
        assert_eq!((facts.priority("web"), facts.priority("other")), (5, 0));
        let twice = Facts::parse(Path::new("fleet.yaml"), "domains: [{name: a, hosts: [h1]}, {name: b, hosts: [h1]}]")
            .unwrap_err();
        assert_eq!(twice.to_string(), "host h1 is in a and in b; a host has one domain");
        let unknown = Facts::parse(Path::new("fleet.yaml"), "clusters: []\nracks: []\n").unwrap_err().to_string();
        assert!(unknown.starts_with("fleet.yaml:2:1: ") && unknown.contains("racks"), "{unknown}");
    }
}
