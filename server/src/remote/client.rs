//! HTTP to the remote engine: logins, times, sizes. Secrets are read at each request, so that a changed one counts at once, and no
//! error holds an address or a secret.

use std::path::{Path, PathBuf};
use std::time::Duration;

use petrel_agent::error_chain::chain;
use reqwest::Url;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::config::RemoteConfig;

/// Bytes of the remote engine's words that are told.
const WORDS_BYTES_MAX: usize = 300;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file of authorities.
    #[error("engine.remote.ca_file {path} cannot be read")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// What is in it, or anything else.
    #[error("client of the remote engine cannot be made; check engine.remote.ca_file")]
    Build(#[source] reqwest::Error),
}

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A file with a secret.
    #[error("{path} cannot be read")]
    Secret {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// It could not be reached, or broke off.
    #[error("the remote engine cannot be reached: {why}")]
    Unreachable {
        /// The chain of causes, without the address.
        why: String,
    },
    /// It took too long.
    #[error("the remote engine did not answer within {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// It answers too much.
    #[error("the remote engine answers more than {bytes_max} bytes; ask for less or raise engine.remote.response_max")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// A defect of ours.
    #[error("samples cannot be encoded; please report this with the lines above: {why}")]
    NotEncoded {
        /// What the runtime says.
        why: String,
    },
    /// It said no.
    #[error("the remote engine answered {status}: {words}")]
    Status {
        /// Its status.
        status: u16,
        /// What it said, cut.
        words: String,
        /// What its `Retry-After` asks for.
        retry_after: Option<Duration>,
    },
}

impl RequestError {
    /// Whether the remote engine as a whole is away, so that asking something else now is in vain, too.
    pub fn is_away(&self) -> bool {
        match self {
            RequestError::Secret { .. } | RequestError::Unreachable { .. } | RequestError::TimedOut { .. } => true,
            RequestError::TooLarge { .. } | RequestError::NotEncoded { .. } => false,
            RequestError::Status { status, .. } => matches!(status, 401 | 403 | 429 | 502..=504),
        }
    }
}

/// One POST.
pub struct Post {
    /// Where.
    pub url: Url,
    /// What the body is.
    pub headers: &'static [(&'static str, &'static str)],
    /// The body.
    pub body: Vec<u8>,
    /// Longest time.
    pub timeout: Duration,
}

/// The client. Its requests must run on the remote engine's own runtime.
pub struct Client {
    http: reqwest::Client,
    headers: HeaderMap,
    bearer_token_file: Option<PathBuf>,
    basic: Option<(String, PathBuf)>,
    response_bytes_max: usize,
}

impl Client {
    /// A client with these settings.
    ///
    /// # Errors
    /// The authorities cannot be used.
    pub fn new(config: &RemoteConfig) -> Result<Client, ClientError> {
        let mut builder = reqwest::Client::builder()
            .connect_timeout(config.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        if let Some(path) = &config.ca_file {
            let pem = std::fs::read(path).map_err(|source| ClientError::Authorities { path: path.clone(), source })?;
            builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem).map_err(ClientError::Build)?);
        }
        Ok(Client {
            http: builder.build().map_err(ClientError::Build)?,
            headers: config.headers.clone(),
            bearer_token_file: config.bearer_token_file.clone(),
            basic: config.basic.clone(),
            response_bytes_max: config.response_bytes_max,
        })
    }

    /// Posts, and reads the answer.
    ///
    /// # Errors
    /// There is no answer, or it is not a success.
    pub async fn post(&self, post: Post) -> Result<Vec<u8>, RequestError> {
        let limit = post.timeout;
        match tokio::time::timeout(limit, self.exchange(post)).await {
            Ok(answered) => answered,
            Err(_) => Err(RequestError::TimedOut { limit }),
        }
    }

    async fn exchange(&self, post: Post) -> Result<Vec<u8>, RequestError> {
        let mut request = self
            .http
            .post(post.url)
            .headers(self.headers.clone())
            .header("User-Agent", concat!("petrel/", env!("CARGO_PKG_VERSION")));
        for (name, value) in post.headers {
            request = request.header(*name, *value);
        }
        if let Some(file) = &self.bearer_token_file {
            request = request.bearer_auth(secret(file).await?);
        } else if let Some((user, file)) = &self.basic {
            request = request.basic_auth(user, Some(secret(file).await?));
        }
        let mut answer = request.body(post.body).send().await.map_err(unreachable)?;
        let status = answer.status();
        let seconds = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        let bytes_max = if status.is_success() { self.response_bytes_max } else { WORDS_BYTES_MAX };
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
            body.extend_from_slice(&chunk);
            if body.len() > bytes_max {
                if status.is_success() {
                    return Err(RequestError::TooLarge { bytes_max });
                }
                break;
            }
        }
        if status.is_success() {
            return Ok(body);
        }
        body.truncate(WORDS_BYTES_MAX);
        let words = String::from_utf8_lossy(&body).replace(char::is_control, " ").trim().to_owned();
        Err(RequestError::Status { status: status.as_u16(), words, retry_after })
    }
}

fn unreachable(error: reqwest::Error) -> RequestError {
    // The address may hold a secret.
    RequestError::Unreachable { why: chain(&error.without_url()) }
}

async fn secret(path: &Path) -> Result<String, RequestError> {
    let failed = |source| RequestError::Secret { path: path.to_owned(), source };
    let text = tokio::fs::read_to_string(path).await.map_err(failed)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
