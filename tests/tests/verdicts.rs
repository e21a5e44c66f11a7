//! Verdicts from real agents: one that is cut off from the server while others see it alive on shared storage is isolated, and
//! dead only once it is gone there too.

use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use petrel_tests::petrel::Server;
use petrel_tests::process::{Process, program, run_to_end, wait_for};

/// Silence on UDP shows in ten seconds, that of batches in twenty; the rest is for a busy machine.
const VERDICT_WITHIN: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_host_that_others_see_on_storage_is_isolated_until_it_is_gone_there_too() {
    // Storage must take O_DIRECT, which a temporary folder in memory may not.
    let built = program("petrel-agent");
    let dir = tempfile::tempdir_in(built.parent().expect("a program is in a folder")).expect("a folder for the test");
    let area = dir.path().join("beats");
    let mut format = Command::new(&built);
    let format = format.args(["storage-format", "--hosts-max", "4", "--path"]).arg(&area);
    let (code, said) = run_to_end(format, &dir.path().join("format.log"), SOON);
    assert_eq!(code, 0, "{said}");

    let server = Server::start(dir.path(), "");
    let wire = Wire::to(&server.url);
    let _a = agent(dir.path(), "a", &server.url, &area);
    let mut b = agent(dir.path(), "b", &format!("http://127.0.0.1:{}", wire.port), &area);
    server.wait_for_query("petrel_storage_heartbeat_alive{instance=\"a\",host=\"b\"} == 1", SOON);
    server.wait_for_query("petrel_storage_heartbeat_alive{instance=\"b\",host=\"a\"} == 1", SOON);
    wait_for("b to be healthy", SOON, || host(&server, "b").0 == "healthy");

    wire.cut();
    let is = |verdict: &str, because: &str| {
        let (now, reason) = host(&server, "b");
        now == verdict && reason.contains(because)
    };
    wait_for("b to be isolated", VERDICT_WITHIN, || {
        is("isolated", "batches stopped, other hosts see it alive on shared storage")
    });
    assert_eq!(host(&server, "a").0, "healthy");
    let dead = server.query("max_over_time(petrel_host_verdict{instance=\"b\",verdict=\"dead\"}[10m]) > 0");
    assert!(dead.is_empty(), "b was called dead while it beat on storage: {dead:?}");

    b.kill();
    wait_for("b to be dead", VERDICT_WITHIN, || is("dead", "other hosts see nothing of it on shared storage"));
}

/// Verdict and reason as the console shows them.
fn host(server: &Server, name: &str) -> (String, String) {
    let rows = server.get("/petrel/v1/hosts").unwrap_or_default();
    let row = rows.as_array().and_then(|rows| rows.iter().find(|row| row["name"] == name)).cloned().unwrap_or_default();
    let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    (word("verdict"), word("reason"))
}

fn agent(dir: &Path, name: &str, url: &str, area: &Path) -> Process {
    let config = dir.join(format!("{name}.yaml"));
    let text = format!(
        "servers: ['{url}']\nagent: {name}\nstate_dir: {}\ncollect: {{ interval: 1s }}\nlogs: {{ enabled: false }}\n\
         heartbeat: {{ storage: [{{ path: {}, interval: 1s, timeout: 5s }}] }}\n",
        dir.join(name).display(),
        area.display(),
    );
    std::fs::write(&config, text).expect("the test's folder is writable");
    let mut command = Command::new(program("petrel-agent"));
    Process::start(command.arg("--config").arg(config), &dir.join(format!("{name}.log")))
}

/// A way to the server, TCP and UDP on one port, that can be cut.
struct Wire {
    port: u16,
    is_cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(url: &str) -> Wire {
        let server = url.strip_prefix("http://").expect("a server's URL").to_owned();
        // A port that is free for TCP is free for UDP too, but for bad luck.
        let (tcp, udp) = std::iter::repeat_with(|| {
            let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
            let udp = UdpSocket::bind(tcp.local_addr().expect("a bound listener has an address"));
            Some((tcp, udp.ok()?))
        })
        .take(10)
        .find_map(|pair| pair)
        .expect("a port that is free for both");
        let port = tcp.local_addr().expect("a bound listener has an address").port();
        let wire = Wire { port, is_cut: Arc::default(), open: Arc::default() };
        let (is_cut, to) = (Arc::clone(&wire.is_cut), server.clone());
        std::thread::spawn(move || {
            let mut datagram = [0; 1024];
            while let Ok((length, _)) = udp.recv_from(&mut datagram) {
                if !is_cut.load(Ordering::SeqCst) {
                    // A datagram may get lost.
                    let _ = udp.send_to(&datagram[..length], &to);
                }
            }
        });
        let (is_cut, open) = (Arc::clone(&wire.is_cut), Arc::clone(&wire.open));
        std::thread::spawn(move || {
            for near in tcp.incoming().map_while(Result::ok) {
                let Ok(far) = TcpStream::connect(&server) else { continue };
                if !is_cut.load(Ordering::SeqCst) {
                    open.lock()
                        .expect("nobody panics with it")
                        .extend(near.try_clone().into_iter().chain(far.try_clone()));
                    join(&near, &far);
                    join(&far, &near);
                }
            }
        });
        wire
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for stream in self.open.lock().expect("nobody panics with it").drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn join(from: &TcpStream, to: &TcpStream) {
    let (mut from, mut to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}
