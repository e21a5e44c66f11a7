//! The `petrel-agent` program: reads arguments, starts the agent or collects once. Everything else is in the library.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use petrel_agent::collect::CollectConfig;
use petrel_agent::config::Config;
use petrel_agent::heartbeat::storage;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// What may still run on a blocking thread at the end is a read that hangs in the kernel; waiting longer would not help it.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(200);

/// Threads for what blocks: about ten wait for a disk that hangs, a few for platforms that do, 16 for programs of checks, 8
/// for names that are looked up.
const BLOCKING_THREADS_MAX: usize = 64;

/// Longer than from one round to the next, so that rounds find their threads alive and their memory warm.
const BLOCKING_THREADS_IDLE: Duration = Duration::from_secs(90);

/// Petrel's agent: senses and hands on this host.
#[derive(Debug, Parser)]
#[command(name = "petrel-agent", version, subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Config file; see deploy/petrel-agent.example.yaml.
    #[arg(long, value_name = "FILE", required_unless_present = "once", conflicts_with = "once")]
    config: Option<PathBuf>,
    /// Collect once, print Prometheus text and exit.
    #[arg(long)]
    once: bool,
    /// Where procfs is mounted, for --once.
    #[arg(long, value_name = "DIR", requires = "once", default_value = "/proc")]
    procfs: PathBuf,
    /// Where sysfs is mounted, for --once.
    #[arg(long, value_name = "DIR", requires = "once", default_value = "/sys")]
    sysfs: PathBuf,
    /// Folder whose files `*.prom` hold further series, for --once.
    #[arg(long, value_name = "DIR", requires = "once")]
    textfile: Option<PathBuf>,
}

/// What the program does beside watching.
#[derive(Debug, Subcommand)]
#[expect(
    clippy::enum_variant_names,
    reason = "these are the words that are typed, and all there are so far touch storage"
)]
enum Command {
    /// Make the area on shared storage where hosts leave storage heartbeats.
    StorageFormat {
        /// A new file on shared storage, or a block device whose first blocks hold nothing.
        #[arg(long, value_name = "PATH")]
        path: PathBuf,
        /// Hosts that the area has room for, 1 to 256.
        #[arg(long, value_name = "N", default_value_t = 64)]
        hosts_max: u16,
        /// Lose what is there.
        #[arg(long)]
        overwrite: bool,
    },
    /// Free the slot of a host that is gone for good, after its record stood still.
    StorageFree {
        /// The area.
        #[arg(long, value_name = "PATH")]
        path: PathBuf,
        /// The slot, from 1 on.
        #[arg(long, value_name = "N")]
        slot: u16,
        /// The host whose record is there.
        #[arg(long, value_name = "ID")]
        host: String,
    },
    /// Touch shared storage for an agent that asks through pipes.
    #[command(hide = true)]
    StorageChild {
        #[arg(long)]
        path: PathBuf,
        #[arg(long)]
        lock: PathBuf,
    },
}

/// Exit code for wrong use of the command line or of the config file, as clap's and `petrel`'s.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    match begin() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("petrel-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin() -> anyhow::Result<ExitCode> {
    // Fails only if it was done before, and then it is done.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::StorageFormat { path, hosts_max, overwrite }) => {
            return format_storage(&path, hosts_max, overwrite).map(|()| ExitCode::SUCCESS);
        }
        Some(Command::StorageFree { path, slot, host }) => {
            storage::free(&path, slot, &host, |pause| {
                eprintln!("looking for {} s whether host {host} still writes there", pause.as_secs());
                std::thread::sleep(pause);
            })?;
            println!("slot {slot} of {} is free", path.display());
            return Ok(ExitCode::SUCCESS);
        }
        Some(Command::StorageChild { path, lock }) => {
            storage::serve(&path, &lock, std::io::stdin().lock(), std::io::stdout().lock())?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    let Some(path) = arguments.config.filter(|_| !arguments.once) else {
        let config = CollectConfig::at(&arguments.procfs, &arguments.sysfs).with_textfile(arguments.textfile);
        print!("{}", petrel_agent::collect::once(config));
        return Ok(ExitCode::SUCCESS);
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_max_level(tracing::Level::INFO)
        .init();
    let config = match Config::load(&path) {
        Ok(config) => config,
        Err(problem) => {
            eprintln!("{problem}\npetrel-agent: the config has a mistake to mend; nothing was started");
            return Ok(ExitCode::from(WRONG_USE));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_THREADS_IDLE)
        .build()
        .context("runtime cannot be made")?;
    let outcome = runtime.block_on(run(&path, config));
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    outcome.map(|()| ExitCode::SUCCESS)
}

fn format_storage(path: &Path, hosts_max: u16, overwrite: bool) -> anyhow::Result<()> {
    let header = storage::Header { hosts_max, area_id: rand::random(), made_at: petrel_agent::clock::wall()() };
    storage::format(path, &header, overwrite)?;
    println!("{} has slots for {hosts_max} hosts; name it in heartbeat.storage of each host's config", path.display());
    Ok(())
}

/// Runs the agent until a signal ends it. SIGHUP starts it anew with the config as it then is; a bad one changes nothing.
async fn run(path: &Path, mut config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP cannot be handled")?;
    loop {
        let cancel = CancellationToken::new();
        let agent = petrel_agent::run(config, cancel.clone());
        tokio::pin!(agent);
        let next = loop {
            tokio::select! {
                ended = &mut agent => return ended.map_err(Into::into),
                _ = terminate.recv() => break None,
                _ = interrupt.recv() => break None,
                _ = hangup.recv() => match Config::load(path) {
                    Ok(config) => break Some(config),
                    Err(problem) => error!(%problem, "config was not taken; the old one stays in force"),
                },
            }
        };
        info!(starts_again = next.is_some(), "signal received");
        cancel.cancel();
        agent.await?;
        match next {
            Some(next) => config = next,
            None => return Ok(()),
        }
    }
}
