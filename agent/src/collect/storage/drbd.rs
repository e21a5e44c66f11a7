//! `/proc/drbd` of DRBD 8: what is replicated, to whom it is connected, whether both sides are up to date. DRBD 9 prints
//! its version there and no more; nothing comes of that.

use super::super::kernel_file::{KernelFile, KernelText};
use super::super::{CollectError, Collector, Family, Kind, Roots};

/// Replicated devices.
pub(super) struct Drbd {
    file: KernelFile,
}

/// Key in the file, name after `node_drbd_`, type, factor to the base unit, help.
type Number = (&'static str, &'static str, Kind, f64, &'static str);

const KIB: f64 = 1024.0;

/// `nr` counts KiB too, but node_exporter takes it as it is: dashboards know it so.
const NUMBERS: [Number; 12] = [
    ("ns", "network_sent_bytes_total", Kind::Counter, KIB, "Total number of bytes sent via the network."),
    ("nr", "network_received_bytes_total", Kind::Counter, 1.0, "Total number of bytes received via the network."),
    ("dw", "disk_written_bytes_total", Kind::Counter, KIB, "Net data written on local hard disk; in bytes."),
    ("dr", "disk_read_bytes_total", Kind::Counter, KIB, "Net data read from local hard disk; in bytes."),
    (
        "al",
        "activitylog_writes_total",
        Kind::Counter,
        1.0,
        "Number of updates of the activity log area of the meta data.",
    ),
    ("bm", "bitmap_writes_total", Kind::Counter, 1.0, "Number of updates of the bitmap area of the meta data."),
    ("lo", "local_pending", Kind::Gauge, 1.0, "Number of open requests to the local I/O sub-system."),
    (
        "pe",
        "remote_pending",
        Kind::Gauge,
        1.0,
        "Number of requests sent to the peer, but that have not yet been answered by the latter.",
    ),
    (
        "ua",
        "remote_unacknowledged",
        Kind::Gauge,
        1.0,
        "Number of requests received by the peer via the network connection, but that have not yet been answered.",
    ),
    (
        "ap",
        "application_pending",
        Kind::Gauge,
        1.0,
        "Number of block I/O requests forwarded to DRBD, but not yet answered by DRBD.",
    ),
    ("ep", "epochs", Kind::Gauge, 1.0, "Number of Epochs currently on the fly."),
    ("oos", "out_of_sync_bytes", Kind::Gauge, KIB, "Amount of data known to be out of sync; in bytes."),
];

/// What each side tells of itself: key in the file, name after `node_drbd_`, the word that counts as 1, help.
const PAIRS: [(&str, &str, &str, &str); 2] = [
    ("ro", "node_role_is_primary", "Primary", "Whether the role of the node is in the primary state."),
    ("ds", "disk_state_is_up_to_date", "UpToDate", "Whether the disk of the node is up to date."),
];

impl Drbd {
    pub(super) fn new(roots: &Roots) -> Drbd {
        Drbd { file: KernelFile::new(roots.procfs.join("drbd")) }
    }
}

impl Collector for Drbd {
    fn name(&self) -> &'static str {
        "drbd"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        parse(&self.file.read()?, families)
    }
}

/// Takes the words of the form `key:value`. A word `1:` begins device `drbd1`; what stands before the first is of the driver.
fn parse(text: &KernelText<'_>, families: &mut Vec<Family>) -> Result<(), CollectError> {
    let gauge = |name: &str, help: &'static str| Family::new(Kind::Gauge, format!("node_drbd_{name}"), help);
    let mut numbers: Vec<Family> =
        NUMBERS.iter().map(|(_, name, kind, _, help)| Family::new(*kind, format!("node_drbd_{name}"), *help)).collect();
    let mut pairs: Vec<Family> = PAIRS.iter().map(|(_, name, _, help)| gauge(name, help)).collect();
    let mut connected = gauge("connected", "Whether DRBD is connected to the peer.");
    let mut device = None;
    for line in text.lines() {
        for (key, value) in line.split_ascii_whitespace().filter_map(|word| word.split_once(':')) {
            if value.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit()) && !key.is_empty() {
                device = Some(format!("drbd{key}"));
                continue;
            }
            let Some(device) = device.as_deref() else { continue };
            if let Some(place) = NUMBERS.iter().position(|(known, ..)| *known == key) {
                let value = text.number(Some(value), line)? * NUMBERS[place].3;
                numbers[place].push(&[("device", device)], value);
            } else if let Some(place) = PAIRS.iter().position(|(known, ..)| *known == key) {
                let (local, remote) = value.split_once('/').ok_or_else(|| text.malformed(line))?;
                for (node, said) in [("local", local), ("remote", remote)] {
                    let is_so = f64::from(u8::from(said == PAIRS[place].2));
                    pairs[place].push(&[("device", device), ("node", node)], is_so);
                }
            } else if key == "cs" {
                connected.push(&[("device", device)], f64::from(u8::from(value == "Connected")));
            }
        }
    }
    families.append(&mut numbers);
    families.append(&mut pairs);
    families.push(connected);
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::super::{text, trial};
    use super::*;

    /// Recorded from DRBD 8.4.11 while it synchronised, and after the peer went away.
    const SAMPLE: &str = "version: 8.4.11 (api:1/proto:86-101)\nsrcversion: F73C670A7EC572DB9CF3E5B \n \
        0: cs:SyncSource ro:Primary/Secondary ds:UpToDate/Inconsistent C r-----\n    \
        ns:288 nr:0 dw:0 dr:288 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:16056\n\
        \t[====>...............] sync'ed: 25.0% (16056/16344)K\n\tfinish: 0:00:40 speed: 288 (288) K/sec\n \
        1: cs:WFConnection ro:Primary/Unknown ds:UpToDate/DUnknown C r-----\n    \
        ns:16344 nr:0 dw:0 dr:16344 al:8 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:0\n 2: cs:Unconfigured\n";

    #[test]
    fn two_devices_of_which_one_lost_its_peer() {
        let mut families = Vec::new();
        parse(&KernelText::of(SAMPLE.as_bytes()), &mut families).unwrap();
        let shown = trial::series(&text::render(&families));
        let told: String = shown
            .split_inclusive('\n')
            .filter(|line| ["sent", "out_of", "role", "state", "connected"].iter().any(|part| line.contains(part)))
            .collect();
        expect![[r#"
            node_drbd_network_sent_bytes_total{device="drbd0"} 294912
            node_drbd_network_sent_bytes_total{device="drbd1"} 16736256
            node_drbd_out_of_sync_bytes{device="drbd0"} 16441344
            node_drbd_out_of_sync_bytes{device="drbd1"} 0
            node_drbd_node_role_is_primary{device="drbd0",node="local"} 1
            node_drbd_node_role_is_primary{device="drbd0",node="remote"} 0
            node_drbd_node_role_is_primary{device="drbd1",node="local"} 1
            node_drbd_node_role_is_primary{device="drbd1",node="remote"} 0
            node_drbd_disk_state_is_up_to_date{device="drbd0",node="local"} 1
            node_drbd_disk_state_is_up_to_date{device="drbd0",node="remote"} 0
            node_drbd_disk_state_is_up_to_date{device="drbd1",node="local"} 1
            node_drbd_disk_state_is_up_to_date{device="drbd1",node="remote"} 0
            node_drbd_connected{device="drbd0"} 0
            node_drbd_connected{device="drbd1"} 0
            node_drbd_connected{device="drbd2"} 0
        "#]]
        .assert_eq(&told);
    }

    #[test]
    fn drbd_9_tells_its_version_only() {
        let mut families = Vec::new();
        let version =
            b"version: 9.1.16 (api:2/proto:110-121)\nGIT-hash: 1 build by x\nTransports (api:18): tcp (9.1.16)\n";
        parse(&KernelText::of(version), &mut families).unwrap();
        assert!(families.iter().all(|family| family.points.is_empty()));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let _ = parse(&KernelText::of(&bytes), &mut Vec::new());
        }
    }
}
