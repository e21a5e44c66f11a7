//! Memory errors that the controllers corrected or could not, by controller, row and channel. Each corrected one is an
//! announcement.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::attribute::{AttributeReader, names_in, numbered_in};
use super::super::{CollectError, Collector, Family, Kind, Pace, Roots};

/// Memory controllers.
pub(super) struct Edac {
    controllers: PathBuf,
    reader: AttributeReader,
}

/// Some controllers are asked through the machine's firmware; a host with eight has about 400 files.
const EVERY: Duration = Duration::from_secs(30);
const WITHIN: Duration = Duration::from_secs(10);

/// The families, corrected errors before the others.
struct Columns {
    controller: [Family; 2],
    row: [Family; 2],
    channel: [Family; 2],
}

const KINDS: [&str; 2] = ["ce", "ue"];

impl Edac {
    pub(super) fn new(roots: &Roots) -> Edac {
        Edac { controllers: roots.sysfs.join("devices/system/edac/mc"), reader: AttributeReader::new() }
    }

    fn read_row(&mut self, controller: &str, row: &str, folder: &Path, columns: &mut Columns) {
        for (family, kind) in columns.row.iter_mut().zip(KINDS) {
            if let Some(count) = self.reader.number(&folder.join(format!("{kind}_count"))) {
                family.push(&[("controller", controller), ("csrow", row)], count);
            }
        }
        for name in names_in(folder).unwrap_or_default() {
            let Some(channel) = name.strip_prefix("ch").and_then(|rest| rest.strip_suffix("_ce_count")) else {
                continue;
            };
            let label = self.reader.word(&folder.join(format!("ch{channel}_dimm_label")));
            let label = label.map_or_else(|| "unknown".to_owned(), |label| readable(&label));
            let labels =
                [("controller", controller), ("csrow", row), ("channel", channel), ("dimm_label", label.as_str())];
            for (family, kind) in columns.channel.iter_mut().zip(KINDS) {
                if let Some(count) = self.reader.number(&folder.join(format!("ch{channel}_{kind}_count"))) {
                    family.push(&labels, count);
                }
            }
        }
    }
}

impl Collector for Edac {
    fn name(&self) -> &'static str {
        "edac"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let controllers = numbered_in(&self.controllers, "mc");
        if controllers.is_empty() {
            return Err(CollectError::Absent { path: self.controllers.join("mc0") });
        }
        let mut columns = Columns::new();
        for controller in controllers {
            let folder = self.controllers.join(format!("mc{controller}"));
            for (place, kind) in KINDS.iter().enumerate() {
                if let Some(count) = self.reader.number(&folder.join(format!("{kind}_count"))) {
                    columns.controller[place].push(&[("controller", &controller)], count);
                }
                // Errors that the controller cannot tell the row of.
                if let Some(count) = self.reader.number(&folder.join(format!("{kind}_noinfo_count"))) {
                    columns.row[place].push(&[("controller", &controller), ("csrow", "unknown")], count);
                }
            }
            for row in numbered_in(&folder, "csrow") {
                self.read_row(&controller, &row, &folder.join(format!("csrow{row}")), &mut columns);
            }
        }
        families.extend(columns.controller);
        families.extend(columns.row);
        families.extend(columns.channel);
        Ok(())
    }
}

impl Columns {
    fn new() -> Columns {
        let family = |what: &str, of: &str, help: &str| {
            let help = format!("Total {what}correctable memory errors{help}.");
            Family::new(Kind::Counter, format!("node_edac_{of}{what}correctable_errors_total"), help)
        };
        let both = |of: &str, help: &str| ["", "un"].map(|what| family(what, of, help));
        Columns {
            controller: both("", ""),
            row: both("csrow_", " for this csrow"),
            channel: both("channel_", " for this channel"),
        }
    }
}

/// `mc#0csrow#1channel#0`, which the kernel makes up where the firmware names no slot, as node_exporter shows it.
fn readable(label: &str) -> String {
    label.replace('#', "").replace("csrow", "_csrow").replace("channel", "_channel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_slots() {
        assert_eq!(readable("mc#0csrow#1channel#0"), "mc0_csrow1_channel0");
        assert_eq!(readable("CPU_SrcID#0_MC#0_Chan#1_DIMM#0"), "CPU_SrcID0_MC0_Chan1_DIMM0");
    }
}
