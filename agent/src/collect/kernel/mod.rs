//! The kernel's own accounts: processors, memory, scheduling, pressure.

pub(in crate::collect) mod cgroup2;
mod cgroup_slices;
mod cpu;
mod cpu_info;
mod entropy;
mod filefd;
mod loadavg;
mod meminfo;
mod pressure;
mod processes;
mod schedstat;
mod stat;
mod vmstat;

use super::{CollectConfig, Collector};

/// All collectors of this folder. Opens nothing yet.
pub(super) fn all(config: &CollectConfig) -> Vec<Box<dyn Collector>> {
    let roots = &config.roots;
    vec![
        Box::new(cpu::Cpu::new(roots)),
        Box::new(cgroup_slices::CgroupSlices::new(roots)),
        Box::new(entropy::Entropy::new(roots)),
        Box::new(filefd::Filefd::new(roots)),
        Box::new(loadavg::Loadavg::new(roots)),
        Box::new(meminfo::Meminfo::new(roots)),
        Box::new(pressure::Pressure::new(roots)),
        Box::new(processes::Processes::new(roots)),
        Box::new(schedstat::Schedstat::new(roots)),
        Box::new(stat::Stat::new(roots)),
        Box::new(vmstat::Vmstat::new(roots)),
    ]
}
