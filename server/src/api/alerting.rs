//! `/api/v1/rules` and `/api/v1/alerts`, as Prometheus answers them. Reads the snapshot of the last tick and decides nothing.

use std::collections::{BTreeMap, HashMap};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use petrel_agent::units::Span;
use serde::Serialize;

use crate::decide::alert::{Alert, AlertState};
use crate::decide::engine::{AlertsView, RuleHealth, Snapshot};
use crate::notify::webhook::rfc3339;
use crate::rules::{AlertRule, Group, Rule, RuleKind};

/// The two routes, over what the engine last showed.
pub fn router(view: AlertsView) -> Router {
    Router::new().route("/api/v1/rules", get(rules)).route("/api/v1/alerts", get(alerts)).with_state(view)
}

#[derive(Serialize)]
struct Success<T> {
    status: &'static str,
    data: T,
}

#[derive(Serialize)]
struct Alerts {
    alerts: Vec<AlertJson>,
}

#[derive(Serialize)]
struct Groups {
    groups: Vec<GroupJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupJson {
    name: String,
    file: String,
    rules: Vec<RuleJson>,
    interval: f64,
    limit: usize,
    evaluation_time: f64,
    last_evaluation: String,
}

/// Alerting rules have what recording rules lack; what is `None` is left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    name: String,
    query: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_firing_for: Option<f64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alerts: Option<Vec<AlertJson>>,
    health: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    evaluation_time: f64,
    last_evaluation: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AlertJson {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    state: &'static str,
    active_at: String,
    value: String,
}

/// What a request for rules asks for. Each list that is empty asks for all.
#[derive(Default)]
struct Wanted {
    kind: Option<&'static str>,
    without_alerts: bool,
    lists: HashMap<&'static str, Vec<String>>,
}

impl Wanted {
    fn read(params: Vec<(String, String)>) -> Result<Wanted, String> {
        let mut wanted = Wanted::default();
        for (name, value) in params {
            match (name.as_str(), value.as_str()) {
                ("type", "alert") => wanted.kind = Some("alerting"),
                ("type", "record") => wanted.kind = Some("recording"),
                ("type", "") => {}
                ("type", _) => return Err(format!("not supported value \"{value}\": type is alert or record")),
                ("exclude_alerts", text) => wanted.without_alerts = matches!(text, "1" | "t" | "true"),
                ("rule_name[]", _) => wanted.lists.entry("rule").or_default().push(value),
                ("rule_group[]", _) => wanted.lists.entry("group").or_default().push(value),
                ("file[]", _) => wanted.lists.entry("file").or_default().push(value),
                _ => {}
            }
        }
        Ok(wanted)
    }

    fn takes(&self, list: &str, value: &String) -> bool {
        self.lists.get(list).is_none_or(|wanted| wanted.contains(value))
    }
}

async fn alerts(State(view): State<AlertsView>) -> Response {
    let snapshot = view.snapshot();
    let alerts = active(&snapshot.alerts);
    Json(Success { status: "success", data: Alerts { alerts } }).into_response()
}

async fn rules(State(view): State<AlertsView>, Query(params): Query<Vec<(String, String)>>) -> Response {
    let wanted = match Wanted::read(params) {
        Ok(wanted) => wanted,
        Err(error) => {
            let body = serde_json::json!({ "status": "error", "errorType": "bad_data", "error": error });
            return (StatusCode::BAD_REQUEST, Json(body)).into_response();
        }
    };
    let snapshot = view.snapshot();
    let named = snapshot.rules.groups.iter();
    let named = named.filter(|group| wanted.takes("file", &group.file) && wanted.takes("group", &group.name));
    let groups = named.map(|group| group_json(&snapshot, group, &wanted));
    let filtered = wanted.kind.is_some() || wanted.lists.contains_key("rule");
    let groups: Vec<GroupJson> = groups.filter(|group| !filtered || !group.rules.is_empty()).collect();
    Json(Success { status: "success", data: Groups { groups } }).into_response()
}

fn group_json(snapshot: &Snapshot, group: &Group, wanted: &Wanted) -> GroupJson {
    let rules = group.rules.iter().filter(|rule| wanted.takes("rule", &rule.name));
    let rules: Vec<RuleJson> = rules
        .map(|rule| rule_json(snapshot, rule, wanted))
        .filter(|rule| wanted.kind.is_none_or(|kind| rule.kind == kind))
        .collect();
    let health: Vec<&RuleHealth> = group.rules.iter().filter_map(|rule| snapshot.health.get(&rule.id)).collect();
    GroupJson {
        name: group.name.clone(),
        file: group.file.clone(),
        rules,
        interval: seconds(group.interval_ms.unwrap_or(snapshot.interval_ms)),
        limit: group.limit,
        evaluation_time: health.iter().map(|health| health.took.as_secs_f64()).sum(),
        last_evaluation: moment(health.iter().filter_map(|health| health.evaluated_at).max()),
    }
}

fn rule_json(snapshot: &Snapshot, rule: &Rule, wanted: &Wanted) -> RuleJson {
    let health = snapshot.health.get(&rule.id).cloned().unwrap_or_default();
    let of_rule = snapshot.by_rule.get(&rule.id).map_or(&[][..], Vec::as_slice);
    let texts = |list: &[(String, crate::rules::template::Template)]| {
        list.iter().map(|(name, template)| (name.clone(), template.text().to_owned())).collect()
    };
    let (alert, labels) = match &rule.kind {
        RuleKind::Alert(alert) => (Some(alert), texts(&alert.labels)),
        RuleKind::Record { labels } => {
            (None, labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
        }
    };
    RuleJson {
        state: alert.map(|_| loudest(of_rule)),
        name: rule.name.clone(),
        query: rule.expr.clone(),
        duration: alert.map(|alert: &AlertRule| seconds(alert.hold_ms)),
        keep_firing_for: alert.map(|alert| seconds(alert.keep_firing_ms)),
        labels,
        annotations: alert.map(|alert| texts(&alert.annotations)),
        alerts: alert.filter(|_| !wanted.without_alerts).map(|_| active(of_rule)),
        health: match (&health.error, health.evaluated_at) {
            (Some(_), _) => "err",
            (None, Some(_)) => "ok",
            (None, None) => "unknown",
        },
        last_error: health.error.clone(),
        evaluation_time: health.took.as_secs_f64(),
        last_evaluation: moment(health.evaluated_at),
        kind: if alert.is_some() { "alerting" } else { "recording" },
    }
}

fn loudest(alerts: &[Alert]) -> &'static str {
    let any = |state| alerts.iter().any(|alert| alert.state == state);
    if any(AlertState::Firing) {
        "firing"
    } else if any(AlertState::Pending) {
        "pending"
    } else {
        "inactive"
    }
}

/// Prometheus shows what is pending or firing.
fn active(alerts: &[Alert]) -> Vec<AlertJson> {
    let active = alerts.iter().filter(|alert| alert.state != AlertState::Resolved);
    active
        .map(|alert| AlertJson {
            labels: alert.labels.clone(),
            annotations: alert.annotations.clone(),
            state: if alert.state == AlertState::Pending { "pending" } else { "firing" },
            active_at: rfc3339(alert.active_at),
            value: crate::rules::template::format_scientific(alert.value),
        })
        .collect()
}

fn seconds(ms: i64) -> f64 {
    Span(std::time::Duration::from_millis(ms.unsigned_abs())).0.as_secs_f64()
}

/// Go's zero time where a rule was never evaluated.
fn moment(at: Option<i64>) -> String {
    at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), rfc3339)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use axum::http::Request;
    use expect_test::expect;
    use tower::ServiceExt;

    use super::*;
    use crate::decide::book::{AlertBook, Event, RuleTerms};
    use crate::rules::evaluate::Found;
    use crate::series::Labels;

    const RULES: &str = "groups:
- name: g
  interval: 30s
  rules:
  - record: job:up:sum
    expr: sum by (job) (up)
  - alert: Down
    expr: up == 0
    for: 1m
    labels: { severity: page }
    annotations: { summary: '{{ $labels.instance }}' }
";

    fn view() -> AlertsView {
        let rules = crate::rules::load(&[("r.yaml".into(), RULES.to_owned())]).unwrap();
        let (recorded, down) = (rules.groups[0].rules[0].id.clone(), rules.groups[0].rules[1].id.clone());
        let terms = RuleTerms {
            id: down.clone(),
            hold_ms: 60_000,
            keep_firing_ms: 0,
            basis: crate::decide::alert::Basis::Measured,
            generator_url: String::new(),
        };
        let labels = Labels::new([("alertname", "Down"), ("instance", "web1"), ("severity", "page")]);
        let found = vec![Found { labels, annotations: BTreeMap::new(), value: 0.25 }];
        let mut book = AlertBook::default();
        book.step(Event::Evaluated { terms, found }, 1_000);
        let well = RuleHealth { evaluated_at: Some(1_000), took: std::time::Duration::from_millis(2), error: None };
        let ill = RuleHealth { error: Some("store is away".to_owned()), ..well.clone() };
        let view = AlertsView::default();
        view.publish(Snapshot {
            rules: Arc::new(rules),
            health: [(recorded, ill), (down.clone(), well)].into(),
            by_rule: [(down, book.alerts())].into(),
            alerts: book.alerts(),
            interval_ms: 15_000,
        });
        view
    }

    async fn get(uri: &str) -> String {
        let answer = router(view()).oneshot(Request::get(uri).body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 1 << 20).await.unwrap();
        format!("{status} {}", String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn alerts_and_rules_are_shown_as_prometheus_shows_them() {
        expect![[r#"200 OK {"status":"success","data":{"alerts":[{"labels":{"alertname":"Down","instance":"web1","severity":"page"},"annotations":{},"state":"pending","activeAt":"1970-01-01T00:00:01.000Z","value":"2.5e-01"}]}}"#]].assert_eq(&get("/api/v1/alerts").await);
        expect![[r#"200 OK {"status":"success","data":{"groups":[{"name":"g","file":"r.yaml","rules":[{"name":"job:up:sum","query":"sum by (job) (up)","health":"err","lastError":"store is away","evaluationTime":0.002,"lastEvaluation":"1970-01-01T00:00:01.000Z","type":"recording"},{"state":"pending","name":"Down","query":"up == 0","duration":60.0,"keepFiringFor":0.0,"labels":{"severity":"page"},"annotations":{"summary":"{{ $labels.instance }}"},"alerts":[{"labels":{"alertname":"Down","instance":"web1","severity":"page"},"annotations":{},"state":"pending","activeAt":"1970-01-01T00:00:01.000Z","value":"2.5e-01"}],"health":"ok","evaluationTime":0.002,"lastEvaluation":"1970-01-01T00:00:01.000Z","type":"alerting"}],"interval":30.0,"limit":0,"evaluationTime":0.004,"lastEvaluation":"1970-01-01T00:00:01.000Z"}]}}"#]].assert_eq(&get("/api/v1/rules").await);
        expect![[r#"200 OK {"status":"success","data":{"groups":[{"name":"g","file":"r.yaml","rules":[{"state":"pending","name":"Down","query":"up == 0","duration":60.0,"keepFiringFor":0.0,"labels":{"severity":"page"},"annotations":{"summary":"{{ $labels.instance }}"},"health":"ok","evaluationTime":0.002,"lastEvaluation":"1970-01-01T00:00:01.000Z","type":"alerting"}],"interval":30.0,"limit":0,"evaluationTime":0.004,"lastEvaluation":"1970-01-01T00:00:01.000Z"}]}}"#]].assert_eq(&get("/api/v1/rules?type=alert&exclude_alerts=true").await);
        expect![[r#"200 OK {"status":"success","data":{"groups":[]}}"#]]
            .assert_eq(&get("/api/v1/rules?rule_name[]=nope").await);
        expect![[r#"400 Bad Request {"error":"not supported value \"both\": type is alert or record","errorType":"bad_data","status":"error"}"#]].assert_eq(&get("/api/v1/rules?type=both").await);
    }
}
