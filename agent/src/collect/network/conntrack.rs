//! The kernel's table of connections that it tracks for filtering and address translation: a full one drops packets.

use super::super::kernel_file::{KernelFile, KernelText};
use super::super::{CollectError, Collector, Family, Kind, Roots};

/// Tracked connections.
pub(super) struct Conntrack {
    entries: KernelFile,
    limit: KernelFile,
    /// A line per processor, in hexadecimal.
    statistics: KernelFile,
}

/// Column, name after `node_nf_conntrack_stat_`, help.
const COLUMNS: [(usize, &str, &str); 8] = [
    (2, "found", "Number of searched entries which were successful."),
    (4, "invalid", "Number of packets seen which can not be tracked."),
    (5, "ignore", "Number of packets seen which are already connected to a conntrack entry."),
    (8, "insert", "Number of entries inserted into the list."),
    (9, "insert_failed", "Number of entries for which list insertion was attempted but failed."),
    (10, "drop", "Number of packets dropped due to conntrack failure."),
    (
        11,
        "early_drop",
        "Number of dropped conntrack entries to make room for new ones, if maximum table size was reached.",
    ),
    (16, "search_restart", "Number of conntrack table lookups which had to be restarted due to hashtable resizes."),
];
/// Kernels before 2.6.35 lack the last column, `search_restart`.
const WIDTH_MIN: usize = 16;
const WIDTH: usize = 17;

impl Conntrack {
    pub(super) fn new(roots: &Roots) -> Conntrack {
        let limits = roots.procfs.join("sys/net/netfilter");
        Conntrack {
            entries: KernelFile::new(limits.join("nf_conntrack_count")),
            limit: KernelFile::new(limits.join("nf_conntrack_max")),
            statistics: KernelFile::new(roots.procfs.join("net/stat/nf_conntrack")),
        }
    }
}

impl Collector for Conntrack {
    fn name(&self) -> &'static str {
        "conntrack"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        for (file, name, help) in [
            (
                &mut self.entries,
                "node_nf_conntrack_entries",
                "Number of currently allocated flow entries for connection tracking.",
            ),
            (&mut self.limit, "node_nf_conntrack_entries_limit", "Maximum size of connection tracking table."),
        ] {
            families.push(Family::new(Kind::Gauge, name, help).with(file.read()?.only_number()?));
        }
        match self.statistics.read() {
            Ok(text) => parse(&text, families),
            // A kernel may be built without this file; how full the table is stands above.
            Err(CollectError::Absent { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Adds up the processors. Gauges, as node_exporter has it, though all of them count.
fn parse(text: &KernelText<'_>, families: &mut Vec<Family>) -> Result<(), CollectError> {
    let mut sums = [0u64; WIDTH];
    for line in text.lines().skip(1) {
        let mut width = 0;
        for (sum, field) in sums.iter_mut().zip(line.split_ascii_whitespace()) {
            let value = u64::from_str_radix(field, 16).map_err(|_| text.malformed(line))?;
            *sum = sum.wrapping_add(value);
            width += 1;
        }
        if width < WIDTH_MIN {
            return Err(text.malformed(line));
        }
    }
    for (column, name, help) in COLUMNS {
        let family = Family::new(Kind::Gauge, format!("node_nf_conntrack_stat_{name}"), help);
        families.push(family.with(sums[column] as f64));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::super::{text, trial};
    use super::*;

    const SAMPLE: &str = "entries searched found new invalid ignore delete delete_list insert insert_failed drop \
        early_drop icmp_error  expect_new expect_create expect_delete search_restart\n\
        21  0 1 0 2 3 0 0 4 5 6 7 0  0 0 0 8\n21  0 10 0 20 30 0 0 40 50 60 70 0  0 0 0 80\n";

    #[test]
    fn processors_are_added_up() {
        let mut families = Vec::new();
        parse(&KernelText::of(SAMPLE.as_bytes()), &mut families).unwrap();
        expect![[r"
            node_nf_conntrack_stat_found 17
            node_nf_conntrack_stat_invalid 34
            node_nf_conntrack_stat_ignore 51
            node_nf_conntrack_stat_insert 68
            node_nf_conntrack_stat_insert_failed 85
            node_nf_conntrack_stat_drop 102
            node_nf_conntrack_stat_early_drop 119
            node_nf_conntrack_stat_search_restart 136
        "]]
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
