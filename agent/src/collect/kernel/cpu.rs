//! `/proc/stat`, processor lines: seconds in each mode. What else is known of processors is in `cpu_info`.

use std::collections::BTreeMap;

use super::cpu_info::CpuInfo;
use crate::collect::kernel_file::KernelFile;
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Processors.
pub(super) struct Cpu {
    file: KernelFile,
    info: CpuInfo,
    /// Highest seconds seen by processor; see [`no_step_back`].
    highest: BTreeMap<u32, Seconds>,
}

/// Seconds in each mode of [`MODES`], then of [`GUEST_MODES`].
type Seconds = [f64; 10];

const MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];
const GUEST_MODES: [&str; 2] = ["user", "nice"];
const IDLE: usize = 3;
/// The kernel prints ticks of USER_HZ, which is 100 on every architecture of Linux that runs virtual machines.
const TICKS_PER_SECOND: f64 = 100.0;
/// A processor whose idle time falls by more was unplugged and starts anew; by less, the kernel's accounting wavered.
const RESTART_SECONDS: f64 = 3.0;

impl Cpu {
    pub(super) fn new(roots: &Roots) -> Cpu {
        Cpu { file: KernelFile::new(roots.procfs.join("stat")), info: CpuInfo::new(roots), highest: BTreeMap::new() }
    }
}

impl Collector for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let text = self.file.read()?;
        let mut current = BTreeMap::new();
        for line in text.lines().take_while(|line| line.starts_with("cpu")) {
            let mut fields = line.split_ascii_whitespace();
            let number = fields.next().and_then(|name| name.strip_prefix("cpu")).unwrap_or_default();
            // The first line is the sum of all.
            if number.is_empty() {
                continue;
            }
            let number: u32 = number.parse().map_err(|_| text.malformed(line))?;
            let mut seconds: Seconds = [0.0; 10];
            for mode in &mut seconds {
                // Old kernels print fewer columns.
                let Some(field) = fields.next() else { break };
                *mode = text.number(Some(field), line)? / TICKS_PER_SECOND;
            }
            current.insert(number, no_step_back(self.highest.get(&number), seconds));
        }
        self.highest = current;
        self.emit(families);
        self.info.collect(self.highest.len(), families);
        Ok(())
    }
}

impl Cpu {
    fn emit(&self, families: &mut Vec<Family>) {
        let mut all = Family::new(Kind::Counter, "node_cpu_seconds_total", "Seconds the CPUs spent in each mode.");
        let mut guest = Family::new(
            Kind::Counter,
            "node_cpu_guest_seconds_total",
            "Seconds the CPUs spent in guests (VMs) for each mode.",
        );
        for (number, seconds) in &self.highest {
            let number = number.to_string();
            for (mode, value) in MODES.iter().zip(seconds) {
                all.push(&[("cpu", &number), ("mode", mode)], *value);
            }
            for (mode, value) in GUEST_MODES.iter().zip(&seconds[MODES.len()..]) {
                guest.push(&[("cpu", &number), ("mode", mode)], *value);
            }
        }
        families.extend([all, guest]);
    }
}

/// Keeps counters from falling: the kernel's idle and iowait times waver by some ticks, and a rate over a fall would see
/// a restart with all its seconds at once. Same rule as node_exporter's.
fn no_step_back(before: Option<&Seconds>, mut now: Seconds) -> Seconds {
    let Some(before) = before else { return now };
    if now[IDLE] + RESTART_SECONDS < before[IDLE] {
        return now;
    }
    for (mode, highest) in now.iter_mut().zip(before) {
        *mode = mode.max(*highest);
    }
    now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_do_not_waver_and_unplugged_processors_start_anew() {
        let at = |idle: f64, iowait: f64| [1.0, 0.0, 0.0, idle, iowait, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(no_step_back(None, at(10.0, 5.0)), at(10.0, 5.0));
        assert_eq!(no_step_back(Some(&at(10.0, 5.0)), at(9.9, 4.0)), at(10.0, 5.0));
        assert_eq!(no_step_back(Some(&at(10.0, 5.0)), at(11.0, 4.0)), at(11.0, 5.0));
        assert_eq!(no_step_back(Some(&at(10.0, 5.0)), at(1.0, 0.0)), at(1.0, 0.0));
    }
}
