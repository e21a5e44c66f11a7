//! The scorer from samples to stored series.

use super::*;

const STEP_MS: i64 = 10_000;

fn control(dir: &tempfile::TempDir) -> Arc<Control> {
    Arc::new(Control::open(&dir.path().join("control.db"), MIGRATIONS).unwrap())
}

fn config() -> ScoreConfig {
    RawScoreConfig::default().check().unwrap()
}

fn gauge(name: &str, host: &str) -> Labels {
    Labels::new([(NAME, name), ("instance", host), ("job", "node")])
}

/// Feeds one sample of a series, which has its number from its labels.
fn observe(scorer: &mut Scorer, labels: &Labels, sample: Sample, now: Timestamp) {
    let id = labels.as_wire().iter().fold(1u64, |id, byte| id.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let series = Arc::new(crate::store::Series::detached(id, labels.clone()));
    scorer.observe(&[Row { series, sample }], now);
}

/// Plain, repeatable noise in 0..1.
fn noise(i: i64) -> f64 {
    (i.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33).rem_euclid(1000) as f64
        / 1000.0
}

/// Feeds 30 series of `web1` for `steps`; from `trouble_from` on, half of them are far off.
fn feed(scorer: &mut Scorer, steps: std::ops::Range<i64>, trouble_from: i64) {
    for i in steps {
        for k in 0..30 {
            let jump = if i >= trouble_from && k % 2 == 0 { 50.0 } else { 0.0 };
            let sample = Sample { t: i * STEP_MS, v: 100.0 + noise(i * 31 + k) + jump };
            observe(scorer, &gauge(&format!("metric_{k}"), "web1"), sample, i * STEP_MS);
        }
    }
}

fn rate_of(batch: &Batch) -> Option<f64> {
    let found = batch.series.iter().find(|(labels, _)| labels.name() == "petrel_host_anomaly_rate");
    found.map(|(labels, samples)| {
        assert_eq!((labels.get("instance"), labels.get("job")), (Some("web1"), Some("node")));
        samples[0].v
    })
}

#[test]
fn a_host_in_trouble_is_told_and_a_calm_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut scorer = Scorer::open(control(&dir), config()).unwrap();
    feed(&mut scorer, 0..30, i64::MAX);
    assert_eq!(rate_of(&scorer.tick(30 * STEP_MS)), None, "nothing is said while warming up");
    feed(&mut scorer, 30..1000, i64::MAX);
    let calm = rate_of(&scorer.tick(1000 * STEP_MS)).unwrap();
    assert!(calm < 0.1, "{calm}");
    feed(&mut scorer, 1000..1003, 1000);
    let batch = scorer.tick(1003 * STEP_MS);
    assert!(rate_of(&batch).unwrap() >= 0.45);
    let (labels, samples) = batch.series.iter().find(|(labels, _)| labels.get("of") == Some("metric_0")).unwrap();
    assert_eq!((labels.name(), labels.get("instance")), ("petrel_anomaly_score", Some("web1")));
    assert!(samples[0].v <= 0.01);
}

#[test]
fn a_score_ends_with_a_marker_when_the_series_is_normal_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut scorer = Scorer::open(control(&dir), config()).unwrap();
    let labels = gauge("load", "web1");
    let mut told = Vec::new();
    for i in 0..1010 {
        let v = if i == 1000 { 90.0 } else { noise(i) };
        observe(&mut scorer, &labels, Sample { t: i * STEP_MS, v }, i * STEP_MS);
        if i >= 1000 {
            let batch = scorer.tick(i * STEP_MS);
            told.extend(batch.series.into_iter().filter(|(l, _)| l.get("of").is_some()).flat_map(|(_, s)| s));
        }
    }
    assert!(told[0].t == 1000 * STEP_MS && told[0].v < 0.001, "{told:?}");
    assert!(told[1..].iter().any(Sample::is_stale) && told.last().unwrap().is_stale(), "{told:?}");
}

#[test]
fn old_late_and_derived_samples_are_not_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut scorer = Scorer::open(control(&dir), config()).unwrap();
    let labels = gauge("load", "web1");
    for i in 0..1000 {
        observe(&mut scorer, &labels, Sample { t: i * STEP_MS, v: noise(i) }, i * STEP_MS);
    }
    scorer.tick(1000 * STEP_MS);
    observe(&mut scorer, &labels, Sample { t: 5 * STEP_MS, v: 900.0 }, 1000 * STEP_MS);
    observe(&mut scorer, &labels, Sample { t: 1000 * STEP_MS, v: 900.0 }, 1000 * STEP_MS + 3_600_000);
    observe(&mut scorer, &labels, Sample { t: 1001 * STEP_MS, v: f64::NAN }, 1001 * STEP_MS);
    observe(&mut scorer, &gauge("petrel_forecast", "web1"), Sample { t: 0, v: 1.0 }, 0);
    let batch = scorer.tick(1001 * STEP_MS);
    assert!(batch.series.iter().all(|(labels, _)| labels.get("of").is_none()), "{:?}", batch.series);
    assert_eq!(scorer.series_len(), 1);
}

#[test]
fn what_was_learned_survives_a_restart_and_the_number_of_series_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut scorer = Scorer::open(control(&dir), config()).unwrap();
    feed(&mut scorer, 0..500, i64::MAX);
    scorer.save(500 * STEP_MS).unwrap();
    let mut again = Scorer::open(control(&dir), config()).unwrap();
    let learned = |scorer: &Scorer| {
        scorer.detectors().map(|(l, t)| (l.clone(), t.clone())).collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(learned(&again), learned(&scorer));
    feed(&mut again, 500..503, 500);
    assert!(rate_of(&again.tick(503 * STEP_MS)).unwrap() >= 0.45, "warm from the first sample on");

    let few = RawScoreConfig { series_max: 10, ..RawScoreConfig::default() }.check().unwrap();
    let mut bounded = Scorer::open(control(&dir), few).unwrap();
    feed(&mut bounded, 600..602, i64::MAX);
    assert_eq!(bounded.series_len(), 10);
    bounded.tick(600 * STEP_MS + 2 * 86_400_000);
    assert_eq!(bounded.series_len(), 0, "what ended long ago is forgotten");

    feed(&mut bounded, 600..602, i64::MAX);
    bounded.tick(600 * STEP_MS - 86_400_000);
    assert_eq!(bounded.series_len(), 0, "what a clock said that was a day ahead would make all samples late");
}

#[test]
fn saved_state_of_another_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let control = control(&dir);
    control.write(|tx| tx.execute("INSERT INTO score_state VALUES (0, 99, 0, x'ff')", [])).unwrap();
    assert_eq!(Scorer::open(control, config()).unwrap().series_len(), 0);
}

#[test]
fn saved_state_is_packed_and_was_once_plain() {
    let dir = tempfile::tempdir().unwrap();
    let control = control(&dir);
    let mut scorer = Scorer::open(Arc::clone(&control), config()).unwrap();
    feed(&mut scorer, 0..100, i64::MAX);
    scorer.save(100 * STEP_MS).unwrap();
    let shards: Vec<(i64, i64, Vec<u8>)> = control
        .read(|c| {
            let mut rows = c.prepare("SELECT shard, version, series FROM score_state")?;
            rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect()
        })
        .unwrap();
    for (shard, version, packed) in shards {
        assert_eq!(version, 2);
        let plain = crate::store::packed::unpack(&packed).unwrap();
        assert!(plain.len() == 1 || packed.len() * 10 < plain.len() * 9, "{} of {}", packed.len(), plain.len());
        control
            .write(|tx| tx.execute("UPDATE score_state SET version = 1, series = ?2 WHERE shard = ?1", (shard, plain)))
            .unwrap();
    }
    let learned = |scorer: &Scorer| {
        scorer.detectors().map(|(l, t)| (l.clone(), t.clone())).collect::<std::collections::BTreeMap<_, _>>()
    };
    assert_eq!(learned(&Scorer::open(control, config()).unwrap()), learned(&scorer));
}

#[test]
fn the_thread_scores_ticks_and_saves() {
    let dir = tempfile::tempdir().unwrap();
    let control = control(&dir);
    let scorer = Scorer::open(Arc::clone(&control), config()).unwrap();
    let (sender, feed) = tokio::sync::mpsc::channel(4);
    let series = Arc::new(crate::store::Series::detached(1, gauge("load", "web1")));
    let accepted = Arc::new(vec![Row { series, sample: Sample { t: 1000, v: 1.0 } }]);
    sender.blocking_send(accepted).unwrap();
    drop(sender);
    let stop = tokio_util::sync::CancellationToken::new();
    run(scorer, feed, |_, _| {}, &crate::clock::fixed(2000), &stop).unwrap();
    assert_eq!(Scorer::open(control, config()).unwrap().series_len(), 1);
}

#[test]
fn wrong_settings_are_named() {
    let wrong = RawScoreConfig {
        fresh: petrel_agent::units::Span(std::time::Duration::from_secs(1)),
        ..RawScoreConfig::default()
    };
    assert!(wrong.check().unwrap_err().to_string().starts_with("score.fresh: "));
}
