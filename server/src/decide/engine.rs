//! Evaluates the rules that are due and keeps the book of alerts: the rim around [`super::book`].
//!
//! The run loop calls [`AlertEngine::tick`] from a blocking thread and stores the batch it gives. Nothing here reads the wall
//! clock; a group is evaluated at fixed points of time, shifted by a hash of its name so that groups do not all come at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use petrel_agent::error_chain::chain;
use petrel_agent::units::Span;
use serde::Deserialize;

use super::alert::Alert;
use super::book::{AlertBook, AlertChange, Effect, Event, RuleTerms, series_of};
use super::{keep, level};
use crate::query::source::Source;
use crate::rules::evaluate::{self, Surroundings};
use crate::rules::overlay::Overlay;
use crate::rules::{Group, QueryFailed, Rule, RuleId, RuleKind, RuleSet, url_escaped};
use crate::series::{Labels, Sample, Timestamp};
use crate::store::Batch;
use crate::store::control::{Control, ControlError};
use crate::telemetry;

/// How rules are evaluated, as written in the config.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRulesConfig {
    /// Prometheus rule files, read beside the shipped ones.
    pub files: Vec<PathBuf>,
    /// Whether the shipped rules are in force.
    pub shipped: bool,
    /// Time between evaluations of groups that do not say.
    pub interval: Span,
    /// Labels of this server, for `$externalLabels` in templates.
    pub external_labels: BTreeMap<String, String>,
    /// Address under which users reach the console; links in notices begin with it. Without it, the address listened on.
    pub external_url: Option<String>,
}

impl Default for RawRulesConfig {
    fn default() -> RawRulesConfig {
        RawRulesConfig {
            files: Vec::new(),
            shipped: true,
            interval: Span(Duration::from_secs(15)),
            external_labels: BTreeMap::new(),
            external_url: None,
        }
    }
}

/// How rules are evaluated, as checked.
#[derive(Debug, Clone)]
pub struct RulesConfig {
    interval_ms: i64,
    external_labels: BTreeMap<String, String>,
    external_url: String,
}

/// What is wrong with [`RawRulesConfig`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesConfigError {
    /// Too short.
    #[error("rules.interval is {0}; at least 1s is allowed")]
    Interval(Span),
    /// No address.
    #[error("rules.external_url is `{0}`; write the address of the console, for example https://petrel.example")]
    ExternalUrl(String),
}

impl RawRulesConfig {
    /// Checks the values; `own_url` stands in where `external_url` is not given.
    ///
    /// # Errors
    /// The first value that is not allowed.
    pub fn check(self, own_url: &str) -> Result<RulesConfig, RulesConfigError> {
        if self.interval.as_ms() < 1000 {
            return Err(RulesConfigError::Interval(self.interval));
        }
        let external_url = self.external_url.unwrap_or_else(|| own_url.to_owned());
        if !external_url.starts_with("http://") && !external_url.starts_with("https://") {
            return Err(RulesConfigError::ExternalUrl(external_url));
        }
        Ok(RulesConfig {
            interval_ms: self.interval.as_ms(),
            external_labels: self.external_labels,
            external_url: external_url.trim_end_matches('/').to_owned(),
        })
    }
}

impl RulesConfig {
    /// Labels of this server.
    pub fn external_labels(&self) -> &BTreeMap<String, String> {
        &self.external_labels
    }

    /// Address under which users reach the console, without a slash at its end.
    pub fn external_url(&self) -> &str {
        &self.external_url
    }
}

/// How the last evaluation of a rule went.
#[derive(Debug, Clone, Default)]
pub struct RuleHealth {
    /// When; `None` if never.
    pub evaluated_at: Option<Timestamp>,
    /// How long it took.
    pub took: Duration,
    /// Why it failed, with the causes; `None` if it went well.
    pub error: Option<String>,
}

/// Everything that pages show of rules and alerts, as of the last tick.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The rules in force.
    pub rules: Arc<RuleSet>,
    /// Their health.
    pub health: HashMap<RuleId, RuleHealth>,
    /// The alerts of each rule, resolved ones included for a quarter of an hour.
    pub by_rule: HashMap<RuleId, Vec<Alert>>,
    /// One alert for each fingerprint.
    pub alerts: Vec<Alert>,
    /// Time between evaluations of groups that do not say, in milliseconds.
    pub interval_ms: i64,
}

/// The latest snapshot, shared with API, console and everyone who reads alerts.
#[derive(Clone, Default)]
pub struct AlertsView(Arc<RwLock<Arc<Snapshot>>>);

impl AlertsView {
    /// The latest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows another snapshot; for the engine and for tests of readers.
    pub fn publish(&self, snapshot: Snapshot) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
    }
}

/// What a tick gives.
#[derive(Debug, Default)]
pub struct Tick {
    /// Recorded series, `ALERTS`, and markers for series that ended. To be stored.
    pub batch: Batch,
    /// Alerts that began to fire, ended, or changed their level.
    pub changes: Vec<AlertChange>,
    /// What went wrong, already counted.
    pub problems: Vec<TickProblem>,
}

/// What can go wrong in a tick.
#[derive(Debug, thiserror::Error)]
pub enum TickProblem {
    /// A rule failed; its alerts keep their state.
    #[error("rule `{rule}` of group `{group}` failed: {reason}")]
    Rule {
        /// The group.
        group: String,
        /// The rule.
        rule: String,
        /// Why, with the causes.
        reason: String,
    },
    /// New alerts found no room.
    #[error("{0} new alerts were refused, because too many are active; make the rules less noisy")]
    Refused(usize),
    /// The book could not be kept; the whole of it is tried again at the next tick.
    #[error("alerts cannot be kept over a restart")]
    Keep(#[source] ControlError),
}

/// Answers an instant query over a source.
type Ask = dyn Fn(&dyn Source, &str, Timestamp) -> Result<Vec<(Labels, f64)>, QueryFailed>;

/// Evaluates rules and keeps their alerts.
pub struct AlertEngine {
    control: Arc<Control>,
    config: RulesConfig,
    rules: Arc<RuleSet>,
    book: AlertBook,
    /// Last point of time at which each group, by file and name, was evaluated.
    evaluated: HashMap<(String, String), Timestamp>,
    health: HashMap<RuleId, RuleHealth>,
    /// Series that each rule wrote last, to be ended when they no longer come.
    written: HashMap<RuleId, HashSet<Labels>>,
    /// Series of rules that are gone.
    ended: Vec<Labels>,
    /// The last write to the control database failed.
    unkept: bool,
    /// Other rules were put in force since the last tick.
    reloaded: bool,
    view: AlertsView,
}

impl AlertEngine {
    /// Reads the book back and puts the rules in force. The first evaluation of each group comes within its interval.
    ///
    /// # Errors
    /// The control database cannot be read.
    pub fn open(
        control: Arc<Control>,
        rules: RuleSet,
        config: RulesConfig,
        now: Timestamp,
    ) -> Result<AlertEngine, ControlError> {
        let book = keep::load(&control, now)?;
        let mut written: HashMap<RuleId, HashSet<Labels>> = HashMap::new();
        for rule in book.rules() {
            let series = book.of_rule(rule).filter(|alert| alert.resolved_at.is_none()).flat_map(series_of);
            written.insert(rule.clone(), series.map(|(labels, _)| labels).collect());
        }
        let mut engine = AlertEngine {
            control,
            config,
            rules: Arc::default(),
            book,
            evaluated: HashMap::new(),
            health: HashMap::new(),
            written,
            ended: Vec::new(),
            // Times of pending alerts were shifted by the time away: keep them so.
            unkept: true,
            reloaded: true,
            view: AlertsView::default(),
        };
        engine.replace_rules(rules, now);
        engine.publish();
        Ok(engine)
    }

    /// Where others read alerts and rules; stays the same for the engine's life.
    pub fn view(&self) -> AlertsView {
        self.view.clone()
    }

    /// Puts other rules in force. Alerts stay with their rules; those of rules that are gone end at the next tick.
    pub fn replace_rules(&mut self, rules: RuleSet, now: Timestamp) {
        self.rules = Arc::new(rules);
        self.reloaded = true;
        let groups: HashSet<(String, String)> = self.rules.groups.iter().map(key).collect();
        self.evaluated.retain(|key, _| groups.contains(key));
        for group in &self.rules.groups {
            let slot = self.slot(group, now);
            self.evaluated.entry(key(group)).or_insert(slot);
        }
        let ids: HashSet<&RuleId> = self.rules.rules().map(|(_, rule)| &rule.id).collect();
        self.health.retain(|id, _| ids.contains(id));
        let gone: Vec<RuleId> = self.written.keys().filter(|id| !ids.contains(id)).cloned().collect();
        for id in gone {
            self.ended.extend(self.written.remove(&id).unwrap_or_default());
        }
    }

    /// The groups to evaluate at `now`.
    pub fn due(&self, now: Timestamp) -> Vec<&Group> {
        let due = |group: &&Group| self.evaluated.get(&key(group)).is_none_or(|last| self.slot(group, now) != *last);
        self.rules.groups.iter().filter(due).collect()
    }

    /// Evaluates what is due at `now`. Blocks on the store and on the control database.
    pub fn tick(&mut self, source: &dyn Source, now: Timestamp) -> Tick {
        self.tick_asking(source, now, &crate::rules::evaluate::ask)
    }

    fn tick_asking(&mut self, source: &dyn Source, now: Timestamp, ask: &Ask) -> Tick {
        let rules = Arc::clone(&self.rules);
        // Another point of time, not only a later one: after the clock was set back the rules must go on.
        let due: Vec<(usize, Timestamp)> = (0..rules.groups.len())
            .map(|i| (i, self.slot(&rules.groups[i], now)))
            .filter(|(i, slot)| self.evaluated.get(&key(&rules.groups[*i])).is_none_or(|last| slot != last))
            .collect();
        // The loop asks every second; without anything to do there is nothing to keep either.
        if due.is_empty() && !self.unkept && !self.reloaded {
            return Tick::default();
        }
        self.reloaded = false;
        let mut outcome = Outcome { overlay: Overlay::new(source), tick: Tick::default(), effects: Vec::new() };
        for (i, slot) in due {
            let group = &rules.groups[i];
            self.evaluated.insert(key(group), slot);
            for rule in &group.rules {
                self.rule(group, rule, slot, ask, &mut outcome);
            }
        }
        self.retire(&rules, now, &mut outcome);
        let Outcome { mut tick, effects, .. } = outcome;
        tick.problems.extend(self.keep(&effects, now));
        for problem in &tick.problems {
            tracing::warn!(error = %problem, "rules");
        }
        self.publish();
        tick
    }

    /// The latest point of time, not after `now`, at which a group is evaluated.
    fn slot(&self, group: &Group, now: Timestamp) -> Timestamp {
        let interval = group.interval_ms.unwrap_or(self.config.interval_ms).max(1);
        let (file, name) = (group.file.bytes(), group.name.bytes());
        let hash = file.chain([0]).chain(name).fold(0u64, |hash, byte| hash.wrapping_mul(31) ^ u64::from(byte));
        let shift = (hash % interval as u64) as i64;
        now - (now - shift).rem_euclid(interval)
    }

    fn rule(&mut self, group: &Group, rule: &Rule, slot: Timestamp, ask: &Ask, outcome: &mut Outcome<'_>) {
        let started = Instant::now();
        let at = slot - group.query_offset_ms;
        let result = {
            let query = |text: &str, at: Timestamp| ask(&outcome.overlay, text, at);
            let around = Surroundings {
                query: &query,
                external_labels: &self.config.external_labels,
                external_url: &self.config.external_url,
                at,
                limit: group.limit,
            };
            match &rule.kind {
                RuleKind::Record { labels } => evaluate::record(rule, labels, around).map(Found::Series),
                RuleKind::Alert(alert) => evaluate::alert(rule, alert, around).map(Found::Conditions),
            }
        };
        telemetry::RULE_EVALUATIONS.inc();
        let (samples, error) = match result {
            Ok(Found::Series(series)) => (Some(series), None),
            Ok(Found::Conditions(found)) => {
                let event = Event::Evaluated { terms: self.terms(rule), found };
                (Some(outcome.take_in(self.book.step(event, slot))), None)
            }
            Err(error) => {
                let reason = chain(&error);
                telemetry::RULE_FAILURES.with_label_values(&[&group.name]).inc();
                outcome.take_in(self.book.step(Event::Failed { rule: rule.id.clone() }, slot));
                (None, Some(reason))
            }
        };
        // After a failure the series neither go on nor end, as in Prometheus.
        if let Some(samples) = samples {
            self.write(rule, at, samples, outcome);
        }
        if let Some(reason) = &error {
            let (group, rule) = (group.name.clone(), rule.name.clone());
            outcome.tick.problems.push(TickProblem::Rule { group, rule, reason: reason.clone() });
        }
        self.health.insert(rule.id.clone(), RuleHealth { evaluated_at: Some(slot), took: started.elapsed(), error });
    }

    fn terms(&self, rule: &Rule) -> RuleTerms {
        let alert = rule.alert();
        let annotations = alert.map_or(&[][..], |alert| &alert.annotations);
        RuleTerms {
            id: rule.id.clone(),
            hold_ms: alert.map_or(0, |alert| alert.hold_ms),
            keep_firing_ms: alert.map_or(0, |alert| alert.keep_firing_ms),
            basis: level::basis_of(&rule.metrics, annotations.iter().map(|(name, _)| name.as_str())),
            generator_url: format!("{}/api/v1/query?query={}", self.config.external_url, url_escaped(&rule.expr)),
        }
    }

    fn write(&mut self, rule: &Rule, at: Timestamp, samples: Vec<(Labels, f64)>, outcome: &mut Outcome<'_>) {
        let now: HashSet<Labels> = samples.iter().map(|(labels, _)| labels.clone()).collect();
        for (labels, v) in samples {
            outcome.sample(labels, Sample { t: at, v });
        }
        let before = self.written.insert(rule.id.clone(), now).unwrap_or_default();
        let now = &self.written[&rule.id];
        for labels in before.into_iter().filter(|labels| !now.contains(labels)) {
            outcome.sample(labels, Sample::stale(at));
        }
    }

    /// Ends what belonged to rules that are gone, and lets go of what was resolved long ago.
    fn retire(&mut self, rules: &RuleSet, now: Timestamp, outcome: &mut Outcome<'_>) {
        for labels in std::mem::take(&mut self.ended) {
            outcome.sample(labels, Sample::stale(now));
        }
        let ids: HashSet<&RuleId> = rules.rules().map(|(_, rule)| &rule.id).collect();
        let gone: Vec<RuleId> = self.book.rules().filter(|id| !ids.contains(id)).cloned().collect();
        for rule in gone {
            outcome.take_in(self.book.step(Event::Withdrawn { rule }, now));
        }
        outcome.take_in(self.book.step(Event::Swept, now));
    }

    fn keep(&mut self, effects: &[Effect], now: Timestamp) -> Option<TickProblem> {
        let kept = if self.unkept {
            keep::save_all(&self.control, &self.book, now)
        } else {
            keep::save(&self.control, effects, now)
        };
        self.unkept = kept.is_err();
        kept.err().map(TickProblem::Keep)
    }

    fn publish(&self) {
        let ids = self.rules.rules().map(|(_, rule)| rule.id.clone());
        let by_rule = ids.map(|id| (id.clone(), self.book.of_rule(&id).cloned().collect())).collect();
        self.view.publish(Snapshot {
            rules: Arc::clone(&self.rules),
            health: self.health.clone(),
            by_rule,
            alerts: self.book.alerts(),
            interval_ms: self.config.interval_ms,
        });
    }
}

/// What a rule gave.
enum Found {
    Series(Vec<(Labels, f64)>),
    Conditions(Vec<evaluate::Found>),
}

/// A tick in the making.
struct Outcome<'a> {
    overlay: Overlay<'a>,
    tick: Tick,
    /// What has to be kept.
    effects: Vec<Effect>,
}

impl Outcome<'_> {
    fn sample(&mut self, labels: Labels, sample: Sample) {
        self.overlay.add(&labels, sample);
        self.tick.batch.series.push((labels, vec![sample]));
    }

    /// Sorts effects to where they belong; gives back the samples.
    fn take_in(&mut self, effects: Vec<Effect>) -> Vec<(Labels, f64)> {
        let mut samples = Vec::new();
        for effect in effects {
            match effect {
                Effect::Sample(labels, value) => samples.push((labels, value)),
                Effect::Changed(change) => {
                    tracing::info!(
                        alert = change.alert.labels.get("alertname").map_or("", String::as_str),
                        fingerprint = change.alert.fingerprint,
                        level = change.alert.level.as_str(),
                        change = ?change.change,
                        "alert"
                    );
                    self.tick.changes.push(*change);
                }
                Effect::Refused(count) => {
                    telemetry::ALERTS_REFUSED.inc_by(count as u64);
                    self.tick.problems.push(TickProblem::Refused(count));
                }
                keep @ (Effect::Persist(_) | Effect::Forget { .. }) => self.effects.push(keep),
            }
        }
        samples
    }
}

fn key(group: &Group) -> (String, String) {
    (group.file.clone(), group.name.clone())
}

#[cfg(test)]
mod tests;
