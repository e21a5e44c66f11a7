//! Which series of two vectors belong together: a group for every set of the labels that are compared.

use std::collections::HashMap;

use crate::query::ast::{Grouping, Matching};
use crate::query::eval::grid::Stream;
use crate::series::{Labels, NAME};

/// The labels by which a series is compared.
pub(super) fn signature(labels: &Labels, matching: &Matching) -> Labels {
    let listed = |name: &str| matching.labels.iter().any(|label| label == name);
    if matching.on { labels.without(|name| !listed(name)) } else { labels.without(|name| name == NAME || listed(name)) }
}

/// The labels of the group that an aggregation puts a series into.
pub(super) fn group_labels(labels: &Labels, grouping: &Grouping) -> Labels {
    let listed = |name: &str| grouping.labels.iter().any(|label| label == name);
    if grouping.without {
        labels.without(|name| name == NAME || listed(name))
    } else if grouping.labels.is_empty() {
        Labels::empty()
    } else {
        labels.without(|name| !listed(name))
    }
}

/// Streams by number in groups by labels, both in the order in which they came.
#[derive(Default)]
pub(super) struct Groups {
    by_labels: HashMap<Labels, usize>,
    pub(super) labels: Vec<Labels>,
}

impl Groups {
    /// The number of the group with these labels, which is made where it is new.
    pub(super) fn enter(&mut self, labels: Labels) -> usize {
        let next = self.labels.len();
        let number = *self.by_labels.entry(labels.clone()).or_insert(next);
        if number == next {
            self.labels.push(labels);
        }
        number
    }

    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The members of each group, given the group of each stream.
    pub(super) fn members(&self, of: &[usize]) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); self.len()];
        for (stream, &group) in of.iter().enumerate() {
            members[group].push(stream);
        }
        members
    }
}

/// The group of each stream.
pub(super) fn enter_all(groups: &mut Groups, streams: &[Stream], matching: &Matching) -> Vec<usize> {
    streams.iter().map(|stream| groups.enter(signature(&stream.labels, matching))).collect()
}
