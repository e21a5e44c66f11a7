//! `petrel verify` and `petrel repair`: a data directory judged, and made whole again. Verifying changes nothing and may run beside a
//! server; repairing needs it stopped.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::DateTime;
use petrel_agent::error_chain::chain;

use super::progress::{Progress, size};
use super::{RepairArgs, VerifyArgs, backup, exit, table};
use crate::remedy;
use crate::series::Timestamp;
use crate::store::repair::{self, Loss, Repaired};
use crate::store::verify::{self, FileReport};

/// Losses of one file that are printed; all of them stand in a file beside the originals.
const LOSSES_TOLD_MAX: usize = 10;

/// Verifies a data directory. Returns the exit code.
///
/// # Errors
/// The directory cannot be read.
pub fn verify(args: &VerifyArgs) -> anyhow::Result<u8> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => backup::data_directory(None, None)?,
    };
    let mut progress = Progress::default();
    let mut tell = |path: &Path| progress.tell(|| format!("reading {}", path.display()));
    let reports = verify::verify(&dir, &mut tell).with_context(|| format!("{} cannot be read", dir.display()))?;
    progress.end();
    let damaged = reports.iter().filter(|report| report.is_damaged()).count();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    } else {
        print!("{}", table_of(&reports));
        for report in &reports {
            for problem in &report.problems {
                println!("{}: {problem}", report.name);
            }
            if report.problems_more > 0 {
                println!("{}: {} more", report.name, report.problems_more);
            }
        }
        if damaged > 0 {
            println!(
                "{damaged} of {} files are damaged. Stop the server, then: petrel repair {}",
                reports.len(),
                dir.display()
            );
        }
    }
    Ok(if damaged > 0 { exit::NO } else { exit::DONE })
}

fn table_of(reports: &[FileReport]) -> String {
    if reports.is_empty() {
        return "No databases.\n".to_owned();
    }
    let row = |report: &FileReport| {
        let state = if report.is_damaged() { "DAMAGED" } else { "fine" };
        let numbers = [report.series, report.samples, report.rows].map(|number| number.to_string());
        [&[report.name.clone(), size(report.bytes)][..], &numbers, &[state.to_owned()]].concat()
    };
    let rows: Vec<Vec<String>> = reports.iter().map(row).collect();
    table::render(&["file", "size", "series", "samples", "rows", "state"], &rows)
}

/// Repairs a data directory. Returns the exit code: 1 where something is lost.
///
/// # Errors
/// The report cannot be written.
pub fn repair(args: &RepairArgs, now: Timestamp) -> anyhow::Result<u8> {
    let repaired = match repair::repair(&args.dir, now, &|tx| remedy::journal::restored(tx, now)) {
        Ok(repaired) => repaired,
        Err(error) => {
            eprintln!("petrel: {}", chain(&error));
            return Ok(exit::NO);
        }
    };
    let report = report_file(&repaired)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&repaired)?);
    } else if repaired.is_empty() {
        println!("Nothing is damaged; nothing was changed.");
    } else {
        repaired.iter().for_each(tell);
        if let Some(report) = report {
            println!("Everything that is lost stands in {}.", report.display());
        }
    }
    let is_whole = repaired.iter().all(|one| one.lost.is_empty());
    Ok(if is_whole { exit::DONE } else { exit::NO })
}

fn tell(one: &Repaired) {
    println!(
        "{}: rebuilt with {} samples in {} rows; the original is {}.",
        one.name,
        one.samples,
        one.rows,
        one.aside.display()
    );
    if one.name == "control.db" {
        println!("Everything is held: no action is taken until you say `petrel hold off`.");
    }
    for loss in one.lost.iter().take(LOSSES_TOLD_MAX) {
        println!("  lost: {}", words(loss));
    }
    if one.lost.len() > LOSSES_TOLD_MAX {
        println!("  lost: {} more", one.lost.len() - LOSSES_TOLD_MAX);
    }
}

fn words(loss: &Loss) -> String {
    let time = |t: Timestamp| {
        DateTime::from_timestamp_millis(t)
            .map_or_else(|| t.to_string(), |time| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
    };
    let when = match (loss.from, loss.to) {
        (Some(from), Some(to)) => format!(", from {} to {} at most", time(from), time(to)),
        _ => String::new(),
    };
    let samples =
        loss.samples.map_or_else(|| "number of samples unknown".to_owned(), |count| format!("{count} samples"));
    format!("{}{when}, {samples}", loss.what)
}

/// Writes all losses beside the originals.
fn report_file(repaired: &[Repaired]) -> anyhow::Result<Option<PathBuf>> {
    let Some(folder) = repaired.iter().find(|one| !one.lost.is_empty()).and_then(|one| one.aside.parent()) else {
        return Ok(None);
    };
    let path = folder.join("lost.txt");
    let mut file = std::fs::File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    for one in repaired {
        for loss in &one.lost {
            writeln!(file, "{}: {}", one.name, words(loss))?;
        }
    }
    file.sync_all()?;
    Ok(Some(path))
}
