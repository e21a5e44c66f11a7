//! A server for tests: speaks just enough HTTP/1.1 over plain sockets to receive what the agent sends, and answers as the
//! test says. It keeps every request in order.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub fn seq(&self) -> u64 {
        self.header("petrel-seq").parse().unwrap()
    }
}

/// Status and body; `None` leaves the request without an answer.
pub type Answer = Option<(u16, Vec<u8>)>;

#[derive(Clone)]
pub struct Receiver {
    pub address: SocketAddr,
    seen: Arc<(Mutex<Vec<Request>>, Condvar)>,
}

impl Receiver {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Receiver {
        Receiver::start_at("127.0.0.1:0".parse().unwrap(), answer)
    }

    pub fn start_at(address: SocketAddr, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Receiver {
        let listener = TcpListener::bind(address).unwrap();
        let receiver = Receiver { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (own, answer) = (receiver.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (own, answer) = (own.clone(), Arc::clone(&answer));
                std::thread::spawn(move || own.serve(&stream, &*answer));
            }
        });
        receiver
    }

    /// Waits until `found` says something of the requests so far. Blocks.
    pub fn wait<T>(&self, what: &str, found: impl Fn(&[Request]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let (seen, changed) = &*self.seen;
        let mut requests = seen.lock().unwrap();
        loop {
            if let Some(value) = found(&requests) {
                return value;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let paths: Vec<&str> = requests.iter().map(|request| request.path.as_str()).collect();
            assert!(!left.is_zero(), "{what} did not come; what came: {paths:?}");
            requests = changed.wait_timeout(requests, left).unwrap().0;
        }
    }

    /// Waits for `n` requests of a class and returns them.
    pub fn wait_class(&self, class: &str, n: usize) -> Vec<Request> {
        self.wait(&format!("{n} batches of {class}"), |requests| {
            let batches: Vec<Request> =
                requests.iter().filter(|request| request.header("petrel-class") == class).cloned().collect();
            (batches.len() >= n).then_some(batches)
        })
    }

    fn serve(&self, stream: &TcpStream, answer: &dyn Fn(&Request) -> Answer) {
        let mut reader = BufReader::new(stream);
        while let Some(request) = read_request(&mut reader) {
            let answer = answer(&request);
            let (seen, changed) = &*self.seen;
            seen.lock().unwrap().push(request);
            changed.notify_all();
            let Some((status, body)) = answer else {
                // Holds the connection open until the other side gives up.
                let _ = reader.read_to_end(&mut Vec::new());
                return;
            };
            let head = format!("HTTP/1.1 {status} Any\r\ncontent-length: {}\r\n\r\n", body.len());
            let mut stream = stream;
            if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
                return;
            }
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { path, headers, body })
}
