//! `/api/v1/rules` and `/api/v1/alerts`, as Prometheus answers them. Reads the snapshot of the last tick and decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn;
use axum::response::Response;
use axum::routing::get;
use petrel_agent::units::Span;
use serde::Serialize;

use super::compress::compress;
use super::prometheus::json::{self, Failure};
use super::prometheus::params::Params;
use crate::decide::alert::{Alert, AlertState};
use crate::decide::engine::{AlertsView, RuleHealth, Snapshot};
use crate::notify::webhook::rfc3339;
use crate::query;
use crate::rules::{AlertRule, Group, Rule, RuleKind};
use crate::series::Matcher;

/// The two routes, over what the engine last showed.
pub fn router(view: AlertsView) -> Router {
    Router::new()
        .route("/api/v1/rules", get(rules))
        .route("/api/v1/alerts", get(alerts))
        .layer(from_fn(compress))
        .with_state(view)
}

#[derive(Serialize)]
struct Alerts {
    alerts: Vec<AlertJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Groups {
    groups: Vec<GroupJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group_next_token: Option<String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alerts: Option<AlertList>,
    health: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<String>,
    evaluation_time: f64,
    last_evaluation: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// The alerts of a rule; null where the request excludes them.
#[derive(Serialize)]
#[serde(untagged)]
enum AlertList {
    Excluded,
    All(Vec<AlertJson>),
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
struct Wanted {
    kind: Option<&'static str>,
    without_alerts: bool,
    rules: BTreeSet<String>,
    groups: BTreeSet<String>,
    files: BTreeSet<String>,
    /// Matchers on the rules' labels; one of the lists must fit.
    any_of: Vec<Vec<Matcher>>,
    page: Option<Page>,
}

/// Some groups of all.
struct Page {
    groups_max: usize,
    /// The group that comes first, as the page before named it.
    token: Option<String>,
}

impl Wanted {
    fn read(params: &Params) -> Result<Wanted, Failure> {
        let kind = match params.get("type").map(str::to_ascii_lowercase).as_deref() {
            None => None,
            Some("alert") => Some("alerting"),
            Some("record") => Some("recording"),
            Some(other) => return Err(Failure::parameter("type", &format!("not supported value {other:?}"))),
        };
        let set = |name| params.all(name).map(str::to_owned).collect();
        Ok(Wanted {
            kind,
            without_alerts: params.flag("exclude_alerts")?,
            rules: set("rule_name[]"),
            groups: set("rule_group[]"),
            files: set("file[]"),
            any_of: params.matchers()?,
            page: Page::read(params)?,
        })
    }

    fn takes_group(&self, group: &Group) -> bool {
        let takes = |wanted: &BTreeSet<String>, value: &String| wanted.is_empty() || wanted.contains(value);
        takes(&self.files, &group.file) && takes(&self.groups, &group.name)
    }

    fn takes_rule(&self, rule: &Rule) -> bool {
        let fits =
            |matchers: &Vec<Matcher>| matchers.iter().all(|one| one.matches_value(&plain_label(rule, &one.name)));
        (self.rules.is_empty() || self.rules.contains(&rule.name))
            && self.kind.is_none_or(|kind| kind == kind_of(rule))
            && (self.any_of.is_empty() || self.any_of.iter().any(fits))
    }
}

impl Page {
    fn read(params: &Params) -> Result<Option<Page>, Failure> {
        let token = params.get("group_next_token").map(str::to_owned);
        let Some(text) = params.get("group_limit") else {
            let reason = "group_limit needs to be present in order to paginate over the groups";
            return if token.is_none() { Ok(None) } else { Err(Failure::parameter("group_next_token", reason)) };
        };
        match text.parse::<usize>() {
            Ok(groups_max) if groups_max > 0 => Ok(Some(Page { groups_max, token })),
            _ => Err(Failure::parameter("group_limit", "group_limit needs to be greater than 0")),
        }
    }

    /// Cuts the page out of all groups; gives the token of the next one.
    fn cut(self, groups: &mut Vec<GroupJson>) -> Result<Option<String>, Failure> {
        if let Some(token) = self.token {
            let first = groups.iter().position(|group| group.token() == token).ok_or_else(|| {
                let text = format!("invalid group_next_token '{token}'. were rule groups changed?");
                Failure::parameter("group_next_token", &text)
            })?;
            groups.drain(..first);
        }
        let next = groups.get(self.groups_max).map(GroupJson::token);
        groups.truncate(self.groups_max);
        Ok(next)
    }
}

impl GroupJson {
    /// File and name as one word that needs no escaping in an address.
    fn token(&self) -> String {
        let bytes = self.file.bytes().chain([0]).chain(self.name.bytes());
        bytes.flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
    }
}

async fn alerts(State(view): State<AlertsView>) -> Response {
    json::success(&Alerts { alerts: active(&view.snapshot().alerts) })
}

async fn rules(State(view): State<AlertsView>, params: Params) -> Result<Response, Failure> {
    let wanted = Wanted::read(&params)?;
    let snapshot = view.snapshot();
    let named = snapshot.rules.groups.iter().filter(|group| wanted.takes_group(group));
    let shown = named.map(|group| group_json(&snapshot, group, &wanted));
    let mut groups: Vec<GroupJson> = shown.filter(|group| !group.rules.is_empty()).collect();
    let group_next_token = wanted.page.map(|page| page.cut(&mut groups)).transpose()?.flatten();
    Ok(json::success(&Groups { groups, group_next_token }))
}

/// The value of a rule's label; a template has none before it is filled in.
fn plain_label(rule: &Rule, name: &str) -> String {
    match &rule.kind {
        RuleKind::Record { labels } => labels.get(name).unwrap_or_default().to_owned(),
        RuleKind::Alert(alert) => {
            let text = alert.labels.iter().find(|(label, _)| label == name).map(|(_, template)| template.text());
            text.filter(|text| !text.contains("{{")).unwrap_or_default().to_owned()
        }
    }
}

fn kind_of(rule: &Rule) -> &'static str {
    if rule.alert().is_some() { "alerting" } else { "recording" }
}

fn group_json(snapshot: &Snapshot, group: &Group, wanted: &Wanted) -> GroupJson {
    let rules = group.rules.iter().filter(|rule| wanted.takes_rule(rule));
    let rules: Vec<RuleJson> = rules.map(|rule| rule_json(snapshot, rule, wanted)).collect();
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
    let alert = rule.alert();
    let labels = match &rule.kind {
        RuleKind::Alert(alert) => Some(texts(&alert.labels)),
        RuleKind::Record { labels } => (!labels.is_empty())
            .then(|| labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()),
    };
    RuleJson {
        state: alert.map(|_| loudest(of_rule)),
        name: rule.name.clone(),
        // As Prometheus lays it out, whatever the file's spaces.
        query: query::parse(&rule.expr).map_or_else(|_| rule.expr.clone(), |expr| expr.to_string()),
        duration: alert.map(|alert: &AlertRule| seconds(alert.hold_ms)),
        keep_firing_for: alert.map(|alert| seconds(alert.keep_firing_ms)),
        labels,
        annotations: alert.map(|alert| texts(&alert.annotations)),
        alerts: alert
            .map(|_| if wanted.without_alerts { AlertList::Excluded } else { AlertList::All(active(of_rule)) }),
        health: match (&health.error, health.evaluated_at) {
            (Some(_), _) => "err",
            (None, Some(_)) => "ok",
            (None, None) => "unknown",
        },
        last_error: health.error.clone(),
        evaluation_time: health.took.as_secs_f64(),
        last_evaluation: moment(health.evaluated_at),
        kind: kind_of(rule),
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
        expect![[r#"200 OK {"status":"success","data":{"groups":[{"name":"g","file":"r.yaml","rules":[{"state":"pending","name":"Down","query":"up == 0","duration":60.0,"keepFiringFor":0.0,"labels":{"severity":"page"},"annotations":{"summary":"{{ $labels.instance }}"},"alerts":null,"health":"ok","evaluationTime":0.002,"lastEvaluation":"1970-01-01T00:00:01.000Z","type":"alerting"}],"interval":30.0,"limit":0,"evaluationTime":0.004,"lastEvaluation":"1970-01-01T00:00:01.000Z"}]}}"#]].assert_eq(&get("/api/v1/rules?type=alert&exclude_alerts=true").await);
        expect![[r#"200 OK {"status":"success","data":{"groups":[]}}"#]]
            .assert_eq(&get("/api/v1/rules?rule_name[]=nope").await);
        expect![[r#"400 Bad Request {"error":"invalid parameter \"type\": not supported value \"both\"","errorType":"bad_data","status":"error"}"#]].assert_eq(&get("/api/v1/rules?type=both").await);
    }

    #[tokio::test]
    async fn rules_are_chosen_by_labels_and_come_in_pages() {
        // Of groups and of rules.
        let names = |body: String| body.matches(r#""name":""#).count();
        assert_eq!(names(get("/api/v1/rules?match[]=%7Bseverity=%22page%22%7D").await), 2);
        assert_eq!(names(get("/api/v1/rules?match[]=%7Bseverity=%22ticket%22%7D").await), 0);
        let first = get("/api/v1/rules?group_limit=1&type=record").await;
        assert!(first.contains(r#""groups":[{"#) && !first.contains("groupNextToken"), "{first}");
        for (query, reason) in [
            ("group_limit=0", "greater than 0"),
            ("group_next_token=00", "group_limit needs to be present"),
            ("group_limit=1&group_next_token=00", "were rule groups changed?"),
            ("match[]=%7B%7D", "at least one non-empty matcher"),
            ("exclude_alerts=perhaps", "neither true nor false"),
        ] {
            let answer = get(&format!("/api/v1/rules?{query}")).await;
            assert!(answer.starts_with("400") && answer.contains(reason), "{query}: {answer}");
        }
    }

    #[test]
    fn a_page_names_the_next() {
        let group = |name: &str| GroupJson {
            name: name.to_owned(),
            file: "f".to_owned(),
            rules: Vec::new(),
            interval: 1.0,
            limit: 0,
            evaluation_time: 0.0,
            last_evaluation: String::new(),
        };
        let mut seen = Vec::new();
        let mut token = None;
        loop {
            let mut groups: Vec<GroupJson> = ["a", "b", "c"].map(group).into();
            token = Page { groups_max: 2, token }.cut(&mut groups).unwrap();
            seen.push(groups.iter().map(|group| group.name.clone()).collect::<String>());
            if token.is_none() {
                break;
            }
        }
        assert_eq!(seen, ["ab", "c"]);
    }
}
