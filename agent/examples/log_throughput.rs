//! How many log lines one core takes into templates: tail, mask, mine, count, with everything the agent does to a line.
//!
//! `cargo run --release -p petrel-agent --example log_throughput -- [--mib N] FILE…` repeats the lines of the files until there
//! are N MiB (256), follows them as one file from its beginning, and prints MiB and lines a second of processor time and of
//! wall time.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use petrel_agent::logs::{LogTails, RawJournalConfig, RawLogsConfig, Wanted};

/// Rounds come at once while there is more to read; without one for so long all is read.
const SILENCE: Duration = Duration::from_secs(3);

fn main() -> anyhow::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut mebibytes = 256;
    if arguments.first().is_some_and(|first| first == "--mib") {
        mebibytes = arguments.get(1).context("--mib needs a number")?.parse().context("--mib needs a number")?;
        arguments.drain(..2);
    }
    if arguments.is_empty() {
        bail!("name at least one file of log lines");
    }
    let folder = std::env::temp_dir().join(format!("petrel-log-throughput-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let outcome = measure(&folder.join("all.log"), &arguments, mebibytes << 20);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn measure(path: &std::path::Path, sources: &[String], bytes: usize) -> anyhow::Result<()> {
    let mut text = Vec::new();
    for source in sources {
        std::fs::File::open(source).with_context(|| source.clone())?.read_to_end(&mut text)?;
        text.push(b'\n');
    }
    let mut file = std::fs::File::create(path)?;
    let mut written = 0;
    while written < bytes {
        file.write_all(&text)?;
        written += text.len();
    }
    file.sync_all()?;

    let journal = RawJournalConfig { follow: Wanted::Never, ..RawJournalConfig::default() };
    let (files, kmsg) = (vec![path.display().to_string()], Wanted::Never);
    let config = RawLogsConfig { files, journal, kmsg, from_beginning: true, ..RawLogsConfig::default() }.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (wall, cpu) = (Instant::now(), cpu_seconds());
    let mut tails = LogTails::new(&config, None, petrel_agent::clock::wall());
    let (mut records, mut last) = (0, (Duration::ZERO, cpu));
    let mut offset = 0;
    while let Ok(round) = runtime.block_on(async { tokio::time::timeout(SILENCE, tails.next()).await }) {
        records += round.records.len();
        offset = round.state.files.iter().map(|file| file.offset).sum();
        last = (wall.elapsed(), cpu_seconds());
        if offset >= written as u64 {
            break;
        }
    }
    let mib = offset as f64 / f64::from(1 << 20);
    let families = tails.counts().families();
    let lines = families.iter().filter(|family| family.name == "petrel_log_lines_total");
    let lines: f64 = lines.flat_map(|family| &family.points).map(|point| point.value).sum();
    let (seconds, cpu) = (last.0.as_secs_f64(), last.1 - cpu);
    println!(
        "{mib:.0} MiB, {lines} lines, {records} records: {:.1} MiB and {:.0} lines per CPU second; {:.1} MiB per second",
        mib / cpu,
        lines / cpu,
        mib / seconds
    );
    Ok(())
}

/// Processor time of this process so far, from the kernel's ticks of a hundredth of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
