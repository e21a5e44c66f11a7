//! What libvirt says: one virsh that answers question after question (`shell`), single calls of it (`virsh`), its tables
//! (`domstats`), the descriptions of guests (`domain`) and whose they are (`owner`, `pacemaker`). The driver and the
//! collectors of guests read through this; nothing here changes a guest.

pub mod domain;
pub mod domstats;
pub mod owner;
pub mod pacemaker;
pub mod shell;
pub mod virsh;

pub use shell::{Answer, Shell, ShellError};
pub use virsh::{Virsh, VirshError};

/// libvirt said something else than it should.
pub fn unreadable(what: &'static str, problem: String) -> VirshError {
    VirshError::Unreadable { what, problem }
}
