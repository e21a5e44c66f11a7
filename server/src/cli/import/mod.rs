//! `petrel import`: samples of a Prometheus or OpenMetrics text file, or of a running Prometheus by remote read, into a server. Memory
//! is bounded; refusals are counted and told, never hidden; running it again changes nothing.

mod remote_read;
mod send;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use petrel_agent::collect::exposition::{self, Format, Line, NAME};
use reqwest::{Client, StatusCode};
use serde_json::json;

use self::remote_read::AnswerError;
use self::send::Sender;
use super::connection::{Connection, address};
use super::progress::Progress;
use super::{ImportArgs, exit};
use crate::remote::prompb::{Label, LabelMatcher, MetricMetadata, Sample, TimeSeries};
use crate::series::Timestamp;

/// Lines that are wrong and told one by one; further ones are counted.
const LINES_TOLD_MAX: u64 = 20;
/// Longest line; more is no metrics file.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// First time slice that is asked for. It doubles while answers are small.
const SLICE_FIRST_MS: i64 = 60_000;
const SLICE_MS_MAX: i64 = 24 * 3_600_000;
/// Samples of an answer below which the next slice is twice as long, and above which it is half.
const SLICE_SAMPLES: (u64, u64) = (250_000, 1_000_000);
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

/// Imports. Returns the exit code.
///
/// # Errors
/// The command line is wrong, a source cannot be read, or a server is gone.
pub async fn import(args: &ImportArgs, now: Timestamp) -> anyhow::Result<u8> {
    let begun = Instant::now();
    let mut sender = Sender::new(Connection::new(&args.server)?);
    let done = match (&args.file, &args.from) {
        (Some(file), None) => import_text(args, file, now, &mut sender).await,
        (None, Some(from)) => import_remote(args, from, now, &mut sender).await.map(|()| 0),
        _ => bail!("name a file, or a Prometheus with --from"),
    };
    tell(args, &sender, begun.elapsed());
    match done {
        Ok(0) if sender.stored == sender.sent => Ok(exit::DONE),
        Ok(_) => Ok(exit::NO),
        Err(error) => {
            eprintln!(
                "petrel: the import broke off: {error:#}\nRun it again when that is mended; what is stored already changes nothing."
            );
            let unreached = error.chain().any(<dyn std::error::Error>::is::<reqwest::Error>);
            Ok(if unreached { exit::UNREACHED } else { exit::NO })
        }
    }
}

fn tell(args: &ImportArgs, sender: &Sender, elapsed: Duration) {
    let refused = sender.sent - sender.stored;
    for (words, requests) in &sender.refusals {
        eprintln!("petrel: refused in {requests} requests: {words}");
    }
    if refused > 0 {
        eprintln!(
            "petrel: old samples need a server with enough retention, for example `petrel serve --retention off`"
        );
    }
    if args.server.json {
        println!("{:#}", json!({ "sent": sender.sent, "stored": sender.stored, "refused": refused }));
    } else {
        let rate = sender.sent as f64 / elapsed.as_secs_f64().max(0.001);
        println!("{} samples stored, {refused} refused, {rate:.0} a second.", sender.stored);
    }
}

/// Returns how many lines were wrong.
async fn import_text(args: &ImportArgs, file: &Path, now: Timestamp, sender: &mut Sender) -> anyhow::Result<u64> {
    let default = args.time.unwrap_or(now);
    let is_input = file == Path::new("-");
    let opened = || File::open(file).with_context(|| format!("{} cannot be opened", file.display()));
    let format = match args.format.as_deref() {
        Some("openmetrics") => Format::OpenMetrics,
        None if !is_input && ends_as_openmetrics(&mut opened()?)? => Format::OpenMetrics,
        _ => Format::Prometheus,
    };
    let bytes = if is_input { 0 } else { opened()?.metadata()?.len() };
    let mut input: Box<dyn BufRead + Send> =
        if is_input { Box::new(BufReader::new(std::io::stdin())) } else { Box::new(BufReader::new(opened()?)) };
    let (mut progress, mut told) = (Progress::default(), BTreeMap::new());
    let (mut number, mut wrong, mut at) = (0u64, 0u64, 0u64);
    let mut line = Vec::new();
    loop {
        line.clear();
        let taken = (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? as u64;
        if taken == 0 {
            break;
        }
        number += 1;
        at += taken;
        if taken == LINE_BYTES_MAX {
            bail!("{}:{number}: the line is longer than {LINE_BYTES_MAX} bytes", file.display());
        }
        let read = match std::str::from_utf8(&line) {
            Ok(line) => exposition::line(line, format).map_err(|error| error.to_string()),
            Err(_) => Err("not UTF-8".to_owned()),
        };
        match read {
            Ok(Line::Sample(sample)) => {
                let name = std::iter::once((NAME.into(), sample.name));
                let pairs = name.chain(sample.labels);
                let mut labels: Vec<Label> =
                    pairs.map(|(name, value)| Label { name: name.into_owned(), value: value.into_owned() }).collect();
                labels.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                sender.add(&labels, &[Sample { value: sample.value, timestamp: sample.t.unwrap_or(default) }]).await?;
            }
            Ok(Line::Type { name, kind }) => {
                remember(&mut told, sender, name.into_owned(), Some(kind.to_owned()), None);
            }
            Ok(Line::Help { name, help }) => {
                remember(&mut told, sender, name.into_owned(), None, Some(help.into_owned()));
            }
            Ok(Line::End | Line::Nothing) => {}
            Err(error) => {
                wrong += 1;
                if wrong <= LINES_TOLD_MAX {
                    progress.end();
                    eprintln!("{}:{number}: {error}", file.display());
                }
            }
        }
        progress.tell(|| format!("{} samples, {:.0} %", sender.sent, 100.0 * at as f64 / bytes.max(at) as f64));
    }
    sender.flush().await?;
    progress.end();
    if wrong > LINES_TOLD_MAX {
        eprintln!("{}: {} more lines are wrong", file.display(), wrong - LINES_TOLD_MAX);
    }
    Ok(wrong)
}

/// Metrics of a file whose types and words are kept until both are there; a file has few.
const TOLD_MAX: usize = 100_000;

fn remember(
    told: &mut BTreeMap<String, (i32, String)>,
    sender: &mut Sender,
    name: String,
    kind: Option<String>,
    help: Option<String>,
) {
    if told.len() >= TOLD_MAX && !told.contains_key(&name) {
        return;
    }
    let entry = told.entry(name.clone()).or_default();
    if let Some(kind) = kind {
        // The numbers of remote write's MetricType.
        let kinds = ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];
        entry.0 = kinds.iter().position(|known| *known == kind).unwrap_or(0) as i32;
    }
    if let Some(help) = help {
        entry.1 = help;
    }
    sender.tell(MetricMetadata { r#type: entry.0, metric_family_name: name, help: entry.1.clone() });
}

/// Whether the last line is OpenMetrics' end mark.
fn ends_as_openmetrics(file: &mut File) -> anyhow::Result<bool> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(64)))?;
    let mut tail = Vec::new();
    file.take(64).read_to_end(&mut tail)?;
    Ok(String::from_utf8_lossy(&tail).trim_end().ends_with("# EOF"))
}

/// A source that speaks remote read.
struct Source {
    client: Client,
    url: reqwest::Url,
    selectors: Vec<Vec<LabelMatcher>>,
}

enum Answer {
    Series(Vec<TimeSeries>),
    /// The source or we cannot take so much at once.
    TooMuch(String),
}

async fn import_remote(args: &ImportArgs, from: &str, now: Timestamp, sender: &mut Sender) -> anyhow::Result<()> {
    let source = Source::new(args, from)?;
    let start = args.start.ok_or_else(|| anyhow!("--from needs --start, for example 2026-11-01T00:00:00Z"))?;
    let end = args.end.unwrap_or(now);
    if end < start {
        bail!("--end is before --start");
    }
    let mut progress = Progress::default();
    let begun = Instant::now();
    let (mut at, mut slice) = (start, SLICE_FIRST_MS);
    while at <= end {
        // Both ends belong to a question.
        let last = end.min(at + slice - 1);
        let series = match source.ask(at, last).await? {
            Answer::Series(series) => series,
            Answer::TooMuch(_) if last > at => {
                slice = ((last - at + 1) / 2).max(1);
                continue;
            }
            Answer::TooMuch(words) => {
                bail!("one millisecond is too much for the source: {words}; name fewer series with --match")
            }
        };
        let mut samples = 0;
        for one in series {
            samples += one.samples.len() as u64;
            sender.add(&one.labels, &one.samples).await?;
        }
        at = last + 1;
        slice = match samples {
            few if few < SLICE_SAMPLES.0 => (slice * 2).min(SLICE_MS_MAX),
            many if many > SLICE_SAMPLES.1 => (slice / 2).max(1),
            _ => slice,
        };
        progress.tell(|| {
            let percent = 100.0 * (at - start) as f64 / (end - start + 1) as f64;
            let rate = sender.sent as f64 / begun.elapsed().as_secs_f64();
            format!("{} samples, {percent:.0} % of the time, {rate:.0} a second", sender.sent)
        });
    }
    sender.flush().await?;
    progress.end();
    Ok(())
}

impl Source {
    fn new(args: &ImportArgs, from: &str) -> anyhow::Result<Source> {
        let mut url =
            address(from).ok_or_else(|| anyhow!("--from {from} is not an address such as http://127.0.0.1:9090"))?;
        // A Prometheus' own address, or the whole one of another source.
        if !url.path().ends_with("/read")
            && let Ok(mut path) = url.path_segments_mut()
        {
            path.pop_if_empty().extend(["api", "v1", "read"]);
        }
        let all = [r#"{__name__!=""}"#.to_owned()];
        let given = if args.matches.is_empty() { &all[..] } else { &args.matches };
        let selectors = given
            .iter()
            .map(|selector| remote_read::matchers(selector).map_err(|error| anyhow!("--match {selector} {error}")))
            .collect::<anyhow::Result<_>>()?;
        let client = Client::builder().no_proxy().timeout(ANSWER_TIMEOUT).build()?;
        Ok(Source { client, url, selectors })
    }

    async fn ask(&self, from: Timestamp, to: Timestamp) -> anyhow::Result<Answer> {
        let body = remote_read::question(&self.selectors, from, to)?;
        let asked = self.client.post(self.url.clone()).body(body).header("content-encoding", "snappy");
        let asked =
            asked.header("content-type", "application/x-protobuf").header("x-prometheus-remote-read-version", "0.1.0");
        let mut answer = asked.send().await.with_context(|| format!("{} cannot be reached", self.url))?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.context("the source's answer broke off")? {
            body.extend_from_slice(&part);
            if body.len() > remote_read::ANSWER_BYTES_MAX {
                return Ok(Answer::TooMuch("its answer is too large".to_owned()));
            }
        }
        if !status.is_success() {
            let words = String::from_utf8_lossy(&body).trim().to_owned();
            // Prometheus' limit on samples: 400 with «exceeded sample limit»; a proxy may say 413.
            if words.contains("sample limit") || status == StatusCode::PAYLOAD_TOO_LARGE {
                return Ok(Answer::TooMuch(words));
            }
            bail!("{} answered {status}: {words}", self.url);
        }
        match remote_read::answer(&body) {
            Ok(series) => Ok(Answer::Series(series)),
            Err(AnswerError::TooLarge) => Ok(Answer::TooMuch("its answer is too large".to_owned())),
            Err(error) => Err(error).with_context(|| format!("{} does not speak remote read", self.url)),
        }
    }
}
