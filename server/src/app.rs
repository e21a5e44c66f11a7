//! The parts put together: opens what is stored, wires the stages, serves HTTP, and takes everything down in order. Knows
//! all parts and decides nothing.

mod stages;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::net::{TcpListener, UdpSocket};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::api::auth::{self, Policy};
use crate::api::{body_deadline, cors, listen};
use crate::clock::Clock;
use crate::config::{Config, Reload, url_of};
use crate::ingest::presence::PresenceError;
use crate::remote::OpenRemoteError;
use crate::store::control::{ControlError, Migration};
use crate::store::{OpenStoreError, Store};
use crate::{cli, decide, notify, predict, remedy, remote, score};

use stages::Stages;

/// How long the stages may take to end after the stop; the sum of all stops stays below two seconds.
const STOP_TIMEOUT: Duration = Duration::from_millis(1200);

/// Why the server did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data folder.
    #[error(transparent)]
    Store(#[from] OpenStoreError),
    /// What is kept in it.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Who sent before.
    #[error("agents that sent before cannot be read")]
    Presence(#[from] PresenceError),
    /// The remote engine.
    #[error(transparent)]
    Remote(#[from] OpenRemoteError),
    /// The port.
    #[error("{listen} cannot be listened on; is another server there? Choose another with --listen")]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] listen::TlsError),
    /// Signals.
    #[error("signals cannot be received")]
    Signal(#[source] std::io::Error),
    /// A stage ended by a defect of ours.
    #[error("a stage of the server ended by itself; please report what stands above. What was acknowledged is on disk")]
    Stage(#[source] tokio::task::JoinError),
}

/// Logs to standard error, at info unless `RUST_LOG` says otherwise.
pub fn log_to_stderr() {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Runs the server until SIGINT or SIGTERM, and with `with_agent` an agent of this machine in the same process. SIGHUP and
/// changed files read rules, runbooks and facts again.
///
/// # Errors
/// It could not start, or a stage broke.
pub async fn serve(
    config: Config,
    reload: Reload,
    clock: Clock,
    seed: u64,
    with_agent: bool,
) -> Result<(), ServeError> {
    let [mut interrupt, mut terminate, hangup] =
        [signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?, signals(SignalKind::hangup())?];
    // The data folder first: a second start on it must say so, whatever port it asks for.
    let store = Store::open(&config.data, config.store.clone(), &migrations(), clock())?;
    let (listener, heartbeats) = bind(config.listen).await?;
    let listen = listener.local_addr().map_err(|source| ServeError::Listen { listen: config.listen, source })?;
    let tls =
        config.tls.as_ref().map(|files| listen::tls_acceptor(&files.certificate_file, &files.key_file)).transpose()?;
    let url = url_of(listen, tls.is_some());
    let cancel = CancellationToken::new();
    let policy = Arc::new(config.policy.clone());
    let mut stages = Stages::open(store, clock, cancel, &config, seed)?;
    let router = stages.router(&config);
    let body_timeout = config.write.body_timeout;
    stages.spawn(|cancel| listen::serve(listener, tls, guarded(router, &policy, body_timeout), cancel));
    stages.listen_for_heartbeats(heartbeats, Arc::clone(&policy));
    stages.follow_files(reload, config.fingerprint, hangup);
    if with_agent {
        stages.start_agent(&url, listen, &config.data.join("agent"));
        greet(&url, &config.data);
    } else {
        tracing::info!(%url, data = %config.data.display(), version = env!("CARGO_PKG_VERSION"), "serving");
    }
    let broke = tokio::select! {
        _ = interrupt.recv() => None,
        _ = terminate.recv() => None,
        error = stages.broke() => Some(error),
    };
    stages.stop(STOP_TIMEOUT).await;
    broke.map_or(Ok(()), |error| Err(ServeError::Stage(error)))
}

/// The schema of everything kept in `control.db`, in the order of its making.
fn migrations() -> Vec<Migration> {
    [
        decide::keep::MIGRATIONS,
        score::MIGRATIONS,
        predict::MIGRATIONS,
        notify::MIGRATIONS,
        remedy::MIGRATIONS,
        remote::MIGRATIONS,
    ]
    .concat()
}

fn signals(kind: SignalKind) -> Result<Signal, ServeError> {
    signal(kind).map_err(ServeError::Signal)
}

/// The TCP port for HTTP and the UDP port of the same number for heartbeats.
async fn bind(listen: SocketAddr) -> Result<(TcpListener, UdpSocket), ServeError> {
    let failed = |source| ServeError::Listen { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let heartbeats = UdpSocket::bind(listener.local_addr().map_err(failed)?).await.map_err(failed)?;
    Ok((listener, heartbeats))
}

/// What every request passes before its handler: who may share, who may call, and how long its body may take.
fn guarded(router: Router, policy: &Arc<Policy>, body_timeout: Duration) -> Router {
    router
        .layer(from_fn_with_state(body_timeout, body_deadline::limit))
        .layer(from_fn_with_state(Arc::clone(policy), auth::check))
        .layer(from_fn_with_state(Arc::clone(policy), cors::share))
}

/// What `petrel up` prints within its first second. Everything in it works as it stands when typed where `petrel up` was.
fn greet(url: &str, data: &Path) {
    let program = std::env::args().next().unwrap_or_else(|| "petrel".to_owned());
    let program = if program.contains(char::is_whitespace) { format!("'{program}'") } else { program };
    let server = if url == cli::SERVER_DEFAULT { String::new() } else { format!(" --server {url}") };
    println!(
        "\n  Petrel {version} watches this machine.\n\n  console  {url}\n  data     {data}\n\n  To try in another terminal:\n\n    \
         {program} query 'rate(node_cpu_seconds_total{{mode!=\"idle\"}}[1m])'{server}\n    \
         {program} outlooks{server}\n    \
         {program} alerts{server}\n\n  It only watches: no action is allowed until a config allows it. Ctrl-C stops.\n",
        version = env!("CARGO_PKG_VERSION"),
        data = data.display(),
    );
}
