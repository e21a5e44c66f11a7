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
    /// The authority that signed the server's certificate.
    pub ca_file: PathBuf,
    mails: PathBuf,
    _process: Process,
}

impl Smtp {
    /// Starts the server with its files in `dir` and waits until it listens.
    pub fn start(dir: &Path) -> Smtp {
        let file = |name: &str| dir.join(name);
        let (ca_file, mails) = (file("smtp-ca.pem"), file("mail"));
        std::fs::create_dir_all(&mails).expect("the test's folder is writable");
        let (certificate, key) = certificate_for_localhost(dir, &ca_file);
        let port = free_port();
        // Debian's interpreter, because Debian's package brings the server.
        let mut command = Command::new("/usr/bin/python3");
        command.arg(fixtures().join("smtp_server.py")).arg(port.to_string()).args([&certificate, &key, &mails]);
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

/// An authority of its own at `ca_file`, and a certificate for `localhost` that it signed: certificate and key.
fn certificate_for_localhost(dir: &Path, ca_file: &Path) -> (PathBuf, PathBuf) {
    let file = |name: &str| dir.join(name);
    let (ca_key, key, request, certificate) =
        (file("smtp-ca.key"), file("smtp.key"), file("smtp.csr"), file("smtp.pem"));
    let new_key = ["-newkey", "rsa:2048", "-nodes"];
    let mut authority = Command::new("openssl");
    authority.args(["req", "-x509", "-days", "2", "-subj", "/CN=Petrel test authority"]).args(new_key);
    run(authority.arg("-keyout").arg(&ca_key).arg("-out").arg(ca_file));
    let mut asked = Command::new("openssl");
    asked.args(["req", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]).args(new_key);
    run(asked.arg("-keyout").arg(&key).arg("-out").arg(&request));
    let mut signed = Command::new("openssl");
    signed.args(["x509", "-req", "-days", "2", "-copy_extensions", "copy", "-in"]).arg(&request);
    run(signed.arg("-CA").arg(ca_file).arg("-CAkey").arg(&ca_key).arg("-CAcreateserial").arg("-out").arg(&certificate));
    (certificate, key)
}
