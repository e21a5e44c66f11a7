//! `kill -9` of a real server under load, again and again on the same files: every sample that was acknowledged is there after
//! each start. Short here; `tests/long kill9` makes 200 cycles. It prints what it did; a failure names the seed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use petrel_tests::dice::{Dice, setting};
use petrel_tests::petrel::{Server, http_client};
use petrel_tests::remote_write::{Pairs, request};

/// Connections that send at once.
const LANES: u64 = 4;
/// Series of each connection.
const SERIES: u64 = 8;
/// Samples of each series in a request.
const SAMPLES: u64 = 40;
/// Time of the first sample: any past that is not 0.
const BEGIN_MS: i64 = 1_600_000_000_000;
/// A request of this kind, once in so many, sends an earlier one's times again with other values.
const REWRITE_EVERY: u64 = 7;

/// Requests of a lane that are counted after a start: 6.4 million samples, an eighth of what a query may take.
const COUNTED: u64 = 20_000;

/// How far a connection has come: requests below this number were acknowledged, and one more may be stored.
#[derive(Debug, Clone, Copy, Default)]
struct Lane {
    acked: u64,
}

/// The request whose times a request sends: its own, or those of one before.
fn times_of(number: u64) -> u64 {
    if number % REWRITE_EVERY == REWRITE_EVERY - 1 { number - 3 } else { number }
}

/// The value that a request gives to the sample of a series.
fn value(lane: u64, number: u64, series: u64, n: u64) -> f64 {
    let mixed = Dice::new(lane << 48 | series << 40 | number, n).bits();
    (mixed % 1_000_000) as f64 / 10.0
}

fn samples(lane: u64, number: u64, series: u64) -> Vec<(i64, f64)> {
    let t = |n| BEGIN_MS + ((times_of(number) * SAMPLES + n) * 1000) as i64;
    (0..SAMPLES).map(|n| (t(n), value(lane, number, series, n))).collect()
}

fn body(lane: u64, number: u64) -> Vec<u8> {
    let texts: Vec<(String, String)> = (0..SERIES).map(|series| (lane.to_string(), series.to_string())).collect();
    let pairs: Vec<[(&str, &str); 3]> =
        texts.iter().map(|(lane, series)| [("__name__", "kill9"), ("lane", lane), ("series", series)]).collect();
    let samples: Vec<Vec<(i64, f64)>> = (0..SERIES).map(|series| samples(lane, number, series)).collect();
    let all: Vec<(Pairs<'_>, &[(i64, f64)])> =
        pairs.iter().zip(&samples).map(|(pairs, samples)| (&pairs[..], &samples[..])).collect();
    request(&all)
}

/// Sends requests until one fails or the load is over; returns how many were acknowledged.
fn load(url: &str, lane: u64, from: u64, on: &AtomicBool) -> u64 {
    let client = http_client();
    let mut number = from;
    while on.load(Ordering::SeqCst) {
        let sent = client
            .post(format!("{url}/api/v1/write"))
            .header("Content-Encoding", "snappy")
            .body(body(lane, number))
            .send();
        match sent {
            Ok(answer) if answer.status().is_success() => number += 1,
            // Refused for want of room, or the server is gone: the request is sent again after the next start.
            _ => break,
        }
    }
    number
}

/// Checks the requests of a lane from `from` on, sample by sample.
fn verify(server: &Server, lane: u64, acked: u64, from: u64) {
    for series in 0..SERIES {
        let mut wanted: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for number in from..acked {
            // A later request overrides an earlier one.
            wanted.extend(samples(lane, number, series).into_iter().map(|(t, v)| (t, vec![v])));
        }
        let first = BEGIN_MS + (from * SAMPLES * 1000) as i64;
        wanted.retain(|t, _| *t >= first);
        // The request in flight at the kill may be stored or not.
        for (t, v) in samples(lane, acked, series) {
            wanted.entry(t).and_modify(|values| values.push(v)).or_insert_with(|| vec![f64::NAN, v]);
        }
        let last = BEGIN_MS + ((acked + 1) * SAMPLES * 1000) as i64;
        let selector =
            format!("kill9{{lane=\"{lane}\",series=\"{series}\"}}[{}ms] @ {}", last - first + 1, last as f64 / 1000.0);
        let found: BTreeMap<i64, f64> = server.samples(&selector).into_iter().collect();
        for (t, values) in &wanted {
            let stored = found.get(t);
            let right = stored.map_or(values[0].is_nan(), |stored| values.contains(stored));
            assert!(right, "lane {lane} series {series} at {t}: {stored:?} is stored, {values:?} was sent");
        }
        let more = found.keys().find(|t| !wanted.contains_key(t));
        assert!(more.is_none(), "lane {lane} series {series}: a sample at {more:?} that was never sent");
    }
}

/// The samples of a lane's last requests are counted, those of older cycles too; all there is would not fit into one query.
fn verify_count(server: &Server, lane: u64, acked: u64) {
    let first = acked.saturating_sub(COUNTED);
    let (begin, last) = [first, acked].map(|number| BEGIN_MS + (number * SAMPLES * 1000) as i64).into();
    let query = format!(
        "sum(count_over_time(kill9{{lane=\"{lane}\"}}[{}ms] @ {}))",
        last - begin,
        (last - 1000) as f64 / 1000.0
    );
    let counted = server.query(&query).first().map_or(0.0, |(_, value)| *value) as u64;
    let rewrites = (first..acked).filter(|number| times_of(*number) != *number).count() as u64;
    // What a request rewrites it does not add; the gap at its own times stays.
    let wanted = (acked - first - rewrites) * SERIES * SAMPLES;
    assert!(counted >= wanted, "lane {lane}: {counted} samples of {wanted} that were acknowledged");
}

#[test]
fn kill_9_under_load_loses_nothing_that_was_acknowledged() {
    let (cycles, seed) = (setting("PETREL_KILL9_CYCLES", 5), setting("PETREL_KILL9_SEED", 9));
    println!("{cycles} cycles, PETREL_KILL9_SEED={seed}");
    let dir = tempfile::tempdir().expect("a folder for the test");
    let mut server = Server::start(dir.path(), "store:\n  retention: off\n  journal_bytes_max: 1MiB\n");
    let mut dice = Dice::new(seed, 0);
    let mut lanes = [Lane::default(); LANES as usize];
    let (mut samples_acked, mut start_max, begin) = (0, Duration::ZERO, Instant::now());
    for cycle in 0..cycles {
        let before = lanes;
        let on = AtomicBool::new(true);
        let url = server.url.clone();
        // The moments of flush and kill are the chance that this test is about; nothing is waited for.
        let (flush_after, kill_after) = (dice.below(1500), 100 + dice.below(2000));
        let flushes = dice.once_in(2);
        std::thread::scope(|scope| {
            let loads: Vec<_> = lanes
                .iter()
                .enumerate()
                .map(|(lane, at)| (lane, at.acked))
                .map(|(lane, from)| {
                    scope.spawn({
                        let (url, on) = (&url, &on);
                        move || load(url, lane as u64, from, on)
                    })
                })
                .collect();
            let flush = format!("{url}/petrel/v1/admin/flush");
            if flushes {
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(flush_after));
                    // The kill may come first.
                    let _ = http_client().post(flush).send();
                });
            }
            std::thread::sleep(Duration::from_millis(kill_after));
            server.kill();
            on.store(false, Ordering::SeqCst);
            for (lane, load) in lanes.iter_mut().zip(loads) {
                lane.acked = load.join().expect("a sender does not panic");
            }
        });
        let start = Instant::now();
        server.start_again();
        start_max = start_max.max(start.elapsed());
        for (lane, (at, was)) in lanes.iter().zip(&before).enumerate() {
            samples_acked += (at.acked - was.acked) * SERIES * SAMPLES;
            verify(&server, lane as u64, at.acked, was.acked.saturating_sub(REWRITE_EVERY));
            verify_count(&server, lane as u64, at.acked);
        }
        if (cycle + 1) % 20 == 0 {
            println!("{} cycles: {samples_acked} samples acknowledged, lost 0, {:?}", cycle + 1, begin.elapsed());
        }
    }
    let checked: u64 = (0..LANES).map(|lane| verify_all(&server, lane, lanes[lane as usize].acked)).sum();
    println!(
        "{cycles} kills: {samples_acked} samples acknowledged, lost 0 ({checked} compared one by one at the end); slowest start {start_max:?}; {:?}",
        begin.elapsed()
    );
    assert!(samples_acked > 0, "the load was taken");
}

/// Compares everything that a lane ever sent, in pieces that a query may return; returns the number of samples.
fn verify_all(server: &Server, lane: u64, acked: u64) -> u64 {
    const PIECE: u64 = 1000;
    // What was in flight at the last kill is sent again, so that all is certain.
    let sent = server.post_bytes("/api/v1/write", &[("Content-Encoding", "snappy")], body(lane, acked));
    assert!(sent.is_some_and(|(status, _)| status < 300), "the server takes samples");
    let mut checked = 0;
    for series in 0..SERIES {
        let wanted: BTreeMap<i64, f64> = (0..=acked).flat_map(|number| samples(lane, number, series)).collect();
        for piece in 0..=acked / PIECE {
            let from = BEGIN_MS + (piece * PIECE * SAMPLES * 1000) as i64;
            let length = (PIECE * SAMPLES * 1000) as i64;
            let at = (from + length - 1) as f64 / 1000.0;
            let selector = format!("kill9{{lane=\"{lane}\",series=\"{series}\"}}[{length}ms] @ {at}");
            let found: BTreeMap<i64, f64> = server.samples(&selector).into_iter().collect();
            let part: BTreeMap<i64, f64> = wanted.range(from..from + length).map(|(t, v)| (*t, *v)).collect();
            assert!(found == part, "lane {lane} series {series} piece {piece}: {} of {}", found.len(), part.len());
            checked += part.len() as u64;
        }
    }
    checked
}
