//! How much memory the store takes for a series: the work of the process that `bin/store_memory.rs` is, and what it says of itself.
//! It is a process of its own, with the server's allocator, so that nothing but a store is in what it measures.

use std::path::Path;
use std::sync::Arc;

use petrel_server::series::{Labels, Sample};
use petrel_server::store::{Batch, Row, Series, Store, StoreOptions};

/// Noon of a day, so that a few hours of samples are in one day.
const BEGIN_MS: i64 = 20_000 * DAY_MS + DAY_MS / 2;
const DAY_MS: i64 = 86_400_000;
/// Time between two samples of a series.
const STEP_MS: i64 = 15_000;
/// Series of one host.
const HOST_SERIES: u64 = 100;
/// Samples of one batch, and new series of one.
const BATCH: usize = 2_000;

/// Numbers of samples in all heads at which memory is measured. At 129 the columns of all have grown once more: the most that a
/// fleet takes whose series all began at once.
const FULL_AT: [u64; 5] = [1, 15, 60, 120, 129];

/// What `full` has done when all heads hold 120 samples.
pub const FULL: &str = "120 samples in each head";
/// What `full` has done when all is on disk and another process would begin.
pub const STARTED_AGAIN: &str = "started again";

/// One measurement: what was there and how many bytes were resident beside what an empty store takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// What had been done.
    pub what: String,
    /// Series in the index.
    pub series: u64,
    /// Resident bytes more than before the first series.
    pub bytes: u64,
}

impl Measured {
    /// Bytes for each series.
    pub fn each(&self) -> u64 {
        self.bytes / self.series.max(1)
    }

    /// The line in which a process says it.
    pub fn line(&self) -> String {
        format!("{}\t{}\t{}", self.what, self.series, self.bytes)
    }

    /// Reads the lines of a process.
    pub fn read(text: &str) -> Vec<Measured> {
        let read = |line: &str| {
            let mut parts = line.split('\t');
            let what = parts.next()?.to_owned();
            Some(Measured { what, series: parts.next()?.parse().ok()?, bytes: parts.next()?.parse().ok()? })
        };
        text.lines().filter_map(read).collect()
    }
}

/// Bytes of this process in memory, as the kernel counts them, without what is only a file's.
pub fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells about a process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("it tells what is resident");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("in kilobytes") * 1024
}

/// Says what the store takes now, beside what was resident `before`.
pub fn say(store: &Store, what: &str, before: u64) {
    let (series, bytes) = (store.stats().series, resident().saturating_sub(before));
    println!("{}", Measured { what: what.to_owned(), series, bytes }.line());
}

/// Seven labels, as a node exporter's series has them behind a relabelling.
fn labels(number: u64) -> Labels {
    let (host, series) = (number / HOST_SERIES, number % HOST_SERIES);
    let name = format!("node_hardware_reading_{:02}_bytes_total", series / 4);
    let instance = format!("hv-{host:05}.fleet.example.net:9100");
    let rack = format!("r{:03}", host / 24);
    Labels::new([
        ("__name__", name.as_str()),
        ("instance", instance.as_str()),
        ("job", "node"),
        ("datacenter", "fra1"),
        ("rack", rack.as_str()),
        ("role", "hypervisor"),
        ("device", ["nvme0n1", "nvme1n1", "eth0", "eth1"][(series % 4) as usize]),
    ])
}

/// One series in four has values that need all their bits; of those of a node exporter on an idle machine it is one in six.
fn value(number: u64, n: u64) -> f64 {
    if number.is_multiple_of(4) { (number * 7919 + n * 104_729) as f64 * 1.1 } else { (number % 1000 + n) as f64 }
}

fn options(series: u64) -> StoreOptions {
    StoreOptions { series_max: series as usize + 1, disk_reserve_bytes: 0, ..StoreOptions::default() }
}

/// Adds series with their first sample; returns them.
fn add(store: &Store, all: &[(u64, Labels)], now: i64) -> Vec<Arc<Series>> {
    let first = |(number, labels): &(u64, Labels)| (labels.clone(), vec![Sample { t: now, v: value(*number, 0) }]);
    let batch = Batch { series: all.iter().map(first).collect(), ..Batch::default() };
    let committed = store.append_blocking(batch, now).expect("the store takes samples");
    assert_eq!(committed.accepted, all.len() as u64, "all series are taken");
    let known = store.known();
    let mut finder = known.finder();
    all.iter().map(|(_, labels)| Arc::clone(finder.find(labels.as_wire()).expect("it was just added"))).collect()
}

/// A fleet whose series all begin at once, until their heads are full; then sealed, then read by a store that starts.
pub fn full(dir: &Path, count: u64) {
    let mut store = Store::open(dir, options(count), &[], BEGIN_MS).expect("an empty store opens");
    let before = resident();
    let mut series: Vec<Arc<Series>> = Vec::with_capacity(count as usize);
    let numbers: Vec<u64> = (0..count).collect();
    for part in numbers.chunks(BATCH) {
        let all: Vec<(u64, Labels)> = part.iter().map(|number| (*number, labels(*number))).collect();
        series.extend(add(&store, &all, BEGIN_MS));
    }
    let mut n = 1;
    for samples in FULL_AT {
        for n in n..samples {
            let t = BEGIN_MS + n as i64 * STEP_MS;
            for (part, numbers) in series.chunks(BATCH).zip(numbers.chunks(BATCH)) {
                let row = |(series, number): (&Arc<Series>, &u64)| Row {
                    series: Arc::clone(series),
                    sample: Sample { t, v: value(*number, n) },
                };
                let batch = Batch { rows: part.iter().zip(numbers).map(row).collect(), ..Batch::default() };
                store.append_blocking(batch, t).expect("the store takes samples");
            }
        }
        n = samples;
        say(&store, &format!("{samples} samples in each head"), before);
    }
    drop(series);
    assert!(store.flush().is_empty(), "all heads can be sealed");
    say(&store, "sealed", before);
    drop(store);
    store = Store::open(dir, options(count), &[], BEGIN_MS).expect("the store opens again");
    say(&store, STARTED_AGAIN, before);
}
