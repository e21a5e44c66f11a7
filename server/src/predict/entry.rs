//! The values that go into the ledger and come out of it, and how they are read from its rows.

use std::collections::BTreeMap;

use rusqlite::Row;
use serde::Serialize;

use super::resource::{Resource, Subject};
use crate::series::{Labels, Timestamp};

/// A prediction to be written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// About what.
    pub subject: Subject,
    /// Within what time the limit is met, milliseconds.
    pub horizon_ms: i64,
    /// How likely, 0 to 1.
    pub probability: f64,
    /// Median seconds left, where within the horizon.
    pub lead_seconds: Option<f64>,
    /// The limit.
    pub limit: f64,
}

/// How an entry ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The limit was met before the deadline.
    Happened,
    /// It was not.
    DidNot,
    /// Nobody can tell.
    Censored,
    /// The limit was met and nobody had predicted it.
    Unpredicted,
}

/// An open entry whose time has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Due {
    /// Its number.
    pub id: i64,
    /// About what.
    pub subject: Subject,
    /// The horizon, milliseconds.
    pub horizon_ms: i64,
    /// When it was said.
    pub issued: Timestamp,
    /// By when it should have happened.
    pub deadline: Timestamp,
    /// The limit it spoke of.
    pub limit: f64,
}

/// What the truth says of a due entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The entry's number.
    pub id: i64,
    /// How it ended.
    pub outcome: Outcome,
    /// When the limit was met.
    pub happened_at: Option<Timestamp>,
    /// Why nobody can tell; empty otherwise.
    pub reason: String,
}

/// Which entries to read; `None` lets all pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// Of this host.
    pub instance: Option<String>,
    /// Of this kind.
    pub resource: Option<Resource>,
    /// Open ones only, or settled ones only.
    pub open: Option<bool>,
}

/// An entry as the console and the API show it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Its number.
    pub id: i64,
    /// What kind of thing.
    pub resource: String,
    /// Of which host.
    pub instance: String,
    /// The subject's labels as a JSON object.
    pub labels: String,
    /// Horizon in milliseconds; 0 for what nobody predicted.
    pub horizon_ms: i64,
    /// When it was said, or happened unpredicted.
    pub issued: Timestamp,
    /// By when it should happen.
    pub deadline: Timestamp,
    /// How likely it was said to be; `None` for what nobody predicted.
    pub probability: Option<f64>,
    /// Median seconds left, as it was said.
    pub lead_seconds: Option<f64>,
    /// The limit.
    pub limit: f64,
    /// `happened`, `did_not`, `censored`, `unpredicted`; `None` while open.
    pub outcome: Option<String>,
    /// When it was settled.
    pub settled_at: Option<Timestamp>,
    /// When the limit was met.
    pub happened_at: Option<Timestamp>,
    /// Why it was censored.
    pub reason: Option<String>,
}

/// What was said against what came, for one tenth of the probabilities.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CalibrationBucket {
    /// What kind of thing.
    pub resource: String,
    /// Horizon in milliseconds.
    pub horizon_ms: i64,
    /// 0 for probabilities below 0.1, …, 9 for 0.9 and above.
    pub decile: i64,
    /// Settled entries.
    pub entries: i64,
    /// Share of them that happened.
    pub realised: f64,
    /// Mean of the probabilities said.
    pub said: f64,
    /// Mean squared error of the probabilities.
    pub brier: f64,
}

impl Outcome {
    /// The word in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Happened => "happened",
            Outcome::DidNot => "did_not",
            Outcome::Censored => "censored",
            Outcome::Unpredicted => "unpredicted",
        }
    }
}

pub(super) fn due_of(row: &Row<'_>) -> rusqlite::Result<Due> {
    let (resource, labels): (String, String) = (row.get(1)?, row.get(2)?);
    let pairs: BTreeMap<String, String> = serde_json::from_str(&labels).unwrap_or_default();
    Ok(Due {
        id: row.get(0)?,
        subject: Subject {
            resource: Resource::parse(&resource).unwrap_or(Resource::Filesystem),
            labels: Labels::new(pairs),
        },
        horizon_ms: row.get(3)?,
        issued: row.get(4)?,
        deadline: row.get(5)?,
        limit: row.get(6)?,
    })
}

pub(super) fn entry_of(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        id: row.get(0)?,
        resource: row.get(1)?,
        instance: row.get(2)?,
        labels: row.get(3)?,
        horizon_ms: row.get(4)?,
        issued: row.get(5)?,
        deadline: row.get(6)?,
        probability: row.get(7)?,
        lead_seconds: row.get(8)?,
        limit: row.get(9)?,
        outcome: row.get(10)?,
        settled_at: row.get(11)?,
        happened_at: row.get(12)?,
        reason: row.get(13)?,
    })
}

/// Labels are sorted, so equal sets give equal texts.
pub(super) fn labels_json(labels: &Labels) -> String {
    let pairs: BTreeMap<&str, &str> = labels.iter().collect();
    serde_json::to_string(&pairs).expect("a map of strings always encodes")
}
