//! Temperatures that the firmware reports by zone, and how far the machine slows itself down to cool.

use std::path::PathBuf;
use std::time::Duration;

use super::super::attribute::{AttributeReader, numbered_in};
use super::super::{CollectError, Collector, Family, Kind, Pace, Roots};

/// Thermal zones and cooling devices.
pub(super) struct ThermalZone {
    class: PathBuf,
    reader: AttributeReader,
}

/// A zone's temperature comes from firmware, which may take its time; each processor is a cooling device.
const EVERY: Duration = Duration::from_secs(30);
const WITHIN: Duration = Duration::from_secs(10);
const MILLI: f64 = 1000.0;

impl ThermalZone {
    pub(super) fn new(roots: &Roots) -> ThermalZone {
        ThermalZone { class: roots.sysfs.join("class/thermal"), reader: AttributeReader::new() }
    }

    fn zone(&mut self, zone: &str, temperatures: &mut Family) -> Option<()> {
        let folder = self.class.join(format!("thermal_zone{zone}"));
        if self.reader.word(&folder.join("mode")).is_some_and(|mode| mode == "disabled") {
            return None;
        }
        let kind = self.reader.word(&folder.join("type"))?;
        let temperature: i64 = self.reader.number(&folder.join("temp"))?;
        temperatures.push(&[("zone", zone), ("type", &kind)], temperature as f64 / MILLI);
        Some(())
    }

    fn cooling_device(&mut self, name: &str, states: &mut [Family; 2]) -> Option<()> {
        let folder = self.class.join(format!("cooling_device{name}"));
        let kind = self.reader.word(&folder.join("type"))?;
        for (family, file) in states.iter_mut().zip(["cur_state", "max_state"]) {
            // Whole numbers, negative ones where a driver does not know.
            if let Some(state) = self.reader.number::<i64>(&folder.join(file)) {
                family.push(&[("name", name), ("type", &kind)], state as f64);
            }
        }
        Some(())
    }
}

impl Collector for ThermalZone {
    fn name(&self) -> &'static str {
        "thermal_zone"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let [zones, devices] = ["thermal_zone", "cooling_device"].map(|begin| numbered_in(&self.class, begin));
        if zones.is_empty() && devices.is_empty() {
            return Err(CollectError::Absent { path: self.class.join("thermal_zone0") });
        }
        let gauge = |name, help| Family::new(Kind::Gauge, name, help);
        let mut temperatures = gauge("node_thermal_zone_temp", "Zone temperature in Celsius");
        let mut states = [
            gauge("node_cooling_device_cur_state", "Current throttle state of the cooling device"),
            gauge("node_cooling_device_max_state", "Maximum throttle state of the cooling device"),
        ];
        // A zone that is asleep or gone says nothing; the others do.
        for zone in zones {
            let _ = self.zone(&zone, &mut temperatures);
        }
        for device in devices {
            let _ = self.cooling_device(&device, &mut states);
        }
        families.push(temperatures);
        families.extend(states);
        Ok(())
    }
}
