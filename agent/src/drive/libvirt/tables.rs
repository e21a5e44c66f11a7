//! What virsh's text commands say: the node, guests' statistics, jobs. Read by their keys; a value that is missing where it
//! is needed makes the reading fail.

use std::collections::BTreeMap;

use crate::libvirt::{Answer, VirshError, domstats, unreadable};
use crate::xml::read;

/// The host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Logical processors.
    pub cpus: u32,
    /// Physical memory.
    pub memory_bytes: u64,
    /// Memory that is free or can be freed at once.
    pub memory_bytes_available: u64,
}

/// A guest as `list --uuid --name` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed<'a> {
    /// Its UUID.
    pub uuid: &'a str,
    /// Its name, which may hold spaces.
    pub name: &'a str,
}

/// One guest's statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// libvirt's word.
    pub state: String,
    /// Maximum memory.
    pub memory_bytes: u64,
    /// Virtual processors.
    pub vcpus: u32,
    /// Processor time since it was started.
    pub cpu_seconds: f64,
}

/// What is done to one guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// A migration, of either direction.
    pub migrating: bool,
    /// What forbids moving it meanwhile.
    pub obstacles: Vec<String>,
}

/// libvirt's states by number (`virDomainState`), in virsh's words.
const STATES: [&str; 8] =
    ["no state", "running", "idle", "paused", "in shutdown", "shut off", "crashed", "pmsuspended"];

impl Statistics {
    /// Whether it has a process.
    pub fn is_active(&self) -> bool {
        !matches!(self.state.as_str(), "shut off" | "crashed" | "no state")
    }
}

/// Reads `nodeinfo` and `nodememstats`.
pub fn node(info: &str, memory: &str) -> Result<Node, VirshError> {
    let (info, memory) = (pairs(info, ':'), pairs(memory, ':'));
    let kib = |key: &str| number(&memory, key, "nodememstats");
    let cpus = number(&info, "CPU(s)", "nodeinfo")?;
    Ok(Node {
        cpus: u32::try_from(cpus).map_err(|_| unreadable("nodeinfo", format!("{cpus} processors")))?,
        memory_bytes: number(&info, "Memory size", "nodeinfo")? << 10,
        memory_bytes_available: (kib("free")? + kib("buffers")? + kib("cached")?) << 10,
    })
}

/// Architecture and processor model from `capabilities`.
pub fn cpu_model(capabilities: &str) -> Result<String, VirshError> {
    let wrong = |problem: String| unreadable("capabilities", problem);
    let roots = read(capabilities).map_err(|error| wrong(error.to_string()))?;
    let cpu =
        roots.first().and_then(|root| root.at(&["host", "cpu"])).ok_or_else(|| wrong("no host cpu".to_owned()))?;
    let word = |name: &str| cpu.child(name).map_or("", |child| child.text.as_str());
    Ok(format!("{} {}", word("arch"), word("model")).trim().to_owned())
}

/// Reads `list --uuid --name`.
pub fn listed(text: &str) -> Vec<Listed<'_>> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once(' '));
    pairs.map(|(uuid, name)| Listed { uuid, name: name.trim() }).collect()
}

/// Reads `domstats`, by guest name.
pub fn statistics(text: &str) -> Result<BTreeMap<String, Statistics>, VirshError> {
    let mut all = BTreeMap::new();
    let wrong = |problem: String| unreadable("domstats", problem);
    for record in domstats::records(text).map_err(wrong)? {
        let get = |key: &str| {
            let value = record.get(key).ok_or_else(|| wrong(format!("it has no `{key}`")))?;
            value.parse::<u64>().map_err(|_| wrong(format!("`{key}` is `{value}`")))
        };
        let state = get("state.state")?;
        let word = usize::try_from(state).ok().and_then(|state| STATES.get(state));
        let statistics = Statistics {
            state: (*word.ok_or_else(|| wrong(format!("{} is in state {state}", record.name)))?).to_owned(),
            memory_bytes: get("balloon.maximum")? << 10,
            vcpus: u32::try_from(get("vcpu.maximum")?).unwrap_or(u32::MAX),
            // Not there for a guest that does not run.
            cpu_seconds: record.get("cpu.time").and_then(|time| time.parse::<f64>().ok()).unwrap_or(0.0) / 1e9,
        };
        all.insert(record.name.to_owned(), statistics);
    }
    Ok(all)
}

/// What is done to a guest, from the answer to `domjobinfo` and those to `blockjob`, by disk. What cannot be read is an obstacle.
pub fn job(info: &Answer, disks: &[(&str, &Answer)]) -> Job {
    let mut job = Job::default();
    let pairs = pairs(&info.out, ':');
    let operation = pairs.get("Operation").map_or("", String::as_str);
    match pairs.get("Job type").map(String::as_str) {
        Some("None") => {}
        Some(_) if operation.to_lowercase().contains("migration") => job.migrating = true,
        Some(kind) => job.obstacles.push(format!("a job runs on it: {operation} ({kind})")),
        // The target of a migration answers so.
        None if info.words.contains("only on the source host") => job.migrating = true,
        None => job.obstacles.push(format!("whether a job runs on it cannot be read: {}", info.words)),
    }
    if job.migrating {
        job.obstacles.push("it is being migrated".to_owned());
    }
    for (disk, answer) in disks {
        if !answer.words.is_empty() && !job.migrating {
            job.obstacles.push(format!("whether a block job runs on disk {disk} cannot be read: {}", answer.words));
        }
        // `--raw` gives key=value lines for a job and nothing without one.
        if !answer.out.trim().is_empty() {
            job.obstacles.push(format!("a block job runs on disk {disk}"));
        }
    }
    job
}

/// Lines of `key SEPARATOR value`, trimmed.
fn pairs(text: &str, separator: char) -> BTreeMap<String, String> {
    let pair =
        |line: &str| line.split_once(separator).map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    text.lines().filter_map(pair).collect()
}

/// The number that a value begins with.
fn number(values: &BTreeMap<String, String>, key: &str, what: &'static str) -> Result<u64, VirshError> {
    let value = values.get(key).ok_or_else(|| unreadable(what, format!("it has no `{key}`")))?;
    let digits = value.split(' ').next().unwrap_or_default();
    digits.parse().map_err(|_| unreadable(what, format!("`{key}` is `{value}`")))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_node_is_read() {
        let info = "CPU model:           x86_64\nCPU(s):              2\nCPU frequency:       2596 MHz\nMemory size:         24684100 KiB\n";
        let memory = "total  :             24684100 KiB\nfree   :             12575212 KiB\nbuffers:                61592 KiB\ncached :             11112948 KiB\n";
        expect!["Node { cpus: 2, memory_bytes: 25276518400, memory_bytes_available: 24319746048 }"]
            .assert_eq(&format!("{:?}", node(info, memory).unwrap()));
        assert_eq!(
            node(info, "").unwrap_err().to_string(),
            "cannot read what virsh nodememstats says: it has no `free`"
        );
        let capabilities = "<capabilities>\n\n<host><uuid>1</uuid><cpu><arch>x86_64</arch><model>kvm64</model><vendor>AMD</vendor></cpu></host></capabilities>";
        assert_eq!(cpu_model(capabilities).unwrap(), "x86_64 kvm64");
    }

    #[test]
    fn statistics_are_read() {
        let text = "Domain: 'vm1'\n  state.state=1\n  state.reason=2\n  cpu.time=1072866291\n  balloon.current=131072\n  balloon.maximum=131072\n  vcpu.current=1\n  vcpu.maximum=1\n\n\
            Domain: 'it's off'\n  state.state=5\n  balloon.maximum=2048\n  vcpu.maximum=4\n\n";
        expect![[r#"{"it's off": Statistics { state: "shut off", memory_bytes: 2097152, vcpus: 4, cpu_seconds: 0.0 }, "vm1": Statistics { state: "running", memory_bytes: 134217728, vcpus: 1, cpu_seconds: 1.072866291 }}"#]]
            .assert_eq(&format!("{:?}", statistics(text).unwrap()));
        assert_eq!(
            statistics("Domain: 'a'\n  state.state=1\n").unwrap_err().to_string(),
            "cannot read what virsh domstats says: it has no `balloon.maximum`"
        );
    }

    #[test]
    fn jobs_are_told() {
        let answer = |out: &str, words: &str| Answer { out: out.to_owned(), words: words.to_owned() };
        let told = |info: (&str, &str), disk: Option<(&str, &str)>| {
            let disk = disk.map(|(out, words)| answer(out, words));
            let disks: Vec<(&str, &Answer)> = disk.iter().map(|disk| ("vda", disk)).collect();
            let job = job(&answer(info.0, info.1), &disks);
            format!("{}{}", if job.migrating { "migrating: " } else { "" }, job.obstacles.join(", "))
        };
        let none = ("Job type:         None        \n\n", "");
        assert_eq!(told(none, Some(("\n", ""))), "");
        assert_eq!(
            told(("Job type:         Unbounded   \nOperation:        Outgoing migration\n", ""), None),
            "migrating: it is being migrated"
        );
        assert_eq!(
            told(("", "Operation not supported: migration statistics are available only on the source host"), None),
            "migrating: it is being migrated"
        );
        assert_eq!(
            told(("Job type:         Unbounded   \nOperation:        Backup\n", ""), None),
            "a job runs on it: Backup (Unbounded)"
        );
        assert_eq!(told(none, Some((" type=Block Copy\n cur=1\n", ""))), "a block job runs on disk vda");
        assert_eq!(
            told(none, Some(("", "no such disk"))),
            "whether a block job runs on disk vda cannot be read: no such disk"
        );
        assert_eq!(told(("", "no connection"), None), "whether a job runs on it cannot be read: no connection");
    }
}
