//! A real systemd-journald of the lab and a real agent that follows it: every entry arrives at the server, once, whatever is rotated,
//! and whether the agent is stopped or killed meanwhile. Read on in `agent_kill9.rs`, the same for files.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use petrel_tests::left_out::{note, shared};
use petrel_tests::petrel::Server;
use petrel_tests::process::{Process, is_root, program, wait_for};

/// Wait between two entries; journald lets 10,000 through in 30 s.
const ENTRY_EVERY: Duration = Duration::from_millis(5);
/// Until what was written is stored, on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// What each message of the test begins with.
const BEGIN: &str = "petrel entry ";

/// A journald in a mount namespace of its own. Its shell ends, and it with that, when the shell's input ends.
struct Journald {
    shell: Child,
    pid: String,
    /// `/run` as journald sees it.
    run: PathBuf,
}

impl Journald {
    fn start(script: &Path) -> Journald {
        let inside = "echo $$ $(pgrep -P $PPID -x systemd-journal); exec cat";
        let mut command = Command::new(script);
        let command = command.args(["run", inside]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().expect("the lab's scripts can be run");
        let mut said = String::new();
        let out = shell.stdout.take().expect("it was piped");
        BufReader::new(out).read_line(&mut said).expect("it is text");
        let (inner, pid) = said.trim().split_once(' ').unwrap_or_else(|| panic!("journald did not start: {said}"));
        Journald { run: Path::new("/proc").join(inner).join("root/run"), pid: pid.to_owned(), shell }
    }

    fn folder(&self) -> PathBuf {
        self.run.join("log/journal")
    }

    /// Files of the journal, with those that were rotated.
    fn files(&self) -> usize {
        let folders = std::fs::read_dir(self.folder()).expect("journald made it").flatten();
        let files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten().flatten());
        files.filter(|file| file.path().extension().is_some_and(|end| end == "journal")).count()
    }

    fn rotate(&self) {
        let before = self.files();
        let sent = Command::new("kill").args(["-USR2", &self.pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "journald {} cannot be signalled", self.pid);
        wait_for("journald to rotate", SOON, || self.files() > before);
    }

    /// Writes numbered entries until told to stop; returns how many.
    fn write(&self, on: &AtomicBool) -> u64 {
        let (sender, path) =
            (UnixDatagram::unbound().expect("sockets can be made"), self.run.join("systemd/journal/socket"));
        let mut number = 0;
        while on.load(Ordering::SeqCst) {
            let entry = format!("MESSAGE={BEGIN}{number} failed\nPRIORITY=3\nSYSLOG_IDENTIFIER=petrel-test\n");
            sender.send_to(entry.as_bytes(), &path).expect("journald listens");
            number += 1;
            std::thread::sleep(ENTRY_EVERY);
        }
        number
    }
}

impl Drop for Journald {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// The numbers of all entries that the server has, ascending.
fn stored(dir: &Path) -> Vec<u64> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let read = || -> rusqlite::Result<Vec<u64>> {
        let database = rusqlite::Connection::open_with_flags(dir.join("data/control.db"), flags)?;
        database.busy_timeout(Duration::from_secs(5))?;
        let mut lines = database.prepare("SELECT body FROM log_line WHERE source LIKE 'journal%' AND body LIKE ?1")?;
        let bodies = lines.query_map([format!("%{BEGIN}%")], |row| row.get::<_, String>(0))?;
        let number = |body: String| body.split_once(BEGIN)?.1.split(' ').next()?.parse().ok();
        bodies.map(|body| body.map(|body| number(body).expect("an entry of this test"))).collect()
    };
    let mut numbers = read().expect("the server's database can be read");
    numbers.sort_unstable();
    numbers
}

fn start_agent(dir: &Path, url: &str, journal: &Path) -> Process {
    let config = dir.join("agent.yaml");
    let text = format!(
        "servers: [{url}]\nagent: j1\nstate_dir: {}\ncollect: {{ interval: 1s }}\nheartbeat: {{ enabled: false }}\n\
         limits: {{ enabled: false }}\nlogs: {{ files: [], whole: [journal, 'journal:*'], from_beginning: true, kmsg: never, \
         journal: {{ follow: always, directory: {} }} }}\n",
        dir.join("agent").display(),
        journal.display()
    );
    let mut file = File::create(&config).expect("the test's folder is writable");
    file.write_all(text.as_bytes()).expect("the test's folder is writable");
    Process::start(Command::new(program("petrel-agent")).arg("--config").arg(&config), &dir.join("agent.log"))
}

#[test]
fn entries_arrive_once_over_rotations_and_restarts() {
    let name = "agent_journal::entries_arrive_once_over_rotations_and_restarts";
    let Some(lab) = shared("lab", name) else { return };
    if !is_root() {
        return note(name, "the lab needs root");
    }
    let dir = tempfile::tempdir().expect("a folder for the test");
    let journald = Journald::start(&lab.join("journald.sh"));
    let server = Server::start(dir.path(), "");
    let mut agent = start_agent(dir.path(), &server.url, &journald.folder());
    let on = AtomicBool::new(true);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| journald.write(&on));
        let more_arrive = |what| {
            let before = stored(dir.path()).len();
            wait_for(what, SOON, || stored(dir.path()).len() > before + 100);
        };
        more_arrive("entries to arrive");
        journald.rotate();
        more_arrive("entries to arrive after a rotation");
        agent.kill();
        journald.rotate();
        agent = start_agent(dir.path(), &server.url, &journald.folder());
        more_arrive("entries to arrive after a kill and a rotation meanwhile");
        agent.stop(Duration::from_secs(10));
        journald.rotate();
        journald.rotate();
        agent = start_agent(dir.path(), &server.url, &journald.folder());
        more_arrive("entries to arrive after a stop and two rotations meanwhile");
        on.store(false, Ordering::SeqCst);
        writer.join().expect("the writer does not panic")
    });
    wait_for("all entries to be stored", SOON, || stored(dir.path()).len() as u64 >= written);
    agent.stop(Duration::from_secs(10));
    let (stored, expected) = (stored(dir.path()), (0..written).collect::<Vec<u64>>());
    let first = stored.iter().zip(&expected).find(|(stored, expected)| stored != expected);
    assert!(stored == expected, "{} of {written} entries; the first that is wrong: {first:?}", stored.len());
    println!("{written} entries, each stored once, over {} files", journald.files());
}
