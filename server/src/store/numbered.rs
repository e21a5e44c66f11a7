//! Series by number, in pages: numbers are given one after the other, so that those of one host lie side by side, and a page whose
//! series are all forgotten is given back. Eight bytes a series, and a look-up of the next one touches what was just read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::index::{Series, SeriesId};

/// Series in a page.
const PAGE: u64 = 256;

/// Series by number.
#[derive(Debug, Default)]
pub struct Numbered {
    pages: BTreeMap<u64, Page>,
}

/// Series of consecutive numbers.
#[derive(Debug)]
pub struct Page {
    number: u64,
    series: Vec<Option<Arc<Series>>>,
    len: usize,
}

impl Page {
    /// The series with this number, where the page has it.
    pub fn get(&self, id: SeriesId) -> Option<&Arc<Series>> {
        if id / PAGE == self.number { self.series[(id % PAGE) as usize].as_ref() } else { None }
    }
}

impl Numbered {
    /// The page that a number belongs to.
    pub fn page(&self, id: SeriesId) -> Option<&Page> {
        self.pages.get(&(id / PAGE))
    }

    /// The series with this number.
    pub fn get(&self, id: SeriesId) -> Option<&Arc<Series>> {
        self.page(id)?.get(id)
    }

    /// Looks numbers up one after the other.
    pub fn numbers(&self) -> Numbers<'_> {
        Numbers { all: self, page: None }
    }

    /// Adds a series, or replaces the one of its number.
    pub fn insert(&mut self, series: Arc<Series>) {
        let number = series.id / PAGE;
        let empty = || Page { number, series: vec![None; PAGE as usize], len: 0 };
        let page = self.pages.entry(number).or_insert_with(empty);
        let slot = series.id % PAGE;
        page.len += usize::from(page.series[slot as usize].replace(series).is_none());
    }

    /// Forgets a series.
    pub fn remove(&mut self, id: SeriesId) {
        let Some(page) = self.pages.get_mut(&(id / PAGE)) else { return };
        page.len -= usize::from(page.series[(id % PAGE) as usize].take().is_some());
        if page.len == 0 {
            self.pages.remove(&(id / PAGE));
        }
    }

    /// All series in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Series>> {
        self.pages.values().flat_map(|page| page.series.iter().flatten())
    }
}

/// Looks numbers up; one of the same page as the one before costs no search.
pub struct Numbers<'a> {
    all: &'a Numbered,
    page: Option<&'a Page>,
}

impl<'a> Numbers<'a> {
    /// The series with this number.
    pub fn get(&mut self, id: SeriesId) -> Option<&'a Arc<Series>> {
        if let Some(page) = self.page
            && id / PAGE == page.number
        {
            return page.get(id);
        }
        self.page = self.all.page(id);
        self.page?.get(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Labels;

    #[test]
    fn series_come_in_order_and_empty_pages_go() {
        let mut numbered = Numbered::default();
        for id in [600, 1, 255, 256] {
            numbered.insert(Arc::new(Series::detached(id, Labels::empty())));
        }
        numbered.insert(Arc::new(Series::detached(256, Labels::empty())));
        assert_eq!(numbered.iter().map(|series| series.id).collect::<Vec<_>>(), [1, 255, 256, 600]);
        assert!(
            numbered.get(2).is_none() && numbered.get(600).is_some() && numbered.page(256).unwrap().get(1).is_none()
        );
        let mut numbers = numbered.numbers();
        let found = [1, 2, 255, 600, 700, 256, 1].map(|id| numbers.get(id).map_or(0, |series| series.id));
        assert_eq!(found, [1, 0, 255, 600, 0, 256, 1]);
        numbered.remove(256);
        numbered.remove(256);
        assert_eq!((numbered.pages.len(), numbered.get(256).is_none()), (2, true));
    }
}
