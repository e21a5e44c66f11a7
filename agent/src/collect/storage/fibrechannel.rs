//! `/sys/class/fc_host`: ports to a Fibre Channel network. Words and frames with errors announce a failing fibre or optic.

use std::path::PathBuf;
use std::time::Duration;

use crate::collect::attribute::{AttributeReader, names_in};
use crate::collect::tables::{Column, FileColumn, FileTable, counter, file, gauge};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Fibre Channel ports.
pub(super) struct Fibrechannel {
    class: PathBuf,
    reader: AttributeReader,
}

const INFO: Column =
    gauge("node_fibrechannel_info", "Non-numeric data from /sys/class/fc_host/<host>, value is always 1.");
/// Files of a host that are labels; whether they are numbers with `0x` before them.
const TEXTS: [(&str, bool); 10] = [
    ("dev_loss_tmo", false),
    ("fabric_name", true),
    ("port_id", true),
    ("port_name", true),
    ("port_state", false),
    ("port_type", false),
    ("speed", false),
    ("supported_classes", false),
    ("supported_speeds", false),
    ("symbolic_name", false),
];
/// What a card does not count reads as all ones, which is left out.
const FILES: &[FileColumn] = &[
    file("statistics/dumped_frames", counter("node_fibrechannel_dumped_frames_total", "Number of dumped frames")),
    file("statistics/error_frames", counter("node_fibrechannel_error_frames_total", "Number of errors in frames")),
    file(
        "statistics/fcp_packet_aborts",
        counter("node_fibrechannel_fcp_packet_aborts_total", "Number of aborted packets"),
    ),
    file(
        "statistics/invalid_crc_count",
        counter("node_fibrechannel_invalid_crc_total", "Invalid Cyclic Redundancy Check count"),
    ),
    file(
        "statistics/invalid_tx_word_count",
        counter("node_fibrechannel_invalid_tx_words_total", "Number of invalid words transmitted by host port"),
    ),
    file(
        "statistics/link_failure_count",
        counter("node_fibrechannel_link_failure_total", "Number of times the host port link has failed"),
    ),
    file(
        "statistics/loss_of_signal_count",
        counter("node_fibrechannel_loss_of_signal_total", "Number of times signal has been lost"),
    ),
    file(
        "statistics/loss_of_sync_count",
        counter(
            "node_fibrechannel_loss_of_sync_total",
            "Number of failures on either bit or transmission word boundaries",
        ),
    ),
    file(
        "statistics/nos_count",
        counter("node_fibrechannel_nos_total", "Number Not_Operational Primitive Sequence received by host port"),
    ),
    file("statistics/rx_frames", counter("node_fibrechannel_rx_frames_total", "Number of frames received")),
    file("statistics/rx_words", counter("node_fibrechannel_rx_words_total", "Number of words received by host port")),
    file(
        "statistics/seconds_since_last_reset",
        counter("node_fibrechannel_seconds_since_last_reset_total", "Number of seconds since last host port reset"),
    ),
    file(
        "statistics/tx_frames",
        counter("node_fibrechannel_tx_frames_total", "Number of frames transmitted by host port"),
    ),
    file(
        "statistics/tx_words",
        counter("node_fibrechannel_tx_words_total", "Number of words transmitted by host port"),
    ),
];

impl Fibrechannel {
    pub(super) fn new(roots: &Roots) -> Fibrechannel {
        Fibrechannel { class: roots.sysfs.join("class/fc_host"), reader: AttributeReader::new() }
    }
}

impl Collector for Fibrechannel {
    fn name(&self) -> &'static str {
        "fibrechannel"
    }

    fn pace(&self) -> Pace {
        // The counters are asked of the card's firmware, which takes its time.
        Pace::Apart { every: Duration::from_secs(10), within: Duration::from_secs(30) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let hosts = names_in(&self.class).unwrap_or_default();
        if hosts.is_empty() {
            return Err(CollectError::Absent { path: self.class.join("host0") });
        }
        let mut info = INFO.family();
        let mut table = FileTable::new(FILES);
        for host in &hosts {
            let folder = self.class.join(host);
            let texts = TEXTS.map(|(file, is_number)| {
                let text = self.reader.word(&folder.join(file)).unwrap_or_default();
                text.strip_prefix("0x").filter(|_| is_number).map_or(text.clone(), str::to_owned)
            });
            let mut labels = vec![("fc_host", host.as_str())];
            labels.extend(TEXTS.iter().zip(&texts).map(|((label, _), text)| (*label, text.as_str())));
            info.push(&labels, 1.0);
            table.read(&mut self.reader, &folder, &[("fc_host", host)]);
        }
        families.push(info);
        families.extend(table.into_families());
        Ok(())
    }
}
