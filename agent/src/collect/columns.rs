//! Families that fill while rows are read: for sources that tell all about one thing at a time, where Prometheus wants all
//! things of one kind. Label sets from outside may repeat and may be many: the first counts, and there is a bound.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use super::{CollectError, Family, Kind};

/// Name, type and help of a family.
pub(crate) type Column = (&'static str, Kind, &'static str);

/// A fixed set of families.
pub(crate) struct Columns {
    families: Vec<Family>,
    /// Hashes of the label sets; two that share one by chance (1 in 10^10 here) would lose a point.
    seen: HashSet<u64>,
    dropped: usize,
}

/// Points of one source. The largest clusters we know of, 1,000 resources in five states, have half as many.
const POINTS_MAX: usize = 20_000;
/// A label value is a name; what is longer is cut.
const VALUE_BYTES_MAX: usize = 512;

impl Columns {
    /// No points yet.
    pub(crate) fn new(all: &[Column]) -> Columns {
        // On the way to the server a counter's name gets this ending, so any other name would change.
        debug_assert!(all.iter().all(|(name, kind, _)| *kind != Kind::Counter || name.ends_with("_total")));
        let families = all.iter().map(|(name, kind, help)| Family::new(*kind, *name, *help)).collect();
        Columns { families, seen: HashSet::new(), dropped: 0 }
    }

    /// Adds a point to the family `name`, which must be one of the set; not if its labels are there already.
    pub(crate) fn push(&mut self, name: &str, labels: &[(&'static str, &str)], value: f64) {
        let Some(place) = self.families.iter().position(|family| family.name == name) else {
            debug_assert!(false, "no family {name}");
            return;
        };
        if self.seen.len() >= POINTS_MAX {
            self.dropped += 1;
            return;
        }
        let mut hasher = DefaultHasher::new();
        (place, labels).hash(&mut hasher);
        if !self.seen.insert(hasher.finish()) {
            return;
        }
        if labels.iter().all(|(_, value)| value.len() <= VALUE_BYTES_MAX) {
            self.families[place].push(labels, value);
        } else {
            let cut: Vec<_> = labels.iter().map(|(name, value)| (*name, head(value))).collect();
            self.push(name, &cut, value);
        }
    }

    /// The same for a truth: 1 or 0.
    pub(crate) fn flag(&mut self, name: &str, labels: &[(&'static str, &str)], value: bool) {
        self.push(name, labels, f64::from(u8::from(value)));
    }

    /// Appends the families that have points.
    ///
    /// # Errors
    /// When points were left out because there are too many.
    pub(crate) fn append_to(self, families: &mut Vec<Family>) -> Result<(), CollectError> {
        families.extend(self.families.into_iter().filter(|family| !family.points.is_empty()));
        match self.dropped {
            0 => Ok(()),
            dropped => {
                Err(CollectError::Asked(format!("{dropped} series above the limit of {POINTS_MAX} are left out")))
            }
        }
    }

    /// What a test compares.
    #[cfg(test)]
    pub(crate) fn render(self) -> String {
        let mut families = Vec::new();
        self.append_to(&mut families).expect("a test has few points");
        super::text::render(&families)
    }

    /// The samples alone whose line the test wants.
    #[cfg(test)]
    pub(crate) fn samples(self, wanted: impl Fn(&str) -> bool) -> String {
        let text = self.render();
        text.split_inclusive('\n').filter(|line| !line.starts_with('#') && wanted(line)).collect()
    }
}

/// The beginning of a text that is too long for a label.
fn head(value: &str) -> &str {
    let end = (0..=VALUE_BYTES_MAX).rev().find(|end| value.is_char_boundary(*end));
    &value[..end.unwrap_or_default()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_labels_counts_and_points_are_bounded() {
        let mut columns = Columns::new(&[("a", Kind::Gauge, "A."), ("b", Kind::Gauge, "B.")]);
        columns.push("a", &[("x", "1")], 1.0);
        columns.push("a", &[("x", "1")], 2.0);
        columns.flag("b", &[("x", "1")], true);
        columns.push("b", &[("x", &"é".repeat(600))], 3.0);
        columns.push("b", &[("x", &("é".repeat(600) + "tail"))], 4.0);
        let text = columns.render();
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 3, "{text}");
        assert!(text.contains("a{x=\"1\"} 1\n") && text.contains("b{x=\"1\"} 1\n"), "{text}");

        let mut columns = Columns::new(&[("a", Kind::Gauge, "A.")]);
        (0..POINTS_MAX + 2).for_each(|n| columns.push("a", &[("x", &n.to_string())], 1.0));
        let mut families = Vec::new();
        let error = columns.append_to(&mut families).unwrap_err().to_string();
        assert_eq!(error, "2 series above the limit of 20000 are left out");
        assert_eq!(families[0].points.len(), POINTS_MAX);
    }
}
