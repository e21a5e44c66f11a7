//! Drivers: what can read and change one platform, within what this host's config allows.
//!
//! The way of an order: `hands` takes it from the stream, `execute` admits it (`admit`), lets the driver check it, writes
//! `started` to the `journal`, looks at the hold file once more, lets the driver apply it, and writes the answer. Nothing
//! here decides what should be done to a fleet, that is the server's part; and nothing is done that local config, a hold
//! file or a foreign owner forbids, whatever the server says. docs/guide/drivers.md is for operators.

mod admit;
mod arguments;
mod config;
mod execute;
mod hands;
mod haproxy;
mod inventory;
mod journal;
mod libvirt;

pub use admit::{Admission, Refusal, Seen, Standing, admit};
pub use config::{
    CheckDriveError, DriveConfig, HaproxyConfig, HaproxySocket, LibvirtConfig, RawDriveConfig, RawHaproxyConfig,
    RawLibvirtConfig,
};
pub use execute::{Counts, Executor, Opening, Prepared};
pub use hands::{Hands, OpenHandsError};
pub use haproxy::Haproxy;
pub use inventory::InventoryHandle;
pub use journal::{Journal, OpenJournalError, Started, WriteJournalError};
pub use libvirt::Libvirt;

use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::collect::Family;
use crate::stream::protocol::{BalancerServer, Hypervisor, Order};

/// A JSON object, as orders and answers carry them.
pub type Object = Map<String, Value>;

/// The reading half of a driver: what exists on the platform, who owns it, what hinders moving it.
///
/// Calls block (child processes, sockets) and end within their own deadlines; they change nothing. What could not be
/// read is named in `problems` and missing, never shown as empty.
pub trait Read: Send + Sync {
    /// The driver's word before the dot of its actions, for example `haproxy`.
    fn name(&self) -> &'static str;

    /// Everything the driver sees now.
    fn read(&self) -> Reading;

    /// For so long each reading also has the guests' dirty rate measured; nothing, where there are no guests. Returns at once.
    fn measure_dirty_rate(&self, _lasting: Duration) {}

    /// What the driver measures, for the agent's metrics.
    fn families(&self) -> Vec<Family> {
        Vec::new()
    }
}

/// The changing half of a driver.
///
/// All calls block. `check` changes nothing and may be called at any time. `apply` and `undo` are called at most once
/// for an order's key, after `check` accepted it and `started` is on disk; they re-read the platform before they answer
/// `Ok`, so that `Ok` means «seen to be so». They return soon after the watch's deadline or after it says to leave.
pub trait Act: Send + Sync {
    /// Whether the order can be carried out now (backwards, when it has `undo_of`), and what it would run.
    ///
    /// # Errors
    /// Why not, for the operator: wrong arguments, an expectation not met, a foreign guest.
    fn check(&self, order: &Order) -> Result<Checked, Refusal>;

    /// Carries the order out.
    ///
    /// # Errors
    /// How it ended otherwise, and how the platform was left.
    fn apply(&self, order: &Order, checked: &Checked, watch: &Watch) -> Result<(), ActError>;

    /// Restores what the order's `undo_of` recorded in `before`, or cancels what is still in flight.
    ///
    /// # Errors
    /// As for `apply`.
    fn undo(&self, order: &Order, checked: &Checked, watch: &Watch) -> Result<(), ActError>;

    /// What became of an order that was started before this process began.
    fn progress(&self, order: &Order, checked: &Checked) -> Looked;
}

/// What one driver sees.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// Hypervisors, with their guests.
    pub hypervisors: Vec<Hypervisor>,
    /// Servers of load balancers.
    pub balancer_servers: Vec<BalancerServer>,
    /// What could not be read, and why.
    pub problems: Vec<String>,
}

/// An order that a driver accepted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checked {
    /// The command as it will be sent to the platform.
    pub command: String,
    /// What the platform looks like now, as far as undoing needs it.
    pub before: Object,
}

/// What `progress` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// The platform shows that nothing was changed, and nothing will change any more.
    NotStarted,
    /// Still at work.
    Running,
    /// The platform is as the order wanted it.
    Done,
    /// It cannot be told.
    Unknown {
        /// What is known.
        reason: String,
    },
}

/// How an order ends that was started and not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActError {
    /// It failed, and the platform was seen to be as `reason` says.
    #[error("{reason}")]
    Failed {
        /// Why, with the platform's own words.
        reason: String,
    },
    /// Nobody can say how it ended.
    #[error("{reason}")]
    Unknown {
        /// What is known.
        reason: String,
    },
    /// The agent stops; the order is looked up at the next start.
    #[error("the agent stopped while the order was carried out")]
    Left,
}

impl ActError {
    /// A failure that left the platform as `reason` says.
    pub fn failed(reason: impl Into<String>) -> ActError {
        ActError::Failed { reason: reason.into() }
    }
}

/// How long a driver may work on an order.
#[derive(Debug, Clone)]
pub struct Watch {
    /// When the order's time is over.
    pub deadline: Instant,
    /// Cancelled when the agent stops: leave the platform at work and go.
    pub leave: CancellationToken,
    /// Cancelled when an undo of this order has come: break off and put things back.
    pub cancel: CancellationToken,
}

impl Watch {
    /// A watch of `span` from now on that nobody else ends.
    pub fn lasting(span: Duration) -> Watch {
        Watch { deadline: Instant::now() + span, leave: CancellationToken::new(), cancel: CancellationToken::new() }
    }

    /// The same watch, over in `span` at the latest.
    pub fn within(self, span: Duration) -> Watch {
        Watch { deadline: self.deadline.min(Instant::now() + span), ..self }
    }

    /// Time left, zero when it is over.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether the order has used up its time.
    pub fn is_over(&self) -> bool {
        self.left().is_zero()
    }

    /// Whether the order is to be broken off.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Whether the agent wants to stop.
    pub fn is_leaving(&self) -> bool {
        self.leave.is_cancelled()
    }
}
