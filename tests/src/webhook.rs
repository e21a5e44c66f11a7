//! A webhook receiver on a port of its own: keeps every request's Idempotency-Key and JSON body.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

/// One request received.
#[derive(Debug, Clone)]
pub struct Received {
    /// The Idempotency-Key header, empty where absent.
    pub key: String,
    /// The body.
    pub body: Value,
}

/// A running receiver; its thread ends with the test's process.
pub struct Webhook {
    /// Where to send to.
    pub url: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Webhook {
    /// Listens on a free port of loopback and answers 200 to everything.
    pub fn start() -> Webhook {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
        let url = format!("http://{}/hook", listener.local_addr().expect("a bound listener has an address"));
        let received = Arc::new(Mutex::new(Vec::new()));
        let store = Arc::clone(&received);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A sender that breaks off is the sender's problem; the next one is served.
                let _ = serve(stream, &store);
            }
        });
        Webhook { url, received }
    }

    /// Everything received so far, oldest first.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All alerts received with this `alertname`, oldest first.
    pub fn alerts(&self, name: &str) -> Vec<Value> {
        let requests = self.received();
        let alerts = requests.iter().flat_map(|request| request.body["alerts"].as_array().into_iter().flatten());
        alerts.filter(|alert| alert["labels"]["alertname"] == name).cloned().collect()
    }
}

fn serve(mut stream: TcpStream, store: &Mutex<Vec<Received>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let (mut key, mut length, mut line) = (String::new(), 0, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            if line == "\r\n" {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "idempotency-key" => value.trim().clone_into(&mut key),
            "content-length" => length = value.trim().parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    store.lock().unwrap_or_else(PoisonError::into_inner).push(Received { key, body });
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}
