//! The host's clock: what it says, its zone, and which clock source drives it.
//!
//! The one collector that reads the wall clock, because the clock is what it measures: a host whose clock runs away is
//! found by comparing this value with the sample's timestamp and with the server's time.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::collect::kernel_file::read_word;
use crate::collect::zone::Zone;
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Clock and clock sources.
pub(super) struct Time {
    clocksources: PathBuf,
    zone: Zone,
}

impl Time {
    pub(super) fn new(roots: &Roots) -> Time {
        Time {
            clocksources: roots.sysfs.join("devices/system/clocksource"),
            zone: Zone::load(&roots.rootfs.join("etc/localtime")),
        }
    }
}

impl Collector for Time {
    fn name(&self) -> &'static str {
        "time"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        families.push(
            Family::new(Kind::Gauge, "node_time_seconds", "System time in seconds since epoch (1970).")
                .with(now.as_secs_f64()),
        );
        let local = self.zone.at(now.as_secs() as i64);
        let mut offset =
            Family::new(Kind::Gauge, "node_time_zone_offset_seconds", "System time zone offset in seconds.");
        offset.push(&[("time_zone", &local.name)], f64::from(local.offset_seconds));
        families.push(offset);
        self.collect_clocksources(families);
        Ok(())
    }
}

impl Time {
    fn collect_clocksources(&self, families: &mut Vec<Family>) {
        let mut available = Family::new(
            Kind::Gauge,
            "node_time_clocksource_available_info",
            "Available clocksources read from '/sys/devices/system/clocksource'.",
        );
        let mut current = Family::new(
            Kind::Gauge,
            "node_time_clocksource_current_info",
            "Current clocksource read from '/sys/devices/system/clocksource'.",
        );
        // Folders clocksource0, clocksource1, …; real machines have one.
        for device in 0..16 {
            let folder = self.clocksources.join(format!("clocksource{device}"));
            let Some(names) = read_word(&folder.join("available_clocksource")) else { break };
            let device = device.to_string();
            for name in names.split_whitespace() {
                available.push(&[("clocksource", name), ("device", &device)], 1.0);
            }
            if let Some(name) = read_word(&folder.join("current_clocksource")) {
                current.push(&[("clocksource", &name), ("device", &device)], 1.0);
            }
        }
        families.extend([available, current]);
    }
}
