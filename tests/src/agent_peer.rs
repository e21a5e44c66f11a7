//! The agent and Debian's node_exporter on the same host at the same time: processor time for each collection (children
//! counted in), resident memory, bytes on the wire for each sample. Bytes are counted by a relay before the server and
//! before node_exporter alike, in both directions, headers included.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use petrel_agent::collect::CollectConfig;

use crate::petrel::{Server, http_client};
use crate::process::{Process, free_port, wait_for};

/// What is compared, and how long.
#[derive(Debug, Clone)]
pub struct Contest {
    /// The agent's program.
    pub agent: PathBuf,
    /// How long is measured.
    pub lasting: Duration,
    /// Time from one collection to the next.
    pub interval: Duration,
}

/// What one of them cost.
#[derive(Debug, Clone)]
pub struct Cost {
    /// Who.
    pub name: &'static str,
    /// Processor seconds for each collection, children counted in.
    pub cpu_seconds: f64,
    /// Resident memory at the end, in bytes.
    pub resident_bytes: f64,
    /// Samples of each collection.
    pub samples: f64,
    /// Bytes on the wire for each sample.
    pub wire_bytes: f64,
}

/// Ticks a second of the processor times in `/proc/<pid>/stat`.
const TICKS: f64 = 100.0;
/// Connections are made and files opened in the first rounds.
const WARM_UP_ROUNDS: u32 = 3;

/// The costs of node_exporter, of the agent with the same collectors and of the agent as it is by default.
pub fn measure(contest: &Contest) -> Vec<Cost> {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let peer = Peer::start(folder.path(), contest.interval);
    let theirs = peer.collectors();
    let ours = collectors(
        &petrel_agent::collect::once(CollectConfig::at(Path::new("/proc"), Path::new("/sys"))),
        "petrel_collector_success",
    );
    let left_out: Vec<String> = ours.into_iter().filter(|name| !theirs.contains(name)).collect();
    let same = format!("collect:\n  interval: {}s\n  without: [{}]\n", contest.interval.as_secs(), left_out.join(", "));
    // node_exporter reads no logs and does not beat.
    let same = same + "logs: {enabled: false}\nheartbeat: {enabled: false}\n";
    let whole = format!("collect:\n  interval: {}s\n", contest.interval.as_secs());
    let agents = [
        Agent::start(folder.path(), "agent, same collectors", &contest.agent, &same),
        Agent::start(folder.path(), "agent, as installed", &contest.agent, &whole),
    ];
    std::thread::sleep(contest.interval * WARM_UP_ROUNDS);
    let before: Vec<Mark> = std::iter::once(peer.mark()).chain(agents.iter().map(Agent::mark)).collect();
    std::thread::sleep(contest.lasting);
    let after: Vec<Mark> = std::iter::once(peer.mark()).chain(agents.iter().map(Agent::mark)).collect();
    let names = ["node_exporter", agents[0].name, agents[1].name];
    before.iter().zip(&after).zip(names).map(|((before, after), name)| before.cost(after, name)).collect()
}

/// The same as a table, with the ratios to node_exporter.
pub fn compare(contest: &Contest) -> String {
    let costs = measure(contest);
    let mut table = format!(
        "one host, {} s, a collection every {} s\n{:<24} {:>12} {:>7} {:>14} {:>13} {:>15}\n",
        contest.lasting.as_secs(),
        contest.interval.as_secs(),
        "",
        "ms CPU/round",
        "ratio",
        "µs CPU/sample",
        "resident MiB",
        "bytes/sample"
    );
    for cost in &costs {
        // Writing to a String cannot fail.
        let _ = writeln!(
            table,
            "{:<24} {:>12.2} {:>7.2} {:>14.2} {:>13.1} {:>15.2}   ({:.0} samples)",
            cost.name,
            cost.cpu_seconds * 1e3,
            cost.cpu_seconds / costs[0].cpu_seconds,
            cost.cpu_seconds * 1e6 / cost.samples,
            cost.resident_bytes / f64::from(1 << 20),
            cost.wire_bytes,
            cost.samples,
        );
    }
    table
}

/// How far one of them has come.
struct Mark {
    cpu_seconds: f64,
    resident_bytes: f64,
    wire_bytes: u64,
    rounds: u64,
    samples: u64,
}

impl Mark {
    fn of(process: u32, wire: &Relay, rounds: u64, samples: u64) -> Mark {
        let (cpu_seconds, resident_bytes) = used(process);
        Mark { cpu_seconds, resident_bytes, wire_bytes: wire.bytes.load(Ordering::Relaxed), rounds, samples }
    }

    fn cost(&self, after: &Mark, name: &'static str) -> Cost {
        let rounds = (after.rounds - self.rounds) as f64;
        let samples = (after.samples - self.samples) as f64;
        assert!(rounds > 0.0 && samples > 0.0, "{name} collected nothing: give it more time");
        Cost {
            name,
            cpu_seconds: (after.cpu_seconds - self.cpu_seconds) / rounds,
            resident_bytes: after.resident_bytes,
            samples: samples / rounds,
            wire_bytes: (after.wire_bytes - self.wire_bytes) as f64 / samples,
        }
    }
}

/// Processor seconds of a process, of its children that ended and of those that live; and what it holds in memory.
fn used(process: u32) -> (f64, f64) {
    let stat = |id: u32| std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let ticks = |id: u32| -> f64 {
        let text = stat(id);
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().skip(11).take(4);
        fields.filter_map(|field| field.parse::<f64>().ok()).sum()
    };
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let living: Vec<u32> = children.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect();
    let (mut cpu, mut memory) = (ticks(process) / TICKS, resident(process));
    for child in living {
        let (more, held) = used(child);
        cpu += more;
        memory += held;
    }
    (cpu, memory)
}

fn resident(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0
}

/// node_exporter, scraped as Prometheus does: one connection, gzip.
struct Peer {
    process: Process,
    wire: Relay,
    scraped: Arc<Scraped>,
    port: u16,
}

#[derive(Default)]
struct Scraped {
    rounds: AtomicU64,
    samples: AtomicU64,
}

impl Peer {
    fn start(folder: &Path, interval: Duration) -> Peer {
        let port = free_port();
        let mut command = Command::new("prometheus-node-exporter");
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let process = Process::start(&mut command, &folder.join("node_exporter.log"));
        wait_for("node_exporter to listen", Duration::from_secs(20), || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        let wire = Relay::start(SocketAddr::from(([127, 0, 0, 1], port)));
        let scraped = Arc::new(Scraped::default());
        let (url, counts) = (format!("http://{}/metrics", wire.address), Arc::clone(&scraped));
        std::thread::spawn(move || {
            let client = http_client();
            let mut next = Instant::now();
            while let Ok(answer) = client.get(&url).header("accept-encoding", "gzip").send() {
                let mut text = String::new();
                let body = answer.bytes().unwrap_or_default();
                let _ = flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text);
                counts.samples.fetch_add(samples_of(&text), Ordering::Relaxed);
                counts.rounds.fetch_add(1, Ordering::Relaxed);
                next += interval;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Peer { process, wire, scraped, port }
    }

    fn collectors(&self) -> Vec<String> {
        let client = http_client();
        let answer =
            client.get(format!("http://127.0.0.1:{}/metrics", self.port)).send().expect("node_exporter is there");
        collectors(&answer.text().unwrap_or_default(), "node_scrape_collector_success")
    }

    fn mark(&self) -> Mark {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Mark::of(self.process.id(), &self.wire, load(&self.scraped.rounds), load(&self.scraped.samples))
    }
}

/// Names of the collectors that run, from the series that tell of their success.
fn collectors(text: &str, name: &str) -> Vec<String> {
    let begin = format!("{name}{{collector=\"");
    text.lines().filter_map(|line| Some(line.strip_prefix(&begin)?.split_once('"')?.0.to_owned())).collect()
}

fn samples_of(text: &str) -> u64 {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count() as u64
}

/// What the agent's unit sets in its environment: systemd starts it so.
fn unit_environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("../../deploy/petrel-agent.service")
        .lines()
        .filter_map(|line| line.strip_prefix("Environment=")?.split_once('='))
}

/// An agent with a server of its own behind a relay.
struct Agent {
    name: &'static str,
    process: Process,
    wire: Relay,
    server: Server,
}

impl Agent {
    fn start(folder: &Path, name: &'static str, program: &Path, config: &str) -> Agent {
        let home = folder.join(name.replace([' ', ','], "_"));
        std::fs::create_dir_all(&home).expect("the folder can be made");
        let server = Server::start(&home, "");
        let address = server.url.trim_start_matches("http://").parse().expect("a server tells its address");
        let wire = Relay::start(address);
        let path = home.join("agent.yaml");
        let head =
            format!("servers: ['http://{}']\nstate_dir: {}\nagent: h1\n", wire.address, home.join("state").display());
        std::fs::write(&path, head + config).expect("the folder can be written");
        let mut command = Command::new(program);
        command.arg("--config").arg(&path).envs(unit_environment());
        let process = Process::start(&mut command, &home.join("agent.log"));
        Agent { name, process, wire, server }
    }

    fn mark(&self) -> Mark {
        // What the server took: batches of metrics, and samples.
        let text = self.server.metrics();
        let value = |begin: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(begin)?.trim().parse::<f64>().ok());
            line.unwrap_or(0.0) as u64
        };
        let rounds = self.server.query("petrel_stream_delivered_batches_total{class=\"metrics\"}");
        let rounds = rounds.first().map_or(0.0, |(_, value)| *value) as u64;
        Mark::of(self.process.id(), &self.wire, rounds, value("petrel_ingest_samples_total{outcome=\"accepted\"} "))
    }
}

/// Passes connections on and counts what goes by.
struct Relay {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Relay {
    fn start(to: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound listener has an address");
        let bytes = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&bytes);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(to) else { continue };
                for (from, into) in [(client.try_clone(), server.try_clone()), (server.try_clone(), client.try_clone())]
                {
                    let (Ok(from), Ok(into)) = (from, into) else { continue };
                    let counted = Arc::clone(&counted);
                    std::thread::spawn(move || pass(from, into, &counted));
                }
            }
        });
        Relay { address, bytes }
    }
}

fn pass(mut from: TcpStream, mut into: TcpStream, counted: &AtomicU64) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        counted.fetch_add(read as u64, Ordering::Relaxed);
        if into.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The other end may be gone already.
    let _ = into.shutdown(std::net::Shutdown::Write);
}
