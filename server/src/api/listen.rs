//! The accept loop: one port for all HTTP, plain on loopback or TLS, bounded in connections, ended within a second.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// Connections served at once; a fleet of 10,000 agents keeps at most two each, over several servers. Beyond it, callers wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;
/// A caller that does not finish its TLS handshake or its request head in this time is dropped.
const HEAD_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 10_000 });
/// How long open requests may go on after the stop; long polls are simply cut.
const STOP_GRACE: Duration = Duration::from_millis(700);
/// How long to wait after the kernel refused a new connection (out of file descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file is not what it should be.
    #[error("{path} cannot be read as PEM; give the {what}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
        /// The parser's word.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not work.
    #[error("certificate {path} and its key do not work together")]
    Pair {
        /// The certificate's file.
        path: PathBuf,
        /// The library's word.
        #[source]
        source: rustls::Error,
    },
}

/// Reads a certificate chain and key for the server's end of TLS.
///
/// # Errors
/// A file is missing, is not PEM, or the two do not belong together.
pub fn tls_acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let pem = |path: &Path, what, source| TlsError::Pem { path: path.to_owned(), what, source };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|source| pem(certificate, "certificate chain", source))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| pem(key, "private key", source))?;
    let mut config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|source| TlsError::Pair { path: certificate.to_owned(), source })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves `router` until `cancel`, then gives open requests [`STOP_GRACE`] and returns.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, cancel: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(pair) => pair,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, router, cancel) = (tls.clone(), router.clone(), cancel.clone());
        connections.spawn(async move {
            let _place = place;
            // Errors here are the peer's: a broken handshake, a closed socket. They are counted, not logged one by one.
            if serve_connection(stream, tls, router, cancel).await.is_err() {
                telemetry::CONNECTIONS_BROKEN.inc();
            }
        });
    }
    let drained = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(STOP_GRACE, drained).await;
    connections.shutdown().await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, place))
}

type Served = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn serve_connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    cancel: CancellationToken,
) -> Served {
    match tls {
        None => serve_http(stream, false, router, cancel).await,
        Some(tls) => {
            let stream = tokio::time::timeout(HEAD_TIMEOUT, tls.accept(stream)).await??;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            serve_http(stream, is_http2, router, cancel).await
        }
    }
}

async fn serve_http<S>(stream: S, is_http2: bool, router: Router, cancel: CancellationToken) -> Served
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder.http2().timer(TokioTimer::new());
    // The version is known from the handshake. Guessing it from the first bytes would wait for them without an end, and callers
    // that say nothing would take all the places.
    let builder = if is_http2 { builder.http2_only() } else { builder.http1_only() };
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = cancel.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Connects, says so much, and waits for the server to hang up.
    async fn is_dropped_after(said: &[u8]) -> bool {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let cancel = CancellationToken::new();
        let server = tokio::spawn(serve(listener, None, Router::new(), cancel.clone()));
        let mut caller = TcpStream::connect(to).await.unwrap();
        caller.write_all(said).await.unwrap();
        let ended = tokio::time::timeout(10 * HEAD_TIMEOUT, caller.read_to_end(&mut Vec::new())).await;
        cancel.cancel();
        server.await.unwrap();
        ended.is_ok()
    }

    #[tokio::test]
    async fn who_does_not_finish_a_request_head_is_dropped() {
        for said in [&b""[..], b"P", b"GET / HT"] {
            assert!(is_dropped_after(said).await, "{}", String::from_utf8_lossy(said));
        }
    }
}
