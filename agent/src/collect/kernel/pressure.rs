//! `/proc/pressure/*`: for how long tasks waited for processor, memory, io and interrupts (PSI, kernel 4.20 and later).

use crate::collect::kernel_file::KernelFile;
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Pressure stall information.
pub(super) struct Pressure {
    sources: Vec<(KernelFile, &'static [Stall])>,
}

/// One line of one file, as a metric.
struct Stall {
    /// First word of the line: `some` tasks waited, or `full`: all of them did.
    word: &'static str,
    name: &'static str,
    help: &'static str,
}

const CPU: [Stall; 1] = [Stall {
    word: "some",
    name: "node_pressure_cpu_waiting_seconds_total",
    help: "Total time in seconds that processes have waited for CPU time",
}];
const IO: [Stall; 2] = [
    Stall {
        word: "some",
        name: "node_pressure_io_waiting_seconds_total",
        help: "Total time in seconds that processes have waited due to IO congestion",
    },
    Stall {
        word: "full",
        name: "node_pressure_io_stalled_seconds_total",
        help: "Total time in seconds no process could make progress due to IO congestion",
    },
];
const MEMORY: [Stall; 2] = [
    Stall {
        word: "some",
        name: "node_pressure_memory_waiting_seconds_total",
        help: "Total time in seconds that processes have waited for memory",
    },
    Stall {
        word: "full",
        name: "node_pressure_memory_stalled_seconds_total",
        help: "Total time in seconds no process could make progress due to memory congestion",
    },
];
const IRQ: [Stall; 1] = [Stall {
    word: "full",
    name: "node_pressure_irq_stalled_seconds_total",
    help: "Total time in seconds no process could make progress due to IRQ congestion",
}];

impl Pressure {
    pub(super) fn new(roots: &Roots) -> Pressure {
        let file = |name| KernelFile::new(roots.procfs.join("pressure").join(name));
        Pressure {
            sources: vec![(file("cpu"), &CPU), (file("io"), &IO), (file("memory"), &MEMORY), (file("irq"), &IRQ)],
        }
    }
}

impl Collector for Pressure {
    fn name(&self) -> &'static str {
        "pressure"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let before = families.len();
        let mut absent = Ok(());
        for (file, stalls) in &mut self.sources {
            let text = match file.read() {
                Ok(text) => text,
                // Older kernels lack some of the files (`irq` came with 6.1); one booted with psi=0 refuses to read them.
                Err(error @ CollectError::Absent { .. }) => {
                    absent = Err(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            for line in text.lines() {
                let mut fields = line.split_whitespace();
                let Some(stall) = fields.next().and_then(|word| stalls.iter().find(|stall| stall.word == word)) else {
                    continue;
                };
                let total = fields.find_map(|field| field.strip_prefix("total="));
                // Microseconds, divided twice by a thousand as node_exporter does, for the same last digit.
                let seconds = text.number(total, line)? / 1000.0 / 1000.0;
                families.push(Family::new(Kind::Counter, stall.name, stall.help).with(seconds));
            }
        }
        if families.len() == before { absent } else { Ok(()) }
    }
}
