//! `/sys/class/scsi_tape`: traffic of tape drives, for hosts that back up to them.

use std::path::PathBuf;

use crate::collect::attribute::{AttributeReader, numbered_in};
use crate::collect::tables::{FileColumn, FileTable, counter, file, gauge};
use crate::collect::{CollectError, Collector, Family, Roots};

/// Tape drives.
pub(super) struct Tapestats {
    class: PathBuf,
    reader: AttributeReader,
}

const NANOSECONDS: f64 = 1e-9;
const FILES: &[FileColumn] = &[
    file("stats/in_flight", gauge("node_tape_io_now", "The number of I/Os currently outstanding to this device.")),
    file(
        "stats/io_ns",
        counter(
            "node_tape_io_time_seconds_total",
            "The amount of time spent waiting for all I/O to complete (including read and write). This includes tape movement \
             commands such as seeking between file or set marks and implicit tape movement such as when rewind on close tape \
             devices are used.",
        ),
    )
    .times(NANOSECONDS),
    file(
        "stats/other_cnt",
        counter(
            "node_tape_io_others_total",
            "The number of I/Os issued to the tape drive other than read or write commands. The time taken to complete these \
             commands uses the following calculation io_time_seconds_total-read_time_seconds_total-write_time_seconds_total",
        ),
    ),
    file(
        "stats/read_byte_cnt",
        counter("node_tape_read_bytes_total", "The number of bytes read from the tape drive."),
    ),
    file(
        "stats/read_cnt",
        counter("node_tape_reads_completed_total", "The number of read requests issued to the tape drive."),
    ),
    file(
        "stats/read_ns",
        counter(
            "node_tape_read_time_seconds_total",
            "The amount of time spent waiting for read requests to complete.",
        ),
    )
    .times(NANOSECONDS),
    file(
        "stats/resid_cnt",
        counter(
            "node_tape_residual_total",
            "The number of times during a read or write we found the residual amount to be non-zero. This should mean that a \
             program is issuing a read larger thean the block size on tape. For write not all data made it to tape.",
        ),
    ),
    file(
        "stats/write_byte_cnt",
        counter("node_tape_written_bytes_total", "The number of bytes written to the tape drive."),
    ),
    file(
        "stats/write_cnt",
        counter("node_tape_writes_completed_total", "The number of write requests issued to the tape drive."),
    ),
    file(
        "stats/write_ns",
        counter(
            "node_tape_write_time_seconds_total",
            "The amount of time spent waiting for write requests to complete.",
        ),
    )
    .times(NANOSECONDS),
];

impl Tapestats {
    pub(super) fn new(roots: &Roots) -> Tapestats {
        Tapestats { class: roots.sysfs.join("class/scsi_tape"), reader: AttributeReader::new() }
    }
}

impl Collector for Tapestats {
    fn name(&self) -> &'static str {
        "tapestats"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        // `st0a` and `nst0` are the same drive in another mode.
        let drives = numbered_in(&self.class, "st");
        let drives: Vec<String> =
            drives.into_iter().filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())).collect();
        if drives.is_empty() {
            return Err(CollectError::Absent { path: self.class.join("st0") });
        }
        let mut table = FileTable::new(FILES);
        for drive in drives {
            let device = format!("st{drive}");
            table.read(&mut self.reader, &self.class.join(&device), &[("device", &device)]);
        }
        families.extend(table.into_families());
        Ok(())
    }
}
