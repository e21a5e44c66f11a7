//! The `petrel-agent` program: reads arguments, starts the agent or collects once. Everything else is in the library.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use petrel_agent::config::Config;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

/// What may still run on a blocking thread at the end is a read that hangs in the kernel; waiting longer would not help it.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(200);

/// Petrel's agent: senses and hands on this host.
#[derive(Debug, Parser)]
#[command(name = "petrel-agent", version)]
struct Arguments {
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
}

fn main() -> anyhow::Result<()> {
    // Fails only if it was done before, and then it is done.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments = Arguments::parse();
    let Some(path) = arguments.config.filter(|_| !arguments.once) else {
        print!("{}", petrel_agent::collect::once(&arguments.procfs, &arguments.sysfs));
        return Ok(());
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO).init();
    let config = Config::load(&path)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime cannot be made")?;
    let outcome = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
        let agent = petrel_agent::run(config, cancel.clone());
        tokio::pin!(agent);
        tokio::select! {
            ended = &mut agent => return ended.map_err(Into::into),
            _ = terminate.recv() => info!("SIGTERM: stopping"),
            _ = interrupt.recv() => info!("SIGINT: stopping"),
        }
        cancel.cancel();
        agent.await.map_err(anyhow::Error::from)
    });
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    outcome
}
