//! `/sys/class/infiniband`: InfiniBand and RoCE cards, port by port: state, traffic and the errors that announce a bad
//! cable.

use std::path::PathBuf;
use std::time::Duration;

use super::infiniband_counters::COUNTERS;
use crate::collect::attribute::{AttributeReader, names_in};
use crate::collect::tables::{Column, FileTable, gauge};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// InfiniBand cards.
pub(super) struct Infiniband {
    class: PathBuf,
    reader: AttributeReader,
}

const INFO: Column =
    gauge("node_infiniband_info", "Non-numeric data from /sys/class/infiniband/<device>, value is always 1.");
const TEXTS: [(&str, &str); 3] = [("board_id", "board_id"), ("firmware_version", "fw_ver"), ("hca_type", "hca_type")];
const STATE: Column = gauge(
    "node_infiniband_state_id",
    "State of the InfiniBand port (0: no change, 1: down, 2: init, 3: armed, 4: active, 5: act defer)",
);
const PHYSICAL: Column = gauge(
    "node_infiniband_physical_state_id",
    "Physical state of the InfiniBand port (0: no change, 1: sleep, 2: polling, 3: disable, 4: shift, 5: link up, 6: link \
     error recover, 7: phytest)",
);
const RATE: Column = gauge("node_infiniband_rate_bytes_per_second", "Maximum signal transfer rate");
/// A gigabit in bytes.
const GIGABIT: f64 = 125_000_000.0;

impl Infiniband {
    pub(super) fn new(roots: &Roots) -> Infiniband {
        Infiniband { class: roots.sysfs.join("class/infiniband"), reader: AttributeReader::new() }
    }
}

impl Collector for Infiniband {
    fn name(&self) -> &'static str {
        "infiniband"
    }

    fn pace(&self) -> Pace {
        // The counters are asked of the card's firmware.
        Pace::Apart { every: Duration::from_secs(10), within: Duration::from_secs(30) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let devices = names_in(&self.class).unwrap_or_default();
        if devices.is_empty() {
            return Err(CollectError::Absent { path: self.class.join("*") });
        }
        let mut info = INFO.family();
        let mut states = [(STATE, "state"), (PHYSICAL, "phys_state")].map(|(column, file)| (column.family(), file));
        let mut rates = RATE.family();
        let mut counters = FileTable::new(COUNTERS);
        for device in &devices {
            let folder = self.class.join(device);
            let texts = TEXTS.map(|(_, file)| self.reader.word(&folder.join(file)).unwrap_or_default());
            let mut labels = vec![("device", device.as_str())];
            labels.extend(TEXTS.iter().zip(&texts).map(|((label, _), text)| (*label, text.as_str())));
            info.push(&labels, 1.0);
            for port in names_in(&folder.join("ports")).unwrap_or_default() {
                let folder = folder.join("ports").join(&port);
                let labels = [("device", device.as_str()), ("port", port.as_str())];
                for (family, file) in &mut states {
                    if let Some(state) = self.reader.word(&folder.join(*file)).and_then(|text| state_id(&text)) {
                        family.push(&labels, state);
                    }
                }
                if let Some(rate) = self.reader.word(&folder.join("rate")).and_then(|text| rate(&text)) {
                    rates.push(&labels, rate);
                }
                counters.read(&mut self.reader, &folder, &labels);
            }
        }
        families.push(info);
        families.extend(states.map(|(family, _)| family));
        families.push(rates);
        families.extend(counters.into_families());
        Ok(())
    }
}

/// `4: ACTIVE`.
fn state_id(text: &str) -> Option<f64> {
    text.split_once(':')?.0.trim().parse::<u32>().ok().map(f64::from)
}

/// `40 Gb/sec (4X QDR)` in bytes per second.
fn rate(text: &str) -> Option<f64> {
    let gigabits: f64 = text.split_once(' ')?.0.parse().ok()?;
    (gigabits.is_finite() && gigabits >= 0.0).then(|| (gigabits * GIGABIT).trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_rates() {
        assert_eq!((state_id("4: ACTIVE"), state_id("ACTIVE"), state_id("")), (Some(4.0), None, None));
        assert_eq!((rate("2.5 Gb/sec (1X SDR)"), rate("inf Gb/sec"), rate("40")), (Some(312_500_000.0), None, None));
    }
}
