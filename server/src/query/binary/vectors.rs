//! Arithmetic and comparison between two vectors: series find each other by labels, one to one or many to one.
//!
//! The streams are matched once by their labels; which of them is there is looked at step by step, since series come and
//! go. The side that may have many series is called «many» here, the other «one»; `group_right` swaps them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::query::ast::{Binary, Group, Matching};
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{ABSENT, Grid, Stream, is_absent};
use crate::query::matching::{Groups, braced, is_about_metric};
use crate::series::Labels;

use super::{drops_name, element};

/// The operator between each pair of series that belong together.
pub(super) fn eval(
    evaluator: &Evaluator<'_>,
    binary: &Binary,
    lhs: Vec<Stream>,
    rhs: Vec<Stream>,
    grid: &Grid,
) -> Result<Vec<Stream>, QueryError> {
    let matching = &binary.matching;
    let swapped = matches!(matching.group, Group::Right(_));
    let (many, one) = if swapped { (rhs, lhs) } else { (lhs, rhs) };
    let mut groups = Groups::default();
    let many_of = groups.enter_matched(&many, matching);
    let one_of = groups.enter_matched(&one, matching);
    let one_in = groups.members(&one_of);
    let many_in = groups.members(&many_of);
    let (fill_many, fill_one) =
        if swapped { (matching.fill_right, matching.fill_left) } else { (matching.fill_left, matching.fill_right) };
    let pairing = Pairing { binary, swapped, groups, many, one, fill_many, fill_one, steps: grid.count };
    pairing.check_one_side(&one_in)?;
    let mut results = Results::default();
    for group in 0..pairing.groups.len() {
        let work = (many_in[group].len() + 1) * (one_in[group].len() + 1) * grid.count;
        evaluator.worked(work as u64)?;
        results.begin_group(group);
        pairing.many_side(&mut results, group, &many_in[group], &one_in[group])?;
        pairing.unmatched_one_side(&mut results, group, &many_in[group], &one_in[group])?;
    }
    let mut streams = results.streams;
    streams.retain(|stream| !stream.is_empty());
    Ok(streams)
}

struct Pairing<'a> {
    binary: &'a Binary,
    swapped: bool,
    groups: Groups,
    many: Vec<Stream>,
    one: Vec<Stream>,
    fill_many: Option<f64>,
    fill_one: Option<f64>,
    steps: usize,
}

impl Pairing<'_> {
    fn is_one_to_one(&self) -> bool {
        self.binary.matching.group == Group::OneToOne
    }

    /// At no step may two series of the «one» side be of the same group; but where the other side has nothing at all,
    /// Prometheus does not look.
    fn check_one_side(&self, one_in: &[Vec<usize>]) -> Result<(), QueryError> {
        if one_in.iter().all(|members| members.len() < 2) {
            return Ok(());
        }
        let mut many_there = vec![self.fill_many.is_some() || self.fill_one.is_some(); self.steps];
        for stream in &self.many {
            stream.present().for_each(|(step, _)| many_there[step] = true);
        }
        for (group, members) in one_in.iter().enumerate().filter(|(_, members)| members.len() > 1) {
            for (step, _) in many_there.iter().enumerate().filter(|(_, there)| **there) {
                let mut present = members.iter().filter(|&&i| !is_absent(self.one[i].values[step]));
                if let (Some(&first), Some(&second)) = (present.next(), present.next()) {
                    return Err(QueryError::ManyToMany {
                        group: braced(&self.groups.labels[group]),
                        side: if self.swapped { "left" } else { "right" },
                        first: braced(&self.one[first].labels),
                        second: braced(&self.one[second].labels),
                    });
                }
            }
        }
        Ok(())
    }

    /// All series of the «many» side of a group, with what stands across at each step.
    fn many_side(&self, results: &mut Results, group: usize, many: &[usize], one: &[usize]) -> Result<(), QueryError> {
        for &i in many {
            let stream = &self.many[i];
            // Which result the pair with each of the «one» side goes to; the last is the filled value's.
            let mut targets: Vec<Option<usize>> = vec![None; one.len() + 1];
            for (step, value) in stream.present() {
                let across = one.iter().position(|&j| !is_absent(self.one[j].values[step]));
                let (place, other) = match (across, self.fill_one) {
                    (Some(place), _) => (place, self.one[one[place]].values[step]),
                    (None, Some(fill)) => (one.len(), fill),
                    (None, None) => continue,
                };
                let target = *targets[place].get_or_insert_with(|| {
                    let other = across.map_or(&self.groups.labels[group], |place| &self.one[one[place]].labels);
                    results.target(self.result_labels(&stream.labels, other), self.binary.returns_bool, self.steps)
                });
                self.put(results, target, step, (value, other))?;
            }
        }
        Ok(())
    }

    /// Series of the «one» side that met nobody, where a value is given for the others.
    fn unmatched_one_side(
        &self,
        results: &mut Results,
        group: usize,
        many: &[usize],
        one: &[usize],
    ) -> Result<(), QueryError> {
        let Some(fill) = self.fill_many else {
            return Ok(());
        };
        for &j in one {
            let labels = self.result_labels(&self.groups.labels[group], &self.one[j].labels);
            let target = results.target(labels, self.binary.returns_bool, self.steps);
            for (step, value) in self.one[j].present() {
                if many.iter().all(|&i| is_absent(self.many[i].values[step])) {
                    self.put(results, target, step, (fill, value))?;
                }
            }
        }
        Ok(())
    }

    fn put(
        &self,
        results: &mut Results,
        target: usize,
        step: usize,
        (many, one): (f64, f64),
    ) -> Result<(), QueryError> {
        // In a one-to-one matching any second pair of the group is an error, else only one with the same labels.
        let seen = if self.is_one_to_one() { &mut results.seen_in_group } else { &mut results.seen[target] };
        if seen.0 != results.group || seen.1.is_empty() {
            seen.0 = results.group;
            seen.1.clear();
            seen.1.resize(self.steps, false);
        }
        if std::mem::replace(&mut seen.1[step], true) {
            return Err(if self.is_one_to_one() { QueryError::ImplicitGroup } else { QueryError::GroupNotUnique });
        }
        let (lhs, rhs) = if self.swapped { (one, many) } else { (many, one) };
        let value = element(self.binary, lhs, rhs, lhs);
        if is_absent(value) {
            return Ok(());
        }
        let slot = &mut results.streams[target].values[step];
        if !is_absent(*slot) {
            return Err(QueryError::SameLabels);
        }
        *slot = value;
        Ok(())
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let Matching { on, labels, group, .. } = &self.binary.matching;
        let listed = |name: &str| labels.iter().any(|label| label == name);
        let drop_name = drops_name(self.binary) && !self.binary.op.is_comparison();
        let one_to_one = *group == Group::OneToOne;
        let kept = many.without(|name| {
            (drop_name && is_about_metric(name)) || (one_to_one && if *on { !listed(name) } else { listed(name) })
        });
        match group {
            Group::OneToOne => kept,
            Group::Left(include) | Group::Right(include) => {
                include.iter().fold(kept, |labels, name| labels.with(name, one.get(name).unwrap_or_default()))
            }
        }
    }
}

/// Result streams by their labels.
#[derive(Default)]
struct Results {
    streams: Vec<Stream>,
    by_labels: HashMap<Labels, usize>,
    /// The group at work.
    group: usize,
    /// Per stream, the group that last wrote to it and the steps at which it did, whether or not a comparison kept it.
    seen: Vec<(usize, Vec<bool>)>,
    /// The same for all streams of a group together.
    seen_in_group: (usize, Vec<bool>),
}

impl Results {
    fn begin_group(&mut self, group: usize) {
        self.group = group;
    }

    fn target(&mut self, labels: Labels, drop_name: bool, steps: usize) -> usize {
        match self.by_labels.entry(labels) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let labels = free.key().clone();
                free.insert(self.streams.len());
                self.streams.push(Stream { labels, drop_name, values: vec![ABSENT; steps] });
                self.seen.push((self.group, Vec::new()));
                self.streams.len() - 1
            }
        }
    }
}
