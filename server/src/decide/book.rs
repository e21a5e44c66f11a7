//! The book of alerts: pending, firing, resolved, by what the rules find. A pure state machine with Prometheus' semantics of
//! `for` and `keep_firing_for`; a failed evaluation changes nothing, least of all does it resolve.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::alert::{Alert, AlertLabels, AlertState, Basis};
use super::level;
use crate::rules::RuleId;
use crate::rules::evaluate::Found;
use crate::series::{Labels, NAME, Timestamp};

/// How long a resolved alert stays to be looked at, as in Prometheus.
pub const RESOLVED_KEPT_MS: i64 = 15 * 60_000;
/// Most alerts that are pending or firing. A fleet of 10,000 hosts with two each; beyond it, new ones are refused and counted.
const ACTIVE_MAX: usize = 20_000;
/// Most resolved alerts kept; the oldest go first.
const RESOLVED_MAX: usize = 5_000;
/// A server that was away for longer cannot say that a pending condition held all the time: it starts over.
const AWAY_MAX_MS: i64 = 3_600_000;

/// What the book must know of a rule.
#[derive(Debug, Clone)]
pub struct RuleTerms {
    /// The rule.
    pub id: RuleId,
    /// `for`, in milliseconds.
    pub hold_ms: i64,
    /// `keep_firing_for`, in milliseconds.
    pub keep_firing_ms: i64,
    /// What its alerts rest on.
    pub basis: Basis,
    /// Link to its expression.
    pub generator_url: String,
}

/// All that can happen to the book.
#[derive(Debug, Clone)]
pub enum Event {
    /// A rule was evaluated; what is not among the found has ended.
    Evaluated {
        /// The rule.
        terms: RuleTerms,
        /// Everything it found.
        found: Vec<Found>,
    },
    /// A rule could not be evaluated.
    Failed {
        /// The rule.
        rule: RuleId,
    },
    /// A rule is no longer in force.
    Withdrawn {
        /// The rule.
        rule: RuleId,
    },
    /// Time passed.
    Swept,
}

/// All that the book wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Keep this over a restart.
    Persist(Box<Kept>),
    /// Forget what was kept.
    Forget {
        /// The rule.
        rule: RuleId,
        /// The alert.
        fingerprint: String,
    },
    /// Tell the rest of the server.
    Changed(Box<AlertChange>),
    /// Store a sample of `ALERTS` or `ALERTS_FOR_STATE`, stamped with the time of the evaluation.
    Sample(Labels, f64),
    /// So many new alerts were refused because the book is full.
    Refused(usize),
}

/// An alert that changed in a way that others act on.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertChange {
    /// The alert as it is now.
    pub alert: Alert,
    /// What happened.
    pub change: Change,
}

/// What happened to an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It began to fire.
    Fired,
    /// It ended.
    Resolved,
    /// It fires with another level than before.
    LevelChanged,
}

/// An alert with what the book alone needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The rule's identity.
    pub rule: String,
    /// The alert.
    pub alert: Alert,
    /// Since when it fires only because of `keep_firing_for`.
    pub keep_firing_since: Option<Timestamp>,
}

/// All alerts, by rule and fingerprint.
#[derive(Debug, Default)]
pub struct AlertBook {
    rules: BTreeMap<RuleId, BTreeMap<String, Kept>>,
}

impl AlertBook {
    /// The book as it was kept. `seen_at` is when it was last kept: time in which nobody looked does not count towards `for`.
    pub fn restored(kept: Vec<Kept>, seen_at: Option<Timestamp>, now: Timestamp) -> AlertBook {
        let away_ms = seen_at.map_or(0, |at| (now - at).max(0));
        let mut book = AlertBook::default();
        for mut one in kept {
            if one.alert.state == AlertState::Pending {
                if away_ms > AWAY_MAX_MS {
                    continue;
                }
                one.alert.active_at += away_ms;
            }
            let rule = RuleId::from_text(&one.rule);
            book.rules.entry(rule).or_default().insert(one.alert.fingerprint.clone(), one);
        }
        book
    }

    /// Takes in what happened and says what follows from it.
    pub fn step(&mut self, event: Event, now: Timestamp) -> Vec<Effect> {
        match event {
            Event::Evaluated { terms, found } => self.evaluated(&terms, found, now),
            // Nothing follows, and that is the point: what cannot be seen has not ended.
            Event::Failed { .. } => Vec::new(),
            Event::Withdrawn { rule } => self.withdrawn(&rule, now),
            Event::Swept => self.swept(now),
        }
    }

    /// Everything in the book, resolved ones included.
    pub fn kept(&self) -> impl Iterator<Item = &Kept> {
        self.rules.values().flat_map(BTreeMap::values)
    }

    /// The alerts of one rule.
    pub fn of_rule(&self, rule: &RuleId) -> impl Iterator<Item = &Alert> {
        self.rules.get(rule).into_iter().flatten().map(|(_, kept)| &kept.alert)
    }

    /// Rules that have alerts.
    pub fn rules(&self) -> impl Iterator<Item = &RuleId> {
        self.rules.keys()
    }

    /// One alert for each fingerprint: where several rules have it, the firing one, else the pending one.
    pub fn alerts(&self) -> Vec<Alert> {
        let rank = |alert: &Alert| match alert.state {
            AlertState::Firing => 2,
            AlertState::Pending => 1,
            AlertState::Resolved => 0,
        };
        let mut best: BTreeMap<&str, &Alert> = BTreeMap::new();
        for kept in self.kept() {
            let slot = best.entry(&kept.alert.fingerprint).or_insert(&kept.alert);
            if rank(&kept.alert) > rank(slot) {
                *slot = &kept.alert;
            }
        }
        best.into_values().cloned().collect()
    }

    fn active(&self) -> usize {
        self.kept().filter(|kept| kept.alert.state != AlertState::Resolved).count()
    }

    fn evaluated(&mut self, terms: &RuleTerms, found: Vec<Found>, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut room = ACTIVE_MAX.saturating_sub(self.active());
        let mut refused = 0;
        let mut seen = HashSet::new();
        let entries = self.rules.entry(terms.id.clone()).or_default();
        for found in found {
            let fresh = pending(terms, found, now);
            seen.insert(fresh.fingerprint.clone());
            match entries.get_mut(&fresh.fingerprint).filter(|kept| kept.alert.state != AlertState::Resolved) {
                Some(kept) => effects.extend(refresh(kept, fresh)),
                None if room == 0 => refused += 1,
                None => {
                    room -= 1;
                    let kept = Kept { rule: terms.id.to_string(), alert: fresh, keep_firing_since: None };
                    effects.push(Effect::Persist(Box::new(kept.clone())));
                    entries.insert(kept.alert.fingerprint.clone(), kept);
                }
            }
        }
        if refused > 0 {
            effects.push(Effect::Refused(refused));
        }
        effects.extend(self.advance(terms, &seen, now));
        effects.extend(self.samples(&terms.id));
        effects
    }

    /// Moves the alerts of a rule along: pending to firing, gone to resolved.
    fn advance(&mut self, terms: &RuleTerms, seen: &HashSet<String>, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut ended = Vec::new();
        let Some(entries) = self.rules.get_mut(&terms.id) else { return effects };
        entries.retain(|fingerprint, kept| {
            let before = (kept.alert.state, kept.keep_firing_since);
            match (kept.alert.state, seen.contains(fingerprint)) {
                (AlertState::Resolved, _) => {}
                (AlertState::Pending, false) => {
                    effects.push(Effect::Forget { rule: terms.id.clone(), fingerprint: fingerprint.clone() });
                    return false;
                }
                (AlertState::Firing, false) => {
                    // Not after `now`, as below: the clock may have been set back.
                    let since = kept.keep_firing_since.map_or(now, |since| since.min(now));
                    kept.keep_firing_since = Some(since);
                    if now - since >= terms.keep_firing_ms {
                        kept.alert.state = AlertState::Resolved;
                        kept.alert.resolved_at = Some(now);
                        ended.push(kept.alert.clone());
                    }
                }
                (AlertState::Firing, true) => kept.keep_firing_since = None,
                (AlertState::Pending, true) => {
                    kept.alert.active_at = kept.alert.active_at.min(now);
                    if now - kept.alert.active_at >= terms.hold_ms {
                        kept.alert.state = AlertState::Firing;
                        kept.alert.fired_at = Some(now);
                        effects.push(changed(&kept.alert, Change::Fired));
                    }
                }
            }
            if before != (kept.alert.state, kept.keep_firing_since) {
                effects.push(Effect::Persist(Box::new(kept.clone())));
            }
            true
        });
        effects.extend(self.announce_ended(&ended));
        effects
    }

    /// An alert that another rule still has firing has not ended for anybody outside.
    fn announce_ended(&self, ended: &[Alert]) -> Vec<Effect> {
        let fires = |fingerprint: &str| {
            let mut same = self.rules.values().filter_map(|entries| entries.get(fingerprint));
            same.any(|kept| kept.alert.state == AlertState::Firing)
        };
        let over = ended.iter().filter(|alert| !fires(&alert.fingerprint));
        over.map(|alert| changed(alert, Change::Resolved)).collect()
    }

    fn withdrawn(&mut self, rule: &RuleId, now: Timestamp) -> Vec<Effect> {
        let none = HashSet::new();
        let terms = RuleTerms {
            id: rule.clone(),
            hold_ms: 0,
            keep_firing_ms: 0,
            basis: Basis::Measured,
            generator_url: String::new(),
        };
        self.advance(&terms, &none, now)
    }

    fn swept(&mut self, now: Timestamp) -> Vec<Effect> {
        let resolved = self.kept().filter_map(|kept| kept.alert.resolved_at);
        let mut times: Vec<Timestamp> = resolved.collect();
        times.sort_unstable();
        let surplus = times.len().checked_sub(RESOLVED_MAX + 1).map_or(Timestamp::MIN, |last| times[last]);
        let mut effects = Vec::new();
        for (rule, entries) in &mut self.rules {
            entries.retain(|fingerprint, kept| {
                let old = kept.alert.resolved_at.is_some_and(|at| now - at > RESOLVED_KEPT_MS || at <= surplus);
                if old {
                    effects.push(Effect::Forget { rule: rule.clone(), fingerprint: fingerprint.clone() });
                }
                !old
            });
        }
        self.rules.retain(|_, entries| !entries.is_empty());
        effects
    }

    fn samples(&self, rule: &RuleId) -> Vec<Effect> {
        let active = self.of_rule(rule).filter(|alert| alert.state != AlertState::Resolved);
        active.flat_map(series_of).map(|(labels, value)| Effect::Sample(labels, value)).collect()
    }
}

/// The series that Prometheus writes for an alert, each with its value now.
pub fn series_of(alert: &Alert) -> [(Labels, f64); 2] {
    let state = if alert.state == AlertState::Pending { "pending" } else { "firing" };
    let labels = || alert.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let shown = Labels::new(labels().chain([("alertstate", state), (NAME, "ALERTS")]));
    let since = Labels::new(labels().chain([(NAME, "ALERTS_FOR_STATE")]));
    [(shown, 1.0), (since, alert.active_at.div_euclid(1000) as f64)]
}

/// The hash by which Prometheus and Alertmanager know a label set: FNV-1a over names and values, each ended by 0xff.
pub fn fingerprint(labels: &AlertLabels) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let bytes = labels.iter().flat_map(|(name, value)| name.bytes().chain([0xff]).chain(value.bytes()).chain([0xff]));
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

fn changed(alert: &Alert, change: Change) -> Effect {
    Effect::Changed(Box::new(AlertChange { alert: alert.clone(), change }))
}

fn pending(terms: &RuleTerms, found: Found, now: Timestamp) -> Alert {
    let labels: AlertLabels = found.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Alert {
        fingerprint: fingerprint(&labels),
        level: level::level_of(&labels, terms.basis),
        prediction: level::prediction_of(&found.annotations),
        labels,
        annotations: found.annotations,
        state: AlertState::Pending,
        value: found.value,
        active_at: now,
        fired_at: None,
        resolved_at: None,
        generator_url: terms.generator_url.clone(),
        basis: terms.basis,
    }
}

/// Takes over what may change during an alert's life.
fn refresh(kept: &mut Kept, fresh: Alert) -> Vec<Effect> {
    let alert = &mut kept.alert;
    let louder = alert.level != fresh.level;
    alert.value = fresh.value;
    alert.annotations = fresh.annotations;
    alert.prediction = fresh.prediction;
    alert.generator_url = fresh.generator_url;
    alert.basis = fresh.basis;
    alert.level = fresh.level;
    if !louder {
        return Vec::new();
    }
    let mut effects = vec![Effect::Persist(Box::new(kept.clone()))];
    if kept.alert.state == AlertState::Firing {
        effects.push(changed(&kept.alert, Change::LevelChanged));
    }
    effects
}

#[cfg(test)]
mod tests;
