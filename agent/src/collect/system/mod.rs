//! What the host is and runs: its time, name, versions, units.

mod os;
mod time;
mod uname;

use super::{CollectConfig, Collector};

/// All collectors of this folder. Opens nothing yet.
pub(super) fn all(config: &CollectConfig) -> Vec<Box<dyn Collector>> {
    let roots = &config.roots;
    vec![Box::new(os::Os::new(roots)), Box::new(time::Time::new(roots)), Box::new(uname::Uname)]
}
