//! libvirt: the names that config needs. This version reads and changes nothing here yet, and says so.

use super::{Act, ActError, Checked, LibvirtConfig, Looked, Read, Reading, Refusal, Watch};
use crate::stream::protocol::Order;

/// Actions of this driver.
pub const ACTIONS: [&str; 1] = [MIGRATE];
/// Moves a running guest to another host.
pub const MIGRATE: &str = "libvirt.migrate";
const NOT_YET: &str = "this version of the agent does not drive libvirt yet";

/// The driver.
#[derive(Debug)]
pub struct Libvirt {}

impl Libvirt {
    /// A driver of this host's libvirt.
    pub fn over(_: LibvirtConfig, _: String) -> Libvirt {
        Libvirt {}
    }
}

impl Read for Libvirt {
    fn name(&self) -> &'static str {
        "libvirt"
    }

    fn read(&self) -> Reading {
        Reading { problems: vec![NOT_YET.to_owned()], ..Reading::default() }
    }
}

impl Act for Libvirt {
    fn check(&self, _: &Order) -> Result<Checked, Refusal> {
        Err(Refusal::driver(NOT_YET))
    }

    fn apply(&self, _: &Order, _: &Checked, _: &Watch) -> Result<(), ActError> {
        Err(ActError::failed(NOT_YET))
    }

    fn undo(&self, _: &Order, _: &Checked, _: &Watch) -> Result<(), ActError> {
        Err(ActError::failed(NOT_YET))
    }

    fn progress(&self, _: &Order, _: &Checked) -> Looked {
        Looked::Unknown { reason: NOT_YET.to_owned() }
    }
}

/// Whether other hosts can use this URI to reach a libvirt.
pub fn is_remote_uri(uri: &str) -> bool {
    let rest = uri.strip_prefix("qemu+").and_then(|rest| rest.split_once("://"));
    let plain = uri.bytes().all(|byte| byte.is_ascii_graphic());
    plain && rest.is_some_and(|(transport, place)| transport != "unix" && !place.is_empty() && !place.starts_with('/'))
}
