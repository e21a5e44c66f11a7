//! A notice as mail: plain text and HTML, with the id of the notice in its Message-ID. `smtp` carries it.

use std::time::{Duration, SystemTime};

use askama::Template;
use lettre::Message;
use lettre::message::{MultiPart, MultiPartKind, SinglePart};
use petrel_agent::error_chain::chain;

use super::config::Email;
use super::group::Notice;
use super::sender::SendError;
use crate::decide::alert::{Alert, AlertState, Level};
use crate::decide::level::{LEAD, PROBABILITY};

/// Longest subject, in characters: what phones show and more.
const SUBJECT_MAX: usize = 180;

#[derive(Template)]
#[template(path = "notice.html")]
struct HtmlPage<'a> {
    title: &'a str,
    receiver: &'a str,
    external_url: &'a str,
    truncated: usize,
    cards: Vec<Card>,
}

#[derive(Template)]
#[template(path = "notice.txt")]
struct TextPage<'a> {
    title: &'a str,
    receiver: &'a str,
    external_url: &'a str,
    truncated: usize,
    cards: Vec<Card>,
}

/// One alert as it is shown.
#[derive(Debug, Clone)]
struct Card {
    badge: &'static str,
    color: &'static str,
    summary: String,
    description: String,
    probability: Option<String>,
    lead: Option<String>,
    since: String,
    ended: Option<String>,
    runbook_url: String,
    link: String,
    labels: Vec<(String, String)>,
}

/// The mail of a notice: the same bytes at every attempt.
///
/// # Errors
/// An address that no mail can carry.
pub fn message(target: &Email, notice: &Notice, external_url: &str) -> Result<Message, SendError> {
    let broken = |error: lettre::error::Error| SendError::Permanent(chain(&error));
    let subject = subject(notice);
    let cards: Vec<Card> = notice.alerts.iter().map(card).collect();
    let (title, receiver, truncated) = (subject.as_str(), notice.receiver.as_str(), notice.truncated);
    let text = TextPage { title, receiver, external_url, truncated, cards: cards.clone() }.render();
    let html = HtmlPage { title, receiver, external_url, truncated, cards }.render();
    let (Ok(text), Ok(html)) = (text, html) else {
        return Err(SendError::Permanent("the mail's template cannot be filled in".to_owned()));
    };
    let domain = target.from.email.domain();
    let group = crate::decide::book::fingerprint(&[(notice.receiver.clone(), notice.group_key.clone())].into());
    let written = u64::try_from(notice.created_at).unwrap_or(0);
    let mut builder = Message::builder()
        .from(target.from.clone())
        .message_id(Some(format!("<{}@{domain}>", notice.id)))
        // All mails of a group form one thread.
        .references(format!("<group-{group}@{domain}>"))
        .date(SystemTime::UNIX_EPOCH + Duration::from_millis(written))
        .subject(subject.clone());
    for to in &target.to {
        builder = builder.to(to.clone());
    }
    let parts = MultiPart::builder().kind(MultiPartKind::Alternative).boundary(format!("petrel-{}", notice.id));
    builder.multipart(parts.singlepart(SinglePart::plain(text)).singlepart(SinglePart::html(html))).map_err(broken)
}

/// `[warning] web1: /data full in 42m 3s (p 0.93)`.
fn subject(notice: &Notice) -> String {
    let Some(first) = notice.alerts.first() else { return "[petrel] nothing to say".to_owned() };
    let firing = notice.alerts.iter().filter(|alert| alert.state == AlertState::Firing).count();
    let tag = if firing > 0 { first.level.as_str() } else { "resolved" };
    let all = notice.alerts.len() + notice.truncated;
    let more = if all > 1 { format!(" (+{} more)", all - 1) } else { String::new() };
    let text = format!("[{tag}] {}{more}", summary(first));
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SUBJECT_MAX).collect()
}

fn summary(alert: &Alert) -> String {
    let written = ["summary", "message", "description"].iter().find_map(|name| alert.annotations.get(*name));
    written.filter(|text| !text.trim().is_empty()).cloned().unwrap_or_else(|| {
        let name = alert.labels.get("alertname").map_or("alert", String::as_str);
        match alert.labels.get("instance") {
            Some(instance) => format!("{instance}: {name}"),
            None => name.to_owned(),
        }
    })
}

fn card(alert: &Alert) -> Card {
    let resolved = alert.state == AlertState::Resolved;
    let (badge, color) = match alert.level {
        _ if resolved => ("resolved", "#2e7d4f"),
        Level::Info => ("info", "#3b6ea5"),
        Level::Warning => ("warning", "#b26a00"),
        Level::Critical => ("critical", "#b3261e"),
        Level::Emergency => ("emergency", "#7a0026"),
    };
    let text = |name: &str| alert.annotations.get(name).map(|text| text.trim().to_owned()).unwrap_or_default();
    let web = |url: &str| if super::config::is_http(url) { url.to_owned() } else { String::new() };
    let own = ["summary", "description", "runbook_url", PROBABILITY, LEAD];
    let others = alert.annotations.iter().filter(|(name, text)| !own.contains(&name.as_str()) && !text.is_empty());
    let prediction = alert.prediction.filter(|_| !resolved);
    Card {
        badge,
        color,
        summary: summary(alert),
        description: text("description"),
        probability: prediction.map(|note| format!("{:.0} %", note.probability * 100.0)),
        lead: prediction.and_then(|note| note.lead_seconds).map(lead),
        since: moment(alert.fired_at.unwrap_or(alert.active_at)),
        ended: alert.resolved_at.map(moment),
        runbook_url: web(&text("runbook_url")),
        link: web(&alert.generator_url),
        labels: alert.labels.iter().chain(others).map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

/// `42 min`, `5 h 10 min`, `2 d 3 h`.
fn lead(seconds: f64) -> String {
    let minutes = (seconds / 60.0).round() as u64;
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => "less than a minute".to_owned(),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

fn moment(at: crate::series::Timestamp) -> String {
    let time = chrono::DateTime::from_timestamp_millis(at).unwrap_or_default();
    time.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
pub(in crate::notify) mod tests;
