//! The predictor from stored series to outlooks and settled predictions, on a fleet in memory.

use std::sync::Mutex;

use super::*;
use crate::query::source::{MetricMetadata, Selected};
use crate::series::{Labels, Matcher, NAME, Sample};

const SECOND: i64 = 1_000;
const SIZE: f64 = 1_000.0;

/// Series in memory.
#[derive(Default)]
struct Fleet(Mutex<BTreeMap<Labels, Vec<Sample>>>);

impl Fleet {
    fn add(&self, labels: &Labels, t: Timestamp, v: f64) {
        self.0.lock().unwrap().entry(labels.clone()).or_default().push(Sample { t, v });
    }

    fn add_disk(&self, t: Timestamp, avail: f64) {
        self.add(&disk("node_filesystem_avail_bytes"), t, avail);
        self.add(&disk("node_filesystem_size_bytes"), t, SIZE);
        self.add(&disk("node_filesystem_readonly"), t, 0.0);
    }
}

impl Source for Fleet {
    fn select(&self, matchers: &[Matcher], range: TimeRange, _: u64) -> Result<Vec<Selected>, SelectError> {
        let series = self.0.lock().unwrap();
        let chosen = series.iter().filter(|(labels, _)| matchers.iter().all(|matcher| matcher.matches(labels)));
        let within = chosen.map(|(labels, samples)| Selected {
            labels: labels.clone(),
            samples: samples.iter().filter(|s| (range.from..=range.to).contains(&s.t)).copied().collect(),
        });
        Ok(within.filter(|selected| !selected.samples.is_empty()).collect())
    }

    fn series(&self, _: &[Vec<Matcher>], _: TimeRange) -> Result<Vec<Labels>, SelectError> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }

    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        Vec::new()
    }
}

fn disk(name: &str) -> Labels {
    Labels::new([(NAME, name), ("instance", "web1"), ("job", "node"), ("mountpoint", "/data"), ("fstype", "tmpfs")])
}

fn predictor(dir: &tempfile::TempDir, ledger_interval_s: u64) -> Predictor {
    let span = |s| petrel_agent::units::Span(std::time::Duration::from_secs(s));
    let raw = RawPredictConfig {
        interval: span(1),
        ledger_interval_min: span(ledger_interval_s),
        horizons: vec![span(120), span(3600)],
        ..RawPredictConfig::default()
    };
    let control = Arc::new(Control::open(&dir.path().join("control.db"), MIGRATIONS).unwrap());
    Predictor::open(control, raw.check().unwrap(), 7)
}

fn value(tick: &Tick, name: &str, label: (&str, &str)) -> Option<f64> {
    let found =
        tick.batch.series.iter().find(|(labels, _)| labels.name() == name && labels.get(label.0) == Some(label.1));
    found.map(|(_, samples)| samples[0].v)
}

fn outcomes(predictor: &Predictor) -> BTreeMap<String, usize> {
    let mut outcomes = BTreeMap::new();
    for entry in predictor.ledger().entries(&EntryFilter::default(), 10_000).unwrap() {
        *outcomes.entry(entry.outcome.unwrap_or("open".to_owned())).or_default() += 1;
    }
    outcomes
}

#[test]
fn a_filling_disk_is_predicted_and_settled() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, mut predictor) = (Fleet::default(), predictor(&dir, 10));
    let mut first_sure = None;
    for s in 0..260 {
        let used = if s < 40 { 0.0 } else { f64::from(s - 40) * 5.0 };
        fleet.add_disk(i64::from(s) * SECOND, (SIZE - used).max(0.0));
        let tick = predictor.tick(&fleet, i64::from(s) * SECOND);
        assert!(tick.problems.is_empty(), "{:?}", tick.problems);
        let probability = value(&tick, "petrel_limit_probability", ("horizon", "1h"));
        assert!(s >= 40 || probability.is_none_or(|p| p < 0.05), "nothing happens yet at {s}: {probability:?}");
        if first_sure.is_none() && probability.is_some_and(|p| p > 0.8) {
            first_sure = Some(s);
            let left = value(&tick, "petrel_time_to_limit_seconds", ("quantile", "0.5")).unwrap();
            let truth = 238.0 - f64::from(s);
            assert!((left - truth).abs() < 0.3 * truth, "said {left}, will be {truth}");
        }
        if s == 150 {
            let row = &tick.outlooks[0];
            assert_eq!((row.instance.as_str(), row.what.as_str(), row.resource), ("web1", "/data", "filesystem"));
            assert!(row.probabilities.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{row:?}");
        }
    }
    let lead = 238 - first_sure.expect("it was predicted");
    assert!(lead > 60, "said only {lead} s ahead");
    let outcomes = outcomes(&predictor);
    assert!(outcomes["happened"] > 2 && !outcomes.contains_key("unpredicted"), "{outcomes:?}");
    let calibration = predictor.ledger().calibration().unwrap();
    assert!(calibration.iter().any(|bucket| bucket.decile == 9 && bucket.realised == 1.0), "{calibration:?}");
}

#[test]
fn rest_is_settled_as_did_not_and_a_sudden_end_as_unpredicted() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, mut predictor) = (Fleet::default(), predictor(&dir, 10));
    for s in 0..300 {
        fleet.add_disk(s * SECOND, 500.0 + (s % 3) as f64);
        predictor.tick(&fleet, s * SECOND);
    }
    let before = outcomes(&predictor);
    assert!(before["did_not"] >= 5 && before["open"] >= 1 && before.len() == 2, "{before:?}");
    fleet.add_disk(300 * SECOND, 2.0);
    predictor.tick(&fleet, 300 * SECOND);
    let after = outcomes(&predictor);
    assert_eq!(after["unpredicted"], 1, "{after:?}");
    let calibration = predictor.ledger().calibration().unwrap();
    assert!(calibration.iter().any(|b| b.decile == 0 && b.horizon_ms == 120_000 && b.brier < 0.5), "{calibration:?}");
}

#[test]
fn missing_truth_and_action_censor() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, mut predictor) = (Fleet::default(), predictor(&dir, 10));
    for s in 0..60 {
        fleet.add_disk(s * SECOND, 500.0 + (s % 3) as f64);
        predictor.tick(&fleet, s * SECOND);
    }
    // Nothing for two minutes, then it is back: the predictions of the last minute cannot be judged.
    for s in 180..215 {
        fleet.add_disk(s * SECOND, 500.0);
        predictor.tick(&fleet, s * SECOND);
    }
    let by_truth = outcomes(&predictor);
    assert!(by_truth["censored"] >= 3, "{by_truth:?}");
    let ledger = predictor.ledger();
    let other = ledger.censor(("web1", Some(Resource::Memory)), "drained by run 1", 215 * SECOND).unwrap();
    let open = ledger.censor(("web1", None), "drained by run 1", 215 * SECOND).unwrap();
    assert!(other == 0 && open > 0);
    assert!(!outcomes(&predictor).contains_key("open"));
    let filter = EntryFilter { instance: Some("web1".to_owned()), resource: None, open: Some(false) };
    assert!(ledger.entries(&filter, 1).unwrap()[0].reason.is_some());
}

#[test]
fn a_restart_reads_the_past_and_settles_what_it_finds_there() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, mut first) = (Fleet::default(), predictor(&dir, 10));
    for s in 0..100 {
        fleet.add_disk(s * SECOND, 500.0 - s as f64 * 3.0);
        first.tick(&fleet, s * SECOND);
    }
    drop(first);
    for s in 100..250 {
        fleet.add_disk(s * SECOND, (500.0 - s as f64 * 3.0).max(0.0));
    }
    let mut second = predictor(&dir, 10);
    let tick = second.tick(&fleet, 260 * SECOND);
    assert_eq!(value(&tick, "petrel_limit_probability", ("horizon", "1h")), Some(1.0));
    assert!(outcomes(&second)["happened"] > 0, "{:?}", outcomes(&second));
}

#[test]
fn memory_and_processors_are_watched_and_pseudo_file_systems_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, mut predictor) = (Fleet::default(), predictor(&dir, 10));
    let host = |name: &str, more: &[(&str, &str)]| {
        let base = [(NAME, name), ("instance", "web1"), ("job", "node")];
        Labels::new(base.iter().chain(more).copied())
    };
    for i in 0..200i64 {
        let t = i * 10 * SECOND;
        fleet.add(&host("node_memory_MemAvailable_bytes", &[]), t, 800.0 - i as f64 * 2.0);
        fleet.add(&host("node_memory_MemTotal_bytes", &[]), t, 1000.0);
        for cpu in ["0", "1"] {
            fleet.add(&host("node_cpu_seconds_total", &[("cpu", cpu), ("mode", "idle")]), t, i as f64 * 6.0);
            fleet.add(&host("node_cpu_seconds_total", &[("cpu", cpu), ("mode", "user")]), t, i as f64 * 4.0);
        }
        for name in ["node_filesystem_avail_bytes", "node_filesystem_size_bytes"] {
            fleet.add(&host(name, &[("mountpoint", "/snap/x"), ("fstype", "squashfs")]), t, 0.0);
        }
    }
    let tick = predictor.tick(&fleet, 199 * 10 * SECOND);
    let mut resources: Vec<&str> = tick.outlooks.iter().map(|row| row.resource).collect();
    resources.sort_unstable();
    assert_eq!(resources, ["cpu", "memory"]);
    assert!(value(&tick, "petrel_limit_probability", ("resource", "memory")).is_some());
    let cpu = tick.outlooks.iter().find(|row| row.resource == "cpu").unwrap();
    assert!((cpu.value - 0.4).abs() < 1e-6 && cpu.refused.is_none(), "{cpu:?}");
    assert_eq!(value(&tick, "petrel_time_to_limit_seconds", ("of", "node_cpu_seconds_total")), Some(f64::INFINITY));
}

#[test]
fn the_ledger_is_bounded_and_old_entries_leave_their_calibration() {
    let dir = tempfile::tempdir().unwrap();
    let control = Arc::new(Control::open(&dir.path().join("control.db"), MIGRATIONS).unwrap());
    let ledger = Ledger::over(control, 86_400_000, 20);
    let subject = Subject { resource: Resource::Memory, labels: Labels::new([("instance", "web1")]) };
    let statement = Statement { subject, horizon_ms: 1000, probability: 0.25, lead_seconds: None, limit: 1.0 };
    ledger.record(&vec![statement; 30], 0).unwrap();
    let due = ledger.due(1000, 100).unwrap();
    assert_eq!(due.len(), 20, "the rest found no room");
    let did_not =
        |due: &Due| Settlement { id: due.id, outcome: Outcome::DidNot, happened_at: None, reason: String::new() };
    let settlements: Vec<Settlement> = due.iter().map(did_not).collect();
    ledger.settle(&settlements, 1000).unwrap();
    ledger.settle(&settlements, 2000).unwrap();
    ledger.prune(2000 + 86_400_000).unwrap();
    assert!(ledger.entries(&EntryFilter::default(), 100).unwrap().is_empty());
    let calibration = ledger.calibration().unwrap();
    assert_eq!((calibration[0].entries, calibration[0].decile), (20, 2), "settled once, summed once");
    assert!((calibration[0].brier - 0.0625).abs() < 1e-12);
}

#[test]
fn wrong_settings_are_named_and_horizons_read_as_in_rules() {
    let span = |s| petrel_agent::units::Span(std::time::Duration::from_secs(s));
    let wrong = RawPredictConfig { horizons: vec![span(3600), span(600)], ..RawPredictConfig::default() };
    assert!(wrong.check().unwrap_err().to_string().starts_with("predict.horizons: "));
    let labels: Vec<String> =
        RawPredictConfig::default().check().unwrap().horizons.iter().map(|h| emit::horizon_label(*h)).collect();
    assert_eq!(labels, ["1h", "6h", "24h", "7d"]);
}

/// What a runbook that undoes itself waits for.
#[test]
fn freed_space_is_believed_at_once_near_and_soon_far() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, mut predictor) = (Fleet::default(), predictor(&dir, 10));
    for s in 0..400 {
        let filling = (60..200).contains(&s);
        fleet.add_disk(i64::from(s) * SECOND, if filling { SIZE - f64::from(s - 60) * 5.0 } else { SIZE });
        let tick = predictor.tick(&fleet, i64::from(s) * SECOND);
        let probability = |horizon| value(&tick, "petrel_limit_probability", ("horizon", horizon)).unwrap_or(0.0);
        let (near, far) = (probability("2m"), probability("1h"));
        assert!(!(180..200).contains(&s) || near > 0.8, "full in half a minute, at {s}: {near}");
        assert!(s < 200 || near < 0.6, "freed, at {s}: {near}");
        assert!(s < 225 || far < 0.8, "freed for a while, at {s}: {far}");
        assert!(s < 390 || far < 0.2, "freed for long, at {s}: {far}");
    }
}

#[test]
fn an_unmounted_file_system_is_no_longer_spoken_of() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, mut predictor) = (Fleet::default(), predictor(&dir, 10));
    for s in 0..60 {
        fleet.add_disk(s * SECOND, 500.0);
        predictor.tick(&fleet, s * SECOND);
    }
    let stale = Sample::stale(60 * SECOND);
    fleet.0.lock().unwrap().get_mut(&disk("node_filesystem_avail_bytes")).unwrap().push(stale);
    let tick = predictor.tick(&fleet, 60 * SECOND);
    assert!(tick.outlooks.is_empty() && tick.batch.series.iter().all(|(_, samples)| samples[0].is_stale()));
    assert!(!tick.batch.series.is_empty(), "the series that were told are ended");
    assert!(predictor.tick(&fleet, 61 * SECOND).batch.series.is_empty());
}

#[test]
fn a_clock_that_was_ahead_does_not_stop_predictions() {
    let dir = tempfile::tempdir().unwrap();
    let (fleet, mut predictor) = (Fleet::default(), predictor(&dir, 10));
    for ahead in [86_400, 0] {
        for s in (0..100).map(|s| s + ahead) {
            fleet.add_disk(s * SECOND, 500.0 - (s - ahead) as f64 * 3.0);
            predictor.tick(&fleet, s * SECOND);
        }
    }
    let entries = predictor.ledger().entries(&EntryFilter::default(), 10_000).unwrap();
    let after = entries.iter().filter(|entry| entry.issued < 1_000 * SECOND).count();
    assert!(after > 5, "{after} of {}", entries.len());
}
