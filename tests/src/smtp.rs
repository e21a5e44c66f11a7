//! A real SMTP server for tests: Debian's aiosmtpd with STARTTLS and login, each mail a file.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, fixtures, free_port, run, wait_for};

/// The account that the server knows.
pub const USER: &str = "petrel";
/// Its password.
pub const PASSWORD: &str = "storm-warning";

/// A running server.
pub struct Smtp {
    /// The port on localhost.
    pub port: u16,
    /// Certificate of the server, which is its own authority.
    pub ca_file: PathBuf,
    mails: PathBuf,
    _process: Process,
}

impl Smtp {
    /// Starts the server with its files in `dir` and waits until it listens.
    pub fn start(dir: &Path) -> Smtp {
        let (ca_file, key, mails) = (dir.join("smtp-ca.pem"), dir.join("smtp-key.pem"), dir.join("mail"));
        std::fs::create_dir_all(&mails).expect("the test's folder is writable");
        let paths = [key.display().to_string(), ca_file.display().to_string()];
        run(Command::new("openssl").args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]).args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            &paths[0],
            "-out",
            &paths[1],
        ]));
        let port = free_port();
        // Debian's interpreter, because Debian's package brings the server.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(fixtures().join("smtp_server.py")).arg(port.to_string()).args([&ca_file, &key, &mails]);
        let process = Process::start(command.args([USER, PASSWORD]), &dir.join("smtp.log"));
        wait_for("the SMTP server to listen", Duration::from_secs(20), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Smtp { port, ca_file, mails, _process: process }
    }

    /// All mails received, oldest first, as sent on the wire.
    pub fn mails(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.mails).expect("the folder of mails exists");
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|end| end == "eml"));
        paths.sort();
        paths.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect()
    }
}
