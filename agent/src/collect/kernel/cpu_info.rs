//! What processors are, beside what they do: model, flags and faults of the silicon, throttling, isolation, online state.
//! `/proc/cpuinfo` is expensive to read (the kernel may wake every processor for its frequency), so it is read once and
//! again when the number of processors changes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::collect::kernel_file::{number_list, read_word};
use crate::collect::{Family, Kind, Roots};

/// The `cpu` collector's second half.
pub(super) struct CpuInfo {
    cpuinfo: PathBuf,
    folder: PathBuf,
    /// Read for this many processors.
    known_for: Option<usize>,
    fixed: Vec<Family>,
    /// Folders of processors that count their throttling; virtual machines have none.
    throttled: Vec<ThrottledCpu>,
}

struct ThrottledCpu {
    folder: PathBuf,
    core: String,
    package: String,
}

/// Flags worth a series: the ones that decide about live migration and encryption speed. node_exporter has a pattern here.
const FLAGS: [&str; 4] = ["aes", "avx", "avx2", "constant_tsc"];
/// Faults of the silicon worth a series.
const BUGS: [&str; 5] = ["cpu_meltdown", "mds", "spectre_v1", "spectre_v2", "spectre_v2_user"];

/// More processors than Linux supports.
const CPUS_MAX: usize = 8192;

/// Keys of `/proc/cpuinfo` and the labels they become.
const LABELS: [(&str, &str); 10] = [
    ("physical id", "package"),
    ("core id", "core"),
    ("processor", "cpu"),
    ("vendor_id", "vendor"),
    ("cpu family", "family"),
    ("model", "model"),
    ("model name", "model_name"),
    ("microcode", "microcode"),
    ("stepping", "stepping"),
    ("cache size", "cachesize"),
];

impl CpuInfo {
    pub(super) fn new(roots: &Roots) -> CpuInfo {
        CpuInfo {
            cpuinfo: roots.procfs.join("cpuinfo"),
            folder: roots.sysfs.join("devices/system/cpu"),
            known_for: None,
            fixed: Vec::new(),
            throttled: Vec::new(),
        }
    }

    /// Appends all families. What cannot be read is left out: none of it exists on every kernel.
    pub(super) fn collect(&mut self, cpus: usize, families: &mut Vec<Family>) {
        if self.known_for != Some(cpus) {
            self.known_for = Some(cpus);
            self.fixed = std::fs::read_to_string(&self.cpuinfo).map(|text| describe(&text)).unwrap_or_default();
            self.throttled = throttled_cpus(&self.folder);
        }
        families.extend(self.fixed.iter().cloned());
        self.collect_throttles(families);
        self.collect_isolated(families);
        self.collect_online(cpus, families);
    }

    fn collect_throttles(&self, families: &mut Vec<Family>) {
        let count = |folder: &Path, file: &str| -> Option<f64> {
            read_word(&folder.join("thermal_throttle").join(file))?.parse().ok()
        };
        let mut cores = BTreeMap::new();
        let mut packages = BTreeMap::new();
        for cpu in &self.throttled {
            // Threads of one core, and cores of one package, share a counter: the first one speaks.
            if let Some(value) = count(&cpu.folder, "core_throttle_count") {
                cores.entry((cpu.core.as_str(), cpu.package.as_str())).or_insert(value);
            }
            if let Some(value) = count(&cpu.folder, "package_throttle_count") {
                packages.entry(cpu.package.as_str()).or_insert(value);
            }
        }
        let mut of_core = Family::new(
            Kind::Counter,
            "node_cpu_core_throttles_total",
            "Number of times this CPU core has been throttled.",
        );
        for ((core, package), value) in cores {
            of_core.push(&[("core", core), ("package", package)], value);
        }
        let mut of_package = Family::new(
            Kind::Counter,
            "node_cpu_package_throttles_total",
            "Number of times this CPU package has been throttled.",
        );
        for (package, value) in packages {
            of_package.push(&[("package", package)], value);
        }
        families.extend([of_core, of_package]);
    }

    fn collect_isolated(&self, families: &mut Vec<Family>) {
        let mut isolated = Family::new(
            Kind::Gauge,
            "node_cpu_isolated",
            "Whether each core is isolated, information from /sys/devices/system/cpu/isolated.",
        );
        for cpu in number_list(&read_word(&self.folder.join("isolated")).unwrap_or_default()) {
            isolated.push(&[("cpu", &cpu.to_string())], 1.0);
        }
        families.push(isolated);
    }

    /// Like node_exporter, says nothing where the first processor cannot be taken offline, which is most of x86.
    fn collect_online(&self, cpus: usize, families: &mut Vec<Family>) {
        let state = |cpu: usize| read_word(&self.folder.join(format!("cpu{cpu}/online")));
        if state(0).is_none() {
            return;
        }
        let mut online = Family::new(Kind::Gauge, "node_cpu_online", "CPUs that are online and being scheduled.");
        for (cpu, word) in (0..cpus).filter_map(|cpu| state(cpu).map(|word| (cpu, word))) {
            online.push(&[("cpu", &cpu.to_string())], f64::from(u8::from(word == "1")));
        }
        families.push(online);
    }
}

/// Turns `/proc/cpuinfo` into families.
fn describe(cpuinfo: &str) -> Vec<Family> {
    let mut info = Family::new(Kind::Gauge, "node_cpu_info", "CPU information from /proc/cpuinfo.");
    let mut flags = Family::new(
        Kind::Gauge,
        "node_cpu_flag_info",
        "The `flags` field of CPU information from /proc/cpuinfo taken from the first core.",
    );
    let mut bugs = Family::new(
        Kind::Gauge,
        "node_cpu_bug_info",
        "The `bugs` field of CPU information from /proc/cpuinfo taken from the first core.",
    );
    for block in cpuinfo.split("\n\n") {
        let fields: BTreeMap<&str, &str> = block
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        if !fields.contains_key("processor") {
            continue;
        }
        let labels = LABELS.map(|(key, label)| (label, fields.get(key).copied().unwrap_or_default()));
        if info.points.is_empty() {
            push_wanted(&mut flags, "flag", fields.get("flags"), &FLAGS);
            push_wanted(&mut bugs, "bug", fields.get("bugs"), &BUGS);
        }
        info.push(&labels, 1.0);
    }
    vec![info, flags, bugs]
}

fn push_wanted(family: &mut Family, label: &'static str, words: Option<&&str>, wanted: &[&str]) {
    let present: BTreeSet<&str> = words.copied().unwrap_or_default().split_whitespace().collect();
    for word in wanted.iter().filter(|word| present.contains(**word)) {
        family.push(&[(label, word)], 1.0);
    }
}

fn throttled_cpus(folder: &Path) -> Vec<ThrottledCpu> {
    let mut cpus = Vec::new();
    for number in 0..CPUS_MAX {
        let folder = folder.join(format!("cpu{number}"));
        if !folder.is_dir() {
            break;
        }
        let package = read_word(&folder.join("topology/physical_package_id"));
        let core = read_word(&folder.join("topology/core_id"));
        if let (Some(package), Some(core), true) = (package, core, folder.join("thermal_throttle").is_dir()) {
            cpus.push(ThrottledCpu { folder, core, package });
        }
    }
    cpus
}
