//! Secrets of checks and scrapes: paths in the config, read anew for each request, so that they can be changed in place. What
//! is in them goes into headers that are marked as sensitive and nowhere else.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

/// Longest secret: some tokens are long, no header is longer.
const SECRET_BYTES_MAX: u64 = 8 << 10;

/// A user and the file with the password.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasicAuth {
    /// The user.
    pub username: String,
    /// File with the password.
    pub password_file: PathBuf,
}

/// What a request carries that nobody else may see.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// File with a bearer token.
    pub bearer_token_file: Option<PathBuf>,
    /// User and password.
    pub basic_auth: Option<BasicAuth>,
    /// Files with the values of headers.
    pub headers: BTreeMap<String, PathBuf>,
}

/// A secret that cannot be used. What is in the file is not repeated.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file.
    #[error("{path} cannot be read; it must hold one line of at most 8 KiB")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// Not for a header.
    #[error("{path} holds characters that cannot stand in an HTTP header")]
    Characters {
        /// The file.
        path: PathBuf,
    },
}

impl Secrets {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.bearer_token_file.is_none() && self.basic_auth.is_none() && self.headers.is_empty()
    }

    /// The headers with what the files hold now. Blocks on files.
    ///
    /// # Errors
    /// A file cannot be read, or holds what no header can carry.
    pub fn read(&self) -> Result<HeaderMap, SecretError> {
        let mut headers = HeaderMap::new();
        let mut add = |name: HeaderName, value: Result<HeaderValue, _>, path: &Path| {
            let mut value = value.map_err(|_| SecretError::Characters { path: path.to_owned() })?;
            value.set_sensitive(true);
            headers.insert(name, value);
            Ok::<_, SecretError>(())
        };
        if let Some(path) = &self.bearer_token_file {
            add(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {}", read(path)?)), path)?;
        }
        if let Some(BasicAuth { username, password_file }) = &self.basic_auth {
            add(AUTHORIZATION, HeaderValue::from_str(&basic(username, &read(password_file)?)), password_file)?;
        }
        for (name, path) in &self.headers {
            // The config refuses other names.
            let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { continue };
            add(name, HeaderValue::from_str(&read(path)?), path)?;
        }
        Ok(headers)
    }
}

fn read(path: &Path) -> Result<String, SecretError> {
    let failed = |source| SecretError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(SECRET_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > SECRET_BYTES_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "the file is too long")));
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// The header that the HTTP client makes of a user and a password: RFC 7617, with its base64.
fn basic(username: &str, password: &str) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let plain = format!("{username}:{password}");
    let mut header = "Basic ".to_owned();
    for group in plain.as_bytes().chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            header.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    header
}

/// A URL as it may be shown in logs, labels and errors: without user and query.
pub fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // They refuse only where there is no host, and then there is no user either.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.to_string()
}

/// What can be repeated of a text that should have been a URL and is not.
pub(super) fn shown_text(text: &str) -> String {
    let end = text.find(['?', '#', '@']).unwrap_or(text.len());
    if text.contains('@') { "…".to_owned() } else { text[..end].to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_become_headers_that_are_not_printed() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let secrets = Secrets {
            basic_auth: Some(BasicAuth { username: "Aladdin".into(), password_file: file("p", "open sesame\n") }),
            headers: BTreeMap::from([("x-key".to_owned(), file("k", "hunter2"))]),
            ..Secrets::default()
        };
        let headers = secrets.read().unwrap();
        // The example of RFC 7617, section 2.
        assert_eq!(headers["authorization"], "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        assert_eq!(headers["x-key"], "hunter2");
        assert!(!format!("{headers:?}").contains("hunter2"));
        let token = Secrets { bearer_token_file: Some(file("t", "a\nb")), ..Secrets::default() };
        let error = token.read().unwrap_err().to_string();
        assert!(error.contains("cannot stand in an HTTP header") && !error.contains("a\nb"), "{error}");
        let long = Secrets { bearer_token_file: Some(file("l", &"x".repeat(9000))), ..Secrets::default() };
        assert!(long.read().unwrap_err().to_string().contains("8 KiB"));
    }

    #[test]
    fn base64_fills_up() {
        for (plain, encoded) in [("a", "YTo="), ("ab", "YWI6"), ("abc", "YWJjOg==")] {
            assert_eq!(basic(plain, ""), format!("Basic {encoded}"));
        }
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        let url = Url::parse("https://me:hunter2@web1:8443/a?token=hunter2#hunter2").unwrap();
        assert_eq!(shown(&url), "https://web1:8443/a");
        assert_eq!((shown_text("http:/x?a=b"), shown_text("me:hunter2@x")), ("http:/x".to_owned(), "…".to_owned()));
    }
}
