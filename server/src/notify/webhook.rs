//! A notice as an HTTP POST: Alertmanager's JSON, version 4, with the id of the notice as `Idempotency-Key`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use petrel_agent::error_chain::chain;
use serde::Serialize;

use super::config::RawWebhook;
use super::group::Notice;
use super::sender::SendError;
use crate::decide::alert::{Alert, AlertState};
use crate::decide::level::{LEAD, LEVEL_LABEL, PROBABILITY};

use crate::series::Timestamp;

/// Time to connect; the whole attempt has its own bound.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The body, with the keys in Alertmanager's order.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    receiver: &'a str,
    status: &'static str,
    alerts: Vec<BodyAlert<'a>>,
    group_labels: &'a BTreeMap<String, String>,
    common_labels: BTreeMap<String, String>,
    common_annotations: BTreeMap<String, String>,
    #[serde(rename = "externalURL")]
    external_url: &'a str,
    version: &'static str,
    group_key: &'a str,
    truncated_alerts: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BodyAlert<'a> {
    status: &'static str,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    starts_at: String,
    ends_at: String,
    #[serde(rename = "generatorURL")]
    generator_url: &'a str,
    fingerprint: &'a str,
}

/// The JSON of a notice.
pub fn body(notice: &Notice, external_url: &str) -> String {
    let alerts: Vec<BodyAlert<'_>> = notice.alerts.iter().map(body_alert).collect();
    let body = Body {
        receiver: &notice.receiver,
        status: notice.status(),
        common_labels: common(alerts.iter().map(|alert| &alert.labels)),
        common_annotations: common(alerts.iter().map(|alert| &alert.annotations)),
        alerts,
        group_labels: &notice.group_labels,
        external_url,
        version: "4",
        group_key: &notice.group_key,
        truncated_alerts: notice.truncated,
    };
    serde_json::to_string(&body).expect("maps with text keys and text values always become JSON")
}

fn body_alert(alert: &Alert) -> BodyAlert<'_> {
    let mut labels = alert.labels.clone();
    labels.insert(LEVEL_LABEL.to_owned(), alert.level.to_string());
    let mut annotations = alert.annotations.clone();
    // What templates left empty says nothing; what was read of it is said in one form.
    annotations.retain(|name, text| name != PROBABILITY && name != LEAD && !text.is_empty());
    if let Some(prediction) = alert.prediction {
        annotations.insert(PROBABILITY.to_owned(), prediction.probability.to_string());
        annotations.extend(prediction.lead_seconds.map(|seconds| (LEAD.to_owned(), seconds.to_string())));
    }
    BodyAlert {
        status: if alert.state == AlertState::Resolved { "resolved" } else { "firing" },
        labels,
        annotations,
        starts_at: rfc3339(alert.fired_at.unwrap_or(alert.active_at)),
        // Go's zero time, as Alertmanager writes it where an alert has no end.
        ends_at: alert.resolved_at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), rfc3339),
        generator_url: &alert.generator_url,
        fingerprint: &alert.fingerprint,
    }
}

fn common<'a>(mut all: impl Iterator<Item = &'a BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let mut common = all.next().cloned().unwrap_or_default();
    for other in all {
        common.retain(|name, value| other.get(name) == Some(value));
    }
    common
}

/// A time as on the wire of Prometheus and Alertmanager.
pub fn rfc3339(at: Timestamp) -> String {
    let time = chrono::DateTime::from_timestamp_millis(at).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Sends a notice once.
///
/// # Errors
/// 4xx but for 401, 403, 408 and 429, and redirects, are permanent; everything else may go away.
pub async fn send(target: &RawWebhook, notice: &Notice, external_url: &str) -> Result<(), SendError> {
    let request = client(target).await?.post(address(target).await?);
    let request = match (&target.bearer_token_file, &target.username, &target.password_file) {
        (Some(file), _, _) => request.bearer_auth(secret(file).await?),
        (None, Some(user), Some(file)) => request.basic_auth(user, Some(secret(file).await?)),
        _ => request,
    };
    let answer = request
        .header("Content-Type", "application/json")
        .header("User-Agent", concat!("petrel/", env!("CARGO_PKG_VERSION")))
        .header("Idempotency-Key", &notice.id)
        .body(body(notice, external_url))
        .send()
        .await
        // The address may hold a secret.
        .map_err(|error| SendError::Transient(chain(&error.without_url())))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let text = format!("the receiver answered {status}");
    match status.as_u16() {
        // 401 and 403 speak of our token, not of this notice: it may be right again within the day.
        401 | 403 | 408 | 429 => Err(SendError::Transient(text)),
        300..=499 => Err(SendError::Permanent(text)),
        _ => Err(SendError::Transient(text)),
    }
}

async fn client(target: &RawWebhook) -> Result<reqwest::Client, SendError> {
    let mut builder =
        reqwest::Client::builder().connect_timeout(CONNECT_MAX).redirect(reqwest::redirect::Policy::none()).no_proxy();
    if let Some(file) = &target.ca_file {
        let pem = read(file).await?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| SendError::Transient(format!("{} has no usable certificate: {error}", file.display())))?;
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(|error| SendError::Transient(chain(&error)))
}

async fn address(target: &RawWebhook) -> Result<String, SendError> {
    match (&target.url, &target.url_file) {
        (Some(url), _) => Ok(url.clone()),
        (None, Some(file)) => {
            let url = secret(file).await?;
            let told = || SendError::Transient(format!("{} has no http:// or https:// address", file.display()));
            if super::config::is_http(&url) { Ok(url) } else { Err(told()) }
        }
        (None, None) => Err(SendError::Permanent("no address is configured".to_owned())),
    }
}

/// Reads a file at the time of sending, so that a changed secret or authority counts at once.
pub(super) async fn read(file: &Path) -> Result<Vec<u8>, SendError> {
    let read = tokio::fs::read(file).await;
    read.map_err(|error| SendError::Transient(format!("{} cannot be read: {error}", file.display())))
}

/// The secret in a file, without the end of its line.
pub(super) async fn secret(file: &Path) -> Result<String, SendError> {
    let bytes = read(file).await?;
    let text = String::from_utf8(bytes).map_err(|_| SendError::Transient(format!("{} is not text", file.display())))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
