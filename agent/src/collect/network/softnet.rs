//! `/proc/net/softnet_stat`: packets that each processor took from its queue, and those it had no time for.

use super::super::kernel_file::{KernelFile, KernelText};
use super::super::{CollectError, Collector, Family, Kind, Roots};

/// Queues of received packets.
pub(super) struct Softnet {
    file: KernelFile,
}

/// Column, name after `node_softnet_`, type, help. The first kernels with this file print nine columns, those since 2.6.39
/// ten or eleven, those since 5.10 thirteen and more: what is not printed counts as zero.
const COLUMNS: [(usize, &str, Kind, &str); 7] = [
    (0, "processed_total", Kind::Counter, "Number of processed packets"),
    (1, "dropped_total", Kind::Counter, "Number of dropped packets"),
    (2, "times_squeezed_total", Kind::Counter, "Number of times processing packets ran out of quota"),
    (
        8,
        "cpu_collision_total",
        Kind::Counter,
        "Number of collision occur while obtaining device lock while transmitting",
    ),
    (9, "received_rps_total", Kind::Counter, "Number of times cpu woken up received_rps"),
    (10, "flow_limit_count_total", Kind::Counter, "Number of times flow limit has been reached"),
    (11, "backlog_len", Kind::Gauge, "Softnet backlog status"),
];
const COLUMNS_MIN: usize = 9;
/// Where the processor's number stands; without it the line's own number is it, as old kernels print all processors.
const PROCESSOR: usize = 12;

impl Softnet {
    pub(super) fn new(roots: &Roots) -> Softnet {
        Softnet { file: KernelFile::new(roots.procfs.join("net/softnet_stat")) }
    }
}

impl Collector for Softnet {
    fn name(&self) -> &'static str {
        "softnet"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        parse(&self.file.read()?, families)
    }
}

fn parse(text: &KernelText<'_>, families: &mut Vec<Family>) -> Result<(), CollectError> {
    let family = |(_, name, kind, help): &(usize, &str, Kind, &'static str)| {
        Family::new(*kind, format!("node_softnet_{name}"), *help)
    };
    let mut columns: Vec<Family> = COLUMNS.iter().map(family).collect();
    for (number, line) in text.lines().enumerate() {
        let mut values = [0u32; PROCESSOR + 1];
        let mut width = 0;
        for (value, field) in values.iter_mut().zip(line.split_ascii_whitespace()) {
            *value = u32::from_str_radix(field, 16).map_err(|_| text.malformed(line))?;
            width += 1;
        }
        if width < COLUMNS_MIN {
            return Err(text.malformed(line));
        }
        let processor = if width > PROCESSOR { values[PROCESSOR].to_string() } else { number.to_string() };
        for (family, (column, ..)) in columns.iter_mut().zip(&COLUMNS) {
            family.push(&[("cpu", &processor)], f64::from(values[*column]));
        }
    }
    families.append(&mut columns);
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::super::{text, trial};
    use super::*;

    const SAMPLE: &str = "000000ff 00000002 00000003 0 0 0 0 0 00000004 00000005 00000006 00000007 00000009 0 0\n";

    #[test]
    fn old_and_new_kernels() {
        let shown = |line: &str| {
            let mut families = Vec::new();
            parse(&KernelText::of(line.as_bytes()), &mut families).unwrap();
            trial::series(&text::render(&families))
        };
        expect![[r#"
            node_softnet_processed_total{cpu="9"} 255
            node_softnet_dropped_total{cpu="9"} 2
            node_softnet_times_squeezed_total{cpu="9"} 3
            node_softnet_cpu_collision_total{cpu="9"} 4
            node_softnet_received_rps_total{cpu="9"} 5
            node_softnet_flow_limit_count_total{cpu="9"} 6
            node_softnet_backlog_len{cpu="9"} 7
        "#]]
        .assert_eq(&shown(SAMPLE));
        expect![[r#"
            node_softnet_processed_total{cpu="0"} 1
            node_softnet_dropped_total{cpu="0"} 2
            node_softnet_times_squeezed_total{cpu="0"} 3
            node_softnet_cpu_collision_total{cpu="0"} 4
            node_softnet_received_rps_total{cpu="0"} 0
            node_softnet_flow_limit_count_total{cpu="0"} 0
            node_softnet_backlog_len{cpu="0"} 0
        "#]]
        .assert_eq(&shown("1 2 3 0 0 0 0 0 4\n"));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let _ = parse(&KernelText::of(&bytes), &mut Vec::new());
        }
    }
}
