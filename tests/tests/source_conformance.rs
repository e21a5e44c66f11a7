//! Every implementation of `query::source::Source` runs the same suite: the local store from memory, from disk and after a restart,
//! each kind of remote engine, and both halves put together.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use petrel_server::query::source::{Source, TimeRange};
use petrel_server::remote::{self, RawEngine, ReadProtocol, RemoteEngine};
use petrel_server::series::{Labels, Matcher, Sample, Timestamp};
use petrel_server::store::{Batch, Store, StoreOptions};
use petrel_tests::engine::{Engine, Kind};
use petrel_tests::process::wait_for;
use petrel_tests::remote_write;
use petrel_tests::source_suite::{self, Keeps};
use tokio_util::sync::CancellationToken;

const WHOLE: Keeps = Keeps { nan: true, bits: true };
/// VictoriaMetrics keeps about 15 digits, and no NaN but staleness markers.
const ROUNDED: Keeps = Keeps { nan: false, bits: false };
/// Where the halves meet, after the suite's begin: between two samples.
const MIDDLE_MS: i64 = 105_000;

fn begin() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    (now - 3_600_000) / 1000 * 1000
}

fn open(dir: &Path, retention: Option<Duration>) -> Arc<Store> {
    let options = StoreOptions { retention, disk_reserve_bytes: 0, ..StoreOptions::default() };
    Store::open(dir, options, remote::MIGRATIONS, begin()).expect("a store for the test")
}

fn fill(store: &Store, series: Vec<(Labels, Vec<Sample>)>, now: Timestamp) {
    let batch = Batch { series, ..Batch::default() };
    store.append_blocking(batch, now).expect("the store takes samples");
}

#[test]
fn the_local_store_in_memory_on_disk_and_after_a_restart() {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let (begin, store) = (begin(), open(dir.path(), None));
    fill(&store, source_suite::series(begin, WHOLE), begin + 600_000);
    source_suite::check(&*store, begin, WHOLE);
    assert!(store.flush().is_empty());
    source_suite::check(&*store, begin, WHOLE);
    store.close();
    drop(store);
    source_suite::check(&*open(dir.path(), None), begin, WHOLE);
}

/// A store that reads from an engine; the clock can be set.
struct Joined {
    store: Arc<Store>,
    engine: RemoteEngine,
    clock: Arc<AtomicI64>,
    cancel: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Joined {
    fn start(dir: &Path, engine: &Engine, (kind, read_recent): (Kind, bool), retention: Option<Duration>) -> Joined {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut raw = RawEngine::default();
        raw.remote.enabled = true;
        raw.remote.read_url = Some(engine.url.clone());
        raw.remote.read_recent = read_recent;
        if kind == Kind::VictoriaMetrics {
            raw.remote.read_protocol = ReadProtocol::Victoriametrics;
        }
        let config = raw.check().expect("a good config").expect("it is enabled");
        let (store, clock, cancel) = (open(dir, retention), Arc::new(AtomicI64::new(0)), CancellationToken::new());
        let read = Arc::clone(&clock);
        let clock_of = Arc::new(move || read.load(Ordering::SeqCst));
        let started = RemoteEngine::start(&config, Arc::clone(&store), clock_of, cancel.clone());
        let (engine, thread) = started.expect("the remote engine can be set up");
        Joined { store, engine, clock, cancel, thread: Some(thread) }
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok(), "the remote engine's thread panicked");
        }
    }
}

fn send(engine: &Engine, series: &[(Labels, Vec<Sample>)]) {
    let pairs: Vec<Vec<(&str, &str)>> = series.iter().map(|(labels, _)| labels.iter().collect()).collect();
    let samples: Vec<Vec<(i64, f64)>> =
        series.iter().map(|(_, samples)| samples.iter().map(|sample| (sample.t, sample.v)).collect()).collect();
    let request: Vec<_> = pairs.iter().zip(&samples).map(|(pairs, samples)| (&pairs[..], &samples[..])).collect();
    engine.write(remote_write::request(&request));
}

/// The engine alone, then the engine for the older half and the store for the younger.
fn a_remote_engine(kind: Kind, keeps: Keeps) {
    let dir = tempfile::tempdir().expect("a folder for the test");
    let (begin, engine) = (begin(), Engine::start(dir.path(), kind));
    let series = source_suite::series(begin, keeps);
    send(&engine, &series);

    let alone = Joined::start(&dir.path().join("alone"), &engine, (kind, true), None);
    let source = alone.engine.strict_source();
    let all = TimeRange { from: begin, to: begin + 600_000 };
    let any = Matcher::regex("__name__", "suite_.*", false).expect("a good expression");
    wait_for("the engine to show the samples", Duration::from_secs(30), || {
        source.select(std::slice::from_ref(&any), all, 10_000).is_ok_and(|found| found.len() == series.len())
    });
    source_suite::check(&*source, begin, keeps);
    drop(alone);

    let retention = Duration::from_secs(1_200);
    let joined = Joined::start(&dir.path().join("joined"), &engine, (kind, false), Some(retention));
    let now = begin + MIDDLE_MS + retention.as_millis() as i64;
    joined.clock.store(now, Ordering::SeqCst);
    // The store itself refuses the older half.
    fill(&joined.store, series, now);
    source_suite::check(&*joined.engine.source(), begin, keeps);
    let stored: &dyn Source = &*joined.store;
    let old = TimeRange { from: begin, to: begin + MIDDLE_MS - 1 };
    assert!(stored.select(&[any], old, 10_000).expect("the store can be read").is_empty());
}

#[test]
fn victoriametrics_alone_and_behind_the_store() {
    a_remote_engine(Kind::VictoriaMetrics, ROUNDED);
}

#[test]
fn prometheus_alone_and_behind_the_store() {
    a_remote_engine(Kind::Prometheus, WHOLE);
}
