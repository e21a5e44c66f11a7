//! Heartbeats in: UDP datagrams, verified and never taken twice, handed on to whoever judges hosts. Bad ones are counted,
//! never logged one by one, because anybody can send them. Nothing here decides what a beat, or its absence, means.

use std::collections::HashMap;

use petrel_agent::heartbeat::codec::{Beat, DATAGRAM_BYTES_MAX, DecodeBeatError};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::series::Timestamp;
use crate::telemetry::HEARTBEATS;

/// Agents remembered, as many as the verdicts watch.
const AGENTS_MAX: usize = 20_000;
/// Paths remembered of each agent.
const PATHS_MAX: usize = 8;
/// Earlier boots of a host that stay refused.
const BOOTS_REFUSED: usize = 8;
/// Wait after the socket itself failed, so that a lasting fault does not spin.
const SOCKET_WAIT: std::time::Duration = std::time::Duration::from_millis(100);

/// A heartbeat that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// What it says.
    pub beat: Beat,
    /// When it came, by the server's clock.
    pub at: Timestamp,
}

/// Why a verified heartbeat is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotFresh {
    /// Its number was seen on this path, or a later one was.
    Replayed,
    /// It is of a boot of the host that is over, or of one that began before the present one.
    OldBoot,
    /// There are more agents than are remembered.
    TooManyAgents,
    /// The agent has more paths than are remembered.
    TooManyPaths,
}

/// What was last accepted of each agent, so that a datagram that somebody kept is of no use later.
#[derive(Debug, Default)]
pub struct Freshness {
    agents: HashMap<String, Seen>,
}

#[derive(Debug)]
struct Seen {
    boot_id: [u8; 16],
    /// Highest number accepted, by path.
    highest: Vec<(u8, u64)>,
    /// Latest send time accepted, and when it came by our clock.
    sent_at: Timestamp,
    heard_at: Timestamp,
    old_boots: Vec<[u8; 16]>,
}

impl Freshness {
    /// Accepts a verified beat, or says why not. O(paths).
    ///
    /// # Errors
    /// The beat is not fresh, or a bound is met.
    pub fn admit(&mut self, beat: &Beat, now: Timestamp) -> Result<(), NotFresh> {
        let Some(seen) = self.agents.get_mut(&beat.agent) else {
            if self.agents.len() >= AGENTS_MAX {
                return Err(NotFresh::TooManyAgents);
            }
            self.agents.insert(beat.agent.clone(), Seen::first(beat, now));
            return Ok(());
        };
        if beat.boot_id != seen.boot_id {
            seen.another_boot(beat, now)?;
        }
        seen.next(beat, now)
    }
}

impl Seen {
    fn first(beat: &Beat, now: Timestamp) -> Seen {
        let highest = vec![(beat.path, beat.seq)];
        Seen { boot_id: beat.boot_id, highest, sent_at: beat.sent_at, heard_at: now, old_boots: Vec::new() }
    }

    /// A restart of the host: numbers begin anew, and beats of the boot before are over. A clock that ran ahead before the
    /// restart must not lock the host out, so what it said counts no further than our own clock at that time.
    fn another_boot(&mut self, beat: &Beat, now: Timestamp) -> Result<(), NotFresh> {
        if self.old_boots.contains(&beat.boot_id) || beat.sent_at <= self.sent_at.min(self.heard_at) {
            return Err(NotFresh::OldBoot);
        }
        if self.old_boots.len() == BOOTS_REFUSED {
            self.old_boots.remove(0);
        }
        self.old_boots.push(self.boot_id);
        let old_boots = std::mem::take(&mut self.old_boots);
        *self = Seen { highest: Vec::new(), old_boots, ..Seen::first(beat, now) };
        Ok(())
    }

    fn next(&mut self, beat: &Beat, now: Timestamp) -> Result<(), NotFresh> {
        if let Some((_, highest)) = self.highest.iter_mut().find(|(path, _)| *path == beat.path) {
            if beat.seq <= *highest {
                return Err(NotFresh::Replayed);
            }
            *highest = beat.seq;
        } else if self.highest.len() < PATHS_MAX {
            self.highest.push((beat.path, beat.seq));
        } else {
            return Err(NotFresh::TooManyPaths);
        }
        self.sent_at = self.sent_at.max(beat.sent_at);
        self.heard_at = now;
        Ok(())
    }
}

/// Receives until `cancel`. `key_of` gives an agent's token: empty where none is needed, `None` where the agent is not known.
/// When `heard` is full, beats are dropped and counted: the next one comes in a second.
pub async fn run(
    socket: UdpSocket,
    key_of: impl Fn(&str) -> Option<Vec<u8>> + Send,
    clock: Clock,
    heard: mpsc::Sender<Heard>,
    cancel: CancellationToken,
) {
    let mut freshness = Freshness::default();
    // One byte more than the longest, so that what is longer is seen to be.
    let mut buffer = [0u8; DATAGRAM_BYTES_MAX + 1];
    loop {
        let received = tokio::select! {
            () = cancel.cancelled() => return,
            received = socket.recv_from(&mut buffer) => received,
        };
        let outcome = if let Ok((length, _)) = received {
            take(&buffer[..length], &key_of, &mut freshness, clock(), &heard)
        } else {
            tokio::time::sleep(SOCKET_WAIT).await;
            "socket_error"
        };
        HEARTBEATS.with_label_values(&[outcome]).inc();
    }
}

/// One datagram; returns what became of it, for the counter.
fn take(
    datagram: &[u8],
    key_of: impl Fn(&str) -> Option<Vec<u8>>,
    freshness: &mut Freshness,
    now: Timestamp,
    heard: &mpsc::Sender<Heard>,
) -> &'static str {
    let beat = match Beat::decode(datagram, key_of) {
        Ok(beat) => beat,
        Err(DecodeBeatError::Malformed) => return "malformed",
        Err(DecodeBeatError::UnknownAgent) => return "unknown_agent",
        Err(DecodeBeatError::WrongTag) => return "wrong_tag",
    };
    match freshness.admit(&beat, now) {
        Ok(()) => {}
        Err(NotFresh::Replayed) => return "replayed",
        Err(NotFresh::OldBoot) => return "old_boot",
        Err(NotFresh::TooManyAgents) => return "too_many_agents",
        Err(NotFresh::TooManyPaths) => return "too_many_paths",
    }
    match heard.try_send(Heard { beat, at: now }) {
        Ok(()) => "accepted",
        Err(_) => "queue_full",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use petrel_agent::heartbeat::codec::BeatClass;
    use petrel_agent::heartbeat::{HeartbeatConfig, HeartbeatPath, Heartbeats, Identity};

    use super::*;

    fn beat(boot: u8, path: u8, seq: u64, sent_at: Timestamp) -> Beat {
        let class = BeatClass::Beat;
        Beat { class, path, agent: "web1".to_owned(), boot_id: [boot; 16], seq, sent_at, interval_ms: 1_000 }
    }

    #[test]
    fn nothing_is_taken_twice() {
        let mut freshness = Freshness::default();
        let mut admit = |boot, path, seq, sent_at| freshness.admit(&beat(boot, path, seq, sent_at), 1_000 + sent_at);
        assert_eq!(admit(1, 0, 10, 100), Ok(()));
        assert_eq!(admit(1, 1, 10, 100), Ok(()), "each path has its own numbers");
        assert_eq!(admit(1, 0, 10, 100), Err(NotFresh::Replayed));
        assert_eq!(admit(1, 0, 12, 102), Ok(()), "datagrams get lost");
        assert_eq!(admit(1, 0, 11, 101), Err(NotFresh::Replayed), "late ones are of no use");
        assert_eq!(admit(2, 0, 1, 102), Err(NotFresh::OldBoot), "a boot that began before the last beat");
        assert_eq!(admit(2, 0, 1, 200), Ok(()), "the host was restarted");
        assert_eq!(admit(1, 0, 13, 300), Err(NotFresh::OldBoot), "kept from before the restart");
        assert_eq!(admit(2, 0, 2, 201), Ok(()));
    }

    #[test]
    fn a_clock_that_ran_ahead_does_not_lock_the_host_out() {
        let mut freshness = Freshness::default();
        let far = 4_000_000_000_000;
        assert_eq!(freshness.admit(&beat(1, 0, 1, far), 1_000), Ok(()));
        assert_eq!(freshness.admit(&beat(2, 0, 1, 2_000), 2_000), Ok(()));
    }

    #[test]
    fn agents_and_paths_are_bounded() {
        let mut freshness = Freshness::default();
        for path in 0..PATHS_MAX as u8 {
            assert_eq!(freshness.admit(&beat(1, path, 1, 1), 1), Ok(()));
        }
        assert_eq!(freshness.admit(&beat(1, 200, 1, 1), 1), Err(NotFresh::TooManyPaths));
        for n in 1..AGENTS_MAX {
            assert_eq!(freshness.admit(&Beat { agent: format!("a{n}"), ..beat(1, 0, 1, 1) }, 1), Ok(()));
        }
        let one_more = Beat { agent: "more".to_owned(), ..beat(1, 0, 1, 1) };
        assert_eq!(freshness.admit(&one_more, 1), Err(NotFresh::TooManyAgents));
    }

    /// The agent's own sender against the receiver, over loopback.
    #[tokio::test]
    async fn beats_and_the_goodbye_arrive() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = socket.local_addr().unwrap();
        let (sender, mut heard) = mpsc::channel(64);
        let cancel = CancellationToken::new();
        let key_of = |agent: &str| (agent == "web1").then(|| b"token".to_vec());
        let receiver = tokio::spawn(run(socket, key_of, crate::clock::fixed(5), sender, cancel.clone()));
        let path = HeartbeatPath { to: to.to_string(), from: None };
        let config = HeartbeatConfig {
            interval: Duration::from_millis(20),
            paths: vec![path.clone(), path],
            storage: Vec::new(),
            hardware: Vec::new(),
        };
        let start = |agent: &str, key: &[u8]| {
            let identity = Identity { agent: agent.to_owned(), boot_id: [3; 16], first_seq: 100, key: key.to_vec() };
            Heartbeats::start(config.clone(), identity, std::sync::Arc::new(|| 7)).unwrap()
        };
        let stranger = start("web2", b"token");
        let liar = start("web1", b"guess");
        let beating = start("web1", b"token");
        let mut next = async || tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.unwrap().unwrap();
        let mut paths = std::collections::BTreeSet::new();
        while paths.len() < 2 {
            let Heard { beat, at } = next().await;
            assert_eq!((beat.agent.as_str(), beat.class, beat.sent_at, at), ("web1", BeatClass::Beat, 7, 5));
            assert_eq!((beat.boot_id, beat.interval_ms), ([3; 16], 20));
            paths.insert(beat.path);
        }
        // Datagrams of different senders arrive in any order, so the refused ones are waited for, while beats are taken.
        let counted = |outcome| HEARTBEATS.with_label_values(&[outcome]).get() > 0;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while !(counted("wrong_tag") && counted("unknown_agent")) {
            assert!(tokio::time::Instant::now() < deadline, "liar and stranger are not counted");
            next().await;
        }
        beating.stop().await;
        while next().await.beat.class != BeatClass::Goodbye {}
        stranger.stop().await;
        liar.stop().await;
        cancel.cancel();
        receiver.await.unwrap();
    }
}
