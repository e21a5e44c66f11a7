//! Petrel's own read API: the overview that the console draws, and its parts for the command line. Reads only; what changes
//! something is in `remedy`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use petrel_agent::error_chain::chain;
use serde::{Deserialize, Serialize};

use super::hosts::{self, HostRow};
use super::logs;
use crate::clock::Clock;
use crate::decide::alert::{Alert, AlertState};
use crate::decide::engine::AlertsView;
use crate::decide::verdict::VerdictBook;
use crate::predict::{CalibrationBucket, Entry, EntryFilter, Ledger, OutlookRow};
use crate::remedy::service::Remedy;
use crate::remedy::view::RunView;
use crate::series::Timestamp;
use crate::store::Store;
use crate::store::control::ControlError;

/// Runs that an overview shows.
const RUNS_MAX: usize = 50;
/// Ledger entries in one answer, unless asked for fewer.
const ENTRIES_MAX: usize = 10_000;
const ENTRIES_DEFAULT: usize = 100;

/// Where the parts of the overview come from.
#[derive(Clone)]
pub struct Views {
    /// Stored series.
    pub store: Arc<Store>,
    /// Alerts as of the last tick.
    pub alerts: AlertsView,
    /// What is believed of each host.
    pub verdicts: Arc<Mutex<VerdictBook>>,
    /// What runs out when, as of the last tick.
    pub outlooks: Arc<RwLock<Arc<Vec<OutlookRow>>>>,
    /// Predictions and what became of them.
    pub ledger: Arc<Ledger>,
    /// Runs.
    pub remedy: Arc<Remedy>,
    /// What operators must know of Petrel itself, for example a config that was refused.
    pub problems: Arc<RwLock<Vec<String>>>,
    /// The time.
    pub clock: Clock,
}

/// Everything on the console's page.
#[derive(Debug, Serialize)]
struct Overview {
    version: &'static str,
    now: Timestamp,
    hold: Hold,
    hosts: Vec<HostRow>,
    alerts: Vec<Alert>,
    outlooks: Vec<OutlookRow>,
    runs: Vec<RunView>,
    ledger: Record,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Hold {
    on: bool,
}

/// How good the predictions were.
#[derive(Debug, Default, Serialize)]
struct Record {
    open: usize,
    settled: i64,
    calibration: Vec<Bucket>,
}

/// Predictions that said about the same.
#[derive(Debug, Serialize)]
struct Bucket {
    predicted: f64,
    realised: f64,
    count: i64,
}

#[derive(Debug, Serialize)]
struct LedgerAnswer {
    entries: Vec<Entry>,
    #[serde(flatten)]
    record: Record,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerQuestion {
    limit: Option<usize>,
    instance: Option<String>,
    open: Option<bool>,
}

/// `GET /petrel/v1/{overview,alerts,hosts,outlooks,ledger,logs}`, and `POST /petrel/v1/admin/flush`, which seals and compacts all
/// samples and then answers with what failed.
pub fn router(views: Views) -> Router {
    Router::new()
        .route("/petrel/v1/overview", get(|State(views): State<Views>| blocking(views, overview)))
        .route("/petrel/v1/alerts", get(|State(views): State<Views>| blocking(views, |views| Ok(alerts(views)))))
        .route("/petrel/v1/hosts", get(|State(views): State<Views>| blocking(views, |views| Ok(host_rows(views)))))
        .route("/petrel/v1/outlooks", get(|State(views): State<Views>| blocking(views, |views| Ok(outlooks(views)))))
        .route("/petrel/v1/ledger", get(ledger))
        .route("/petrel/v1/logs", get(logs::lines))
        .route("/petrel/v1/admin/flush", post(|State(views): State<Views>| blocking(views, |views| Ok(flush(views)))))
        .with_state(views)
}

/// Reads on a thread that may block.
pub(super) async fn blocking<T: Serialize + Send + 'static>(
    views: Views,
    read: impl FnOnce(&Views) -> Result<T, ControlError> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(move || read(&views)).await {
        Ok(Ok(value)) => Json(value).into_response(),
        Ok(Err(error)) => failed(&chain(&error)),
        Err(_) => failed("the server is stopping"),
    }
}

fn failed(error: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({ "error": error }))).into_response()
}

async fn ledger(State(views): State<Views>, Query(asked): Query<LedgerQuestion>) -> Response {
    let limit = asked.limit.unwrap_or(ENTRIES_DEFAULT).min(ENTRIES_MAX);
    let filter = EntryFilter { instance: asked.instance, open: asked.open, ..EntryFilter::default() };
    blocking(views, move |views| {
        Ok(LedgerAnswer { entries: views.ledger.entries(&filter, limit)?, record: record(&views.ledger)? })
    })
    .await
}

fn overview(views: &Views) -> Result<Overview, ControlError> {
    let remedy = views.remedy.snapshot(RUNS_MAX);
    Ok(Overview {
        version: env!("CARGO_PKG_VERSION"),
        now: (views.clock)(),
        hold: Hold { on: remedy.held },
        hosts: host_rows(views),
        alerts: alerts(views),
        outlooks: outlooks(views),
        runs: remedy.runs,
        ledger: record(&views.ledger)?,
        problems: views.problems.read().unwrap_or_else(PoisonError::into_inner).clone(),
    })
}

/// Worst first, firing before pending before resolved.
fn alerts(views: &Views) -> Vec<Alert> {
    let mut alerts = views.alerts.snapshot().alerts.clone();
    let rank = |alert: &Alert| match alert.state {
        AlertState::Firing => 0,
        AlertState::Pending => 1,
        AlertState::Resolved => 2,
    };
    alerts.sort_by(|a, b| rank(a).cmp(&rank(b)).then(b.level.cmp(&a.level)).then(b.active_at.cmp(&a.active_at)));
    alerts
}

/// What series tell of each host, with the failure detector's verdict and the operators' duty over it.
fn host_rows(views: &Views) -> Vec<HostRow> {
    let mut rows = hosts::measure(&*views.store, (views.clock)());
    for known in views.verdicts.lock().unwrap_or_else(PoisonError::into_inner).snapshot() {
        let row = rows.entry(known.host.clone()).or_insert_with(|| HostRow { name: known.host, ..HostRow::default() });
        known.verdict.as_str().clone_into(&mut row.verdict);
        row.reason = known.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    }
    for (host, note) in views.remedy.snapshot(0).duties {
        if let Some(row) = rows.get_mut(&host) {
            note.duty.as_str().clone_into(&mut row.duty);
        }
    }
    rows.into_values().collect()
}

fn flush(views: &Views) -> Vec<String> {
    views.store.flush().iter().map(|error| chain(error)).collect()
}

fn outlooks(views: &Views) -> Vec<OutlookRow> {
    views.outlooks.read().unwrap_or_else(PoisonError::into_inner).to_vec()
}

fn record(ledger: &Ledger) -> Result<Record, ControlError> {
    let open = EntryFilter { open: Some(true), ..EntryFilter::default() };
    Ok(Record { open: ledger.entries(&open, ENTRIES_MAX)?.len(), ..summed(&ledger.calibration()?) })
}

/// All resources and horizons together, by what was said.
fn summed(buckets: &[CalibrationBucket]) -> Record {
    let mut deciles: BTreeMap<i64, (f64, f64, i64)> = BTreeMap::new();
    for bucket in buckets {
        let (said, realised, count) = deciles.entry(bucket.decile).or_default();
        *said += bucket.said * bucket.entries as f64;
        *realised += bucket.realised * bucket.entries as f64;
        *count += bucket.entries;
    }
    let calibration = deciles.into_values().filter(|(.., count)| *count > 0).map(|(said, realised, count)| Bucket {
        predicted: said / count as f64,
        realised: realised / count as f64,
        count,
    });
    Record { open: 0, settled: buckets.iter().map(|bucket| bucket.entries).sum(), calibration: calibration.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_is_summed_over_resources_and_horizons() {
        let bucket = |horizon_ms, decile, entries, said, realised| CalibrationBucket {
            resource: "filesystem".to_owned(),
            horizon_ms,
            decile,
            entries,
            realised,
            said,
            brier: 0.0,
        };
        let record = summed(&[bucket(1, 8, 3, 0.8, 1.0), bucket(2, 8, 1, 0.84, 0.0), bucket(1, 0, 0, 0.0, 0.0)]);
        assert_eq!((record.settled, record.calibration.len()), (4, 1));
        let only = &record.calibration[0];
        assert!((only.predicted - 0.81).abs() < 1e-9 && (only.realised - 0.75).abs() < 1e-9 && only.count == 4);
    }
}
