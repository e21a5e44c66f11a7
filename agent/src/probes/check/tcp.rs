//! The TCP check: connects, says something if told to, and reads until what is expected has come.

use std::net::SocketAddr;
use std::time::Instant;

use regex::bytes::Regex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::names::{IpVersion, Names};
use super::super::outcome::{Failure, Measure, Outcome, Reason};

/// Most that is read in wait of what is expected: greetings are a line.
const READ_BYTES_MAX: usize = 64 << 10;

/// What is checked.
#[derive(Debug, Clone)]
pub struct TcpCheck {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Which addresses.
    pub ip: IpVersion,
    /// What is said first.
    pub send: Vec<u8>,
    /// What must come back.
    pub expect: Option<Regex>,
}

impl TcpCheck {
    pub(super) async fn run(&self, names: &Names, outcome: &mut Outcome) {
        if let Err(failure) = self.steps(names, outcome).await {
            outcome.fail(failure);
        }
    }

    async fn steps(&self, names: &Names, outcome: &mut Outcome) -> Result<(), Failure> {
        let begun = Instant::now();
        let found = names.look_up(&self.host, self.port, self.ip).await;
        outcome.push(Measure::LookupTime, begun.elapsed().as_secs_f64());
        let addresses = found.map_err(|error| Failure::new(Reason::Lookup, error.to_string()))?;
        let mut stream = connect(&addresses, outcome).await?;
        let broken = |error: std::io::Error| Failure::new(Reason::Protocol, format!("connection broke off: {error}"));
        stream.write_all(&self.send).await.map_err(broken)?;
        let Some(expect) = &self.expect else { return Ok(()) };
        let mut heard = Vec::new();
        let came = loop {
            if stream.read_buf(&mut heard).await.map_err(broken)? == 0 {
                break expect.is_match(&heard);
            }
            if expect.is_match(&heard) {
                break true;
            }
            if heard.len() >= READ_BYTES_MAX {
                break false;
            }
        };
        outcome.push(Measure::FailedByRegex, f64::from(u8::from(!came)));
        if came { Ok(()) } else { Err(Failure::new(Reason::Content, "what came is not what is expected")) }
    }
}

/// To the first address that takes the connection.
pub(super) async fn connect(addresses: &[SocketAddr], outcome: &mut Outcome) -> Result<TcpStream, Failure> {
    let mut words = String::new();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                outcome.push(Measure::IpProtocol, if address.is_ipv4() { 4.0 } else { 6.0 });
                return Ok(stream);
            }
            Err(error) => words = format!("{address} takes no connection: {error}"),
        }
    }
    Err(Failure::new(Reason::Connect, words))
}
