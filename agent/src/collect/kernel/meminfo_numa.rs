//! Memory of each NUMA node: `/sys/devices/system/node/node*/meminfo` and `numastat`. A node can run out of memory, or of
//! pages for guests, while the host as a whole has plenty.

use std::path::PathBuf;

use crate::collect::attribute::numbered_in;
use crate::collect::kernel_file::{KernelFile, KernelText};
use crate::collect::tables::NamedFamilies;
use crate::collect::{CollectError, Collector, Family, Kind, Roots};

/// Memory by node.
pub(super) struct MeminfoNuma {
    folder: PathBuf,
    nodes: Vec<Node>,
}

struct Node {
    number: String,
    meminfo: KernelFile,
    numastat: KernelFile,
}

/// Most nodes that are kept open; machines with more are told in part.
const NODES_MAX: usize = 64;

impl MeminfoNuma {
    pub(super) fn new(roots: &Roots) -> MeminfoNuma {
        MeminfoNuma { folder: roots.sysfs.join("devices/system/node"), nodes: Vec::new() }
    }

    fn open(&self, number: String) -> Node {
        let folder = self.folder.join(format!("node{number}"));
        Node {
            number,
            meminfo: KernelFile::new(folder.join("meminfo")),
            numastat: KernelFile::new(folder.join("numastat")),
        }
    }
}

impl Collector for MeminfoNuma {
    fn name(&self) -> &'static str {
        "meminfo_numa"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        if self.nodes.is_empty() {
            let numbers = numbered_in(&self.folder, "node");
            self.nodes = numbers.into_iter().take(NODES_MAX).map(|number| self.open(number)).collect();
        }
        if self.nodes.is_empty() {
            return Err(CollectError::Absent { path: self.folder.join("node0") });
        }
        let mut named = NamedFamilies::default();
        let outcome = self.nodes.iter_mut().try_for_each(|node| {
            meminfo(&node.meminfo.read()?, &node.number, &mut named)?;
            numastat(&node.numastat.read()?, &node.number, &mut named)
        });
        if outcome.is_err() {
            // A node that went away, with its memory, is forgotten.
            self.nodes.clear();
        }
        families.extend(named.into_families());
        outcome
    }
}

/// Lines `Node 0 Active(anon):  707915776 kB`.
fn meminfo(text: &KernelText<'_>, node: &str, named: &mut NamedFamilies) -> Result<(), CollectError> {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let key = fields.next().ok_or_else(|| text.malformed(line))?;
        let number = text.number(fields.next(), line)?;
        let factor = match fields.next() {
            None => 1.0,
            Some("kB") => 1024.0,
            Some(_) => return Err(text.malformed(line)),
        };
        named
            .at(key, || field(Kind::Gauge, &key.trim_end_matches(':').replace('(', "_").replace(')', "")))
            .push(&[("node", node)], number * factor);
    }
    Ok(())
}

/// Lines `numa_hit 193460335812`.
fn numastat(text: &KernelText<'_>, node: &str, named: &mut NamedFamilies) -> Result<(), CollectError> {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let mut fields = line.split_ascii_whitespace();
        let key = fields.next().unwrap_or_default();
        let number = text.number(fields.next(), line)?;
        named.at(key, || field(Kind::Counter, &format!("{key}_total"))).push(&[("node", node)], number);
    }
    Ok(())
}

fn field(kind: Kind, name: &str) -> Family {
    Family::new(kind, format!("node_memory_numa_{name}"), format!("Memory information field {name}."))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const SAMPLE: &str = "Node 0 MemTotal:  4 kB\nNode 0 Active(anon):  2 kB\nNode 0 HugePages_Total:  3\n";

    #[test]
    fn fields_and_their_units() {
        let mut named = NamedFamilies::default();
        meminfo(&KernelText::of(SAMPLE.as_bytes()), "0", &mut named).unwrap();
        numastat(&KernelText::of(b"numa_hit 7\nlocal_node 5\n"), "0", &mut named).unwrap();
        meminfo(&KernelText::of(SAMPLE.as_bytes()), "1", &mut named).unwrap();
        expect![[r#"
            node_memory_numa_MemTotal{node="0"} 4096
            node_memory_numa_MemTotal{node="1"} 4096
            node_memory_numa_Active_anon{node="0"} 2048
            node_memory_numa_Active_anon{node="1"} 2048
            node_memory_numa_HugePages_Total{node="0"} 3
            node_memory_numa_HugePages_Total{node="1"} 3
            node_memory_numa_numa_hit_total{node="0"} 7
            node_memory_numa_local_node_total{node="0"} 5
        "#]]
        .assert_eq(&trial::series(&text::render(&named.into_families())));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let text = KernelText::of(&bytes);
            let _ = (meminfo(&text, "0", &mut NamedFamilies::default()), numastat(&text, "0", &mut NamedFamilies::default()));
        }
    }
}
