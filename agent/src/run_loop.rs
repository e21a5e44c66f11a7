//! The agent's life: opens the spool, starts what senses, sends, acts and beats, and stops all of it cleanly. The only place
//! below `main` that makes a clock and draws entropy; everything else is given both. It decides nothing about data.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::clock;
use crate::config::Config;
use crate::drive::{Hands, InventoryHandle};
use crate::error_chain::chain;
use crate::heartbeat::hardware::HardwareHeartbeats;
use crate::heartbeat::storage::StorageHeartbeats;
use crate::heartbeat::{BeatBoards, Heartbeats, Identity};
use crate::limits::Limits;
use crate::logs::LogTails;
use crate::probes::{self, ProbeBoard};
use crate::rounds::{Rounds, blocking, decode_state};
use crate::spool::{OpenSpoolError, SharedSpool, Spool};
use crate::stream::client::{Client, ClientConfig, ClientError};
use crate::stream::delivery::Delivery;
use crate::stream::dictionary::Agreed;
use crate::stream::orders;
use crate::stream::protocol::Class;
use crate::stream::sender::{Sender, Stop, StreamCounters};

/// All of a clean stop but the goodbye, which takes milliseconds; two seconds are promised.
const STOP_TIMEOUT: Duration = Duration::from_millis(1_800);
/// Of this, what the hands may take to leave their work; the rest is for the server to take what is left.
const HANDS_TIMEOUT: Duration = Duration::from_millis(1_550);
/// What rounds under way may take to be frozen.
const ROUNDS_TIMEOUT: Duration = Duration::from_millis(300);
/// Tokens are short; a longer file is some other file.
const TOKEN_BYTES_MAX: u64 = 4096;
/// Orders between the stream and the hands, which take them at once.
const ORDERS_MAX: usize = 1;
/// Answers between the hands and the spool; the hands keep more of their own.
const ANSWERS_MAX: usize = 16;

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
    /// The agent took twice the memory that it may.
    #[error(
        "the agent took {bytes} bytes of memory, twice limits.memory; its supervisor should start it again, and if it comes back to this, limits.memory is too small"
    )]
    Memory {
        /// Resident memory.
        bytes: u64,
    },
    /// A part of the agent ended by itself. That is a defect; a supervisor should start the agent again.
    #[error("a part of the agent ended unexpectedly")]
    Part(#[source] Option<JoinError>),
}

/// What is open before any part of the agent starts.
struct Opened {
    spool: Spool,
    client: Arc<Client>,
    beats: BeatBoards,
    limits: Limits,
}

/// The agent's tasks, in the order in which they are stopped.
struct Parts {
    /// Told to stop; broken off if they do not.
    rounds: JoinSet<()>,
    /// The way of orders and inventories; broken off at once.
    errands: JoinSet<()>,
    /// The hands, and who keeps their answers; ends when the hands have left their work.
    hands: JoinSet<()>,
    /// What empties the spool.
    senders: JoinSet<()>,
    stop: Stop,
}

/// Runs the agent until `cancel`, then stops it cleanly in less than two seconds: what is spooled is offered to the server
/// once more, heartbeats say goodbye. Works on any tokio runtime with I/O and time; a collector that hangs in the kernel
/// can outlive it on a blocking thread, so shut the runtime down with a time-out.
///
/// # Errors
/// The agent cannot start, or one of its parts ended by itself.
pub async fn run(config: Config, cancel: CancellationToken) -> Result<(), AgentError> {
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
    let storage_beats =
        StorageHeartbeats::start(config.heartbeat.storage.clone(), &identity, &clock::wall(), &config.state_dir)
            .map_err(AgentError::Heartbeat)?;
    let hardware_beats = HardwareHeartbeats::start(config.heartbeat.hardware.clone()).map_err(AgentError::Heartbeat)?;
    let heartbeats =
        Heartbeats::start(config.heartbeat.clone(), identity, clock::wall()).map_err(AgentError::Heartbeat)?;
    let (agent, server) = (config.agent.clone(), config.servers[0].clone());
    info!(agent, %server, version = env!("CARGO_PKG_VERSION"), "agent started");

    let beats = BeatBoards { storage: storage_beats.boards(), hardware: hardware_beats.boards() };
    let (limits, ceilings, mut over) = (Limits::default(), config.limits, None);
    let opened = Opened { spool, client, beats, limits: limits.clone() };
    let mut parts = start(config, opened, rng, &cancel).await;
    let ended = tokio::select! {
        () = cancel.cancelled() => None,
        ended = parts.any_ended() => Some(ended),
        bytes = limits.govern(ceilings) => {
            over = Some(bytes);
            None
        }
    };
    tokio::join!(parts.stop(), storage_beats.stop(), hardware_beats.stop());
    heartbeats.stop().await;
    info!(agent, "agent stopped; batches that are left wait in the spool");
    if let Some(bytes) = over {
        return Err(AgentError::Memory { bytes });
    }
    match ended {
        // A part may see the cancellation before this function does.
        None | Some(Ok(())) if cancel.is_cancelled() => Ok(()),
        None => Ok(()),
        Some(ended) => Err(AgentError::Part(ended.err())),
    }
}

async fn start(config: Config, opened: Opened, mut rng: StdRng, cancel: &CancellationToken) -> Parts {
    let Opened { spool, client, beats, limits } = opened;
    let log_state = decode_state(spool.state(Class::Logs));
    let probe_seed = rng.r#gen();
    let logs = config.logs.with_templates_file(config.state_dir.join("templates"));
    let tails = LogTails::new(&logs, log_state, clock::wall());
    let mut rounds = Rounds {
        agent: config.agent.as_str().into(),
        spool: SharedSpool::new(spool),
        counters: Arc::new(StreamCounters::default()),
        logs: tails.counts(),
        beats,
        probes: ProbeBoard::default(),
        limits,
        clock: clock::wall(),
    };
    let stop = Stop { draining: CancellationToken::new(), now: CancellationToken::new() };
    let mut parts = Parts {
        rounds: JoinSet::new(),
        errands: JoinSet::new(),
        hands: JoinSet::new(),
        senders: JoinSet::new(),
        stop: stop.clone(),
    };
    let reached = Arc::new(Notify::new());
    for class in Class::ALL {
        let sender = Sender {
            class,
            client: Arc::clone(&client),
            spool: rounds.spool.clone(),
            delivery: Delivery::new(StdRng::seed_from_u64(rng.r#gen())),
            agreed: Agreed::default(),
            rng: StdRng::seed_from_u64(rng.r#gen()),
            clock: clock::wall(),
            reached: Arc::clone(&reached),
            counters: Arc::clone(&rounds.counters),
        };
        parts.senders.spawn(sender.run(stop.clone()));
    }
    let (drive, agent, state_dir) = (config.drive, config.agent, config.state_dir.clone());
    let hands = blocking(move || Hands::open(drive, agent, &state_dir)).await;
    // An agent that cannot act still observes.
    let hands = hands.inspect_err(|error| error!(error = chain(error), "orders cannot be taken")).ok();
    let inventory = hands.as_ref().map(Hands::inventory_handle);
    if let Some(hands) = hands {
        parts.start_hands(hands, &rounds, client, rng, cancel);
    }
    let probe_rng = StdRng::seed_from_u64(probe_seed);
    rounds.probes = probes::start(config.probes, clock::wall(), probe_rng, &mut parts.rounds, cancel);
    parts.rounds.spawn(rounds.clone().follow(tails, cancel.clone()));
    parts.rounds.spawn(rounds.collect(config.collect, inventory, cancel.clone()));
    parts
}

impl Parts {
    fn start_hands(
        &mut self,
        hands: Hands,
        rounds: &Rounds,
        client: Arc<Client>,
        mut rng: StdRng,
        cancel: &CancellationToken,
    ) {
        let (order_in, order_out) = mpsc::channel(ORDERS_MAX);
        let (answer_in, answer_out) = mpsc::channel(ANSWERS_MAX);
        let acted = Arc::new(Notify::new());
        let inventory: InventoryHandle = hands.inventory_handle();
        let spool = rounds.spool.clone();
        self.errands.spawn(orders::pull(
            Arc::clone(&client),
            spool.clone(),
            order_in,
            StdRng::seed_from_u64(rng.r#gen()),
            cancel.clone(),
        ));
        self.errands.spawn(orders::tell_inventory(client, inventory, Arc::clone(&acted), cancel.clone()));
        self.hands.spawn(orders::keep_answers(answer_out, spool, acted, rounds.clock.clone()));
        self.hands.spawn(hands.run(order_out, answer_in, cancel.clone()));
    }

    /// Returns when any part ended, which none does by itself unless it is defect.
    async fn any_ended(&mut self) -> Result<(), JoinError> {
        tokio::select! {
            Some(ended) = self.rounds.join_next() => ended,
            Some(ended) = self.errands.join_next() => ended,
            Some(ended) = self.hands.join_next() => ended,
            Some(ended) = self.senders.join_next() => ended,
            else => Ok(()),
        }
    }

    /// What writes into the spool first, then what empties it.
    async fn stop(mut self) {
        let begun = Instant::now();
        self.errands.shutdown().await;
        let _ = timeout_at(begun + ROUNDS_TIMEOUT, finish(&mut self.rounds)).await;
        self.rounds.shutdown().await;
        let _ = timeout_at(begun + HANDS_TIMEOUT, finish(&mut self.hands)).await;
        self.hands.shutdown().await;
        self.stop.draining.cancel();
        let _ = timeout_at(begun + STOP_TIMEOUT, finish(&mut self.senders)).await;
        self.stop.now.cancel();
        self.senders.shutdown().await;
    }
}

async fn finish(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
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
