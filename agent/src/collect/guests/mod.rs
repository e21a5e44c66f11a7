//! Guests and what they use, as the hypervisor tells: libvirt (`libvirt`, with `figures` and `jobs`; `pools`), their
//! control groups (`cgroups`); and HAProxy, which
//! stands before them (`haproxy`).

mod cgroups;
mod figures;
mod haproxy;
mod haproxy_figures;
mod jobs;
mod libvirt;
mod pools;
mod rules;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{CollectConfig, Collector};
use crate::drive::LibvirtConfig;
use crate::libvirt::{Shell, Virsh};

/// Where this host's libvirt listens, the sockets that need no rights first.
const SOCKETS: [&str; 4] = [
    "run/libvirt/libvirt-sock-ro",
    "run/libvirt/virtqemud-sock-ro",
    "run/libvirt/libvirt-sock",
    "run/libvirt/virtqemud-sock",
];

/// All collectors of this folder. Opens nothing yet.
pub(super) fn all(config: &CollectConfig) -> Vec<Box<dyn Collector>> {
    let source = Arc::new(LibvirtSource::of(config));
    vec![
        Box::new(libvirt::Libvirt::new(Arc::clone(&source))),
        Box::new(pools::Pools::new(source)),
        Box::new(cgroups::GuestCgroups::new(&config.roots)),
        Box::new(haproxy::Haproxy::new(config)),
    ]
}

/// The libvirt that the collectors ask: the driver's where the config names one, else the one of this host.
struct LibvirtSource {
    shell: Arc<Shell>,
    /// Any of them must be there before anything is started; empty when the config says that there is a libvirt.
    sockets: Vec<PathBuf>,
    /// Whose guests are Petrel's.
    own: Vec<String>,
    metadata_ignored: Vec<String>,
    /// Whether a cluster manager of this host can be looked for.
    is_here: bool,
}

impl LibvirtSource {
    fn of(config: &CollectConfig) -> LibvirtSource {
        let root = &config.roots.rootfs;
        let is_here = root.as_os_str() == "/";
        if let Some(LibvirtConfig { shell, own, metadata_ignored, .. }) = &config.libvirt {
            let (own, metadata_ignored) = (own.clone(), metadata_ignored.clone());
            return LibvirtSource { shell: Arc::clone(shell), sockets: Vec::new(), own, metadata_ignored, is_here };
        }
        let uri = if is_here {
            "qemu:///system".to_owned()
        } else {
            format!("qemu:///system?socket={}", root.join(SOCKETS[0]).display())
        };
        LibvirtSource {
            shell: Arc::new(Shell::of(Virsh { program: "virsh".into(), uri }, rand::random())),
            sockets: SOCKETS.iter().map(|socket| root.join(socket)).collect(),
            own: Vec::new(),
            metadata_ignored: Vec::new(),
            is_here,
        }
    }

    /// The socket that is missing, where this host has no libvirt.
    fn missing(&self) -> Option<&Path> {
        let first = self.sockets.first()?;
        (!self.sockets.iter().any(|socket| socket.exists())).then_some(first)
    }
}

/// What reads the output of each program here, by its name: for fuzzing.
pub(super) const HOSTILE: [super::hostile::Reader; 1] = [("haproxy", haproxy::hostile)];
