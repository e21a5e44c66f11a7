//! Aggregations that need one pass with a few numbers per group and step.

use crate::query::ast::AggregateOp;
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{ABSENT, Stream};
use crate::query::functions::{Mean, Spread, Sum};
use crate::query::matching::Groups;

use super::drops_name;

/// What is carried along for one group at one step.
trait Running: Clone + Default {
    fn add(&mut self, value: f64);
    /// `None` before the first value.
    fn result(&self) -> Option<f64>;
}

/// One stream for each group.
pub(super) fn eval(
    evaluator: &Evaluator<'_>,
    op: AggregateOp,
    streams: &[Stream],
    members: &[Vec<usize>],
    groups: Groups,
) -> Result<Vec<Stream>, QueryError> {
    let mut results = Vec::with_capacity(groups.len());
    for (members, labels) in members.iter().zip(groups.labels) {
        let values = match op {
            AggregateOp::Sum => run::<Sum>(evaluator, streams, members)?,
            AggregateOp::Avg => run::<Mean>(evaluator, streams, members)?,
            AggregateOp::Stdvar => run::<Spread>(evaluator, streams, members)?,
            AggregateOp::Stddev => {
                let mut values = run::<Spread>(evaluator, streams, members)?;
                crate::query::functions::map_values(&mut values, f64::sqrt);
                values
            }
            AggregateOp::Min => run::<Min>(evaluator, streams, members)?,
            AggregateOp::Max => run::<Max>(evaluator, streams, members)?,
            AggregateOp::Group => run::<One>(evaluator, streams, members)?,
            _ => run::<Count>(evaluator, streams, members)?,
        };
        results.push(Stream { labels, drop_name: drops_name(streams, members), values });
    }
    Ok(results)
}

fn run<R: Running>(evaluator: &Evaluator<'_>, streams: &[Stream], members: &[usize]) -> Result<Vec<f64>, QueryError> {
    let steps = members.first().map_or(0, |&i| streams[i].values.len());
    let mut running = vec![R::default(); steps];
    for &i in members {
        for (step, value) in streams[i].present() {
            running[step].add(value);
        }
        evaluator.worked(steps as u64)?;
    }
    Ok(running.iter().map(|running| running.result().unwrap_or(ABSENT)).collect())
}

impl Running for Sum {
    fn add(&mut self, value: f64) {
        Sum::add(self, value);
    }
    fn result(&self) -> Option<f64> {
        Sum::result(self)
    }
}

impl Running for Mean {
    fn add(&mut self, value: f64) {
        Mean::add(self, value);
    }
    fn result(&self) -> Option<f64> {
        Mean::result(self)
    }
}

impl Running for Spread {
    fn add(&mut self, value: f64) {
        Spread::add(self, value);
    }
    fn result(&self) -> Option<f64> {
        Spread::variance(self)
    }
}

#[derive(Clone, Default)]
struct Min(Option<f64>);

impl Running for Min {
    fn add(&mut self, value: f64) {
        // NaN gives way to any number.
        if self.0.is_none_or(|min| min > value || min.is_nan()) {
            self.0 = Some(value);
        }
    }
    fn result(&self) -> Option<f64> {
        self.0
    }
}

#[derive(Clone, Default)]
struct Max(Option<f64>);

impl Running for Max {
    fn add(&mut self, value: f64) {
        if self.0.is_none_or(|max| max < value || max.is_nan()) {
            self.0 = Some(value);
        }
    }
    fn result(&self) -> Option<f64> {
        self.0
    }
}

#[derive(Clone, Default)]
struct Count(u64);

impl Running for Count {
    fn add(&mut self, _value: f64) {
        self.0 += 1;
    }
    fn result(&self) -> Option<f64> {
        (self.0 > 0).then_some(self.0 as f64)
    }
}

#[derive(Clone, Default)]
struct One(bool);

impl Running for One {
    fn add(&mut self, _value: f64) {
        self.0 = true;
    }
    fn result(&self) -> Option<f64> {
        self.0.then_some(1.0)
    }
}
