//! A `petrel serve` and its `petrel-agent`s under test, each a real process with files of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::blocking::Client;
use serde_json::Value;

use crate::process::{Process, program, run_to_end, wait_for, wait_to_find_at};

/// How long a start may take on a busy machine. The promise of one second is measured elsewhere, alone.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// A server that can be killed and started again on the same data and port.
pub struct Server {
    /// Address, for example `http://127.0.0.1:41234`.
    pub url: String,
    /// Its config file.
    pub config: PathBuf,
    log: PathBuf,
    /// Words before the program's name, for example of `nsenter`.
    before: Vec<String>,
    process: Process,
    client: Client,
}

impl Server {
    /// Writes the config (without `data` and `listen`, which this adds), starts the server in `dir` and waits until it is ready.
    pub fn start(dir: &Path, config: &str) -> Server {
        Server::start_behind(&[], dir, config)
    }

    /// As [`Server::start`], by a program that becomes the server: `before` are its words, for example `nsenter …`.
    pub fn start_behind(before: &[&str], dir: &Path, config: &str) -> Server {
        let port = crate::process::free_port();
        let (config_path, log) = (dir.join("petrel.yaml"), dir.join("petrel.log"));
        let head = format!("data: {}\nlisten: 127.0.0.1:{port}\n", dir.join("data").display());
        std::fs::write(&config_path, head + config).expect("the test's folder is writable");
        let before: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
        let process = Process::start(&mut serve(&before, &config_path), &log);
        let client = http_client();
        let mut server =
            Server { url: format!("http://127.0.0.1:{port}"), config: config_path, log, before, process, client };
        server.wait_until_ready();
        server
    }

    fn wait_until_ready(&mut self) {
        let url = format!("{}/-/ready", self.url);
        let begin = std::time::Instant::now();
        while !self.client.get(&url).send().is_ok_and(|answer| answer.status().is_success()) {
            assert!(self.process.ended().is_none(), "petrel ended at its start:\n{}", self.process.output());
            assert!(begin.elapsed() < START_DEADLINE, "petrel is not ready after {START_DEADLINE:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the server with SIGKILL, and starts it again on the same files and port.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts a server that was killed or stopped again, on the same files and port.
    pub fn start_again(&mut self) {
        self.process = Process::start(&mut serve(&self.before, &self.config), &self.log);
        self.wait_until_ready();
    }

    /// The most memory that the server ever held, in bytes: peak resident set.
    pub fn memory_bytes_max(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// The memory that the server holds, in bytes: resident set.
    pub fn memory_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let kib = status.lines().find_map(|text| text.strip_prefix(line)?.trim().strip_suffix(" kB")?.parse().ok());
        kib.map_or(0, |kib: u64| kib << 10)
    }

    /// Stops it cleanly; returns how long that took and whether it ended well.
    pub fn stop(&mut self) -> (Duration, bool) {
        self.process.stop(Duration::from_secs(10))
    }

    /// The server's process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Everything it has printed.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// A path's JSON, or nothing while the server is not there.
    pub fn get(&self, path: &str) -> Option<Value> {
        let answer = self.client.get(format!("{}{path}", self.url)).send().ok()?;
        answer.status().is_success().then(|| answer.json().ok()).flatten()
    }

    /// A path's JSON with parameters, whatever its status; null while the server is not there.
    pub fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let answer = self.client.get(format!("{}{path}", self.url)).query(parameters).send();
        answer.ok().and_then(|answer| answer.json().ok()).unwrap_or(Value::Null)
    }

    /// Posts JSON; returns the status and the answer.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.client.post(format!("{}{path}", self.url)).json(body).send().expect("the server is there");
        (answer.status().as_u16(), answer.json().unwrap_or(Value::Null))
    }

    /// Posts bytes with headers; returns the status and the answer's text, or nothing while the server is not there.
    pub fn post_bytes(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Option<(u16, String)> {
        let mut request = self.client.post(format!("{}{path}", self.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().ok()?;
        Some((answer.status().as_u16(), answer.text().unwrap_or_default()))
    }

    /// The server's own metrics, as text.
    pub fn metrics(&self) -> String {
        let answer = self.client.get(format!("{}/metrics", self.url)).send();
        answer.ok().and_then(|answer| answer.text().ok()).unwrap_or_default()
    }

    /// The series of an instant query: labels and value.
    pub fn query(&self, promql: &str) -> Vec<(Value, f64)> {
        let answer = self.client.get(format!("{}/api/v1/query", self.url)).query(&[("query", promql)]).send();
        let Some(answer) = answer.ok().and_then(|answer| answer.json::<Value>().ok()) else { return Vec::new() };
        let result = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let value = |series: &Value| series["value"][1].as_str().and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
        result.iter().map(|series| (series["metric"].clone(), value(series))).collect()
    }

    /// All samples of the one series that a selector with a range finds, as (time in ms, value).
    pub fn samples(&self, range_selector: &str) -> Vec<(i64, f64)> {
        let answer = self.client.get(format!("{}/api/v1/query", self.url)).query(&[("query", range_selector)]).send();
        let Some(answer) = answer.ok().and_then(|answer| answer.json::<Value>().ok()) else { return Vec::new() };
        assert_eq!(answer["status"], "success", "{range_selector}: {answer}");
        let pairs = answer["data"]["result"][0]["values"].as_array().cloned().unwrap_or_default();
        let pair = |pair: &Value| {
            let seconds = pair[0].as_f64()?;
            Some(((seconds * 1000.0).round() as i64, pair[1].as_str()?.parse().ok()?))
        };
        pairs.iter().filter_map(pair).collect()
    }

    /// Waits until a run of this runbook is in one of these states, and returns it.
    pub fn wait_for_run(&self, runbook: &str, states: &[&str], deadline: Duration) -> Value {
        // A step may take less than a second: look often.
        wait_to_find_at(Duration::from_millis(20), &format!("a run of {runbook} to be {states:?}"), deadline, || {
            let runs = self.get("/petrel/v1/runs")?;
            let runs = runs.as_array()?;
            let found = runs.iter().find(|run| {
                run["runbook"] == runbook && run["state"].as_str().is_some_and(|state| states.contains(&state))
            });
            found.cloned()
        })
    }

    /// Waits until an instant query returns something.
    pub fn wait_for_query(&self, promql: &str, deadline: Duration) {
        wait_for(promql, deadline, || !self.query(promql).is_empty());
    }
}

/// A client without proxies that gives up after ten seconds.
pub fn http_client() -> Client {
    // Fails only where a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().expect("a plain client can be built")
}

fn serve(before: &[String], config: &Path) -> Command {
    let petrel = program("petrel");
    let mut command = match before {
        [] => Command::new(petrel),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(petrel);
            command
        }
    };
    command.arg("serve").arg("--config").arg(config);
    command
}

/// What a start printed that ended by itself, as one that is refused must, with its exit code. `arguments` follow `petrel serve`.
pub fn refused_start(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Command::new(program("petrel"));
    run_to_end(command.arg("serve").args(arguments), &dir.join("refused.log"), START_DEADLINE)
}

/// Starts an agent in mount, name and process namespaces of its own, so that it is a host of its own name. `prepare` is a
/// shell line that runs inside first, for example a mount.
pub fn start_agent_host(dir: &Path, name: &str, prepare: &str, config: &str) -> Process {
    let home = dir.join(name);
    std::fs::create_dir_all(&home).expect("the test's folder is writable");
    let path = home.join("agent.yaml");
    std::fs::write(&path, config).expect("the test's folder is writable");
    let inside = format!(
        "set -e; hostname {name}; {prepare}; exec {} --config {}",
        program("petrel-agent").display(),
        path.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", &inside]);
    Process::start(&mut command, &home.join("agent.log"))
}
