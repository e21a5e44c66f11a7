//! The kernel's name and version and the host's name, as labels.

use crate::collect::{CollectError, Collector, Family, Kind};

/// What `uname` says.
pub(super) struct Uname;

impl Collector for Uname {
    fn name(&self) -> &'static str {
        "uname"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let uname = rustix::system::uname();
        let mut info = Family::new(
            Kind::Gauge,
            "node_uname_info",
            "Labeled system information as provided by the uname system call.",
        );
        let labels = [
            ("domainname", uname.domainname().to_string_lossy()),
            ("machine", uname.machine().to_string_lossy()),
            ("nodename", uname.nodename().to_string_lossy()),
            ("release", uname.release().to_string_lossy()),
            ("sysname", uname.sysname().to_string_lossy()),
            ("version", uname.version().to_string_lossy()),
        ];
        let labels: Vec<(&'static str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_ref())).collect();
        info.push(&labels, 1.0);
        families.push(info);
        Ok(())
    }
}
