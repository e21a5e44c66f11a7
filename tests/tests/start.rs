//! What a start costs: on the journals that a `kill -9` leaves, and on sealed samples. CPU time, as a part of what it took to ingest
//! the same samples, because the clock on a busy machine says nothing. Short here; `tests/long start` has ten million samples
//! and a limit in time.

use std::time::{Duration, Instant};

use petrel_tests::dice::setting;
use petrel_tests::petrel::Server;
use petrel_tests::remote_write::{Pairs, request};
use serde_json::Value;

/// Samples of each series.
const SAMPLES: u64 = 100;
/// Of each series in a request: few, as senders have them.
const AT_ONCE: u64 = 5;
/// Series in a request.
const SERIES_AT_ONCE: u64 = 1000;
/// Time of the first sample: any past that is not 0.
const BEGIN_MS: i64 = 1_600_000_000_000;
/// A start may cost this part of the ingest: twice what was measured, so that reading a journal as slowly as writing it fails.
const PARTS: u32 = 2;

/// CPU time that a process has used.
fn cpu(server: &Server) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", server.id())).expect("the server runs");
    let after_name = text.rsplit(") ").next().unwrap_or_default();
    // Fields 14 and 15 of proc(5), in hundredths of a second; the name is field 2.
    let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn ingest(server: &Server, series: u64) {
    let times = (0..SAMPLES).step_by(AT_ONCE as usize);
    for (first, t) in times.flat_map(|t| (0..series).step_by(SERIES_AT_ONCE as usize).map(move |first| (first, t))) {
        let names: Vec<String> = (first..(first + SERIES_AT_ONCE).min(series)).map(|n| n.to_string()).collect();
        let pairs: Vec<[(&str, &str); 3]> =
            names.iter().map(|n| [("__name__", "start_seconds"), ("host", &n[n.len() / 2..]), ("n", n)]).collect();
        let samples: Vec<(i64, f64)> =
            (t..t + AT_ONCE).map(|t| (BEGIN_MS + t as i64 * 10_000, (first + t * t) as f64 / 4.0)).collect();
        let all: Vec<(Pairs<'_>, &[(i64, f64)])> = pairs.iter().map(|pairs| (&pairs[..], &samples[..])).collect();
        let answer = server.post_bytes("/api/v1/write", &[("Content-Encoding", "snappy")], request(&all));
        assert!(answer.as_ref().is_some_and(|(status, _)| *status < 300), "{answer:?}");
    }
}

/// Kills the server and starts it again; returns the CPU time and the time until it was ready.
fn start_again(server: &mut Server, series: u64) -> (Duration, Duration) {
    server.kill();
    let begin = Instant::now();
    server.start_again();
    let (took, used) = (begin.elapsed(), cpu(server));
    let last = (BEGIN_MS / 1000) as u64 + SAMPLES * 10;
    let n = series - 1;
    let counted = server.query(&format!("count_over_time(start_seconds{{n=\"{n}\"}}[2000s] @ {last})"));
    assert_eq!(counted.first().map(|(_, count)| *count as u64), Some(SAMPLES), "of series {n}");
    (used, took)
}

#[test]
fn a_start_costs_a_small_part_of_the_ingest() {
    let samples = setting("PETREL_START_SAMPLES", 300_000);
    let limit = Duration::from_millis(setting("PETREL_START_MS_MAX", 20_000));
    let series = samples / SAMPLES;
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut server = Server::start(dir.path(), "store:\n  retention: off\n");
    let before = cpu(&server);
    ingest(&server, series);
    let ingested = cpu(&server).saturating_sub(before);
    let journals = start_again(&mut server, series);
    server.post("/petrel/v1/admin/flush", &Value::Null);
    let sealed = start_again(&mut server, series);
    println!(
        "{samples} samples: ingest {ingested:?}; start on journals, then sealed (CPU, until ready): {journals:?}, {sealed:?}"
    );
    for (used, took) in [journals, sealed] {
        // What a server costs that has nothing to read was paid before the first sample came.
        let reading = used.saturating_sub(before);
        assert!(reading * PARTS <= ingested, "a start took {reading:?} of CPU time, the ingest {ingested:?}");
        assert!(took <= limit, "a start took {took:?}, the limit is {limit:?}");
    }
}
