//! Reads what others say of hosts that are silent: agents that share storage with them, and those that can ask their BMCs. From
//! their latest samples, a bounded number in a round; decides nothing. A sample that is older than its own rhythm allows says
//! nothing any more, nor does one that reaches us late.

use std::ops::ControlFlow;

use petrel_agent::error_chain::chain;

use super::testimony::{Says, Statement};
use crate::query::source::{SelectError, Source, TimeRange, View};
use crate::series::{Matcher, NAME, Sample, Timestamp};
use crate::telemetry::WITNESS_QUESTIONS;

/// The agents' own word about hosts has this job; what is scraped or pushed by others is none.
const JOB: &str = "node";
/// How far back samples are read: two and a half of the longest interval at which an agent may collect.
const WINDOW_MS: Timestamp = 150_000;
/// A statement stands for so many of its gaps, one lost or late batch included.
const GAPS: f64 = 2.5;
/// And for so long at least: the clocks of two hosts differ, and a batch takes its time.
const FRESH_MS_MIN: Timestamp = 20_000;
/// Samples read for one host and metric at most: 255 others in each of two areas, once a second.
const SAMPLES_MAX: u64 = 2 * 255 * (WINDOW_MS as u64 / 1_000);
/// Series read in a round before the other hosts are left for the next one: 80 hosts that 250 others see, tens of milliseconds.
const ROUND_SERIES_MAX: usize = 20_000;

/// Metrics with statements, and what 1 and 0 mean there.
const METRICS: [(&str, Says, Says); 2] = [
    ("petrel_storage_heartbeat_alive", Says::AliveOnStorage, Says::SilentOnStorage),
    ("petrel_bmc_power_on", Says::PowerOn, Says::PowerOff),
];

/// What is said of one host.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The host.
    pub host: String,
    /// All statements that stand now; `None` where they cannot be read, which is logged.
    pub statements: Option<Vec<Statement>>,
}

/// Asks about hosts, in their order, until all are asked or this round has read enough: those left out have no answer. Counts
/// both. O(statements).
pub fn ask(source: &dyn Source, hosts: Vec<String>, now: Timestamp) -> Vec<Answer> {
    let count = |outcome, n: usize| WITNESS_QUESTIONS.with_label_values(&[outcome]).inc_by(n as u64);
    let (mut left, mut read) = (hosts.len(), 0);
    let mut answers = Vec::with_capacity(hosts.len());
    for host in hosts {
        if read >= ROUND_SERIES_MAX {
            break;
        }
        left -= 1;
        let statements = statements(source, &host, &mut read, now)
            .inspect_err(|error| {
                tracing::warn!(error = chain(error), host, "what others say of a silent host cannot be read");
            })
            .ok();
        count(if statements.is_some() { "answered" } else { "failed" }, 1);
        answers.push(Answer { host, statements });
    }
    count("postponed", left);
    answers
}

/// The statements that stand now; adds to `read` how many series were looked at.
fn statements(
    source: &dyn Source,
    host: &str,
    read: &mut usize,
    now: Timestamp,
) -> Result<Vec<Statement>, SelectError> {
    let range = TimeRange { from: now - WINDOW_MS, to: now + FRESH_MS_MIN };
    let mut statements = Vec::new();
    for (metric, one, zero) in METRICS {
        let matchers = [Matcher::equal(NAME, metric), Matcher::equal("host", host), Matcher::equal("job", JOB)];
        let found = source.find(&matchers, range, View::PLAIN, SAMPLES_MAX)?;
        *read += found.count();
        found.read(0..found.count(), &mut |labels, samples| {
            let said = standing(samples, now).zip(labels.get("instance"));
            statements.extend(said.and_then(|(last, by)| {
                let says = if last.v == 1.0 { Some(one) } else { (last.v == 0.0).then_some(zero) };
                Some(Statement { by: by.to_owned(), at: last.t, says: says? })
            }));
            ControlFlow::Continue(())
        })?;
    }
    Ok(statements)
}

/// The last sample, if it stands for so long.
fn standing(samples: &[Sample], now: Timestamp) -> Option<Sample> {
    let (last, before) = samples.split_last()?;
    let gap_ms = before.last().map_or(0, |before| last.t - before.t) as f64;
    let fresh_ms = FRESH_MS_MIN.max((gap_ms * GAPS) as Timestamp);
    (now - last.t <= fresh_ms).then_some(*last)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::query::source::{MetricMetadata, Selected};
    use crate::series::Labels;
    use crate::store::{Batch, Store, StoreOptions};

    /// Metric, job, who says it, and when what.
    type Said = (&'static str, &'static str, String, Vec<(Timestamp, f64)>);

    /// What is said, of each host the same.
    struct Fleet {
        said: Vec<Said>,
        selects: AtomicUsize,
        fails: bool,
    }

    impl Fleet {
        fn new(said: Vec<Said>) -> Fleet {
            Fleet { said, selects: AtomicUsize::new(0), fails: false }
        }
    }

    impl Source for Fleet {
        fn select(&self, matchers: &[Matcher], range: TimeRange, _: u64) -> Result<Vec<Selected>, SelectError> {
            self.selects.fetch_add(1, Ordering::Relaxed);
            if self.fails {
                return Err(SelectError::TooManySamples { samples_max: 1 });
            }
            let asked = matchers.iter().find(|matcher| matcher.name == "host").unwrap();
            let crate::series::MatchOp::Equal(host) = &asked.op else { panic!("{asked:?}") };
            let series = self.said.iter().filter_map(|(metric, job, instance, samples)| {
                let labels = Labels::new([(NAME, *metric), ("host", host), ("instance", instance), ("job", job)]);
                let samples = samples.iter().filter(|(t, _)| (range.from..=range.to).contains(t));
                let samples: Vec<Sample> = samples.map(|(t, v)| Sample { t: *t, v: *v }).collect();
                let is_asked = matchers.iter().all(|matcher| matcher.matches(&labels));
                (is_asked && !samples.is_empty()).then_some(Selected { labels, samples })
            });
            Ok(series.collect())
        }

        fn series(&self, _: &[Vec<Matcher>], _: TimeRange) -> Result<Vec<Labels>, SelectError> {
            Ok(Vec::new())
        }

        fn metadata(&self) -> Vec<(String, MetricMetadata)> {
            Vec::new()
        }
    }

    const NOW: Timestamp = 1_000_000;
    const ALIVE: &str = METRICS[0].0;
    const POWER: &str = METRICS[1].0;

    /// What stands of one statement: seconds ago and value of its samples.
    fn stands(metric: &'static str, job: &'static str, samples: &[(Timestamp, f64)]) -> String {
        let samples = samples.iter().map(|(ago, value)| (NOW - ago * 1_000, *value)).collect();
        let fleet = Fleet::new(vec![(metric, job, "a".to_owned(), samples)]);
        let [answer] = &ask(&fleet, vec!["x".to_owned()], NOW)[..] else { panic!("one host, one answer") };
        let said = answer.statements.iter().flatten();
        let words = said.map(|one| format!("{} {:?} {}", one.by, one.says, NOW - one.at));
        words.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn old_statements_are_none() {
        assert_eq!(stands(ALIVE, "node", &[(15, 1.0), (5, 0.0)]), "a SilentOnStorage 5000", "the last one counts");
        assert_eq!(stands(ALIVE, "node", &[(40, 1.0), (30, 1.0)]), "", "too old");
        assert_eq!(stands(ALIVE, "node", &[(120, 1.0), (60, 1.0)]), "a AliveOnStorage 60000", "slow");
        assert_eq!(stands(ALIVE, "node", &[(15, 1.0), (5, f64::NAN)]), "", "ended");
        assert_eq!(stands(POWER, "node", &[(5, 0.0)]), "a PowerOff 5000");
        assert_eq!(stands(POWER, "node", &[(5, 1.0)]), "a PowerOn 5000");
        assert_eq!(stands(POWER, "node", &[(5, 0.5)]), "");
    }

    #[test]
    fn only_agents_themselves_are_witnesses() {
        assert_eq!(stands(POWER, "ipmi-exporter", &[(5, 0.0)]), "");
        assert_eq!(stands(ALIVE, "petrel", &[(5, 0.0)]), "");
    }

    #[test]
    fn a_round_is_bounded_and_what_it_leaves_out_is_counted() {
        let hosts = || -> Vec<String> { (0..1_000).map(|n| format!("x{n}")).collect() };
        let seen_by = |n: usize| (0..n).map(|n| (ALIVE, "node", format!("a{n}"), vec![(NOW, 0.0)])).collect();
        let crowd = Fleet::new(seen_by(250));
        let postponed = || WITNESS_QUESTIONS.with_label_values(&["postponed"]).get();
        let before = postponed();
        let answers = ask(&crowd, hosts(), NOW);
        assert_eq!(answers.len(), ROUND_SERIES_MAX / 250);
        assert!(postponed() - before >= 920);
        assert_eq!(crowd.selects.load(Ordering::Relaxed), 160);
        assert!(answers.iter().all(|answer| answer.statements.as_ref().is_some_and(|said| said.len() == 250)));
    }

    /// A thousand hosts that went silent one after the other, each seen by thirty, in a real store: each is asked about in a few
    /// rounds, and a round is a small part of its second.
    #[test]
    fn a_thousand_silent_hosts_are_asked_about_in_a_few_rounds() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { retention: None, disk_reserve_bytes: 0, ..StoreOptions::default() };
        let store = Store::open(dir.path(), options, &[], NOW).unwrap();
        let hosts: Vec<String> = (0..1_000).map(|n| format!("x{n}")).collect();
        let series = hosts.iter().flat_map(|host| {
            (0..30).map(move |by| {
                let by = format!("a{by}");
                let labels = [(NAME, ALIVE), ("host", host.as_str()), ("instance", by.as_str()), ("job", "node")];
                let samples = (0..15).map(|n| Sample { t: NOW - n * 10_000, v: 0.0 }).rev().collect();
                (Labels::new(labels), samples)
            })
        });
        store.append_blocking(Batch { series: series.collect(), ..Batch::default() }, NOW).unwrap();
        let mut longest = Duration::ZERO;
        for round in hosts.chunks(256) {
            let begun = Instant::now();
            let answers = ask(&*store, round.to_vec(), NOW);
            longest = longest.max(begun.elapsed());
            assert_eq!(answers.len(), round.len());
            assert!(answers.iter().all(|answer| answer.statements.as_ref().is_some_and(|said| said.len() == 30)));
        }
        println!("the longest of four rounds took {longest:?}");
        // Milliseconds, where nothing else runs; a debug build on a busy machine takes many times as long.
        assert!(longest < Duration::from_secs(5), "{longest:?}");
    }

    #[test]
    fn what_cannot_be_read_is_no_answer() {
        let broken = Fleet { fails: true, ..Fleet::new(vec![]) };
        assert_eq!(ask(&broken, vec!["x".to_owned()], NOW), [Answer { host: "x".to_owned(), statements: None }]);
    }
}
