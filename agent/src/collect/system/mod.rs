//! What the host is and runs: its time, name, versions, units.

mod os;
mod packages;
mod reboot;
mod systemd;
mod systemd_answers;
mod textfile;
mod time;
mod time_sync;
mod time_sync_answers;
mod timex;
mod uname;

use super::{CollectConfig, Collector};

/// All collectors of this folder. Opens nothing yet.
pub(super) fn all(config: &CollectConfig) -> Vec<Box<dyn Collector>> {
    let roots = &config.roots;
    vec![
        Box::new(os::Os::new(roots)),
        Box::new(time::Time::new(roots)),
        Box::new(uname::Uname),
        Box::new(packages::Packages::new(roots)),
        Box::new(reboot::Reboot::new(roots)),
        Box::new(systemd::Systemd::new(roots)),
        Box::new(time_sync::TimeSync::new(roots)),
        Box::new(timex::Timex),
        Box::new(textfile::Textfile::new(config.textfile.clone())),
    ]
}
