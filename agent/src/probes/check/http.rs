//! The HTTP check: status, body, redirects, and when the certificate ends. The body is read only where something is expected
//! of it.

use regex::bytes::Regex;
use reqwest::Version;

use super::super::names::Names;
use super::super::outcome::{Failure, Measure, Outcome, Reason};
use super::super::web::{self, ReadError, Web, WebOptions};

/// What is checked.
#[derive(Debug, Clone)]
pub struct HttpCheck {
    /// How it is asked.
    pub web: WebOptions,
    /// Statuses that are well; empty: 200 to 299.
    pub status: Vec<u16>,
    /// What the body must have.
    pub matches: Option<Regex>,
    /// What it must not have.
    pub not_matches: Option<Regex>,
    /// Longest body that is looked at.
    pub body_max: u64,
}

/// The check and its client.
#[derive(Debug)]
pub struct HttpChecker {
    check: HttpCheck,
    web: Web,
}

impl HttpChecker {
    pub(super) fn new(check: &HttpCheck, names: Names) -> HttpChecker {
        HttpChecker { check: check.clone(), web: Web::new(check.web.clone(), names) }
    }

    pub(super) async fn run(&mut self, outcome: &mut Outcome) {
        if let Err(failure) = self.steps(outcome).await {
            outcome.fail(failure);
        }
    }

    /// Adds what was noted on the way, also of a request that failed.
    pub(super) fn note(&self, outcome: &mut Outcome) {
        let noted = self.web.noted();
        outcome.push(Measure::LookupTime, noted.lookup().as_secs_f64());
        outcome.push(Measure::HttpRedirects, f64::from(noted.redirects()));
        if let Some(end) = noted.certificate_end() {
            outcome.push(Measure::CertificateEnd, end as f64);
        }
    }

    async fn steps(&mut self, outcome: &mut Outcome) -> Result<(), Failure> {
        let mut response = self.web.ask().await?;
        let status = response.status().as_u16();
        outcome.push(Measure::HttpStatus, f64::from(status));
        outcome.push(Measure::HttpVersion, version(response.version()));
        outcome.push(Measure::HttpTls, f64::from(u8::from(response.url().scheme() == "https")));
        outcome.push(Measure::HttpContentLength, response.content_length().map_or(-1.0, |length| length as f64));
        if let Some(address) = response.remote_addr() {
            outcome.push(Measure::IpProtocol, if address.is_ipv4() { 4.0 } else { 6.0 });
        }
        let HttpCheck { matches, not_matches, body_max, .. } = &self.check;
        if matches.is_some() || not_matches.is_some() {
            let body = web::body(&mut response, *body_max).await.map_err(|error| match error {
                ReadError::TooLong => {
                    Failure::new(Reason::TooLong, format!("the body is longer than body_max, {body_max} bytes"))
                }
                ReadError::Broken(failure) => failure,
            })?;
            outcome.push(Measure::HttpBodyLength, body.len() as f64);
            let lacks = matches.as_ref().is_some_and(|pattern| !pattern.is_match(&body));
            let has = not_matches.as_ref().is_some_and(|pattern| pattern.is_match(&body));
            outcome.push(Measure::FailedByRegex, f64::from(u8::from(lacks || has)));
            if lacks || has {
                let words = if lacks { "lacks body_matches" } else { "has body_not_matches" };
                outcome.fail(Failure::new(Reason::Content, format!("answered {status}; the body {words}")));
            }
        }
        let expected = &self.check.status;
        let is_well = if expected.is_empty() { (200..300).contains(&status) } else { expected.contains(&status) };
        if is_well { Ok(()) } else { Err(Failure::new(Reason::Status, format!("answered {status}"))) }
    }
}

fn version(version: Version) -> f64 {
    match version {
        Version::HTTP_09 => 0.9,
        Version::HTTP_10 => 1.0,
        Version::HTTP_11 => 1.1,
        Version::HTTP_2 => 2.0,
        _ => 3.0,
    }
}
