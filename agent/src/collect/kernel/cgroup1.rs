//! Where control groups are, and groups of version 1 read as those of version 2.
//!
//! Version 1 has a tree for each controller (`cpu,cpuacct`, `memory`, `blkio`), and a host may have version 2 beside it: systemd
//! calls that hybrid. A group has the same name in all trees, so each number is taken from version 2 where it has it, and from
//! version 1 otherwise. Version 1 knows no pressure. It never writes.

use std::path::{Path, PathBuf};

use super::cgroup2::{self, Cgroup2, Cgroup2Reader, CgroupCpu, CgroupIo, CgroupMemory, pairs};

/// The trees that are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::collect) struct Hierarchies {
    unified: Option<PathBuf>,
    accounting: Option<PathBuf>,
    quota: Option<PathBuf>,
    memory: Option<PathBuf>,
    disks: Option<PathBuf>,
}

/// A limit as version 1 shows none: the most pages that it can count, which is less than a page below 2^63.
const NO_LIMIT: f64 = 9.2e18;
const NANOSECONDS: f64 = 1e9;
/// Most disks of a group that are told, as in version 2.
const DEVICES_MAX: usize = 256;

impl Hierarchies {
    /// Looks below `fs/cgroup`, where all distributions mount them; `None` when there is no tree that has figures.
    pub(in crate::collect) fn find(sysfs: &Path) -> Option<Hierarchies> {
        let mounted = sysfs.join("fs/cgroup");
        // Both controllers in one tree have a link under each name with most systems, but not with all.
        let tree = |names: [&str; 2], file: &str| {
            names.iter().map(|name| mounted.join(name)).find(|folder| folder.join(file).is_file())
        };
        let trees = Hierarchies {
            unified: cgroup2::root(sysfs),
            accounting: tree(["cpuacct", "cpu,cpuacct"], "cpuacct.usage"),
            quota: tree(["cpu", "cpu,cpuacct"], "tasks"),
            memory: tree(["memory"; 2], "memory.usage_in_bytes"),
            disks: tree(["blkio"; 2], "tasks"),
        };
        let is_there = trees.all().next().is_some();
        is_there.then_some(trees)
    }

    fn all(&self) -> impl Iterator<Item = &Path> {
        [&self.unified, &self.accounting, &self.memory, &self.disks].into_iter().flatten().map(PathBuf::as_path)
    }

    /// Whether there is such a group in one of the trees.
    pub(in crate::collect) fn has(&self, group: &str) -> bool {
        self.all().any(|root| root.join(group).is_dir())
    }

    /// The names of the groups inside a group, in order; at most `max`, and whether there are more.
    pub(in crate::collect) fn children(&self, group: &str, max: usize) -> (Vec<String>, bool) {
        let (mut names, mut more) = (Vec::new(), false);
        for root in self.all() {
            let (mut found, has_more) = cgroup2::children(&root.join(group), max);
            names.append(&mut found);
            more |= has_more;
        }
        names.sort_unstable();
        names.dedup();
        more |= names.len() > max;
        names.truncate(max);
        (names, more)
    }

    /// Reads a group. Some ten small files, and as many again for version 1.
    pub(in crate::collect) fn read(&self, reader: &mut Cgroup2Reader, group: &str) -> Cgroup2 {
        let mut read = self.unified.as_ref().map(|root| reader.read(&root.join(group))).unwrap_or_default();
        if let Some(folder) = self.accounting.as_ref().map(|root| root.join(group)) {
            // Version 2 counts time also without its cpu controller, but nothing of quotas.
            read.cpu = read.cpu.or_else(|| reader.file(&folder, "cpuacct.usage")?.trim().parse().ok().map(used));
            if let Some(cpu) = read.cpu.as_mut().filter(|cpu| cpu.user_seconds + cpu.system_seconds == 0.0) {
                reader.file(&folder, "cpuacct.stat").into_iter().for_each(|text| modes(text, cpu));
            }
        }
        if let (Some(root), Some(cpu)) = (&self.quota, read.cpu.as_mut().filter(|cpu| cpu.periods.is_none())) {
            reader.file(&root.join(group), "cpu.stat").into_iter().for_each(|text| throttling(text, cpu));
        }
        if let Some(root) = self.memory.as_ref().filter(|_| read.memory.current_bytes.is_none()) {
            read.memory = memory(reader, &root.join(group));
        }
        if let Some(root) = self.disks.as_ref().filter(|_| read.io.is_empty()) {
            read.io = disks(reader, &root.join(group));
        }
        read
    }
}

/// `cpuacct.usage`.
fn used(nanoseconds: u64) -> CgroupCpu {
    CgroupCpu { usage_seconds: nanoseconds as f64 / NANOSECONDS, ..CgroupCpu::default() }
}

/// `cpuacct.stat`: ticks in either mode.
fn modes(text: &str, cpu: &mut CgroupCpu) {
    let ticks = rustix::param::clock_ticks_per_second().max(1) as f64;
    for (mode, number) in pairs(text) {
        match mode {
            "user" => cpu.user_seconds = number / ticks,
            "system" => cpu.system_seconds = number / ticks,
            _ => {}
        }
    }
}

/// `cpu.stat` of version 1.
fn throttling(text: &str, cpu: &mut CgroupCpu) {
    for (key, number) in pairs(text) {
        match key {
            "nr_periods" => cpu.periods = Some(number),
            "nr_throttled" => cpu.throttled_periods = Some(number),
            "throttled_time" => cpu.throttled_seconds = Some(number / NANOSECONDS),
            _ => {}
        }
    }
}

fn memory(reader: &mut Cgroup2Reader, folder: &Path) -> CgroupMemory {
    let mut number = |file: &str| -> Option<f64> {
        reader.file(folder, file)?.trim().parse::<u64>().ok().map(|number| number as f64)
    };
    let (used, with_swap) = (number("memory.usage_in_bytes"), number("memory.memsw.usage_in_bytes"));
    let limit = number("memory.limit_in_bytes");
    let refused = number("memory.failcnt");
    // The kernel counts both at different moments, so the difference may be a little below nothing.
    let swap_bytes = with_swap.zip(used).map(|(both, memory)| (both - memory).max(0.0));
    let killed = reader.file(folder, "memory.oom_control").and_then(|text| {
        // Since Linux 4.13; the two lines before it are settings.
        pairs(text).find_map(|(key, number)| (key == "oom_kill").then_some(number))
    });
    let events = [("max", refused), ("oom_kill", killed)];
    CgroupMemory {
        current_bytes: used,
        max_bytes: limit.map(|limit| if limit > NO_LIMIT { f64::INFINITY } else { limit }),
        swap_bytes,
        events: events.into_iter().filter_map(|(event, count)| Some((event.to_owned(), count?))).collect(),
    }
}

/// With the groups inside, where the kernel (since 4.17) adds them up.
fn disks(reader: &mut Cgroup2Reader, folder: &Path) -> Vec<(String, CgroupIo)> {
    let mut devices = Vec::new();
    for (of_all, own, place) in [
        ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes", Place::Bytes),
        ("blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced", Place::Calls),
    ] {
        let file = if folder.join(of_all).is_file() { of_all } else { own };
        reader.file(folder, file).into_iter().for_each(|text| add(text, place, &mut devices));
    }
    devices
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Bytes,
    Calls,
}

/// Lines of a device, a kind of traffic and a number.
fn add(text: &str, place: Place, devices: &mut Vec<(String, CgroupIo)>) {
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let (Some(device), Some(kind), Some(Ok(number))) =
            (words.next(), words.next(), words.next().map(str::parse::<u64>))
        else {
            continue;
        };
        let known = devices.iter().position(|(known, _)| known == device);
        let at = match known {
            Some(at) => at,
            None if devices.len() < DEVICES_MAX => {
                devices.push((device.to_owned(), CgroupIo::default()));
                devices.len() - 1
            }
            None => continue,
        };
        let (io, number) = (&mut devices[at].1, number as f64);
        match (place, kind) {
            (Place::Bytes, "Read") => io.read_bytes = number,
            (Place::Bytes, "Write") => io.written_bytes = number,
            (Place::Calls, "Read") => io.reads = number,
            (Place::Calls, "Write") => io.writes = number,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::trial;

    const BYTES: &str = "8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 1\n8:0 Total 12288\nTotal 12288\n";
    const GROUP: &str = "machine.slice/machine-qemu-1-web.scope";

    /// Writes the files of a tree, as the kernel's documentation of version 1 shows them.
    fn trees(cpu: [&str; 2]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (tree, file, text) in [
            (cpu[0], "cpuacct.usage", "2500000000\n"),
            (cpu[0], "cpuacct.stat", "user 150\nsystem 100\n"),
            (cpu[1], "cpu.stat", "nr_periods 7\nnr_throttled 2\nthrottled_time 250000000\n"),
            (cpu[1], "tasks", ""),
            ("memory", "memory.usage_in_bytes", "1048576\n"),
            ("memory", "memory.memsw.usage_in_bytes", "1052672\n"),
            ("memory", "memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory", "memory.failcnt", "3\n"),
            ("memory", "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("blkio", "blkio.throttle.io_service_bytes_recursive", BYTES),
            ("blkio", "blkio.throttle.io_serviced", "8:0 Read 1\n8:0 Write 2\nTotal 3\n"),
            ("blkio", "tasks", ""),
        ] {
            for group in ["", GROUP] {
                let at = folder.path().join("fs/cgroup").join(tree).join(group);
                std::fs::create_dir_all(&at).unwrap();
                std::fs::write(at.join(file), text).unwrap();
            }
        }
        folder
    }

    #[test]
    fn a_group_of_version_1() {
        for cpu in [["cpuacct", "cpu"], ["cpu,cpuacct"; 2]] {
            let folder = trees(cpu);
            let tree = Hierarchies::find(folder.path()).unwrap();
            assert!(tree.has("machine.slice") && !tree.has("user.slice"));
            assert_eq!(tree.children("", 9), (vec!["machine.slice".to_owned()], false));
            assert_eq!(tree.children("machine.slice", 9).0.len(), 1);
            expect![[r#"
                Cgroup2 { cpu: Some(CgroupCpu { usage_seconds: 2.5, user_seconds: 1.5, system_seconds: 1.0, periods: Some(7.0), throttled_periods: Some(2.0), throttled_seconds: Some(0.25) }), memory: CgroupMemory { current_bytes: Some(1048576.0), max_bytes: Some(inf), swap_bytes: Some(4096.0), events: [("max", 3.0), ("oom_kill", 1.0)] }, io: [("8:0", CgroupIo { read_bytes: 4096.0, written_bytes: 8192.0, reads: 1.0, writes: 2.0 })], cpu_pressure: None, memory_pressure: None, io_pressure: None }
            "#]]
            .assert_eq(&format!("{:?}\n", tree.read(&mut Cgroup2Reader::default(), GROUP)));
            assert_eq!(tree.read(&mut Cgroup2Reader::default(), "gone.slice"), Cgroup2::default());
        }
    }

    #[test]
    fn version_2_goes_before_version_1() {
        let folder = trees(["cpuacct", "cpu"]);
        let unified = folder.path().join("fs/cgroup/unified");
        std::fs::create_dir_all(unified.join(GROUP)).unwrap();
        std::fs::write(unified.join("cgroup.controllers"), "").unwrap();
        std::fs::write(unified.join(GROUP).join("cpu.stat"), "usage_usec 5000000\nuser_usec 4\nsystem_usec 1\n")
            .unwrap();
        let tree = Hierarchies::find(folder.path()).unwrap();
        let read = tree.read(&mut Cgroup2Reader::default(), GROUP);
        let cpu = read.cpu.unwrap();
        assert_eq!((cpu.usage_seconds, cpu.user_seconds, cpu.periods), (5.0, 4e-6, Some(7.0)));
        assert_eq!(read.memory.current_bytes, Some(1_048_576.0));
        assert_eq!(Hierarchies::find(&folder.path().join("none")), None);
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(text in trial::near(BYTES)) {
            let text = String::from_utf8_lossy(&text);
            let (mut devices, mut cpu) = (Vec::new(), CgroupCpu::default());
            add(&text, Place::Calls, &mut devices);
            modes(&text, &mut cpu);
            throttling(&text, &mut cpu);
        }
    }
}
