//! The HTTP side of the stream: one client for all requests to the server, with its TLS, token and headers. It fails over
//! to the next configured server when one cannot be reached. It decides nothing else, and never logs the token.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use petrel_models::Timestamp;
use prost::Message;
use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, RequestBuilder, Response, Url};

use super::delivery::Reply;
use super::dictionary::{self, Outgoing};
use super::protocol::{
    Class, HEADER_AGENT, HEADER_CLASS, HEADER_DICTIONARY, HEADER_EPOCH, HEADER_PACE, HEADER_PENDING, HEADER_SEQ,
    HEADER_TIME, Inventory, InventoryAnswer, Order, PATH_ANSWERS, PATH_INVENTORY, PATH_ORDERS,
};
use super::skew::parse_times;
use crate::error_chain::chain;
use crate::spool::Batch;

/// A server that does not complete a connection within this is down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A batch that is not answered within this is sent again; the server ignores it if it had it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the server may hold a request for orders.
const ORDERS_WAIT_MS: u64 = 30_000;
/// Time for the network on top of that.
const ORDERS_TIMEOUT: Duration = Duration::from_millis(ORDERS_WAIT_MS + 10_000);
/// Answers are small; a longer one is not from a Petrel server.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// Talks to the server. Share it as `Arc<Client>`.
pub struct Client {
    http: reqwest::Client,
    servers: Vec<Url>,
    /// Index of the server in use.
    current: AtomicUsize,
    agent: HeaderValue,
    epoch: HeaderValue,
}

/// What the client is made from.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Base URLs, first choice first; never empty.
    pub servers: Vec<Url>,
    /// The agent's id.
    pub agent: String,
    /// The bearer token, where one is needed.
    pub token: Option<String>,
    /// Certificate authorities to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file of certificate authorities cannot be read.
    #[error("ca_file {path} cannot be read")]
    ReadCa {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// It holds no certificates.
    #[error("ca_file {path} holds no certificate; it must be PEM")]
    ParseCa {
        /// The file.
        path: PathBuf,
        /// The TLS library's word.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The agent's id, token or epoch cannot stand in a header.
    #[error("{what} has characters that cannot stand in an HTTP header")]
    Header {
        /// Which of them.
        what: &'static str,
    },
    /// TLS could not be set up.
    #[error("HTTP client cannot be set up")]
    Build(#[source] reqwest::Error),
}

/// A request for orders or an inventory failed; it is simply made again later.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No usable answer came.
    #[error("server {server} cannot be reached")]
    Unreachable {
        /// Its base URL.
        server: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The server said no.
    #[error("server {server} answered {status} to {path}")]
    Status {
        /// Its base URL.
        server: String,
        /// What was asked for.
        path: &'static str,
        /// HTTP status.
        status: u16,
    },
    /// The answer is not what a Petrel server sends.
    #[error("server {server} answered {path} with something else than orders; is it a Petrel server of this version?")]
    Malformed {
        /// Its base URL.
        server: String,
        /// What was asked for.
        path: &'static str,
    },
}

/// How one delivery ended, for the log and for [`super::delivery::Delivery`].
#[derive(Debug)]
pub struct Delivered {
    /// What it means for the batch.
    pub reply: Reply,
    /// What the server or the network said, for people; empty when all went well.
    pub message: String,
    /// Samples or records that the server took out of a batch it otherwise accepted.
    pub rejected: u64,
    /// The batch that the server holds as dictionary for the next one.
    pub dictionary: Option<u64>,
    /// How long to wait before the next batch of a backlog.
    pub pace: Duration,
    /// When the server received the batch and answered it, by its clock.
    pub times: Option<(Timestamp, Timestamp)>,
}

/// One attempt to deliver a batch.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// What is delivered.
    pub batch: &'a Batch,
    /// The body that it goes out with this time.
    pub outgoing: &'a Outgoing,
    /// Batches of the class behind it.
    pub pending: u64,
    /// When it goes out.
    pub now: Timestamp,
}

impl Delivered {
    fn unreachable() -> Delivered {
        let message = String::new();
        Delivered {
            reply: Reply::Unreachable,
            message,
            rejected: 0,
            dictionary: None,
            pace: Duration::ZERO,
            times: None,
        }
    }
}

impl Client {
    /// Sets up TLS and headers. `epoch` is the spool's.
    ///
    /// # Errors
    /// The certificate file is unusable, or a value cannot stand in a header.
    pub fn new(config: ClientConfig, epoch: &str) -> Result<Client, ClientError> {
        // Chooses nothing if the program has chosen already; reqwest needs one even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let header = |text: &str, what| HeaderValue::from_str(text).map_err(|_| ClientError::Header { what });
        let mut headers = HeaderMap::new();
        if let Some(token) = &config.token {
            let mut value = header(&format!("Bearer {token}"), "the token")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("petrel-agent/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(path) = &config.ca_file {
            builder = builder.tls_certs_only(read_certificates(path)?);
        } else if config.servers.iter().all(|server| server.scheme() == "http") {
            // Without TLS the system's authorities would only take memory.
            builder = builder.tls_certs_only([]);
        }
        Ok(Client {
            http: builder.build().map_err(ClientError::Build)?,
            servers: config.servers,
            current: AtomicUsize::new(0),
            agent: header(&config.agent, "the agent's id")?,
            epoch: header(epoch, "the spool's epoch")?,
        })
    }

    /// Sends one batch once.
    pub async fn deliver(&self, attempt: Attempt<'_>) -> Delivered {
        let Attempt { batch, outgoing, pending, now } = attempt;
        let compression = if outgoing.is_against_dictionary { dictionary::ENCODING } else { "zstd" };
        let (path, content_type, encoding) = match batch.class {
            Class::Metrics => ("/v1/metrics", "application/x-protobuf", Some(compression)),
            Class::Logs => ("/v1/logs", "application/x-protobuf", Some("zstd")),
            Class::Answers => (PATH_ANSWERS, "application/json", None),
        };
        let index = self.current.load(Ordering::Relaxed);
        let mut request = self
            .http
            .post(self.url(index, path))
            .timeout(REQUEST_TIMEOUT)
            .header(CONTENT_TYPE, content_type)
            .header(HEADER_AGENT, self.agent.clone())
            .header(HEADER_EPOCH, self.epoch.clone())
            .header(HEADER_CLASS, batch.class.as_str())
            .header(HEADER_SEQ, batch.seq)
            .header(HEADER_PENDING, pending)
            .header(HEADER_TIME, now)
            .body(outgoing.body.clone());
        if let Some(encoding) = encoding {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        match request.send().await {
            Ok(response) => delivered(batch.class, response).await,
            Err(error) => {
                self.fail_over(index);
                Delivered { message: chain(&error), ..Delivered::unreachable() }
            }
        }
    }

    /// Waits for orders; empty when none came in time.
    ///
    /// # Errors
    /// The server could not be reached or did not answer with orders.
    pub async fn orders(&self) -> Result<Vec<Order>, RequestError> {
        let index = self.current.load(Ordering::Relaxed);
        let mut url = self.url(index, PATH_ORDERS);
        url.set_query(Some(&format!("wait_ms={ORDERS_WAIT_MS}")));
        let request = self.http.get(url).timeout(ORDERS_TIMEOUT);
        let response = self.ask(index, request, PATH_ORDERS).await?;
        let body = self.body(index, response).await?;
        serde_json::from_slice(&body)
            .map_err(|_| RequestError::Malformed { server: self.servers[index].to_string(), path: PATH_ORDERS })
    }

    /// Sends what the drivers see.
    ///
    /// # Errors
    /// The server could not be reached or did not take it.
    pub async fn send_inventory(&self, inventory: &Inventory) -> Result<InventoryAnswer, RequestError> {
        let index = self.current.load(Ordering::Relaxed);
        let request = self.http.post(self.url(index, PATH_INVENTORY)).timeout(REQUEST_TIMEOUT).json(inventory);
        let response = self.ask(index, request, PATH_INVENTORY).await?;
        let body = self.body(index, response).await?;
        Ok(serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn ask(&self, index: usize, request: RequestBuilder, path: &'static str) -> Result<Response, RequestError> {
        let request = request.header(HEADER_AGENT, self.agent.clone()).header(HEADER_EPOCH, self.epoch.clone());
        let response = request.send().await.map_err(|source| self.unreachable(index, source))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        Err(RequestError::Status { server: self.servers[index].to_string(), path, status: status.as_u16() })
    }

    async fn body(&self, index: usize, response: Response) -> Result<Vec<u8>, RequestError> {
        bounded_body(response).await.map_err(|source| self.unreachable(index, source))
    }

    fn unreachable(&self, index: usize, source: reqwest::Error) -> RequestError {
        self.fail_over(index);
        RequestError::Unreachable { server: self.servers[index].to_string(), source }
    }

    /// The next request goes to the next server, unless another request has moved on already.
    fn fail_over(&self, failed: usize) {
        let next = (failed + 1) % self.servers.len();
        let _ = self.current.compare_exchange(failed, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn url(&self, index: usize, path: &str) -> Url {
        let mut url = self.servers[index].clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        url
    }
}

async fn delivered(class: Class, response: Response) -> Delivered {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    let mut delivered = Delivered {
        reply: Reply::Answered { status: status.as_u16(), retry_after },
        dictionary: text(HEADER_DICTIONARY).and_then(|text| text.parse().ok()),
        pace: Duration::from_millis(text(HEADER_PACE).and_then(|text| text.parse().ok()).unwrap_or_default()),
        times: text(HEADER_TIME).and_then(parse_times),
        ..Delivered::unreachable()
    };
    let body = bounded_body(response).await.unwrap_or_default();
    if !status.is_success() {
        let text: String = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(300).collect();
        delivered.message = format!("{status}: {text}");
        return delivered;
    }
    (delivered.rejected, delivered.message) = partial_success(class, &body);
    delivered
}

/// What the server took out of an accepted batch.
fn partial_success(class: Class, body: &[u8]) -> (u64, String) {
    let rejected = match class {
        Class::Metrics => ExportMetricsServiceResponse::decode(body)
            .ok()
            .and_then(|response| response.partial_success)
            .map(|partial| (partial.rejected_data_points, partial.error_message)),
        Class::Logs => ExportLogsServiceResponse::decode(body)
            .ok()
            .and_then(|response| response.partial_success)
            .map(|partial| (partial.rejected_log_records, partial.error_message)),
        Class::Answers => None,
    };
    rejected.map_or((0, String::new()), |(count, message)| (u64::try_from(count).unwrap_or(0), message))
}

/// Reads a body up to the limit and leaves the rest unread.
async fn bounded_body(mut response: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok(body)
}

/// Reads certificate authorities, PEM.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<Certificate>, ClientError> {
    let pem = std::fs::read(path).map_err(|source| ClientError::ReadCa { path: path.to_owned(), source })?;
    let parse_failed = |source| ClientError::ParseCa { path: path.to_owned(), source };
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|source| parse_failed(Some(source)))?;
    if certificates.is_empty() { Err(parse_failed(None)) } else { Ok(certificates) }
}
