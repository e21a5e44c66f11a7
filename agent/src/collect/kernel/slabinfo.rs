//! `/proc/slabinfo`: the kernel's own memory by kind of object. Only root may read it, and it has about 200 kinds, so it is
//! off by default.

use std::collections::BTreeSet;

use crate::collect::kernel_file::{KernelFile, KernelText};
use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Roots};

/// The kernel's objects.
pub(super) struct Slabinfo {
    file: KernelFile,
}

/// In the order of the file's columns.
const COLUMNS: [Column; 5] = [
    gauge("node_slabinfo_active_objects", "The number of objects that are currently active (i.e., in use)."),
    gauge(
        "node_slabinfo_objects",
        "The total number of allocated objects (i.e., objects that are both in use and not in use).",
    ),
    gauge("node_slabinfo_object_size_bytes", "The size of objects in this slab, in bytes."),
    gauge("node_slabinfo_objects_per_slab", "The number of objects stored in each slab."),
    gauge("node_slabinfo_pages_per_slab", "The number of pages allocated for each slab."),
];

impl Slabinfo {
    pub(super) fn new(roots: &Roots) -> Slabinfo {
        Slabinfo { file: KernelFile::new(roots.procfs.join("slabinfo")) }
    }
}

impl Collector for Slabinfo {
    fn name(&self) -> &'static str {
        "slabinfo"
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        families.extend(parse(&self.file.read()?)?);
        Ok(())
    }
}

fn parse(text: &KernelText<'_>) -> Result<[Family; 5], CollectError> {
    let mut families = COLUMNS.map(|column| column.family());
    let mut told = BTreeSet::new();
    let is_header = |line: &&str| line.starts_with('#') || line.starts_with("slabinfo");
    for line in text.lines().filter(|line| !line.trim().is_empty() && !is_header(line)) {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next().unwrap_or_default();
        if !told.insert(name) {
            continue;
        }
        for family in &mut families {
            family.push(&[("slab", name)], text.number(fields.next(), line)?);
        }
    }
    Ok(families)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const SAMPLE: &str = "\
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit>
tw_sock_TCP          704    864    256   32    2 : tunables    0    0    0 : slabdata     27     27      0
";

    #[test]
    fn kinds_of_objects() {
        let families = parse(&KernelText::of(SAMPLE.as_bytes())).unwrap();
        expect![[r#"
            node_slabinfo_active_objects{slab="tw_sock_TCP"} 704
            node_slabinfo_objects{slab="tw_sock_TCP"} 864
            node_slabinfo_object_size_bytes{slab="tw_sock_TCP"} 256
            node_slabinfo_objects_per_slab{slab="tw_sock_TCP"} 32
            node_slabinfo_pages_per_slab{slab="tw_sock_TCP"} 2
        "#]]
        .assert_eq(&trial::series(&text::render(&families)));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let _ = parse(&KernelText::of(&bytes));
        }
    }
}
