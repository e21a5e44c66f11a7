//! How a command reaches the server that `--server` names: address, certificate, token. Sends nothing by itself.

use anyhow::{Context as _, anyhow};
use reqwest::{Client, Method, RequestBuilder, Url};

use super::{ServerArgs, exit};

/// A server that can be asked.
pub struct Connection {
    client: Client,
    url: Url,
    token: Option<String>,
}

impl Connection {
    /// Reads what the options name.
    ///
    /// # Errors
    /// The address is none, or a file cannot be read.
    pub fn new(server: &ServerArgs) -> anyhow::Result<Connection> {
        let url = address(&server.server)
            .ok_or_else(|| anyhow!("--server {} is not an address such as http://127.0.0.1:9780", server.server))?;
        let mut client = Client::builder().no_proxy();
        if let Some(path) = &server.ca_file {
            let pem = std::fs::read(path).with_context(|| format!("certificate {} cannot be read", path.display()))?;
            client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
        }
        let token = match &server.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("token file {} cannot be read", path.display()))?;
                Some(text.trim().to_owned())
            }
            None => None,
        };
        Ok(Connection { client: client.build()?, url, token })
    }

    /// A request for a path. Each of its segments is encoded, so that a host's name cannot become a path of its own.
    pub fn request<'a>(&self, method: Method, path: impl IntoIterator<Item = &'a str>) -> RequestBuilder {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let request = self.client.request(method, url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

/// An address that can be asked over HTTP.
pub fn address(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// Says that a server is not there. Returns the exit code.
pub fn unreached(server: &str, error: reqwest::Error) -> u8 {
    let error = anyhow!(error.without_url());
    eprintln!(
        "petrel: the server at {server} cannot be reached: {error:#}\nIs it running? Start one with `petrel up`, or name it with --server."
    );
    exit::UNREACHED
}
