//! Real remote engines: VictoriaMetrics and Prometheus from Debian, on ports and folders of their own, that can be stopped and
//! started again on the same data.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::petrel::http_client;
use crate::process::{Process, free_port, wait_for};

/// How long an engine may take to start on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// VictoriaMetrics, with deduplication of samples that are sent twice.
    VictoriaMetrics,
    /// Prometheus, with remote write switched on and late samples allowed.
    Prometheus,
}

/// A remote engine.
pub struct Engine {
    /// Its address.
    pub url: String,
    kind: Kind,
    port: u16,
    dir: PathBuf,
    process: Option<Process>,
}

impl Engine {
    /// Starts it with its files in a folder of `dir`, and waits until it answers.
    pub fn start(dir: &Path, kind: Kind) -> Engine {
        let (port, dir) = (free_port(), dir.join(format!("{kind:?}")));
        std::fs::create_dir_all(&dir).expect("the test's folder is writable");
        let mut engine = Engine { url: format!("http://127.0.0.1:{port}"), kind, port, dir, process: None };
        engine.start_again();
        engine
    }

    /// Starts it on the data that it had when it was stopped.
    pub fn start_again(&mut self) {
        let mut command = match self.kind {
            Kind::VictoriaMetrics => {
                let mut command = Command::new("victoria-metrics");
                command.arg(format!("-httpListenAddr=127.0.0.1:{}", self.port));
                command.arg(format!("-storageDataPath={}", self.dir.join("data").display()));
                command.args(["-retentionPeriod=100y", "-dedup.minScrapeInterval=1ms"]);
                command
            }
            Kind::Prometheus => {
                let config = self.dir.join("prometheus.yml");
                let text = "global: {}\nstorage:\n  tsdb:\n    out_of_order_time_window: 90d\n";
                std::fs::write(&config, text).expect("the test's folder is writable");
                let mut command = Command::new("prometheus");
                command.arg(format!("--config.file={}", config.display()));
                command.arg(format!("--storage.tsdb.path={}", self.dir.join("data").display()));
                command.arg(format!("--web.listen-address=127.0.0.1:{}", self.port));
                command.args(["--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=90d"]);
                command
            }
        };
        self.process = Some(Process::start(&mut command, &self.dir.join("engine.log")));
        let (client, health) = (http_client(), format!("{}/-/healthy", self.url));
        wait_for("the remote engine to answer", START_DEADLINE, || {
            client.get(&health).send().is_ok_and(|answer| answer.status().is_success())
        });
    }

    /// Stops it cleanly; it keeps its data and its port.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.stop(START_DEADLINE);
        }
    }

    /// What Petrel's config must say to use it, below `engine:`.
    pub fn config(&self) -> String {
        let protocol = match self.kind {
            Kind::VictoriaMetrics => "victoriametrics",
            Kind::Prometheus => "remote_read",
        };
        format!(
            "engine:\n  remote:\n    enabled: true\n    write_url: {url}/api/v1/write\n    read_url: {url}\n    \
             read_protocol: {protocol}\n    linger: 100ms\n    connect_timeout: 2s\n    pause: 1s\n",
            url = self.url
        )
    }

    /// Has what was written last shown; VictoriaMetrics shows it after seconds.
    pub fn flush(&self) {
        if self.kind == Kind::VictoriaMetrics {
            let flushed = http_client().get(format!("{}/internal/force_flush", self.url)).send();
            assert!(flushed.is_ok_and(|answer| answer.status().is_success()), "VictoriaMetrics cannot be flushed");
        }
    }

    /// Posts a remote write request, which must be taken.
    pub fn write(&self, body: Vec<u8>) {
        let request = http_client().post(format!("{}/api/v1/write", self.url)).body(body);
        let answer = request
            .header("Content-Type", "application/x-protobuf")
            .header("Content-Encoding", "snappy")
            .header("X-Prometheus-Remote-Write-Version", "0.1.0")
            .send()
            .expect("the engine is there");
        assert!(answer.status().is_success(), "{}", answer.text().unwrap_or_default());
        self.flush();
    }

    /// The samples of each series that a range selector finds at a time (seconds), as (series, time in ms, value's text), sorted and
    /// without those that are there twice.
    pub fn samples(&self, range_selector: &str, at: i64) -> Vec<(String, i64, String)> {
        let form = [("query", range_selector.to_owned()), ("time", at.to_string())];
        let answer = http_client().get(format!("{}/api/v1/query", self.url)).query(&form).send();
        let answer: Value = answer.and_then(reqwest::blocking::Response::json).unwrap_or(Value::Null);
        let mut all = Vec::new();
        for series in answer["data"]["result"].as_array().into_iter().flatten() {
            for pair in series["values"].as_array().into_iter().flatten() {
                let t = (pair[0].as_f64().unwrap_or(f64::NAN) * 1000.0).round() as i64;
                all.push((series["metric"].to_string(), t, pair[1].as_str().unwrap_or("").to_owned()));
            }
        }
        all.sort();
        all.dedup();
        all
    }
}
