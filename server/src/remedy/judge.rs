//! PromQL conditions of guards and verifications: the one place where remedy asks the query engine. It reads; it never decides what
//! follows from an answer. A condition that cannot be evaluated does not hold.

use petrel_agent::error_chain::chain;

use super::event::{Objection, Question};
use super::run::Condition;
use super::runbook::Is;
use crate::query::source::{MetricMetadata, SelectError, Selected, Selection, Source, TimeRange, View};
use crate::query::{Limits, Value, instant, parse};
use crate::series::{Labels, Matcher, NAME, Timestamp};

/// Samples that one condition may load; one that needs more is a report, not a guard.
const SAMPLES_MAX: u64 = 5_000_000;
/// How long one condition may take: a tick waits for it.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// Whether a text is PromQL that we can evaluate.
///
/// # Errors
/// The parser's word, with the position in the expression.
pub fn check(promql: &str) -> Result<(), String> {
    parse(promql).map(|_| ()).map_err(|error| error.to_string())
}

/// Judges a question over samples at `now`.
///
/// # Errors
/// The first condition that does not hold, in words for the journal.
pub fn judge(source: &dyn Source, question: &Question, now: Timestamp) -> Result<(), Objection> {
    if let Some((host, history_ms)) = &question.history {
        has_history(source, host, *history_ms, now)?;
    }
    let clipped = question.after.map(|after| After { source, after });
    let source = clipped.as_ref().map_or(source, |clipped| clipped as &dyn Source);
    question.conditions.iter().try_for_each(|condition| {
        let answered = holds(source, &condition.promql, now);
        let Condition { promql, is, reason } = condition;
        match answered {
            Ok(holds) if holds == (*is == Is::True) => Ok(()),
            Ok(_) => Err(Objection { reason: reason.clone() }),
            Err(said) => Err(Objection { reason: format!("{reason}: `{promql}` cannot be evaluated: {said}") }),
        }
    })
}

/// Whether an expression answers at least one element; a scalar, whether it is neither zero nor NaN.
fn holds(source: &dyn Source, promql: &str, now: Timestamp) -> Result<bool, String> {
    let expression = parse(promql).map_err(|error| error.to_string())?;
    let limits = Limits { samples_max: SAMPLES_MAX, timeout: TIMEOUT, ..Limits::default() };
    match instant(source, &expression, now, &limits).map_err(|error| chain(&error))?.value {
        Value::Scalar(_, value) => Ok(value != 0.0 && !value.is_nan()),
        Value::Vector(elements) => Ok(!elements.is_empty()),
        Value::Matrix(_) | Value::Text(_) => Err("a condition is a scalar or an instant vector".to_owned()),
    }
}

/// A host has been watched for long enough where its `up` has a sample that old; where nothing writes `up`, any of its series.
fn has_history(source: &dyn Source, host: &str, history_ms: i64, now: Timestamp) -> Result<(), Objection> {
    let by_host = Matcher::equal("instance", host);
    // Half as much again, and an hour, so that a gap just there does not count as no history.
    let range = TimeRange { from: now - history_ms - history_ms / 2 - 3_600_000, to: now - history_ms };
    let wide = TimeRange { from: i64::MIN / 2, to: now };
    let objection = |reason| Err(Objection { reason });
    let up = [Matcher::equal(NAME, "up"), by_host.clone()];
    match source.select(&up, range, SAMPLES_MAX) {
        Ok(found) if !found.is_empty() => return Ok(()),
        Err(SelectError::TooManySamples { .. }) => return Ok(()),
        Ok(_) => {}
        Err(error) => return objection(format!("the history of {host} cannot be read: {error}")),
    }
    let has = |matchers: &[Matcher], range| source.series(&[matchers.to_vec()], range).map(|found| !found.is_empty());
    // Where there is `up`, it alone says since when; the other series may be older than the agent.
    match (has(&up, wide), has(&[by_host], range)) {
        (Ok(false), Ok(true)) => Ok(()),
        _ => objection(format!(
            "{host} has been watched for less than {} s, which the runbook asks for",
            history_ms / 1000
        )),
    }
}

/// A source that shows only samples stamped later than `after`.
struct After<'a> {
    source: &'a dyn Source,
    after: Timestamp,
}

impl After<'_> {
    fn clip(&self, range: TimeRange) -> Option<TimeRange> {
        let from = range.from.max(self.after + 1);
        (from <= range.to).then_some(TimeRange { from, to: range.to })
    }
}

impl Source for After<'_> {
    fn select(&self, matchers: &[Matcher], range: TimeRange, samples_max: u64) -> Result<Vec<Selected>, SelectError> {
        self.clip(range).map_or(Ok(Vec::new()), |range| self.source.select(matchers, range, samples_max))
    }

    fn find<'b>(
        &'b self,
        matchers: &[Matcher],
        range: TimeRange,
        view: View,
        samples_max: u64,
    ) -> Result<Box<dyn Selection + 'b>, SelectError> {
        match self.clip(range) {
            Some(range) => self.source.find(matchers, range, view, samples_max),
            None => Ok(Box::new(Vec::new())),
        }
    }

    fn series(&self, any_of: &[Vec<Matcher>], range: TimeRange) -> Result<Vec<Labels>, SelectError> {
        self.clip(range).map_or(Ok(Vec::new()), |range| self.source.series(any_of, range))
    }

    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        self.source.metadata()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::series::Sample;

    /// Series in memory.
    #[derive(Default)]
    pub(crate) struct Held(pub(crate) Vec<Selected>);

    impl Held {
        /// One series of `(seconds, value)` samples.
        pub(crate) fn with(mut self, name: &str, instance: &str, samples: &[(i64, f64)]) -> Held {
            let labels = Labels::new([(NAME, name), ("instance", instance)]);
            let samples = samples.iter().map(|&(t, v)| Sample { t: t * 1000, v }).collect();
            self.0.push(Selected { labels, samples });
            self
        }
    }

    impl Source for Held {
        fn select(&self, matchers: &[Matcher], range: TimeRange, _: u64) -> Result<Vec<Selected>, SelectError> {
            let wanted = self.0.iter().filter(|series| matchers.iter().all(|matcher| matcher.matches(&series.labels)));
            let clipped = wanted.map(|series| Selected {
                labels: series.labels.clone(),
                samples: series.samples.iter().copied().filter(|s| (range.from..=range.to).contains(&s.t)).collect(),
            });
            Ok(clipped.filter(|series| !series.samples.is_empty()).collect())
        }

        fn series(&self, any_of: &[Vec<Matcher>], range: TimeRange) -> Result<Vec<Labels>, SelectError> {
            let found = any_of.iter().map(|matchers| self.select(matchers, range, 0)).collect::<Result<Vec<_>, _>>()?;
            Ok(found.into_iter().flatten().map(|series| series.labels).collect())
        }

        fn metadata(&self) -> Vec<(String, MetricMetadata)> {
            Vec::new()
        }
    }

    fn ask(promql: &str, is: Is, after: Option<i64>) -> String {
        let source = Held::default().with("free", "web1", &[(100, 10.0), (160, 30.0)]);
        let condition = Condition { promql: promql.to_owned(), is, reason: "too full".to_owned() };
        let after = after.map(|seconds| seconds * 1000);
        let question = Question { run: 1, revision: 1, conditions: vec![condition], after, history: None };
        judge(&source, &question, 200_000).err().map_or("holds".to_owned(), |objection| objection.reason)
    }

    #[test]
    fn conditions_hold_or_tell_their_reason() {
        assert_eq!(ask("free > 20", Is::True, None), "holds");
        assert_eq!(ask("free > 50", Is::True, None), "too full");
        assert_eq!(ask("free > 50", Is::Empty, None), "holds");
        // As in an alerting rule: a comparison that holds answers elements, whatever their value.
        assert_eq!(ask("free - 30 == 0", Is::True, None), "holds");
        assert_eq!(ask("scalar(free) - 30", Is::True, None), "too full");
        assert!(ask("free[5m]", Is::True, None).contains("cannot be evaluated"));
    }

    #[test]
    fn a_proof_reads_only_samples_after_the_step_ended() {
        assert_eq!(ask("free", Is::True, Some(159)), "holds");
        assert_eq!(ask("free", Is::True, Some(160)), "too full");
        assert_eq!(ask("max_over_time(free[5m]) - min_over_time(free[5m]) == 0", Is::True, Some(120)), "holds");
    }

    #[test]
    fn a_host_that_is_hardly_known_is_not_acted_on() {
        let history = |source: Held| {
            let question = Question {
                run: 1,
                revision: 1,
                conditions: vec![],
                after: None,
                history: Some(("web1".to_owned(), 3_600_000)),
            };
            judge(&source, &question, 10_000_000).is_ok()
        };
        assert!(!history(Held::default()));
        assert!(history(Held::default().with("up", "web1", &[(6000, 1.0)])));
        assert!(!history(Held::default().with("up", "web1", &[(9000, 1.0)])));
        assert!(!history(Held::default().with("up", "web1", &[(9000, 1.0)]).with("load", "web1", &[(6000, 1.0)])));
        assert!(history(Held::default().with("load", "web1", &[(6000, 1.0)])));
    }
}
