//! `/proc/net/ip_vs` and `ip_vs_stats`: the kernel's load balancer, its traffic and the connections of each backend.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::collect::kernel_file::{KernelFile, KernelText};
use crate::collect::tables::{Column, counter, gauge};
use crate::collect::{CollectError, Collector, Family, Roots};

/// The load balancer.
pub(super) struct Ipvs {
    stats: KernelFile,
    table: KernelFile,
}

/// In the order of the numbers in `ip_vs_stats`.
const TOTALS: [Column; 5] = [
    counter("node_ipvs_connections_total", "The total number of connections made."),
    counter("node_ipvs_incoming_packets_total", "The total number of incoming packets."),
    counter("node_ipvs_outgoing_packets_total", "The total number of outgoing packets."),
    counter("node_ipvs_incoming_bytes_total", "The total amount of incoming data."),
    counter("node_ipvs_outgoing_bytes_total", "The total amount of outgoing data."),
];
/// In the order of the numbers of a backend.
const BACKENDS: [Column; 3] = [
    gauge("node_ipvs_backend_weight", "The current backend weight by local and remote address."),
    gauge("node_ipvs_backend_connections_active", "The current active connections by local and remote address."),
    gauge("node_ipvs_backend_connections_inactive", "The current inactive connections by local and remote address."),
];
/// Most backends that are told.
const BACKENDS_MAX: usize = 4096;

/// What a service listens on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Service<'a> {
    address: String,
    mark: &'a str,
    port: u16,
    protocol: &'a str,
}

impl Ipvs {
    pub(super) fn new(roots: &Roots) -> Ipvs {
        let file = |name| KernelFile::new(roots.procfs.join("net").join(name));
        Ipvs { stats: file("ip_vs_stats"), table: file("ip_vs") }
    }
}

impl Collector for Ipvs {
    fn name(&self) -> &'static str {
        "ipvs"
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        families.extend(totals(&self.stats.read()?)?);
        families.extend(backends(&self.table.read()?)?);
        Ok(())
    }
}

/// The third line has the numbers, in hexadecimal.
fn totals(text: &KernelText<'_>) -> Result<Vec<Family>, CollectError> {
    let line = text.lines().nth(2).unwrap_or_default();
    let mut fields = line.split_ascii_whitespace();
    let number = |field: Option<&str>| field.and_then(|field| u64::from_str_radix(field, 16).ok());
    TOTALS
        .iter()
        .map(|column| {
            let value = number(fields.next()).ok_or_else(|| text.malformed(line))?;
            Ok(column.family().with(value as f64))
        })
        .collect()
}

/// Lines of services, each followed by its backends with `->` before them.
fn backends(text: &KernelText<'_>) -> Result<[Family; 3], CollectError> {
    let mut service: Option<Service<'_>> = None;
    // Two entries with the same labels are summed.
    let mut sums: BTreeMap<(Service<'_>, String, u16), [f64; 3]> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            [protocol @ ("TCP" | "UDP" | "SCTP"), place, ..] => {
                let (address, port) = endpoint(place).ok_or_else(|| text.malformed(line))?;
                service = Some(Service { address, mark: "", port, protocol });
            }
            ["FWM", mark, ..] => {
                service = Some(Service { address: String::new(), mark, port: 0, protocol: "FWM" });
            }
            ["->", "RemoteAddress:Port", ..] => {}
            ["->", place, _forward, numbers @ ..] if numbers.len() >= BACKENDS.len() => {
                let Some(service) = &service else { return Err(text.malformed(line)) };
                let (address, port) = endpoint(place).ok_or_else(|| text.malformed(line))?;
                if sums.len() >= BACKENDS_MAX {
                    break;
                }
                let sum = sums.entry((service.clone(), address, port)).or_default();
                for (sum, number) in sum.iter_mut().zip(numbers) {
                    *sum += text.number(Some(number), line)?;
                }
            }
            _ => {}
        }
    }
    let mut families = BACKENDS.map(|column| column.family());
    for ((service, address, port), numbers) in sums {
        let (local_port, port) = (service.port.to_string(), port.to_string());
        let labels = [
            ("local_address", service.address.as_str()),
            ("local_mark", service.mark),
            ("local_port", &local_port),
            ("proto", service.protocol),
            ("remote_address", &address),
            ("remote_port", &port),
        ];
        for (family, number) in families.iter_mut().zip(numbers) {
            family.push(&labels, number);
        }
    }
    Ok(families)
}

/// `C0A80016:0CEA`, or `[2001:0db8:…]:0CEA`.
fn endpoint(text: &str) -> Option<(String, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match address.strip_prefix('[') {
        Some(rest) => IpAddr::from(rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?).to_canonical(),
        None if address.len() == 8 => IpAddr::from(Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?)),
        None if address.len() == 32 => {
            IpAddr::from(Ipv6Addr::from(u128::from_str_radix(address, 16).ok()?)).to_canonical()
        }
        None => return None,
    };
    Some((address.to_string(), port))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const STATS: &str =
        "   Total Incoming\n   Conns  Packets\n 16AA370 E33656E5        0     51D8C8883AB3                0\n";
    const TABLE: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  C0A80016:0CEA wlc
  -> C0A85216:0CEA      Tunnel  100    248        2
UDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0035 rr
  -> [2001:0db8:0000:0000:0000:0000:0000:0002]:0035 Route 1 2 3
FWM  10001000 wlc
  -> C0A8321A:0CEA      Tunnel  20     64         1
  -> C0A8321A:0CEA      Tunnel  1     1         1
";

    #[test]
    fn services_and_backends() {
        let mut families = totals(&KernelText::of(STATS.as_bytes())).unwrap();
        families.extend(backends(&KernelText::of(TABLE.as_bytes())).unwrap());
        expect![[r#"
            node_ipvs_connections_total 23765872
            node_ipvs_incoming_packets_total 3811989221
            node_ipvs_outgoing_packets_total 0
            node_ipvs_incoming_bytes_total 89991519156915
            node_ipvs_outgoing_bytes_total 0
            node_ipvs_backend_weight{local_address="",local_mark="10001000",local_port="0",proto="FWM",remote_address="192.168.50.26",remote_port="3306"} 21
            node_ipvs_backend_weight{local_address="192.168.0.22",local_mark="",local_port="3306",proto="TCP",remote_address="192.168.82.22",remote_port="3306"} 100
            node_ipvs_backend_weight{local_address="2001:db8::1",local_mark="",local_port="53",proto="UDP",remote_address="2001:db8::2",remote_port="53"} 1
            node_ipvs_backend_connections_active{local_address="",local_mark="10001000",local_port="0",proto="FWM",remote_address="192.168.50.26",remote_port="3306"} 65
            node_ipvs_backend_connections_active{local_address="192.168.0.22",local_mark="",local_port="3306",proto="TCP",remote_address="192.168.82.22",remote_port="3306"} 248
            node_ipvs_backend_connections_active{local_address="2001:db8::1",local_mark="",local_port="53",proto="UDP",remote_address="2001:db8::2",remote_port="53"} 2
            node_ipvs_backend_connections_inactive{local_address="",local_mark="10001000",local_port="0",proto="FWM",remote_address="192.168.50.26",remote_port="3306"} 2
            node_ipvs_backend_connections_inactive{local_address="192.168.0.22",local_mark="",local_port="3306",proto="TCP",remote_address="192.168.82.22",remote_port="3306"} 2
            node_ipvs_backend_connections_inactive{local_address="2001:db8::1",local_mark="",local_port="53",proto="UDP",remote_address="2001:db8::2",remote_port="53"} 3
        "#]].assert_eq(&trial::series(&text::render(&families)));
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(stats in trial::near(STATS), table in trial::near(TABLE)) {
            let _ = (totals(&KernelText::of(&stats)), backends(&KernelText::of(&table)));
        }
    }
}
