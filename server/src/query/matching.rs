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

/// Whether a label tells of the metric and not of what is measured: the name and, from senders with Prometheus'
/// `type-and-unit-labels`, the type and the unit. They go together when a value is no longer that metric.
pub(super) fn is_about_metric(label: &str) -> bool {
    matches!(label, NAME | "__type__" | "__unit__")
}

/// The labels that decide which group a series belongs to.
#[derive(Clone, Copy)]
enum Key<'a> {
    /// These.
    Of(&'a [String]),
    /// All but these and the metric's name.
    Without(&'a [String]),
    /// All but these and what is about the metric.
    Unmatched(&'a [String]),
}

impl Key<'_> {
    fn has(self, name: &str) -> bool {
        let listed = |labels: &[String]| labels.iter().any(|label| label == name);
        match self {
            Key::Of(labels) => listed(labels),
            Key::Without(labels) => name != NAME && !listed(labels),
            Key::Unmatched(labels) => !is_about_metric(name) && !listed(labels),
        }
    }

    /// Bytes that two series have in common only if they belong to one group: no text has the byte that ends each.
    fn write(self, labels: &Labels, out: &mut Vec<u8>) {
        let mut put = |text: &str| {
            out.extend_from_slice(text.as_bytes());
            out.push(0xff);
        };
        match self {
            Key::Of(names) => names.iter().for_each(|name| put(labels.get(name).unwrap_or(""))),
            Key::Without(_) | Key::Unmatched(_) => {
                labels.iter().filter(|(name, _)| self.has(name)).for_each(|(name, value)| {
                    put(name);
                    put(value);
                });
            }
        }
    }
}

impl<'a> From<&'a Grouping> for Key<'a> {
    fn from(grouping: &'a Grouping) -> Key<'a> {
        if grouping.without { Key::Without(&grouping.labels) } else { Key::Of(&grouping.labels) }
    }
}

impl<'a> From<&'a Matching> for Key<'a> {
    fn from(matching: &'a Matching) -> Key<'a> {
        if matching.on { Key::Of(&matching.labels) } else { Key::Unmatched(&matching.labels) }
    }
}

/// Streams by number in groups by labels, both in the order in which they came. Label sets are built only for new groups.
#[derive(Default)]
pub(super) struct Groups {
    by_key: HashMap<Box<[u8]>, usize, foldhash::quality::RandomState>,
    pub(super) labels: Vec<Labels>,
}

impl Groups {
    /// The group of each stream of an aggregation.
    pub(super) fn enter_grouped(&mut self, streams: &[Stream], grouping: &Grouping) -> Vec<usize> {
        self.enter(streams, grouping.into())
    }

    /// The group of each stream of a side of a binary operator.
    pub(super) fn enter_matched(&mut self, streams: &[Stream], matching: &Matching) -> Vec<usize> {
        self.enter(streams, matching.into())
    }

    fn enter(&mut self, streams: &[Stream], key: Key<'_>) -> Vec<usize> {
        let mut bytes = Vec::new();
        let group_of = |stream: &Stream| {
            bytes.clear();
            key.write(&stream.labels, &mut bytes);
            if let Some(&known) = self.by_key.get(bytes.as_slice()) {
                return known;
            }
            self.by_key.insert(bytes.as_slice().into(), self.labels.len());
            self.labels.push(stream.labels.without(|name| !key.has(name)));
            self.labels.len() - 1
        };
        streams.iter().map(group_of).collect()
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
    let key = Key::from(grouping);
    labels.without(|name| !key.has(name))
}
