//! Which labels are taken, whatever protocol they came by.

use std::fmt;

use super::problems::Problems;
use crate::series::Labels;

/// What labels may be. Series that the store knows were checked when they came first and are not looked at again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelLimits {
    /// Most labels of a series, its name among them.
    pub labels_max: usize,
    /// Longest name of a label, in bytes.
    pub name_bytes_max: usize,
    /// Longest value of a label, in bytes; a metric's name is such a value.
    pub value_bytes_max: usize,
}

/// Prometheus users rarely have forty labels; paths and queries of a URL are the longest values that make sense.
impl Default for LabelLimits {
    fn default() -> LabelLimits {
        LabelLimits { labels_max: 128, name_bytes_max: 512, value_bytes_max: 4_096 }
    }
}

/// Why a series is not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LabelError {
    /// A name with bytes that are no text.
    #[error("label name `{name}` is not UTF-8")]
    NameNotText {
        /// The name, with marks where it is broken.
        name: String,
    },
    /// A value with bytes that are no text.
    #[error("value `{value}` of label `{name}` is not UTF-8")]
    ValueNotText {
        /// The label.
        name: String,
        /// The value, with marks where it is broken.
        value: String,
    },
    /// Order or uniqueness is broken.
    #[error("label `{name}` after `{before}` is not sorted, or given twice")]
    NotSorted {
        /// The label.
        name: String,
        /// The one before it.
        before: String,
    },
    /// A label without a name.
    #[error("label without a name, with the value `{value}`")]
    EmptyName {
        /// Its value.
        value: String,
    },
    /// A series without a metric name.
    #[error("series {labels} has no metric name")]
    NoMetricName {
        /// Its labels.
        labels: Labels,
    },
    /// Too many.
    #[error("write.labels_max: series has {found} labels, at most {labels_max} are taken")]
    TooMany {
        /// How many.
        found: usize,
        /// The limit.
        labels_max: usize,
    },
    /// A name is too long. It stands last, because answers cut long reasons off.
    #[error("write.label_name_bytes_max: label name has {found} bytes, at most {bytes_max} are taken: `{name}`")]
    NameTooLong {
        /// Its length.
        found: usize,
        /// The limit.
        bytes_max: usize,
        /// The label.
        name: String,
    },
    /// A value is too long.
    #[error("write.label_value_bytes_max: value has {found} bytes, at most {bytes_max} are taken, of label `{name}`")]
    ValueTooLong {
        /// Its length.
        found: usize,
        /// The limit.
        bytes_max: usize,
        /// The label.
        name: String,
    },
}

impl LabelError {
    /// Whether a limit is met, which the operator can set; otherwise the sender is wrong.
    fn is_limit(&self) -> bool {
        matches!(self, LabelError::TooMany { .. } | LabelError::NameTooLong { .. } | LabelError::ValueTooLong { .. })
    }

    /// Notes that so many samples were refused for this; `subject` says whose, and may be empty.
    pub fn note(&self, problems: &mut Problems, count: u64, subject: impl fmt::Display) {
        let reason = format_args!("{subject}{self}");
        if self.is_limit() { problems.add_over_limit(count, reason) } else { problems.add(count, reason) }
    }
}

impl LabelLimits {
    /// Checks the number alone, for callers whose way to the labels costs more than O(n).
    ///
    /// # Errors
    /// There are too many.
    pub fn check_count(&self, found: usize) -> Result<(), LabelError> {
        let labels_max = self.labels_max;
        if found > labels_max { Err(LabelError::TooMany { found, labels_max }) } else { Ok(()) }
    }

    /// Checks number and lengths.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check<'a>(&self, pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> Result<(), LabelError> {
        self.check_count(pairs.len())?;
        for (name, value) in pairs {
            if name.is_empty() {
                return Err(LabelError::EmptyName { value: value.to_owned() });
            }
            if name.len() > self.name_bytes_max {
                let (found, bytes_max) = (name.len(), self.name_bytes_max);
                return Err(LabelError::NameTooLong { found, bytes_max, name: name.to_owned() });
            }
            if value.len() > self.value_bytes_max {
                let (found, bytes_max) = (value.len(), self.value_bytes_max);
                return Err(LabelError::ValueTooLong { found, bytes_max, name: name.to_owned() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_names_its_key_and_counts_as_one() {
        let limits = LabelLimits { labels_max: 2, name_bytes_max: 3, value_bytes_max: 4 };
        let mut problems = Problems::default();
        for (pairs, key) in [
            (&[("a", ""), ("b", ""), ("c", "")][..], "write.labels_max: series has 3 labels, at most 2"),
            (&[("long", "")], "write.label_name_bytes_max: label name has 4 bytes, at most 3"),
            (&[("a", "12345")], "write.label_value_bytes_max: value has 5 bytes, at most 4"),
        ] {
            let error = limits.check(pairs.iter().copied()).unwrap_err();
            assert!(error.to_string().starts_with(key), "{error}");
            error.note(&mut problems, 2, "");
        }
        assert_eq!((problems.count(), problems.over_limit()), (6, 6));
        limits.check([("", "x")].into_iter()).unwrap_err().note(&mut problems, 1, "up: ");
        assert_eq!((problems.count(), problems.over_limit()), (7, 6));
        assert!(problems.to_string().contains("up: label without a name"), "{problems}");
        assert_eq!(limits.check([("abc", "1234"), ("b", "")].into_iter()), Ok(()), "as much as the limits allow");
    }
}
