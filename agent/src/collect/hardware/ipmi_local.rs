//! This machine's own BMC, through the kernel's IPMI device: sensors, event log, chassis. Only reads. Other machines' BMCs are
//! reached by agents that hold their credentials, never from here.

use std::path::PathBuf;
use std::time::Duration;

use super::ipmi::{COLUMNS, push_bmc, push_chassis, push_event_log, push_power, push_sensors, sensors};
use crate::collect::Kind::Gauge;
use crate::collect::asked::{ask, present, refused};
use crate::collect::columns::{Column, Columns};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// The local BMC.
pub(super) struct Ipmi {
    /// Names that the kernel's device has had.
    devices: [PathBuf; 3],
}

/// A BMC answers slowly through the kernel's device: a list of 100 sensors can take many seconds.
const EVERY: Duration = Duration::from_secs(60);
const WITHIN: Duration = Duration::from_secs(50);
const SENSORS: [&str; 2] = ["sdr", "elist"];

const UP: [Column; 1] = [("ipmi_up", Gauge, "'1' if a scrape of the IPMI device was successful, '0' otherwise.")];

/// Adds what a call says; whether it said what it should.
type Push = fn(&str, &[(&'static str, &str)], &mut Columns) -> bool;

/// What is asked besides sensors; not every BMC answers all.
const ASKED: [(&str, &[&str], Push); 4] = [
    ("sel", &["sel", "info"], push_event_log),
    ("chassis", &["chassis", "status"], push_chassis),
    ("dcmi", &["dcmi", "power", "reading"], push_power),
    ("bmc", &["mc", "info"], push_bmc),
];

impl Ipmi {
    pub(super) fn new(roots: &Roots) -> Ipmi {
        Ipmi { devices: ["dev/ipmi0", "dev/ipmi/0", "dev/ipmidev/0"].map(|device| roots.rootfs.join(device)) }
    }
}

impl Collector for Ipmi {
    fn name(&self) -> &'static str {
        "ipmi"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let [first, second, third] = &self.devices;
        present(first).or_else(|absent| present(second).or_else(|_| present(third)).map_err(|_| absent))?;
        let (mut columns, mut up) = (Columns::new(&COLUMNS), Columns::new(&UP));
        let said = ask("ipmitool", &SENSORS, WITHIN)?;
        let list = sensors(&said.out);
        push_sensors(&list, &[], &mut columns);
        up.flag(UP[0].0, &[("collector", "ipmi")], !list.is_empty());
        for (name, arguments, push) in ASKED {
            let answered = push(&ask("ipmitool", arguments, WITHIN)?.out, &[], &mut columns);
            up.flag(UP[0].0, &[("collector", name)], answered);
        }
        columns.append_to(families)?;
        up.append_to(families)?;
        if list.is_empty() { Err(refused("ipmitool", &SENSORS, &said)) } else { Ok(()) }
    }
}
