//! `/proc/PID/stat` of every process: how many there are, in which states, against the limits. Off by default: it opens a
//! file for each process, and `node_procs_blocked` tells what matters most for nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::attribute::{AttributeReader, names_in};
use super::super::{CollectError, Collector, Family, Kind, Pace, Roots};

/// Processes and threads.
pub(super) struct Processes {
    procfs: PathBuf,
    reader: AttributeReader,
}

/// Time from one reading to the next: 2,000 processes take about 20 ms of processor time.
const EVERY: Duration = Duration::from_secs(30);
const WITHIN: Duration = Duration::from_secs(20);

/// How many are in each state; the kernel knows about ten letters.
type States = BTreeMap<char, u32>;

#[derive(Default)]
struct Counted {
    processes: u32,
    threads: u64,
    states: States,
    thread_states: States,
}

/// What is taken of a line of `stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Task {
    state: char,
    threads: u64,
}

impl Processes {
    pub(super) fn new(roots: &Roots) -> Processes {
        Processes { procfs: roots.procfs.clone(), reader: AttributeReader::new() }
    }

    fn count(&mut self) -> Result<Counted, CollectError> {
        let mut counted = Counted::default();
        let unreadable = |source| CollectError::Read { path: self.procfs.clone(), source };
        for entry in std::fs::read_dir(&self.procfs).map_err(unreadable)?.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else {
                continue;
            };
            let folder = self.procfs.join(pid);
            // A process may end at any time.
            let Some(task) = self.task(&folder) else { continue };
            counted.processes += 1;
            counted.threads += task.threads;
            *counted.states.entry(task.state).or_default() += 1;
            self.count_threads(&folder, pid, task, &mut counted.thread_states);
        }
        Ok(counted)
    }

    fn count_threads(&mut self, folder: &Path, pid: &str, process: Task, states: &mut States) {
        let tasks = folder.join("task");
        // Most processes have one thread, which the process's own line describes.
        if process.threads == 1 && tasks.is_dir() {
            *states.entry(process.state).or_default() += 1;
            return;
        }
        for thread in names_in(&tasks).unwrap_or_default() {
            let task = if thread == pid { Some(process) } else { self.task(&tasks.join(thread)) };
            if let Some(task) = task {
                *states.entry(task.state).or_default() += 1;
            }
        }
    }

    fn task(&mut self, folder: &Path) -> Option<Task> {
        parse(&self.reader.read(&folder.join("stat")).ok()?)
    }
}

impl Collector for Processes {
    fn name(&self) -> &'static str {
        "processes"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let counted = self.count()?;
        if counted.processes == 0 {
            return Err(CollectError::Absent { path: self.procfs.join("1/stat") });
        }
        let gauge = |name, help| Family::new(Kind::Gauge, name, help);
        let of_states = |mut family: Family, label, states: &States| {
            for (state, count) in states {
                family.push(&[(label, state.encode_utf8(&mut [0; 4]))], f64::from(*count));
            }
            family
        };
        families.push(gauge("node_processes_threads", "Allocated threads in system").with(counted.threads as f64));
        families.push(gauge("node_processes_pids", "Number of PIDs").with(f64::from(counted.processes)));
        let family = gauge("node_processes_state", "Number of processes in each state.");
        families.push(of_states(family, "state", &counted.states));
        let family = gauge("node_processes_threads_state", "Number of threads in each state.");
        families.push(of_states(family, "thread_state", &counted.thread_states));
        for (file, name, help) in [
            ("sys/kernel/threads-max", "node_processes_max_threads", "Limit of threads in the system"),
            ("sys/kernel/pid_max", "node_processes_max_processes", "Number of max PIDs limit"),
        ] {
            if let Some(limit) = self.reader.number(&self.procfs.join(file)) {
                families.push(gauge(name, help).with(limit));
            }
        }
        Ok(())
    }
}

/// Reads state and number of threads; the name before them stands in parentheses and may hold any letter, also those.
fn parse(stat: &str) -> Option<Task> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state is the third field of the line, the number of threads the twentieth.
    let threads = fields.nth(16)?.parse().ok()?;
    Some(Task { state, threads })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::trial;
    use super::*;

    const STAT: &str =
        "42 (a) b (c) S 1 42 42 0 -1 4194560 9061 9416027 94 2620 36 98 54406 13885 20 0 7 0 29 109604864 2507";

    #[test]
    fn a_name_may_hold_parentheses() {
        assert_eq!(parse(STAT), Some(Task { state: 'S', threads: 7 }));
        assert_eq!((parse("42 (x) S 1"), parse("")), (None, None));
    }

    #[test]
    fn threads_are_counted_by_state_and_ended_processes_passed_over() {
        let procfs = tempfile::tempdir().unwrap();
        let stat = |pid: &str, state: &str, threads: u32| {
            let folder = procfs.path().join(pid);
            std::fs::create_dir_all(&folder).unwrap();
            let line = format!("1 (x) {state} 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 29");
            std::fs::write(folder.join("stat"), line).unwrap();
        };
        stat("7", "S", 2);
        stat("7/task/7", "R", 2);
        stat("7/task/8", "D", 2);
        stat("9", "Z", 1);
        std::fs::create_dir_all(procfs.path().join("9/task/9")).unwrap();
        std::fs::create_dir_all(procfs.path().join("10")).unwrap();
        let roots = Roots {
            procfs: procfs.path().to_owned(),
            sysfs: PathBuf::from("/nonexistent"),
            rootfs: PathBuf::from("/nonexistent"),
        };
        let counted = Processes::new(&roots).count().unwrap();
        assert_eq!((counted.processes, counted.threads), (2, 3));
        assert_eq!(counted.states, States::from([('S', 1), ('Z', 1)]));
        assert_eq!(counted.thread_states, States::from([('S', 1), ('D', 1), ('Z', 1)]));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(STAT)) {
            let _ = parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
