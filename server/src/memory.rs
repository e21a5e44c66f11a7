//! How much memory the server may take, and how scarce it is: the limit as written and as checked, the decision from second to
//! second, and the few files of the kernel that tell. Decides nothing about who is refused: the store takes no new series while
//! memory is [`Level::Tight`], the gate of queries no queries while it is [`Level::Over`]; what is known goes on. Nothing that was
//! acknowledged is ever given up for memory.

use petrel_agent::units::Bytes;
use serde::{Deserialize, Serialize};

/// Least size: a server without any series takes about half of it.
const BYTES_MIN: u64 = 64 << 20;

/// `memory_max` as written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawMemoryMax(pub String);

/// A fifth stays for the kernel, its cache of files, and the agent beside.
impl Default for RawMemoryMax {
    fn default() -> RawMemoryMax {
        RawMemoryMax("80%".to_owned())
    }
}

/// `memory_max`, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMax {
    /// No limit.
    Off,
    /// So many bytes.
    Bytes(u64),
    /// A share, in percent, of what the machine has or the control group may take.
    Percent(u64),
}

/// Neither a share nor a size nor `off`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("memory_max: `{found}` is neither a share of 5% to 100%, nor a size of at least 64MiB, nor `off`")]
pub struct MemoryMaxError {
    found: String,
}

impl RawMemoryMax {
    /// Checks what was written.
    ///
    /// # Errors
    /// It cannot be a limit.
    pub fn check(&self) -> Result<MemoryMax, MemoryMaxError> {
        let wrong = || MemoryMaxError { found: self.0.clone() };
        if self.0 == "off" {
            return Ok(MemoryMax::Off);
        }
        if let Some(percent) = self.0.strip_suffix('%') {
            let percent: u64 = percent.parse().map_err(|_| wrong())?;
            return (5..=100).contains(&percent).then_some(MemoryMax::Percent(percent)).ok_or_else(wrong);
        }
        match self.0.parse() {
            Ok(Bytes(bytes)) if bytes >= BYTES_MIN => Ok(MemoryMax::Bytes(bytes)),
            _ => Err(wrong()),
        }
    }
}

impl MemoryMax {
    /// The limit in bytes on a machine that has so many; `None` for no limit, or where a share is asked of what nobody knows. A share of
    /// less than an empty server takes is 64 MiB.
    pub fn bytes(self, machine_bytes: Option<u64>) -> Option<u64> {
        match self {
            MemoryMax::Off => None,
            MemoryMax::Bytes(bytes) => Some(bytes),
            MemoryMax::Percent(percent) => machine_bytes.map(|bytes| (bytes / 100 * percent).max(BYTES_MIN)),
        }
    }
}

/// How scarce memory is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is room.
    #[default]
    Normal,
    /// From 85 % of the limit until below 80 %: no new series, so that what stays in memory for good leaves room for queries.
    Tight,
    /// From the limit until below 90 %: no queries either.
    Over,
}

impl Level {
    /// The level after this one, now that so many bytes are in use. What begins at one share ends at a lower one, or it would begin
    /// and end with every second.
    pub fn next(self, used_bytes: u64, bytes_max: u64) -> Level {
        let below = |percent: u64| u128::from(used_bytes) * 100 < u128::from(bytes_max) * u128::from(percent);
        match self {
            _ if !below(100) => Level::Over,
            Level::Over if !below(90) => Level::Over,
            Level::Normal if below(85) => Level::Normal,
            Level::Tight | Level::Over if below(80) => Level::Normal,
            _ => Level::Tight,
        }
    }
}

/// Resident memory of this process; `None` where the kernel does not tell.
pub fn used_bytes() -> Option<u64> {
    kib_of(&read("/proc/self/status")?, "VmRSS:")
}

/// What this machine has, or this process' control group may take where that is less.
pub fn machine_bytes() -> Option<u64> {
    machine_bytes_from(&read)
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// A line such as `MemTotal:  24684100 kB`.
fn kib_of(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest of the machine's memory and the limits of the control group and those around it.
fn machine_bytes_from(read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| kib_of(&text, "MemTotal:"));
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().flat_map(|line| {
        // `0::/path` is version 2, `9:cpu,memory:/path` version 1.
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (base, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|one| one == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return Vec::new(),
        };
        let around =
            std::iter::successors(Some(path.trim_end_matches('/')), |path| path.rfind('/').map(|at| &path[..at]));
        // «max», and files that are not there, are no limit.
        around.filter_map(|path| read(&format!("{base}{path}/{file}"))?.trim().parse::<u64>().ok()).collect()
    });
    limits.chain(machine).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_checked() {
        let check = |text: &str| RawMemoryMax(text.to_owned()).check();
        assert_eq!(RawMemoryMax::default().check(), Ok(MemoryMax::Percent(80)));
        assert_eq!((check("off"), check("2GiB")), (Ok(MemoryMax::Off), Ok(MemoryMax::Bytes(2 << 30))));
        for wrong in ["", "0%", "4%", "101%", "-5%", "x%", "63MiB", "much", "50 %"] {
            let said = check(wrong).unwrap_err().to_string();
            assert!(said.starts_with(&format!("memory_max: `{wrong}` is neither")), "{said}");
        }
        assert_eq!(MemoryMax::Percent(50).bytes(Some(1000 << 20)), Some(500 << 20));
        assert_eq!(MemoryMax::Percent(5).bytes(Some(512 << 20)), Some(BYTES_MIN), "a server without series has room");
        assert_eq!((MemoryMax::Off.bytes(Some(1000)), MemoryMax::Percent(50).bytes(None)), (None, None));
        assert_eq!(MemoryMax::Bytes(7).bytes(Some(5)), Some(7));
    }

    #[test]
    fn a_level_ends_lower_than_it_begins() {
        use Level::{Normal, Over, Tight};
        let mut level = Normal;
        for (used, expected) in [
            (84, Normal),
            (85, Tight),
            (80, Tight),
            (79, Normal),
            (99, Tight),
            (100, Over),
            (90, Over),
            (89, Tight),
            (100, Over),
            (79, Normal),
            (250, Over),
        ] {
            level = level.next(used, 100);
            assert_eq!(level, expected, "at {used} %");
        }
        assert_eq!(Normal.next(u64::MAX, u64::MAX), Over, "nothing overflows");
    }

    #[test]
    fn the_smallest_of_machine_and_control_groups_counts() {
        let told = |files: &[(&str, &str)]| {
            machine_bytes_from(&|path| {
                files.iter().find(|(known, _)| *known == path).map(|(_, text)| (*text).to_owned())
            })
        };
        let machine = ("/proc/meminfo", "MemTotal:       1000 kB\nMemFree: 5 kB\n");
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[machine]), Some(1_024_000));
        let second = ("/proc/self/cgroup", "0::/system.slice/petrel.service\n");
        let limits = [
            ("/sys/fs/cgroup/system.slice/petrel.service/memory.max", "max\n"),
            ("/sys/fs/cgroup/system.slice/memory.max", "700000\n"),
            ("/sys/fs/cgroup/memory.max", "800000\n"),
        ];
        assert_eq!(told(&[&[machine, second], &limits[..]].concat()), Some(700_000));
        let container = [machine, ("/proc/self/cgroup", "0::/\n"), ("/sys/fs/cgroup/memory.max", "800000\n")];
        assert_eq!(told(&container), Some(800_000));
        let first = [
            machine,
            ("/proc/self/cgroup", "9:name=systemd:/a\n4:cpu,memory:/a/b\n"),
            ("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "600000\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(told(&first), Some(600_000));
    }

    #[test]
    fn the_kernel_tells() {
        let (used, machine) = (used_bytes().unwrap(), machine_bytes().unwrap());
        assert!(used > 1 << 20 && used < machine, "{used} of {machine}");
    }
}
