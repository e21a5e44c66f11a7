//! The agent's life: opens the spool, starts what senses, sends, acts and beats, and stops all of it cleanly. The only place
//! below `main` that makes a clock and draws entropy; everything else is given both. It decides nothing about data.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::clock::{self, Clock};
use crate::collect::{CollectConfig, Collectors};
use crate::config::Config;
use crate::heartbeat::{Heartbeats, Identity};
use crate::spool::{OpenSpoolError, Owned, SharedSpool, Spool};
use crate::stream::client::{Client, ClientConfig, ClientError, chain};
use crate::stream::delivery::Delivery;
use crate::stream::encode::{self, Vanished};
use crate::stream::protocol::Class;
use crate::stream::sender::{Sender, Stop, StreamCounters};
use crate::telemetry;

/// How long a clean stop waits for the server to take what is left. All of a stop has to fit in two seconds.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(1_200);
/// Tokens are short; a longer file is some other file.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Why the agent could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The token cannot be read.
    #[error("token_file {path} cannot be read; it must hold one token of printable characters on one line")]
    Token {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The spool.
    #[error(transparent)]
    Spool(#[from] OpenSpoolError),
    /// The HTTP client.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The heartbeat thread.
    #[error("heartbeat thread cannot be started")]
    Heartbeat(#[source] io::Error),
    /// A part of the agent ended by itself. That is a defect; a supervisor should start the agent again.
    #[error("a part of the agent ended unexpectedly")]
    Part(#[source] Option<tokio::task::JoinError>),
}

/// What the agent's parts share.
struct Shared {
    agent: String,
    spool: SharedSpool,
    client: Arc<Client>,
    counters: Arc<StreamCounters>,
    clock: Clock,
}

/// Runs the agent until `cancel`, then stops it cleanly in less than two seconds: what is spooled is offered to the server
/// once more, heartbeats say goodbye. Works on any tokio runtime with I/O and time; a collector that hangs in the kernel
/// can outlive it on a blocking thread, so shut the runtime down with a time-out.
///
/// # Errors
/// The agent cannot start, or one of its parts ended by itself.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<(), AgentError> {
    let clock = clock::wall();
    let mut rng = StdRng::from_entropy();
    let token = read_token(config.token_file.as_deref()).await?;
    let epoch = format!("{:032x}", rng.r#gen::<u128>());
    let (spool_dir, budget) = (config.state_dir.join("spool"), config.spool_budget.0);
    let spool = blocking(move || Spool::open(&spool_dir, budget, &epoch)).await?;
    let client_config = ClientConfig {
        servers: config.servers.clone(),
        agent: config.agent.clone(),
        token: token.clone(),
        ca_file: config.ca_file.clone(),
    };
    let epoch = spool.epoch().to_owned();
    let client = Arc::new(blocking(move || Client::new(client_config, &epoch)).await?);
    let identity = identity(&config.agent, token.unwrap_or_default());
    let heartbeats =
        Heartbeats::start(config.heartbeat.clone(), identity, clock.clone()).map_err(AgentError::Heartbeat)?;
    let shared =
        Shared { agent: config.agent.clone(), spool: SharedSpool::new(spool), client, counters: Arc::default(), clock };
    info!(agent = config.agent, server = %config.servers[0], version = env!("CARGO_PKG_VERSION"), "agent started");

    let stop = Stop { draining: CancellationToken::new(), now: CancellationToken::new() };
    let mut senders = start_senders(&shared, &stop, &mut rng);
    let mut producers = JoinSet::new();
    producers.spawn(collect_rounds(shared.part(), config.collect, cancel.clone()));

    let ended = tokio::select! {
        () = cancel.cancelled() => None,
        ended = producers.join_next() => Some(ended),
        ended = senders.join_next() => Some(ended),
    };
    // Everything that writes into the spool first, then what empties it, then the word that nothing more will come.
    producers.shutdown().await;
    stop.draining.cancel();
    let drained = timeout(FLUSH_TIMEOUT, async { while senders.join_next().await.is_some() {} }).await;
    stop.now.cancel();
    heartbeats.stop().await;
    info!(agent = config.agent, flushed = drained.is_ok(), "agent stopped");
    match ended {
        // A part may see the cancellation before this function does.
        None | Some(Some(Ok(()))) if cancel.is_cancelled() => Ok(()),
        None => Ok(()),
        Some(ended) => Err(AgentError::Part(ended.and_then(Result::err))),
    }
}

impl Shared {
    fn part(&self) -> Shared {
        Shared {
            agent: self.agent.clone(),
            spool: self.spool.clone(),
            client: Arc::clone(&self.client),
            counters: Arc::clone(&self.counters),
            clock: self.clock.clone(),
        }
    }
}

fn start_senders(shared: &Shared, stop: &Stop, rng: &mut StdRng) -> JoinSet<()> {
    let mut senders = JoinSet::new();
    for class in Class::ALL {
        let sender = Sender {
            class,
            client: Arc::clone(&shared.client),
            spool: shared.spool.clone(),
            delivery: Delivery::new(StdRng::seed_from_u64(rng.r#gen())),
            counters: Arc::clone(&shared.counters),
        };
        senders.spawn(sender.run(stop.clone()));
    }
    senders
}

/// Collects at every interval and freezes each round in the spool, until told to stop.
async fn collect_rounds(shared: Shared, config: CollectConfig, stop: CancellationToken) {
    let mut ticks = interval(config.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut collectors = Collectors::new(&config);
    let mut vanished = Vanished::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = (shared.clock)();
        let counters = Arc::clone(&shared.counters);
        let own = shared.spool.with(move |spool| telemetry::families(spool, &counters)).await;
        let agent = shared.agent.clone();
        let encoded;
        (collectors, vanished, encoded) = blocking(move || {
            let mut families = collectors.collect();
            families.extend(own);
            let (families, gone) = vanished.step(families);
            let encoded = encode::metrics(&agent, families, &gone, now);
            (collectors, vanished, encoded)
        })
        .await;
        let frozen = Owned { records: encoded.records, state: Vec::new(), body: encoded.body };
        if let Err(error) = shared.spool.append(Class::Metrics, frozen, now).await {
            error!(error = chain(&error), records = encoded.records, "a round of samples is lost");
        }
    }
}

/// Runs what blocks on a thread where it may.
async fn blocking<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(body).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn read_token(path: Option<&Path>) -> Result<Option<String>, AgentError> {
    let Some(path) = path.map(Path::to_owned) else { return Ok(None) };
    let read = move || -> Result<String, AgentError> {
        let failed = |source| AgentError::Token { path: path.clone(), source };
        let invalid = |what: &str| failed(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
        if std::fs::metadata(&path).map_err(failed)?.len() > TOKEN_BYTES_MAX {
            return Err(invalid("the file is too long"));
        }
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(invalid("the file is empty or holds spaces or other characters"));
        }
        Ok(token.to_owned())
    };
    blocking(read).await.map(Some)
}

/// Where the kernel does not say its boot id or uptime, a beat still counts: by a boot id of zeros and wall-clock-free numbers.
fn identity(agent: &str, token: String) -> Identity {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = boot_id.chars().filter(char::is_ascii_hexdigit).collect();
    let boot_id = u128::from_str_radix(&digits, 16).unwrap_or(0).to_be_bytes();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds: f64 = uptime.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
    Identity { agent: agent.to_owned(), boot_id, first_seq: (seconds * 1000.0) as u64, key: token.into_bytes() }
}
