//! Imported samples to the server, through its own remote write endpoint: the same door, limits and durability as for anything
//! else. Sending the same again changes nothing, so an import that broke off can be run anew.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use prost::Message;
use reqwest::{Method, StatusCode};

use crate::cli::connection::Connection;
use crate::remote::prompb::{Label, MetricMetadata, Sample, TimeSeries, WriteRequest};

/// Samples in one request: a few hundred kilobytes.
const REQUEST_SAMPLES: usize = 10_000;
/// How often a request is sent that the server cannot take now. With the pause it is five minutes.
const ATTEMPTS_MAX: u32 = 60;
/// Pause between attempts.
const PAUSE: Duration = Duration::from_secs(5);
/// Different refusals that are remembered word for word.
const REFUSALS_MAX: usize = 10;

/// Sends samples in requests of a bounded size and counts what became of them.
pub struct Sender {
    connection: Connection,
    waiting: WriteRequest,
    waiting_samples: usize,
    /// Samples sent.
    pub sent: u64,
    /// Samples that the server stored.
    pub stored: u64,
    /// What the server refused, in its words, with how often it said so.
    pub refusals: BTreeMap<String, u64>,
}

impl Sender {
    /// A sender to a server.
    pub fn new(connection: Connection) -> Sender {
        Sender {
            connection,
            waiting: WriteRequest::default(),
            waiting_samples: 0,
            sent: 0,
            stored: 0,
            refusals: BTreeMap::new(),
        }
    }

    /// Adds what is told about a metric to the next request.
    pub fn tell(&mut self, metadata: MetricMetadata) {
        self.waiting.metadata.push(metadata);
    }

    /// Adds samples of a series, and sends what is a request's worth.
    ///
    /// # Errors
    /// The server is gone or refuses requests as a whole.
    pub async fn add(&mut self, labels: &[Label], samples: &[Sample]) -> anyhow::Result<()> {
        for part in samples.chunks(REQUEST_SAMPLES) {
            match self.waiting.timeseries.last_mut() {
                Some(last) if last.labels == labels => last.samples.extend_from_slice(part),
                _ => self.waiting.timeseries.push(TimeSeries { labels: labels.to_vec(), samples: part.to_vec() }),
            }
            self.waiting_samples += part.len();
            if self.waiting_samples >= REQUEST_SAMPLES {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// The server is gone or refuses requests as a whole.
    pub async fn flush(&mut self) -> anyhow::Result<()> {
        let request = std::mem::take(&mut self.waiting);
        let samples = std::mem::take(&mut self.waiting_samples) as u64;
        if samples == 0 && request.metadata.is_empty() {
            return Ok(());
        }
        let body = snap::raw::Encoder::new().compress_vec(&request.encode_to_vec())?;
        for _ in 0..ATTEMPTS_MAX {
            let asked = self.connection.request(Method::POST, ["api", "v1", "write"]).body(body.clone());
            let asked = asked.header("content-encoding", "snappy").header("content-type", "application/x-protobuf");
            let answer = asked.header("x-prometheus-remote-write-version", "0.1.0").send().await;
            let answer = answer.map_err(reqwest::Error::without_url).context("the server cannot be reached")?;
            let status = answer.status();
            let text = answer.text().await.unwrap_or_default();
            match status {
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                    eprintln!("petrel: the server takes nothing now, trying again: {}", text.trim());
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                StatusCode::BAD_REQUEST => {
                    let stored = stored(&text);
                    self.stored += stored.unwrap_or(0);
                    self.refuse(text.trim());
                }
                status if status.is_success() => self.stored += samples,
                status => bail!("the server answered {status}: {}", text.trim()),
            }
            self.sent += samples;
            return Ok(());
        }
        bail!(
            "the server took nothing for {} minutes; run the same import again later",
            (PAUSE * ATTEMPTS_MAX).as_secs() / 60
        )
    }

    fn refuse(&mut self, text: &str) {
        let words = text.rsplit_once("; ").map_or(text, |(problems, _)| problems);
        if self.refusals.len() < REFUSALS_MAX || self.refusals.contains_key(words) {
            *self.refusals.entry(words.to_owned()).or_default() += 1;
        }
    }
}

/// How many samples of a partly refused request were stored: the answer ends with `; N stored`.
fn stored(text: &str) -> Option<u64> {
    text.trim().rsplit_once("; ")?.1.strip_suffix(" stored")?.parse().ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_servers_count_is_read() {
        assert_eq!(super::stored("3 samples older than the retention; x; 17 stored\n"), Some(17));
        assert_eq!(super::stored("not a message"), None);
    }
}
