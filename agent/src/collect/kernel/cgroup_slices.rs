//! What the host's slices use (system, user, machine, …), and each scope in the machine slice, where guests run: control
//! groups of either version. At most [`SCOPES_MAX`] scopes; it never looks into a scope.

use std::path::PathBuf;
use std::time::Duration;

use super::cgroup1::Hierarchies;
use super::cgroup2::{self, Cgroup2, Cgroup2Reader, CgroupCpu, CgroupPressure};
use crate::collect::{CollectError, Collector, Family, Kind, Pace, Roots};

/// Slices and scopes.
pub(super) struct CgroupSlices {
    sysfs: PathBuf,
    reader: Cgroup2Reader,
}

/// Most slices; systemd makes four, and operators some of their own.
const SLICES_MAX: usize = 32;
/// Most scopes in the machine slice: more guests than one host runs.
const SCOPES_MAX: usize = 512;
/// Where libvirt and machinectl put guests.
const MACHINES: &str = "machine.slice";
const LABEL: &str = "cgroup";

/// A number of a group and the metric it becomes.
struct Field {
    kind: Kind,
    name: &'static str,
    help: &'static str,
    of: fn(&Cgroup2) -> Option<f64>,
}

const FIELDS: [Field; 9] = [
    counter("cpu_seconds_total", "Processor time that the group used.", |group| {
        Some(group.cpu.as_ref()?.usage_seconds)
    }),
    counter("cpu_user_seconds_total", "Processor time that the group used in user mode.", |group| {
        Some(group.cpu.as_ref()?.user_seconds)
    }),
    counter("cpu_system_seconds_total", "Processor time that the group used in the kernel.", |group| {
        Some(group.cpu.as_ref()?.system_seconds)
    }),
    counter("cpu_periods_total", "Periods over which the group's processor quota was counted.", |group| {
        quota(group, |cpu| cpu.periods)
    }),
    counter("cpu_throttled_periods_total", "Periods in which the group used up its processor quota.", |group| {
        quota(group, |cpu| cpu.throttled_periods)
    }),
    counter("cpu_throttled_seconds_total", "Time for which the group was held back by its processor quota.", |group| {
        quota(group, |cpu| cpu.throttled_seconds)
    }),
    gauge("memory_bytes", "Memory that the group uses, page cache included.", |group| group.memory.current_bytes),
    gauge("memory_max_bytes", "The group's memory limit, if it has one.", |group| {
        group.memory.max_bytes.filter(|max| max.is_finite())
    }),
    gauge("memory_swap_bytes", "Swap that the group uses.", |group| group.memory.swap_bytes),
];

const fn counter(name: &'static str, help: &'static str, of: fn(&Cgroup2) -> Option<f64>) -> Field {
    Field { kind: Kind::Counter, name, help, of }
}

const fn gauge(name: &'static str, help: &'static str, of: fn(&Cgroup2) -> Option<f64>) -> Field {
    Field { kind: Kind::Gauge, name, help, of }
}

/// Groups without a quota have nothing to say about it.
fn quota(group: &Cgroup2, of: fn(&CgroupCpu) -> Option<f64>) -> Option<f64> {
    let cpu = group.cpu.as_ref()?;
    of(cpu).filter(|_| cpu.periods.is_some_and(|periods| periods > 0.0))
}

impl CgroupSlices {
    pub(super) fn new(roots: &Roots) -> CgroupSlices {
        CgroupSlices { sysfs: roots.sysfs.clone(), reader: Cgroup2Reader::default() }
    }

    /// All groups by the name they are told under, and how many were left out.
    fn groups(&mut self, tree: &Hierarchies) -> (Vec<(String, Cgroup2)>, bool) {
        let (slices, mut more) = tree.children("", SLICES_MAX);
        let mut groups = Vec::new();
        for slice in slices.iter().filter(|name| name.strip_suffix(".slice").is_some()) {
            groups.push((slice.clone(), tree.read(&mut self.reader, slice)));
        }
        let (scopes, more_scopes) = tree.children(MACHINES, SCOPES_MAX);
        more |= more_scopes;
        for scope in &scopes {
            let name = format!("{MACHINES}/{}", cgroup2::unescaped(scope));
            groups.push((name, tree.read(&mut self.reader, &format!("{MACHINES}/{scope}"))));
        }
        // Two names that differ only in their escapes would give one label set twice.
        groups.sort_by(|a, b| a.0.cmp(&b.0));
        groups.dedup_by(|a, b| a.0 == b.0);
        (groups, more)
    }
}

impl Collector for CgroupSlices {
    fn name(&self) -> &'static str {
        "cgroup_slices"
    }

    fn pace(&self) -> Pace {
        // Nine files for each group: with hundreds of guests some 20 ms.
        Pace::Apart { every: Duration::from_secs(10), within: Duration::from_secs(10) }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let Some(tree) = Hierarchies::find(&self.sysfs) else {
            return Err(CollectError::Absent { path: self.sysfs.join("fs/cgroup/cgroup.controllers") });
        };
        let (groups, more) = self.groups(&tree);
        for field in &FIELDS {
            let mut family = Family::new(field.kind, format!("petrel_cgroup_{}", field.name), field.help);
            for (name, group) in &groups {
                if let Some(value) = (field.of)(group) {
                    family.push(&[(LABEL, name)], value);
                }
            }
            families.push(family);
        }
        families.extend([events(&groups), pressure(&groups)]);
        families.extend(io(&groups));
        let help = "Whether there are more control groups than are told.";
        families.push(Family::new(Kind::Gauge, "petrel_cgroup_left_out", help).with(f64::from(u8::from(more))));
        Ok(())
    }
}

fn events(groups: &[(String, Cgroup2)]) -> Family {
    let help = "How often the group met its memory limits, and lost tasks by it.";
    let mut family = Family::new(Kind::Counter, "petrel_cgroup_memory_events_total", help);
    for (name, group) in groups {
        for (event, value) in &group.memory.events {
            family.push(&[(LABEL, name), ("event", event)], *value);
        }
    }
    family
}

fn pressure(groups: &[(String, Cgroup2)]) -> Family {
    let help = "Time for which some or all of the group's tasks waited for a resource.";
    let mut family = Family::new(Kind::Counter, "petrel_cgroup_pressure_seconds_total", help);
    for (name, group) in groups {
        let resources: [(&str, &Option<CgroupPressure>); 3] =
            [("cpu", &group.cpu_pressure), ("memory", &group.memory_pressure), ("io", &group.io_pressure)];
        for (resource, pressure) in resources {
            let Some(pressure) = pressure else { continue };
            for (share, seconds) in [("some", pressure.some_seconds), ("full", pressure.full_seconds)] {
                family.push(&[(LABEL, name), ("resource", resource), ("share", share)], seconds);
            }
        }
    }
    family
}

/// Sums over devices: a guest's disks are told by device elsewhere, and device numbers mean little to people.
fn io(groups: &[(String, Cgroup2)]) -> [Family; 2] {
    let mut bytes =
        Family::new(Kind::Counter, "petrel_cgroup_io_bytes_total", "Bytes that the group moved to and from disks.");
    let mut calls = Family::new(Kind::Counter, "petrel_cgroup_io_operations_total", "Disk operations of the group.");
    for (name, group) in groups.iter().filter(|(_, group)| !group.io.is_empty()) {
        let sum = |of: fn(&cgroup2::CgroupIo) -> f64| group.io.iter().map(|(_, io)| of(io)).sum();
        bytes.push(&[(LABEL, name), ("operation", "read")], sum(|io| io.read_bytes));
        bytes.push(&[(LABEL, name), ("operation", "write")], sum(|io| io.written_bytes));
        calls.push(&[(LABEL, name), ("operation", "read")], sum(|io| io.reads));
        calls.push(&[(LABEL, name), ("operation", "write")], sum(|io| io.writes));
    }
    [bytes, calls]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::collect::{CollectConfig, text};

    #[test]
    fn slices_and_machines() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("sys/fs/cgroup");
        for (group, usage) in [
            ("system.slice", 5),
            ("init.scope", 6),
            ("machine.slice", 7),
            (r"machine.slice/machine-qemu\x2d1\x2dweb.scope", 8),
        ] {
            std::fs::create_dir_all(root.join(group)).unwrap();
            std::fs::write(root.join(group).join("cpu.stat"), format!("usage_usec {usage}000000\n")).unwrap();
            std::fs::write(root.join(group).join("memory.max"), "max\n").unwrap();
        }
        let machine = root.join("machine.slice");
        std::fs::write(machine.join("io.stat"), "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n8:16 rbytes=10 wios=40\n")
            .unwrap();
        std::fs::write(machine.join("memory.events"), "oom_kill 1\n").unwrap();
        std::fs::write(machine.join("cpu.pressure"), "some avg10=0.00 total=5\nfull avg10=0.00 total=1\n").unwrap();
        let config = CollectConfig::at(&folder.path().join("proc"), &folder.path().join("sys"));
        let mut collector = CgroupSlices::new(&config.roots);
        assert!(matches!(collector.collect(&mut Vec::new()), Err(CollectError::Absent { .. })));
        std::fs::write(root.join("cgroup.controllers"), "cpu\n").unwrap();
        let mut families = Vec::new();
        collector.collect(&mut families).unwrap();
        let shown = text::render(&families);
        let points: Vec<&str> = shown.lines().filter(|line| !line.starts_with('#')).collect();
        expect![[r#"
            petrel_cgroup_cpu_seconds_total{cgroup="machine.slice"} 7
            petrel_cgroup_cpu_seconds_total{cgroup="machine.slice/machine-qemu-1-web.scope"} 8
            petrel_cgroup_cpu_seconds_total{cgroup="system.slice"} 5
            petrel_cgroup_cpu_user_seconds_total{cgroup="machine.slice"} 0
            petrel_cgroup_cpu_user_seconds_total{cgroup="machine.slice/machine-qemu-1-web.scope"} 0
            petrel_cgroup_cpu_user_seconds_total{cgroup="system.slice"} 0
            petrel_cgroup_cpu_system_seconds_total{cgroup="machine.slice"} 0
            petrel_cgroup_cpu_system_seconds_total{cgroup="machine.slice/machine-qemu-1-web.scope"} 0
            petrel_cgroup_cpu_system_seconds_total{cgroup="system.slice"} 0
            petrel_cgroup_memory_events_total{cgroup="machine.slice",event="oom_kill"} 1
            petrel_cgroup_pressure_seconds_total{cgroup="machine.slice",resource="cpu",share="some"} 0.000005
            petrel_cgroup_pressure_seconds_total{cgroup="machine.slice",resource="cpu",share="full"} 0.000001
            petrel_cgroup_io_bytes_total{cgroup="machine.slice",operation="read"} 11
            petrel_cgroup_io_bytes_total{cgroup="machine.slice",operation="write"} 2
            petrel_cgroup_io_operations_total{cgroup="machine.slice",operation="read"} 3
            petrel_cgroup_io_operations_total{cgroup="machine.slice",operation="write"} 44
            petrel_cgroup_left_out 0"#]]
        .assert_eq(&points.join("\n"));
    }
}
