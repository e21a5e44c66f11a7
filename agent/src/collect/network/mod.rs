//! Interfaces, protocols and what they count.

mod netdev;

use super::{CollectConfig, Collector};

/// All collectors of this folder. Opens nothing yet.
pub(super) fn all(config: &CollectConfig) -> Vec<Box<dyn Collector>> {
    let roots = &config.roots;
    vec![Box::new(netdev::Netdev::new(roots))]
}
