//! `/proc/cgroups`: how many control groups each controller of version 1 has. Groups that are never removed are a leak.

use std::collections::BTreeSet;

use crate::collect::kernel_file::{KernelFile, KernelText};
use crate::collect::tables::{Column, gauge};
use crate::collect::{CollectError, Collector, Family, Roots};

/// Controllers of control groups.
pub(super) struct Cgroups {
    file: KernelFile,
}

const GROUPS: Column = gauge("node_cgroups_cgroups", "Current cgroup number of the subsystem.");
// The help is node_exporter's, though it says something else than the number.
const ENABLED: Column = gauge("node_cgroups_enabled", "Current cgroup number of the subsystem.");

impl Cgroups {
    pub(super) fn new(roots: &Roots) -> Cgroups {
        Cgroups { file: KernelFile::new(roots.procfs.join("cgroups")) }
    }
}

impl Collector for Cgroups {
    fn name(&self) -> &'static str {
        "cgroups"
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        families.extend(parse(&self.file.read()?)?);
        Ok(())
    }
}

/// Lines of name, hierarchy, number of groups, whether it is on; a header with `#` before them.
fn parse(text: &KernelText<'_>) -> Result<[Family; 2], CollectError> {
    let (mut groups, mut enabled) = (GROUPS.family(), ENABLED.family());
    let mut told = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let mut fields = line.split_ascii_whitespace();
        let name = fields.next().unwrap_or_default();
        let number = text.number(fields.nth(1), line)?;
        let is_on = text.number(fields.next(), line)?;
        if told.insert(name) {
            groups.push(&[("subsys_name", name)], number);
            enabled.push(&[("subsys_name", name)], f64::from(u8::from(is_on != 0.0)));
        }
    }
    Ok([groups, enabled])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const SAMPLE: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t172\t1\nrdma\t4\t1\t0\n";

    #[test]
    fn controllers() {
        let families = parse(&KernelText::of(SAMPLE.as_bytes())).unwrap();
        expect![[r#"
            node_cgroups_cgroups{subsys_name="cpu"} 172
            node_cgroups_cgroups{subsys_name="rdma"} 1
            node_cgroups_enabled{subsys_name="cpu"} 1
            node_cgroups_enabled{subsys_name="rdma"} 0
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
