//! Three hosts of the lab with real libvirt, an agent in each, and a server on a network between them: TLS and tokens on both
//! ends, since nothing of it is loopback. People's part is played by the command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use petrel_tests::filler::Filler;
use petrel_tests::lab::Lab;
use petrel_tests::process::{Process, free_port, program, run, wait_for, wait_to_find};
use serde_json::Value;

/// The server's seat in the lab.
const SEAT: &str = "10.77.0.254";
/// The hosts.
pub const HOSTS: [&str; 3] = ["h1", "h2", "h3"];
/// Size of the small file system that fills.
const DISK_BYTES: usize = 64 << 20;
/// More than 70 % are full from the start, as the shipped runbook's precursor asks; the rest fills in a minute and a half.
const FULL_AT_START: usize = DISK_BYTES / 100 * 72;
const FILL_STEP: (usize, Duration) = (DISK_BYTES / 1000, Duration::from_millis(333));

/// The fleet. What is dropped first stands first.
pub struct Fleet {
    server: Process,
    agents: Vec<Process>,
    port: u16,
    // Agents write until the lab is down; then their folder can go.
    lab: Lab,
    dir: tempfile::TempDir,
}

impl Fleet {
    /// Starts hosts, guests, server and agents, or notes why the lab cannot be used. `config` is the server's, beside address,
    /// data and secrets; `prepare` is run before the agents are.
    pub fn start(config: impl FnOnce(&Path) -> String, prepare: impl FnOnce(&Lab)) -> Option<Fleet> {
        let lab = Lab::libvirt(3, "evacuation")?;
        std::thread::scope(|scope| {
            for guest in ["vm1", "vm2"] {
                scope.spawn(|| lab.run("libvirt.sh", &["define", guest, "h1"]));
            }
        });
        prepare(&lab);
        let dir = tempfile::tempdir().expect("a folder for the test");
        let (at, port) = (dir.path(), free_port());
        std::fs::create_dir(at.join("disk")).expect("the test's folder is writable");
        make_secrets(at);
        let own = format!(
            "data: {0}/data\nlisten: {SEAT}:{port}\ntls: {{ certificate_file: {0}/server.pem, key_file: {0}/server.key }}\n\
             auth: {{ agent_tokens_file: {0}/agent-tokens, user_tokens_file: {0}/user-tokens }}\n",
            at.display()
        );
        write(&at.join("petrel.yaml"), &(own + &config(at)));
        let server = start_server(at);
        let mut fleet = Fleet { server, agents: Vec::new(), port, lab, dir };
        fleet.wait_until_ready();
        fleet.agents = HOSTS.map(|host| fleet.start_agent(host)).into();
        Some(fleet)
    }

    fn start_agent(&self, host: &str) -> Process {
        let at = self.dir.path();
        let config = at.join(format!("{host}.yaml"));
        let text = format!(
            "servers: ['https://{SEAT}:{port}']\nagent: {host}\nstate_dir: {at}/{host}\ntoken_file: {at}/{host}-token\n\
             ca_file: {at}/ca.pem\ncollect: {{ interval: 1s }}\nlogs: {{ files: [] }}\ndrive:\n  allow: [libvirt.migrate]\n  \
             libvirt: {{ uri: 'qemu:///system', own: ['vm*'], migration_uri: '{uri}', migration_tls: false, bandwidth_max: 200MiB }}\n",
            port = self.port,
            at = at.display(),
            uri = format_args!("qemu+tcp://10.77.0.{}/system", &host[1..]),
        );
        write(&config, &text);
        let mut command = Command::new(self.lab.script("hosts.sh"));
        command.args(["exec", host]).arg(program("petrel-agent")).arg("--config").arg(config);
        Process::start(&mut command, &at.join(format!("{host}.log")))
    }

    fn wait_until_ready(&self) {
        wait_for("the server to answer", Duration::from_secs(20), || self.petrel(&["runs"]).status.success());
    }

    /// Kills the server with SIGKILL and starts it again.
    pub fn kill_and_restart_server(&mut self) {
        self.server.kill();
        self.server = start_server(self.dir.path());
        self.wait_until_ready();
    }

    /// The command line as an operator with a token uses it.
    pub fn petrel(&self, arguments: &[&str]) -> Output {
        let secrets = ["--token-file", "user-token", "--ca-file", "ca.pem"];
        self.petrel_with(arguments, &secrets)
    }

    /// The command line with these secrets, told from the server's seat.
    pub fn petrel_with(&self, arguments: &[&str], secrets: &[&str]) -> Output {
        let mut command = at_the_seat("petrel");
        command.current_dir(self.dir.path()).args(arguments);
        command.args(["--server", &format!("https://{SEAT}:{}", self.port)]).args(secrets);
        command.output().expect("the command line can be run")
    }

    /// What the command line says as JSON; nothing while the server does not answer.
    pub fn ask(&self, arguments: &[&str]) -> Option<Value> {
        let output = self.petrel(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout).ok()
    }

    /// A run of the runbook for this host in one of these states, as soon as there is one.
    pub fn wait_for_run(&self, (host, mode): (&str, &str), states: &[&str], deadline: Duration) -> Value {
        let subject = format!("host:{host}");
        let mut last = Value::Null;
        let begin = std::time::Instant::now();
        loop {
            let runs = self.ask(&["runs"]).unwrap_or_default();
            let found = runs.as_array().and_then(|runs| {
                runs.iter().find(|run| {
                    let state = run["state"].as_str().unwrap_or_default();
                    run["subject"] == subject.as_str() && run["mode"] == mode && states.contains(&state)
                })
            });
            if let Some(run) = found {
                return run.clone();
            }
            if !runs.is_null() {
                last = runs;
            }
            assert!(begin.elapsed() < deadline, "no {mode} run of {host} is {states:?} after {deadline:?}: {last:#}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The lines of a run's journal of one kind.
    pub fn journal(&self, run: &Value, what: &str) -> Vec<Value> {
        let shown = self.ask(&["runs", "show", &run["id"].to_string()]).unwrap_or_default();
        let lines = shown["journal"].as_array().cloned().unwrap_or_default();
        lines.into_iter().filter(|line| line["what"] == what).collect()
    }

    /// What the server says a host is to do.
    pub fn duty(&self, host: &str) -> Option<String> {
        let hosts = self.ask(&["hosts"])?;
        let row = hosts.as_array()?.iter().find(|row| row["name"] == host)?.clone();
        row["duty"].as_str().map(str::to_owned)
    }

    /// Mounts a small file system in the host, most of it full, and fills the rest steadily.
    pub fn fill_disk(&self, host: &str) -> Filler {
        let disk = self.disk();
        let size = format!("size={DISK_BYTES}");
        self.lab.run("hosts.sh", &["exec", host, "mount", "-t", "tmpfs", "-o", &size, "petrel-test", &disk]);
        let pid = std::fs::read_to_string(format!("/run/vlab/{host}/pid")).expect("the host is up");
        Filler::start(Path::new(&format!("/proc/{}/root{disk}", pid.trim())), FULL_AT_START, FILL_STEP)
    }

    /// Where that file system is mounted.
    pub fn disk(&self) -> String {
        self.dir.path().join("disk").display().to_string()
    }

    /// What is left of it, as the server was told last.
    pub fn disk_bytes_avail(&self, host: &str) -> f64 {
        let disk = self.disk();
        let promql = format!("node_filesystem_avail_bytes{{instance={host:?},mountpoint={disk:?}}}");
        let answer = self.ask(&["query", &promql]).unwrap_or_default();
        let value = answer["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse().ok());
        value.unwrap_or_else(|| panic!("{promql}: {answer:#}"))
    }

    /// The server's config and the files beside it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The lab.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The hosts on which libvirt itself says that the guest runs.
    pub fn places(&self, guest: &str) -> Vec<&'static str> {
        let runs = |host: &&str| {
            let output = self.lab.output("libvirt.sh", &["virsh", host, "domstate", guest]);
            output.status.success() && output.stdout.trim_ascii() == b"running"
        };
        HOSTS.into_iter().filter(runs).collect()
    }

    /// How often libvirt on this host began to send the guest elsewhere, by its own log.
    pub fn migrations_begun(&self, host: &str, guest: &str) -> usize {
        let log = format!("/var/log/libvirt/qemu/{guest}.log");
        let output = self.lab.output("hosts.sh", &["exec", host, "cat", &log]);
        String::from_utf8_lossy(&output.stdout).matches("initiating migration").count()
    }

    /// Waits for what a plan to evacuate h1 says.
    pub fn wait_for_plan(&self, what: &str, accept: impl Fn(&Value) -> bool) -> Value {
        wait_to_find(what, Duration::from_secs(30), || self.ask(&["plan", "evacuate", "h1"]).filter(&accept))
    }
}

/// The seconds that the guest has counted on its console, which must lack none: a guest that was started again counts
/// from one, one that stood still stops. Returns the last.
fn ticks(guest: &str) -> u64 {
    let console = std::fs::read(format!("/run/vlab/{guest}.console")).expect("the guest has a console");
    let text = String::from_utf8_lossy(&console);
    let tick = |line: &str| line.strip_prefix("tick ")?.split(' ').next()?.parse::<u64>().ok();
    // The last line may be half written.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let ticks: Vec<u64> = whole.lines().filter_map(tick).collect();
    let wrong = ticks.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert_eq!(wrong, None, "{guest} did not run on; its console: {ticks:?}");
    ticks.last().copied().unwrap_or(0)
}

/// Waits until the guest has counted on.
pub fn wait_for_a_tick(guest: &str) {
    let before = ticks(guest);
    wait_for(&format!("{guest} to run on"), Duration::from_secs(20), || ticks(guest) > before);
}

/// A program of ours in the network of the server's seat.
pub fn at_the_seat(name: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", "vlab-sw"]).arg(program(name));
    command
}

fn start_server(at: &Path) -> Process {
    Process::start(
        at_the_seat("petrel").arg("serve").arg("--config").arg(at.join("petrel.yaml")),
        &at.join("petrel.log"),
    )
}

/// An authority, a certificate for the server's address, and a token for everybody.
fn make_secrets(at: &Path) {
    let openssl = |arguments: &str| {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
        let words = format!("req -x509 {key} {arguments}");
        run(Command::new("openssl").current_dir(at).args(words.split(' ')));
    };
    openssl("-subj /CN=petrel-test-authority -keyout ca.key -out ca.pem");
    openssl(&format!(
        "-CA ca.pem -CAkey ca.key -subj /CN=petrel -addext subjectAltName=IP:{SEAT} -addext basicConstraints=CA:FALSE \
         -keyout server.key -out server.pem"
    ));
    let token = |name: &str| format!("{name}-0123456789abcdef0123");
    write(&at.join("agent-tokens"), &HOSTS.map(|host| format!("{host} {}", token(host))).join("\n"));
    for host in HOSTS {
        write(&at.join(format!("{host}-token")), &token(host));
    }
    write(&at.join("user-tokens"), &format!("ann {}\n", token("ann")));
    write(&at.join("user-token"), &token("ann"));
}

/// Writes a file of the test.
pub fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the test's folder is writable");
}
