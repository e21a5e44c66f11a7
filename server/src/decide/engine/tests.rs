//! The engine over a source of its own: queries are answered from a table, everything else is real.

mod way;

use std::sync::Mutex;

use super::*;
use crate::decide::alert::AlertState;
use crate::decide::book::Change;
use crate::query::source::{MetricMetadata, SelectError, Selected, TimeRange};
use crate::series::{Matcher, NAME};

struct Nothing;

impl Source for Nothing {
    fn select(&self, _: &[Matcher], _: TimeRange, _: u64) -> Result<Vec<Selected>, SelectError> {
        Ok(Vec::new())
    }
    fn series(&self, _: &[Vec<Matcher>], _: TimeRange) -> Result<Vec<Labels>, SelectError> {
        Ok(Vec::new())
    }
    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        Vec::new()
    }
}

/// `None` is a failed query.
type Answer = Option<Vec<(Labels, f64)>>;

struct World {
    dir: tempfile::TempDir,
    answers: Arc<Mutex<HashMap<String, Answer>>>,
}

const RULES: &str = r#"
groups:
- name: g
  interval: 10s
  rules:
  - record: job:down:count
    expr: count by (job) (up == 0)
    labels: { kind: recorded }
  - alert: Down
    expr: up == 0
    for: 20s
    labels: { severity: page }
    annotations: { summary: "{{ $labels.instance }} is {{ $value }}" }
"#;

impl World {
    fn new() -> World {
        World { dir: tempfile::tempdir().unwrap(), answers: Arc::default() }
    }

    fn engine(&self, rules: &str, now: Timestamp) -> AlertEngine {
        let control = Control::open(&self.dir.path().join("control.db"), keep::MIGRATIONS).unwrap();
        let rules = crate::rules::load(&[("r.yaml".into(), rules.to_owned())]).unwrap();
        AlertEngine::open(
            Arc::new(control),
            rules,
            RawRulesConfig::default().check("http://127.0.0.1:9780").unwrap(),
            now,
        )
        .unwrap()
    }

    fn answer(&self, expr: &str, answer: Option<&[(&str, f64)]>) {
        let vector = answer.map(|found| {
            let one = |(instance, v): &(&str, f64)| (Labels::new([(NAME, "up"), ("instance", *instance)]), *v);
            found.iter().map(one).collect()
        });
        self.answers.lock().unwrap().insert(expr.to_owned(), vector);
    }

    fn tick(&self, engine: &mut AlertEngine, now: Timestamp) -> Tick {
        let answers = Arc::clone(&self.answers);
        engine.tick_asking(&Nothing, now, &move |_: &dyn Source, text: &str, _| match answers.lock().unwrap().get(text)
        {
            Some(Some(found)) => Ok(found.clone()),
            Some(None) => Err("the store is away".into()),
            None => Ok(Vec::new()),
        })
    }
}

fn series(tick: &Tick) -> Vec<String> {
    let show = |(labels, samples): &(Labels, Vec<Sample>)| {
        let value = if samples[0].is_stale() { "stale".to_owned() } else { samples[0].v.to_string() };
        format!("{labels} {value}")
    };
    let mut lines: Vec<String> = tick.batch.series.iter().map(show).collect();
    lines.sort();
    lines
}

#[test]
fn a_rule_records_alerts_and_ends_its_series() {
    let world = World::new();
    let mut engine = world.engine(RULES, 1_000_000);
    world.answer("up == 0", Some(&[("a", 0.0)]));
    world.answer("count by (job) (up == 0)", Some(&[("x", 1.0)]));
    assert!(engine.due(1_000_000).is_empty(), "the first evaluation comes within the interval");
    let first = world.tick(&mut engine, 1_010_000);
    expect_test::expect![[r#"
        ALERTS_FOR_STATE{alertname="Down", instance="a", severity="page"} 1004
        ALERTS{alertname="Down", alertstate="pending", instance="a", severity="page"} 1
        job:down:count{instance="x", kind="recorded"} 1"#]]
    .assert_eq(&series(&first).join("\n"));
    assert!(world.tick(&mut engine, 1_010_001).batch.series.is_empty(), "once per interval");
    world.tick(&mut engine, 1_020_000);
    let fired = world.tick(&mut engine, 1_030_000);
    assert_eq!((fired.changes.len(), fired.changes[0].change), (1, Change::Fired));
    assert_eq!(fired.changes[0].alert.annotations["summary"], "a is 0");
    assert_eq!(fired.changes[0].alert.level.as_str(), "critical");
    expect_test::expect![[r#"
        ALERTS_FOR_STATE{alertname="Down", instance="a", severity="page"} 1004
        ALERTS{alertname="Down", alertstate="firing", instance="a", severity="page"} 1
        ALERTS{alertname="Down", alertstate="pending", instance="a", severity="page"} stale
        job:down:count{instance="x", kind="recorded"} 1"#]]
    .assert_eq(&series(&fired).join("\n"));

    world.answer("up == 0", None);
    let failed = world.tick(&mut engine, 1_040_000);
    assert_eq!(failed.problems.len(), 1, "{:?}", failed.problems);
    assert!(failed.changes.is_empty());
    let health = engine.view().snapshot();
    assert!(health.health.values().any(|health| health.error.as_deref().is_some_and(|e| e.contains("store is away"))));

    world.answer("up == 0", Some(&[]));
    world.answer("count by (job) (up == 0)", Some(&[]));
    let ended = world.tick(&mut engine, 1_050_000);
    assert_eq!(ended.changes[0].change, Change::Resolved);
    assert!(series(&ended).iter().all(|line| line.ends_with("stale")), "{:?}", series(&ended));
    assert_eq!(series(&ended).len(), 3);
}

#[test]
fn for_goes_on_after_a_restart() {
    let world = World::new();
    world.answer("up == 0", Some(&[("a", f64::NAN)]));
    let mut engine = world.engine(RULES, 1_000_000);
    world.tick(&mut engine, 1_010_000);
    world.tick(&mut engine, 1_020_000);
    drop(engine);
    let mut engine = world.engine(RULES, 1_025_000);
    assert_eq!(engine.view().snapshot().alerts.len(), 1);
    let first = world.tick(&mut engine, 1_030_000);
    let second = world.tick(&mut engine, 1_040_000);
    assert_eq!(first.changes.len() + second.changes.len(), 1, "it fires once, and no evaluation starts `for` over");
    drop(engine);
    let mut engine = world.engine(RULES, 1_045_000);
    assert_eq!(engine.view().snapshot().alerts[0].state, AlertState::Firing);
    assert!(world.tick(&mut engine, 1_050_000).changes.is_empty());
}

#[test]
fn a_reload_keeps_alerts_and_ends_those_of_rules_that_are_gone() {
    let world = World::new();
    world.answer("up == 0", Some(&[("a", 0.0)]));
    let mut engine = world.engine(&RULES.replace("20s", "0s"), 1_000_000);
    assert_eq!(world.tick(&mut engine, 1_010_000).changes.len(), 1);
    let reload = |engine: &mut AlertEngine, text: &str, now| {
        engine.replace_rules(crate::rules::load(&[("r.yaml".into(), text.to_owned())]).unwrap(), now);
    };
    reload(&mut engine, &RULES.replace("is {{", "was {{"), 1_011_000);
    assert!(world.tick(&mut engine, 1_020_000).changes.is_empty());
    assert_eq!(engine.view().snapshot().alerts[0].annotations["summary"], "a was 0");
    reload(&mut engine, "groups: []", 1_021_000);
    let gone = world.tick(&mut engine, 1_022_000);
    assert_eq!(gone.changes[0].change, Change::Resolved);
    assert_eq!(series(&gone).len(), 2, "{:?}", series(&gone));
}

#[test]
fn a_clock_that_was_ahead_does_not_stop_the_rules() {
    let world = World::new();
    let day = 86_400_000;
    let mut engine = world.engine(RULES, 1_000_000 + day);
    world.answer("up == 0", Some(&[("a", 0.0)]));
    world.tick(&mut engine, 1_010_000 + day);
    let fired = (1..=6).any(|n| !world.tick(&mut engine, 1_010_000 + n * 10_000).changes.is_empty());
    assert!(fired, "the condition held for a minute after the clock was set right");
}
