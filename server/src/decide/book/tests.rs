//! Scenarios as text: one line per evaluation (seconds, what was found), and what the book says to it.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::*;

fn terms(hold_s: i64, keep_s: i64) -> RuleTerms {
    RuleTerms {
        id: RuleId::from_text("r"),
        hold_ms: hold_s * 1000,
        keep_firing_ms: keep_s * 1000,
        basis: Basis::Measured,
        generator_url: String::new(),
    }
}

fn found(names: &str) -> Vec<Found> {
    let one = |word: &str| {
        let (instance, severity) = word.split_once('/').unwrap_or((word, "page"));
        let labels = Labels::new([("alertname", "A"), ("instance", instance)]);
        let level = [("petrel_note".to_owned(), severity.to_owned())];
        Found { labels, annotations: level.into(), value: 1.0 }
    };
    names.split_whitespace().map(one).collect()
}

fn shown(effects: &[Effect]) -> String {
    let mut out = String::new();
    for effect in effects {
        let instance = |alert: &Alert| alert.labels["instance"].clone();
        match effect {
            Effect::Persist(kept) => write!(out, " keep({} {:?})", instance(&kept.alert), kept.alert.state),
            Effect::Forget { .. } => write!(out, " forget"),
            Effect::Changed(change) => write!(out, " {:?}({})", change.change, instance(&change.alert)),
            Effect::Sample(labels, value) => {
                write!(out, " {}[{}]={value}", labels.name(), labels.get("alertstate").unwrap_or(""))
            }
            Effect::Refused(count) => write!(out, " refused({count})"),
        }
        .unwrap();
    }
    out
}

/// Lines: `SECONDS found NAMES…`, `SECONDS failed`, `SECONDS withdrawn`, `SECONDS swept`, `SECONDS restart SEEN_AT`.
fn check(terms: &RuleTerms, script: &str, expected: &Expect) {
    let mut book = AlertBook::default();
    let mut out = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (at, rest) = line.split_once(' ').unwrap();
        let now = at.parse::<i64>().unwrap() * 1000;
        let (verb, names) = rest.split_once(' ').unwrap_or((rest, ""));
        let event = match verb {
            "found" => Event::Evaluated { terms: terms.clone(), found: found(names) },
            "failed" => Event::Failed { rule: terms.id.clone() },
            "withdrawn" => Event::Withdrawn { rule: terms.id.clone() },
            "swept" => Event::Swept,
            "restart" => {
                let seen_at = names.parse::<i64>().unwrap() * 1000;
                book = AlertBook::restored(book.kept().cloned().collect(), Some(seen_at), now);
                continue;
            }
            _ => panic!("{verb}"),
        };
        writeln!(out, "{line}:{}", shown(&book.step(event, now))).unwrap();
    }
    expected.assert_eq(&out);
}

#[test]
fn an_alert_waits_fires_and_ends() {
    check(
        &terms(30, 0),
        "0 found a
         15 found a
         30 found a
         45 found a b
         60 found b
         61 swept
         75 found
         960 swept
         961 swept",
        &expect![[r"
            0 found a: keep(a Pending) ALERTS[pending]=1 ALERTS_FOR_STATE[]=0
            15 found a: ALERTS[pending]=1 ALERTS_FOR_STATE[]=0
            30 found a: Fired(a) keep(a Firing) ALERTS[firing]=1 ALERTS_FOR_STATE[]=0
            45 found a b: keep(b Pending) ALERTS[firing]=1 ALERTS_FOR_STATE[]=0 ALERTS[pending]=1 ALERTS_FOR_STATE[]=45
            60 found b: keep(a Resolved) Resolved(a) ALERTS[pending]=1 ALERTS_FOR_STATE[]=45
            61 swept:
            75 found: forget
            960 swept:
            961 swept: forget
        "]],
    );
}

#[test]
fn without_for_it_fires_at_once_and_may_come_back() {
    check(
        &terms(0, 0),
        "0 found a
         15 found
         30 found a",
        &expect![[r"
            0 found a: keep(a Pending) Fired(a) keep(a Firing) ALERTS[firing]=1 ALERTS_FOR_STATE[]=0
            15 found: keep(a Resolved) Resolved(a)
            30 found a: keep(a Pending) Fired(a) keep(a Firing) ALERTS[firing]=1 ALERTS_FOR_STATE[]=30
        "]],
    );
}

#[test]
fn keep_firing_for_bridges_gaps() {
    check(
        &terms(0, 30),
        "0 found a
         15 found
         30 found a
         45 found
         60 found
         75 found",
        &expect![[r"
            0 found a: keep(a Pending) Fired(a) keep(a Firing) ALERTS[firing]=1 ALERTS_FOR_STATE[]=0
            15 found: keep(a Firing) ALERTS[firing]=1 ALERTS_FOR_STATE[]=0
            30 found a: keep(a Firing) ALERTS[firing]=1 ALERTS_FOR_STATE[]=0
            45 found: keep(a Firing) ALERTS[firing]=1 ALERTS_FOR_STATE[]=0
            60 found: ALERTS[firing]=1 ALERTS_FOR_STATE[]=0
            75 found: keep(a Resolved) Resolved(a)
        "]],
    );
}

#[test]
fn a_failure_keeps_everything_as_it_is() {
    check(
        &terms(30, 0),
        "0 found a
         15 failed
         30 found a
         45 failed
         60 found a",
        &expect![[r"
            0 found a: keep(a Pending) ALERTS[pending]=1 ALERTS_FOR_STATE[]=0
            15 failed:
            30 found a: Fired(a) keep(a Firing) ALERTS[firing]=1 ALERTS_FOR_STATE[]=0
            45 failed:
            60 found a: ALERTS[firing]=1 ALERTS_FOR_STATE[]=0
        "]],
    );
}

#[test]
fn for_goes_on_after_a_restart_without_the_time_away() {
    check(
        &terms(60, 0),
        "0 found a
         30 found a
         40 restart 30
         60 found a
         70 found a
         80 restart 70
         85 found a
         100 withdrawn
         101 swept",
        &expect![[r"
            0 found a: keep(a Pending) ALERTS[pending]=1 ALERTS_FOR_STATE[]=0
            30 found a: ALERTS[pending]=1 ALERTS_FOR_STATE[]=0
            60 found a: ALERTS[pending]=1 ALERTS_FOR_STATE[]=10
            70 found a: Fired(a) keep(a Firing) ALERTS[firing]=1 ALERTS_FOR_STATE[]=10
            85 found a: ALERTS[firing]=1 ALERTS_FOR_STATE[]=10
            100 withdrawn: keep(a Resolved) Resolved(a)
            101 swept:
        "]],
    );
    check(
        &terms(60, 0),
        "0 found a
         30 found a
         4000 restart 30
         4001 found a",
        &expect![[r"
            0 found a: keep(a Pending) ALERTS[pending]=1 ALERTS_FOR_STATE[]=0
            30 found a: ALERTS[pending]=1 ALERTS_FOR_STATE[]=0
            4001 found a: keep(a Pending) ALERTS[pending]=1 ALERTS_FOR_STATE[]=4001
        "]],
    );
}

#[test]
fn a_change_of_level_is_told() {
    let mut book = AlertBook::default();
    let mut terms = terms(0, 0);
    let labels = Labels::new([("alertname", "A"), ("instance", "a"), ("severity", "page")]);
    let found = vec![Found { labels, annotations: BTreeMap::new(), value: 1.0 }];
    let first = book.step(Event::Evaluated { terms: terms.clone(), found: found.clone() }, 0);
    terms.basis = Basis::Predicted;
    let second = book.step(Event::Evaluated { terms: terms.clone(), found }, 1000);
    assert!(shown(&first).contains("Fired(a)"));
    assert!(shown(&second).contains("LevelChanged(a)"), "{}", shown(&second));
}

#[test]
fn an_alert_of_two_rules_ends_with_the_last() {
    let mut book = AlertBook::default();
    let (one, mut two) = (terms(0, 0), terms(0, 0));
    two.id = RuleId::from_text("s");
    book.step(Event::Evaluated { terms: one.clone(), found: found("a") }, 0);
    book.step(Event::Evaluated { terms: two.clone(), found: found("a") }, 0);
    assert_eq!(book.alerts().len(), 1);
    let first = book.step(Event::Evaluated { terms: one, found: found("") }, 1000);
    assert!(!shown(&first).contains("Resolved(a)"), "{}", shown(&first));
    assert_eq!(book.alerts()[0].state, AlertState::Firing);
    let second = book.step(Event::Evaluated { terms: two, found: found("") }, 2000);
    assert!(shown(&second).contains(" Resolved(a)"), "{}", shown(&second));
}

#[test]
fn the_book_is_bounded() {
    let mut book = AlertBook::default();
    let many: Vec<String> = (0..ACTIVE_MAX + 7).map(|i| format!("h{i}")).collect();
    let effects = book.step(Event::Evaluated { terms: terms(0, 0), found: found(&many.join(" ")) }, 0);
    assert!(effects.contains(&Effect::Refused(7)));
    book.step(Event::Evaluated { terms: terms(0, 0), found: vec![] }, 1000);
    book.step(Event::Swept, 2000);
    assert!(book.kept().count() <= RESOLVED_MAX);
}

#[test]
fn fingerprints_are_those_of_prometheus() {
    // model.LabelSet{}.Fingerprint() of prometheus/common is the FNV-1a offset basis.
    assert_eq!(fingerprint(&AlertLabels::new()), "cbf29ce484222325");
}
