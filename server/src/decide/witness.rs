//! What others say of a host that is silent: agents that share storage with it, and those that can ask its BMC. Read from their
//! latest samples; decides nothing. A sample that is older than its own rhythm allows says nothing any more, nor does one
//! that reaches us late.

use petrel_agent::error_chain::chain;

use super::verdict::Witnessed;
use crate::query::source::{Source, TimeRange};
use crate::series::{Matcher, NAME, Timestamp};

/// Statements of agents that see the host's record on storage: 1 alive, 0 not.
const ALIVE_ON_STORAGE: &str = "petrel_storage_heartbeat_alive";
/// Statements of agents that ask its BMC: 1 on, 0 off.
const POWER_ON: &str = "petrel_bmc_power_on";
/// How far back samples are read: two and a half of the longest interval at which an agent may collect.
const WINDOW_MS: Timestamp = 150_000;
/// A statement stands for so many of its gaps, one lost or late batch included.
const GAPS: f64 = 2.5;
/// And for so long at least: the clocks of two hosts differ, and a batch takes its time.
const FRESH_MS_MIN: Timestamp = 20_000;
/// Samples read for one host at most: 255 others, each once a second.
const SAMPLES_MAX: u64 = 255 * 2 * (WINDOW_MS as u64 / 1_000);

/// What others say of a host at `now`. What cannot be read is logged and counts as nothing said.
pub fn ask(source: &dyn Source, host: &str, now: Timestamp) -> Witnessed {
    let alive = statements(source, ALIVE_ON_STORAGE, host, now);
    let power = statements(source, POWER_ON, host, now);
    let storage_alive = if alive.contains(&1.0) { Some(true) } else { alive.contains(&0.0).then_some(false) };
    Witnessed { storage_alive, power_off: power.contains(&0.0) && !power.contains(&1.0) }
}

/// The values that stand now, of all who say one.
fn statements(source: &dyn Source, metric: &str, host: &str, now: Timestamp) -> Vec<f64> {
    let matchers = [Matcher::equal(NAME, metric), Matcher::equal("host", host)];
    let range = TimeRange { from: now - WINDOW_MS, to: now + FRESH_MS_MIN };
    let found = source.select(&matchers, range, SAMPLES_MAX).unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), host, metric, "what others say of a silent host cannot be read");
        Vec::new()
    });
    let last = found.iter().filter_map(|series| {
        let (last, before) = series.samples.split_last()?;
        let gap_ms = before.last().map_or(0, |before| last.t - before.t) as f64;
        let fresh_ms = FRESH_MS_MIN.max((gap_ms * GAPS) as Timestamp);
        (now - last.t <= fresh_ms).then_some(last.v)
    });
    last.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::source::{MetricMetadata, SelectError, Selected};
    use crate::series::{Labels, Sample};

    /// Metric, who says it, and when what.
    type Statement = (&'static str, &'static str, Vec<(Timestamp, f64)>);

    /// What is said about host `x`.
    struct Said(Vec<Statement>);

    impl Source for Said {
        fn select(&self, matchers: &[Matcher], range: TimeRange, _: u64) -> Result<Vec<Selected>, SelectError> {
            let series = self.0.iter().filter_map(|(metric, instance, samples)| {
                let labels = Labels::new([(NAME, *metric), ("host", "x"), ("instance", instance)]);
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

    fn asked(said: Vec<Statement>) -> (Option<bool>, bool) {
        let Witnessed { storage_alive, power_off } = ask(&Said(said), "x", NOW);
        (storage_alive, power_off)
    }

    #[test]
    fn one_who_sees_it_alive_is_enough_and_old_statements_are_none() {
        let said = |instance, samples: &[(Timestamp, f64)]| (ALIVE_ON_STORAGE, instance, samples.to_vec());
        assert_eq!(asked(vec![]), (None, false));
        let a = said("a", &[(NOW - 15_000, 1.0), (NOW - 5_000, 0.0)]);
        assert_eq!(asked(vec![a.clone()]), (Some(false), false), "the last one counts");
        assert_eq!(asked(vec![a, said("b", &[(NOW - 9_000, 1.0)])]), (Some(true), false));
        assert_eq!(asked(vec![said("a", &[(NOW - 40_000, 1.0), (NOW - 30_000, 1.0)])]), (None, false), "too old");
        assert_eq!(asked(vec![said("a", &[(NOW - 120_000, 1.0), (NOW - 60_000, 1.0)])]), (Some(true), false), "slow");
        assert_eq!(asked(vec![said("a", &[(NOW - 15_000, 1.0), (NOW - 5_000, f64::NAN)])]), (None, false), "ended");
    }

    #[test]
    fn power_is_off_only_where_nobody_says_otherwise() {
        let said = |instance, value| (POWER_ON, instance, vec![(NOW - 5_000, value)]);
        assert_eq!(asked(vec![said("a", 1.0)]), (None, false));
        assert_eq!(asked(vec![said("a", 0.0)]), (None, true));
        assert_eq!(asked(vec![said("a", 0.0), said("b", 1.0)]), (None, false));
    }
}
