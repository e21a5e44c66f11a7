//! Which series of two vectors belong together: a group for every set of the labels that are compared.

use std::collections::HashMap;

use crate::query::ast::{Grouping, Matching};
use crate::query::eval::grid::Stream;
use crate::query::parse::literal::quoted;
use crate::series::{Labels, NAME};

/// Labels as Prometheus writes them in errors, the name among them.
pub(super) fn braced(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// Streams by number in groups by labels, both in the order in which they came.
#[derive(Default)]
pub(super) struct Groups {
    /// By names and values that the group's labels consist of, each followed by a byte that no text has.
    by_key: HashMap<Box<[u8]>, usize>,
    key: Vec<u8>,
    pub(super) labels: Vec<Labels>,
}

impl Groups {
    /// The number of the group that consists of the labels that `keep` names; it is made where it is new. Label sets are built
    /// only for new groups.
    fn enter(&mut self, labels: &Labels, keep: impl Fn(&str) -> bool) -> usize {
        self.key.clear();
        for (name, value) in labels.iter().filter(|(name, _)| keep(name)) {
            for text in [name, value] {
                self.key.extend_from_slice(text.as_bytes());
                self.key.push(0xff);
            }
        }
        if let Some(&known) = self.by_key.get(self.key.as_slice()) {
            return known;
        }
        self.by_key.insert(self.key.as_slice().into(), self.labels.len());
        self.labels.push(labels.without(|name| !keep(name)));
        self.labels.len() - 1
    }

    /// The group of each stream of an aggregation.
    pub(super) fn enter_grouped(&mut self, streams: &[Stream], grouping: &Grouping) -> Vec<usize> {
        let keep = |name: &str| is_grouped_by(grouping, name);
        streams.iter().map(|stream| self.enter(&stream.labels, keep)).collect()
    }

    /// The group of each stream of a side of a binary operator.
    pub(super) fn enter_matched(&mut self, streams: &[Stream], matching: &Matching) -> Vec<usize> {
        let listed = |name: &str| matching.labels.iter().any(|label| label == name);
        let keep = |name: &str| if matching.on { listed(name) } else { name != NAME && !listed(name) };
        streams.iter().map(|stream| self.enter(&stream.labels, keep)).collect()
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

/// The labels of the group that an aggregation puts a series into.
pub(super) fn group_labels(labels: &Labels, grouping: &Grouping) -> Labels {
    labels.without(|name| !is_grouped_by(grouping, name))
}

fn is_grouped_by(grouping: &Grouping, name: &str) -> bool {
    let listed = grouping.labels.iter().any(|label| label == name);
    if grouping.without { name != NAME && !listed } else { listed }
}
