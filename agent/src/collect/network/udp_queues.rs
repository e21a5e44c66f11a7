//! `/proc/net/udp` and `udp6`: bytes that wait in the queues of UDP sockets. Off by default: the kernel walks a table of
//! tens of thousands of places for it.

use std::time::Duration;

use super::super::kernel_file::{KernelFile, KernelText};
use super::super::{CollectError, Collector, Family, Kind, Pace, Roots};

/// Queues of UDP sockets.
pub(super) struct UdpQueues {
    sources: [(&'static str, KernelFile); 2],
}

const EVERY: Duration = Duration::from_secs(30);
const WITHIN: Duration = Duration::from_secs(10);

/// Bytes that wait.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Queued {
    sending: u64,
    received: u64,
}

impl UdpQueues {
    pub(super) fn new(roots: &Roots) -> UdpQueues {
        let file = |name| KernelFile::new(roots.procfs.join("net").join(name));
        UdpQueues { sources: [("v4", file("udp")), ("v6", file("udp6"))] }
    }
}

impl Collector for UdpQueues {
    fn name(&self) -> &'static str {
        "udp_queues"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let help = "Number of allocated memory in the kernel for UDP datagrams in bytes.";
        let mut family = Family::new(Kind::Gauge, "node_udp_queues", help);
        let (mut found, mut absent) = (false, Ok(()));
        for (ip, file) in &mut self.sources {
            let queued = match file.read() {
                Ok(text) => parse(&text)?,
                // A kernel without this version of IP.
                Err(error @ CollectError::Absent { .. }) => {
                    absent = Err(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            found = true;
            family.push(&[("queue", "tx"), ("ip", ip)], queued.sending as f64);
            family.push(&[("queue", "rx"), ("ip", ip)], queued.received as f64);
        }
        families.push(family);
        if found { Ok(()) } else { absent }
    }
}

fn parse(text: &KernelText<'_>) -> Result<Queued, CollectError> {
    let mut sum = Queued::default();
    for line in text.lines().skip(1) {
        // `00000015:00000000`: waiting to be sent, waiting to be read.
        let field = line.split_ascii_whitespace().nth(4).and_then(|field| field.split_once(':'));
        let bytes = |field: &str| u64::from_str_radix(field, 16).map_err(|_| text.malformed(line));
        let (sending, received) = field.ok_or_else(|| text.malformed(line))?;
        sum.sending = sum.sending.saturating_add(bytes(sending)?);
        sum.received = sum.received.saturating_add(bytes(received)?);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::trial;
    use super::*;

    const SAMPLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout\n\
         0: 00000000:0016 00000000:0000 0A 00000015:00000001 00:00000000 00000000     0        0 2740 1\n\
         1: 00000000:0035 00000000:0000 07 00000001:00000F00 00:00000000 00000000     0        0 2741 1\n";

    #[test]
    fn queues_are_added_up() {
        let queued = parse(&KernelText::of(SAMPLE.as_bytes())).unwrap();
        assert_eq!(queued, Queued { sending: 0x16, received: 0xf01 });
        assert!(parse(&KernelText::of(b"header\n0: 1 2 3 4 5\n")).is_err());
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(bytes in trial::near(SAMPLE)) {
            let _ = parse(&KernelText::of(&bytes));
        }
    }
}
