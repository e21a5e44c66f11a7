//! What waits, was sent and was dropped in the queue of each network device (`tc -s qdisc`), as the kernel tells it over
//! netlink. Only queues at a device's root are told, as with node_exporter. The answer of the kernel is read as bytes that
//! may say anything; nothing is ever set. Off by default, as with node_exporter.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice, recv, send, socket_with};

use super::super::tables::{Column, counter, gauge};
use super::super::{CollectError, Collector, Family, Pace, Roots};

/// Queues of network devices.
pub(super) struct Qdisc {
    scheduler: PathBuf,
}

const EVERY: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_secs(5);
/// What the kernel may take for one datagram of its answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The kernel sends at most 32 KiB at once.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Most datagrams of an answer: 32 MiB, or some 100,000 queues.
const DATAGRAMS_MAX: usize = 1024;
/// Most devices that are told.
const DEVICES_MAX: usize = 4096;

const COLUMNS: [Column; 7] = [
    counter("node_qdisc_bytes_total", "Number of bytes sent."),
    counter("node_qdisc_packets_total", "Number of packets sent."),
    counter("node_qdisc_drops_total", "Number of packets dropped."),
    counter("node_qdisc_requeues_total", "Number of packets dequeued, not transmitted, and requeued."),
    counter("node_qdisc_overlimits_total", "Number of overlimit packets."),
    gauge("node_qdisc_current_queue_length", "Number of packets currently in queue to be sent."),
    gauge("node_qdisc_backlog", "Number of bytes currently in queue to be sent."),
];

// Numbers of linux/netlink.h, linux/rtnetlink.h and linux/gen_stats.h.
const MESSAGE_HEADER_BYTES: usize = 16;
const QUEUE_HEADER_BYTES: usize = 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const NEW_QUEUE: u16 = 36;
const GET_QUEUE: u16 = 38;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const REQUEST_ALL: u16 = 0x301;
const KIND: u16 = 1;
const STATISTICS: u16 = 7;
const BASIC: u16 = 1;
const QUEUE: u16 = 3;
/// Bits of an attribute's type that say how it is laid out.
const TYPE_MASK: u16 = 0x3fff;
/// `TC_H_ROOT`; a few queues say none.
const ROOTS: [u32; 2] = [u32::MAX, 0];

/// One queue: values in the order of [`COLUMNS`].
#[derive(Debug, Clone, PartialEq)]
struct Queue {
    device: u32,
    parent: u32,
    kind: String,
    values: [u64; 7],
}

/// How an answer goes on after a datagram.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    More,
    Complete,
    Refused(i32),
}

impl Qdisc {
    pub(super) fn new(roots: &Roots) -> Qdisc {
        Qdisc { scheduler: roots.procfs.join("net/psched") }
    }
}

impl Collector for Qdisc {
    fn name(&self) -> &'static str {
        "qdisc"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        // A kernel that schedules packets has this file; a tree of files has no kernel to ask.
        if !self.scheduler.exists() {
            return Err(CollectError::Absent { path: self.scheduler.clone() });
        }
        let failed =
            |error: Errno| CollectError::Asked(format!("the kernel does not tell its queues over netlink: {error}"));
        let socket = open().map_err(failed)?;
        let queues = ask(&socket).map_err(failed)?;
        let mut told: BTreeMap<(String, String), [u64; 7]> = BTreeMap::new();
        for queue in queues {
            // A device that went away since has no name.
            if let Ok(device) = netdevice::index_to_name(&socket, queue.device) {
                told.entry((device, queue.kind)).or_insert(queue.values);
            }
        }
        let mut found = COLUMNS.map(|column| column.family());
        for ((device, kind), values) in &told {
            for (family, value) in found.iter_mut().zip(values) {
                family.push(&[("device", device), ("kind", kind)], *value as f64);
            }
        }
        families.extend(found);
        Ok(())
    }
}

fn open() -> rustix::io::Result<OwnedFd> {
    // No protocol means NETLINK_ROUTE, whose number is 0.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

/// Asks for all queues, and keeps those at the root of a device.
fn ask(socket: &OwnedFd) -> rustix::io::Result<Vec<Queue>> {
    send(socket, &request(), SendFlags::empty())?;
    let (mut buffer, mut queues) = (vec![0; DATAGRAM_BYTES_MAX], Vec::new());
    for _ in 0..DATAGRAMS_MAX {
        let (length, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        match read(&buffer[..length], &mut queues) {
            Answer::More => {}
            Answer::Complete => return Ok(queues),
            Answer::Refused(code) => return Err(Errno::from_raw_os_error(code)),
        }
    }
    Err(Errno::MSGSIZE)
}

/// A request for the queues of all devices.
fn request() -> Vec<u8> {
    let length = MESSAGE_HEADER_BYTES + QUEUE_HEADER_BYTES;
    let mut request = Vec::with_capacity(length);
    request.extend((length as u32).to_ne_bytes());
    request.extend(GET_QUEUE.to_ne_bytes());
    request.extend(REQUEST_ALL.to_ne_bytes());
    // Number and sender of the message, and a queue of which nothing is said: any.
    request.resize(length, 0);
    request
}

/// Takes the queues of one datagram. O(its length); what is cut short or makes no sense ends it.
fn read(mut datagram: &[u8], queues: &mut Vec<Queue>) -> Answer {
    while let Some(length) = u32_at(datagram, 0).map(|length| length as usize) {
        if length < MESSAGE_HEADER_BYTES || length > datagram.len() {
            break;
        }
        let body = &datagram[MESSAGE_HEADER_BYTES..length];
        match u16_at(datagram, 4) {
            Some(DONE) => return Answer::Complete,
            Some(ERROR) => return Answer::Refused(u32_at(body, 0).map_or(0, u32::cast_signed).saturating_neg().max(1)),
            Some(NEW_QUEUE) if queues.len() < DEVICES_MAX => {
                queues.extend(queue(body).filter(|queue| ROOTS.contains(&queue.parent)));
            }
            _ => {}
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Answer::More
}

fn queue(body: &[u8]) -> Option<Queue> {
    let (device, parent) = (u32_at(body, 4)?, u32_at(body, 12)?);
    let (mut kind, mut values) = (String::new(), [0; 7]);
    for (name, value) in attributes(body.get(QUEUE_HEADER_BYTES..)?) {
        match name {
            KIND => kind = String::from_utf8_lossy(value.split(|byte| *byte == 0).next()?).into_owned(),
            STATISTICS => read_statistics(value, &mut values),
            _ => {}
        }
    }
    (!kind.is_empty()).then_some(Queue { device, parent, kind, values })
}

fn read_statistics(attribute: &[u8], values: &mut [u64; 7]) {
    for (name, value) in attributes(attribute) {
        let number = |place: usize| u32_at(value, 4 * place).map_or(0, u64::from);
        match name {
            BASIC => {
                values[0] = value.first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
                values[1] = number(2);
            }
            // The kernel's order is length, backlog, drops, requeues, overlimits.
            QUEUE => values[2..].copy_from_slice(&[number(2), number(3), number(4), number(0), number(1)]),
            _ => {}
        }
    }
}

/// Attributes that stand one after the other, each padded to four bytes.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, name) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)? & TYPE_MASK);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((name, value))
    })
}

fn u16_at(bytes: &[u8], place: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(place..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(place..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::trial;

    fn attribute(name: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
        bytes.extend(name.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32 + 16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(16, 0);
        bytes.extend(body);
        bytes
    }

    fn queue_of(device: u32, parent: u32) -> Vec<u8> {
        let mut basic = 83u64.to_ne_bytes().to_vec();
        basic.extend(42u32.to_ne_bytes());
        let waiting: Vec<u8> = [5u32, 600, 7, 2, 9].iter().flat_map(|value| value.to_ne_bytes()).collect();
        let statistics = [attribute(BASIC, &basic), attribute(QUEUE, &waiting)].concat();
        let mut body = vec![0; QUEUE_HEADER_BYTES];
        body[4..8].copy_from_slice(&device.to_ne_bytes());
        body[12..16].copy_from_slice(&parent.to_ne_bytes());
        body.extend(attribute(KIND, b"fq_codel\0"));
        // With the bit that says it is nested.
        body.extend(attribute(STATISTICS | 0x8000, &statistics));
        message(NEW_QUEUE, &body)
    }

    #[test]
    fn queues_at_the_root_are_read() {
        let datagram = [queue_of(2, u32::MAX), queue_of(2, 0x10001), message(DONE, &[0; 4])].concat();
        let mut queues = Vec::new();
        assert_eq!(read(&datagram, &mut queues), Answer::Complete);
        expect![[r#"[Queue { device: 2, parent: 4294967295, kind: "fq_codel", values: [83, 42, 7, 2, 9, 5, 600] }]"#]]
            .assert_eq(&format!("{queues:?}"));
        assert_eq!(read(&message(ERROR, &(-1i32).to_ne_bytes()), &mut queues), Answer::Refused(1));
        assert_eq!(read(&datagram[..60], &mut queues), Answer::More);
    }

    /// The running kernel answers, whatever devices it has.
    #[test]
    fn the_kernel_answers() {
        let roots = Roots { procfs: "/proc".into(), sysfs: "/sys".into(), rootfs: "/".into() };
        let mut collector = Qdisc::new(&roots);
        let mut families = Vec::new();
        match collector.collect(&mut families) {
            Ok(()) => assert_eq!(families.len(), COLUMNS.len()),
            Err(error) => assert!(matches!(error, CollectError::Absent { .. }), "{error}"),
        }
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(noise in proptest::collection::vec(any::<u8>(), 0..64), cut in 0usize..140, place in 0usize..140) {
            let mut datagram = [queue_of(2, u32::MAX), queue_of(3, 0)].concat();
            datagram.truncate(cut);
            datagram.splice(place.min(cut).min(datagram.len())..datagram.len(), noise.iter().copied());
            let _ = (read(&datagram, &mut Vec::new()), read(&noise, &mut Vec::new()));
        }
    }
}
