//! How often a query reads from its source: a selector that stands there twice is read once, and the answer stays the same.

use std::sync::Mutex;

use crate::query::source::{MetricMetadata, Note, SelectError, Selected, Selection, Show, Source, TimeRange, View};
use crate::query::{Limits, Stats, StepRange, instant, parse, range};
use crate::series::{Labels, Matcher};

use super::{Memory, show};

/// Notes each read.
struct Counting {
    memory: Memory,
    /// Says that it shows summaries.
    summarizes: bool,
    reads: Mutex<Vec<TimeRange>>,
}

impl Counting {
    fn new(summarizes: bool) -> Counting {
        let mut memory = Memory::default();
        memory.load(30_000, r#"a_total{i="1"} 0+10x40"#);
        memory.load(30_000, r#"a_total{i="2"} 0+30x40"#);
        Counting { memory, summarizes, reads: Mutex::default() }
    }

    /// Reads by an instant and by a range query; both answer as queries do that read each selector by itself.
    fn reads(&self, text: &str) -> [usize; 2] {
        // A second matcher that changes nothing keeps selectors from being alike.
        let mut parts = text.split("a_total");
        let first = parts.next().unwrap_or_default().to_owned();
        let apart = parts.enumerate().fold(first, |apart, (i, part)| {
            let matcher = format!("{{n{i}=\"\"}}");
            apart + "a_total" + &matcher + part
        });
        let steps = StepRange { start: 0, end: 1_200_000, step_ms: 60_000 };
        let limits = Limits { counts_samples: true, ..Limits::default() };
        let [(at, at_reads), (over, over_reads), (at_apart, _), (over_apart, _)] =
            [(text, false), (text, true), (&apart, false), (&apart, true)].map(|(text, is_range)| {
                let expr = parse(text).unwrap();
                let answer = if is_range {
                    range(self, &expr, steps, &limits)
                } else {
                    instant(self, &expr, 1_200_000, &limits)
                };
                let answer = answer.unwrap();
                let looked_at = answer.stats.as_ref().map(Stats::total);
                ((looked_at, show(answer)), std::mem::take(&mut *self.reads.lock().unwrap()).len())
            });
        assert_eq!((at, over), (at_apart, over_apart), "{text} and {apart}");
        [at_reads, over_reads]
    }
}

impl Source for Counting {
    fn select(&self, matchers: &[Matcher], range: TimeRange, samples_max: u64) -> Result<Vec<Selected>, SelectError> {
        self.reads.lock().unwrap().push(range);
        self.memory.select(matchers, range, samples_max)
    }

    fn find<'a>(
        &'a self,
        matchers: &[Matcher],
        range: TimeRange,
        _view: View,
        samples_max: u64,
    ) -> Result<Box<dyn Selection + 'a>, SelectError> {
        let found = self.select(matchers, range, samples_max)?;
        Ok(if self.summarizes { Box::new(Summary(found)) } else { Box::new(found) })
    }

    fn series(&self, any_of: &[Vec<Matcher>], range: TimeRange) -> Result<Vec<Labels>, SelectError> {
        self.memory.series(any_of, range)
    }

    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        Vec::new()
    }
}

struct Summary(Vec<Selected>);

impl Selection for Summary {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn read(&self, numbers: std::ops::Range<usize>, show: &mut Show<'_>) -> Result<(), SelectError> {
        self.0.read(numbers, show)
    }

    fn notes(&self) -> Vec<Note> {
        vec![Note::Info("these are summaries".to_owned())]
    }
}

#[test]
fn what_stands_twice_is_read_once() {
    let source = Counting::new(false);
    for (text, reads) in [
        ("a_total", 1),
        ("a_total / a_total", 1),
        ("rate(a_total[5m]) / on() group_left sum(rate(a_total[5m]))", 1),
        ("max_over_time(a_total[5m]) - min_over_time(a_total[5m]) + count_over_time(a_total[5m])", 1),
        ("a_total offset 1m - a_total offset 1m @ 600 + a_total offset 1m", 2),
        // The lookback is five minutes, and so is the window.
        ("a_total + last_over_time(a_total[5m])", 1),
        ("a_total + timestamp(a_total)", 1),
        // Other times, other samples.
        ("a_total - a_total offset 1m", 2),
        ("rate(a_total[5m]) / rate(a_total[6m])", 2),
        ("rate(a_total[5m]) / rate(a_total[5m] smoothed)", 2),
        ("max_over_time(a_total[5m:1m]) / max_over_time(a_total[5m:1m])", 1),
        ("a_total @ 600 + max_over_time(a_total[10m:1m])", 2),
    ] {
        assert_eq!(source.reads(text), [reads; 2], "{text}");
    }
    // The same selector at other steps, in a subquery: each by itself.
    assert_eq!(source.reads("a_total + max_over_time(a_total[10m:1m])"), [2, 2]);
}

#[test]
fn summaries_are_read_for_each_view() {
    let source = Counting::new(true);
    assert_eq!(source.reads("max_over_time(a_total[5m]) - min_over_time(a_total[5m])"), [2, 2]);
    assert_eq!(source.reads("rate(a_total[5m]) / increase(a_total[5m])"), [1, 1]);
}

#[test]
fn what_is_kept_counts_until_its_last_use() {
    let source = Counting::new(false);
    let peak = |text: &str| {
        let limits = Limits { counts_samples: true, ..Limits::default() };
        instant(&source, &parse(text).unwrap(), 1_200_000, &limits).unwrap().stats.unwrap().peak
    };
    // Two series with ten samples in five minutes, and a value each.
    assert_eq!(peak("rate(a_total[5m])"), 22);
    assert_eq!(peak("rate(a_total[5m]) + rate(a_total[5m])"), 24);
    assert_eq!(peak("rate(a_total[5m]) + rate(a_total[5m]) + rate(a_total[6m])"), 28);
    // Kept for steps that nobody asks for again: let go of with the last of the selector.
    let (alike, apart) = ("a_total + max_over_time(a_total[1m:1m])", "a_total + max_over_time(a_total{n=''}[1m:1m])");
    assert_eq!(peak(&format!("{alike} + rate(a_total[15m])")), peak(&format!("{apart} + rate(a_total[15m])")));
    let few = Limits { samples_max: 23, ..Limits::default() };
    let error = instant(&source, &parse("rate(a_total[5m]) + rate(a_total[5m])").unwrap(), 1_200_000, &few);
    assert_eq!(error.unwrap_err().kind(), "execution");
}
