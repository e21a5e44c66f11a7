//! Power supplies that the kernel knows: batteries, mains, an attached UPS. What redundant supplies of a server do only
//! its management controller tells.

use std::path::PathBuf;
use std::time::Duration;

use super::super::attribute::{AttributeReader, names_in};
use super::super::{CollectError, Collector, Family, Kind, Pace, Roots};

/// Power supplies.
pub(super) struct PowerSupply {
    class: PathBuf,
    reader: AttributeReader,
}

/// A battery is asked over a slow bus.
const EVERY: Duration = Duration::from_secs(30);
const WITHIN: Duration = Duration::from_secs(10);

/// File, name after `node_power_supply_`.
type Column = (&'static str, &'static str);

/// As they are.
const WHOLE: [Column; 10] = [
    ("authentic", "authentic"),
    ("calibrate", "calibrate"),
    ("capacity", "capacity"),
    ("capacity_alert_max", "capacity_alert_max"),
    ("capacity_alert_min", "capacity_alert_min"),
    ("cycle_count", "cyclecount"),
    ("online", "online"),
    ("present", "present"),
    ("time_to_empty_now", "time_to_empty_seconds"),
    ("time_to_full_now", "time_to_full_seconds"),
];

/// In millionths.
const MICRO: [Column; 31] = [
    ("current_boot", "current_boot"),
    ("current_max", "current_max"),
    ("current_now", "current_ampere"),
    ("energy_empty", "energy_empty"),
    ("energy_empty_design", "energy_empty_design"),
    ("energy_full", "energy_full"),
    ("energy_full_design", "energy_full_design"),
    ("energy_now", "energy_watthour"),
    ("voltage_boot", "voltage_boot"),
    ("voltage_max", "voltage_max"),
    ("voltage_max_design", "voltage_max_design"),
    ("voltage_min", "voltage_min"),
    ("voltage_min_design", "voltage_min_design"),
    ("voltage_now", "voltage_volt"),
    ("voltage_ocv", "voltage_ocv"),
    ("charge_control_limit", "charge_control_limit"),
    ("charge_control_limit_max", "charge_control_limit_max"),
    ("charge_counter", "charge_counter"),
    ("charge_empty", "charge_empty"),
    ("charge_empty_design", "charge_empty_design"),
    ("charge_full", "charge_full"),
    ("charge_full_design", "charge_full_design"),
    ("charge_now", "charge_ampere"),
    ("charge_term_current", "charge_term_current"),
    ("constant_charge_current", "constant_charge_current"),
    ("constant_charge_current_max", "constant_charge_current_max"),
    ("constant_charge_voltage", "constant_charge_voltage"),
    ("constant_charge_voltage_max", "constant_charge_voltage_max"),
    ("precharge_current", "precharge_current"),
    ("input_current_limit", "input_current_limit"),
    ("power_now", "power_watt"),
];

/// In tenths.
const TENTHS: [Column; 8] = [
    ("temp", "temp_celsius"),
    ("temp_alert_max", "temp_alert_max_celsius"),
    ("temp_alert_min", "temp_alert_min_celsius"),
    ("temp_ambient", "temp_ambient_celsius"),
    ("temp_ambient_max", "temp_ambient_max_celsius"),
    ("temp_ambient_min", "temp_ambient_min_celsius"),
    ("temp_max", "temp_max_celsius"),
    ("temp_min", "temp_min_celsius"),
];

/// Texts, which become labels where a supply has them.
const TEXTS: [&str; 11] = [
    "capacity_level",
    "charge_type",
    "health",
    "manufacturer",
    "model_name",
    "serial_number",
    "status",
    "technology",
    "type",
    "usb_type",
    "scope",
];

impl PowerSupply {
    pub(super) fn new(roots: &Roots) -> PowerSupply {
        PowerSupply { class: roots.sysfs.join("class/power_supply"), reader: AttributeReader::new() }
    }
}

impl Collector for PowerSupply {
    fn name(&self) -> &'static str {
        "powersupplyclass"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let supplies = names_in(&self.class).unwrap_or_default();
        if supplies.is_empty() {
            return Err(CollectError::Absent { path: self.class.join("*") });
        }
        for (columns, divisor) in [(&WHOLE[..], 1.0), (&MICRO[..], 1e6), (&TENTHS[..], 10.0)] {
            for (file, name) in columns {
                let help = format!("{name} value of /sys/class/power_supply/<power_supply>.");
                let mut family = Family::new(Kind::Gauge, format!("node_power_supply_{name}"), help);
                for supply in &supplies {
                    if let Some(value) = self.reader.number::<i64>(&self.class.join(supply).join(file)) {
                        family.push(&[("power_supply", supply)], value as f64 / divisor);
                    }
                }
                families.push(family);
            }
        }
        let help = "info of /sys/class/power_supply/<power_supply>.";
        let mut info = Family::new(Kind::Gauge, "node_power_supply_info", help);
        for supply in &supplies {
            let texts = TEXTS.map(|file| self.reader.word(&self.class.join(supply).join(file)).unwrap_or_default());
            let texts = TEXTS.iter().zip(&texts).filter(|(_, text)| !text.is_empty());
            let labels: Vec<(&'static str, &str)> = std::iter::once(("power_supply", supply.as_str()))
                .chain(texts.map(|(name, text)| (*name, text.as_str())))
                .collect();
            info.push(&labels, 1.0);
        }
        families.push(info);
        Ok(())
    }
}
