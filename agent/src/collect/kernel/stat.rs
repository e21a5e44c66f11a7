//! `/proc/stat` below its processor lines: interrupts, context switches, forks, processes, boot time, soft interrupts.

use crate::collect::kernel_file::KernelFile;
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Totals of the whole machine.
pub(super) struct Stat {
    file: KernelFile,
}

/// Key in the file, name, type, help.
const TOTALS: [(&str, &str, Kind, &str); 6] = [
    ("intr", "node_intr_total", Kind::Counter, "Total number of interrupts serviced."),
    ("ctxt", "node_context_switches_total", Kind::Counter, "Total number of context switches."),
    ("processes", "node_forks_total", Kind::Counter, "Total number of forks."),
    ("btime", "node_boot_time_seconds", Kind::Gauge, "Node boot time, in unixtime."),
    ("procs_running", "node_procs_running", Kind::Gauge, "Number of processes in runnable state."),
    ("procs_blocked", "node_procs_blocked", Kind::Gauge, "Number of processes blocked waiting for I/O to complete."),
];
/// Soft interrupts in the order in which the kernel prints them, after their total.
const VECTORS: [&str; 10] =
    ["hi", "timer", "net_tx", "net_rx", "block", "block_iopoll", "tasklet", "sched", "hrtimer", "rcu"];

impl Stat {
    pub(super) fn new(roots: &Roots) -> Stat {
        Stat { file: KernelFile::new(roots.procfs.join("stat")) }
    }
}

impl Collector for Stat {
    fn name(&self) -> &'static str {
        "stat"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        for line in text.lines() {
            let (key, rest) = line.split_once(' ').unwrap_or((line, ""));
            // `intr` has thousands of numbers on large machines; only the first is taken.
            let mut fields = rest.split_ascii_whitespace();
            if let Some((_, name, kind, help)) = TOTALS.iter().find(|(known, ..)| *known == key) {
                families.push(Family::new(*kind, *name, *help).with(text.number(fields.next(), line)?));
            } else if key == "softirq" {
                let mut family = Family::new(Kind::Counter, "node_softirqs_total", "Number of softirq calls.");
                for (vector, field) in VECTORS.iter().zip(fields.skip(1)) {
                    family.push(&[("vector", vector)], text.number(Some(field), line)?);
                }
                families.push(family);
            }
        }
        Ok(())
    }
}
