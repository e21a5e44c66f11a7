//! Asking one BMC: its power state in one request or two, its sensors and event log in a few more. Every request has a deadline
//! and a bound; no password is ever in an argument, a log line or an error.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use reqwest::{StatusCode, Url};
use serde_json::Value;
use tokio::time::timeout_at;

use super::config::{Bmc, Way};
use super::redfish;
use crate::collect::columns::{Column, Columns};
use crate::collect::{Family, ipmi};
use crate::command::{Tool, ToolError};
use crate::rounds::blocking;
use crate::stream::client::{ClientError, read_certificates};

/// Longest answer: a page of an event log with a thousand entries.
const ANSWER_BYTES_MAX: usize = 2 << 20;
/// Passwords are short; a longer file is some other file.
const PASSWORD_BYTES_MAX: u64 = 4096;
/// Chassis and logs that are read of one host.
const LINKS_MAX: usize = 8;
/// Reading all sensors takes many requests, or one long one: so many times what one may take, all together. The power state is
/// not asked for meanwhile, and what was told of it is fresh for one time more.
const SENSORS_TIMES: u32 = 4;

/// Why a BMC gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("password_file {} cannot be read; it must hold the password on its first line", path.display())]
    Password {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
    #[error(transparent)]
    Certificates(ClientError),
    #[error("{path} cannot be asked for; check address and certificate")]
    Request {
        path: String,
        #[source]
        source: reqwest::Error,
    },
    #[error(
        "{path} is answered with {status}; check user, password and rights, and heartbeat.hardware.system if it is set"
    )]
    Status { path: String, status: StatusCode },
    #[error("{path} is answered with something else than JSON of at most 2 MiB")]
    Malformed { path: String },
    #[error("it serves {0} systems; name one in heartbeat.hardware.system")]
    Systems(usize),
    #[error(transparent)]
    Tool(#[from] ToolError),
    #[error("ipmitool said: {0}")]
    Said(String),
    #[error("its sensors are not all read within {0:?}; raise heartbeat.hardware.timeout")]
    Late(Duration),
}

/// A BMC and what is known of it.
pub(super) struct Asker {
    bmc: Bmc,
    /// For Redfish.
    http: Option<reqwest::Client>,
    /// The system as it was last answered, for its links.
    system: Value,
    system_path: Option<String>,
}

impl Asker {
    /// Opens nothing yet.
    pub(super) fn new(bmc: Bmc) -> Asker {
        let system_path = match &bmc.way {
            Way::Redfish { system, .. } => system.clone(),
            Way::Ipmi { .. } => None,
        };
        Asker { bmc, http: None, system: Value::Null, system_path }
    }

    /// Whether the host is switched on; `None` while that changes.
    pub(super) async fn power(&mut self) -> Result<Option<bool>, AskError> {
        match self.bmc.way.clone() {
            Way::Redfish { base, .. } => {
                let path = self.find_system(&base).await?;
                self.system = self.get(&base, &path).await?;
                Ok(redfish::power_on(&self.system))
            }
            Way::Ipmi { .. } => {
                let text = self.ipmitool(&["chassis", "status"], self.bmc.timeout).await?;
                ipmi::power_on(&text).map(Some).ok_or_else(|| AskError::Said(first_line(&text)))
            }
        }
    }

    /// Sensors and event log, labelled with the host, as far as they are read in time, and what kept the others from it. Of Redfish,
    /// what is not answered is left out.
    pub(super) async fn sensors(&mut self) -> (Vec<Family>, Option<AskError>) {
        let host = self.bmc.host.clone();
        let of = [("host", host.as_str())];
        let within = self.bmc.timeout * SENSORS_TIMES;
        let deadline = Instant::now() + within;
        match self.bmc.way.clone() {
            Way::Redfish { base, .. } => {
                let mut columns = Columns::new(&redfish::COLUMNS);
                let read = self.read_redfish(&base, &of, &mut columns);
                let read = timeout_at(deadline.into(), read).await;
                (families(columns), read.is_err().then_some(AskError::Late(within)))
            }
            Way::Ipmi { .. } => {
                let all: &[Column] = &ipmi::COLUMNS;
                let mut columns = Columns::new(all);
                let read = self.read_ipmi(within, &of, &mut columns);
                let read = timeout_at(deadline.into(), read).await;
                (families(columns), read.unwrap_or(Err(AskError::Late(within))).err())
            }
        }
    }

    async fn read_redfish(&self, base: &Url, of: redfish::Of<'_>, columns: &mut Columns) {
        redfish::push_system(&self.system, of, columns);
        // One after the other, so that a chassis that does not answer takes nothing from those before it.
        for path in redfish::paths(&self.system["Links"]["Chassis"]).into_iter().take(LINKS_MAX) {
            let Ok(chassis) = self.get(base, path).await else { continue };
            for thermal in self.linked(base, &chassis["Thermal"]).await {
                redfish::push_thermal(&thermal, of, columns);
            }
            for power in self.linked(base, &chassis["Power"]).await {
                redfish::push_power(&power, of, columns);
            }
        }
        for logs in self.linked(base, &self.system["LogServices"]).await {
            for log in self.linked(base, &logs["Members"]).await {
                for entries in self.linked(base, &log["Entries"]).await {
                    redfish::push_log(log["Id"].as_str().unwrap_or_default(), &entries, of, columns);
                }
            }
        }
    }

    async fn read_ipmi(&self, within: Duration, of: redfish::Of<'_>, columns: &mut Columns) -> Result<(), AskError> {
        let list = self.ipmitool(&["sdr", "elist"], within).await?;
        ipmi::push_sensors(&ipmi::sensors(&list), of, columns);
        if let Ok(log) = self.ipmitool(&["sel", "info"], self.bmc.timeout).await {
            ipmi::push_event_log(&log, of, columns);
        }
        Ok(())
    }

    async fn find_system(&mut self, base: &Url) -> Result<String, AskError> {
        if let Some(path) = &self.system_path {
            return Ok(path.clone());
        }
        let systems = self.get(base, "/redfish/v1/Systems").await?;
        match redfish::paths(&systems["Members"])[..] {
            [only] => Ok(self.system_path.insert(only.to_owned()).clone()),
            ref others => Err(AskError::Systems(others.len())),
        }
    }

    /// What links lead to, as far as it can be read.
    async fn linked(&self, base: &Url, links: &Value) -> Vec<Value> {
        let mut found = Vec::new();
        for path in redfish::paths(links).into_iter().take(LINKS_MAX) {
            found.extend(self.get(base, path).await);
        }
        found
    }

    async fn get(&self, base: &Url, path: &str) -> Result<Value, AskError> {
        let http = match &self.http {
            Some(http) => http.clone(),
            None => self.client().await?,
        };
        let file = self.bmc.password_file.clone();
        let password = blocking(move || read_password(&file)).await?;
        let mut url = base.clone();
        url.set_path(path);
        let failed = |source| AskError::Request { path: path.to_owned(), source };
        let request = http.get(url).basic_auth(&self.bmc.user, Some(password)).timeout(self.bmc.timeout);
        let mut answer = request.send().await.map_err(failed)?;
        if !answer.status().is_success() {
            return Err(AskError::Status { path: path.to_owned(), status: answer.status() });
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > ANSWER_BYTES_MAX {
                return Err(AskError::Malformed { path: path.to_owned() });
            }
        }
        serde_json::from_slice(&body).map_err(|_| AskError::Malformed { path: path.to_owned() })
    }

    /// A client that keeps no connection: BMCs have few, and other tools want them too. Made anew until it can be kept.
    async fn client(&self) -> Result<reqwest::Client, AskError> {
        let Way::Redfish { base, ca_file, .. } = self.bmc.way.clone() else { return Err(AskError::Systems(0)) };
        blocking(move || {
            // Chooses nothing if the program has chosen already.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let mut builder = reqwest::Client::builder()
                .user_agent(concat!("petrel-agent/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .pool_max_idle_per_host(0)
                .no_proxy();
            if let Some(path) = &ca_file {
                builder = builder.tls_certs_only(read_certificates(path).map_err(AskError::Certificates)?);
            } else if base.scheme() == "http" {
                // Without TLS the system's authorities would only take memory.
                builder = builder.tls_certs_only([]);
            }
            builder.build().map_err(AskError::Client)
        })
        .await
    }

    async fn ipmitool(&self, words: &'static [&'static str], within: Duration) -> Result<String, AskError> {
        let Way::Ipmi { address, port, cipher_suite } = self.bmc.way.clone() else { return Ok(String::new()) };
        let (user, file) = (self.bmc.user.clone(), self.bmc.password_file.clone());
        blocking(move || {
            let (port, suite, file) = (port.to_string(), cipher_suite.to_string(), file.display().to_string());
            // USER is the least of rights, and enough for all that is read here.
            let mut arguments = vec!["-I", "lanplus", "-C", &suite, "-H", &address, "-p", &port, "-U", &user];
            arguments.extend(["-f", &file, "-L", "USER", "-N", "2", "-R", "2"]);
            arguments.extend(words);
            let said = Tool::new("ipmitool").run(&arguments, Instant::now() + within)?;
            if said.well() { Ok(said.out) } else { Err(AskError::Said(first_line(&said.words))) }
        })
        .await
    }

    /// Opens what is kept between requests.
    pub(super) async fn open(&mut self) -> Result<(), AskError> {
        if self.http.is_none() && matches!(self.bmc.way, Way::Redfish { .. }) {
            self.http = Some(self.client().await?);
        }
        Ok(())
    }
}

fn families(columns: Columns) -> Vec<Family> {
    let mut families = Vec::new();
    // Too many points for one host cannot be: sensors of each kind are bounded.
    let _ = columns.append_to(&mut families);
    families
}

fn read_password(path: &Path) -> Result<String, AskError> {
    let failed = |source| AskError::Password { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(PASSWORD_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::super::config::{RawBmc, check};
    use super::*;
    use crate::collect::text;

    const SYSTEM: &str = include_str!("../../../testdata/redfish/system.json");
    const THERMAL: &str = include_str!("../../../testdata/redfish/thermal.json");

    /// A BMC that serves the recorded answers to `petrel` with the password `hunter2`, one connection after the other.
    fn bmc() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
                let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
                let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let basic = "authorization: basic cgv0cmvsomh1bnrlcji=";
                let may = headers.iter().any(|line| line.to_lowercase() == basic);
                let chassis = path.strip_prefix("/redfish/v1/Chassis/").filter(|rest| !rest.contains('/'));
                if chassis.is_some_and(|name| name.starts_with("slow")) {
                    unanswered.push(stream);
                    continue;
                }
                let body = match (path.as_str(), chassis) {
                    ("/redfish/v1/Systems", _) => {
                        r#"{"Members": [{"@odata.id": "/redfish/v1/Systems/h1"}]}"#.to_owned()
                    }
                    ("/redfish/v1/Systems/h1", _) => SYSTEM.to_owned(),
                    ("/redfish/v1/Systems/wide", _) => {
                        let chassis = ["fast", "slow2", "slow3", "slow4", "slow5", "slow6", "slow7", "slow8"];
                        let link = |name| serde_json::json!({"@odata.id": format!("/redfish/v1/Chassis/{name}")});
                        serde_json::json!({"PowerState": "On", "Links": {"Chassis": chassis.map(link)}}).to_string()
                    }
                    ("/redfish/v1/Systems/cut", _) => SYSTEM[..100].to_owned(),
                    (_, Some(_)) => format!(r#"{{"Thermal": {{"@odata.id": "{path}/Thermal"}}}}"#),
                    (path, None) if path.ends_with("/Thermal") => THERMAL.to_owned(),
                    _ => String::new(),
                };
                let status = match (may, body.is_empty()) {
                    (false, _) => "401 Unauthorized",
                    (true, true) => "404 Not Found",
                    (true, false) => "200 OK",
                };
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).unwrap();
            }
        });
        url
    }

    fn asker(password: &str, rest: &str) -> (tempfile::TempDir, Asker) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, password).unwrap();
        let yaml = format!("[{{host: web2, user: petrel, password_file: {}, {rest}}}]", file.display());
        let bmcs = check(serde_saphyr::from_str::<Vec<RawBmc>>(&yaml).unwrap()).unwrap();
        (dir, Asker::new(bmcs[0].clone()))
    }

    async fn refused(password: &str, rest: &str) -> String {
        let (_dir, mut asker) = asker(password, rest);
        crate::error_chain::chain(&asker.power().await.unwrap_err())
    }

    #[tokio::test]
    async fn power_and_sensors_are_read_over_redfish() {
        let (_dir, mut asker) = asker("hunter2\n", &format!("redfish: '{}'", bmc()));
        asker.open().await.unwrap();
        assert_eq!(asker.power().await.unwrap(), Some(true));
        let (families, problem) = asker.sensors().await;
        assert!(problem.is_none(), "{problem:?}");
        let text = text::render(&families);
        assert!(text.contains("petrel_bmc_temperature_celsius{host=\"web2\",sensor=\"CPU Temp h1\"} 88"), "{text}");
    }

    #[tokio::test]
    async fn sensors_have_one_deadline_for_all_requests_and_what_came_until_then_is_kept() {
        let (_dir, mut asker) = asker("hunter2\n", &format!("redfish: '{}', system: wide", bmc()));
        asker.open().await.unwrap();
        asker.power().await.unwrap();
        // The first chassis answers at once, the seven others never.
        asker.bmc.timeout = Duration::from_millis(500);
        let (families, problem) = asker.sensors().await;
        assert!(matches!(problem, Some(AskError::Late(within)) if within.as_secs() == 2), "{problem:?}");
        assert!(text::render(&families).contains("petrel_bmc_temperature_celsius{host=\"web2\""));
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_without_the_password() {
        let url = bmc();
        let told = refused("wrong-secret", &format!("redfish: '{url}'")).await;
        assert_eq!(
            told,
            "/redfish/v1/Systems is answered with 401 Unauthorized; check user, password and rights, and heartbeat.hardware.system if it is set"
        );
        let told = refused("hunter2", &format!("redfish: '{url}', system: cut")).await;
        assert_eq!(told, "/redfish/v1/Systems/cut is answered with something else than JSON of at most 2 MiB");
        // Port 1 of loopback: nobody listens there.
        let told = refused("hunter2", "redfish: 'http://127.0.0.1:1'").await;
        assert!(told.starts_with("/redfish/v1/Systems cannot be asked for") && !told.contains("hunter2"), "{told}");
        let (dir, mut asker) = asker("", &format!("redfish: '{url}'"));
        std::fs::remove_file(dir.path().join("password")).unwrap();
        let told = asker.power().await.unwrap_err().to_string();
        assert!(told.contains("must hold the password on its first line"), "{told}");
    }
}
