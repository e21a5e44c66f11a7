//! HTTP of remedy: agents pull orders, send answers and inventories; people look at runs and say yes, no or stop. A thin rim over
//! [`Remedy`]: it reads requests, moves blocking calls off the runtime and writes answers. Bad input is refused with what is allowed.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use petrel_agent::stream::protocol::{
    Class, HEADER_AGENT, HEADER_CLASS, HEADER_EPOCH, HEADER_SEQ, Inventory, InventoryAnswer, OrderAnswer, PATH_ANSWERS,
    PATH_INVENTORY, PATH_ORDERS,
};
use serde::Deserialize;
use serde_json::json;

use super::auth::Identity;
use crate::clock::Clock;
use crate::remedy::Remedy;
use crate::remedy::event::{Event, Word};
use crate::remedy::fleet::Duty;
use crate::remedy::service::{PLANNED_MS, rejection};
use crate::remedy::view::RunView;
use crate::store::Mark;
use crate::store::control::ControlError;

/// Longest an agent's request for orders waits; a proxy in between cuts at a minute.
const WAIT_MAX: Duration = Duration::from_secs(55);
/// Largest body: an inventory of a host with thousands of guests, about 500 bytes each.
const BODY_BYTES_MAX: usize = 4 << 20;
/// Runs listed where no number is asked for.
const RUNS_LISTED: usize = 100;

#[derive(Clone)]
struct Handle {
    remedy: Arc<Remedy>,
    clock: Clock,
}

/// The routes.
pub fn router(remedy: Arc<Remedy>, clock: Clock) -> Router {
    Router::new()
        .route(PATH_ORDERS, get(orders))
        .route(PATH_ANSWERS, post(answers))
        .route(PATH_INVENTORY, post(take_inventory).get(inventory))
        .route("/petrel/v1/runs", get(runs))
        .route("/petrel/v1/runs/{id}", get(run))
        .route("/petrel/v1/runs/{id}/{word}", post(word))
        .route("/petrel/v1/hold", post(hold).get(is_held))
        .route("/petrel/v1/hosts/{host}/duty", post(duty))
        .route("/petrel/v1/plan/evacuate/{host}", get(plan_evacuation))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Handle { remedy, clock })
}

/// An answer that is not 200, with the reason as `{"error": …}`.
struct Refused(StatusCode, String);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<ControlError> for Refused {
    fn from(error: ControlError) -> Refused {
        let source = std::error::Error::source(&error).map_or(String::new(), |source| format!(": {source}"));
        tracing::error!("remedy cannot keep its decisions, so nothing leaves: {error}{source}");
        Refused(StatusCode::SERVICE_UNAVAILABLE, format!("{error}{source}"))
    }
}

fn bad(reason: impl Into<String>) -> Refused {
    Refused(StatusCode::BAD_REQUEST, reason.into())
}

/// Runs a call that blocks on disk where that is allowed.
async fn blocking<T: Send + 'static>(
    handle: &Handle,
    call: impl FnOnce(&Remedy, i64) -> Result<T, ControlError> + Send + 'static,
) -> Result<T, Refused> {
    let (remedy, now) = (handle.remedy.clone(), (handle.clock)());
    match tokio::task::spawn_blocking(move || call(&remedy, now)).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Refused(StatusCode::INTERNAL_SERVER_ERROR, "the server is stopping".to_owned())),
    }
}

#[derive(Debug, Deserialize)]
struct Wait {
    #[serde(default)]
    wait_ms: u64,
}

/// An agent's long-lived request: answered as soon as there is an order, or empty when the wait is over.
async fn orders(
    State(handle): State<Handle>,
    headers: HeaderMap,
    Query(wait): Query<Wait>,
) -> Result<Response, Refused> {
    let agent = header(&headers, HEADER_AGENT)?.to_owned();
    let deadline = tokio::time::Instant::now() + Duration::from_millis(wait.wait_ms).min(WAIT_MAX);
    loop {
        let wake = handle.remedy.wake(&agent);
        let name = agent.clone();
        let orders = blocking(&handle, move |remedy, now| remedy.pull(&name, now)).await?;
        if !orders.is_empty() || tokio::time::Instant::now() >= deadline {
            return Ok(Json(orders).into_response());
        }
        // `notify_one` keeps a permit, so a wake between the pull and this line is not lost.
        let _ = tokio::time::timeout_at(deadline, wake.notified()).await;
    }
}

async fn answers(
    State(handle): State<Handle>,
    headers: HeaderMap,
    body: Result<Json<Vec<OrderAnswer>>, axum::extract::rejection::JsonRejection>,
) -> Result<Response, Refused> {
    let Json(answers) = body.map_err(|error| bad(error.body_text()))?;
    let class = header(&headers, HEADER_CLASS)?;
    if Class::parse(class) != Some(Class::Answers) {
        return Err(bad(format!("header {HEADER_CLASS} is `{class}`; here it must be `answers`")));
    }
    let seq = header(&headers, HEADER_SEQ)?;
    let mark = Mark {
        agent: header(&headers, HEADER_AGENT)?.to_owned(),
        epoch: header(&headers, HEADER_EPOCH)?.to_owned(),
        class: Class::Answers,
        seq: seq.parse().map_err(|_| bad(format!("header {HEADER_SEQ} is `{seq}`, not a number")))?,
    };
    let ignored = blocking(&handle, move |remedy, now| remedy.answers(&mark, answers, now)).await?;
    Ok(Json(json!({ "ignored": ignored })).into_response())
}

async fn take_inventory(
    State(handle): State<Handle>,
    headers: HeaderMap,
    body: Result<Json<Inventory>, axum::extract::rejection::JsonRejection>,
) -> Result<Response, Refused> {
    let Json(inventory) = body.map_err(|error| bad(error.body_text()))?;
    let agent = header(&headers, HEADER_AGENT)?;
    if inventory.agent != agent {
        return Err(bad(format!("the inventory is of agent `{}`, the request of `{agent}`", inventory.agent)));
    }
    let host = inventory.agent.clone();
    match blocking(&handle, move |remedy, now| remedy.see(inventory, now)).await? {
        None => {
            let is_planned = handle.remedy.plans_to_empty(&host, (handle.clock)());
            let measure_dirty_rate_ms = is_planned.then_some(PLANNED_MS.unsigned_abs());
            Ok(Json(InventoryAnswer { measure_dirty_rate_ms }).into_response())
        }
        Some(reason) => Err(Refused(StatusCode::INSUFFICIENT_STORAGE, reason)),
    }
}

async fn inventory(State(handle): State<Handle>) -> Response {
    Json(handle.remedy.inventories()).into_response()
}

#[derive(Debug, Deserialize)]
struct Listing {
    #[serde(default)]
    limit: Option<usize>,
}

async fn runs(State(handle): State<Handle>, Query(listing): Query<Listing>) -> Response {
    Json(handle.remedy.snapshot(listing.limit.unwrap_or(RUNS_LISTED)).runs).into_response()
}

async fn run(State(handle): State<Handle>, Path(id): Path<u64>) -> Result<Response, Refused> {
    let found = blocking(&handle, move |remedy, _| remedy.run(id)).await?;
    let (run, journal) = found.ok_or_else(|| Refused(StatusCode::NOT_FOUND, format!("there is no run {id}")))?;
    Ok(Json(json!({ "run": RunView::from(&run), "journal": journal })).into_response())
}

/// Who says so, and why. A user's token names the person; on a loopback server the request does.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Said {
    by: String,
    reason: String,
    on: Option<bool>,
    duty: Option<Duty>,
}

/// Longest name and reason that go into the journal, bytes.
const SAID_BYTES_MAX: usize = 1024;

impl Said {
    fn read(
        body: Result<Json<Said>, axum::extract::rejection::JsonRejection>,
        identity: Option<Extension<Identity>>,
    ) -> Result<Said, Refused> {
        let Json(mut said) = body.map_err(|error| bad(error.body_text()))?;
        if let Some(Extension(Identity::User(user))) = identity {
            said.by = user;
        }
        // The name goes into the journal, where nobody may seem to be nobody, or a line of its own.
        said.by = said.by.trim().to_owned();
        if said.by.is_empty()
            || said.by.chars().any(char::is_control)
            || said.by.len() + said.reason.len() > SAID_BYTES_MAX
        {
            return Err(bad(format!("say who you are in `by`; with `reason` at most {SAID_BYTES_MAX} bytes")));
        }
        Ok(said)
    }
}

async fn word(
    State(handle): State<Handle>,
    Path((id, word)): Path<(u64, String)>,
    identity: Option<Extension<Identity>>,
    body: Result<Json<Said>, axum::extract::rejection::JsonRejection>,
) -> Result<Response, Refused> {
    let said = Said::read(body, identity)?;
    let word = match word.as_str() {
        "approve" => Word::Approve,
        "deny" => Word::Deny,
        "abort" => Word::Abort,
        other => return Err(bad(format!("`{other}` is not known; say approve, deny or abort"))),
    };
    follow(&handle, Event::Word { run: id, word, by: said.by, reason: said.reason }).await?;
    run(State(handle), Path(id)).await
}

async fn hold(
    State(handle): State<Handle>,
    identity: Option<Extension<Identity>>,
    body: Result<Json<Said>, axum::extract::rejection::JsonRejection>,
) -> Result<Response, Refused> {
    let said = Said::read(body, identity)?;
    let on = said.on.ok_or_else(|| bad("say `on`: true to hold, false to release"))?;
    follow(&handle, Event::Hold { on, by: said.by }).await?;
    Ok(is_held(State(handle)).await)
}

async fn is_held(State(handle): State<Handle>) -> Response {
    Json(json!({ "on": handle.remedy.snapshot(0).held })).into_response()
}

async fn duty(
    State(handle): State<Handle>,
    Path(host): Path<String>,
    identity: Option<Extension<Identity>>,
    body: Result<Json<Said>, axum::extract::rejection::JsonRejection>,
) -> Result<Response, Refused> {
    let said = Said::read(body, identity)?;
    let duty = said.duty.ok_or_else(|| bad("say `duty`: active, draining, maintenance or quarantined"))?;
    follow(&handle, Event::Duty { host: host.clone(), duty, by: said.by }).await?;
    Ok(Json(json!({ "host": host, "duty": duty })).into_response())
}

async fn plan_evacuation(State(handle): State<Handle>, Path(host): Path<String>) -> Response {
    Json(handle.remedy.plan_evacuation(&host, (handle.clock)())).into_response()
}

/// Gives a person's word to the engine; 409 with the reason where it cannot be followed.
async fn follow(handle: &Handle, event: Event) -> Result<(), Refused> {
    let effects = blocking(handle, move |remedy, now| remedy.handle(event, now)).await?;
    match rejection(&effects) {
        None => Ok(()),
        Some(reason) => Err(Refused(StatusCode::CONFLICT, reason)),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Refused> {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    let sound =
        value.filter(|value| (1..=255).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic()));
    sound.ok_or_else(|| bad(format!("header {name} is missing or is not 1 to 255 printable ASCII bytes")))
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt as _;

    use super::*;
    use crate::remedy::MIGRATIONS;
    use crate::remedy::fleet::Facts;
    use crate::remedy::settings::RawRemedy;
    use crate::store::control::Control;
    use crate::store::marks;

    async fn ask(router: &Router, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = router.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        format!("{status} {}", String::from_utf8_lossy(&body))
    }

    fn opened(dir: &std::path::Path) -> (Router, Arc<Remedy>) {
        let migrations: Vec<_> = MIGRATIONS.iter().copied().chain([marks::MIGRATION]).collect();
        let control = Arc::new(Control::open(&dir.join("control.db"), &migrations).unwrap());
        let settings = RawRemedy::default().check().unwrap();
        let remedy = Remedy::open(control, Vec::new(), Facts::default(), settings, 0).unwrap();
        (router(remedy.clone(), crate::clock::fixed(1000)), remedy)
    }

    #[tokio::test]
    async fn agents_and_people_are_answered() {
        let dir = tempfile::tempdir().unwrap();
        let (router, remedy) = opened(dir.path());
        let lb = [("petrel-agent", "lb")];
        assert_eq!(ask(&router, "GET", PATH_ORDERS, &lb, "").await, "200 []");
        assert!(ask(&router, "GET", PATH_ORDERS, &[], "").await.starts_with("400 "));
        let inventory = r#"{"agent": "lb", "seen_at": 900}"#;
        assert_eq!(ask(&router, "POST", PATH_INVENTORY, &lb, inventory).await, "200 {}");
        ask(&router, "GET", "/petrel/v1/plan/evacuate/lb", &[], "").await;
        let planned = ask(&router, "POST", PATH_INVENTORY, &lb, inventory).await;
        assert_eq!(planned, r#"200 {"measure_dirty_rate_ms":300000}"#, "somebody thinks of moving its guests");
        let other = ask(&router, "POST", PATH_INVENTORY, &[("petrel-agent", "h1")], inventory).await;
        assert_eq!(other, r#"400 {"error":"the inventory is of agent `lb`, the request of `h1`"}"#);
        assert!(remedy.inventories().contains_key("lb"));
        let all = [("petrel-agent", "lb"), ("petrel-epoch", "e1"), ("petrel-class", "answers"), ("petrel-seq", "1")];
        assert_eq!(ask(&router, "POST", PATH_ANSWERS, &all, "[]").await, r#"200 {"ignored":[]}"#);
        assert!(ask(&router, "POST", PATH_ANSWERS, &all, "{").await.starts_with("400 "));
        assert!(ask(&router, "POST", PATH_ANSWERS, &all[..3], "[]").await.contains("petrel-seq is missing"));
    }

    #[tokio::test]
    async fn words_are_followed_or_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let (router, remedy) = opened(dir.path());
        let hold = "/petrel/v1/hold";
        assert_eq!(ask(&router, "POST", hold, &[], r#"{"on": true, "by": "kim"}"#).await, r#"200 {"on":true}"#);
        assert!(remedy.snapshot(0).held);
        assert_eq!(ask(&router, "GET", hold, &[], "").await, r#"200 {"on":true}"#);
        assert!(ask(&router, "POST", hold, &[], r#"{"on": true}"#).await.contains("say who you are"));
        for nobody in [r#"{"on": true, "by": " "}"#, r#"{"on": true, "by": "kim\nreleased by lee"}"#] {
            assert!(ask(&router, "POST", hold, &[], nobody).await.contains("say who you are"));
        }
        let abort = ask(&router, "POST", "/petrel/v1/runs/7/abort", &[], r#"{"by": "kim"}"#).await;
        assert_eq!(abort, r#"409 {"error":"there is no run 7, or it ended long ago"}"#);
        let unknown = ask(&router, "POST", "/petrel/v1/runs/7/bless", &[], r#"{"by": "kim"}"#).await;
        assert!(unknown.starts_with("400 ") && unknown.contains("say approve, deny or abort"), "{unknown}");
        assert!(ask(&router, "GET", "/petrel/v1/runs/7", &[], "").await.starts_with("404 "));
        let duty = r#"{"by": "kim", "duty": "maintenance"}"#;
        let set = ask(&router, "POST", "/petrel/v1/hosts/h1/duty", &[], duty).await;
        assert_eq!(set, r#"200 {"duty":"maintenance","host":"h1"}"#);
        assert_eq!(remedy.snapshot(0).duties["h1"].by, "kim");
        assert_eq!(ask(&router, "GET", "/petrel/v1/runs", &[], "").await, "200 []");
        assert!(ask(&router, "GET", "/petrel/v1/plan/evacuate/h9", &[], "").await.contains("h9 is in no inventory"));
    }

    /// The request hangs until there is an order; a wake that finds none leaves it hanging.
    #[tokio::test]
    async fn a_request_for_orders_hangs_until_there_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let (router, remedy) = opened(dir.path());
        let waiting = tokio::spawn(async move {
            let path = format!("{PATH_ORDERS}?wait_ms=50000");
            ask(&router, "GET", &path, &[("petrel-agent", "lb")], "").await
        });
        // The first pull finds nothing; a wake makes it look again, and the second finds nothing either and goes on waiting.
        while Arc::strong_count(&remedy.wake("lb")) < 3 {
            tokio::task::yield_now().await;
        }
        assert!(!waiting.is_finished());
        remedy.wake("lb").notify_one();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        waiting.abort();
    }
}
