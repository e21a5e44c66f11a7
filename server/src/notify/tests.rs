//! The notifier against a real HTTP receiver on a port of the kernel's choice.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::group::tests::alert;
use super::*;
use crate::clock::Clock;

/// What the receiver saw of one request: its Idempotency-Key, its Authorization, its body.
type Request = (String, String, String);

/// Answers each request with the next status, then with the last one for ever; 0 closes without an answer.
struct Hook {
    url: String,
    seen: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    async fn up(statuses: &'static [u16]) -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut at = 0;
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let request = read_request(&mut socket).await;
                log.lock().unwrap().push(request);
                let status = statuses[at.min(statuses.len() - 1)];
                at += 1;
                if status > 0 {
                    let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    socket.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        Hook { url, seen, task }
    }

    async fn wait_for(&self, count: usize) -> Vec<Request> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let seen = self.seen.lock().unwrap().clone();
            if seen.len() >= count {
                return seen;
            }
            assert!(Instant::now() < deadline, "only {} of {count} requests came", seen.len());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

async fn read_request(socket: &mut tokio::net::TcpStream) -> Request {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let n = socket.read(&mut chunk).await.unwrap();
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let header = |name: &str| {
            let line = head.lines().find(|line| line.to_lowercase().starts_with(name));
            line.and_then(|line| line.split_once(": ")).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        if body.len() >= header("content-length").parse::<usize>().unwrap_or(0) || n == 0 {
            return (header("idempotency-key"), header("authorization"), body.to_owned());
        }
    }
}

struct World {
    dir: tempfile::TempDir,
    time: Arc<AtomicI64>,
}

impl World {
    fn new() -> World {
        let _ = rustls::crypto::ring::default_provider().install_default();
        World { dir: tempfile::tempdir().unwrap(), time: Arc::new(AtomicI64::new(1_790_000_000_000)) }
    }

    fn clock(&self) -> Clock {
        let time = Arc::clone(&self.time);
        Arc::new(move || time.load(Ordering::Relaxed))
    }

    fn now(&self) -> Timestamp {
        self.time.load(Ordering::Relaxed)
    }

    fn pass(&self, seconds: i64) {
        self.time.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    fn open(&self, receivers: &[(&str, &str, &str)]) -> (Arc<Notifier>, Arc<Control>) {
        let receiver =
            |(name, url, extra): &(&str, &str, &str)| format!("- name: {name}\n  webhook: {{ url: '{url}'{extra} }}\n");
        let route =
            |(name, _, _): &(&str, &str, &str)| format!("- receivers: [{name}]\n  group_wait: 0s\n  continue: true\n");
        let text = ["receivers:\n".to_owned()].into_iter().chain(receivers.iter().map(receiver));
        let text = text.chain(["routes:\n".to_owned()]).chain(receivers.iter().map(route)).collect::<String>();
        let raw: RawNotifyConfig = serde_saphyr::from_str(&text).unwrap();
        let control = Arc::new(Control::open(&self.dir.path().join("control.db"), MIGRATIONS).unwrap());
        let config = raw.check("http://petrel.example").unwrap();
        (Notifier::open(Arc::clone(&control), config, 7).unwrap(), control)
    }
}

async fn drained(control: &Control, receiver: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while queue::waiting(control, receiver).unwrap() > 0 {
        assert!(Instant::now() < deadline, "notices still wait for {receiver}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_notice_arrives_as_alertmanager_would_send_it() {
    let (world, hook) = (World::new(), Hook::up(&[200]).await);
    let token = world.dir.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let (notifier, control) = world.open(&[("ops", &hook.url, &format!(", bearer_token_file: '{}'", token.display()))]);
    let cancel = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&notifier).run(cancel.clone(), world.clock()));
    notifier.observe(&[alert("Disk@web1/critical", world.now())], world.now()).unwrap();
    let (key, authorization, body) = hook.wait_for(1).await.remove(0);
    assert_eq!((key.len(), authorization.as_str()), (32, "Bearer s3cret"));
    expect_test::expect![[r#"{"receiver":"ops","status":"firing","alerts":[{"status":"firing","labels":{"alertname":"Disk","instance":"web1","job":"node","petrel_level":"critical"},"annotations":{"summary":"web1: Disk happens"},"startsAt":"2026-09-21T14:13:20.000Z","endsAt":"0001-01-01T00:00:00Z","generatorURL":"http://petrel/graph","fingerprint":"5afa721db89a07c2"}],"groupLabels":{"alertname":"Disk","petrel_level":"critical"},"commonLabels":{"alertname":"Disk","instance":"web1","job":"node","petrel_level":"critical"},"commonAnnotations":{"summary":"web1: Disk happens"},"externalURL":"http://petrel.example","version":"4","groupKey":"{}/{}:{alertname=\"Disk\", petrel_level=\"critical\"}","truncatedAlerts":0}"#]].assert_eq(&body);
    drained(&control, "ops").await;
    cancel.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_repeat_after_a_crash_has_the_same_key() {
    let (world, hook) = (World::new(), Hook::up(&[0, 200]).await);
    let (notifier, _) = world.open(&[("ops", &hook.url, "")]);
    notifier.observe(&[alert("Disk@web1", world.now())], world.now()).unwrap();
    let running = tokio::spawn(Arc::clone(&notifier).run(CancellationToken::new(), world.clock()));
    hook.wait_for(1).await;
    running.abort();
    let _ = running.await;
    drop(notifier);

    world.pass(600);
    let (notifier, control) = world.open(&[("ops", &hook.url, "")]);
    notifier.observe(&[alert("Disk@web1", world.now())], world.now()).unwrap();
    let cancel = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&notifier).run(cancel.clone(), world.clock()));
    let seen = hook.wait_for(2).await;
    assert_eq!(seen[0].0, seen[1].0, "same Idempotency-Key");
    assert_eq!(seen[0].2, seen[1].2, "same body");
    drained(&control, "ops").await;
    assert_eq!(hook.seen.lock().unwrap().len(), 2, "the restart alone tells nothing anew");
    cancel.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn failures_are_tried_again_and_refusals_are_not() {
    let (world, hook) = (World::new(), Hook::up(&[503, 429, 200, 404]).await);
    let (notifier, control) = world.open(&[("ops", &hook.url, "")]);
    let cancel = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&notifier).run(cancel.clone(), world.clock()));
    notifier.observe(&[alert("Disk@web1", world.now())], world.now()).unwrap();
    for count in 1..=3 {
        hook.wait_for(count).await;
        // The pause is in the queue by the time of the clock, not in a timer: wake the worker as a new notice would.
        while count < 3 && queue::next(&control, "ops").unwrap().is_some_and(|one| one.attempts < count as u32) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.pass(300);
        notifier.wakers["ops"].notify_one();
    }
    drained(&control, "ops").await;
    notifier.observe(&[alert("Other@web1", world.now())], world.now()).unwrap();
    hook.wait_for(4).await;
    drained(&control, "ops").await;
    let keys: Vec<String> = hook.seen.lock().unwrap().iter().map(|seen| seen.0.clone()).collect();
    assert!(keys[0] == keys[1] && keys[1] == keys[2] && keys[2] != keys[3], "{keys:?}");
    cancel.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_dead_receiver_does_not_hold_up_the_others() {
    let (world, hook) = (World::new(), Hook::up(&[200]).await);
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead_url = format!("http://{}/", dead.local_addr().unwrap());
    let (notifier, control) = world.open(&[("dead", &dead_url, ""), ("ops", &hook.url, "")]);
    let cancel = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&notifier).run(cancel.clone(), world.clock()));
    notifier.observe(&[alert("Disk@web1", world.now())], world.now()).unwrap();
    hook.wait_for(1).await;
    drained(&control, "ops").await;
    assert_eq!(queue::waiting(&control, "dead").unwrap(), 1);
    cancel.cancel();
    let stopped = tokio::time::timeout(Duration::from_secs(2), running).await;
    assert!(stopped.is_ok(), "an attempt under way does not hold up the end");
}

#[tokio::test]
async fn the_queue_is_bounded_and_forgets_receivers_that_are_gone() {
    let world = World::new();
    let (notifier, control) = world.open(&[("ops", "http://127.0.0.1:1/", "")]);
    for i in 0..1_005 {
        world.pass(1);
        notifier.observe(&[alert(&format!("A{i}@x"), world.now())], world.now()).unwrap();
    }
    assert!(queue::waiting(&control, "ops").unwrap() <= 1_000);
    drop((notifier, control));
    let (_, control) = world.open(&[("other", "http://127.0.0.1:1/", "")]);
    assert_eq!(queue::waiting(&control, "ops").unwrap(), 0);
}
