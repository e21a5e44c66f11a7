//! What the agent says about itself, beside what it says about its host. Blocks on files below /proc, which never hang.

use std::fs;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use crate::collect::{Family, Kind, Point};
use crate::spool::Spool;
use crate::stream::protocol::Class;
use crate::stream::sender::{StreamCounters, place};

/// Ticks a second of the processor times in `/proc/<pid>/stat`: fixed at 100 for programs on every Linux architecture that
/// Rust's standard library supports, whatever the kernel's own rate is.
const USER_TICKS: f64 = 100.0;

/// The counter of lines that announce trouble; shipped rules read it, so it stands in this catalogue before the first one.
pub(crate) const LOG_PRECURSOR: &str = "petrel_log_precursor_total";

/// The agent's own families, in each round of collection.
pub fn families(spool: &Spool, stream: &StreamCounters) -> Vec<Family> {
    let mut families = vec![
        family(
            Kind::Gauge,
            "petrel_agent_info",
            "Version of the agent.",
            [(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)],
        ),
        family(Kind::Gauge, "petrel_spool_bytes", "Bytes of the spool on disk.", [(vec![], spool.bytes() as f64)]),
        by_class(Kind::Gauge, "petrel_spool_pending_batches", "Batches not yet acknowledged.", |class| {
            spool.pending(class) as f64
        }),
        family(
            Kind::Counter,
            "petrel_spool_dropped_batches_total",
            "Batches that left the spool without the server having taken them, by reason.",
            spool.dropped().iter().map(|((class, reason), dropped)| {
                (vec![("class", class.as_str()), ("reason", reason.as_str())], dropped.batches as f64)
            }),
        ),
        family(
            Kind::Counter,
            "petrel_spool_dropped_records_total",
            "Samples, log lines and answers in those batches.",
            spool.dropped().iter().map(|((class, reason), dropped)| {
                (vec![("class", class.as_str()), ("reason", reason.as_str())], dropped.records as f64)
            }),
        ),
        by_class(Kind::Counter, "petrel_stream_delivered_batches_total", "Batches that the server took.", |class| {
            stream.delivered[place(class)].load(Ordering::Relaxed) as f64
        }),
        by_class(
            Kind::Counter,
            "petrel_stream_retried_attempts_total",
            "Attempts that failed and were made again.",
            |class| stream.retried[place(class)].load(Ordering::Relaxed) as f64,
        ),
        by_class(
            Kind::Counter,
            "petrel_stream_rejected_records_total",
            "Samples or records that the server left out of batches it took.",
            |class| stream.rejected[place(class)].load(Ordering::Relaxed) as f64,
        ),
        by_class(Kind::Counter, "petrel_stream_sent_bytes_total", "Bytes of request bodies as sent.", |class| {
            stream.sent_bytes[place(class)].load(Ordering::Relaxed) as f64
        }),
        family(
            Kind::Counter,
            "petrel_stream_dictionary_misses_total",
            "Batches that the server could not take against a dictionary and got plain.",
            [(vec![], stream.dictionary_misses.load(Ordering::Relaxed) as f64)],
        ),
    ];
    if let Some(seconds) = stream.skew.lock().unwrap_or_else(PoisonError::into_inner).seconds() {
        families.push(family(
            Kind::Gauge,
            "petrel_agent_clock_skew_seconds",
            "Seconds that this host's clock is ahead of the server's, without the time on the network.",
            [(vec![], seconds)],
        ));
    }
    families.extend(process());
    families.retain(|family| !family.points.is_empty());
    families
}

/// What the agent's process and its children have used.
fn process() -> Vec<Family> {
    let mut families = Vec::new();
    if let Some((seconds, children)) = stat_cpu_seconds() {
        families.push(family(
            Kind::Counter,
            "petrel_agent_children_cpu_seconds_total",
            "Processor time of child processes of the agent that have ended.",
            [(vec![], children)],
        ));
        families.push(family(
            Kind::Counter,
            "petrel_agent_cpu_seconds_total",
            "Processor time of the agent's process.",
            [(vec![], seconds)],
        ));
    }
    let (unreaped, forgotten) = crate::command::unreaped();
    families.push(family(
        Kind::Counter,
        "petrel_agent_children_forgotten_total",
        "Children of the agent that were killed, did not end, and did not fit on the list of those looked for later.",
        [(vec![], forgotten as f64)],
    ));
    families.push(family(
        Kind::Gauge,
        "petrel_agent_children_unreaped",
        "Children of the agent that were killed and are still there: they hang in the kernel.",
        [(vec![], unreaped as f64)],
    ));
    if let Some(bytes) = status_resident_bytes() {
        families.push(family(
            Kind::Gauge,
            "petrel_agent_resident_memory_bytes",
            "Resident memory of the agent's process.",
            [(vec![], bytes)],
        ));
    }
    families
}

/// Processor time that the agent and its ended children have used, in seconds.
pub fn cpu_seconds_used() -> Option<f64> {
    stat_cpu_seconds().map(|(own, children)| own + children)
}

/// Resident memory of the agent, in bytes.
pub fn resident_bytes_used() -> Option<u64> {
    status_resident_bytes().map(|bytes| bytes as u64)
}

fn stat_cpu_seconds() -> Option<(f64, f64)> {
    cpu_seconds(&fs::read_to_string("/proc/self/stat").ok()?)
}

fn status_resident_bytes() -> Option<f64> {
    resident_bytes(&fs::read_to_string("/proc/self/status").ok()?)
}

fn by_class(kind: Kind, name: &'static str, help: &'static str, value: impl Fn(Class) -> f64) -> Family {
    family(kind, name, help, Class::ALL.map(|class| (vec![("class", class.as_str())], value(class))))
}

fn family(
    kind: Kind,
    name: &'static str,
    help: &'static str,
    points: impl IntoIterator<Item = (Vec<(&'static str, &'static str)>, f64)>,
) -> Family {
    let points = points.into_iter().map(|(labels, value)| Point {
        labels: labels.into_iter().map(|(name, text)| (name.into(), text.into())).collect(),
        value,
    });
    Family { name: name.into(), kind, help: help.into(), points: points.collect() }
}

/// User and system time of `/proc/self/stat`, then those of children that have ended. The program's name may hold anything, but
/// ends at the last parenthesis.
fn cpu_seconds(stat: &str) -> Option<(f64, f64)> {
    let mut ticks = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11).map(str::parse::<f64>);
    let mut seconds = || Some((ticks.next()?.ok()? + ticks.next()?.ok()?) / USER_TICKS);
    Some((seconds()?, seconds()?))
}

fn resident_bytes(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 30 20 20 0 1 0 5 1 1";
        assert_eq!(cpu_seconds(stat), Some((3.0, 0.5)));
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2_097_152.0));
        assert_eq!((cpu_seconds("7 (a"), resident_bytes("")), (None, None));
    }

    #[test]
    fn each_family_has_a_point() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), 1 << 20, "aa").unwrap();
        let families = families(&spool, &StreamCounters::default());
        let names: Vec<&str> = families.iter().map(|family| family.name.as_ref()).collect();
        assert_eq!(
            names,
            [
                "petrel_agent_info",
                "petrel_spool_bytes",
                "petrel_spool_pending_batches",
                "petrel_stream_delivered_batches_total",
                "petrel_stream_retried_attempts_total",
                "petrel_stream_rejected_records_total",
                "petrel_stream_sent_bytes_total",
                "petrel_stream_dictionary_misses_total",
                "petrel_agent_children_cpu_seconds_total",
                "petrel_agent_cpu_seconds_total",
                "petrel_agent_children_forgotten_total",
                "petrel_agent_children_unreaped",
                "petrel_agent_resident_memory_bytes"
            ]
        );
    }
}
