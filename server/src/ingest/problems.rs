//! What of a request could not be taken, counted and named within a bound.

use std::fmt;

/// Problems named in one answer; the others are counted.
const NAMED_MAX: usize = 10;
/// Longest name of a problem, in characters; label sets can be long.
const NAME_CHARS_MAX: usize = 300;

/// Parts of a request that were not stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems {
    count: u64,
    over_limit: u64,
    counted: u64,
    named: Vec<String>,
}

impl Problems {
    /// Notes `count` samples or lines that share a reason.
    pub fn add(&mut self, count: u64, reason: impl fmt::Display) {
        self.count += count;
        if self.named.len() < NAMED_MAX {
            let mut reason: String = reason.to_string();
            if let Some((end, _)) = reason.char_indices().nth(NAME_CHARS_MAX) {
                reason.truncate(end);
                reason.push('…');
            }
            if !self.named.contains(&reason) {
                self.named.push(reason);
            }
        }
    }

    /// As [`Problems::add`], where a limit of the operator's was met.
    pub fn add_over_limit(&mut self, count: u64, reason: impl fmt::Display) {
        self.over_limit += count;
        self.add(count, reason);
    }

    /// How many of them met a limit of the operator's.
    pub fn over_limit(&self) -> u64 {
        self.over_limit
    }

    /// As [`Problems::add`], where the reason has a counter of its own.
    pub fn add_counted(&mut self, count: u64, reason: impl fmt::Display) {
        self.counted += count;
        self.add(count, reason);
    }

    /// How many of them nobody has counted yet and are the sender's mistakes.
    pub fn malformed(&self) -> u64 {
        self.count - self.over_limit - self.counted
    }

    /// How many samples or lines were not stored.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// `2 not stored: reason; reason`.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} not stored: {}", self.count, self.named.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_counted_and_the_first_are_named() {
        let mut problems = Problems::default();
        for i in 0..20 {
            problems.add(2, format!("label {i} is bad"));
        }
        problems.add(1, "x".repeat(1_000));
        assert_eq!(problems.count(), 41);
        let text = problems.to_string();
        assert!(text.starts_with("41 not stored: label 0 is bad; ") && text.len() < 400, "{text}");
    }
}
