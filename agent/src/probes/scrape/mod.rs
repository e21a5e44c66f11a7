//! Scraping: asks an endpoint of Prometheus' kind for its metrics and hands them on as series of the job and instance that
//! Prometheus would give them, with `up` and the like beside them. A scrape is taken whole or not at all.

pub mod config;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use petrel_models::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};

use self::config::{ScrapeConfig, Taken};
use super::names::Names;
use super::outcome::{Failure, Reason};
use super::web::{self, ReadError, Web};
use crate::collect::exposition::{BodyError, Format, Grouping, Line, Pair, Reader, Sample};
use crate::collect::{Family, Kind};
use crate::rounds::blocking;

/// What is understood, best first.
const ACCEPTED: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
    application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
    text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
/// The target learns how long we wait, as from Prometheus.
const TIMEOUT_HEADER: &str = "x-prometheus-scrape-timeout-seconds";

/// Series that Prometheus makes of a scrape: name and help.
const REPORTS: [(&str, &str); 5] = [
    ("up", "Whether the target could be scraped."),
    ("scrape_duration_seconds", "How long the scrape took."),
    ("scrape_samples_scraped", "Samples that the target showed."),
    ("scrape_samples_post_metric_relabeling", "Samples that were taken of it."),
    ("scrape_body_size_bytes", "Length of the body."),
];

/// Asks one target again and again.
#[derive(Debug)]
pub struct Scraper {
    web: Web,
    timeout: Duration,
    taken: Arc<Taken>,
}

/// What one scrape gave.
#[derive(Debug)]
pub struct Scraped {
    /// Its series, with the reports.
    pub families: Vec<Family>,
    /// Series that stood twice in the body.
    pub doubles: u64,
    /// Why it failed: then there are only the reports.
    pub failure: Option<Failure>,
}

/// What was taken of a body.
struct Body {
    families: Vec<Family>,
    shown: usize,
    taken: usize,
    doubles: u64,
    bytes: usize,
}

impl Scraper {
    /// For one target. Does nothing yet.
    pub fn new(config: &ScrapeConfig, names: Names) -> Scraper {
        let mut web = config.web.clone();
        web.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let seconds = config.timeout.as_secs_f64().to_string();
        web.headers.extend(
            HeaderValue::from_str(&seconds)
                .ok()
                .map(|value| (reqwest::header::HeaderName::from_static(TIMEOUT_HEADER), value)),
        );
        Scraper { web: Web::new(web, names), timeout: config.timeout, taken: Arc::new(config.taken.clone()) }
    }

    /// Asks once. Takes the time-out at most.
    pub async fn scrape(&mut self) -> Scraped {
        let begun = Instant::now();
        let timeout = self.timeout;
        let body = tokio::time::timeout(timeout, self.body()).await.unwrap_or_else(|_| Err(Failure::late(timeout)));
        let took = begun.elapsed();
        let (mut families, shown, taken, bytes, doubles, failure) = match body {
            Ok(body) => (body.families, body.shown, body.taken, body.bytes, body.doubles, None),
            Err(failure) => (Vec::new(), 0, 0, 0, 0, Some(failure)),
        };
        let up = f64::from(u8::from(failure.is_none()));
        let values = [up, took.as_secs_f64(), shown as f64, taken as f64, bytes as f64];
        for ((name, help), value) in REPORTS.into_iter().zip(values) {
            report(&mut families, name, help, value, &self.taken.labels);
        }
        Scraped { families, doubles, failure }
    }

    async fn body(&mut self) -> Result<Body, Failure> {
        let mut response = self.web.ask().await?;
        if response.status() != StatusCode::OK {
            return Err(Failure::new(Reason::Status, format!("answered {}, not 200 OK", response.status())));
        }
        let format = format_of(response.headers().get(CONTENT_TYPE));
        let taken = Arc::clone(&self.taken);
        let body = web::body(&mut response, taken.body_max).await.map_err(|error| match error {
            ReadError::TooLong => {
                Failure::new(Reason::TooLong, format!("more than body_max, {} bytes", taken.body_max))
            }
            ReadError::Broken(failure) => failure,
        })?;
        // A body of megabytes would hold up everything else on this thread.
        let read = blocking(move || read(&body, format, &taken)).await;
        read.map_err(|error| {
            let reason = if matches!(error, BodyError::Samples { .. }) { Reason::TooLong } else { Reason::Content };
            Failure::new(reason, format!("its metrics cannot be taken: {error}"))
        })
    }
}

fn format_of(content_type: Option<&HeaderValue>) -> Format {
    let text = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/openmetrics-text") { Format::OpenMetrics } else { Format::Prometheus }
}

fn read(body: &[u8], format: Format, taken: &Taken) -> Result<Body, BodyError> {
    let (mut reader, mut grouping, mut shown) = (Reader::new(body, format), Grouping::default(), 0);
    while let Some(line) = reader.next().transpose()? {
        match line {
            Line::Sample(sample) => {
                shown += 1;
                if taken.wants(&sample) {
                    grouping.add(Line::Sample(Sample { labels: relabelled(sample.labels, &taken.labels), ..sample }));
                }
            }
            other => grouping.add(other),
        }
        if grouping.samples() > taken.samples_max {
            return Err(BodyError::Samples { line: reader.line(), samples_max: taken.samples_max });
        }
    }
    let (kept, doubles) = (grouping.samples(), grouping.doubles());
    Ok(Body { families: grouping.finish(), shown, taken: kept, doubles, bytes: body.len() })
}

impl Taken {
    fn wants(&self, sample: &Sample<'_>) -> bool {
        let is_report = sample.labels.is_empty() && REPORTS.iter().any(|(name, _)| *name == sample.name);
        !is_report
            && self.keep.as_ref().is_none_or(|keep| keep.is_match(&sample.name))
            && !self.drop.as_ref().is_some_and(|drop| drop.is_match(&sample.name))
    }
}

/// The labels of a series with those that the target gets. What the target says of a label that is ours, job and instance among
/// them, is kept as `exported_…`, as Prometheus does it.
fn relabelled<'a>(shown: Vec<Pair<'a>>, ours: &'a [(String, String)]) -> Vec<Pair<'a>> {
    let is_ours = |name: &str| matches!(name, "job" | "instance") || ours.iter().any(|(our, _)| our == name);
    if ours.is_empty() && !shown.iter().any(|(name, _)| is_ours(name)) {
        return shown;
    }
    let mut labels: Vec<Pair<'a>> =
        ours.iter().map(|(name, value)| (Cow::Borrowed(name.as_str()), Cow::Borrowed(value.as_str()))).collect();
    let (taken, free): (Vec<Pair<'a>>, Vec<Pair<'a>>) = shown.into_iter().partition(|(name, _)| is_ours(name));
    labels.extend(free);
    for (name, value) in taken {
        let mut name = format!("exported_{name}");
        while is_ours(&name) || labels.iter().any(|(other, _)| *other == name) {
            name.insert_str(0, "exported_");
        }
        labels.push((Cow::Owned(name), value));
    }
    labels.sort_unstable();
    labels
}

fn report(families: &mut Vec<Family>, name: &'static str, help: &'static str, value: f64, ours: &[(String, String)]) {
    let labels = ours.iter().map(|(name, value)| (Cow::Owned(name.clone()), Cow::Owned(value.clone()))).collect();
    let place = families.iter().position(|family| family.name == name).unwrap_or_else(|| {
        families.push(Family::new(Kind::Gauge, name, help));
        families.len() - 1
    });
    families[place].push_owned(labels, value);
}

/// What was read of one origin of samples at one time, on its way into the stream.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Which target of the config; none: this host itself.
    pub target: Option<usize>,
    /// `job` of its series.
    pub job: Arc<str>,
    /// `instance` of its series.
    pub instance: Arc<str>,
    /// When it was read.
    pub at: Timestamp,
    /// What there was.
    pub families: Arc<Vec<Family>>,
}

#[cfg(test)]
mod tests;
