//! `/sys/class/watchdog`: the timers that reset a host which hangs, and whether one did.

use std::path::PathBuf;

use crate::collect::attribute::{AttributeReader, names_in};
use crate::collect::tables::{Column, FileColumn, FileTable, file, gauge};
use crate::collect::{CollectError, Collector, Family, Roots};

/// Watchdog timers.
pub(super) struct Watchdog {
    class: PathBuf,
    reader: AttributeReader,
}

const FILES: &[FileColumn] = &[
    file("access_cs0", gauge("node_watchdog_access_cs0", "Value of /sys/class/watchdog/<watchdog>/access_cs0")),
    file("bootstatus", gauge("node_watchdog_bootstatus", "Value of /sys/class/watchdog/<watchdog>/bootstatus")),
    file("fw_version", gauge("node_watchdog_fw_version", "Value of /sys/class/watchdog/<watchdog>/fw_version")),
    file("nowayout", gauge("node_watchdog_nowayout", "Value of /sys/class/watchdog/<watchdog>/nowayout")),
    file("pretimeout", gauge("node_watchdog_pretimeout_seconds", "Value of /sys/class/watchdog/<watchdog>/pretimeout")),
    file("timeleft", gauge("node_watchdog_timeleft_seconds", "Value of /sys/class/watchdog/<watchdog>/timeleft")),
    file("timeout", gauge("node_watchdog_timeout_seconds", "Value of /sys/class/watchdog/<watchdog>/timeout")),
];
const INFO: Column = gauge("node_watchdog_info", "Info of /sys/class/watchdog/<watchdog>");
const TEXTS: [&str; 5] = ["identity", "options", "pretimeout_governor", "state", "status"];

impl Watchdog {
    pub(super) fn new(roots: &Roots) -> Watchdog {
        Watchdog { class: roots.sysfs.join("class/watchdog"), reader: AttributeReader::new() }
    }
}

impl Collector for Watchdog {
    fn name(&self) -> &'static str {
        "watchdog"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let watchdogs = names_in(&self.class).unwrap_or_default();
        if watchdogs.is_empty() {
            return Err(CollectError::Absent { path: self.class.join("watchdog0") });
        }
        let mut table = FileTable::new(FILES);
        let mut info = INFO.family();
        for watchdog in &watchdogs {
            let folder = self.class.join(watchdog);
            table.read(&mut self.reader, &folder, &[("name", watchdog)]);
            let texts = TEXTS.map(|file| self.reader.word(&folder.join(file)).unwrap_or_default());
            let mut labels = vec![("name", watchdog.as_str())];
            labels.extend(TEXTS.iter().zip(&texts).map(|(name, text)| (*name, text.as_str())));
            info.push(&labels, 1.0);
        }
        families.extend(table.into_families());
        families.push(info);
        Ok(())
    }
}
