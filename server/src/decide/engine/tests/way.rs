//! The whole way on a real store: samples in, rules over PromQL, results stored, alerts with their prediction out.

use std::path::PathBuf;

use super::*;
use crate::decide::alert::{AlertState, Basis, Level};
use crate::series::NAME;
use crate::store::{RawStoreOptions, Store};

const START: Timestamp = 1_790_000_000_000;

const CHAIN: &str = r#"
groups:
- name: chain
  interval: 10s
  rules:
  - record: host:free:ratio
    expr: node_filesystem_avail_bytes / node_filesystem_size_bytes
  - record: host:free:percent
    expr: host:free:ratio * 100
    labels: { unit: percent }
  - alert: Chained
    expr: host:free:percent < 50
    labels: { severity: info }
    annotations: { summary: '{{ $labels.instance }} {{ printf "%.1f" $value }} {{ query "host:free:ratio" | first | value }}' }
  - alert: WasThere
    expr: ALERTS{alertname="Chained"}
"#;

/// Metric, labels, value.
type Given<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

struct World {
    _dir: tempfile::TempDir,
    store: Arc<Store>,
    engine: AlertEngine,
    now: Timestamp,
}

impl World {
    fn new(files: &[(PathBuf, String)]) -> World {
        let dir = tempfile::tempdir().unwrap();
        let options = RawStoreOptions::default().check().unwrap();
        let store = Store::open(dir.path(), options, keep::MIGRATIONS, START).unwrap();
        let rules = crate::rules::load(files).unwrap();
        let config = RawRulesConfig::default().check("http://127.0.0.1:9780").unwrap();
        let engine = AlertEngine::open(Arc::clone(store.control()), rules, config, START).unwrap();
        World { _dir: dir, store, engine, now: START }
    }

    /// Samples now, then a tick whose batch is stored.
    fn pass(&mut self, seconds: i64, samples: &[Given<'_>]) -> Tick {
        self.now += seconds * 1000;
        let one = |(name, labels, v): &Given<'_>| {
            let labels =
                Labels::new(labels.iter().copied().chain([(NAME, *name), ("instance", "web1"), ("job", "node")]));
            (labels, vec![Sample { t: self.now, v: *v }])
        };
        let batch = Batch { series: samples.iter().map(one).collect(), ..Batch::default() };
        self.store.append_blocking(batch, self.now).unwrap();
        let tick = self.engine.tick(&*self.store, self.now + 999);
        let committed = self.store.append_blocking(tick.batch.clone(), self.now + 999).unwrap();
        assert_eq!(committed.refused, [], "what a tick writes is stored");
        tick
    }
}

#[test]
fn rules_see_what_the_rules_before_them_recorded() {
    let mut world = World::new(&[("chain.yaml".into(), CHAIN.to_owned())]);
    let disk: &[(&str, &str)] = &[("mountpoint", "/data")];
    let samples = [("node_filesystem_avail_bytes", disk, 25.0), ("node_filesystem_size_bytes", disk, 100.0)];
    world.pass(1, &samples);
    let tick = world.pass(10, &samples);
    assert!(tick.problems.is_empty(), "{:?}", tick.problems);
    let alerts = world.engine.view().snapshot().alerts.clone();
    let chained = alerts.iter().find(|alert| alert.labels["alertname"] == "Chained").unwrap();
    assert_eq!(chained.annotations["summary"], "web1 25.0 0.25");
    assert_eq!(
        (chained.state, chained.level, chained.labels["unit"].as_str()),
        (AlertState::Firing, Level::Info, "percent")
    );
    assert!(alerts.iter().any(|alert| alert.labels["alertname"] == "WasThere"), "ALERTS of this evaluation are seen");
    let ask = |text: &str, at| crate::rules::evaluate::ask(&*world.store, text, at).unwrap();
    assert_eq!(ask("host:free:percent", world.now + 1_000)[0].1, 25.0);
    assert_eq!(ask("count(ALERTS{alertstate=\"firing\"})", world.now + 1_000)[0].1, 2.0);
}

#[test]
fn the_shipped_rules_tell_a_prediction_with_its_probability_and_lead() {
    let shipped = crate::rules::shipped();
    let files: Vec<_> = shipped.iter().map(|(name, text)| (PathBuf::from(name), (*text).to_owned())).collect();
    let mut world = World::new(&files);
    let of: [(&str, &str); 3] =
        [("of", "node_filesystem_avail_bytes"), ("resource", "filesystem"), ("mountpoint", "/data")];
    let with = |name, value| of.iter().copied().chain([(name, value)]).collect::<Vec<_>>();
    let (hour, six) = (with("horizon", "1h"), with("horizon", "6h"));
    let (soon, median) = (with("quantile", "0.1"), with("quantile", "0.5"));
    let memory: &[(&str, &str)] =
        &[("of", "node_memory_MemAvailable_bytes"), ("resource", "memory"), ("horizon", "6h")];
    let endless: &[(&str, &str)] = &[("resource", "memory"), ("quantile", "0.5")];
    let samples: [Given<'_>; 7] = [
        ("petrel_limit_probability", &hour, 0.93),
        ("petrel_limit_probability", &six, 0.91),
        ("petrel_time_to_limit_seconds", &soon, 1_800.0),
        ("petrel_time_to_limit_seconds", &median, 2_523.0),
        ("petrel_limit_probability", memory, 0.85),
        ("petrel_time_to_limit_seconds", endless, f64::INFINITY),
        ("petrel_host_anomaly_rate", &[], 0.3),
    ];
    let mut problems = Vec::new();
    for _ in 0..20 {
        problems.extend(world.pass(15, &samples).problems);
    }
    assert!(problems.is_empty(), "{problems:?}");
    let alerts = world.engine.view().snapshot().alerts.clone();
    let named = |name: &str| alerts.iter().find(|alert| alert.labels["alertname"] == name).unwrap();
    let disk = named("FilesystemFullSoon");
    assert_eq!(disk.annotations["summary"], "web1: /data full in 42m 3s (p 0.93)");
    let description = &disk.annotations["description"];
    assert!(description.ends_with("probability of 93%. One time in ten it takes less than 30m 0s."), "{description}");
    let note = disk.prediction.unwrap();
    assert_eq!((note.probability, note.lead_seconds), (0.93, Some(2_523.0)));
    assert_eq!((disk.level, disk.basis), (Level::Warning, Basis::Predicted));
    let memory = named("MemoryExhaustedSoon");
    assert_eq!(memory.annotations["summary"], "web1: memory exhausted within 6 hours (p 0.85)");
    assert_eq!(memory.prediction.unwrap().lead_seconds, None);
    assert_eq!(named("HostVeryStrange").basis, Basis::Anomaly);
}
