//! Rules: Prometheus rule files, unchanged, loaded whole or not at all, and evaluated as Prometheus would.
//!
//! `load` reads and checks files, `template` fills in labels and annotations, `evaluate` asks one rule at one time, `overlay`
//! lets a rule see what the rules before it have just recorded. What an alert then becomes is the business of `decide`.

pub mod evaluate;
pub mod file;
pub mod load;
pub mod overlay;
pub mod rule;
pub mod severity;
pub mod shipped;
pub mod template;

use crate::series::{Labels, Timestamp};

pub use load::{Finding, RuleProblem, check, load};
pub use rule::{AlertRule, Group, Rule, RuleId, RuleKind, RuleSet};
pub use shipped::shipped;

/// Why a query of a rule or a template failed.
pub type QueryFailed = Box<dyn std::error::Error + Send + Sync>;

/// Answers an instant query with a vector; a scalar comes as one element without labels.
pub type QueryFn<'a> = &'a dyn Fn(&str, Timestamp) -> Result<Vec<(Labels, f64)>, QueryFailed>;

/// Text as a value in the query part of a URL: everything but letters, digits and `-_.~` is escaped.
pub fn url_escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => {
                let hex = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(hex[usize::from(byte >> 4)]));
                out.push(char::from(hex[usize::from(byte & 15)]));
            }
        }
    }
    out
}
