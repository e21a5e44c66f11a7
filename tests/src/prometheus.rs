//! A real Prometheus with a config of the test's, as a peer to compare with or to be read from.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use reqwest::blocking::Client;
use serde_json::Value;

use crate::petrel::http_client;
use crate::process::{Process, free_port, wait_for};

/// A running Prometheus that takes remote write.
pub struct Prometheus {
    /// Address, for example `http://127.0.0.1:41234`.
    pub url: String,
    client: Client,
    _process: Process,
}

impl Prometheus {
    /// Starts it with its files in `dir` and waits until it is ready.
    pub fn start(dir: &Path, config: &str) -> Prometheus {
        std::fs::create_dir_all(dir).expect("the test's folder is writable");
        let (port, path) = (free_port(), dir.join("prometheus.yml"));
        std::fs::write(&path, config).expect("the test's folder is writable");
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(["--web.enable-remote-write-receiver", "--log.level=warn"]);
        let process = Process::start(&mut command, &dir.join("prometheus.log"));
        let started = Prometheus { url: format!("http://127.0.0.1:{port}"), client: http_client(), _process: process };
        wait_for("prometheus to be ready", Duration::from_secs(20), || {
            let answer = started.client.get(format!("{}/-/ready", started.url)).send();
            answer.is_ok_and(|answer| answer.status().is_success())
        });
        started
    }

    /// Posts a remote write request, which must be taken.
    pub fn write(&self, body: Vec<u8>) {
        let request = self.client.post(format!("{}/api/v1/write", self.url)).body(body);
        let request = request.header("content-encoding", "snappy").header("content-type", "application/x-protobuf");
        let answer = request.send().expect("prometheus is there");
        assert!(answer.status().is_success(), "{}", answer.text().unwrap_or_default());
    }

    /// Status and text of a path with its parameters.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(&self.client, &self.url, path)
    }

    /// The value of each series of an instant query, by its labels as JSON.
    pub fn query(&self, promql: &str, at: i64) -> Vec<(Value, String)> {
        let parameters = [("query", promql.to_owned()), ("time", format!("{}.{:03}", at / 1000, at % 1000))];
        let answer = self.client.get(format!("{}/api/v1/query", self.url)).query(&parameters).send();
        let answer: Value = answer.expect("prometheus is there").json().expect("prometheus answers JSON");
        assert_eq!(answer["status"], "success", "{promql}: {answer}");
        let result = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        result.iter().map(|one| (one["metric"].clone(), one["value"][1].as_str().unwrap_or("").to_owned())).collect()
    }
}

/// Status and text of a path with its parameters, of any server.
pub fn get(client: &Client, url: &str, path: &str) -> (u16, String) {
    let answer = client.get(format!("{url}{path}")).send().expect("the server is there");
    (answer.status().as_u16(), answer.text().expect("the answer is text"))
}
