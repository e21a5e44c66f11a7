//! Memory for each series: at most 1.5 KiB with a full head at a million series, and bounded where series come and go all the time.
//! Short here; `tests/long scale` and `tests/long churn` take as many as a large fleet has. They print what they measured.

use std::process::Command;

use petrel_tests::dice::setting;
use petrel_tests::process::{program, run};
use petrel_tests::scale::{FULL, Measured, STARTED_AGAIN};

/// Bytes that a series may take, index and head together, when its head holds 120 samples, at a million series and whatever a
/// store takes beside them.
const FULL_BYTES_MAX: u64 = 1536;
/// Bytes that one more series may take in the short form: 1,163 were measured (one value in four needs eight bytes; 1,213 in a release
/// build), and some fields more are seen. Larger numbers meet other sizes of tables.
const MORE_BYTES_MAX: u64 = 1250;
/// From here on what a store takes at any number of series is not felt.
const MANY: u64 = 500_000;
/// The smaller number of series, to tell what each takes from what all take.
const FEW: u64 = 15_000;
/// Days of churn. The store keeps two of them: one is the retention, the other is not yet over for as long.
const DAYS: u64 = 5;
/// Bytes that a series may take that is over and whose samples are all on disk: 670 were measured.
const ENDED_BYTES_MAX: u64 = 800;
/// Bytes that a store takes at any number of series: caches of its databases and buffers of its threads.
const STORE_BYTES_MAX: u64 = 12 << 20;

fn measure(arguments: &[String]) -> Vec<Measured> {
    let dir = tempfile::tempdir().expect("a folder for the test");
    // The allocator gives back at once what is free, so that what is resident is what is held, to a percent.
    let mut command = Command::new(program("store_memory"));
    let said = run(command.env("MIMALLOC_PURGE_DELAY", "0").arg(dir.path()).args(arguments));
    let measured = Measured::read(&said);
    for one in &measured {
        println!("{}: {} series, {} MiB, {} bytes each", one.what, one.series, one.bytes >> 20, one.each());
    }
    measured
}

fn full(series: u64) -> Measured {
    let measured = measure(&["full".to_owned(), series.to_string()]);
    let find = |what: &str| measured.iter().find(|one| one.what == what).expect("it is measured").clone();
    assert_eq!((find(FULL).series, find(STARTED_AGAIN).series), (series, series));
    find(FULL)
}

#[test]
fn a_series_takes_a_kilobyte_and_a_half_at_most() {
    let count = setting("PETREL_SCALE_SERIES", 50_000);
    let (few, many) = (full(FEW), full(count));
    let more = many.bytes.saturating_sub(few.bytes) / (count - FEW);
    println!("{more} bytes for one more series");
    if count >= MANY {
        assert!(many.each() <= FULL_BYTES_MAX, "a series takes {} bytes", many.each());
    } else {
        assert!(more <= MORE_BYTES_MAX, "one more series takes {more} bytes");
    }
}

#[test]
fn series_that_come_and_go_do_not_stay_in_memory() {
    let (hosts, seconds) = (setting("PETREL_CHURN_HOSTS", 100), setting("PETREL_CHURN_SECONDS", 120));
    let a_day = hosts * seconds;
    let measured = measure(&["churn".to_owned(), hosts.to_string(), seconds.to_string(), DAYS.to_string()]);
    let sealed: Vec<&Measured> = measured.iter().filter(|one| one.what.ends_with("sealed")).collect();
    assert_eq!(sealed.len() as u64, DAYS, "each day is measured");
    for (day, one) in sealed.iter().enumerate() {
        assert_eq!(
            one.series,
            a_day * (day as u64 + 1).min(2),
            "{}: whoever has samples on disk is known, nobody else",
            one.what
        );
        assert!(one.bytes <= one.series * ENDED_BYTES_MAX + STORE_BYTES_MAX, "{}: {} bytes", one.what, one.bytes);
    }
}
