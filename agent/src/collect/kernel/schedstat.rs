//! `/proc/schedstat`: for how long each processor ran tasks, and how long tasks waited for it.

use super::super::kernel_file::{KernelFile, KernelText};
use super::super::{CollectError, Collector, Family, Kind, Roots};

/// The scheduler.
pub(super) struct Schedstat {
    file: KernelFile,
}

const NANOSECONDS: f64 = 1e9;
/// Numbers of a processor's line before the three that are taken: yields, switches, idle switches and wake-ups.
const BEFORE: usize = 6;

impl Schedstat {
    pub(super) fn new(roots: &Roots) -> Schedstat {
        Schedstat { file: KernelFile::new(roots.procfs.join("schedstat")) }
    }
}

impl Collector for Schedstat {
    fn name(&self) -> &'static str {
        "schedstat"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        parse(&self.file.read()?, families)
    }
}

fn parse(text: &KernelText<'_>, families: &mut Vec<Family>) -> Result<(), CollectError> {
    let counter = |name, help| Family::new(Kind::Counter, name, help);
    let mut running = counter("node_schedstat_running_seconds_total", "Number of seconds CPU spent running a process.");
    let mut waiting =
        counter("node_schedstat_waiting_seconds_total", "Number of seconds spent by processing waiting for this CPU.");
    let mut slices = counter("node_schedstat_timeslices_total", "Number of timeslices executed by CPU.");
    // Between the processors' lines stand those of their domains, which have dozens of numbers each.
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("cpu") else { continue };
        let mut fields = rest.split_ascii_whitespace();
        let Some(number) = fields.next() else { return Err(text.malformed(line)) };
        let labels = [("cpu", number)];
        let mut fields = fields.skip(BEFORE);
        running.push(&labels, text.number(fields.next(), line)? / NANOSECONDS);
        waiting.push(&labels, text.number(fields.next(), line)? / NANOSECONDS);
        slices.push(&labels, text.number(fields.next(), line)?);
    }
    families.extend([running, waiting, slices]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::super::{text, trial};
    use super::*;

    /// Version 17 (Linux 6.14) has longer lines for domains and the same for processors.
    const SAMPLE: &str = "version 17\ntimestamp 4295000000\n\
        cpu0 0 0 0 0 0 0 2500000000 500000000 77\ndomain0 MC 3 1 2 3 4 5 6 7 8 9\n\
        cpu12 1 0 2 3 4 5 1000000 2000000 3\n";

    #[test]
    fn processors_are_read_and_domains_passed_over() {
        let mut families = Vec::new();
        parse(&KernelText::of(SAMPLE.as_bytes()), &mut families).unwrap();
        expect![[r#"
            node_schedstat_running_seconds_total{cpu="0"} 2.5
            node_schedstat_running_seconds_total{cpu="12"} 0.001
            node_schedstat_waiting_seconds_total{cpu="0"} 0.5
            node_schedstat_waiting_seconds_total{cpu="12"} 0.002
            node_schedstat_timeslices_total{cpu="0"} 77
            node_schedstat_timeslices_total{cpu="12"} 3
        "#]]
        .assert_eq(&trial::series(&text::render(&families)));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let _ = parse(&KernelText::of(&bytes), &mut Vec::new());
        }
    }
}
