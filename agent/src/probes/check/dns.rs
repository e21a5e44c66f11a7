//! The DNS check: asks one name server one question, by UDP and where the answer is too long by TCP. The system's resolver
//! cannot be used for it: it gives addresses only, from whichever source it likes.

pub mod message;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UdpSocket;

use self::message::{Message, RecordType, answers_to, code_name, normal, question, read};
use super::super::config::{Problem, problem};
use super::super::names::{IpVersion, Names};
use super::super::outcome::{Failure, Measure, Outcome, Reason};
use super::config::{CheckKind, check_target};
use super::tcp::connect;

const PORT: u16 = 53;
/// A datagram may be lost: the question is repeated so often until the deadline.
const REPEAT_EVERY: Duration = Duration::from_secs(1);
/// Without EDNS an answer by UDP has at most 512 bytes; some servers send more.
const DATAGRAM_BYTES_MAX: usize = 4096;
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A DNS check as written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawDns {
    /// The name that is asked for.
    pub name: String,
    /// The type of record: A, AAAA, CNAME, MX, NS, PTR, SOA, SRV, TXT.
    #[serde(default = "default_type", rename = "type")]
    pub kind: RecordType,
    /// The name server: an address, or host:port. Default: the first of /etc/resolv.conf.
    #[serde(default)]
    pub server: Option<String>,
    /// Answers that must be among those that come; empty: any answer is well.
    #[serde(default)]
    pub answers: Vec<String>,
}

/// What is checked.
#[derive(Debug, Clone)]
pub struct DnsCheck {
    name: String,
    kind: RecordType,
    /// `None`: the system's first.
    server: Option<(String, u16)>,
    ip: IpVersion,
    answers: Vec<String>,
}

fn default_type() -> RecordType {
    RecordType::A
}

impl RawDns {
    pub(super) fn check(self, at: &str, ip: IpVersion) -> Result<(String, CheckKind), Problem> {
        if question(0, &self.name, self.kind).is_none() {
            return Err(problem(format!("{at}dns.name"), self.name, "write a domain name, for example web1.example"));
        }
        let server = match self.server.as_deref().map(|text| (text, text.parse::<IpAddr>())) {
            None => None,
            Some((text, Ok(_))) => Some((text.to_owned(), PORT)),
            Some((text, Err(_))) => Some(check_target(format!("{at}dns.server"), text)?),
        };
        let target = self.server.unwrap_or_else(|| "system".to_owned());
        let answers = self.answers.iter().map(|answer| comparable(self.kind, answer)).collect();
        Ok((target, CheckKind::Dns(DnsCheck { name: self.name, kind: self.kind, server, ip, answers })))
    }
}

/// An answer as it is written in config in the form that answers have.
fn comparable(kind: RecordType, text: &str) -> String {
    match kind {
        RecordType::Txt => text.to_owned(),
        RecordType::Aaaa => text.parse::<Ipv6Addr>().map_or_else(|_| text.to_owned(), |address| address.to_string()),
        _ => normal(text),
    }
}

impl DnsCheck {
    pub(super) async fn run(&self, names: &Names, rng: &mut StdRng, outcome: &mut Outcome) {
        if let Err(failure) = self.steps(names, rng, outcome).await {
            outcome.fail(failure);
        }
    }

    async fn steps(&self, names: &Names, rng: &mut StdRng, outcome: &mut Outcome) -> Result<(), Failure> {
        let (host, port) = match &self.server {
            Some(server) => server.clone(),
            None => (first_of_system().await?, PORT),
        };
        let begun = Instant::now();
        let found = names.look_up(&host, port, self.ip).await;
        outcome.push(Measure::LookupTime, begun.elapsed().as_secs_f64());
        let addresses = found.map_err(|error| Failure::new(Reason::Lookup, error.to_string()))?;
        let id: u16 = rng.r#gen();
        let wire = question(id, &self.name, self.kind).unwrap_or_default();
        let mut message = self.by_datagram(addresses[0], id, &wire).await?;
        if message.is_truncated {
            message = self.by_stream(&addresses[..1], id, &wire, &mut Outcome::default()).await?;
        }
        outcome.push(Measure::IpProtocol, if addresses[0].is_ipv4() { 4.0 } else { 6.0 });
        self.judge(&message, outcome)
    }

    async fn by_datagram(&self, server: SocketAddr, id: u16, wire: &[u8]) -> Result<Message, Failure> {
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let failed = |error: io::Error| Failure::new(Reason::Connect, format!("{server} cannot be asked: {error}"));
        // Its port is the kernel's choice, and only answers from the server come in.
        let socket = UdpSocket::bind((any, 0)).await.map_err(failed)?;
        socket.connect(server).await.map_err(failed)?;
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            socket.send(wire).await.map_err(failed)?;
            let repeat_at = tokio::time::Instant::now() + REPEAT_EVERY;
            while let Ok(received) = tokio::time::timeout_at(repeat_at, socket.recv(&mut datagram)).await {
                let length = received.map_err(failed)?;
                // What answers another question is left alone: the right answer may follow.
                if let Ok(message) = read(&datagram[..length])
                    && answers_to(&message, id, &self.name, self.kind)
                {
                    return Ok(message);
                }
            }
        }
    }

    /// The same over TCP, where each message has its length before it (RFC 1035, 4.2.2).
    async fn by_stream(
        &self,
        server: &[SocketAddr],
        id: u16,
        wire: &[u8],
        outcome: &mut Outcome,
    ) -> Result<Message, Failure> {
        let mut stream = connect(server, outcome).await?;
        let broken = |error: io::Error| Failure::new(Reason::Protocol, format!("connection broke off: {error}"));
        let framed = [&(wire.len() as u16).to_be_bytes()[..], wire].concat();
        stream.write_all(&framed).await.map_err(broken)?;
        let length = stream.read_u16().await.map_err(broken)?;
        let mut bytes = vec![0; usize::from(length)];
        stream.read_exact(&mut bytes).await.map_err(broken)?;
        let message = read(&bytes).map_err(|error| Failure::new(Reason::Protocol, error.to_string()))?;
        if answers_to(&message, id, &self.name, self.kind) && !message.is_truncated {
            Ok(message)
        } else {
            Err(Failure::new(Reason::Protocol, "the answer is to another question, or cut off"))
        }
    }

    fn judge(&self, message: &Message, outcome: &mut Outcome) -> Result<(), Failure> {
        for (measure, count) in
            [Measure::DnsAnswers, Measure::DnsAuthorities, Measure::DnsAdditionals].into_iter().zip(message.counts)
        {
            outcome.push(measure, f64::from(count));
        }
        if let Some(serial) = message.serial {
            outcome.push(Measure::DnsSerial, f64::from(serial));
        }
        if message.code != 0 {
            return Err(Failure::new(
                Reason::Status,
                format!("answered {} ({})", code_name(message.code), message.code),
            ));
        }
        let of_kind: Vec<&String> =
            message.answers.iter().filter(|(kind, _)| *kind == self.kind).map(|(_, text)| text).collect();
        if of_kind.is_empty() {
            return Err(Failure::new(Reason::Content, format!("no {:?} record of {}", self.kind, self.name)));
        }
        match self.answers.iter().find(|wanted| !of_kind.contains(wanted)) {
            Some(absent) => {
                let words = format!("`{absent}` is not among the answers, which are {of_kind:?}");
                Err(Failure::new(Reason::Content, words))
            }
            None => Ok(()),
        }
    }
}

async fn first_of_system() -> Result<String, Failure> {
    let wrong = |words: String| Failure::new(Reason::Config, words);
    let text = tokio::fs::read_to_string(RESOLV_CONF).await;
    let text = text.map_err(|error| wrong(format!("{RESOLV_CONF} cannot be read: {error}; name a server")))?;
    let mut servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let first = servers.find_map(|rest| rest.trim().split('%').next()?.parse::<IpAddr>().ok());
    first
        .map(|address| address.to_string())
        .ok_or_else(|| wrong(format!("{RESOLV_CONF} has no nameserver; name a server")))
}
