//! Servers for the tests of checks and scrapes: real sockets on loopback, real TLS, and every way of misbehaving.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::de::DeserializeOwned;
use serde_saphyr::Spanned;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Items of a config section.
pub(super) fn section<T: DeserializeOwned>(yaml: &str) -> Vec<Spanned<T>> {
    serde_saphyr::from_str(yaml).expect("a test can make its servers")
}

/// Serves each connection with `serve` for as long as the test's runtime lives.
pub(super) async fn serve<F, S>(serve: F) -> SocketAddr
where
    F: Fn(tokio::net::TcpStream) -> S + Send + 'static,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a test can make its servers");
    let address = listener.local_addr().expect("a test can make its servers");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A web server that answers each request by its head.
pub(super) async fn web(answer: impl Fn(&str) -> Vec<u8> + Clone + Send + Sync + 'static) -> SocketAddr {
    serve(move |stream| converse(stream, answer.clone())).await
}

/// A whole answer.
pub(super) fn answered(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: impl Fn(&str) -> Vec<u8>) {
    while let Some(head) = head(&mut stream).await {
        if stream.write_all(&answer(&head)).await.is_err() {
            return;
        }
    }
}

/// The head of one request; `None` when there is no further one.
pub(super) async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// An authority, its file, and certificates of its making.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(super) file: PathBuf,
}

impl Authority {
    pub(super) fn new(folder: &Path) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("a test can make its servers");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(2099, 1, 1);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a test can make its servers"))
            .expect("a test can make its servers");
        let file = folder.join("ca.pem");
        std::fs::write(&file, issuer.pem()).expect("a test can make its servers");
        Authority { issuer, file }
    }

    /// A TLS server with a certificate for `name` that ends with `year`.
    pub(super) async fn web(&self, name: &str, year: i32) -> SocketAddr {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a test can make its servers");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().expect("a test can make its servers");
        let certificate = params.signed_by(&key, &self.issuer).expect("a test can make its servers");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("a test can make its servers")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a test can make its servers");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        serve(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    converse(stream, |_| answered("200 OK", "", "well")).await;
                }
            }
        })
        .await
    }
}
