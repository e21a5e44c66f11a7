//! `/proc/net/dev`: bytes, packets and faults of every network device, in the network namespace the agent lives in.

use std::path::PathBuf;

use crate::collect::kernel_file::{KernelFile, read_word};
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Network devices.
pub(super) struct Netdev {
    file: KernelFile,
    class_net: PathBuf,
}

/// The sixteen columns, in the kernel's order.
const COLUMNS: [&str; 16] = [
    "receive_bytes",
    "receive_packets",
    "receive_errs",
    "receive_drop",
    "receive_fifo",
    "receive_frame",
    "receive_compressed",
    "receive_multicast",
    "transmit_bytes",
    "transmit_packets",
    "transmit_errs",
    "transmit_drop",
    "transmit_fifo",
    "transmit_colls",
    "transmit_carrier",
    "transmit_compressed",
];

impl Netdev {
    pub(super) fn new(roots: &Roots) -> Netdev {
        Netdev { file: KernelFile::new(roots.procfs.join("net/dev")), class_net: roots.sysfs.join("class/net") }
    }
}

impl Collector for Netdev {
    fn name(&self) -> &'static str {
        "netdev"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        let family = |column: &str| {
            Family::new(
                Kind::Counter,
                format!("node_network_{column}_total"),
                format!("Network device statistic {column}."),
            )
        };
        let mut columns: Vec<Family> = COLUMNS.iter().map(|column| family(column)).collect();
        let mut nohandler = family("receive_nohandler");
        // Two header lines; a device's name ends at the last colon before its numbers, as `eth0:1` is a name.
        for line in text.lines().skip(2) {
            let (device, rest) = line.rsplit_once(':').ok_or_else(|| text.malformed(line))?;
            let labels = [("device", device.trim())];
            let mut fields = rest.split_ascii_whitespace();
            for column in &mut columns {
                column.push(&labels, text.number(fields.next(), line)?);
            }
            // Not in the table, and node_exporter has it from netlink; sysfs says the same.
            let path = self.class_net.join(device.trim()).join("statistics/rx_nohandler");
            if let Some(count) = read_word(&path).and_then(|word| word.parse().ok()) {
                nohandler.push(&labels, count);
            }
        }
        families.append(&mut columns);
        families.push(nohandler);
        Ok(())
    }
}
