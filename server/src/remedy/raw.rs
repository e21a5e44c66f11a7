//! Runbook files as written: serde types, nothing checked beyond keys and kinds. `load` checks them; nothing else may use them.

use std::collections::BTreeMap;
use std::fmt;

use petrel_agent::units::Span;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor, value::MapAccessDeserializer};
use serde_saphyr::Spanned;

use super::runbook::{Mode, OnFailure};
use crate::decide::alert::Level;

/// One runbook as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRunbook {
    /// Its name, unique among all files.
    pub(super) runbook: Spanned<String>,
    /// One sentence for people.
    #[serde(default)]
    pub(super) description: String,
    /// What starts it.
    pub(super) when: Spanned<RawTrigger>,
    /// `shadow`, `approve` or `auto`.
    #[serde(default)]
    pub(super) mode: Mode,
    /// Conditions beside the built-in ones.
    #[serde(default)]
    pub(super) guards: Vec<RawGuard>,
    /// Least time between two runs for the same subject.
    #[serde(default = "one_hour")]
    pub(super) cooldown: Span,
    /// How long the subject must have been watched.
    #[serde(default = "one_hour")]
    pub(super) min_history: Span,
    /// How long a run waits for a person.
    #[serde(default = "one_hour")]
    pub(super) approve_within: Span,
    /// `stop` or `undo`.
    #[serde(default)]
    pub(super) on_failure: OnFailure,
    /// Whether the steps are undone once the alert is resolved.
    #[serde(default)]
    pub(super) undo_when_resolved: bool,
    /// What is done, in order.
    pub(super) steps: Vec<RawStep>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTrigger {
    /// Matchers as in Alertmanager: `alertname="X"`, `instance=~"web.*"`.
    #[serde(default)]
    pub(super) alert: Vec<Spanned<String>>,
    /// Least level.
    #[serde(default)]
    pub(super) level: Option<Level>,
    /// Least probability, 0 to 1.
    #[serde(default)]
    pub(super) probability: Option<Spanned<f64>>,
    /// Longest median time left.
    #[serde(default)]
    pub(super) lead: Option<Span>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGuard {
    /// The condition.
    pub(super) promql: Spanned<String>,
    /// `true` (default) or `empty`.
    #[serde(default)]
    pub(super) is: Option<Spanned<String>>,
    /// What to tell people when it does not hold.
    #[serde(default)]
    pub(super) reason: String,
    /// Whether it is a hard fact.
    #[serde(default)]
    pub(super) precursor: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStep {
    pub(super) action: Spanned<String>,
    #[serde(default)]
    pub(super) on: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) with: BTreeMap<String, Spanned<Scalar>>,
    #[serde(default)]
    pub(super) timeout: Option<Span>,
    #[serde(default)]
    pub(super) verify: Option<RawVerify>,
    #[serde(default)]
    pub(super) undo: Option<Spanned<RawUndo>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawVerify {
    pub(super) promql: Spanned<String>,
    #[serde(default = "one_minute")]
    pub(super) within: Span,
}

/// `true`, `false`, or an action with its arguments.
#[derive(Debug)]
pub(super) enum RawUndo {
    Flag(bool),
    Do(RawUndoAction),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUndoAction {
    pub(super) action: Spanned<String>,
    #[serde(default)]
    pub(super) with: BTreeMap<String, Spanned<Scalar>>,
}

/// A text or a number, kept as text: templates and numbers are checked later by the action's table.
#[derive(Debug, Clone)]
pub(super) struct Scalar(pub(super) String);

fn one_hour() -> Span {
    Span(std::time::Duration::from_secs(3600))
}

fn one_minute() -> Span {
    Span(std::time::Duration::from_secs(60))
}

impl<'de> Deserialize<'de> for RawUndo {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<RawUndo, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawUndo;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false`, or a map of `action` and `with`")
            }

            fn visit_bool<E>(self, flag: bool) -> Result<RawUndo, E> {
                Ok(RawUndo::Flag(flag))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawUndo, A::Error> {
                RawUndoAction::deserialize(MapAccessDeserializer::new(map)).map(RawUndo::Do)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a whole number")
            }

            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
