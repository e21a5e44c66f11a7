//! The main job, end to end, on real processes: a filesystem of web1 fills, Petrel says so before the threshold rule does,
//! tells by mail and webhook, drains web1 in HAProxy, verifies it in HAProxy's own statistics, and undoes it when space is
//! free again. The server is killed twice on the way. Nothing acknowledged is lost and nothing is done twice.

use std::fs::read_link;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use petrel_tests::filler::Filler;
use petrel_tests::haproxy::Haproxy;
use petrel_tests::left_out;
use petrel_tests::petrel::{Server, http_client, start_agent_host};
use petrel_tests::process::{Process, is_root, wait_for, wait_to_find};
use petrel_tests::remote_write;
use petrel_tests::smtp::{PASSWORD, Smtp, USER};
use petrel_tests::webhook::Webhook;

/// Size of web1's small filesystem.
const DISK_MIB: u64 = 64;
/// How much the filler writes in one go, and how often: 64 MiB are full after about a minute and a half.
const FILL: (usize, Duration) = (512 << 10, Duration::from_millis(700));

#[test]
fn a_full_disk_is_seen_coming_and_work_moves_out_of_its_way() {
    if !is_root() {
        return left_out::note("main_job", "needs root for mounts and namespaces");
    }
    let dir = tempfile::tempdir().expect("a folder for the test");
    let (haproxy, smtp, webhook) = (Haproxy::start(dir.path()), Smtp::start(dir.path()), Webhook::start());
    let mut server = Server::start(dir.path(), &server_config(dir.path(), &smtp, &webhook));
    let sender = Sender::start(&server.url);
    let web1 = start_agent_host(
        dir.path(),
        "web1",
        &format!("mkdir -p {0}/disk; mount -t tmpfs -o size={DISK_MIB}m petrel-test {0}/disk", dir.path().display()),
        &agent_config(dir.path(), "web1", &server.url, ""),
    );
    let drive = format!(
        "drive:\n  allow: [haproxy.drain, haproxy.ready, haproxy.set_weight]\n  haproxy: {{ socket: {} }}\n",
        haproxy.socket.display()
    );
    let _lb1 = start_agent_host(dir.path(), "lb1", "true", &agent_config(dir.path(), "lb1", &server.url, &drive));
    let mount = dir.path().join("disk");
    let mount = mount.to_str().expect("a temporary folder's path is text");
    server.wait_for_query(
        &format!("node_filesystem_avail_bytes{{instance=\"web1\",mountpoint=\"{mount}\"}}"),
        Duration::from_secs(30),
    );
    server.wait_for_query("up{instance=\"lb1\"} == 1", Duration::from_secs(30));

    let filler = Filler::start(&inside(&web1, mount), 0, FILL);
    wait_for("some samples to be stored", Duration::from_secs(20), || sender.acknowledged() > 20);
    server.kill_and_restart();

    // The run is killed between its order and its end: as soon as the agent has written down that it starts. An order that breaks off on
    // its way is never sent again.
    let run = server.wait_for_run("drain-web-server", &["running", "done"], Duration::from_secs(90));
    let journal = dir.path().join("lb1/state/orders.journal");
    wait_for("the agent to have the order", Duration::from_secs(30), || {
        std::fs::read_to_string(&journal).is_ok_and(|text| text.contains("started"))
    });
    server.kill_and_restart();
    let threshold_fired = || server.query("ALERTS{alertname=\"DiskAlmostFull\",alertstate=\"firing\"}");
    assert!(threshold_fired().is_empty(), "the prediction comes before the threshold rule");
    wait_for("HAProxy to say that web1 drains", Duration::from_secs(30), || {
        haproxy.status("web1").as_deref() == Some("DRAIN")
    });
    let done = server.wait_for_run("drain-web-server", &["done"], Duration::from_secs(60));
    assert_eq!(done["id"], run["id"], "the run goes on after the crash; there is no second one");
    let told = wait_to_find("the webhook to tell of the prediction", Duration::from_secs(60), || {
        webhook.alerts("DiskWillFill").into_iter().find(|alert| alert["status"] == "firing")
    });
    assert_eq!(told["labels"]["petrel_level"], "warning");
    for annotation in ["petrel_probability", "petrel_lead_seconds"] {
        let number = told["annotations"][annotation].as_str().and_then(|text| text.parse::<f64>().ok());
        assert!(number.is_some_and(|number| number > 0.0), "{annotation} in {told:#}");
    }
    let mail = wait_to_find("a mail of the prediction", Duration::from_secs(60), || {
        smtp.mails().into_iter().find(|mail| mail.contains("DiskWillFill") || mail.contains("will fill"))
    });
    assert!(mail.contains("X-Test-Tls: True") && mail.contains("Message-ID:"), "{mail}");

    wait_for("the threshold rule to fire after the prediction", Duration::from_secs(120), || {
        !threshold_fired().is_empty()
    });
    drop(filler);
    empty(&inside(&web1, mount));
    wait_for("HAProxy to say that web1 is back", Duration::from_secs(120), || {
        haproxy.status("web1").as_deref() == Some("UP")
    });
    let undone = server.wait_for_run("drain-web-server", &["undone"], Duration::from_secs(60));
    assert_eq!(undone["id"], run["id"]);
    assert_no_step_done_twice(&server, &undone["id"]);
    assert_settled(&server, mount);
    assert_repeats_only_with_the_same_key(&webhook, &smtp);
    sender.stop_and_check(&server);
    assert_no_gap(&server, "node_time_seconds{instance=\"web1\"}[10m]", 2_500);
}

fn server_config(dir: &Path, smtp: &Smtp, webhook: &Webhook) -> String {
    let (rules, runbook, password) = (dir.join("rules.yaml"), dir.join("drain.yaml"), dir.join("smtp-password"));
    let mount = dir.join("disk").display().to_string();
    write(&password, PASSWORD);
    write(&rules, &RULES.replace("MOUNT", &mount));
    write(&runbook, RUNBOOK);
    format!(
        r#"
rules:
  files: [{rules}]
predict:
  interval: 1s
  horizons: [2m, 10m]
  ledger_interval_min: 5s
  limits: {{ filesystem_avail_ratio: 0.1 }}
remedy:
  runbooks: [{runbook}]
  settle: 1s
notify:
  receivers:
    - name: operators
      webhook: {{ url: "{url}" }}
    - name: mail
      email:
        smarthost: "localhost:{port}"
        tls: starttls
        ca_file: {ca}
        username: {USER}
        password_file: {password}
        from: petrel@example.org
        to: [ops@example.org]
  routes:
    - receivers: [operators, mail]
      match: ['alertname=~"Disk.*"']
      group_wait: 1s
      group_interval: 5s
"#,
        rules = rules.display(),
        runbook = runbook.display(),
        url = webhook.url,
        port = smtp.port,
        ca = smtp.ca_file.display(),
        password = password.display(),
    )
}

const RULES: &str = r#"
groups:
  - name: disks
    interval: 1s
    rules:
      - alert: DiskWillFill
        expr: petrel_limit_probability{resource="filesystem",mountpoint="MOUNT",horizon="2m"} > 0.8
        for: 2s
        keep_firing_for: 3s
        labels: { severity: warning }
        annotations:
          summary: "{{ $labels.mountpoint }} of {{ $labels.instance }} will fill"
          petrel_probability: "{{ $value }}"
          petrel_lead_seconds: '{{ with printf "petrel_time_to_limit_seconds{quantile=\"0.5\",instance=\"%s\",mountpoint=\"%s\"}" $labels.instance $labels.mountpoint | query }}{{ . | first | value }}{{ end }}'
      - alert: DiskAlmostFull
        expr: node_filesystem_avail_bytes{mountpoint="MOUNT"} / node_filesystem_size_bytes < 0.1
        labels: { severity: critical }
        annotations: { summary: "{{ $labels.mountpoint }} of {{ $labels.instance }} is almost full" }
"#;

const RUNBOOK: &str = r#"
runbook: drain-web-server
when: { alert: ['alertname="DiskWillFill"'] }
mode: auto
cooldown: 1m
min_history: 0s
undo_when_resolved: true
guards:
  - promql: 'up{instance="{{ labels.instance }}"} == 1'
    reason: the host itself is heard from
steps:
  - action: haproxy.drain
    on: lb1
    with: { backend: vms, server: "{{ labels.instance }}" }
    timeout: 20s
    verify:
      promql: 'haproxy_server_status{proxy="vms",server="{{ labels.instance }}",state="DRAIN"} == 1'
      within: 30s
    undo: true
"#;

fn agent_config(dir: &Path, name: &str, server: &str, drive: &str) -> String {
    let state = dir.join(name).join("state");
    format!(
        "servers: [{server}]\nagent: {name}\nstate_dir: {}\ncollect: {{ interval: 1s }}\nlogs: {{ files: [] }}\n{drive}",
        state.display()
    )
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the test's folder is writable");
}

/// A path inside the host that an agent's process made for itself.
fn inside(host: &Process, path: &str) -> PathBuf {
    // `unshare --fork` is the process we know; its child is the host's first process.
    let child = wait_to_find("the host's first process", Duration::from_secs(10), || {
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", host.id())).ok()?;
        let child = children.split_whitespace().next()?.to_owned();
        read_link(format!("/proc/{child}/root")).ok().map(|_| child)
    });
    PathBuf::from(format!("/proc/{child}/root{path}"))
}

fn empty(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("the mount is there").flatten() {
        std::fs::remove_file(entry.path()).expect("the filler's files can be removed");
    }
}

/// Sends one sample every 50 ms by remote write and remembers which were acknowledged.
struct Sender {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<std::sync::Mutex<Vec<i64>>>,
    thread: JoinHandle<()>,
}

impl Sender {
    fn start(url: &str) -> Sender {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::Mutex::new(Vec::new())));
        let (stopped, kept, url) = (Arc::clone(&stop), Arc::clone(&acknowledged), format!("{url}/api/v1/write"));
        let thread = std::thread::spawn(move || {
            let client = http_client();
            while !stopped.load(Ordering::Relaxed) {
                let t = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
                let body =
                    remote_write::request(&[(&[("__name__", "test_acknowledged"), ("job", "test")], &[(t, t as f64)])]);
                if client.post(&url).body(body).send().is_ok_and(|answer| answer.status().is_success()) {
                    kept.lock().expect("no holder panics").push(t);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Sender { stop, acknowledged, thread }
    }

    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().expect("no holder panics").len()
    }

    fn stop_and_check(self, server: &Server) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sender ends by itself");
        let sent = self.acknowledged.lock().expect("no holder panics").clone();
        let stored: std::collections::BTreeMap<i64, f64> =
            server.samples("test_acknowledged[1h]").into_iter().collect();
        let missing: Vec<&i64> = sent.iter().filter(|t| stored.get(t) != Some(&(**t as f64))).collect();
        assert!(
            missing.is_empty(),
            "{} of {} acknowledged samples are missing: {missing:?}",
            missing.len(),
            sent.len()
        );
    }
}

fn assert_no_step_done_twice(server: &Server, run: &serde_json::Value) {
    let shown = server.get(&format!("/petrel/v1/runs/{run}")).expect("the run is kept");
    let mut ordered: Vec<String> = shown["journal"]
        .as_array()
        .expect("a run has a journal")
        .iter()
        .filter(|entry| entry["what"] == "ordered")
        .map(|entry| entry["step"].to_string())
        .collect();
    let all = ordered.len();
    ordered.sort();
    ordered.dedup();
    assert_eq!((all, ordered.len()), (2, 2), "one order to drain and one to undo: {shown:#}");
}

fn assert_settled(server: &Server, mount: &str) {
    wait_for("the prediction to be settled in the ledger", Duration::from_secs(180), || {
        let Some(ledger) = server.get("/petrel/v1/ledger?limit=1000") else { return false };
        let entries = ledger["entries"].as_array().cloned().unwrap_or_default();
        entries.iter().any(|entry| {
            let confident = entry["probability"].as_f64().is_some_and(|p| p > 0.8);
            entry["labels"].to_string().contains(mount) && confident && entry["outcome"] == "happened"
        })
    });
}

/// A notice may come twice after a crash, but then it says that it is the same.
fn assert_repeats_only_with_the_same_key(webhook: &Webhook, smtp: &Smtp) {
    let requests = webhook.received();
    for (i, request) in requests.iter().enumerate() {
        assert!(!request.key.is_empty(), "every webhook carries an Idempotency-Key");
        for other in &requests[..i] {
            assert!(other.body != request.body || other.key == request.key, "the same notice came under two keys");
        }
    }
    assert!(!smtp.mails().is_empty());
}

fn assert_no_gap(server: &Server, range_selector: &str, gap_ms_max: i64) {
    let times: Vec<i64> = server.samples(range_selector).iter().map(|(t, _)| *t).collect();
    assert!(times.len() > 60, "{range_selector} has {} samples", times.len());
    let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    assert!(gap <= gap_ms_max, "{range_selector} has a gap of {gap} ms");
}
