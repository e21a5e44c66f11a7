//! A real HAProxy with two real HTTP servers behind it, `web1` and `web2` of the backend `vms`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, free_port, wait_for};

/// A running load balancer with its servers.
pub struct Haproxy {
    /// The runtime API's socket, at level admin.
    pub socket: PathBuf,
    /// The port that clients use.
    pub port: u16,
    _processes: Vec<Process>,
}

impl Haproxy {
    /// Starts both servers and HAProxy with their files in `dir`, and waits until both servers pass their checks.
    pub fn start(dir: &Path) -> Haproxy {
        let mut processes = Vec::new();
        let mut lines = String::new();
        for name in ["web1", "web2"] {
            let (port, root) = (free_port(), dir.join(name));
            std::fs::create_dir_all(&root).expect("the test's folder is writable");
            std::fs::write(root.join("index.html"), name).expect("the test's folder is writable");
            let mut server = Command::new("python3");
            server.args(["-m", "http.server", "--bind", "127.0.0.1", "-d"]).arg(&root).arg(port.to_string());
            // What a web server says of each check helps nobody.
            processes.push(Process::start(&mut server, Path::new("/dev/null")));
            lines.push_str(&["  server ", name, &format!(" 127.0.0.1:{port} check inter 300ms weight 100\n")].concat());
        }
        let (socket, port, config) = (dir.join("haproxy.sock"), free_port(), dir.join("haproxy.cfg"));
        let text = format!(
            "global\n  stats socket {} mode 600 level admin\ndefaults\n  mode http\n  timeout connect 2s\n  \
             timeout client 10s\n  timeout server 10s\nfrontend fe\n  bind 127.0.0.1:{port}\n  default_backend vms\n\
             backend vms\n  balance roundrobin\n  option httpchk GET /\n{lines}",
            socket.display()
        );
        std::fs::write(&config, text).expect("the test's folder is writable");
        let mut haproxy = Command::new("haproxy");
        processes.push(Process::start(haproxy.arg("-db").arg("-f").arg(&config), &dir.join("haproxy.log")));
        let balancer = Haproxy { socket, port, _processes: processes };
        wait_for("both servers to pass HAProxy's checks", Duration::from_secs(15), || {
            ["web1", "web2"].iter().all(|name| balancer.status(name).as_deref() == Some("UP"))
        });
        balancer
    }

    /// What HAProxy's own statistics say of a server: `UP`, `DRAIN`, …
    pub fn status(&self, server: &str) -> Option<String> {
        let stats = self.ask("show stat").ok()?;
        let header: Vec<&str> = stats.lines().next()?.trim_start_matches("# ").split(',').collect();
        let status = header.iter().position(|name| *name == "status")?;
        let line = stats.lines().find(|line| line.starts_with(&format!("vms,{server},")))?;
        line.split(',').nth(status).map(str::to_owned)
    }

    fn ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(format!("{command}\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}
