//! A source of series in memory, filled from lines such as `name{label="value"} 0+10x5 _ stale 7`.

use crate::query::ast::Expr;
use crate::query::parse;
use crate::query::source::{MetricMetadata, SelectError, Selected, Source, TimeRange};
use crate::series::{Labels, MatchOp, Matcher, Sample};

#[derive(Default)]
pub(crate) struct Memory {
    series: Vec<Selected>,
}

impl Memory {
    pub(crate) fn load(&mut self, step_ms: i64, line: &str) {
        let brace = line.find('}').map_or(0, |brace| brace + 1);
        let split = line[brace..].find(char::is_whitespace).expect("a space after the labels") + brace;
        let (head, values) = line.split_at(split);
        let Expr::Selector(selector) = parse(head).expect("a series") else { panic!("{head} is no series") };
        let labels = Labels::new(selector.matchers.into_iter().map(|matcher| match matcher.op {
            MatchOp::Equal(value) => (matcher.name, value),
            _ => panic!("{head} is no series"),
        }));
        let mut samples = Vec::new();
        let mut place = 0;
        for token in values.split_whitespace() {
            for value in expand(token) {
                let t = place * step_ms;
                samples.extend(value.map(|v| Sample { t, v }));
                place += 1;
            }
        }
        self.series.push(Selected { labels, samples });
    }
}

/// `5`, `_`, `stale`, `_x3`, `1+2x3`, `1-2x3`, `1x3`.
fn expand(token: &str) -> Vec<Option<f64>> {
    let float = |text: &str| text.parse::<f64>().unwrap_or_else(|_| panic!("{token} is no value"));
    let Some((what, times)) = token.split_once('x') else {
        return vec![match token {
            "_" => None,
            "stale" => Some(Sample::stale(0).v),
            _ => Some(float(token)),
        }];
    };
    let times: usize = times.parse().expect("a count");
    if what == "_" {
        return vec![None; times];
    }
    let sign = what.char_indices().skip(1).find(|(_, c)| matches!(c, '+' | '-')).map_or(what.len(), |(i, _)| i);
    let (start, by) = what.split_at(sign);
    let by = if by.is_empty() { 0.0 } else { float(by) };
    (0..=times).map(|i| Some(float(start) + by * i as f64)).collect()
}

impl Source for Memory {
    fn select(&self, matchers: &[Matcher], range: TimeRange, samples_max: u64) -> Result<Vec<Selected>, SelectError> {
        let mut selected = Vec::new();
        let mut left = samples_max;
        for series in self.series.iter().filter(|series| matchers.iter().all(|m| m.matches(&series.labels))) {
            let within = |sample: &&Sample| (range.from..=range.to).contains(&sample.t);
            let samples: Vec<Sample> = series.samples.iter().filter(within).copied().collect();
            left = left.checked_sub(samples.len() as u64).ok_or(SelectError::TooManySamples { samples_max })?;
            if !samples.is_empty() {
                selected.push(Selected { labels: series.labels.clone(), samples });
            }
        }
        Ok(selected)
    }

    fn series(&self, any_of: &[Vec<Matcher>], _range: TimeRange) -> Result<Vec<Labels>, SelectError> {
        let fits = |labels: &Labels| {
            any_of.is_empty() || any_of.iter().any(|matchers| matchers.iter().all(|m| m.matches(labels)))
        };
        Ok(self.series.iter().map(|series| series.labels.clone()).filter(fits).collect())
    }

    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        Vec::new()
    }
}
