//! sbd's disks, by which hosts tell each other to die: whether each can be read, its time-outs, messages that wait. Only the
//! reading calls of `sbd` are used; a message or an allocation is never written from here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::collect::Kind::Gauge;
use crate::collect::asked::ask;
use crate::collect::columns::{Column, Columns};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Fencing by poison pill.
pub(super) struct Sbd {
    /// Where distributions keep its settings.
    settings: [PathBuf; 2],
}

const EVERY: Duration = Duration::from_secs(30);
/// Each disk is asked twice, one disk after the other; one that hangs makes the whole reading late, which is told.
const WITHIN: Duration = Duration::from_secs(20);
/// sbd itself takes three.
const DEVICES_MAX: usize = 8;

const COLUMNS: [Column; 3] = [
    ("ha_cluster_sbd_devices", Gauge, "SBD devices; one line per device"),
    ("ha_cluster_sbd_timeouts", Gauge, "SBD timeouts for each device and type"),
    ("petrel_sbd_message_waits", Gauge, "Whether a message other than clear waits for the node on the device."),
];

impl Sbd {
    pub(super) fn new(roots: &Roots) -> Sbd {
        Sbd { settings: ["etc/sysconfig/sbd", "etc/default/sbd"].map(|path| roots.rootfs.join(path)) }
    }

    /// The devices that the host's settings name.
    fn devices(&self) -> Result<Vec<String>, CollectError> {
        for path in &self.settings {
            let text = match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) if is_absent(&error) => continue,
                Err(source) => return Err(CollectError::Read { path: path.clone(), source }),
            };
            let devices = read_devices(&text);
            if !devices.is_empty() {
                return Ok(devices);
            }
        }
        // Also where sbd works without disks.
        Err(CollectError::Absent { path: Path::new("SBD_DEVICE in ").join(&self.settings[1]) })
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

impl Collector for Sbd {
    fn name(&self) -> &'static str {
        "sbd"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let mut columns = Columns::new(&COLUMNS);
        for device in self.devices()?.iter().take(DEVICES_MAX) {
            let dump = ask("sbd", &["-d", device, "dump"], WITHIN)?;
            read_dump(&dump.out, dump.well(), device, &mut columns);
            if dump.well() {
                read_slots(&ask("sbd", &["-d", device, "list"], WITHIN)?.out, device, &mut columns);
            }
        }
        columns.append_to(families)
    }
}

/// The devices of the last `SBD_DEVICE="/dev/a;/dev/b"`, as a shell would take it.
fn read_devices(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    let value = lines.filter_map(|line| line.strip_prefix("SBD_DEVICE=")).next_back().unwrap_or_default();
    let value = value.trim().trim_matches(['"', '\'']);
    value.split([';', ' ']).map(str::trim).filter(|device| device.starts_with('/')).map(str::to_owned).collect()
}

/// Reads `sbd dump`: lines such as `Timeout (msgwait)  : 10`.
fn read_dump(text: &str, well: bool, device: &str, columns: &mut Columns) {
    let status = if well { "healthy" } else { "unhealthy" };
    columns.push("ha_cluster_sbd_devices", &[("device", device), ("status", status)], 1.0);
    for (key, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let kind = match key.trim() {
            "Timeout (watchdog)" => "watchdog",
            "Timeout (msgwait)" => "msgwait",
            _ => continue,
        };
        if let Ok(seconds) = value.trim().parse() {
            columns.push("ha_cluster_sbd_timeouts", &[("device", device), ("type", kind)], seconds);
        }
    }
}

/// Reads `sbd list`: slot, node, message, sender, with tabs between.
fn read_slots(text: &str, device: &str, columns: &mut Columns) {
    for line in text.lines() {
        let mut cells = line.split('\t');
        if let (Some(_slot), Some(node), Some(message)) = (cells.next(), cells.next(), cells.next()) {
            let labels = [("device", device), ("node", node)];
            columns.flag("petrel_sbd_message_waits", &labels, message != "clear");
        }
    }
}

/// All that is read here, from one text, whatever it is: for fuzzing.
pub(super) fn hostile(text: &str) {
    let mut columns = Columns::new(&COLUMNS);
    drop(read_devices(text));
    read_dump(text, true, "/dev/a", &mut columns);
    read_slots(text, "/dev/a", &mut columns);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn disks_time_outs_and_messages_are_told() {
        let mut columns = Columns::new(&COLUMNS);
        read_dump(include_str!("../../../testdata/sbd/dump.txt"), true, "/dev/loop1", &mut columns);
        read_slots(include_str!("../../../testdata/sbd/list.txt"), "/dev/loop1", &mut columns);
        read_dump("==Dumping header on disk /dev/null\n", false, "/dev/null", &mut columns);
        expect![[r#"
            ha_cluster_sbd_devices{device="/dev/loop1",status="healthy"} 1
            ha_cluster_sbd_devices{device="/dev/null",status="unhealthy"} 1
            ha_cluster_sbd_timeouts{device="/dev/loop1",type="watchdog"} 5
            ha_cluster_sbd_timeouts{device="/dev/loop1",type="msgwait"} 10
            petrel_sbd_message_waits{device="/dev/loop1",node="h1"} 0
            petrel_sbd_message_waits{device="/dev/loop1",node="h2"} 1
        "#]]
        .assert_eq(&columns.samples(|_| true));
    }

    #[test]
    fn settings_are_read_as_a_shell_would() {
        for (text, devices) in [
            ("# SBD_DEVICE=\"/dev/x\"\nSBD_PACEMAKER=yes\n", &[][..]),
            ("SBD_DEVICE=\"\"\n", &[]),
            (" SBD_DEVICE=/dev/old\n  SBD_DEVICE=\"/dev/disk/by-id/a; /dev/b;\" \n", &["/dev/disk/by-id/a", "/dev/b"]),
            ("SBD_DEVICE='/dev/a'\n", &["/dev/a"]),
        ] {
            assert_eq!(read_devices(text), devices, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "((SBD_DEVICE=|Timeout \\(msgwait\\)|[\":;\t/]|[0-9]|é|\\PC)\n?){0,30}") {
            let mut columns = Columns::new(&COLUMNS);
            drop(read_devices(&text));
            read_dump(&text, true, "/dev/a", &mut columns);
            read_slots(&text, "/dev/a", &mut columns);
        }
    }
}
