//! `/proc/self/mountstats`: each NFS mount's traffic, waiting and errors, by operation. Hundreds of series for a mount, so
//! it is off by default; `nfs` sums over all.

use std::collections::{BTreeMap, BTreeSet};

use super::mountstats_table::{AGE, BYTES, EVENTS, MOUNTPOINT, OPERATIONS, TRANSPORTS};
use crate::collect::kernel_file::{KernelFile, read_word};
use crate::collect::tables::Column;
use crate::collect::{CollectError, Collector, Family, Roots};

/// NFS mounts.
pub(super) struct Mountstats {
    mountstats: KernelFile,
    mountinfo: KernelFile,
}

/// Most mounts that are told.
const MOUNTS_MAX: usize = 256;
/// Most operations of a mount; NFS 4.2 has about 70.
const OPERATIONS_MAX: usize = 128;
/// Fields of a transport that TCP has and UDP has not begin here, and their number.
const TCP_ONLY: (usize, usize) = (2, 3);
/// Counters of microseconds that went below zero wrap at 64 bits; only what a float holds exactly is told, as
/// node_exporter does.
const EXACT: u64 = 1 << 53;

/// What is told of one mount.
#[derive(Default)]
struct Mount<'a> {
    export: &'a str,
    point: &'a str,
    address: &'a str,
    age: u64,
    bytes: Vec<u64>,
    events: Vec<u64>,
    transports: Vec<(&'a str, Vec<u64>)>,
    operations: Vec<(&'a str, Vec<u64>)>,
}

/// All families.
struct Families {
    mountpoint: Family,
    age: Family,
    bytes: Vec<Family>,
    events: Vec<Family>,
    transports: Vec<Family>,
    operations: Vec<Family>,
}

impl Mountstats {
    pub(super) fn new(roots: &Roots) -> Mountstats {
        let own = own_folder(roots);
        let file = |name| KernelFile::new(roots.procfs.join(&own).join(name));
        Mountstats { mountstats: file("mountstats"), mountinfo: file("mountinfo") }
    }
}

impl Collector for Mountstats {
    fn name(&self) -> &'static str {
        "mountstats"
    }

    fn is_default(&self) -> bool {
        false
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        let info = self.mountinfo.read()?;
        let stats = self.mountstats.read()?;
        parse(stats.as_str(), &addresses(info.as_str()), families);
        Ok(())
    }
}

/// `self`; in a copied tree the link may have become a file that holds its target.
fn own_folder(roots: &Roots) -> String {
    let target = read_word(&roots.procfs.join("self"));
    let is_process = |target: &String| !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_digit());
    target.filter(is_process).unwrap_or_else(|| "self".to_owned())
}

/// The server's address of each mount, in the order of the mounts, which both files share.
fn addresses(mountinfo: &str) -> Vec<&str> {
    fn address(line: &str) -> Option<&str> {
        line.rsplit_once(' ')?.1.split(',').find_map(|option| option.strip_prefix("addr="))
    }
    mountinfo.lines().map(|line| address(line).unwrap_or_default()).collect()
}

fn parse(mountstats: &str, addresses: &[&str], families: &mut Vec<Family>) {
    let mut into = Families::new();
    let (mut points, mut devices) = (BTreeSet::new(), BTreeSet::new());
    let mut mounts = 0;
    for (place, mount) in split(mountstats).into_iter().enumerate() {
        let Some(mut mount) = mount else { continue };
        mount.address = addresses.get(place).copied().unwrap_or_default();
        for (protocol, _) in &mount.transports {
            let device = (mount.export, *protocol, mount.address);
            if points.insert((device, mount.point)) && mounts < MOUNTS_MAX {
                into.point(&mount, protocol);
            }
            // The same export mounted twice has one set of counters.
            if !devices.insert(device) {
                break;
            }
            if mounts < MOUNTS_MAX {
                into.mount(&mount, protocol);
            }
            mounts += 1;
        }
    }
    families.extend([into.mountpoint, into.age]);
    for mut part in [into.bytes, into.events, into.transports, into.operations] {
        families.append(&mut part);
    }
}

/// One entry for each mount; `None` for those that are not NFS.
fn split(mountstats: &str) -> Vec<Option<Mount<'_>>> {
    let mut mounts: Vec<Option<Mount<'_>>> = Vec::new();
    for line in mountstats.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if first == "device" {
            mounts.push(begin(line));
            continue;
        }
        let Some(Some(mount)) = mounts.last_mut() else { continue };
        match first {
            "age:" => mount.age = words.next().and_then(|word| word.parse().ok()).unwrap_or_default(),
            "bytes:" => mount.bytes = numbers(words),
            "events:" => mount.events = numbers(words),
            "xprt:" => {
                let protocol = words.next().unwrap_or_default();
                let mut fields = numbers(words);
                if protocol == "udp" && fields.len() >= TCP_ONLY.0 {
                    fields.splice(TCP_ONLY.0..TCP_ONLY.0, [0; TCP_ONLY.1]);
                }
                mount.transports.push((protocol, fields));
            }
            name if name.ends_with(':') && mount.operations.len() < OPERATIONS_MAX => {
                let fields = numbers(words);
                // Lines such as `opts:` are no operations; an operation has eight numbers at least.
                if fields.len() >= OPERATIONS.len() {
                    mount.operations.push((name.trim_end_matches(':'), fields));
                }
            }
            _ => {}
        }
    }
    mounts
}

/// `device nas:/export mounted on /mnt with fstype nfs4 statvers=1.1`.
fn begin(line: &str) -> Option<Mount<'_>> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let ["device", export, "mounted", "on", point, "with", "fstype", "nfs" | "nfs4", _, ..] = words.as_slice() else {
        return None;
    };
    Some(Mount { export, point, ..Mount::default() })
}

fn numbers<'a>(words: impl Iterator<Item = &'a str>) -> Vec<u64> {
    words.map_while(|word| word.parse().ok()).take(64).collect()
}

impl Families {
    fn new() -> Families {
        Families {
            mountpoint: MOUNTPOINT.family(),
            age: AGE.family(),
            bytes: BYTES.iter().map(Column::family).collect(),
            events: EVENTS.iter().map(|(_, column)| column.family()).collect(),
            transports: TRANSPORTS.iter().map(|(_, column)| column.family()).collect(),
            operations: OPERATIONS.iter().map(|(_, column)| column.family()).collect(),
        }
    }

    fn point(&mut self, mount: &Mount<'_>, protocol: &str) {
        let [export, address, protocol] = labels(mount, protocol);
        self.mountpoint.push(&[export, address, ("mountpoint", mount.point), protocol], 1.0);
    }

    fn mount(&mut self, mount: &Mount<'_>, protocol: &str) {
        let at = |fields: &[u64], place: usize| (fields.get(place).copied().unwrap_or_default() % EXACT) as f64;
        let labels = labels(mount, protocol);
        let [export, address, protocol] = labels;
        self.age.push(&labels, mount.age as f64);
        for (place, family) in self.bytes.iter_mut().enumerate() {
            family.push(&labels, at(&mount.bytes, place));
        }
        for (family, (place, _)) in self.events.iter_mut().zip(EVENTS) {
            family.push(&labels, at(&mount.events, place));
        }
        for (number, (_, fields)) in mount.transports.iter().enumerate() {
            let number = number.to_string();
            for (family, (place, _)) in self.transports.iter_mut().zip(TRANSPORTS) {
                family.push(&[export, address, protocol, ("transport", &number)], at(fields, place));
            }
        }
        let operations: BTreeMap<&str, &Vec<u64>> =
            mount.operations.iter().map(|(name, fields)| (*name, fields)).collect();
        for (name, fields) in operations {
            for (place, (family, (divisor, _))) in self.operations.iter_mut().zip(OPERATIONS).enumerate() {
                family.push(&[export, address, ("operation", name), protocol], at(fields, place) / divisor);
            }
        }
    }
}

fn labels<'a>(mount: &Mount<'a>, protocol: &'a str) -> [(&'static str, &'a str); 3] {
    [("export", mount.export), ("mountaddr", mount.address), ("protocol", protocol)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collect::{text, trial};

    const SAMPLE: &str = "\
device proc mounted on /proc with fstype proc
device nas:/srv mounted on /mnt with fstype nfs4 statvers=1.1
	opts:	rw,vers=4.0
	age:	13968
	events:	52 226 0 0 1 13 398 0 0 331 0 47 0 0 77 0 0 77 0 0 0 0 0 0 0 0 0
	bytes:	1207640230 0 0 0 1210214218 0 295483 0
	xprt:	tcp 832 0 1 0 11 6428 6428 0 12154 0 24 26 5726
	xprt:	tcp 832 7 1 0 11 6428 6428 0 12154 0 24 26 5726
	per-op statistics
	        READ: 1298 1298 0 207680 1210292152 6 79386 79407
	      ACCESS: 1 2 3 4 5 18446743919241604546 1667369447 1953587717 9

device nas:/srv mounted on /mnt2 with fstype nfs4 statvers=1.1
	age:	1
	xprt:	udp 832 5 6428 6427 0 12154 0 24 26 5726
	xprt:	tcp 832 0 1 0 11 6428 6428 0 12154 0 24 26 5726
";
    const INFO: &str = "17 21 0:4 / /proc rw - proc proc rw\n194 21 0:42 / /mnt rw - nfs4 nas:/srv rw,clientaddr=192.0.2.5,addr=192.0.2.1\n";

    #[test]
    fn mounts_twice_and_with_two_transports() {
        let mut families = Vec::new();
        parse(SAMPLE, &addresses(INFO), &mut families);
        let shown = trial::series(&text::render(&families));
        for line in [
            r#"node_mountstats_nfs_age_seconds_total{export="nas:/srv",mountaddr="192.0.2.1",protocol="tcp"} 13968"#,
            r#"node_mountstats_nfs_mountpoint_info{export="nas:/srv",mountaddr="",mountpoint="/mnt2",protocol="udp"} 1"#,
            r#"node_mountstats_nfs_transport_bind_total{export="nas:/srv",mountaddr="192.0.2.1",protocol="tcp",transport="1"} 7"#,
            r#"node_mountstats_nfs_transport_sends_total{export="nas:/srv",mountaddr="",protocol="udp",transport="0"} 6428"#,
            r#"node_mountstats_nfs_operations_queue_time_seconds_total{export="nas:/srv",mountaddr="192.0.2.1",operation="ACCESS",protocol="tcp"} 9007044786793.922"#,
        ] {
            assert!(shown.contains(&format!("{line}\n")), "{line} not in:\n{shown}");
        }
        let mut lines: Vec<&str> = shown.lines().map(|line| line.rsplit_once(' ').unwrap().0).collect();
        let count = lines.len();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), count, "no label set twice");
    }

    proptest! {
        #![proptest_config(trial::few())]
        #[test]
        fn never_panics(stats in trial::near(SAMPLE), info in trial::near(INFO)) {
            let (stats, info) = (String::from_utf8_lossy(&stats), String::from_utf8_lossy(&info));
            parse(&stats, &addresses(&info), &mut Vec::new());
        }
    }
}
