//! Which route takes an alert: conditions on labels and on the level.

use std::str::FromStr;

use super::config::{NotifyConfig, Route};
use crate::decide::alert::{Alert, Basis, Level};
use crate::decide::level;
use crate::series::Matcher;

/// One condition of a route.
#[derive(Debug, Clone)]
pub enum Condition {
    /// On a label, as in PromQL.
    Label(Matcher),
    /// On the level, by rank.
    Level(Rank, Level),
}

/// How a level is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rank {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `>=`
    AtLeast,
    /// `>`
    Above,
    /// `<=`
    AtMost,
    /// `<`
    Below,
}

/// What is wrong with a condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseConditionError {
    /// No operator that fits.
    #[error("`{0}` is not a condition; write label=\"value\" with =, !=, =~ or !~, or level>=warning")]
    Form(String),
    /// Not a level.
    #[error("`{0}` is not a level; known are info, warning, critical, emergency")]
    Level(String),
    /// Not a regular expression.
    #[error("`{0}` is not a regular expression")]
    Regex(String),
}

impl FromStr for Condition {
    type Err = ParseConditionError;

    fn from_str(text: &str) -> Result<Condition, ParseConditionError> {
        let form = || ParseConditionError::Form(text.to_owned());
        let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).ok_or_else(form)?;
        let (name, rest) = (&text[..end], text[end..].trim_start());
        let op = ["=~", "!~", "!=", ">=", "<=", "=", ">", "<"].into_iter().find(|op| rest.starts_with(op));
        let op = op.filter(|_| !name.is_empty()).ok_or_else(form)?;
        let value = rest[op.len()..].trim();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        let matcher =
            |negated| Matcher::regex(name, value, negated).map_err(|_| ParseConditionError::Regex(value.to_owned()));
        if is_level(name) && !op.ends_with('~') {
            let level = level::named(value).ok_or_else(|| ParseConditionError::Level(value.to_owned()))?;
            return Ok(Condition::Level(rank(op), level));
        }
        match op {
            "=" => Ok(Condition::Label(Matcher::equal(name, value))),
            "!=" => {
                let op = crate::series::MatchOp::NotEqual(value.to_owned());
                Ok(Condition::Label(Matcher { name: name.to_owned(), op }))
            }
            "=~" => matcher(false).map(Condition::Label),
            "!~" => matcher(true).map(Condition::Label),
            _ => Err(form()),
        }
    }
}

fn is_level(name: &str) -> bool {
    matches!(name, "level" | "petrel_level")
}

fn rank(op: &str) -> Rank {
    match op {
        "!=" => Rank::NotEqual,
        ">=" => Rank::AtLeast,
        ">" => Rank::Above,
        "<=" => Rank::AtMost,
        "<" => Rank::Below,
        _ => Rank::Equal,
    }
}

/// The value of a label for routes and groups: `level` and `petrel_level` are the alert's level.
pub fn label_of<'a>(alert: &'a Alert, name: &str) -> &'a str {
    if is_level(name) { alert.level.as_str() } else { alert.labels.get(name).map_or("", String::as_str) }
}

impl Condition {
    fn holds(&self, alert: &Alert) -> bool {
        match self {
            Condition::Label(matcher) => matcher.matches_value(label_of(alert, &matcher.name)),
            Condition::Level(rank, level) => match rank {
                Rank::Equal => alert.level == *level,
                Rank::NotEqual => alert.level != *level,
                Rank::AtLeast => alert.level >= *level,
                Rank::Above => alert.level > *level,
                Rank::AtMost => alert.level <= *level,
                Rank::Below => alert.level < *level,
            },
        }
    }

    fn speaks_of_level(&self) -> bool {
        match self {
            Condition::Label(matcher) => is_level(&matcher.name),
            Condition::Level(..) => true,
        }
    }
}

/// Whether a route takes an alert.
fn takes(route: &Route, alert: &Alert) -> bool {
    let loud = alert.level >= Level::Warning || route.conditions.iter().any(Condition::speaks_of_level);
    let wanted = alert.basis != Basis::Anomaly || route.anomalies;
    loud && wanted && route.conditions.iter().all(|condition| condition.holds(alert))
}

/// The routes that take an alert, in their order.
pub fn routes_of<'a>(config: &'a NotifyConfig, alert: &Alert) -> Vec<&'a Route> {
    let mut taken = Vec::new();
    for route in config.routes.iter().filter(|route| takes(route, alert)) {
        taken.push(route);
        if !route.goes_on {
            break;
        }
    }
    taken
}
