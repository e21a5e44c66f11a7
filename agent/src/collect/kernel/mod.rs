//! The kernel's own accounts: processors, memory, scheduling, pressure.

mod buddyinfo;
mod by_processor;
pub(in crate::collect) mod cgroup1;
pub(in crate::collect) mod cgroup2;
mod cgroup_slices;
mod cgroups;
mod cpu;
mod cpu_info;
mod cpu_vulnerabilities;
mod entropy;
mod filefd;
mod kernel_hung;
mod ksmd;
mod loadavg;
mod meminfo;
mod meminfo_numa;
mod pressure;
mod processes;
mod schedstat;
mod slabinfo;
mod stat;
mod sysctl;
mod vmstat;
mod zoneinfo;

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
        Box::new(buddyinfo::Buddyinfo::new(roots)),
        Box::new(by_processor::Interrupts::new(roots)),
        Box::new(by_processor::Softirqs::new(roots)),
        Box::new(cgroups::Cgroups::new(roots)),
        Box::new(cpu_vulnerabilities::CpuVulnerabilities::new(roots)),
        Box::new(kernel_hung::KernelHung::new(roots)),
        Box::new(ksmd::Ksmd::new(roots)),
        Box::new(meminfo_numa::MeminfoNuma::new(roots)),
        Box::new(slabinfo::Slabinfo::new(roots)),
        Box::new(sysctl::Sysctl::new(roots)),
        Box::new(zoneinfo::Zoneinfo::new(roots)),
    ]
}
