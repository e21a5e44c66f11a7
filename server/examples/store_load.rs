//! Measures the store alone: `store_load SERIES STEPS BATCH` appends that many series and steps of 10 s in batches of BATCH samples
//! from four threads, then flushes, and prints samples per second, CPU seconds, bytes per sample and resident memory. A
//! third of the series are counters, a third gauges with two decimals, the rest constants and full floats.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use petrel_server::query::source::{Source as _, TimeRange};
use petrel_server::series::{Labels, Matcher, Sample};
use petrel_server::store::{Batch, Store, StoreOptions};

const START: i64 = 1_790_000_000_000;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (series, steps, batch) = (number(20_000)?, number(600)?, number(2_000)?);
    let dir = std::env::temp_dir().join(format!("petrel-store-load-{}", std::process::id()));
    let options = StoreOptions { retention: None, ..StoreOptions::default() };
    let store = Store::open(&dir, options.clone(), &[], START)?;
    let labels: Vec<Labels> = (0..series).map(labels).collect();
    let now = START + steps as i64 * 10_000;

    let (begin, cpu) = (Instant::now(), cpu_seconds());
    append(&store, &labels, steps, batch, now)?;
    report("appended", series * steps, begin, cpu);
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    store.flush();
    report("flushed", series * steps, begin, cpu);
    let stats = store.stats();
    println!("{:.3} bytes a sample, {stats:?}", stats.disk_bytes as f64 / (series * steps) as f64);

    let begin = Instant::now();
    let range = TimeRange { from: START, to: now };
    let found = store.select(&[Matcher::equal("host", "hv-00001")], range, u64::MAX)?;
    println!("one host: {} series in {:?}", found.len(), begin.elapsed());
    store.close();
    let begin = Instant::now();
    drop(store);
    let store = Store::open(&dir, options, &[], now)?;
    println!("opened {} series in {:?}", store.stats().series, begin.elapsed());
    store.close();
    std::fs::remove_dir_all(&dir).context("removing the data directory")?;
    Ok(())
}

fn labels(n: usize) -> Labels {
    Labels::new([
        ("__name__", format!("node_metric_{}_total", n % 100)),
        ("host", format!("hv-{:05}", n / 100)),
        ("cluster", format!("cl-{:02}", n / 2_000)),
        ("dc", format!("dc-{}", n % 3)),
        ("job", "node".to_owned()),
        ("device", format!("disk{}", n % 7)),
    ])
}

fn value(n: usize, step: usize) -> f64 {
    let noise = (n * 2_654_435_761 + step * 40_503) as u32 % 1_000;
    match n % 6 {
        0 | 1 => (step * 5_000) as f64 + f64::from(noise),
        2 | 3 => f64::from(noise) / 100.0,
        4 => n as f64,
        _ => (step as f64 / 50.0).sin() + f64::from(noise) / 3_000.0,
    }
}

fn append(store: &Arc<Store>, labels: &[Labels], steps: usize, batch: usize, now: i64) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let rounds = labels.len().div_ceil(batch) * steps;
    let maintained = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let work = || -> anyhow::Result<()> {
            loop {
                let round = next.fetch_add(1, Ordering::Relaxed);
                if round >= rounds {
                    return Ok(());
                }
                let per_step = labels.len().div_ceil(batch);
                let (step, part) = (round / per_step, round % per_step);
                if step > maintained.load(Ordering::Relaxed) + 30 && maintained.swap(step, Ordering::Relaxed) < step {
                    store.maintain(now);
                }
                let t = START + step as i64 * 10_000;
                let of = labels.iter().enumerate().skip(part * batch).take(batch);
                let series = of.map(|(n, labels)| (labels.clone(), vec![Sample { t, v: value(n, step) }])).collect();
                store.append_blocking(Batch { series, ..Batch::default() }, now)?;
            }
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread failed"))?)
    })
}

fn report(what: &str, samples: usize, begin: Instant, cpu: f64) {
    let (seconds, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!(
        "{what} {samples} samples in {seconds:.2} s: {:.0} a second, {:.3} CPU seconds a million, {} KiB resident",
        samples as f64 / seconds,
        cpu / samples as f64 * 1e6,
        resident_kib()
    );
}

/// User and system time of this process, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}
