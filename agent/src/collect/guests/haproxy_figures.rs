//! Which column of `show stat` and which line of `show info` is which metric: names, types and texts of HAProxy's own
//! Prometheus exporter (2.6), from the list `haproxy_figures.txt`. Each of its lines has whose figure it is (process, frontend,
//! backend, server), HAProxy's unit where the metric has another, type, name, HAProxy's key, and a text.

use super::super::{Family, Kind};

/// The list.
const LIST: &str = include_str!("haproxy_figures.txt");

/// Whose figures they are: the letter in the list, and the word in names.
pub(super) type Whose = (char, &'static str);

/// HAProxy itself.
pub(super) const PROCESS: Whose = ('P', "process");
/// What clients connect to.
pub(super) const FRONTEND: Whose = ('F', "frontend");
/// What serves them.
pub(super) const BACKEND: Whose = ('B', "backend");
/// One of those that do.
pub(super) const SERVER: Whose = ('S', "server");

/// How a value of HAProxy becomes a metric.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    /// The column or key.
    pub(super) key: &'static str,
    /// How many of HAProxy's units make one of the metric's.
    pub(super) unit: f64,
    metric: String,
    kind: Kind,
    help: &'static str,
}

impl Figure {
    /// The figure's family, without points yet.
    pub(super) fn family(&self) -> Family {
        Family::new(self.kind, self.metric.clone(), self.help)
    }
}

/// The figures of one kind of thing, in the list's order.
pub(super) fn figures((letter, word): Whose) -> Vec<Figure> {
    LIST.lines().filter_map(|line| figure(line, letter, word)).collect()
}

fn figure(line: &'static str, letter: char, word: &str) -> Option<Figure> {
    let (figure, help) = line.split_once(" | ")?;
    let mut fields = figure.splitn(5, ' ');
    let (whose, unit, kind, metric, key) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    whose.contains(letter).then(|| Figure {
        key,
        unit: if unit == "ms" { 1e3 } else { 1.0 },
        metric: format!("haproxy_{word}_{metric}"),
        kind: if kind == "counter" { Kind::Counter } else { Kind::Gauge },
        help,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_list_is_a_figure() {
        let of = |whose| figures(whose).len();
        assert_eq!((of(PROCESS), of(FRONTEND), of(BACKEND), of(SERVER)), (59, 26, 45, 46));
        for line in LIST.lines() {
            let whose = line.split(' ').next().unwrap();
            assert!(whose.chars().all(|letter| figure(line, letter, "x").is_some()), "{line}");
        }
    }
}
