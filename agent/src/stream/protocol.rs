//! The types on the wire between agent and server, beside OTLP itself. Both ends use this file; docs/formats/stream.md
//! specifies it for others. Changing a field's meaning breaks running fleets: add fields, with `#[serde(default)]`.

use std::collections::BTreeMap;

use petrel_models::Timestamp;
use serde::{Deserialize, Serialize};

/// Header: the agent's id, by default its host name. At most 255 bytes of printable ASCII without spaces.
pub const HEADER_AGENT: &str = "petrel-agent";
/// The attribute of an agent's scope that says when its points were read, in nanoseconds since 1970. The points carry no time: in
/// most of them it would be all that differs from the last round, and against that a round without it is a third as large.
pub const SCOPE_TIME: &str = "petrel.time_unix_nano";
/// Header: random number born with the spool, in lower-case hexadecimal; a new one starts every sequence anew.
pub const HEADER_EPOCH: &str = "petrel-epoch";
/// Header: the batch's [`Class`].
pub const HEADER_CLASS: &str = "petrel-class";
/// Header: the batch's number in its class, from 1 on. A number at or below the server's high mark is acknowledged and ignored.
pub const HEADER_SEQ: &str = "petrel-seq";
/// Header of an answer: the number of the batch whose body the server holds as dictionary for the next one ([`super::dictionary`]).
pub const HEADER_DICTIONARY: &str = "petrel-dictionary";
/// Header of a batch: how many more of its class wait in the spool.
pub const HEADER_PENDING: &str = "petrel-pending";
/// Header of an answer to a batch: milliseconds to wait before the next batch of a backlog ([`super::pace`]).
pub const HEADER_PACE: &str = "petrel-pace";
/// Header of a batch: when it left, by the agent's clock, in milliseconds since the Unix epoch. Of its answer: when the batch came and
/// when the answer left by the server's, as `RECEIVED,ANSWERED` ([`super::skew`]).
pub const HEADER_TIME: &str = "petrel-time";
/// Path that takes [`OrderAnswer`] lists, as JSON, with the four headers above.
pub const PATH_ANSWERS: &str = "/petrel/v1/answers";
/// Path of the long-lived request for [`Order`] lists: `GET ?wait_ms=30000`, answered as soon as there is one.
pub const PATH_ORDERS: &str = "/petrel/v1/orders";
/// Path that takes an [`Inventory`], as JSON. Never spooled: an old inventory is worthless.
pub const PATH_INVENTORY: &str = "/petrel/v1/inventory";

/// What a batch carries. Each class has its own sequence and its own place in the order of dropping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Answers to orders: never dropped for budget.
    Answers,
    /// Log records (OTLP logs).
    Logs,
    /// Samples (OTLP metrics): dropped first, oldest first.
    Metrics,
}

impl Class {
    /// All classes, first to be sent first.
    pub const ALL: [Class; 3] = [Class::Answers, Class::Logs, Class::Metrics];

    /// The word on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Answers => "answers",
            Class::Logs => "logs",
            Class::Metrics => "metrics",
        }
    }

    /// Reads the word of [`Class::as_str`].
    pub fn parse(word: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|class| class.as_str() == word)
    }
}

/// One action that the server wants done by one agent. Started at most once: the agent syncs `started` to disk before
/// it applies, and after a crash it looks through the driver's `read` instead of applying again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The run and the step that this order belongs to; together they are the idempotency key.
    pub key: OrderKey,
    /// The server's fencing epoch; an agent refuses an order of an epoch below the highest it has seen.
    pub fencing_epoch: u64,
    /// What to do, as `driver.verb`, for example `haproxy.drain` or `libvirt.migrate`.
    pub action: String,
    /// The action's arguments, checked by the driver.
    pub with: serde_json::Map<String, serde_json::Value>,
    /// What must still be true when the agent starts, in the driver's words; a driver refuses when it is not.
    #[serde(default)]
    pub expect: serde_json::Map<String, serde_json::Value>,
    /// How long after its delivery the order may still be started, in milliseconds.
    pub ttl_ms: u64,
    /// How long the action may take once started, in milliseconds.
    pub timeout_ms: u64,
    /// Carry the action out backwards: restore what the step's answer recorded in `before`.
    #[serde(default)]
    pub undo_of: Option<OrderAnswer>,
}

/// Idempotency key of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OrderKey {
    /// The run's number, unique on its server.
    pub run: u64,
    /// The step's number in its run, from 0 on; undoing a step has a number of its own.
    pub step: u32,
}

/// What became of an order. An agent sends `Started` and then exactly one of the others, or one of the others alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderAnswer {
    /// Which order.
    pub key: OrderKey,
    /// The fencing epoch of the order.
    pub fencing_epoch: u64,
    /// When, by the agent's clock.
    pub at: Timestamp,
    /// What happened.
    pub outcome: OrderOutcome,
    /// The command or request as sent to the platform, for the journal; secrets removed.
    #[serde(default)]
    pub command: String,
    /// What the platform looked like just before, as far as undoing needs it.
    #[serde(default)]
    pub before: serde_json::Map<String, serde_json::Value>,
}

/// The ends an order can come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum OrderOutcome {
    /// `started` is on disk and the driver is at work.
    Started,
    /// Done, as the driver saw it. The server verifies on its own.
    Done,
    /// Not begun: not allowed here, expired, held, foreign guest, expectation not met.
    Refused {
        /// Why, for the operator.
        reason: String,
    },
    /// Begun and failed; the platform was left as `reason` says.
    Failed {
        /// Why, with the platform's own words.
        reason: String,
    },
    /// Begun before a crash of the agent, and `read` cannot tell how it ended. The run stops.
    Unknown {
        /// What is known.
        reason: String,
    },
}

/// What an agent's drivers see, sent whole every ten seconds and after every action.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// The agent that saw it.
    pub agent: String,
    /// When, by the agent's clock.
    pub seen_at: Timestamp,
    /// Whether a hold file on the host forbids every action there.
    #[serde(default)]
    pub hold: bool,
    /// Action names that this host's own config allows, for example `haproxy.drain`.
    #[serde(default)]
    pub allowed: Vec<String>,
    /// Hypervisors this agent speaks for (itself).
    #[serde(default)]
    pub hypervisors: Vec<Hypervisor>,
    /// Load balancer servers this agent can change.
    #[serde(default)]
    pub balancer_servers: Vec<BalancerServer>,
    /// Drivers that could not read their platform, with the reason: their part of the inventory is missing, not empty.
    #[serde(default)]
    pub problems: BTreeMap<String, String>,
}

/// What the server answers to an [`Inventory`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryAnswer {
    /// For so long, in milliseconds, the agent is to measure how fast its guests change their memory, because somebody plans to move
    /// them; not there: it is not to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measure_dirty_rate_ms: Option<u64>,
}

/// One host that runs guests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hypervisor {
    /// Host name, as in `instance`.
    pub host: String,
    /// Where other hosts' libvirt daemons reach this one, for example `qemu+tcp://h2/system`; empty: cannot be a target.
    #[serde(default)]
    pub migration_uri: String,
    /// Physical memory, bytes.
    pub memory_bytes: u64,
    /// Memory available to new guests now, bytes.
    pub memory_bytes_available: u64,
    /// Logical processors.
    pub cpus: u32,
    /// Processor architecture and model, for the check that a guest can run there.
    #[serde(default)]
    pub cpu_model: String,
    /// Whether the host carries Petrel's own server, or the agent that acts for it; such a host is never touched.
    #[serde(default)]
    pub carries_petrel: bool,
    /// All guests defined there, running or not.
    pub guests: Vec<Guest>,
}

/// One virtual machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guest {
    /// libvirt's UUID: the identity across hosts.
    pub uuid: String,
    /// Name on its host.
    pub name: String,
    /// libvirt's word: `running`, `paused`, `shut off`, …
    pub state: String,
    /// Maximum memory, bytes.
    pub memory_bytes: u64,
    /// Virtual processors.
    pub vcpus: u32,
    /// Processor time used since boot, seconds.
    #[serde(default)]
    pub cpu_seconds_total: f64,
    /// Who owns it.
    pub owner: Owner,
    /// Why it cannot be moved live, empty when it can: passthrough devices, local disks, running block jobs, …
    #[serde(default)]
    pub obstacles: Vec<String>,
    /// Whether a migration of it is in flight.
    #[serde(default)]
    pub migrating: bool,
}

/// Who may touch a guest. Unknown counts as foreign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Owner {
    /// Claimed by this host's config, and no other owner was found.
    Petrel,
    /// Somebody else's, or nobody's that we know.
    Foreign {
        /// Which owner was found, or why it is unknown.
        reason: String,
    },
}

/// One server line of a load balancer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BalancerServer {
    /// Backend (proxy) name.
    pub backend: String,
    /// Server name in the backend.
    pub server: String,
    /// HAProxy's status word: `UP`, `DOWN`, `DRAIN`, `MAINT`, …
    pub status: String,
    /// Effective weight.
    pub weight: u32,
    /// Sessions now.
    pub sessions: u64,
    /// Servers of the backend that take new sessions, this one included where it does.
    pub backend_active: u32,
}
