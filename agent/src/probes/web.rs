//! One way of asking over HTTP, for checks and scrapes: own authorities, secrets from files, redirects counted, bodies read up
//! to a bound. The client is made with the first request and again after one that could not be made.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Method, Response, Url};

use super::names::{IpVersion, Lookup, LookupError, Names};
use super::noted::Noted;
use super::outcome::{Failure, Reason};
use super::secret::Secrets;
use super::tls::{TlsError, TlsOptions};
use crate::error_chain::chain;
use crate::rounds::blocking;

/// Most response headers; more is an attack.
const HEADERS_MAX: usize = 100;
/// An idle connection to a scraped target is kept so long: the longest interval at which that pays.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// What all requests of one check or target have in common.
#[derive(Debug, Clone)]
pub struct WebOptions {
    /// Where to.
    pub url: Url,
    /// How.
    pub method: Method,
    /// Headers that are no secret.
    pub headers: HeaderMap,
    /// Those that are.
    pub secrets: Secrets,
    /// TLS.
    pub tls: TlsOptions,
    /// Which addresses.
    pub ip: IpVersion,
    /// How often a request may be sent elsewhere; 0: the answer that says so is the answer.
    pub redirects_max: usize,
    /// Whether a connection serves for more than one request. A check makes a new one each time, as those who come do.
    pub keeps_connection: bool,
}

/// Asks one URL again and again.
#[derive(Debug)]
pub struct Web {
    options: Arc<WebOptions>,
    names: Names,
    client: Option<Client>,
    noted: Arc<Noted>,
}

/// A body that could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// Longer than allowed.
    TooLong,
    /// It broke off.
    Broken(Failure),
}

/// A redirect that is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum RedirectError {
    #[error("redirected too often")]
    TooMany,
    #[error("redirected to another server, where the secrets of this request do not belong")]
    Elsewhere,
}

impl Web {
    /// For one URL. Does nothing yet.
    pub fn new(options: WebOptions, names: Names) -> Web {
        Web { options: Arc::new(options), names, client: None, noted: Arc::default() }
    }

    /// What was noted of the request that ran last.
    pub fn noted(&self) -> &Noted {
        &self.noted
    }

    /// Asks; the caller has the deadline. The answer's body is not read yet.
    ///
    /// # Errors
    /// No answer came.
    pub async fn ask(&mut self) -> Result<Response, Failure> {
        self.noted.clear();
        let options = Arc::clone(&self.options);
        let secrets = if options.secrets.is_empty() {
            HeaderMap::new()
        } else {
            let options = Arc::clone(&options);
            let read = blocking(move || options.secrets.read()).await;
            read.map_err(|error| Failure::new(Reason::Config, chain(&error)))?
        };
        let client = match &self.client {
            Some(client) => client.clone(),
            None => self.connected().await?,
        };
        let request = client.request(options.method.clone(), options.url.clone());
        let answer = request.headers(options.headers.clone()).headers(secrets).send().await;
        answer.map_err(|error| failure(error, "no answer"))
    }

    async fn connected(&mut self) -> Result<Client, Failure> {
        let (options, noted) = (Arc::clone(&self.options), Arc::clone(&self.noted));
        let lookup = Lookup { names: self.names.clone(), version: options.ip, noted: Arc::clone(&noted) };
        let built = blocking(move || build(&options, noted, lookup)).await?;
        Ok(self.client.insert(built).clone())
    }
}

fn build(options: &WebOptions, noted: Arc<Noted>, lookup: Lookup) -> Result<Client, Failure> {
    // Chooses nothing if the program has chosen already; reqwest needs one even for plain HTTP.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let unusable = |error: TlsError| Failure::new(Reason::Config, chain(&error));
    let mut builder = Client::builder()
        .user_agent(concat!("petrel-agent/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .referer(false)
        .http1_max_headers(HEADERS_MAX)
        .pool_max_idle_per_host(usize::from(options.keeps_connection))
        .pool_idle_timeout(IDLE_TIMEOUT)
        .redirect(policy(options, Arc::clone(&noted)))
        .dns_resolver(Arc::new(lookup));
    // A redirect may lead from http to https; without one plain HTTP needs no authorities, which take memory.
    builder = if options.url.scheme() == "https" || options.redirects_max > 0 {
        let mut tls = options.tls.client(noted, options.keeps_connection).map_err(unusable)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        builder.tls_backend_preconfigured(tls)
    } else {
        builder.tls_certs_only([])
    };
    builder.build().map_err(|error| Failure::new(Reason::Config, chain(&error)))
}

fn policy(options: &WebOptions, noted: Arc<Noted>) -> Policy {
    let (most, has_secrets) = (options.redirects_max, !options.secrets.is_empty());
    Policy::custom(move |attempt: Attempt| {
        if most == 0 {
            return attempt.stop();
        }
        noted.redirected();
        let from = attempt.previous().first().map(Url::origin);
        if has_secrets && from != Some(attempt.url().origin()) {
            return attempt.error(RedirectError::Elsewhere);
        }
        if attempt.previous().len() > most { attempt.error(RedirectError::TooMany) } else { attempt.follow() }
    })
}

/// Reads a body up to a bound.
///
/// # Errors
/// It is longer, or breaks off.
pub async fn body(response: &mut Response, bytes_max: u64) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(|error| ReadError::Broken(failure(error, "broke off")))? {
        if (body.len() + part.len()) as u64 > bytes_max {
            return Err(ReadError::TooLong);
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

/// What kind of failure it was, from the chain of causes, which names no URL.
fn failure(error: reqwest::Error, words: &str) -> Failure {
    let error = error.without_url();
    let reason = if error.is_timeout() {
        Reason::Timeout
    } else if error.is_redirect() {
        Reason::Redirect
    } else if is_caused_by::<rustls::Error>(&error) {
        Reason::Tls
    } else if is_caused_by::<LookupError>(&error) {
        Reason::Lookup
    } else if error.is_connect() {
        Reason::Connect
    } else {
        Reason::Protocol
    };
    Failure::new(reason, format!("{words}: {}", chain(&error)))
}

fn is_caused_by<E: std::error::Error + 'static>(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.is::<E>() {
            return true;
        }
        // An I/O error does not name what it wraps as its source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = wrapped.map_or_else(|| error.source(), |inner| Some(inner));
    }
    false
}
