//! Interfaces, protocols and what they count.

mod arp;
mod bonding;
mod conntrack;
mod infiniband;
mod infiniband_counters;
mod ipvs;
mod lnstat;
mod netclass;
mod netdev;
mod netstat;
mod qdisc;
mod sockstat;
mod softnet;
mod udp_queues;
mod xfrm;

use super::{CollectConfig, Collector};

/// All collectors of this folder. Opens nothing yet.
pub(super) fn all(config: &CollectConfig) -> Vec<Box<dyn Collector>> {
    let roots = &config.roots;
    vec![
        Box::new(arp::Arp::new(roots)),
        Box::new(bonding::Bonding::new(roots)),
        Box::new(conntrack::Conntrack::new(roots)),
        Box::new(netclass::Netclass::new(roots, config.interval)),
        Box::new(netdev::Netdev::new(roots)),
        Box::new(netstat::Netstat::new(roots)),
        Box::new(qdisc::Qdisc::new(roots)),
        Box::new(sockstat::Sockstat::new(roots)),
        Box::new(softnet::Softnet::new(roots)),
        Box::new(udp_queues::UdpQueues::new(roots)),
        Box::new(infiniband::Infiniband::new(roots)),
        Box::new(ipvs::Ipvs::new(roots)),
        Box::new(lnstat::Lnstat::new(roots)),
        Box::new(xfrm::Xfrm::new(roots)),
    ]
}
