//! `/proc/buddyinfo`: free blocks of memory by their size, which tells how fragmented memory is: a guest with huge pages
//! needs large ones.

use std::collections::BTreeSet;

use crate::collect::kernel_file::{KernelFile, KernelText};
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Free blocks.
pub(super) struct Buddyinfo {
    file: KernelFile,
}

impl Buddyinfo {
    pub(super) fn new(roots: &Roots) -> Buddyinfo {
        Buddyinfo { file: KernelFile::new(roots.procfs.join("buddyinfo")) }
    }
}

impl Collector for Buddyinfo {
    fn name(&self) -> &'static str {
        "buddyinfo"
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        families.push(parse(&self.file.read()?)?);
        Ok(())
    }
}

/// Lines `Node 0, zone   Normal   4381   1093    185`: blocks of one page, of two, of four.
fn parse(text: &KernelText<'_>) -> Result<Family, CollectError> {
    let mut family = Family::new(Kind::Gauge, "node_buddyinfo_blocks", "Count of free blocks according to size.");
    let mut told = BTreeSet::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut words = line.split_ascii_whitespace();
        let (Some("Node"), Some(node), Some("zone"), Some(zone)) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(text.malformed(line));
        };
        let (node, zone) = (node.trim_end_matches(','), zone.trim_end_matches(','));
        if !told.insert((node, zone)) {
            continue;
        }
        for (size, word) in words.enumerate() {
            let blocks = text.number(Some(word), line)?;
            family.push(&[("node", node), ("size", &size.to_string()), ("zone", zone)], blocks);
        }
    }
    Ok(family)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const SAMPLE: &str = "Node 0, zone      DMA      1      0\nNode 1, zone   Normal   4381   1093\n";

    #[test]
    fn blocks_by_size() {
        let family = parse(&KernelText::of(SAMPLE.as_bytes())).unwrap();
        expect![[r#"
            node_buddyinfo_blocks{node="0",size="0",zone="DMA"} 1
            node_buddyinfo_blocks{node="0",size="1",zone="DMA"} 0
            node_buddyinfo_blocks{node="1",size="0",zone="Normal"} 4381
            node_buddyinfo_blocks{node="1",size="1",zone="Normal"} 1093
        "#]]
        .assert_eq(&trial::series(&text::render(&[family])));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let _ = parse(&KernelText::of(&bytes));
        }
    }
}
