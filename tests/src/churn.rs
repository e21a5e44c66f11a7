//! Hosts on which a series ends and another begins every second, for some days: what the store answers of them, and what it still
//! holds when they are over. The work of the process that `bin/store_memory.rs` is; it panics where an answer is wrong.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use petrel_server::query::{Limits, Value, instant, parse};
use petrel_server::series::{Labels, Sample, Timestamp};
use petrel_server::store::{Batch, Row, Series, Store, StoreOptions};

use crate::scale::{resident, say};

const DAY_MS: i64 = 86_400_000;
const MINUTE_MS: i64 = 60_000;
/// Noon of a day, so that the hours that follow are in the same one.
const BEGIN_MS: i64 = 20_000 * DAY_MS + DAY_MS / 2;
/// A series has a sample every second for so long, and is then ended, as a container that was stopped.
const LIFE: i64 = 10;
/// Nothing comes for so long at the end of a day: twice what a journal may wait to be sealed.
const QUIET_MINUTES: i64 = 300;

/// What one day has.
#[derive(Debug, Clone, Copy)]
pub struct Churn {
    /// Hosts.
    pub hosts: i64,
    /// Series that begin on each of them, one after the other.
    pub seconds: i64,
}

impl Churn {
    /// Goes on for some days, of which the store keeps one; each of them ends with hours in which nothing comes.
    ///
    /// A process unlinks one day an hour at most, so each simulated day is a start of its own on the same files.
    pub fn run(self, dir: &Path, days: i64) {
        drop(open(dir, BEGIN_MS));
        let before = resident();
        for day in 0..days {
            let begin = BEGIN_MS + day * DAY_MS;
            let store = open(dir, begin);
            self.live(&store, begin);
            say(&store, &format!("day {day}, in heads"), before);
            self.verify(&store, begin);
            for minutes in (0..=QUIET_MINUTES).step_by(5) {
                let problems = store.maintain(begin + self.seconds * 1000 + minutes * MINUTE_MS);
                assert!(problems.is_empty(), "{problems:?}");
            }
            assert_eq!(store.stats().head_samples, 0, "series that are over are in memory hours later");
            self.verify(&store, begin);
            say(&store, &format!("day {day}, sealed"), before);
            store.close();
            drop(store);
            self.verify(&open(dir, begin), begin);
        }
    }

    /// The seconds of one day, with the passes of maintenance that there are meanwhile.
    fn live(self, store: &Store, begin: Timestamp) {
        let mut alive: Vec<(i64, i64, Arc<Series>)> = Vec::new();
        for second in 0..self.seconds + LIFE {
            let now = begin + second * 1000;
            let row = |(host, born, series): &(i64, i64, Arc<Series>)| {
                let sample =
                    if second - born < LIFE { Sample { t: now, v: value(*host, *born) } } else { Sample::stale(now) };
                Row { series: Arc::clone(series), sample }
            };
            let rows = alive.iter().map(row).collect();
            let hosts = if second < self.seconds { self.hosts } else { 0 };
            let born: Vec<(i64, Labels)> = (0..hosts).map(|host| (host, labels(begin, host, second))).collect();
            let first =
                |(host, labels): &(i64, Labels)| (labels.clone(), vec![Sample { t: now, v: value(*host, second) }]);
            let batch = Batch { rows, series: born.iter().map(first).collect(), ..Batch::default() };
            let committed = store.append_blocking(batch, now).expect("the store takes samples");
            assert!(committed.refused.is_empty(), "{:?}", committed.refused);
            let known = store.known();
            let mut finder = known.finder();
            let mut find = |labels: &Labels| Arc::clone(finder.find(labels.as_wire()).expect("it was just added"));
            alive.extend(born.iter().map(|(host, labels)| (*host, second, find(labels))));
            drop(known);
            alive.retain(|(_, born, _)| second - born < LIFE);
            if second % 60 == 59 {
                assert!(store.maintain(now).is_empty(), "maintenance goes well");
            }
        }
        assert!(alive.is_empty());
    }

    /// What queries say of a day.
    fn verify(self, store: &Arc<Store>, begin: Timestamp) {
        let ask = |query: &str, second: i64| {
            let expr = parse(query).expect("the test's query can be read");
            let at = begin + second * 1000;
            let answer = instant(&**store, &expr, at, &Limits::default()).expect("the store can be read");
            match answer.value {
                Value::Vector(found) => found.first().map_or(0.0, |one| one.sample.v),
                other => panic!("{query}: {other:?}"),
            }
        };
        for second in [0, LIFE / 2, self.seconds / 2, self.seconds - 1, self.seconds + LIFE / 2, self.seconds + LIFE] {
            let born = (second - LIFE + 1).max(0)..=second.min(self.seconds - 1);
            let alive: Vec<f64> = born.flat_map(|born| (0..self.hosts).map(move |host| value(host, born))).collect();
            assert_eq!(ask("count(churn)", second), alive.len() as f64, "alive at second {second}");
            assert_eq!(ask("sum(churn)", second), alive.iter().sum::<f64>(), "their sum at second {second}");
        }
        let (end, window) = (self.seconds + LIFE, self.seconds + LIFE + 1);
        let all = self.hosts * self.seconds;
        assert_eq!(ask(&format!("count(count_over_time(churn[{window}s]))"), end), all as f64, "all series");
        let samples = ask(&format!("sum(count_over_time(churn[{window}s]))"), end);
        assert_eq!(samples, (all * LIFE) as f64, "all samples");
        let host = self.hosts / 2;
        let of_host = ask(&format!("count(last_over_time(churn{{host=\"hv-{host}\"}}[{window}s]))"), end);
        assert_eq!(of_host, self.seconds as f64, "the series of one host");
    }
}

fn open(dir: &Path, now: Timestamp) -> Arc<Store> {
    let options = StoreOptions {
        retention: Some(Duration::from_secs(86_400)),
        rollup_5m: None,
        rollup_1h: None,
        disk_reserve_bytes: 0,
        series_max: 10_000_000,
        series_per_source_max: 10_000_000,
        ..StoreOptions::default()
    };
    Store::open(dir, options, &[], now).expect("the store opens")
}

/// A container's name comes once and never again.
fn labels(begin: Timestamp, host: i64, born: i64) -> Labels {
    let instance = format!("hv-{host:05}.fleet.example.net:9100");
    let container = format!("{:08x}{host:04x}{born:06x}", begin / DAY_MS);
    Labels::new([
        ("__name__", "churn"),
        ("instance", instance.as_str()),
        ("job", "node"),
        ("host", format!("hv-{host}").as_str()),
        ("container", container.as_str()),
    ])
}

/// Whole numbers, so that sums are exact.
fn value(host: i64, born: i64) -> f64 {
    (host * 7919 + born * 13 + 1) as f64
}
