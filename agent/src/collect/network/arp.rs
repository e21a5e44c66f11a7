//! `/proc/net/arp`: how many neighbours each device knows.

use std::collections::BTreeMap;

use super::super::kernel_file::{KernelFile, KernelText};
use super::super::{CollectError, Collector, Family, Kind, Roots};

/// Neighbours.
pub(super) struct Arp {
    file: KernelFile,
}

impl Arp {
    pub(super) fn new(roots: &Roots) -> Arp {
        Arp { file: KernelFile::new(roots.procfs.join("net/arp")) }
    }
}

impl Collector for Arp {
    fn name(&self) -> &'static str {
        "arp"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        families.push(parse(&self.file.read()?));
        Ok(())
    }
}

fn parse(text: &KernelText<'_>) -> Family {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    // The first line is a header; the device stands last.
    for device in text.lines().skip(1).filter_map(|line| line.split_ascii_whitespace().next_back()) {
        *counts.entry(device).or_default() += 1;
    }
    let mut family = Family::new(Kind::Gauge, "node_arp_entries", "ARP entries by device");
    for (device, count) in counts {
        family.push(&[("device", device)], f64::from(count));
    }
    family
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::super::{text, trial};
    use super::*;

    const SAMPLE: &str = "IP address       HW type     Flags       HW address            Mask     Device\n\
        192.168.1.1      0x1         0x2         cc:aa:dd:ee:aa:bb     *        eth0\n\
        10.0.0.1         0x1         0x0         00:00:00:00:00:00     *        br0\n\
        192.168.1.2      0x1         0x2         bb:cc:dd:ee:ff:aa     *        eth0\n";

    #[test]
    fn neighbours_are_counted_by_device() {
        expect![[r#"
            node_arp_entries{device="br0"} 1
            node_arp_entries{device="eth0"} 2
        "#]]
        .assert_eq(&trial::series(&text::render(&[parse(&KernelText::of(SAMPLE.as_bytes()))])));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let _ = parse(&KernelText::of(&bytes));
        }
    }
}
