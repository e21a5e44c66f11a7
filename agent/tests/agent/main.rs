//! The whole agent against a server that fails in every way a server can: nothing spooled is lost, doubled or reordered.

#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod receiver;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use petrel_agent::config::Config;
use petrel_agent::stream::protocol::{Inventory, OrderAnswer, OrderOutcome};
use prost::Message;
use receiver::{Answer, Receiver, Request};
use tokio_util::sync::CancellationToken;

fn config(server: &Receiver, state_dir: &Path, more: &str) -> Config {
    let text = format!(
        "servers: ['http://{}']\nagent: web1\nstate_dir: {}\nheartbeat: {{enabled: false}}\n{more}",
        server.address,
        state_dir.display()
    );
    let mut config = Config::parse(Path::new("test.yaml"), &text).unwrap();
    config.collect.interval = Duration::from_millis(50);
    config
}

/// An agent in this process, on a thread of its own.
struct Agent {
    cancel: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl Agent {
    fn start(config: Config) -> Agent {
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(petrel_agent::run(config, token)).unwrap();
        });
        Agent { cancel, thread }
    }

    /// Stops it and says how long that took.
    fn stop(self) -> Duration {
        let begun = Instant::now();
        self.cancel.cancel();
        self.thread.join().unwrap();
        begun.elapsed()
    }
}

/// Takes everything; a request for orders waits for ever.
fn take(request: &Request) -> Answer {
    if request.path.starts_with("/petrel/v1/orders") { None } else { Some((200, Vec::new())) }
}

fn seqs(batches: &[Request]) -> Vec<u64> {
    batches.iter().map(Request::seq).collect()
}

fn metrics_of(request: &Request) -> ExportMetricsServiceRequest {
    assert_eq!(
        (request.header("content-encoding"), request.header("content-type")),
        ("zstd", "application/x-protobuf")
    );
    ExportMetricsServiceRequest::decode(&zstd::stream::decode_all(&request.body[..]).unwrap()[..]).unwrap()
}

/// The value of a series that has exactly these attribute values.
fn value(request: &ExportMetricsServiceRequest, name: &str, attributes: &[&str]) -> Option<f64> {
    let metrics = request.resource_metrics[0].scope_metrics[0].metrics.iter();
    let points = metrics.filter(|metric| metric.name == name).flat_map(|metric| match metric.data.as_ref().unwrap() {
        metric::Data::Sum(sum) => &sum.data_points,
        metric::Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    });
    let mut found = points.filter(|point| {
        let values = point.attributes.iter().map(|attribute| format!("{:?}", attribute.value));
        values.zip(attributes).all(|(have, want)| have.contains(&format!("{want:?}")))
    });
    found.find_map(|point| match point.value {
        Some(number_data_point::Value::AsDouble(value)) => Some(value),
        _ => None,
    })
}

#[test]
fn rounds_arrive_in_order_and_numbers_go_on_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let server = Receiver::start(take);
    let agent = Agent::start(config(&server, state.path(), ""));
    let first = server.wait_class("metrics", 3);
    assert!(agent.stop() < Duration::from_secs(2));
    let before = server.wait_class("metrics", 1);
    let agent = Agent::start(config(&server, state.path(), ""));
    let all = server.wait_class("metrics", before.len() + 3);
    agent.stop();
    assert_eq!(seqs(&all), (1..=all.len() as u64).collect::<Vec<_>>());
    let epochs: BTreeSet<&str> = all.iter().map(|request| request.header("petrel-epoch")).collect();
    assert_eq!((epochs.len(), epochs.first().unwrap().len()), (1, 32));
    assert_eq!((first[0].path.as_str(), first[0].header("petrel-agent")), ("/v1/metrics", "web1"));
    let metrics = metrics_of(&first[0]);
    assert!(value(&metrics, "node_memory_MemTotal_bytes", &[]).unwrap() > 1e6);
    assert_eq!(value(&metrics, "petrel_agent_info", &[env!("CARGO_PKG_VERSION")]), Some(1.0));
}

#[test]
fn a_batch_is_sent_with_the_same_bytes_until_it_is_taken_and_a_refused_one_is_counted() {
    let state = tempfile::tempdir().unwrap();
    let tries = AtomicU32::new(0);
    let server = Receiver::start(move |request| match (request.header("petrel-class"), request.header("petrel-seq")) {
        ("metrics", "1") if tries.fetch_add(1, Ordering::Relaxed) < 2 => Some((503, b"full".to_vec())),
        ("metrics", "2") => Some((400, b"not this one".to_vec())),
        _ => take(request),
    });
    let agent = Agent::start(config(&server, state.path(), ""));
    let batches = server.wait_class("metrics", 5);
    assert_eq!(seqs(&batches)[..5], [1, 1, 1, 2, 3]);
    assert!(batches[0].body == batches[1].body && batches[1].body == batches[2].body);
    let count = server.wait("the count of refused batches", |requests| {
        let last = requests.iter().rfind(|request| request.header("petrel-class") == "metrics")?;
        value(&metrics_of(last), "petrel_spool_dropped_batches_total", &["metrics", "refused"])
    });
    assert_eq!(count, 1.0);
    agent.stop();
}

#[test]
fn what_was_collected_while_the_server_was_away_arrives_when_it_is_back() {
    let state = tempfile::tempdir().unwrap();
    // A port that was free a moment ago: nobody listens there until the server starts.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    let placeholder = Receiver::start(take);
    let mut config = config(&placeholder, state.path(), "");
    config.servers = vec![format!("http://{address}").parse().unwrap()];
    drop(closed);
    let agent = Agent::start(config.clone());
    let segment = state.path().join("spool/metrics-0000000000000001.seg");
    let deadline = Instant::now() + Duration::from_secs(60);
    // Three rounds at least are on disk before the agent is stopped without ever having met a server.
    while std::fs::metadata(&segment).map_or(0, |file| file.len()) < 30_000 {
        assert!(Instant::now() < deadline, "no rounds are spooled");
        std::thread::yield_now();
    }
    assert!(agent.stop() < Duration::from_secs(2));
    let server = Receiver::start_at(address, take);
    let agent = Agent::start(config);
    let batches = server.wait_class("metrics", 6);
    agent.stop();
    assert_eq!(seqs(&batches), (1..=batches.len() as u64).collect::<Vec<_>>());
}

#[test]
fn a_server_that_never_answers_does_not_hold_up_the_stop() {
    let state = tempfile::tempdir().unwrap();
    let server = Receiver::start(|_| None);
    let agent = Agent::start(config(&server, state.path(), ""));
    server.wait_class("metrics", 1);
    let took = agent.stop();
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn log_lines_arrive_once_and_reading_goes_on_where_it_stood() {
    let state = tempfile::tempdir().unwrap();
    let log = state.path().join("app.log");
    std::fs::write(&log, "").unwrap();
    let server = Receiver::start(take);
    let more = format!("logs: {{files: ['{}'], from_beginning: true}}\n", log.display());
    let append = |text: &str| {
        use std::io::Write as _;
        std::fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(text.as_bytes()).unwrap();
    };
    let bodies = |server: &Receiver, part: &str| -> Vec<String> {
        server.wait(part, |requests| {
            let batches = requests.iter().filter(|request| request.path == "/v1/logs");
            let bodies: Vec<String> = batches
                .flat_map(|request| {
                    let bytes = zstd::stream::decode_all(&request.body[..]).unwrap();
                    ExportLogsServiceRequest::decode(&bytes[..]).unwrap().resource_logs
                })
                .flat_map(|resource| resource.scope_logs.into_iter().flat_map(|scope| scope.log_records))
                .map(|record| format!("{:?}", record.body.unwrap().value.unwrap()))
                .collect();
            bodies.iter().any(|body| body.contains(part)).then_some(bodies)
        })
    };
    let agent = Agent::start(config(&server, state.path(), &more));
    append("error: alpha is broken\n");
    bodies(&server, "alpha");
    agent.stop();
    append("error: while away came beta\n");
    let agent = Agent::start(config(&server, state.path(), &more));
    let all = bodies(&server, "beta");
    agent.stop();
    assert_eq!(all.iter().filter(|body| body.contains("alpha")).count(), 1, "{all:?}");
    assert_eq!(all.iter().filter(|body| body.contains("beta")).count(), 1, "{all:?}");
}

#[test]
fn an_order_that_is_not_allowed_is_answered_and_the_inventory_says_what_is() {
    let state = tempfile::tempdir().unwrap();
    let order = serde_json::json!([{
        "key": {"run": 7, "step": 0}, "fencing_epoch": 1, "action": "haproxy.drain",
        "with": {"backend": "web", "server": "web1"}, "ttl_ms": 60_000, "timeout_ms": 10_000,
    }]);
    let orders = Mutex::new(Some(order.to_string().into_bytes()));
    let server = Receiver::start(move |request| {
        if request.path.starts_with("/petrel/v1/orders?wait_ms=") {
            return orders.lock().unwrap().take().map(|body| (200, body));
        }
        take(request)
    });
    let agent = Agent::start(config(&server, state.path(), ""));
    let batches = server.wait_class("answers", 1);
    let answers: Vec<OrderAnswer> = serde_json::from_slice(&batches[0].body).unwrap();
    assert_eq!((answers.len(), answers[0].key.run, batches[0].seq()), (1, 7, 1));
    assert!(matches!(&answers[0].outcome, OrderOutcome::Refused { reason } if !reason.is_empty()), "{answers:?}");
    let inventory = server.wait("an inventory", |requests| {
        let request = requests.iter().find(|request| request.path == "/petrel/v1/inventory")?;
        Some(serde_json::from_slice::<Inventory>(&request.body).unwrap())
    });
    assert_eq!((inventory.agent.as_str(), inventory.allowed.len()), ("web1", 0));
    agent.stop();
}

/// A config file for the program itself.
fn write_config(path: &Path, server: &Receiver, agent: &str) {
    let text = format!(
        "servers: ['http://{}']\nagent: {agent}\nstate_dir: {}\ncollect: {{interval: 1s}}\n\
         heartbeat: {{enabled: false}}\nlogs: {{enabled: false}}\n",
        server.address,
        path.with_file_name("state").display()
    );
    std::fs::write(path, text).unwrap();
}

fn program(config: &Path) -> std::process::Child {
    let arguments = ["--config".as_ref(), config.as_os_str()];
    std::process::Command::new(env!("CARGO_BIN_EXE_petrel-agent")).args(arguments).spawn().unwrap()
}

#[test]
fn a_hangup_takes_a_good_config_and_keeps_the_old_one_instead_of_a_bad_one() {
    let state = tempfile::tempdir().unwrap();
    let server = Receiver::start(take);
    let config = state.path().join("agent.yaml");
    write_config(&config, &server, "web1");
    let mut program = program(&config);
    let signal = |signal| {
        let pid = rustix::process::Pid::from_child(&program);
        rustix::process::kill_process(pid, signal).unwrap();
    };
    let newest_agent = |n| server.wait_class("metrics", n).last().unwrap().header("petrel-agent").to_owned();
    assert_eq!(newest_agent(1), "web1");
    std::fs::write(&config, "servers: []").unwrap();
    signal(rustix::process::Signal::HUP);
    assert_eq!(newest_agent(3), "web1");
    write_config(&config, &server, "web2");
    signal(rustix::process::Signal::HUP);
    server.wait("a batch of web2", |requests| {
        requests.iter().any(|request| request.header("petrel-agent") == "web2").then_some(())
    });
    let begun = Instant::now();
    signal(rustix::process::Signal::TERM);
    assert!(program.wait().unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// The program itself, killed with -9 at arbitrary moments while batches come and go.
#[test]
fn kill_9_loses_and_renumbers_nothing() {
    let state = tempfile::tempdir().unwrap();
    let server = Receiver::start(take);
    let config = state.path().join("agent.yaml");
    write_config(&config, &server, "web1");
    for round in 1..=4usize {
        let mut program = program(&config);
        let seen = server.wait_class("metrics", round);
        // Right after a batch was received, so the acknowledgement is under way or noted or not.
        program.kill().unwrap();
        program.wait().unwrap();
        let mut bodies = std::collections::BTreeMap::new();
        for request in &seen {
            let body = bodies.entry(request.seq()).or_insert_with(|| request.body.clone());
            assert_eq!(body, &request.body, "number {} was given to two batches", request.seq());
        }
        let numbers: Vec<u64> = bodies.into_keys().collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "no gap");
    }
}
