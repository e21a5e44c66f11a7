//! `info`: series get the labels of the info series, `target_info` if none is named, that describe the same `instance` and
//! `job`. Labels that a series has already stay; an info series that was written later replaces an older one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::query::answer::merge;
use crate::query::ast::{Call, Edges, Expr, Selector};
use crate::query::error::QueryError;
use crate::query::eval::Evaluator;
use crate::query::eval::grid::{ABSENT, Frame, Grid, Stream};
use crate::query::matching::braced;
use crate::series::{Labels, MatchOp, Matcher, NAME};

use super::arg;

/// Labels that say what an info series describes.
const IDENTIFYING: [&str; 2] = ["instance", "job"];

/// What to add: from which metrics, and which of their labels.
struct Wanted<'a> {
    names: Vec<Matcher>,
    /// Conditions on labels; where there are none, all labels are wanted.
    labels: Vec<&'a Matcher>,
}

/// Info series by what they describe, at each step the newest.
type Described = HashMap<(String, Labels), Vec<Option<usize>>>;

/// The value of `info(v, selector)` at each step.
pub(super) fn call(evaluator: &Evaluator<'_>, call: &Call, grid: &Grid) -> Result<Frame, QueryError> {
    let base = evaluator.vector(arg(call, 0)?, grid)?;
    let wanted = wanted(call.args.get(1));
    let is_info = |stream: &Stream| wanted.names.iter().all(|name| name.matches_value(stream.labels.name()));
    let (infos, enriched): (Vec<Stream>, Vec<Stream>) = base.into_iter().partition(is_info);
    let written = match identities(&enriched) {
        Some(identities) => evaluator.sample_times(&selector(&wanted, identities, arg(call, 0)?), grid)?,
        None => Vec::new(),
    };
    let described = newest(&written, grid)?;
    let metrics: BTreeSet<&str> = written.iter().map(|stream| stream.labels.name()).collect();
    let optional = wanted.labels.iter().all(|matcher| matcher.matches_value(""));
    let mut results = infos;
    for stream in &enriched {
        let mut columns: Vec<Stream> = Vec::new();
        let slots: Vec<_> =
            metrics.iter().map(|name| described.get(&((*name).to_owned(), identity(&stream.labels)))).collect();
        for (step, value) in stream.present() {
            let found: Vec<&Labels> =
                slots.iter().flatten().filter_map(|slot| Some(&written[slot[step]?].labels)).collect();
            if found.is_empty() && !optional {
                continue;
            }
            let labels = with_labels(&stream.labels, &found, &wanted)?;
            let place = columns.iter().rposition(|column| column.labels == labels).unwrap_or(columns.len());
            if place == columns.len() {
                evaluator.hold(grid.count as u64)?;
                columns.push(Stream { labels, drop_name: stream.drop_name, values: vec![ABSENT; grid.count] });
            }
            columns[place].values[step] = value;
        }
        evaluator.worked((stream.values.len() * (1 + metrics.len())) as u64)?;
        results.extend(columns);
    }
    Ok(Frame::Vector(merge(results)?))
}

fn wanted(labels: Option<&Expr>) -> Wanted<'_> {
    let matchers: &[Matcher] = match labels.map(Expr::unwrapped) {
        Some(Expr::Selector(selector)) => &selector.matchers,
        _ => &[],
    };
    let (names, labels): (Vec<&Matcher>, Vec<&Matcher>) = matchers.iter().partition(|matcher| matcher.name == NAME);
    let mut names: Vec<Matcher> = names.into_iter().cloned().collect();
    let names_some = |matcher: &Matcher| matches!(matcher.op, MatchOp::Equal(_) | MatchOp::Regex(_));
    if names.is_empty() {
        names.push(Matcher::equal(NAME, "target_info"));
    } else if !names.iter().any(names_some) {
        // All metrics but some are not all info metrics.
        names.extend(Matcher::regex(NAME, ".+_info", false));
    }
    Wanted { names, labels }
}

fn identity(labels: &Labels) -> Labels {
    labels.without(|name| !IDENTIFYING.contains(&name))
}

/// The values of the identifying labels that occur, the empty one where some series have the label and others not; nothing
/// where none occurs.
fn identities(streams: &[Stream]) -> Option<BTreeMap<&'static str, BTreeSet<String>>> {
    let mut values: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
    for stream in streams {
        for name in IDENTIFYING {
            let value = stream.labels.get(name).unwrap_or_default();
            values.entry(name).or_default().insert(value.to_owned());
        }
    }
    values.retain(|_, values| values.iter().any(|value| !value.is_empty()));
    (!values.is_empty()).then_some(values)
}

/// Selects the info series at the time that the series themselves are from. Prometheus looks at the step's time for info samples
/// that are not newer than the end of the range less the offset, so that its answer depends on where the range ends.
fn selector(wanted: &Wanted<'_>, identities: BTreeMap<&'static str, BTreeSet<String>>, of: &Expr) -> Selector {
    let mut matchers = wanted.names.clone();
    matchers.extend(wanted.labels.iter().map(|matcher| (*matcher).clone()));
    for (name, values) in identities {
        let escaped: Vec<String> = values.iter().map(|value| regex::escape(value)).collect();
        // Very many values make a regular expression that is too large; the join does without it.
        matchers.extend(Matcher::regex(name, &escaped.join("|"), false));
    }
    let first = of.selectors().into_iter().next();
    Selector {
        matchers,
        offset_ms: first.map_or(0, |selector| selector.offset_ms),
        offset_expr: None,
        at: first.and_then(|selector| selector.at),
        edges: Edges::Open,
    }
}

/// The info series of each metric and identity at each step; of several the one with the newest sample.
fn newest(written: &[Stream], grid: &Grid) -> Result<Described, QueryError> {
    let mut described = Described::new();
    for (i, stream) in written.iter().enumerate() {
        let key = (stream.labels.name().to_owned(), identity(&stream.labels));
        let slots = described.entry(key).or_insert_with(|| vec![None; grid.count]);
        for (step, time) in stream.present() {
            let known = slots[step].map(|known| (&written[known].labels, written[known].values[step]));
            match known {
                Some((_, known)) if known > time => {}
                Some((existing, known)) if known == time => {
                    return Err(QueryError::DuplicateInfo {
                        existing: braced(existing),
                        new: braced(&stream.labels),
                        at_ms: (time * 1000.0).round() as i64,
                    });
                }
                _ => slots[step] = Some(i),
            }
        }
    }
    Ok(described)
}

/// A series' labels and those that the info series found for it add.
fn with_labels(base: &Labels, found: &[&Labels], wanted: &Wanted<'_>) -> Result<Labels, QueryError> {
    let mut added: BTreeMap<&str, &str> = BTreeMap::new();
    for info in found {
        for (name, value) in info.iter().filter(|(name, _)| *name != NAME) {
            if !wanted.labels.is_empty() && wanted.labels.iter().all(|matcher| matcher.name != name) {
                continue;
            }
            if added.get(name).is_some_and(|known| *known != value) {
                return Err(QueryError::ConflictingInfo { label: name.to_owned() });
            }
            if base.get(name).is_none() {
                added.insert(name, value);
            }
        }
    }
    Ok(added.into_iter().fold(base.clone(), |labels, (name, value)| labels.with(name, value)))
}
