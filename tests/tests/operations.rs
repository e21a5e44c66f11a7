//! `petrel backup` and `restore` as an operator types them, against a server that takes samples meanwhile.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use petrel_tests::petrel::Server;
use petrel_tests::process::{program, run_to_end, wait_for};
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
