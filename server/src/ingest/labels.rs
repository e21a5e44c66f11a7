//! Which labels are taken, whatever protocol they came by.

use crate::series::Labels;

/// Most labels of a series: Prometheus users rarely have forty.
const LABELS_MAX: usize = 128;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 512;
/// Longest value, in bytes.
const VALUE_BYTES_MAX: usize = 4_096;

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
    #[error("series has {found} labels, more than {LABELS_MAX}")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// Too long.
    #[error("label `{name}` is too long: names have at most {NAME_BYTES_MAX} bytes, values {VALUE_BYTES_MAX}")]
    TooLong {
        /// The label.
        name: String,
    },
}

/// Checks the number alone, for callers whose way to the labels costs more than O(n).
///
/// # Errors
/// There are too many.
pub fn check_count(found: usize) -> Result<(), LabelError> {
    if found > LABELS_MAX { Err(LabelError::TooMany { found }) } else { Ok(()) }
}

/// Checks number and lengths.
///
/// # Errors
/// The first thing that is wrong.
pub fn check<'a>(pairs: impl ExactSizeIterator<Item = (&'a str, &'a str)>) -> Result<(), LabelError> {
    check_count(pairs.len())?;
    for (name, value) in pairs {
        if name.is_empty() {
            return Err(LabelError::EmptyName { value: value.to_owned() });
        }
        if name.len() > NAME_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(LabelError::TooLong { name: name.to_owned() });
        }
    }
    Ok(())
}
