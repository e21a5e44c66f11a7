//! Doors to what reads the output of programs, for whoever feeds it bytes that nobody wrote: fuzz targets and tests. Whatever a
//! program or a guest's name says is an error at worst, never a panic.

use super::{cluster, guests, hardware};
use crate::libvirt::{domain, domstats};

/// What reads the output of a program, with its name.
pub type Reader = (&'static str, fn(&str));

/// What reads the output of each program of the cluster, of the hardware, and of HAProxy, by its name.
pub fn programs() -> impl Iterator<Item = Reader> + Clone {
    cluster::HOSTILE.into_iter().chain(hardware::HOSTILE).chain(guests::HOSTILE)
}

/// Reads what virsh prints of guests.
pub fn virsh(text: &str) {
    drop(domstats::records(text));
    drop(domain::domains(text));
    drop(domain::described(text, "00000000-0000-0000-0000-000000000000"));
}
