//! `/proc/net/netstat`, `snmp` and `snmp6`: what the protocols count; the same choice of fields as node_exporter's default.

use super::super::kernel_file::{KernelFile, KernelText};
use super::super::{CollectError, Collector, Family, Kind, Roots};

/// Protocols.
pub(super) struct Netstat {
    /// Two lines per protocol: names, then values.
    paired: [KernelFile; 2],
    /// A name and a value on each line. Not there where IPv6 is off.
    six: KernelFile,
}

impl Netstat {
    pub(super) fn new(roots: &Roots) -> Netstat {
        let file = |name| KernelFile::new(roots.procfs.join("net").join(name));
        Netstat { paired: [file("netstat"), file("snmp")], six: file("snmp6") }
    }
}

impl Collector for Netstat {
    fn name(&self) -> &'static str {
        "netstat"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        for file in &mut self.paired {
            parse_paired(&file.read()?, families)?;
        }
        match self.six.read() {
            Ok(text) => parse_six(&text, families),
            Err(CollectError::Absent { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn parse_paired(text: &KernelText<'_>, families: &mut Vec<Family>) -> Result<(), CollectError> {
    let mut lines = text.lines();
    while let Some(names) = lines.next() {
        let values = lines.next().unwrap_or_default();
        let mut pairs = names.split(' ').zip(values.split(' '));
        let (Some((protocol, again)), Some(same_length)) = (pairs.next(), Some(count(names) == count(values))) else {
            return Err(text.malformed(names));
        };
        let (Some(protocol), true, true) = (protocol.strip_suffix(':'), protocol == again, same_length) else {
            return Err(text.malformed(names));
        };
        for (name, value) in pairs.filter(|(name, _)| is_wanted(protocol, name)) {
            push(protocol, name, text.number(Some(value), values)?, families);
        }
    }
    Ok(())
}

fn parse_six(text: &KernelText<'_>, families: &mut Vec<Family>) -> Result<(), CollectError> {
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        // `Ip6InOctets` is field InOctets of protocol Ip6.
        let Some((name, six)) = fields.next().and_then(|name| Some((name, name.find('6')?))) else { continue };
        let (protocol, name) = name.split_at(six + 1);
        if is_wanted(protocol, name) {
            push(protocol, name, text.number(fields.next(), line)?, families);
        }
    }
    Ok(())
}

fn count(line: &str) -> usize {
    line.bytes().filter(|byte| *byte == b' ').count()
}

fn push(protocol: &str, name: &str, value: f64, families: &mut Vec<Family>) {
    let help = format!("Statistic {protocol}{name}.");
    families.push(Family::new(Kind::Untyped, format!("node_netstat_{protocol}_{name}"), help).with(value));
}

/// node_exporter's default choice, which is a pattern over `PROTOCOL_FIELD` there.
fn is_wanted(protocol: &str, name: &str) -> bool {
    if matches!(name, "InErrors" | "InErrs") {
        return true;
    }
    match protocol {
        "Ip" => name == "Forwarding",
        "Ip6" | "IpExt" => matches!(name, "InOctets" | "OutOctets"),
        "Icmp" | "Icmp6" => matches!(name, "InMsgs" | "OutMsgs"),
        "TcpExt" => {
            matches!(name, "TCPSynRetrans" | "TCPTimeouts" | "TCPOFOQueue" | "TCPRcvQDrop")
                || name.starts_with("Listen")
                || name.starts_with("Syncookies")
        }
        "Tcp" => matches!(
            name,
            "ActiveOpens" | "InSegs" | "OutSegs" | "OutRsts" | "PassiveOpens" | "RetransSegs" | "CurrEstab"
        ),
        "Udp" | "Udp6" => {
            matches!(name, "InDatagrams" | "OutDatagrams" | "NoPorts" | "RcvbufErrors" | "SndbufErrors")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::super::super::{text, trial};
    use super::*;

    const PAIRED: &str = "TcpExt: SyncookiesSent TW ListenDrops TCPSynRetrans\nTcpExt: 1 2 3 4\n\
        IpExt: InNoRoutes InOctets\nIpExt: 5 6\nUdpLite: InDatagrams InErrors\nUdpLite: 7 8\n\
        Tcp: MaxConn InErrs\nTcp: -1 9\n";
    const SIX: &str = "Ip6InReceives   \t7\nIp6OutOctets     \t536\nUdpLite6InErrors \t1\nnothing\n";

    #[test]
    fn the_fields_that_node_exporter_takes() {
        let mut families = Vec::new();
        parse_paired(&KernelText::of(PAIRED.as_bytes()), &mut families).unwrap();
        parse_six(&KernelText::of(SIX.as_bytes()), &mut families).unwrap();
        expect![[r"
            node_netstat_TcpExt_SyncookiesSent 1
            node_netstat_TcpExt_ListenDrops 3
            node_netstat_TcpExt_TCPSynRetrans 4
            node_netstat_IpExt_InOctets 6
            node_netstat_UdpLite_InErrors 8
            node_netstat_Tcp_InErrs 9
            node_netstat_Ip6_OutOctets 536
            node_netstat_UdpLite6_InErrors 1
        "]]
        .assert_eq(&trial::series(&text::render(&families)));
        for wrong in ["Tcp: InErrs\n", "Tcp: InErrs\nTcp: 1 2\n", "Tcp: InErrs\nUdp: 1\n", "Tcp InErrs\nTcp 1\n"] {
            assert!(parse_paired(&KernelText::of(wrong.as_bytes()), &mut Vec::new()).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(paired in trial::near(PAIRED), six in trial::near(SIX)) {
            let _ = parse_paired(&KernelText::of(&paired), &mut Vec::new());
            let _ = parse_six(&KernelText::of(&six), &mut Vec::new());
        }
    }
}
