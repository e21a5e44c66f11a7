//! Control groups, version 2: what a group's files say of its processor time, memory, disk traffic and waiting. For slices
//! (`cgroup_slices`) and for guests alike.
//!
//! Groups come and go with what runs in them, so nothing here is kept open and a file that is not there is left out,
//! never an error. It never writes: a group's files are also its controls.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Largest file that is read; `io.stat` has some 100 bytes for each disk.
const BYTES_MAX: u64 = 256 << 10;
/// Most disks of a group that are told.
const DEVICES_MAX: usize = 256;

/// Reads groups, one after the other, into one buffer.
#[derive(Debug, Default)]
pub(in crate::collect) struct Cgroup2Reader {
    text: String,
    bytes: Vec<u8>,
}

/// One group. What its kernel or its controllers do not tell is `None` or empty.
#[derive(Debug, Default, Clone, PartialEq)]
pub(in crate::collect) struct Cgroup2 {
    pub(in crate::collect) cpu: Option<CgroupCpu>,
    pub(in crate::collect) memory: CgroupMemory,
    /// By device, as `major:minor`.
    pub(in crate::collect) io: Vec<(String, CgroupIo)>,
    pub(in crate::collect) cpu_pressure: Option<CgroupPressure>,
    pub(in crate::collect) memory_pressure: Option<CgroupPressure>,
    pub(in crate::collect) io_pressure: Option<CgroupPressure>,
}

/// `cpu.stat`.
#[derive(Debug, Default, Clone, PartialEq)]
pub(in crate::collect) struct CgroupCpu {
    pub(in crate::collect) usage_seconds: f64,
    pub(in crate::collect) user_seconds: f64,
    pub(in crate::collect) system_seconds: f64,
    /// Only where the cpu controller is on; so are the two below.
    pub(in crate::collect) periods: Option<f64>,
    pub(in crate::collect) throttled_periods: Option<f64>,
    pub(in crate::collect) throttled_seconds: Option<f64>,
}

/// `memory.*`.
#[derive(Debug, Default, Clone, PartialEq)]
pub(in crate::collect) struct CgroupMemory {
    pub(in crate::collect) current_bytes: Option<f64>,
    /// Infinite when there is no limit.
    pub(in crate::collect) max_bytes: Option<f64>,
    pub(in crate::collect) swap_bytes: Option<f64>,
    /// How often what happened (`low`, `high`, `max`, `oom`, `oom_kill`, …), as the kernel names it.
    pub(in crate::collect) events: Vec<(String, f64)>,
}

/// A device's part of `io.stat`.
#[derive(Debug, Default, Clone, PartialEq)]
pub(in crate::collect) struct CgroupIo {
    pub(in crate::collect) read_bytes: f64,
    pub(in crate::collect) written_bytes: f64,
    pub(in crate::collect) reads: f64,
    pub(in crate::collect) writes: f64,
}

/// Seconds that tasks of the group waited: some of them, and all of them at once.
#[derive(Debug, Default, Clone, PartialEq)]
pub(in crate::collect) struct CgroupPressure {
    pub(in crate::collect) some_seconds: f64,
    pub(in crate::collect) full_seconds: f64,
}

impl Cgroup2Reader {
    /// Reads the group at a folder. One that has gone reads as a group that says nothing. Nine small files.
    pub(in crate::collect) fn read(&mut self, folder: &Path) -> Cgroup2 {
        Cgroup2 {
            cpu: self.file(folder, "cpu.stat").and_then(cpu),
            memory: CgroupMemory {
                current_bytes: self.file(folder, "memory.current").and_then(amount),
                max_bytes: self.file(folder, "memory.max").and_then(amount),
                swap_bytes: self.file(folder, "memory.swap.current").and_then(amount),
                events: self.file(folder, "memory.events").map(events).unwrap_or_default(),
            },
            io: self.file(folder, "io.stat").map(io).unwrap_or_default(),
            cpu_pressure: self.file(folder, "cpu.pressure").and_then(pressure),
            memory_pressure: self.file(folder, "memory.pressure").and_then(pressure),
            io_pressure: self.file(folder, "io.pressure").and_then(pressure),
        }
    }

    /// The text of a small file; `None` when it is not there or is no text.
    pub(super) fn file(&mut self, folder: &Path, name: &str) -> Option<&str> {
        self.bytes.clear();
        self.text.clear();
        File::open(folder.join(name)).ok()?.take(BYTES_MAX).read_to_end(&mut self.bytes).ok()?;
        self.text.push_str(std::str::from_utf8(&self.bytes).ok()?);
        Some(&self.text)
    }
}

/// Where version 2 of control groups is mounted, on its own or beside version 1; `None` where it is not.
pub(in crate::collect) fn root(sysfs: &Path) -> Option<PathBuf> {
    let mounted = sysfs.join("fs/cgroup");
    let beside = mounted.join("unified");
    [mounted, beside].into_iter().find(|folder| folder.join("cgroup.controllers").is_file())
}

/// The names of the groups inside a group, in order; at most `max`, and whether there are more. Names that are not UTF-8 are
/// left out.
pub(in crate::collect) fn children(folder: &Path, max: usize) -> (Vec<String>, bool) {
    let Ok(entries) = std::fs::read_dir(folder) else { return (Vec::new(), false) };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut names: Vec<String> =
        folders.filter_map(|entry| entry.file_name().into_string().ok()).take(max + 1).collect();
    let more = names.len() > max;
    names.truncate(max);
    names.sort_unstable();
    (names, more)
}

/// Undoes systemd's `\x2d` for what may not stand in a unit's name. Escapes that make no UTF-8 stay as they are.
pub(in crate::collect) fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .strip_prefix(b"x")
            .filter(|_| first == b'\\')
            .and_then(|digits| digits.get(..2))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| name.to_owned())
}

/// Lines of a word and a number.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.lines().filter_map(|line| {
        let (word, number) = line.split_once(' ')?;
        Some((word, number.trim().parse().ok()?))
    })
}

fn cpu(text: &str) -> Option<CgroupCpu> {
    let mut cpu = CgroupCpu::default();
    let mut known = false;
    for (word, number) in pairs(text) {
        match word {
            "usage_usec" => (cpu.usage_seconds, known) = (number / 1e6, true),
            "user_usec" => cpu.user_seconds = number / 1e6,
            "system_usec" => cpu.system_seconds = number / 1e6,
            "nr_periods" => cpu.periods = Some(number),
            "nr_throttled" => cpu.throttled_periods = Some(number),
            "throttled_usec" => cpu.throttled_seconds = Some(number / 1e6),
            _ => {}
        }
    }
    known.then_some(cpu)
}

fn amount(text: &str) -> Option<f64> {
    match text.trim() {
        "max" => Some(f64::INFINITY),
        number => number.parse::<u64>().ok().map(|number| number as f64),
    }
}

fn events(text: &str) -> Vec<(String, f64)> {
    // There are six kinds today.
    pairs(text).take(16).map(|(word, number)| (word.to_owned(), number)).collect()
}

fn io(text: &str) -> Vec<(String, CgroupIo)> {
    let mut devices = Vec::new();
    for line in text.lines().take(DEVICES_MAX) {
        // A line may begin with several devices, of which only the last one has numbers.
        let mut words = line.split_ascii_whitespace().skip_while(|word| !word.contains('=')).peekable();
        let device = line.split_ascii_whitespace().take_while(|word| !word.contains('=')).last();
        let (Some(device), Some(_)) = (device, words.peek()) else { continue };
        let mut io = CgroupIo::default();
        for (key, number) in words.filter_map(|word| word.split_once('=')) {
            let place = match key {
                "rbytes" => &mut io.read_bytes,
                "wbytes" => &mut io.written_bytes,
                "rios" => &mut io.reads,
                "wios" => &mut io.writes,
                _ => continue,
            };
            *place = number.parse().unwrap_or_default();
        }
        devices.push((device.to_owned(), io));
    }
    devices
}

fn pressure(text: &str) -> Option<CgroupPressure> {
    let total = |word: &str| -> Option<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))?;
        let total = line.split_ascii_whitespace().find_map(|field| field.strip_prefix("total="))?;
        total.parse::<f64>().ok().map(|microseconds| microseconds / 1e6)
    };
    // `cpu.pressure` had no `full` before Linux 5.13.
    Some(CgroupPressure { some_seconds: total("some")?, full_seconds: total("full").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_group_with_all_and_a_group_with_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [
            (
                "cpu.stat",
                "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 7\nnr_throttled 2\nthrottled_usec 250000\n",
            ),
            ("memory.current", "1048576\n"),
            ("memory.max", "max\n"),
            ("memory.swap.current", "4096\n"),
            ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"),
            ("io.stat", "7:0 8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n8:16 \n"),
            ("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=2000000\n"),
            (
                "io.pressure",
                "some avg10=0.00 avg60=0.00 avg300=0.00 total=3\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
            ),
        ] {
            std::fs::write(folder.path().join(file), text).unwrap();
        }
        expect![[r#"
            Cgroup2 { cpu: Some(CgroupCpu { usage_seconds: 1.5, user_seconds: 1.0, system_seconds: 0.5, periods: Some(7.0), throttled_periods: Some(2.0), throttled_seconds: Some(0.25) }), memory: CgroupMemory { current_bytes: Some(1048576.0), max_bytes: Some(inf), swap_bytes: Some(4096.0), events: [("low", 0.0), ("high", 0.0), ("max", 3.0), ("oom", 1.0), ("oom_kill", 1.0)] }, io: [("8:0", CgroupIo { read_bytes: 4096.0, written_bytes: 8192.0, reads: 1.0, writes: 2.0 })], cpu_pressure: Some(CgroupPressure { some_seconds: 2.0, full_seconds: 0.0 }), memory_pressure: None, io_pressure: Some(CgroupPressure { some_seconds: 3e-6, full_seconds: 1e-6 }) }
        "#]]
        .assert_eq(&format!("{:?}\n", Cgroup2Reader::default().read(folder.path())));
        let gone = folder.path().join("gone");
        assert_eq!(Cgroup2Reader::default().read(&gone), Cgroup2::default());
        assert_eq!(children(&gone, 3), (Vec::new(), false));
    }

    #[test]
    fn groups_are_found_and_their_names_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(root(folder.path()), None);
        let unified = folder.path().join("fs/cgroup/unified");
        for name in ["b.slice", "a.slice", "c.slice"] {
            std::fs::create_dir_all(unified.join(name)).unwrap();
        }
        std::fs::write(unified.join("cgroup.controllers"), "").unwrap();
        assert_eq!(root(folder.path()), Some(unified.clone()));
        assert_eq!(
            children(&unified, 3),
            (vec!["a.slice".to_owned(), "b.slice".to_owned(), "c.slice".to_owned()], false)
        );
        assert!(children(&unified, 2).1);
        for (name, plain) in
            [(r"machine-qemu\x2d1\x2dweb.scope", "machine-qemu-1-web.scope"), (r"a\x2", r"a\x2"), (r"\xff", r"\xff")]
        {
            assert_eq!(unescaped(name), plain);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "(?s).{0,80}", numbers in "((some|full|8:0|usage_usec)[ =]?(total=|rbytes=)?[0-9.x]{0,9}[ \n]){0,9}") {
            for text in [&text, &numbers] {
                let _ = (cpu(text), amount(text), events(text), io(text), pressure(text), unescaped(text));
            }
        }
    }
}
