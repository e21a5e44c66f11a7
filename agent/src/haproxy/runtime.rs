//! One command to HAProxy's runtime API and its answer. Every step has a deadline and the answer a largest size; what
//! the answer means is not judged here.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::drive::HaproxySocket;

/// Statistics of about ten thousand servers.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// A runtime API.
#[derive(Debug)]
pub struct Runtime {
    socket: HaproxySocket,
}

/// Why there is no answer, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No connection.
    #[error("cannot reach HAProxy at {socket}")]
    Connect {
        /// Where.
        socket: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or the answer took too long.
    #[error("HAProxy at {socket} did not answer")]
    Answer {
        /// Where.
        socket: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The answer is no text, too long, or ends too soon.
    #[error("HAProxy's answer cannot be used: {0}")]
    Unusable(String),
}

impl RuntimeError {
    /// Whether HAProxy may have received the command.
    pub fn was_sent(&self) -> bool {
        !matches!(self, RuntimeError::Connect { .. })
    }
}

/// A connection of either kind.
trait Stream: io::Read + io::Write {
    fn limit(&self, within: Duration) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn limit(&self, within: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(within))?;
        self.set_write_timeout(Some(within))
    }
}

impl Stream for TcpStream {
    fn limit(&self, within: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(within))?;
        self.set_write_timeout(Some(within))
    }
}

impl Runtime {
    /// The runtime API at `socket`.
    pub fn at(socket: HaproxySocket) -> Runtime {
        Runtime { socket }
    }

    /// Sends one command (one line, without its end) and returns the whole answer.
    ///
    /// # Errors
    /// When there is no connection, no answer in time, or one that is not text.
    pub fn ask(&self, command: &str, within: Duration) -> Result<String, RuntimeError> {
        let end = Instant::now() + within;
        let mut stream =
            self.connect(within).map_err(|source| RuntimeError::Connect { socket: self.place(), source })?;
        let mut talk = || -> io::Result<Vec<u8>> {
            stream.limit(left(end))?;
            stream.write_all(format!("{command}\n").as_bytes())?;
            let (mut answer, mut buffer) = (Vec::new(), [0u8; 16 << 10]);
            loop {
                stream.limit(left(end))?;
                match stream.read(&mut buffer)? {
                    0 => return Ok(answer),
                    count => answer.extend_from_slice(&buffer[..count]),
                }
                if answer.len() as u64 > ANSWER_BYTES_MAX {
                    return Err(io::Error::other(format!("it is longer than {ANSWER_BYTES_MAX} bytes")));
                }
            }
        };
        let answer = talk().map_err(|source| RuntimeError::Answer { socket: self.place(), source })?;
        // HAProxy ends every answer, an empty one too, with an empty line.
        if !answer.ends_with(b"\n") {
            return Err(RuntimeError::Unusable(format!("it ends too soon, after {} bytes", answer.len())));
        }
        String::from_utf8(answer).map_err(|_| RuntimeError::Unusable("it is not text".to_owned()))
    }

    fn connect(&self, within: Duration) -> io::Result<Box<dyn Stream>> {
        match &self.socket {
            // Connecting to a Unix socket either succeeds or fails at once, but for a full backlog.
            HaproxySocket::Unix(path) => Ok(Box::new(UnixStream::connect(path)?)),
            HaproxySocket::Tcp(address) => {
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for address in address.to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, within.max(Duration::from_millis(1))) {
                        Ok(stream) => return Ok(Box::new(stream)),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    fn place(&self) -> String {
        match &self.socket {
            HaproxySocket::Unix(path) => path.display().to_string(),
            HaproxySocket::Tcp(address) => address.clone(),
        }
    }
}

/// Time left, never zero, which a socket would take for «for ever».
fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A runtime API that answers one command with `answer`, and then keeps the connection if `hangs`.
    fn ask(answer: &'static [u8], hangs: bool) -> Result<String, RuntimeError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let runtime = Runtime::at(HaproxySocket::Tcp(listener.local_addr().unwrap().to_string()));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut command = [0u8; 10];
                stream.read_exact(&mut command).unwrap();
                assert_eq!(&command, b"show stat\n");
                stream.write_all(answer).unwrap();
                // Ends when the other side has given up.
                while hangs && stream.read(&mut command).is_ok_and(|count| count > 0) {}
            });
            runtime.ask("show stat", Duration::from_millis(if hangs { 50 } else { 20_000 }))
        })
    }

    #[test]
    fn answers_over_tcp_are_whole_or_named() {
        assert_eq!(ask(b"# a,b\n1,2\n\n", false).unwrap(), "# a,b\n1,2\n\n");
        assert_eq!(
            ask(b"# a,b\n1,", false).unwrap_err().to_string(),
            "HAProxy's answer cannot be used: it ends too soon, after 8 bytes"
        );
        assert_eq!(ask(b"\xff\n", false).unwrap_err().to_string(), "HAProxy's answer cannot be used: it is not text");
        let error = ask(b"# a,b\n", true).unwrap_err();
        assert!(matches!(error, RuntimeError::Answer { .. }) && error.was_sent(), "{error}");
    }

    #[test]
    fn nobody_there_is_no_answer_and_nothing_sent() {
        let runtime = Runtime::at(HaproxySocket::Unix("/nonexistent/admin.sock".into()));
        let error = runtime.ask("show stat", Duration::from_secs(1)).unwrap_err();
        assert!(!error.was_sent(), "{error}");
    }
}
