//! sanlock's leases: how old each is, and how much of its time is left before the daemon kills what holds it and the watchdog
//! resets the host. Asked of the daemon, which answers also while the storage hangs; the disk is never read from here.

use std::path::PathBuf;
use std::time::Duration;

use crate::collect::Kind::Gauge;
use crate::collect::asked::{ask, present, refused};
use crate::collect::columns::{Column, Columns};
use crate::collect::{CollectError, Collector, Family, Pace, Roots};

/// Leases on shared storage.
pub(super) struct Sanlock {
    socket: PathBuf,
}

/// A lease is renewed every 20 s by default and lost after 80.
const EVERY: Duration = Duration::from_secs(10);
const WITHIN: Duration = Duration::from_secs(5);
const STATUS: [&str; 3] = ["client", "status", "-D"];
/// Two children each; a host has one lockspace for each storage domain or volume group.
const LOCKSPACES_MAX: usize = 32;
/// A lease is renewed every two I/O time-outs and counts as lost after four renewals failed: sanlock's own constants.
const LOST_AFTER_IO_TIMEOUTS: f64 = 8.0;

const COLUMNS: [Column; 11] = [
    ("petrel_sanlock_lease_age_seconds", Gauge, "Time since this host's lease in the lockspace was last renewed."),
    ("petrel_sanlock_lease_limit_seconds", Gauge, "Age at which the lease is lost."),
    ("petrel_sanlock_lease_margin_seconds", Gauge, "Time left to renew the lease before it is lost."),
    ("petrel_sanlock_renewal_failing", Gauge, "Whether the last renewal of the lease failed."),
    ("petrel_sanlock_lockspace_dead", Gauge, "Whether the lease is lost and what used it is being killed."),
    ("petrel_sanlock_resources_held", Gauge, "Resource leases that processes here hold in the lockspace."),
    ("petrel_sanlock_renewal_read_seconds", Gauge, "Time that the last renewal took to read."),
    ("petrel_sanlock_renewal_write_seconds", Gauge, "Time that the last renewal took to write."),
    ("petrel_sanlock_renewal_timeouts", Gauge, "Tries that timed out since the last renewal."),
    ("petrel_sanlock_renewal_errors", Gauge, "Tries that failed since the last renewal."),
    (
        "petrel_sanlock_host_silence_seconds",
        Gauge,
        "Time in which a host did not renew its lease, as this host sees it.",
    ),
];

impl Sanlock {
    pub(super) fn new(roots: &Roots) -> Sanlock {
        Sanlock { socket: roots.rootfs.join("run/sanlock/sanlock.sock") }
    }
}

impl Collector for Sanlock {
    fn name(&self) -> &'static str {
        "sanlock"
    }

    fn pace(&self) -> Pace {
        Pace::Apart { every: EVERY, within: WITHIN }
    }

    fn collect(&mut self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        present(&self.socket)?;
        let mut columns = Columns::new(&COLUMNS);
        let said = ask("sanlock", &STATUS, WITHIN)?;
        let Some(lockspaces) = read_status(&said.out, &mut columns) else {
            return Err(refused("sanlock", &STATUS, &said));
        };
        for lockspace in lockspaces.iter().take(LOCKSPACES_MAX) {
            let renewals = ask("sanlock", &["client", "renewal", "-s", &lockspace.name], WITHIN)?;
            read_renewals(&renewals.out, lockspace, &mut columns);
            let hosts = ask("sanlock", &["client", "host_status", "-D", "-s", &lockspace.name], WITHIN)?;
            read_hosts(&hosts.out, lockspace, &mut columns);
        }
        columns.append_to(families)?;
        match lockspaces.len().saturating_sub(LOCKSPACES_MAX) {
            0 => Ok(()),
            more => Err(CollectError::Asked(format!(
                "{more} lockspaces above {LOCKSPACES_MAX} were asked for their state alone"
            ))),
        }
    }
}

/// Where this host has a lease.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Lockspace {
    name: String,
    host_id: String,
}

impl Lockspace {
    /// From `NAME:host_id:path:offset`, where sanlock writes a colon in the name as `\:`.
    fn parse(words: &str) -> Lockspace {
        let mut end = 0;
        for (at, _) in words.match_indices(':') {
            end = at;
            if !words[..at].ends_with('\\') {
                break;
            }
        }
        let (name, rest) = words.split_at(end);
        let host_id = rest.trim_start_matches(':').split(':').next().unwrap_or_default();
        Lockspace { name: name.replace("\\:", ":"), host_id: host_id.to_owned() }
    }

    fn labels(&self) -> [(&'static str, &str); 2] {
        [("lockspace", &self.name), ("host_id", &self.host_id)]
    }
}

/// Reads `sanlock client status -D`: blocks that begin with `daemon`, `p`, `s` (lockspace) or `r` (resource), each with indented
/// lines `key=value`. `None` when there is no daemon's block.
fn read_status(text: &str, columns: &mut Columns) -> Option<Vec<Lockspace>> {
    let mut now = None;
    let (mut lockspaces, mut held) = (Vec::new(), Vec::new());
    for block in blocks(text) {
        if block.head.starts_with("daemon") {
            now = block.number("monotime");
        } else if let Some(words) = block.head.strip_prefix("s ") {
            let lockspace = Lockspace::parse(words);
            push_lease(&block, &lockspace, now?, columns);
            lockspaces.push(lockspace);
        } else if let Some(words) = block.head.strip_prefix("r ") {
            held.push(Lockspace::parse(words).name);
        }
    }
    now?;
    for lockspace in &lockspaces {
        let count = held.iter().filter(|name| **name == lockspace.name).count();
        columns.push("petrel_sanlock_resources_held", &lockspace.labels(), count as f64);
    }
    Some(lockspaces)
}

fn push_lease(block: &Block<'_>, lockspace: &Lockspace, now: f64, columns: &mut Columns) {
    let labels = lockspace.labels();
    // Zero means that the lease is being acquired.
    let renewed = block.number("renewal_last_success").filter(|at| *at > 0.0);
    let limit = block.number("io_timeout").map(|timeout| timeout * LOST_AFTER_IO_TIMEOUTS);
    if let (Some(renewed), Some(limit)) = (renewed, limit) {
        let age = (now - renewed).max(0.0);
        columns.push("petrel_sanlock_lease_age_seconds", &labels, age);
        columns.push("petrel_sanlock_lease_limit_seconds", &labels, limit);
        columns.push("petrel_sanlock_lease_margin_seconds", &labels, limit - age);
    }
    let is_set = |key| block.number(key).is_some_and(|value| value != 0.0);
    // One is success, whatever else is an error or a time-out; before the first renewal there is none.
    let failed = block.number("renewal_last_result").is_some_and(|result| result != 1.0 && renewed.is_some());
    columns.flag("petrel_sanlock_renewal_failing", &labels, is_set("renew_fail") || failed);
    columns.flag("petrel_sanlock_lockspace_dead", &labels, is_set("space_dead") || is_set("killing_pids"));
}

/// Reads the last line of `sanlock client renewal`: `timestamp=36421 read_ms=0 write_ms=0 next_timeouts=0 next_errors=0`.
fn read_renewals(text: &str, lockspace: &Lockspace, columns: &mut Columns) {
    let Some(line) = text.lines().rfind(|line| line.starts_with("timestamp=")) else { return };
    for (key, name, divisor) in [
        ("read_ms", "petrel_sanlock_renewal_read_seconds", 1000.0),
        ("write_ms", "petrel_sanlock_renewal_write_seconds", 1000.0),
        ("next_timeouts", "petrel_sanlock_renewal_timeouts", 1.0),
        ("next_errors", "petrel_sanlock_renewal_errors", 1.0),
    ] {
        let pairs = line.split_ascii_whitespace().filter_map(|word| word.split_once('='));
        let value: Option<f64> = pairs.clone().find(|(name, _)| *name == key).and_then(|(_, value)| value.parse().ok());
        if let Some(value) = value {
            columns.push(name, &lockspace.labels(), value / divisor);
        }
    }
}

/// Reads `sanlock client host_status -D`: blocks that begin with `HOST_ID timestamp T`. This host itself is left out.
fn read_hosts(text: &str, lockspace: &Lockspace, columns: &mut Columns) {
    for block in blocks(text) {
        let Some((host_id, _)) = block.head.split_once(" timestamp ") else { continue };
        if let (Some(check), Some(live)) = (block.number("last_check"), block.number("last_live"))
            && host_id != lockspace.host_id
        {
            let owner = block.value("owner_name").unwrap_or_default();
            let labels = [("lockspace", lockspace.name.as_str()), ("host_id", host_id), ("owner", owner)];
            columns.push("petrel_sanlock_host_silence_seconds", &labels, (check - live).max(0.0));
        }
    }
}

/// A line at the margin with the indented lines below it.
struct Block<'a> {
    head: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl Block<'_> {
    fn value(&self, key: &str) -> Option<&str> {
        self.pairs.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.value(key)?.parse().ok()
    }
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks: Vec<Block<'_>> = Vec::new();
    for line in text.lines() {
        if !line.starts_with(' ') {
            blocks.push(Block { head: line, pairs: Vec::new() });
        } else if let (Some(block), Some(pair)) = (blocks.last_mut(), line.trim().split_once('=')) {
            block.pairs.push(pair);
        }
    }
    blocks
}

/// All that is read here, from one text, whatever it is: for fuzzing.
pub(super) fn hostile(text: &str) {
    let mut columns = Columns::new(&COLUMNS);
    drop(read_status(text, &mut columns));
    read_renewals(text, &Lockspace::default(), &mut columns);
    read_hosts(text, &Lockspace::default(), &mut columns);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    fn said(status: &str) -> String {
        let mut columns = Columns::new(&COLUMNS);
        let lockspaces = read_status(status, &mut columns);
        for lockspace in lockspaces.iter().flatten() {
            read_renewals(include_str!("../../../testdata/sanlock/renewal.txt"), lockspace, &mut columns);
            read_hosts(include_str!("../../../testdata/sanlock/host-status.txt"), lockspace, &mut columns);
        }
        columns.samples(|_| true)
    }

    #[test]
    fn a_lease_grows_old_while_the_storage_hangs() {
        let healthy = said(include_str!("../../../testdata/sanlock/status.txt"));
        assert!(healthy.contains("lease_age_seconds{lockspace=\"LAB\",host_id=\"1\"} 1\n"), "{healthy}");
        expect![[r#"
            petrel_sanlock_lease_age_seconds{lockspace="LAB",host_id="1"} 10
            petrel_sanlock_lease_limit_seconds{lockspace="LAB",host_id="1"} 16
            petrel_sanlock_lease_margin_seconds{lockspace="LAB",host_id="1"} 6
            petrel_sanlock_renewal_failing{lockspace="LAB",host_id="1"} 0
            petrel_sanlock_lockspace_dead{lockspace="LAB",host_id="1"} 0
            petrel_sanlock_resources_held{lockspace="LAB",host_id="1"} 1
            petrel_sanlock_renewal_read_seconds{lockspace="LAB",host_id="1"} 0
            petrel_sanlock_renewal_write_seconds{lockspace="LAB",host_id="1"} 0
            petrel_sanlock_renewal_timeouts{lockspace="LAB",host_id="1"} 0
            petrel_sanlock_renewal_errors{lockspace="LAB",host_id="1"} 0
            petrel_sanlock_host_silence_seconds{lockspace="LAB",host_id="2",owner="h2"} 0
        "#]]
        .assert_eq(&said(include_str!("../../../testdata/sanlock/status-stalled.txt")));
    }

    #[test]
    fn names_with_colons_a_dead_lockspace_and_no_daemon() {
        let text = "daemon h\n    monotime=500\ns a\\:b:7:/dev/x:0 \n    io_timeout=10\n    renew_fail=1\n    space_dead=1\n    renewal_last_result=-202\n    renewal_last_success=410\n";
        let mut columns = Columns::new(&COLUMNS);
        let lockspaces = read_status(text, &mut columns).unwrap();
        assert_eq!(lockspaces, [Lockspace { name: "a:b".to_owned(), host_id: "7".to_owned() }]);
        expect![[r#"
            petrel_sanlock_lease_age_seconds{lockspace="a:b",host_id="7"} 90
            petrel_sanlock_lease_limit_seconds{lockspace="a:b",host_id="7"} 80
            petrel_sanlock_lease_margin_seconds{lockspace="a:b",host_id="7"} -10
            petrel_sanlock_renewal_failing{lockspace="a:b",host_id="7"} 1
            petrel_sanlock_lockspace_dead{lockspace="a:b",host_id="7"} 1
            petrel_sanlock_resources_held{lockspace="a:b",host_id="7"} 0
        "#]]
        .assert_eq(&columns.samples(|_| true));
        assert_eq!(read_status("connect error -1\n", &mut Columns::new(&COLUMNS)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_panics(text in "((daemon|s |r | +monotime=|io_timeout=|renewal_last_success=|[0-9]{1,5}| timestamp |\\\\:|:|é|\\PC)\n?){0,30}") {
            let mut columns = Columns::new(&COLUMNS);
            drop(read_status(&text, &mut columns));
            drop(read_status(&format!("daemon x\n monotime=5\n{text}"), &mut columns));
            read_renewals(&text, &Lockspace::default(), &mut columns);
            read_hosts(&text, &Lockspace::default(), &mut columns);
        }
    }
}
