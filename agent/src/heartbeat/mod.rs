//! Heartbeats: small authenticated UDP datagrams on every configured path, never spooled. They run on a thread and a runtime
//! of their own that touch no disk, so a host whose disk hangs still beats; that its batches stop is another path's news.
//! `storage` has the heartbeats that do touch a disk, `hardware` what BMCs say of their hosts.

pub mod codec;
mod config;
pub mod hardware;
pub mod storage;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::hardware::BmcBoards;
use self::storage::StorageBoards;
use crate::clock::Clock;
use crate::collect::Family;
use codec::{Beat, BeatClass};
pub use config::{CheckHeartbeatError, HeartbeatConfig, HeartbeatPath, RawHeartbeatConfig, RawHeartbeatPath};

/// Longest wait for a name to be resolved.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Beats after which a name is resolved again: a server may have moved.
const RESOLVE_EVERY_BEATS: u64 = 300;
/// Goodbyes sent, because datagrams get lost and nobody repeats the last one.
const GOODBYES: usize = 3;

/// Who beats, and with which key.
#[derive(Clone)]
pub struct Identity {
    /// The agent's id.
    pub agent: String,
    /// The kernel's boot id.
    pub boot_id: [u8; 16],
    /// Number of the first beat: milliseconds since boot, so that it grows across restarts of the agent.
    pub first_seq: u64,
    /// The agent's token, empty where none is needed.
    pub key: Vec<u8>,
}

/// What heartbeats other than those on the network have to tell as metrics. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct BeatBoards {
    /// Storage heartbeats.
    pub storage: StorageBoards,
    /// BMCs.
    pub hardware: BmcBoards,
}

impl BeatBoards {
    /// All that is to be told now.
    pub fn families(&self, now: Instant) -> Vec<Family> {
        let mut families = self.storage.families(now);
        families.extend(self.hardware.families(now));
        families
    }
}

/// The thread that beats.
pub struct Heartbeats {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeats {
    /// Starts beating on all paths of `config`; does nothing where there are none.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(config: HeartbeatConfig, identity: Identity, clock: Clock) -> io::Result<Heartbeats> {
        let stop = CancellationToken::new();
        if config.paths.is_empty() {
            return Ok(Heartbeats { stop, thread: None });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let token = stop.clone();
        let body = move || {
            runtime.block_on(beat_all(config, identity, clock, token));
            // A name that is still being resolved must not hold up the end.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("heartbeat".to_owned()).spawn(body)?;
        Ok(Heartbeats { stop, thread: Some(thread) })
    }

    /// Says goodbye on all paths and ends the thread.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                warn!("heartbeat thread ended badly");
            }
        }
    }
}

/// Whoever drops the agent without `stop`, as a crash would, gets no goodbye, but no thread that beats on either.
impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn beat_all(config: HeartbeatConfig, identity: Identity, clock: Clock, stop: CancellationToken) {
    let mut paths = tokio::task::JoinSet::new();
    for (number, path) in config.paths.into_iter().enumerate() {
        let state = PathState {
            number: number as u8,
            path,
            interval: config.interval,
            identity: identity.clone(),
            clock: clock.clone(),
            seq: identity.first_seq,
            target: None,
            socket: None,
            failing: false,
        };
        paths.spawn(state.run(stop.clone()));
    }
    while paths.join_next().await.is_some() {}
}

/// One path: where it leads and what was sent on it.
struct PathState {
    number: u8,
    path: HeartbeatPath,
    interval: Duration,
    identity: Identity,
    clock: Clock,
    seq: u64,
    target: Option<SocketAddr>,
    socket: Option<UdpSocket>,
    failing: bool,
}

impl PathState {
    async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut beats = 0u64;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = ticks.tick() => {}
            }
            if self.target.is_none() || beats.is_multiple_of(RESOLVE_EVERY_BEATS) {
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = self.resolve() => {}
                }
            }
            beats += 1;
            self.send(BeatClass::Beat);
        }
        for _ in 0..GOODBYES {
            self.send(BeatClass::Goodbye);
        }
    }

    /// Keeps the address it had when the name cannot be resolved now.
    async fn resolve(&mut self) {
        let found = match self.path.to.parse::<SocketAddr>() {
            Ok(address) => Some(address),
            Err(_) => match timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(&self.path.to)).await {
                Ok(Ok(mut addresses)) => {
                    addresses.find(|address| self.path.from.is_none_or(|from| from.is_ipv4() == address.is_ipv4()))
                }
                Ok(Err(_)) | Err(_) => None,
            },
        };
        if found.is_some() && found != self.target {
            self.target = found;
            self.socket = None;
        }
        if self.target.is_none() {
            self.note(Err(io::Error::other("its name cannot be resolved")));
        }
    }

    fn send(&mut self, class: BeatClass) {
        let Some(target) = self.target else { return };
        self.seq += 1;
        let beat = Beat {
            class,
            path: self.number,
            agent: self.identity.agent.clone(),
            boot_id: self.identity.boot_id,
            seq: self.seq,
            sent_at: (self.clock)(),
            interval_ms: u32::try_from(self.interval.as_millis()).unwrap_or(u32::MAX),
        };
        let datagram = beat.encode(&self.identity.key);
        let sent = self.socket(target).and_then(|socket| socket.send_to(&datagram, target));
        if sent.is_err() {
            // An interface that went and came back wants a fresh socket.
            self.socket = None;
        }
        self.note(sent.map(drop));
    }

    fn socket(&mut self, target: SocketAddr) -> io::Result<&UdpSocket> {
        if self.socket.is_none() {
            let any =
                if target.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
            let socket = UdpSocket::bind((self.path.from.unwrap_or(any), 0))?;
            socket.set_nonblocking(true)?;
            self.socket = Some(socket);
        }
        self.socket.as_ref().ok_or_else(|| io::Error::other("a socket was just made"))
    }

    /// Says when a path begins to fail and when it works again; a lost datagram is not seen here.
    fn note(&mut self, sent: io::Result<()>) {
        let failed = sent.is_err();
        match sent {
            Ok(()) if self.failing => warn!(path = self.path.to, "heartbeats leave again"),
            Err(error) if !self.failing => warn!(path = self.path.to, %error, "heartbeats cannot leave"),
            Err(error) => debug!(path = self.path.to, %error, "heartbeats cannot leave"),
            Ok(()) => {}
        }
        self.failing = failed;
    }
}
