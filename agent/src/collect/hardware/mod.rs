//! Sensors, memory errors, power, the health of disks: what the machine itself tells.

pub(crate) mod ipmi;
mod ipmi_local;

use super::{CollectConfig, Collector};

/// All collectors of this folder. Opens nothing yet.
pub(super) fn all(config: &CollectConfig) -> Vec<Box<dyn Collector>> {
    let roots = &config.roots;
    vec![Box::new(ipmi_local::Ipmi::new(roots))]
}
