//! The API as a client sees it: requests in, status and body out.

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use expect_test::{Expect, expect};
use tower::ServiceExt;

use super::gate::roomy;
use super::*;
use crate::clock;
use crate::query::{DoorLimits, Memory};

fn api_with(door: DoorLimits, limits: Limits) -> Api {
    let mut memory = Memory::default();
    memory.load(1000, r#"up{host="a"} 1 2 NaN 4.5"#);
    memory.load(1000, r#"up{host="\"b\""} 1e21 1e-7 -Inf 1e6"#);
    Api {
        source: Arc::new(memory),
        clock: clock::fixed(3_000),
        limits,
        gate: Arc::new(Gate::new(door, roomy())),
        external_labels: Arc::default(),
    }
}

fn api() -> Router {
    queries(api_with(DoorLimits::default(), Limits::default()))
}

async fn ask(request: Request<Body>, want: Expect) {
    let response = api().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    want.assert_eq(&format!("{status} {}", String::from_utf8_lossy(&body)));
}

async fn get(path: &str, want: Expect) {
    ask(Request::get(path).body(Body::empty()).unwrap(), want).await;
}

async fn post(path: &str, form: &'static str, want: Expect) {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    ask(request.body(Body::from(form)).unwrap(), want).await;
}

#[tokio::test]
async fn a_post_may_have_its_parameters_in_the_address_alone() {
    let request = Request::post("/api/v1/query?query=1-2").body(Body::empty()).unwrap();
    ask(request, expect![[r#"200 {"status":"success","data":{"resultType":"scalar","result":[3,"-1"]}}"#]]).await;
}

#[tokio::test]
async fn queries_answer_as_prometheus_does() {
    get("/api/v1/query?query=up&time=0.5", expect![[r#"200 {"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","host":"a"},"value":[0.500,"1"]},{"metric":{"__name__":"up","host":"\"b\""},"value":[0.500,"1e+21"]}]}}"#]]).await;
    get(
        "/api/v1/query?query=1-2",
        expect![[r#"200 {"status":"success","data":{"resultType":"scalar","result":[3,"-1"]}}"#]],
    )
    .await;
    get(
        "/api/v1/query?query=%22text%22",
        expect![[r#"200 {"status":"success","data":{"resultType":"string","result":[3,"text"]}}"#]],
    )
    .await;
    post("/api/v1/query", "query=up%5B2s%5D&time=2&limit=1", expect![[r#"200 {"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up","host":"\"b\""},"values":[[1,"1e-07"],[2,"-Inf"]]}]},"warnings":["results truncated due to limit"]}"#]]).await;
    post("/api/v1/query_range", "query=up&start=0&end=1970-01-01T00:00:03Z&step=1s", expect![[r#"200 {"status":"success","data":{"resultType":"matrix","result":[{"metric":{"__name__":"up","host":"\"b\""},"values":[[0,"1e+21"],[1,"1e-07"],[2,"-Inf"],[3,"1000000"]]},{"metric":{"__name__":"up","host":"a"},"values":[[0,"1"],[1,"2"],[2,"NaN"],[3,"4.5"]]}]}}"#]]).await;
    get(
        "/api/v1/format_query?query=sum(up)by(host)",
        expect![[r#"200 {"status":"success","data":"sum by (host) (up)"}"#]],
    )
    .await;
}

#[tokio::test]
async fn stats_tell_what_a_query_cost() {
    let stats = |path: &'static str| async move {
        let response = api().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()["data"]["stats"].take()
    };
    let all = stats("/api/v1/query_range?query=sum(up)&start=0&end=2&step=1&stats=all").await;
    let samples = &all["samples"];
    assert_eq!(samples["totalQueryableSamples"], 6);
    assert_eq!(samples["totalQueryableSamplesPerStep"], serde_json::json!([[0.0, 2], [1.0, 2], [2.0, 2]]));
    assert!(samples["peakSamples"].as_u64() >= Some(6), "{samples}");
    assert!(all["timings"]["execTotalTime"].as_f64() > Some(0.0), "{all}");
    // Of a window all samples count, of a subquery those of its windows.
    let window = stats("/api/v1/query?query=sum_over_time(up%5B3s%5D)%2Bcount_over_time(up%5B2s:1s%5D)&stats=1").await;
    assert_eq!(window["samples"]["totalQueryableSamples"], 10);
    assert!(window["samples"]["totalQueryableSamplesPerStep"].is_null());
    assert!(stats("/api/v1/query?query=up").await.is_null());
}

#[tokio::test]
async fn errors_have_their_type_and_say_what_is_wrong() {
    get("/api/v1/query?query=up%20%2B", expect![[r#"400 {"error":"invalid parameter \"query\": 1:5: parse error: unexpected end of input","errorType":"bad_data","status":"error"}"#]]).await;
    get("/api/v1/query?query=up&time=noon", expect![[r#"400 {"error":"invalid parameter \"time\": cannot parse \"noon\" to a valid timestamp","errorType":"bad_data","status":"error"}"#]]).await;
    get("/api/v1/query_range?query=up&start=0&end=1e6&step=1", expect![[r#"400 {"error":"exceeded maximum resolution of 11000 points per timeseries. Try decreasing the query resolution (?step=XX) (limit query.steps_max)","errorType":"bad_data","status":"error"}"#]]).await;
    get(
        "/api/v1/query_range?query=up&start=0&end=1",
        expect![[r#"400 {"error":"invalid parameter \"step\": is missing","errorType":"bad_data","status":"error"}"#]],
    )
    .await;
    get("/api/v1/query?query=up%2Bon()up", expect![[r#"422 {"error":"found duplicate series for the match group {} on the right hand-side of the operation: [{__name__=\"up\", host=\"a\"}, {__name__=\"up\", host=\"\\\"b\\\"\"}];many-to-many matching not allowed: matching labels must be unique on one side","errorType":"execution","status":"error"}"#]]).await;
    get("/api/v1/query?query=up&timeout=0.000001", expect![[r#"503 {"error":"query timed out in expression evaluation after 0ns (limit query.timeout)","errorType":"timeout","status":"error"}"#]]).await;
    get(
        "/api/v1/series",
        expect![[r#"400 {"error":"no match[] parameter provided","errorType":"bad_data","status":"error"}"#]],
    )
    .await;
    post("/api/v1/labels", "match[]=rate(up[5m])", expect![[r#"400 {"error":"invalid parameter \"match[]\": must be a selector without modifiers","errorType":"bad_data","status":"error"}"#]]).await;
}

#[tokio::test]
async fn series_and_labels_can_be_listed() {
    get("/api/v1/labels", expect![[r#"200 {"status":"success","data":["__name__","host"]}"#]]).await;
    get("/api/v1/label/host/values?match[]=up", expect![[r#"200 {"status":"success","data":["\"b\"","a"]}"#]]).await;
    get(
        "/api/v1/label/host/values?limit=1",
        expect![[r#"200 {"status":"success","data":["\"b\""],"warnings":["results truncated due to limit"]}"#]],
    )
    .await;
    get(
        "/api/v1/series?match[]=up&match[]=down",
        expect![[r#"200 {"status":"success","data":[{"__name__":"up","host":"\"b\""},{"__name__":"up","host":"a"}]}"#]],
    )
    .await;
    get("/api/v1/metadata", expect![[r#"200 {"status":"success","data":{}}"#]]).await;
}

#[tokio::test]
async fn a_full_gate_turns_away_and_a_dropped_request_cancels() {
    let gate = Gate::new(DoorLimits { concurrent_max: 0, ..DoorLimits::default() }, roomy());
    let refused = gate.run(Limits::default(), |_| Ok::<(), Failure>(())).await;
    assert_eq!(refused.unwrap_err().kind, "timeout");

    let gate = Gate::new(DoorLimits { concurrent_max: 1, ..DoorLimits::default() }, roomy());
    let limits = Limits::default();
    let cancel = limits.cancel.clone();
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (ended, has_ended) = tokio::sync::oneshot::channel();
    let run = gate.run(limits, move |limits: &Limits| {
        let _ = started.send(());
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !limits.cancel.is_cancelled() && std::time::Instant::now() < patience {
            std::thread::yield_now();
        }
        let _ = ended.send(limits.cancel.is_cancelled());
        Ok::<(), Failure>(())
    });
    tokio::select! {
        _ = run => panic!("it ends only when it is dropped"),
        _ = has_started => {}
    }
    assert!(has_ended.await.unwrap());
    assert!(cancel.is_cancelled());
}

#[tokio::test]
async fn memory_at_its_limit_ends_queries_and_refuses_more_until_there_is_room() {
    let (level, memory) = watch::channel(Level::Tight);
    let gate = Gate::new(DoorLimits::default(), memory);
    let counted = || crate::telemetry::QUERY_LIMITS.with_label_values(&["memory_max"]).get();
    let (before, (started, has_started)) = (counted(), tokio::sync::oneshot::channel());
    let run = gate.run(Limits::default(), move |limits: &Limits| {
        let _ = started.send(());
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !limits.cancel.is_cancelled() && std::time::Instant::now() < patience {
            std::thread::yield_now();
        }
        if limits.cancel.is_cancelled() { Err(QueryError::Cancelled) } else { Ok(()) }
    });
    let over = async {
        has_started.await.unwrap();
        level.send_replace(Level::Over);
    };
    let (ended, ()) = tokio::join!(run, over);
    let ended = ended.unwrap_err();
    assert_eq!((ended.kind, ended.status().as_u16()), ("unavailable", 503));
    assert!(ended.text.contains("(limit memory_max)"), "{}", ended.text);
    let refused = gate.run(Limits::default(), |_| Ok::<(), Failure>(())).await;
    assert!(refused.unwrap_err().text.contains("memory_max"));
    // Other tests may count, too.
    assert!(counted() >= before + 2);
    level.send_replace(Level::Tight);
    assert!(
        gate.run(Limits::default(), |_| Ok::<(), Failure>(())).await.is_ok(),
        "near the limit queries are answered"
    );
}

#[tokio::test]
async fn trees_federation_and_exemplars_have_their_shapes() {
    get("/api/v1/parse_query?query=up%2B1", expect![[r#"200 {"status":"success","data":{"bool":false,"lhs":{"anchored":false,"matchers":[{"name":"__name__","type":"=","value":"up"}],"name":"up","offset":0,"offsetExpr":null,"smoothed":false,"startOrEnd":null,"timestamp":null,"type":"vectorSelector"},"matching":null,"op":"+","rhs":{"type":"numberLiteral","val":"1"},"type":"binaryExpr"}}"#]]).await;
    get("/api/v1/parse_query?query=up%2B", expect![[r#"400 {"error":"invalid parameter \"query\": 1:4: parse error: unexpected end of input","errorType":"bad_data","status":"error"}"#]]).await;
    get(
        "/federate?match[]=up",
        expect![[r#"
        200 # TYPE up untyped
        up{host="\"b\"",instance=""} 1e+06 3000
        up{host="a",instance=""} 4.5 3000
    "#]],
    )
    .await;
    get(
        "/federate?match[]=%7Bhost%3D~%22.*%22%7D",
        expect![[r#"
        400 invalid parameter "match[]": 1:1: parse error: vector selector must contain at least one non-empty matcher
    "#]],
    )
    .await;
    get("/api/v1/query_exemplars?query=up&start=1&end=0", expect![[r#"400 {"error":"invalid parameter \"end\": end timestamp must not be before start time","errorType":"bad_data","status":"error"}"#]]).await;
    get("/api/v1/query_exemplars?query=up&start=0&end=1", expect![[r#"200 {"status":"success","data":[]}"#]]).await;
    get("/api/v1/label/U__ho_73_t/values", expect![[r#"200 {"status":"success","data":["\"b\"","a"]}"#]]).await;
    get("/api/v1/labels?match[]=%7B%7D", expect![[r#"400 {"error":"invalid parameter \"match[]\": 1:1: parse error: vector selector must contain at least one non-empty matcher","errorType":"bad_data","status":"error"}"#]]).await;
    get(
        "/api/v1/metadata?limit=x",
        expect![[r#"400 {"error":"limit must be a number","errorType":"bad_data","status":"error"}"#]],
    )
    .await;
}

#[tokio::test]
async fn every_limit_at_the_door_names_its_key_and_is_counted() {
    let door = DoorLimits { text_bytes_max: 20, answer_bytes_max: 90, series_max: 1, ..DoorLimits::default() };
    let limits = Limits { samples_max: 5, steps_max: 10, ..Limits::default() };
    let counted = |key: &str| crate::telemetry::QUERY_LIMITS.with_label_values(&[key]).get();
    for (path, status, key) in [
        ("/api/v1/query?query=up%7Bhost%3D%22a-very-long-name%22%7D", 400, "text_max"),
        ("/api/v1/format_query?query=up%7Bhost%3D%22a-very-long-name%22%7D", 400, "text_max"),
        ("/api/v1/query_range?query=1&start=0&end=3&step=1", 422, "answer_max"),
        ("/api/v1/query_range?query=1&start=0&end=99&step=1", 400, "steps_max"),
        ("/api/v1/query?query=up%5B9s%5D&time=5", 422, "samples_max"),
        ("/api/v1/query?query=up&timeout=0.000001", 503, "timeout"),
        ("/api/v1/labels", 422, "series_max"),
        ("/federate?match[]=up", 422, "samples_max"),
    ] {
        let before = counted(key);
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = queries(api_with(door, limits.clone())).oneshot(request).await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        let body = to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        let body = String::from_utf8_lossy(&body);
        assert!(body.contains(&format!("(limit query.{key})")), "{path}: {body}");
        assert!(counted(key) > before, "{key} is not counted");
    }
}
