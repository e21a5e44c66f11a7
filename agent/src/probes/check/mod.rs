//! Health checks: one run of one check, with its own deadline. What a check finds is values and at most one failure; what
//! that means is for rules to say.

pub mod config;
pub mod dns;
pub mod exec;
pub mod http;
mod perfdata;
pub mod tcp;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use self::config::{CheckConfig, CheckKind};
use self::dns::DnsCheck;
use self::exec::ExecCheck;
use self::http::HttpChecker;
use self::tcp::TcpCheck;
use super::names::Names;
use super::outcome::{Failure, Measure, Outcome};

/// Runs one check again and again.
#[derive(Debug)]
pub struct Checker {
    names: Names,
    rng: StdRng,
    timeout: Duration,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpCheck),
    Http(Box<HttpChecker>),
    Dns(DnsCheck),
    Exec(ExecCheck),
}

impl Checker {
    /// For one check. Does nothing yet.
    pub fn new(config: &CheckConfig, names: Names, rng: StdRng) -> Checker {
        let kind = match &config.kind {
            CheckKind::Tcp(check) => Kind::Tcp(check.clone()),
            CheckKind::Http(check) => Kind::Http(Box::new(HttpChecker::new(check, names.clone()))),
            CheckKind::Dns(check) => Kind::Dns(check.clone()),
            CheckKind::Exec(check) => Kind::Exec(check.clone()),
        };
        Checker { names, rng, timeout: config.timeout, kind }
    }

    /// Runs it once. Takes the time-out at most, and for a program as long as killing it takes.
    pub async fn run(&mut self) -> Outcome {
        let (begun, timeout) = (Instant::now(), self.timeout);
        let mut outcome = Outcome::default();
        let is_late = match &mut self.kind {
            Kind::Tcp(check) => tokio::time::timeout(timeout, check.run(&self.names, &mut outcome)).await.is_err(),
            Kind::Dns(check) => {
                let run = check.run(&self.names, &mut self.rng, &mut outcome);
                tokio::time::timeout(timeout, run).await.is_err()
            }
            Kind::Http(checker) => {
                let is_late = tokio::time::timeout(timeout, checker.run(&mut outcome)).await.is_err();
                checker.note(&mut outcome);
                is_late
            }
            // It has a deadline of its own, because what is killed must be waited for.
            Kind::Exec(check) => {
                check.run(timeout, &mut outcome).await;
                false
            }
        };
        if is_late {
            outcome.fail(Failure::late(timeout));
        }
        outcome.push(Measure::Success, f64::from(u8::from(outcome.failure.is_none())));
        outcome.push(Measure::Duration, begun.elapsed().as_secs_f64());
        if let Some(failure) = &outcome.failure {
            let labels = vec![("reason", failure.reason.as_str().to_owned())];
            outcome.push_with(Measure::FailureInfo, labels, 1.0);
        }
        outcome
    }
}

#[cfg(test)]
mod tests;
