//! `/proc/net/sockstat` and `sockstat6`: sockets of each protocol, and the memory they hold.

use super::super::kernel_file::{KernelFile, KernelText};
use super::super::{CollectError, Collector, Family, Kind, Roots};

/// Sockets.
pub(super) struct Sockstat {
    four: KernelFile,
    six: KernelFile,
    page_bytes: f64,
}

/// What a protocol's line may hold; others are passed over.
const STATES: [&str; 6] = ["inuse", "orphan", "tw", "alloc", "mem", "memory"];

impl Sockstat {
    pub(super) fn new(roots: &Roots) -> Sockstat {
        let file = |name| KernelFile::new(roots.procfs.join("net").join(name));
        let page_bytes = rustix::param::page_size() as f64;
        Sockstat { four: file("sockstat"), six: file("sockstat6"), page_bytes }
    }
}

impl Collector for Sockstat {
    fn name(&self) -> &'static str {
        "sockstat"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let before = families.len();
        let mut absent = Ok(());
        for file in [&mut self.four, &mut self.six] {
            match file.read() {
                Ok(text) => parse(&text, self.page_bytes, families)?,
                // A kernel without this version of IP.
                Err(error @ CollectError::Absent { .. }) => absent = Err(error),
                Err(error) => return Err(error),
            }
        }
        if families.len() == before { absent } else { Ok(()) }
    }
}

fn parse(text: &KernelText<'_>, page_bytes: f64, families: &mut Vec<Family>) -> Result<(), CollectError> {
    for line in text.lines() {
        let (protocol, rest) = line.split_once(':').ok_or_else(|| text.malformed(line))?;
        let value = |wanted: &str| {
            let mut fields = rest.split_ascii_whitespace();
            while let Some(key) = fields.next() {
                let value = fields.next();
                if key == wanted {
                    return text.number(value, line).map(Some);
                }
            }
            Ok(None)
        };
        if protocol == "sockets" {
            let used = value("used")?.ok_or_else(|| text.malformed(line))?;
            let family = Family::new(Kind::Gauge, "node_sockstat_sockets_used", "Number of IPv4 sockets in use.");
            families.push(family.with(used));
            continue;
        }
        let mut push = |state: &str, value: f64| {
            let help = format!("Number of {protocol} sockets in state {state}.");
            families.push(Family::new(Kind::Gauge, format!("node_sockstat_{protocol}_{state}"), help).with(value));
        };
        for state in STATES {
            // Every protocol has sockets, if none just now.
            let Some(value) = value(state)?.or((state == "inuse").then_some(0.0)) else { continue };
            push(state, value);
            // The kernel counts TCP's and UDP's memory in pages.
            if state == "mem" {
                push("mem_bytes", value * page_bytes);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::super::{text, trial};
    use super::*;

    const SAMPLE: &str =
        "sockets: used 229\nTCP: inuse 4 orphan 0 tw 4 alloc 17 mem 3\nFRAG: inuse 1 memory 2 later 5\n";

    #[test]
    fn pages_are_told_in_bytes_too() {
        let mut families = Vec::new();
        parse(&KernelText::of(SAMPLE.as_bytes()), 4096.0, &mut families).unwrap();
        expect![[r"
            node_sockstat_sockets_used 229
            node_sockstat_TCP_inuse 4
            node_sockstat_TCP_orphan 0
            node_sockstat_TCP_tw 4
            node_sockstat_TCP_alloc 17
            node_sockstat_TCP_mem 3
            node_sockstat_TCP_mem_bytes 12288
            node_sockstat_FRAG_inuse 1
            node_sockstat_FRAG_memory 2
        "]]
        .assert_eq(&trial::series(&text::render(&families)));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let _ = parse(&KernelText::of(&bytes), 4096.0, &mut Vec::new());
        }
    }
}
