//! Samples that stand more than once in a query, as `a` in `a / sum(a)`: they are read from the source once and kept until the last of
//! its selectors has had them. What is large is not kept: reading it again costs less than the memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::query::ast::{Expr, Selector};
use crate::query::source::{Selected, TimeRange, View};

/// Samples kept of one selector, 16 bytes each.
pub(super) const KEPT_SAMPLES_MAX: u64 = 1 << 20;

/// A selector as it is written, and the width of its window or lookback.
type Key = (String, i64);

/// What the selectors of a query share.
pub(super) struct Shared {
    /// How often each selector that stands there more than once is still to come.
    to_come: RefCell<HashMap<Key, usize>>,
    kept: RefCell<Vec<Kept>>,
}

/// The samples of a selector.
struct Kept {
    key: Key,
    range: TimeRange,
    /// Through which view they were seen; any shows the same where there is none.
    view: Option<View>,
    series: Rc<Vec<Selected>>,
}

/// What a selector finds.
pub(super) enum Turn {
    /// Nothing, and nobody needs what it reads; so many samples that were kept for it are let go of.
    Alone(u64),
    /// Nothing; what it reads is to be kept.
    First(Key),
    /// Its samples; so many that were kept are let go of now.
    Again(Rc<Vec<Selected>>, u64),
}

impl Shared {
    /// Counts the selectors of an expression.
    pub(super) fn of(expr: &Expr, lookback_ms: i64) -> Shared {
        let mut found = Vec::new();
        expr.each_selector(&mut |selector, range_ms| found.push((selector, range_ms.unwrap_or(lookback_ms))));
        let mut to_come: HashMap<Key, usize> = HashMap::new();
        if found.len() > 1 {
            for (selector, width_ms) in found {
                *to_come.entry((selector.to_string(), width_ms)).or_default() += 1;
            }
            to_come.retain(|_, times| *times > 1);
        }
        Shared { to_come: RefCell::new(to_come), kept: RefCell::default() }
    }

    /// What there is for a selector whose turn it is.
    pub(super) fn turn(&self, selector: &Selector, range: TimeRange, view: View) -> Turn {
        let mut to_come = self.to_come.borrow_mut();
        if to_come.is_empty() {
            return Turn::Alone(0);
        }
        let key = (selector.to_string(), view.window_ms);
        let Some(times) = to_come.get_mut(&key).filter(|times| **times > 0) else { return Turn::Alone(0) };
        *times -= 1;
        let is_last = *times == 0;
        let mut kept = self.kept.borrow_mut();
        let fits = |one: &Kept| one.key == key && one.range == range && one.view.is_none_or(|seen| seen == view);
        let found = kept.iter().find(|one| fits(one)).map(|one| Rc::clone(&one.series));
        // What was kept at other times of the same selector goes with the last of them, too.
        let mut let_go = 0;
        if is_last {
            kept.retain(|one| {
                let stays = one.key != key;
                let_go += if stays { 0 } else { samples_of(&one.series) };
                stays
            });
        }
        match found {
            Some(series) => Turn::Again(series, let_go),
            None if is_last => Turn::Alone(let_go),
            None => Turn::First(key),
        }
    }

    /// Keeps what a selector read.
    pub(super) fn keep(&self, key: Key, range: TimeRange, view: Option<View>, series: Vec<Selected>) {
        self.kept.borrow_mut().push(Kept { key, range, view, series: Rc::new(series) });
    }
}

pub(super) fn samples_of(series: &[Selected]) -> u64 {
    series.iter().map(|one| one.samples.len() as u64).sum()
}
