//! What changes the store through Prometheus' API: deletion of samples, and giving back their room. An agent's token does not
//! open these paths (`auth`); off loopback a user's token does.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use petrel_agent::error_chain::chain;
use tokio::sync::Semaphore;
use tracing::info;

use super::json::Failure;
use super::params::Params;
use crate::api::auth::Identity;
use crate::store::{DeleteError, MaintainError, Store};

/// What the handlers share.
#[derive(Clone)]
struct Admin {
    store: Arc<Store>,
    /// One change at a time: each may keep the disk busy for minutes.
    one: Arc<Semaphore>,
}

/// `POST` and `PUT` of `/api/v1/admin/tsdb/delete_series` and `/api/v1/admin/tsdb/clean_tombstones`.
pub fn router(store: Arc<Store>) -> Router {
    let admin = Admin { store, one: Arc::new(Semaphore::new(1)) };
    Router::new()
        .route("/api/v1/admin/tsdb/delete_series", post(delete_series).put(delete_series))
        .route("/api/v1/admin/tsdb/clean_tombstones", post(clean_tombstones).put(clean_tombstones))
        .with_state(admin)
}

/// Answers once the samples of `match[]` between `start` and `end` are gone for good.
async fn delete_series(
    State(admin): State<Admin>,
    caller: Option<Extension<Identity>>,
    params: Params,
) -> Result<Response, Failure> {
    let any_of = params.matchers()?;
    if any_of.is_empty() {
        return Err(Failure { kind: "bad_data", text: "no match[] parameter provided".to_owned() });
    }
    let range = params.range()?;
    let by = caller.map(|Extension(identity)| format!("{identity:?}")).unwrap_or_default();
    admin
        .change(move |store| {
            let deleted = store.delete(&any_of, range).map_err(|error| {
                let kind = if matches!(error, DeleteError::Resting) { "unavailable" } else { "internal" };
                Failure { kind, text: chain(&error) }
            })?;
            let (series, chunks) = (deleted.series, deleted.chunks);
            info!(%by, ?any_of, from = range.from, to = range.to, series, chunks, "samples were deleted");
            Ok(())
        })
        .await
}

/// Answers once the room of deleted samples is given back. There are no tombstones here; the name is Prometheus'.
async fn clean_tombstones(State(admin): State<Admin>) -> Result<Response, Failure> {
    let failed = |error: MaintainError| {
        let kind = if matches!(error, MaintainError::Resting) { "unavailable" } else { "internal" };
        Failure { kind, text: chain(&error) }
    };
    admin.change(move |store| store.compact_all().map_err(failed)).await
}

impl Admin {
    /// Runs a change to its end on a thread that may block, also when the client leaves.
    async fn change(
        &self,
        change: impl FnOnce(&Store) -> Result<(), Failure> + Send + 'static,
    ) -> Result<Response, Failure> {
        let Ok(permit) = Arc::clone(&self.one).try_acquire_owned() else {
            let text = "another deletion or cleaning is going on; ask again when it is done".to_owned();
            return Err(Failure { kind: "unavailable", text });
        };
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || {
            let done = change(&store);
            drop(permit);
            done
        });
        match done.await {
            Ok(Ok(())) => Ok(StatusCode::NO_CONTENT.into_response()),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure { kind: "unavailable", text: "the server is stopping".to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, header};
    use tower::ServiceExt as _;

    use super::*;
    use crate::query::source::{Source as _, TimeRange};
    use crate::series::{Labels, Sample};
    use crate::store::{Batch, StoreOptions};

    #[tokio::test]
    async fn series_are_deleted_by_form_and_by_address() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions { disk_reserve_bytes: 0, retention: None, ..StoreOptions::default() };
        let store = Store::open(dir.path(), options, &[], 10_000).unwrap();
        let samples: Vec<Sample> = (1..=5).map(|t| Sample { t: t * 1_000, v: 1.0 }).collect();
        let series = ["a", "b"].map(|name| (Labels::new([("__name__", name)]), samples.clone()));
        store.append(Batch { series: series.to_vec(), ..Batch::default() }, 10_000).await.unwrap();
        let ask = |request: axum::http::request::Builder, body: &'static str| {
            let router = router(Arc::clone(&store));
            let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            async move {
                let response = router.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
                let status = response.status().as_u16();
                let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
                format!("{status} {}", String::from_utf8_lossy(&body))
            }
        };
        const DELETE: &str = "/api/v1/admin/tsdb/delete_series";
        assert_eq!(ask(Request::post(DELETE), "match[]=a&start=2&end=3").await, "204 ");
        assert_eq!(ask(Request::put(DELETE), "match[]=b").await, "204 ");
        assert_eq!(ask(Request::post(format!("{DELETE}?match[]=nothing")), "").await, "204 ");
        assert_eq!(ask(Request::post("/api/v1/admin/tsdb/clean_tombstones"), "").await, "204 ");
        assert!(ask(Request::post(DELETE), "").await.starts_with("400 "));
        assert!(ask(Request::get(format!("{DELETE}?match[]=a")), "").await.starts_with("405 "));
        let left = store.select(&[], TimeRange { from: 0, to: i64::MAX }, 100).unwrap();
        let times: Vec<(String, Vec<i64>)> =
            left.iter().map(|one| (one.labels.to_string(), one.samples.iter().map(|s| s.t).collect())).collect();
        assert_eq!(times, [("a".to_owned(), vec![1_000, 4_000, 5_000])]);
    }
}
