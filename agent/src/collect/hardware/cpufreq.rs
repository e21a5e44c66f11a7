//! How fast the processors run, may run, and who decides on it. `/proc/cpuinfo` tells the first also where the host has no
//! say in it, as in a virtual machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::attribute::{Attribute, AttributeReader, Minutes, numbered_in};
use super::super::kernel_file::number_list;
use super::super::{CollectError, Collector, Family, Kind, Pace, Roots};

/// Processor frequencies.
pub(super) struct Cpufreq {
    cpus: PathBuf,
    cpuinfo: PathBuf,
    minutes: Minutes,
    processors: Vec<Processor>,
    reader: AttributeReader,
}

/// Some drivers wait for milliseconds to measure a frequency, and old kernels wake every processor for `/proc/cpuinfo`.
const EVERY: Duration = Duration::from_secs(15);
const WITHIN: Duration = Duration::from_secs(20);
/// Most files that are kept open.
const OPEN_MAX: usize = 128;

/// What changes all the time: file, name after `node_cpu_`, help. In kHz.
const CURRENT: [Limit; 2] = [
    ("cpuinfo_cur_freq", "frequency_hertz", "Current CPU thread frequency in hertz."),
    ("scaling_cur_freq", "scaling_frequency_hertz", "Current scaled CPU thread frequency in hertz."),
];

/// What somebody sets.
const LIMITS: [Limit; 4] = [
    ("cpuinfo_min_freq", "frequency_min_hertz", "Minimum CPU thread frequency in hertz."),
    ("cpuinfo_max_freq", "frequency_max_hertz", "Maximum CPU thread frequency in hertz."),
    ("scaling_min_freq", "scaling_frequency_min_hertz", "Minimum scaled CPU thread frequency in hertz."),
    ("scaling_max_freq", "scaling_frequency_max_hertz", "Maximum scaled CPU thread frequency in hertz."),
];

type Limit = (&'static str, &'static str, &'static str);

const KILO: f64 = 1e3;
const MEGA: f64 = 1e6;

struct Processor {
    number: String,
    current: [Attribute; CURRENT.len()],
    limits: [Option<u64>; LIMITS.len()],
    governor: String,
    governors: Vec<String>,
}

impl Cpufreq {
    pub(super) fn new(roots: &Roots) -> Cpufreq {
        Cpufreq {
            cpus: roots.sysfs.join("devices/system/cpu"),
            cpuinfo: roots.procfs.join("cpuinfo"),
            minutes: Minutes::new(EVERY),
            processors: Vec::new(),
            reader: AttributeReader::new(),
        }
    }

    /// Looks which processors there are, and up what seldom changes.
    fn look_around(&mut self) {
        let offline = number_list(&self.reader.word(&self.cpus.join("offline")).unwrap_or_default());
        let mut numbers = numbered_in(&self.cpus, "cpu");
        let number_of = |number: &str| number.parse::<u32>().unwrap_or(u32::MAX);
        numbers.retain(|number| !offline.contains(&number_of(number)) && self.folder(number).is_dir());
        numbers.sort_by_key(|number| number_of(number));
        if numbers.iter().ne(self.processors.iter().map(|processor| &processor.number)) {
            let made = numbers.into_iter().enumerate().map(|(place, number)| {
                let folder = self.folder(&number);
                Processor::new(number, &folder, place < OPEN_MAX / CURRENT.len())
            });
            self.processors = made.collect();
        }
        for processor in &mut self.processors {
            let folder = self.cpus.join(format!("cpu{}", processor.number)).join("cpufreq");
            processor.limits = LIMITS.map(|(file, ..)| self.reader.number(&folder.join(file)));
            processor.governor = self.reader.word(&folder.join("scaling_governor")).unwrap_or_default();
            let governors = self.reader.word(&folder.join("scaling_available_governors")).unwrap_or_default();
            processor.governors = governors.split_ascii_whitespace().map(str::to_owned).collect();
        }
    }

    fn folder(&self, number: &str) -> PathBuf {
        self.cpus.join(format!("cpu{number}")).join("cpufreq")
    }
}

impl Processor {
    fn new(number: String, folder: &Path, keeps_open: bool) -> Processor {
        Processor {
            number,
            current: CURRENT.map(|(file, ..)| Attribute::new(folder.join(file), keeps_open)),
            limits: [None; LIMITS.len()],
            governor: String::new(),
            governors: Vec::new(),
        }
    }
}

impl Collector for Cpufreq {
    fn name(&self) -> &'static str {
        "cpufreq"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        if self.minutes.is_due() {
            self.look_around();
        }
        let family = |(_, name, help): &Limit| Family::new(Kind::Gauge, format!("node_cpu_{name}"), *help);
        let mut current = CURRENT.each_ref().map(family);
        // Read whole each time and not kept: it has a kilobyte and more for each processor.
        let cpuinfo = std::fs::read_to_string(&self.cpuinfo).unwrap_or_default();
        let is_told = parse(&cpuinfo, &mut current[0]);
        if self.processors.is_empty() {
            self.minutes.restart();
            families.extend(current);
            return if is_told { Ok(()) } else { Err(CollectError::Absent { path: self.folder("0") }) };
        }
        let mut limits = LIMITS.each_ref().map(family);
        let mut governors =
            Family::new(Kind::Gauge, "node_cpu_scaling_governor", "Current enabled CPU frequency governor.");
        for processor in &mut self.processors {
            let cpu = ("cpu", processor.number.as_str());
            for (family, attribute) in current.iter_mut().zip(&mut processor.current) {
                let read = self.reader.read_kept(attribute).ok().and_then(|text| text.trim().parse::<u64>().ok());
                if let Some(frequency) = read {
                    family.push(&[cpu], frequency as f64 * KILO);
                }
            }
            for (family, limit) in limits.iter_mut().zip(processor.limits) {
                if let Some(limit) = limit {
                    family.push(&[cpu], limit as f64 * KILO);
                }
            }
            for governor in processor.governors.iter().filter(|_| !processor.governor.is_empty()) {
                let is_on = f64::from(u8::from(*governor == processor.governor));
                governors.push(&[cpu, ("governor", governor)], is_on);
            }
        }
        families.extend(current);
        families.extend(limits);
        families.push(governors);
        Ok(())
    }
}

/// Adds what `/proc/cpuinfo` says of each processor's frequency; whether it says anything.
fn parse(cpuinfo: &str, family: &mut Family) -> bool {
    let mut is_told = false;
    for processor in cpuinfo.split("\n\n") {
        let (mut cpu, mut core, mut package, mut megahertz) = (None, "", "", None);
        for (key, value) in processor.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match key.trim_end() {
                "processor" => cpu = value.parse::<u32>().ok(),
                "core id" => core = value,
                "physical id" => package = value,
                "cpu MHz" => megahertz = value.parse::<f64>().ok(),
                _ => {}
            }
        }
        if let (Some(cpu), Some(megahertz)) = (cpu, megahertz) {
            let labels = [("package", package), ("core", core), ("cpu", &cpu.to_string())];
            family.push(&labels, megahertz * MEGA);
            is_told = true;
        }
    }
    is_told
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::super::{text, trial};
    use super::*;

    const CPUINFO: &str = "processor\t: 0\ncpu MHz\t\t: 2596.124\nphysical id\t: 1\ncore id\t\t: 3\n\n\
        processor\t: 1\nmodel name\t: no frequency\n\nprocessor\t: 2\ncpu MHz\t\t: 800\n\n";

    fn write(folder: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(folder).unwrap();
        for (file, text) in files {
            std::fs::write(folder.join(file), text).unwrap();
        }
    }

    #[test]
    fn processors_with_and_without_a_say() {
        let tree = tempfile::tempdir().unwrap();
        let roots = Roots {
            procfs: tree.path().to_owned(),
            sysfs: tree.path().to_owned(),
            rootfs: PathBuf::from("/nonexistent"),
        };
        let mut cpufreq = Cpufreq::new(&roots);
        assert!(matches!(cpufreq.collect(&mut Vec::new()), Err(CollectError::Absent { .. })));
        write(tree.path(), &[("cpuinfo", CPUINFO)]);
        let cpus = tree.path().join("devices/system/cpu");
        write(&cpus, &[("offline", "4-7\n")]);
        let governors = ("scaling_available_governors", "performance powersave\n");
        for cpu in [0, 10, 2, 4] {
            let frequency = ("scaling_cur_freq", "1700000\n");
            write(
                &cpus.join(format!("cpu{cpu}/cpufreq")),
                &[frequency, governors, ("scaling_governor", "powersave\n")],
            );
        }
        write(&cpus.join("cpu2/cpufreq"), &[("cpuinfo_cur_freq", "1600000\n"), ("cpuinfo_max_freq", "3700000\n")]);
        let mut families = Vec::new();
        cpufreq.collect(&mut families).unwrap();
        expect![[r#"
            node_cpu_frequency_hertz{package="1",core="3",cpu="0"} 2596124000
            node_cpu_frequency_hertz{package="",core="",cpu="2"} 800000000
            node_cpu_frequency_hertz{cpu="2"} 1600000000
            node_cpu_scaling_frequency_hertz{cpu="0"} 1700000000
            node_cpu_scaling_frequency_hertz{cpu="2"} 1700000000
            node_cpu_scaling_frequency_hertz{cpu="10"} 1700000000
            node_cpu_frequency_max_hertz{cpu="2"} 3700000000
            node_cpu_scaling_governor{cpu="0",governor="performance"} 0
            node_cpu_scaling_governor{cpu="0",governor="powersave"} 1
            node_cpu_scaling_governor{cpu="2",governor="performance"} 0
            node_cpu_scaling_governor{cpu="2",governor="powersave"} 1
            node_cpu_scaling_governor{cpu="10",governor="performance"} 0
            node_cpu_scaling_governor{cpu="10",governor="powersave"} 1
        "#]]
        .assert_eq(&trial::series(&text::render(&families)));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(CPUINFO)) {
            parse(&String::from_utf8_lossy(&bytes), &mut Family::new(Kind::Gauge, "x", ""));
        }
    }
}
