//! Every driver against its real platform, through one conformance suite: HAProxy started here, libvirt in the lab.

#![expect(clippy::unwrap_used, reason = "test code, in modules of its own")]

mod conformance;
mod haproxy;
mod libvirt;
