//! Sensors, memory errors, power, the health of disks: what the machine itself tells.

mod cpufreq;
mod dmi;
mod edac;
mod hwmon;
mod hwmon_chips;
mod hwmon_file;
pub(crate) mod ipmi;
mod ipmi_local;
mod pcidevice;
mod power_supply;
mod rapl;
mod smart;
mod smart_report;
mod thermal_zone;
mod watchdog;

use super::{CollectConfig, Collector};

/// All collectors of this folder. Opens nothing yet.
pub(super) fn all(config: &CollectConfig) -> Vec<Box<dyn Collector>> {
    let roots = &config.roots;
    vec![
        Box::new(cpufreq::Cpufreq::new(roots)),
        Box::new(edac::Edac::new(roots)),
        Box::new(hwmon::Hwmon::new(roots)),
        Box::new(ipmi_local::Ipmi::new(roots)),
        Box::new(power_supply::PowerSupply::new(roots)),
        Box::new(smart::Smart::new(roots)),
        Box::new(thermal_zone::ThermalZone::new(roots)),
        Box::new(dmi::Dmi::new(roots)),
        Box::new(pcidevice::Pcidevice::new(roots)),
        Box::new(rapl::Rapl::new(roots)),
        Box::new(watchdog::Watchdog::new(roots)),
    ]
}

/// What reads the output of each program here, by its name: for fuzzing.
pub(super) const HOSTILE: [super::hostile::Reader; 2] = [("ipmi", ipmi::hostile), ("smart", smart::hostile)];
