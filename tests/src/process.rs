//! Real processes for tests: started with a log of their own, ended by their own id, killed when the test is done.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::tree::repository;

/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(100);

/// A child process. Dropping it kills it with SIGKILL.
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> Process {
        let out = File::options().create(true).append(true).open(log).expect("the log's folder exists");
        let err = out.try_clone().expect("a file can be cloned");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
        Process { child, log: log.to_owned() }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it at once, as a power failure would: SIGKILL.
    pub fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop and waits; returns how long it took and whether it ended well.
    pub fn stop(&mut self, deadline: Duration) -> (Duration, bool) {
        let begin = Instant::now();
        let sent = Command::new("kill").args(["-INT", &self.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "process {} cannot be signalled", self.id());
        let mut ended = None;
        wait_for("the process to stop", deadline, || {
            ended = self.child.try_wait().expect("its own child can be waited for");
            ended.is_some()
        });
        (begin.elapsed(), ended.is_some_and(|status| status.success()))
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().expect("its own child can be waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<&str> = output.lines().rev().take(60).collect();
            eprintln!("--- {} (last lines)", self.log.display());
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A program of this workspace, as built by `cargo build --workspace --bins` in the profile of the tests.
pub fn program(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().expect("a test knows its own path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    let path = path.join(name);
    assert!(
        path.exists(),
        "{} is not built; run `cargo build --workspace --bins` first, as tests/run does",
        path.display()
    );
    path
}

/// Waits until `condition` holds, looking ten times a second; panics with `what` at the deadline.
pub fn wait_for(what: &str, deadline: Duration, condition: impl FnMut() -> bool) {
    wait_for_at(POLL, what, deadline, condition);
}

fn wait_for_at(poll: Duration, what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < deadline, "waited {deadline:?} for {what}");
        std::thread::sleep(poll);
    }
}

/// Waits until `find` gives a value; panics with `what` at the deadline.
pub fn wait_to_find<T>(what: &str, deadline: Duration, find: impl FnMut() -> Option<T>) -> T {
    wait_to_find_at(POLL, what, deadline, find)
}

/// As [`wait_to_find`], looking every `poll`.
pub fn wait_to_find_at<T>(poll: Duration, what: &str, deadline: Duration, mut find: impl FnMut() -> Option<T>) -> T {
    let mut found = None;
    wait_for_at(poll, what, deadline, || {
        found = find();
        found.is_some()
    });
    found.expect("wait_for returns once it is found")
}

/// A TCP port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// Whether this test runs as root, which mounts and namespaces need.
pub fn is_root() -> bool {
    let mut status = String::new();
    let read = File::open("/proc/self/status").and_then(|mut file| file.read_to_string(&mut status));
    read.is_ok() && status.lines().any(|line| line.starts_with("Uid:\t0\t"))
}

/// Runs a command to its end and returns what it printed; panics with its errors when it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?} cannot be started: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?} failed:\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that ends by itself within `deadline`; returns its exit code and everything it printed.
pub fn run_to_end(command: &mut Command, log: &Path, deadline: Duration) -> (i32, String) {
    let mut process = Process::start(command, log);
    let status = wait_to_find(&format!("{command:?} to end"), deadline, || process.ended());
    (status.code().unwrap_or(-1), process.output())
}

/// The folder of test data in the repository.
pub fn fixtures() -> PathBuf {
    repository().join("tests/fixtures")
}
