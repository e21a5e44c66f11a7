//! `petrel backup` and `restore` as an operator types them, against a server that takes samples meanwhile.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use petrel_tests::petrel::Server;
use petrel_tests::process::{Process, program, run_to_end, wait_for};
use petrel_tests::remote_write;

#[test]
fn a_backup_of_a_busy_server_comes_back_held_and_whole() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut server = Server::start(dir.path(), "");
    let file = dir.path().join("petrel.tar");
    let begin = now_ms();
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicI64::new(0));
    let before = std::thread::scope(|scope| {
        let server = &server;
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let n = acknowledged.load(Ordering::SeqCst);
                send(server, begin + n, n as f64);
                acknowledged.store(n + 1, Ordering::SeqCst);
            }
        });
        wait_for("samples to be taken", Duration::from_secs(20), || acknowledged.load(Ordering::SeqCst) > 50);
        let before = acknowledged.load(Ordering::SeqCst);
        let (code, out) = petrel(dir.path(), &["backup", &text(&file), "--server", &server.url]);
        stop.store(true, Ordering::SeqCst);
        assert!(code == 0 && out.contains("checked"), "{code} {out}");
        before
    });
    let (code, out) = petrel(dir.path(), &["backup", &text(&file), "--server", &server.url]);
    assert!(code == 1 && out.contains("--overwrite"), "{code} {out}");
    // What operators may do to look inside without us.
    let listed = petrel_tests::process::run(Command::new("tar").arg("tf").arg(&file));
    assert!(listed.contains("control.db") && listed.contains("SHA256SUMS"), "{listed}");
    let config = text(&server.config);
    let (code, out) = petrel(dir.path(), &["restore", &text(&file), "--config", &config]);
    assert!(code == 1 && out.contains("in use") && out.contains("Stop that server"), "{code} {out}");
    assert!(server.stop().1, "{}", server.output());
    let (code, out) = petrel(dir.path(), &["restore", &text(&file), "--config", &config]);
    assert!(code == 1 && out.contains("--replace"), "{code} {out}");
    let epoch = |dir: &Path| fact(&dir.join("data/control.db"), "fencing_epoch");
    let epoch_before = epoch(dir.path());
    let (code, out) = petrel(dir.path(), &["restore", &text(&file), "--config", &config, "--replace"]);
    assert!(code == 0 && out.contains("held") && out.contains("replaced-"), "{code} {out}");
    assert!(epoch(dir.path()) > epoch_before, "the restored server would give orders in the old epoch");
    server.start_again();
    let held = server.get("/petrel/v1/hold").expect("the server answers");
    assert_eq!(held["on"], true, "{held}");
    let samples = server.samples("test_backup[1h]");
    for n in 0..before {
        assert!(samples.contains(&(begin + n, n as f64)), "sample {n} of {before} is not in the backup");
    }
    let (code, out) = petrel(dir.path(), &["hold", "off", "--server", &server.url]);
    assert!(code == 0 && out.contains("Not held"), "{code} {out}");
    std::fs::write(&file, "half a file").expect("the test's folder is writable");
    let (code, out) = petrel(dir.path(), &["restore", &text(&file), "--data", &text(&dir.path().join("other"))]);
    assert!(code == 1 && out.contains("not a backup") && !dir.path().join("other").exists(), "{code} {out}");
}

fn send(server: &Server, t: i64, value: f64) {
    let body = remote_write::request(&[(&[("__name__", "test_backup")], &[(t, value)])]);
    let (status, answer) = server.post_bytes("/api/v1/write", &[], body).expect("the server is there");
    assert!(status < 300, "{status} {answer}");
}

fn fact(control: &Path, name: &str) -> i64 {
    let connection = rusqlite::Connection::open(control).expect("the server's database");
    connection
        .query_row("SELECT value FROM remedy_fact WHERE name = ?1", [name], |row| row.get(0))
        .expect("remedy keeps its facts")
}

fn petrel(dir: &Path, arguments: &[&str]) -> (i32, String) {
    // A log of its own for each call: what it printed is compared with what it must print.
    let log = tempfile::NamedTempFile::new_in(dir).expect("the test's folder is writable");
    run_to_end(Command::new(program("petrel")).args(arguments), log.path(), Duration::from_secs(60))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_millis() as i64
}

#[test]
fn samples_of_a_file_and_of_a_prometheus_come_over_whole() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let server = Server::start(dir.path(), "");
    let begin = now_ms() - 3_000_000;
    let file = dir.path().join("metrics.txt");
    let mut lines = String::from("# TYPE imported counter\n# HELP imported What came.\n");
    for n in 0..500 {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "imported{{n=\"{}\",path=\"C:\\\\x, \\\"y\\\"\"}} {n} {}", n % 5, begin + n * 1000);
    }
    std::fs::write(&file, &lines).expect("the test's folder is writable");
    let import = |words: &[&str]| petrel(dir.path(), &[&["import"], words, &["--server", &server.url]].concat());
    for _ in 0..2 {
        let (code, out) = import(&[&text(&file)]);
        assert!(code == 0 && out.contains("500 samples stored, 0 refused"), "{code} {out}");
        assert_eq!(total(&server.url, "imported"), 500.0);
    }
    std::fs::write(&file, format!("{lines}imported{{ 1\nimported 1 5\nimported{{n=\"9\"}} 7\n")).expect("as above");
    let (code, out) = import(&[&text(&file)]);
    assert!(code == 1 && out.contains("metrics.txt:503:") && out.contains("older than the retention"), "{code} {out}");
    assert!(out.contains("501 samples stored, 1 refused"), "{out}");

    let (prometheus, url) = start_prometheus(dir.path());
    let series: Vec<String> = (0..40).map(|n| format!("{n:02}")).collect();
    for part in 0..10 {
        let samples: Vec<(i64, f64)> =
            (0..20).map(|n| (begin + (part * 20 + n) * 15_000, (part * 20 + n) as f64 / 3.0)).collect();
        let labels: Vec<_> = series.iter().map(|n| [("__name__", "remote"), ("n", n.as_str())]).collect();
        let all: Vec<(remote_write::Pairs<'_>, &[(i64, f64)])> =
            labels.iter().map(|labels| (&labels[..], &samples[..])).collect();
        let sent =
            petrel_tests::petrel::http_client().post(format!("{url}/api/v1/write")).body(remote_write::request(&all));
        let sent = sent.header("content-encoding", "snappy").send().expect("Prometheus is there");
        assert!(sent.status().is_success(), "{sent:?}");
    }
    let (start, end) = ((begin / 1000 - 1).to_string(), (now_ms() / 1000).to_string());
    for _ in 0..2 {
        let (code, out) = import(&["--from", &url, "--start", &start, "--end", &end]);
        assert!(code == 0 && out.contains("8000 samples stored, 0 refused"), "{code} {out}");
        assert_eq!((total(&server.url, "remote"), total(&url, "remote")), (8000.0, 8000.0));
    }
    let range = |url: &str| ask(url, "remote{n=\"07\"}[2h]")["data"]["result"][0]["values"].clone();
    assert_eq!(range(&server.url), range(&url));
    let (code, out) = import(&["--from", &url, "--start", &start, "--match", "remote{n=~\"0.\"}"]);
    assert!(code == 0 && out.contains("2000 samples stored"), "{code} {out}");
    drop(prometheus);
    let (code, out) = import(&["--from", &url, "--start", &start]);
    assert!(code == 3 && out.contains("cannot be reached"), "{code} {out}");
    let (code, out) = import(&["--from", &url]);
    assert!(code != 0 && out.contains("--start"), "{code} {out}");
}

/// Samples of a metric in the last two hours.
fn total(url: &str, metric: &str) -> f64 {
    let answer = ask(url, &format!("sum(count_over_time({metric}[2h]))"));
    answer["data"]["result"][0]["value"][1].as_str().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

fn ask(url: &str, promql: &str) -> serde_json::Value {
    let asked = petrel_tests::petrel::http_client().get(format!("{url}/api/v1/query")).query(&[("query", promql)]);
    asked.send().expect("the server is there").json().expect("the API answers JSON")
}

/// Debian's Prometheus that takes remote write and scrapes nothing.
fn start_prometheus(dir: &Path) -> (Process, String) {
    let (config, port) = (dir.join("prometheus.yml"), petrel_tests::process::free_port());
    std::fs::write(&config, "global: { scrape_interval: 1h }\n").expect("the test's folder is writable");
    let mut command = Command::new("prometheus");
    command.arg(format!("--config.file={}", config.display()));
    command.arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()));
    command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--web.enable-remote-write-receiver");
    let process = Process::start(&mut command, &dir.join("prometheus.log"));
    let url = format!("http://127.0.0.1:{port}");
    let client = petrel_tests::petrel::http_client();
    wait_for("Prometheus to be ready", Duration::from_secs(30), || {
        client.get(format!("{url}/-/ready")).send().is_ok_and(|answer| answer.status().is_success())
    });
    (process, url)
}

#[test]
fn a_damaged_directory_is_named_and_repaired() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut server = Server::start(dir.path(), "");
    let begin = now_ms();
    for n in 0..60 {
        send(&server, begin + n, n as f64);
    }
    let data = text(&dir.path().join("data"));
    let (code, out) = petrel(dir.path(), &["verify", &data]);
    assert!(code == 0 && out.contains("control.db") && out.contains("fine"), "beside the server: {code} {out}");
    let (code, out) = petrel(dir.path(), &["repair", &data]);
    assert!(code == 1 && out.contains("in use"), "{code} {out}");
    server.kill();
    let log = std::fs::read_dir(&data).expect("the data folder").flatten().map(|entry| entry.path());
    let log = log.filter(|path| text(path).contains("journal-") && text(path).ends_with("-wal"));
    let log = log.max_by_key(|path| path.metadata().map_or(0, |metadata| metadata.len())).expect("a journal");
    let mut bytes = std::fs::read(&log).expect("the journal can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    std::fs::write(&log, bytes).expect("the journal can be written");
    let (code, out) = petrel(dir.path(), &["verify", &data]);
    assert!(code == 1 && out.contains("DAMAGED") && out.contains("petrel repair"), "{code} {out}");
    let (code, out) = petrel_tests::petrel::refused_start(dir.path(), &["--data", &data, "--listen", "127.0.0.1:0"]);
    assert!(code != 0 && out.contains("journal-") && out.contains("petrel repair"), "{code} {out}");
    let (code, out) = petrel(dir.path(), &["repair", &data]);
    assert!((code == 0 || out.contains("lost:")) && out.contains("the original is"), "{code} {out}");
    server.start_again();
    assert!(server.samples("test_backup[1h]").len() > 50, "{out}");
}
