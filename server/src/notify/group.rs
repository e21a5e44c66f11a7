//! Which alerts go out together, and when: a pure state machine with the timing of Alertmanager (`group_wait`,
//! `group_interval`, `repeat_interval`). It is fed the alerts as they are, not their changes, so that nothing is missed over a
//! restart and feeding it twice changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::config::{NotifyConfig, Timing};
use super::route::{label_of, routes_of};
use crate::decide::alert::{Alert, AlertState, Level};
use crate::decide::book;
use crate::series::Timestamp;

/// Most alerts in one notice; the rest is only counted in it. A mail with more is not read.
const NOTICE_ALERTS_MAX: usize = 200;

/// What one receiver is told at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Identity for receivers, the same at every attempt: 32 hexadecimal digits.
    pub id: String,
    /// Who is told.
    pub receiver: String,
    /// The group, in Alertmanager's form `{}/{conditions}:{labels}`.
    pub group_key: String,
    /// Labels that its alerts share by the route.
    pub group_labels: BTreeMap<String, String>,
    /// The loudest first; those that ended last.
    pub alerts: Vec<Alert>,
    /// Alerts left out.
    pub truncated: usize,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Notice {
    /// `firing` or `resolved`.
    pub fn status(&self) -> &'static str {
        if self.alerts.iter().any(|alert| alert.state == AlertState::Firing) { "firing" } else { "resolved" }
    }
}

/// All that the grouping wants done, together in one transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Keep a group.
    Save(Box<Group>),
    /// Forget a group.
    Drop(GroupKey),
    /// Put a notice into the queue.
    Enqueue(Box<Notice>),
}

/// Names a group: the receiver, and the group's key in Alertmanager's form.
pub type GroupKey = (String, String);

/// Alerts of one receiver that go out together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    receiver: String,
    key: String,
    labels: BTreeMap<String, String>,
    members: BTreeMap<String, Member>,
    flush_at: Timestamp,
    told_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Member {
    alert: Alert,
    /// The receiver knows that it fires.
    told: bool,
}

impl Group {
    /// Its name.
    pub fn name(&self) -> GroupKey {
        (self.receiver.clone(), self.key.clone())
    }
}

/// All groups.
#[derive(Debug, Default)]
pub struct Grouping {
    groups: BTreeMap<GroupKey, Group>,
}

/// Where one alert belongs.
struct Place {
    key: GroupKey,
    labels: BTreeMap<String, String>,
    timing: Timing,
}

impl Grouping {
    /// The groups as they were kept.
    pub fn restored(groups: Vec<Group>) -> Grouping {
        Grouping { groups: groups.into_iter().map(|group| (group.name(), group)).collect() }
    }

    /// Takes in all alerts as they are `now`, and says what is to be told.
    pub fn observe(&mut self, config: &NotifyConfig, alerts: &[Alert], now: Timestamp) -> Vec<Effect> {
        let mut touched = BTreeSet::new();
        let mut firing = BTreeSet::new();
        let mut timings: BTreeMap<GroupKey, Timing> = BTreeMap::new();
        for alert in alerts.iter().filter(|alert| alert.state != AlertState::Pending) {
            for place in places(config, alert) {
                timings.insert(place.key.clone(), place.timing);
                if alert.state == AlertState::Firing {
                    firing.insert((place.key.clone(), alert.fingerprint.clone()));
                    self.fires(&place, alert, now, &mut touched);
                } else if let Some(group) = self.groups.get_mut(&place.key) {
                    ends(group, alert.clone(), &mut touched);
                }
            }
        }
        self.end_what_is_gone(&firing, now, &mut touched);
        // No group waits longer than its route says, also where the clock was ahead when it was last told.
        for (key, timing) in &timings {
            if let Some(group) = self.groups.get_mut(key) {
                group.flush_at = group.flush_at.min(now + timing.wait.max(timing.interval));
                group.told_at = group.told_at.map(|at| at.min(now));
            }
        }
        let mut effects = Vec::new();
        let due: Vec<GroupKey> =
            self.groups.iter().filter(|(_, group)| group.flush_at <= now).map(|(key, _)| key.clone()).collect();
        for key in due {
            effects.extend(self.flush(config, &key, timings.get(&key).copied(), now, &mut touched));
        }
        for key in touched {
            effects.push(match self.groups.get(&key) {
                Some(group) => Effect::Save(Box::new(group.clone())),
                None => Effect::Drop(key),
            });
        }
        effects
    }

    fn fires(&mut self, place: &Place, alert: &Alert, now: Timestamp, touched: &mut BTreeSet<GroupKey>) {
        let group = self.groups.entry(place.key.clone()).or_insert_with(|| Group {
            receiver: place.key.0.clone(),
            key: place.key.1.clone(),
            labels: place.labels.clone(),
            members: BTreeMap::new(),
            flush_at: now + place.timing.wait,
            told_at: None,
        });
        if let Some(member) = group.members.get_mut(&alert.fingerprint) {
            if member.alert.state != AlertState::Firing || member.alert.level != alert.level {
                touched.insert(place.key.clone());
            }
            member.alert = alert.clone();
            return;
        }
        group.members.insert(alert.fingerprint.clone(), Member { alert: alert.clone(), told: false });
        touched.insert(place.key.clone());
        if alert.level == Level::Emergency {
            group.flush_at = group.flush_at.min(now);
        }
    }

    /// An alert may also leave its group without a word: by a reload of rules or routes, or a change of its level.
    fn end_what_is_gone(
        &mut self,
        firing: &BTreeSet<(GroupKey, String)>,
        now: Timestamp,
        touched: &mut BTreeSet<GroupKey>,
    ) {
        for (key, group) in &mut self.groups {
            let fires = |member: &Member| member.alert.state == AlertState::Firing;
            let here = group.members.iter().filter(|(_, member)| fires(member));
            let gone: Vec<Alert> = here
                .filter(|(fingerprint, _)| !firing.contains(&(key.clone(), (*fingerprint).clone())))
                .map(|(_, member)| Alert {
                    state: AlertState::Resolved,
                    resolved_at: Some(now),
                    ..member.alert.clone()
                })
                .collect();
            for alert in gone {
                ends(group, alert, touched);
            }
        }
    }

    fn flush(
        &mut self,
        config: &NotifyConfig,
        key: &GroupKey,
        timing: Option<Timing>,
        now: Timestamp,
        touched: &mut BTreeSet<GroupKey>,
    ) -> Option<Effect> {
        let group = self.groups.get_mut(key)?;
        let receiver = config.receivers.iter().find(|receiver| receiver.name == group.receiver);
        let send_resolved = receiver.is_some_and(|receiver| receiver.send_resolved);
        let firing = |member: &Member| member.alert.state == AlertState::Firing;
        let begun = group.members.values().any(|member| firing(member) && !member.told);
        let ended = group.members.values().any(|member| !firing(member) && member.told) && send_resolved;
        let still = group.members.values().any(firing);
        let repeat = timing.map_or(i64::MAX, |timing| timing.repeat);
        let again = still && group.told_at.is_some_and(|at| now - at >= repeat);
        let notice = (receiver.is_some() && (begun || ended || again)).then(|| {
            let told = group.members.values().filter(|member| firing(member) || (member.told && send_resolved));
            notice(group, told.map(|member| member.alert.clone()).collect(), now)
        });
        let before = group.members.len();
        group.members.retain(|_, member| firing(member));
        if notice.is_some() {
            group.told_at = Some(now);
            group.members.values_mut().for_each(|member| member.told = true);
        }
        if notice.is_some() || group.members.len() != before {
            touched.insert(key.clone());
        }
        group.flush_at = now + timing.map_or(0, |timing| timing.interval);
        if group.members.is_empty() {
            self.groups.remove(key);
        }
        notice.map(|notice| Effect::Enqueue(Box::new(notice)))
    }
}

fn ends(group: &mut Group, alert: Alert, touched: &mut BTreeSet<GroupKey>) {
    let name = group.name();
    if let Some(member) = group.members.get_mut(&alert.fingerprint)
        && member.alert.state == AlertState::Firing
    {
        member.alert = alert;
        touched.insert(name);
    }
}

fn places(config: &NotifyConfig, alert: &Alert) -> Vec<Place> {
    let mut places = Vec::new();
    for route in routes_of(config, alert) {
        let labels: BTreeMap<String, String> = route
            .group_by
            .iter()
            .map(|name| (name.clone(), label_of(alert, name).to_owned()))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let shown: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let key = format!("{{}}/{{{}}}:{{{}}}", route.name, shown.join(", "));
        for receiver in &route.receivers {
            places.push(Place { key: (receiver.clone(), key.clone()), labels: labels.clone(), timing: route.timing });
        }
    }
    places
}

fn notice(group: &Group, mut alerts: Vec<Alert>, now: Timestamp) -> Notice {
    alerts.sort_by(|a, b| {
        let ended = |alert: &Alert| alert.state == AlertState::Resolved;
        ended(a).cmp(&ended(b)).then(b.level.cmp(&a.level)).then(a.active_at.cmp(&b.active_at))
    });
    let truncated = alerts.len().saturating_sub(NOTICE_ALERTS_MAX);
    alerts.truncate(NOTICE_ALERTS_MAX);
    // A group makes at most one notice in a millisecond, so its name and the time are an identity.
    let name = BTreeMap::from([(group.receiver.clone(), group.key.clone())]);
    Notice {
        id: format!("{}{now:016x}", book::fingerprint(&name)),
        receiver: group.receiver.clone(),
        group_key: group.key.clone(),
        group_labels: group.labels.clone(),
        alerts,
        truncated,
        created_at: now,
    }
}

#[cfg(test)]
pub(in crate::notify) mod tests;
