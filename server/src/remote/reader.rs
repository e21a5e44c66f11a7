//! Asks the remote engine, as a [`Source`] of its own. Callers are threads that may block: the request runs on the remote engine's
//! own runtime, which no caller's work can hold up, and the caller waits for it at a channel with a deadline. So it can be called
//! from anywhere, also from within another runtime, and never blocks for ever.

use std::borrow::Cow;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use petrel_agent::error_chain::chain;
use reqwest::Url;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::answer::{self, AnswerError, Question};
use super::client::{Client, Post, RequestError};
use super::config::{ReadProtocol, RemoteConfig};
use super::wire;
use crate::query::source::{MetricMetadata, SelectError, Selected, Source, TimeRange};
use crate::series::{Labels, MatchOp, Matcher, NAME, Timestamp};
use crate::telemetry;

/// What a caller waits beyond the request's own limit, for a busy machine.
const SLACK: Duration = Duration::from_secs(2);

/// Why the remote engine gave no samples.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was away a moment ago, and is not asked again yet.
    #[error("the remote engine was away a moment ago and is asked again in {again_in:?}")]
    Paused {
        /// When.
        again_in: Duration,
    },
    /// It did not answer as it should.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Its answer is no good.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// The server is being stopped.
    #[error("server is stopping")]
    Stopping,
}

/// The remote engine's reading side.
pub struct Reader {
    client: Arc<Client>,
    runtime: Handle,
    places: Arc<Semaphore>,
    url: Url,
    protocol: ReadProtocol,
    timeout: Duration,
    response_bytes_max: usize,
    pause: Duration,
    /// Until when nothing is asked.
    away_until: Mutex<Option<Instant>>,
}

impl Reader {
    /// A reader whose requests run on `runtime`; `None` where nothing is to be read.
    pub fn new(config: &RemoteConfig, client: Arc<Client>, runtime: Handle) -> Option<Reader> {
        Some(Reader {
            client,
            runtime,
            places: Arc::new(Semaphore::new(config.reads_max)),
            url: config.read_url.clone()?,
            protocol: config.read_protocol,
            timeout: config.read_timeout,
            response_bytes_max: config.response_bytes_max,
            pause: config.pause,
            away_until: Mutex::new(None),
        })
    }

    fn read(&self, question: &Question<'_>) -> Result<Vec<Selected>, ReadError> {
        let (matchers, range) = (question.matchers, question.range);
        if self.protocol == ReadProtocol::RemoteRead {
            const HEADERS: &[(&str, &str)] = &[
                ("Content-Type", "application/x-protobuf"),
                ("Content-Encoding", "snappy"),
                ("X-Prometheus-Remote-Read-Version", "0.1.0"),
            ];
            let plain = wire::read_request(matchers, range);
            let body = snap::raw::Encoder::new()
                .compress_vec(&plain)
                .map_err(|error| AnswerError::Malformed(Box::new(error)))?;
            let answer = self.ask("api/v1/read", HEADERS, body)?;
            return Ok(answer::of_remote_read(&answer, self.response_bytes_max, question)?);
        }
        // Closed at both ends, as the question; engines differ in whether they count the left one.
        let window_ms = range.to.saturating_sub(range.from).saturating_add(1);
        let query = format!("{}[{window_ms}ms]", selector(matchers, self.pattern()));
        let body = form(&[("query", query), ("time", seconds(range.to))]);
        let answer = self.ask("api/v1/query", FORM, body)?;
        Ok(answer::of_query(&answer, self.protocol == ReadProtocol::Victoriametrics, question)?)
    }

    fn list(&self, any_of: &[Vec<Matcher>], range: TimeRange) -> Result<Vec<Labels>, ReadError> {
        let mut pairs = vec![("start", seconds(range.from)), ("end", seconds(range.to))];
        pairs.extend(any_of.iter().map(|matchers| ("match[]", selector(matchers, self.pattern()))));
        if any_of.is_empty() {
            pairs.push(("match[]", selector(&[], self.pattern())));
        }
        Ok(answer::of_series(&self.ask("api/v1/series", FORM, form(&pairs))?)?)
    }

    /// How expressions are written. VictoriaMetrics' `.` matches every character, and it is fast with plain expressions only.
    fn pattern(&self) -> fn(&regex::Regex) -> Cow<'_, str> {
        match self.protocol {
            ReadProtocol::Victoriametrics => |regex| Cow::Borrowed(wire::pattern(regex)),
            ReadProtocol::RemoteRead | ReadProtocol::Query => wire::exact_pattern,
        }
    }

    /// One request; blocks until it is answered or its time is over.
    fn ask(
        &self,
        path: &str,
        headers: &'static [(&'static str, &'static str)],
        body: Vec<u8>,
    ) -> Result<Vec<u8>, ReadError> {
        if let Some(again_in) = self.pause_left() {
            telemetry::REMOTE_READS.with_label_values(&["away"]).inc();
            return Err(ReadError::Paused { again_in });
        }
        let Ok(url) = self.url.join(path) else { return Err(ReadError::Stopping) };
        let (client, places, limit) = (Arc::clone(&self.client), Arc::clone(&self.places), self.timeout);
        let (reply, answer) = sync_channel(1);
        self.runtime.spawn(async move {
            let exchange = async {
                // The semaphore is never closed.
                let _place = places.acquire().await;
                client.post(Post { url, headers, body, timeout: limit }).await
            };
            let answered = tokio::time::timeout(limit, exchange).await;
            // A caller that gave up does not need the answer.
            let _ = reply.send(answered.unwrap_or(Err(RequestError::TimedOut { limit })));
        });
        let answered = match answer.recv_timeout(limit + SLACK) {
            Ok(answered) => answered,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => Err(RequestError::TimedOut { limit }),
            // The runtime ended with the request in it.
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Err(ReadError::Stopping),
        };
        let outcome = match &answered {
            Ok(_) => "ok",
            Err(error) if error.is_away() => "away",
            Err(_) => "refused",
        };
        telemetry::REMOTE_READS.with_label_values(&[outcome]).inc();
        self.note_away(answered.as_ref().err());
        Ok(answered?)
    }

    fn pause_left(&self) -> Option<Duration> {
        let until = *self.away_until.lock().unwrap_or_else(PoisonError::into_inner);
        until?.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Remembers whether the remote engine is away, and logs when that changes.
    fn note_away(&self, error: Option<&RequestError>) {
        let mut until = self.away_until.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            Some(error) if error.is_away() => {
                if until.is_none() {
                    tracing::warn!(
                        error = chain(error),
                        "remote engine cannot be read; answers are made of the local store alone and say so"
                    );
                }
                *until = Some(Instant::now() + self.pause);
            }
            _ => {
                if until.take().is_some() {
                    tracing::info!("remote engine can be read again");
                }
            }
        }
    }
}

/// What the remote engine alone has. It tells no metadata, which the local store has for ever.
impl Source for Reader {
    fn select(&self, matchers: &[Matcher], range: TimeRange, samples_max: u64) -> Result<Vec<Selected>, SelectError> {
        let Some(range) = asked(range) else { return Ok(Vec::new()) };
        self.read(&Question { matchers, range, samples_max }).map_err(|error| match error {
            ReadError::Answer(AnswerError::TooManySamples { samples_max }) => {
                SelectError::TooManySamples { samples_max }
            }
            error => SelectError::Read(Box::new(error)),
        })
    }

    fn series(&self, any_of: &[Vec<Matcher>], range: TimeRange) -> Result<Vec<Labels>, SelectError> {
        let Some(range) = asked(range) else { return Ok(Vec::new()) };
        let listed = self.list(any_of, range).map_err(|error| SelectError::Read(Box::new(error)))?;
        let fits = |labels: &Labels| {
            any_of.is_empty() || any_of.iter().any(|matchers| matchers.iter().all(|matcher| matcher.matches(labels)))
        };
        Ok(listed.into_iter().filter(fits).collect())
    }

    fn metadata(&self) -> Vec<(String, MetricMetadata)> {
        Vec::new()
    }
}

const FORM: &[(&str, &str)] = &[("Content-Type", "application/x-www-form-urlencoded")];
/// The end of the year 9999: engines refuse times beyond what their calendars have.
const TO_MAX: Timestamp = 253_402_300_799_000;

/// The part of a range that engines can be asked for.
fn asked(range: TimeRange) -> Option<TimeRange> {
    let range = TimeRange { from: range.from.max(0), to: range.to.min(TO_MAX) };
    (range.from <= range.to).then_some(range)
}

fn form(pairs: &[(&str, String)]) -> Vec<u8> {
    // The address only lends its encoder of forms.
    let mut url = Url::parse("http://form/").expect("a constant address parses");
    url.query_pairs_mut().extend_pairs(pairs.iter().map(|(name, value)| (name, value)));
    url.query().unwrap_or("").as_bytes().to_vec()
}

/// Milliseconds as seconds, exactly.
fn seconds(t: Timestamp) -> String {
    format!("{}.{:03}", t.div_euclid(1000), t.rem_euclid(1000))
}

/// Matchers as PromQL.
fn selector(matchers: &[Matcher], pattern: fn(&regex::Regex) -> Cow<'_, str>) -> String {
    let mut parts: Vec<String> = matchers
        .iter()
        .map(|matcher| {
            let (op, value) = match &matcher.op {
                MatchOp::Equal(value) => ("=", Cow::Borrowed(value.as_str())),
                MatchOp::NotEqual(value) => ("!=", Cow::Borrowed(value.as_str())),
                MatchOp::Regex(regex) => ("=~", pattern(regex)),
                MatchOp::NotRegex(regex) => ("!~", pattern(regex)),
            };
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            format!("{}{op}\"{escaped}\"", matcher.name)
        })
        .collect();
    // Engines want one condition that an absent label does not meet.
    if matchers.iter().all(|matcher| matcher.matches_value("")) {
        parts.push(format!("{NAME}!=\"\""));
    }
    format!("{{{}}}", parts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_written_as_promql() {
        let matchers = [
            Matcher::equal(NAME, "up"),
            Matcher::regex("path", r"C:\\.*|a\.b", false).unwrap(),
            Matcher::equal("q", "\"\n"),
        ];
        let as_prometheus = |matchers: &[Matcher]| selector(matchers, wire::exact_pattern);
        assert_eq!(as_prometheus(&matchers), r#"{__name__="up",path=~"(?s:C:\\\\.*|a\\.b)",q="\"\n"}"#);
        assert_eq!(as_prometheus(&[]), r#"{__name__!=""}"#);
        assert_eq!(as_prometheus(&[Matcher::equal("gone", "")]), r#"{gone="",__name__!=""}"#);
        assert_eq!((seconds(1_500), seconds(7)), ("1.500".to_owned(), "0.007".to_owned()));
        assert_eq!(form(&[("match[]", "{a=\"b c\"}".to_owned())]), b"match%5B%5D=%7Ba%3D%22b+c%22%7D");
        assert!(asked(TimeRange { from: i64::MIN, to: -1 }).is_none());
    }
}
