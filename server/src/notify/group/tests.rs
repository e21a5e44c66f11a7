//! Scenarios as text: one line per observation (seconds, the alerts that fire or have ended), and what is told.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;
use crate::decide::alert::{AlertLabels, Basis};
use crate::notify::config::RawNotifyConfig;

const CONFIG: &str = "
receivers:
- name: ops
  webhook: { url: 'http://ops.example/hook' }
- name: quiet
  send_resolved: false
  webhook: { url: 'http://quiet.example/hook' }
routes:
- match: ['job=\"quiet\"']
  receivers: [quiet]
- match: ['alertname=~\"Strange.*\"', 'level>=info']
  receivers: [ops]
  anomalies: true
- receivers: [ops]
";

fn config(text: &str) -> NotifyConfig {
    serde_saphyr::from_str::<RawNotifyConfig>(text).unwrap().check("http://petrel").unwrap()
}

/// `name[/level][-]`: a dash means resolved. Names that begin with `Strange` or `Odd` are anomalies, `q…` has job quiet.
pub(in crate::notify) fn alert(word: &str, now: Timestamp) -> Alert {
    let (word, ended) = word.strip_suffix('-').map_or((word, false), |word| (word, true));
    let (name, level) = word.split_once('/').unwrap_or((word, "warning"));
    let (kind, instance) = name.split_once('@').unwrap_or((name, "a"));
    let job = if kind.starts_with('q') { "quiet" } else { "node" };
    let labels: AlertLabels = [("alertname", kind), ("instance", instance), ("job", job)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let anomaly = kind.starts_with("Strange") || kind.starts_with("Odd");
    Alert {
        fingerprint: book::fingerprint(&labels),
        labels,
        annotations: [("summary".to_owned(), format!("{instance}: {kind} happens"))].into(),
        state: if ended { AlertState::Resolved } else { AlertState::Firing },
        level: crate::decide::level::named(level).unwrap(),
        value: 1.0,
        active_at: now,
        fired_at: Some(now),
        resolved_at: ended.then_some(now),
        generator_url: "http://petrel/graph".to_owned(),
        prediction: None,
        basis: if anomaly { Basis::Anomaly } else { Basis::Measured },
    }
}

fn check(script: &str, expected: &Expect) {
    let config = config(CONFIG);
    let mut grouping = Grouping::default();
    let mut out = String::new();
    for line in script.lines().map(str::trim) {
        let mut words = line.split_whitespace();
        let now = words.next().unwrap().parse::<i64>().unwrap() * 1000;
        let words: Vec<&str> = words.collect();
        if words == ["restart"] {
            grouping = Grouping::restored(grouping.groups.into_values().collect());
            continue;
        }
        let alerts: Vec<Alert> = words.iter().map(|word| alert(word, now)).collect();
        let effects = grouping.observe(&config, &alerts, now);
        assert!(grouping.observe(&config, &alerts, now).is_empty(), "twice changes nothing: {line}");
        write!(out, "{line}:").unwrap();
        for effect in effects {
            match effect {
                Effect::Enqueue(notice) => {
                    let mut told = notice.alerts.iter().map(|alert| {
                        let end = if alert.state == AlertState::Resolved { "-" } else { "" };
                        format!("{}@{}{end}", alert.labels["alertname"], alert.labels["instance"])
                    });
                    let first = told.next().unwrap();
                    let told = told.fold(first, |all, one| all + " " + &one);
                    write!(out, " {}<{}: {told}>", notice.receiver, notice.status()).unwrap();
                }
                Effect::Save(_) => out.push_str(" save"),
                Effect::Drop(_) => out.push_str(" drop"),
            }
        }
        out.push('\n');
    }
    expected.assert_eq(&out);
}

#[test]
fn alerts_wait_for_each_other_and_are_told_once() {
    check(
        "0 Disk@a
         5 Disk@a Disk@b
         10 Disk@a Disk@b
         20 Disk@a Disk@b Disk@c
         310 Disk@a Disk@b Disk@c
         610 Disk@a Disk@b- Disk@c
         910 Disk@a- Disk@c-
         1210",
        &expect![[r"
            0 Disk@a: save
            5 Disk@a Disk@b: save
            10 Disk@a Disk@b: ops<firing: Disk@b Disk@a> save
            20 Disk@a Disk@b Disk@c: save
            310 Disk@a Disk@b Disk@c: ops<firing: Disk@c Disk@b Disk@a> save
            610 Disk@a Disk@b- Disk@c: ops<firing: Disk@c Disk@a Disk@b-> save
            910 Disk@a- Disk@c-: ops<resolved: Disk@c- Disk@a-> drop
            1210:
        "]],
    );
}

#[test]
fn a_group_that_still_fires_is_told_again_after_hours() {
    check(
        "0 Disk@a
         10 Disk@a
         14000 Disk@a
         14500 Disk@a",
        &expect![[r"
            0 Disk@a: save
            10 Disk@a: ops<firing: Disk@a> save
            14000 Disk@a:
            14500 Disk@a: ops<firing: Disk@a> save
        "]],
    );
}

#[test]
fn what_ends_before_it_was_told_is_not_told() {
    check(
        "0 Disk@a
         5 Disk@a-
         10
         20",
        &expect![[r"
            0 Disk@a: save
            5 Disk@a-: save
            10: drop
            20:
        "]],
    );
}

#[test]
fn an_emergency_does_not_wait() {
    check(
        "0 Disk@a/emergency",
        &expect![[r"
        0 Disk@a/emergency: ops<firing: Disk@a> save
    "]],
    );
}

#[test]
fn anomalies_and_info_are_told_only_where_a_route_asks() {
    check(
        "0 Odd@a Strange@a/info Note@a/info
         10 Odd@a Strange@a/info Note@a/info",
        &expect![[r"
            0 Odd@a Strange@a/info Note@a/info: save
            10 Odd@a Strange@a/info Note@a/info: ops<firing: Strange@a> save
        "]],
    );
}

#[test]
fn a_receiver_may_not_want_to_hear_of_ends() {
    check(
        "0 q@a
         10 q@a
         400 q@a-
         800",
        &expect![[r"
            0 q@a: save
            10 q@a: quiet<firing: q@a> save
            400 q@a-: drop
            800:
        "]],
    );
}

#[test]
fn an_alert_that_vanishes_or_changes_its_level_ends_where_it_was() {
    check(
        "0 Disk@a
         10 Disk@a
         15 restart
         20 Disk@a/critical
         310 Disk@a/critical
         700 Disk@a/critical",
        &expect![[r"
            0 Disk@a: save
            10 Disk@a: ops<firing: Disk@a> save
            20 Disk@a/critical: save save
            310 Disk@a/critical: ops<firing: Disk@a> ops<resolved: Disk@a-> save drop
            700 Disk@a/critical:
        "]],
    );
}

#[test]
fn ids_differ_by_group_and_time_only() {
    let config = config(CONFIG);
    let ids = |at: Timestamp| {
        let mut grouping = Grouping::default();
        let effects = grouping.observe(&config, &[alert("A@a/emergency", at), alert("B@a/emergency", at)], at);
        let mut ids = Vec::new();
        for effect in effects {
            if let Effect::Enqueue(notice) = effect {
                ids.push(notice.id);
            }
        }
        ids
    };
    assert_eq!(ids(5), ids(5));
    assert_ne!(ids(5)[0], ids(5)[1]);
    assert_ne!(ids(5)[0], ids(6)[0]);
    assert_eq!(ids(5)[0].len(), 32);
}

#[test]
fn wrong_configs_are_refused() {
    let told = |text: &str| match serde_saphyr::from_str::<RawNotifyConfig>(text) {
        Err(error) => error.without_snippet().to_string(),
        Ok(raw) => raw.check("http://petrel").unwrap_err().to_string(),
    };
    let hook = "receivers: [{name: a, webhook: {url: 'http://x/'}}]";
    let mail = |extra: &str| {
        format!(
            "receivers: [{{name: a, email: {{smarthost: 'm:25', from: p@x, to: [o@x]{extra}}}}}]\nroutes: [{{receivers: [a]}}]"
        )
    };
    let all = [
        told(hook),
        told(&format!("{hook}\nroutes: [{{receivers: [b]}}]")),
        told(&format!("{hook}\nroutes: [{{receivers: [a], match: ['level>=loud']}}]")),
        told(&format!("{hook}\nroutes: [{{receivers: [a], match: ['x=~(']}}]")),
        told(&format!("{hook}\nroutes: [{{receivers: [a], match: ['x']}}]")),
        told(&format!("{hook}\nroutes: [{{receivers: [a], group_interval: 0s}}]")),
        told("receivers: [{name: a, webhook: {url: 'ftp://x'}}]\nroutes: [{receivers: [a]}]"),
        told("receivers: [{name: a}]\nroutes: [{receivers: [a]}]"),
        told(&mail(", username: u")),
        told(&mail(", username: u, password_file: f, tls: none")),
        told(&mail(", port: 1")),
        told("receivers: [{name: a, email: {smarthost: m, from: p@x, to: [o@x]}}]\nroutes: [{receivers: [a]}]"),
    ];
    expect![[r#"
        notify.receivers `a` is in no route; add `- receivers: [a]` to notify.routes
        notify.routes 1: receiver `b` is not among notify.receivers
        notify.routes 1: `loud` is not a level; known are info, warning, critical, emergency
        notify.routes 1: `(` is not a regular expression
        notify.routes 1: `x` is not a condition; write label="value" with =, !=, =~ or !~, or level>=warning
        notify.routes 1: group_interval is 0s; at least 1s is allowed
        notify.receivers `a`: webhook.url is `ftp://x`; write one address with http:// or https://, or url_file
        notify.receivers `a`: give either `webhook` or `email`
        notify.receivers `a`: email.username is `set`; username and password_file belong together
        notify.receivers `a`: email.tls is `none`; with a login only starttls or tls are allowed
        unknown field `port`, expected one of smarthost, tls, username, password_file, ca_file, from, to, hello at line 1, column 72
        notify.receivers `a`: email.smarthost is `m`; write host:port, for example mail:587"#]].assert_eq(&all.join("\n"));
}

#[test]
fn the_example_of_the_guide_is_sound() {
    #[derive(serde::Deserialize)]
    struct File {
        notify: RawNotifyConfig,
    }
    let guide = include_str!("../../../../docs/guide/alerts.md");
    let example = guide.split("```").find(|block| block.starts_with("yaml\nnotify:")).unwrap();
    let file: File = serde_saphyr::from_str(&example["yaml".len()..]).unwrap();
    let config = file.notify.check("https://petrel.example").unwrap();
    assert_eq!((config.receivers.len(), config.routes.len()), (2, 3));
}

#[test]
fn a_clock_that_was_ahead_holds_no_notice_back() {
    let config = config(CONFIG);
    let mut grouping = Grouping::default();
    let year = 365 * 86_400_000;
    let _ = grouping.observe(&config, &[alert("Down", year)], year);
    let enqueued = |effects: Vec<Effect>| effects.iter().any(|effect| matches!(effect, Effect::Enqueue(_)));
    let minutes: Vec<bool> =
        (0..10).map(|n| enqueued(grouping.observe(&config, &[alert("Down", 0)], n * 60_000))).collect();
    assert_eq!(minutes.iter().filter(|told| **told).count(), 1, "{minutes:?}");
}
