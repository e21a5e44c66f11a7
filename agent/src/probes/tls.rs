//! TLS towards what is checked and scraped: whom to trust, who we are, and when the other's certificate ends. The end is noted
//! before the certificate is judged, so that an expired one is reported as such and not only as a handshake that failed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use serde::Deserialize;

use super::certificate::not_after;
use super::noted::Noted;

/// TLS as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawTls {
    /// Certificate authorities to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// The name that the certificate must have, where it is not the address' own.
    pub server_name: Option<String>,
    /// Whether any certificate will do. Its end is still reported.
    pub insecure: bool,
    /// Our certificate, PEM, for servers that ask for one.
    pub cert_file: Option<PathBuf>,
    /// Its key, PEM.
    pub key_file: Option<PathBuf>,
}

/// TLS as checked.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    ca_file: Option<PathBuf>,
    server_name: Option<ServerName<'static>>,
    is_insecure: bool,
    identity: Option<(PathBuf, PathBuf)>,
}

/// Why TLS cannot be set up. Told with each reading, because files may come.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// Not PEM, or not what is wanted.
    #[error("{path} holds no {wanted}; it must be PEM")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        wanted: &'static str,
    },
    /// The system's certificate authorities.
    #[error("the system's certificate authorities cannot be used; name others as tls.ca_file")]
    System(#[source] Error),
    /// Certificates that rustls does not take.
    #[error("the certificates or the key cannot be used")]
    Unusable(#[source] Error),
}

/// What is wrong with the keys, as key and what is allowed.
pub(super) type WrongTls = (&'static str, String, &'static str);

impl RawTls {
    pub(super) fn check(self) -> Result<TlsOptions, WrongTls> {
        let server_name = match self.server_name {
            Some(name) => Some(
                ServerName::try_from(name.clone())
                    .map_err(|_| ("server_name", name, "write a host name or an IP address"))?,
            ),
            None => None,
        };
        let identity = match (self.cert_file, self.key_file) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(only), None) | (None, Some(only)) => {
                return Err(("cert_file", only.display().to_string(), "cert_file and key_file go together"));
            }
        };
        let files = self.ca_file.iter().chain(identity.iter().flat_map(|(cert, key)| [cert, key]));
        if let Some(path) = files.into_iter().find(|path| !path.is_absolute()) {
            return Err(("file", path.display().to_string(), "write absolute paths"));
        }
        Ok(TlsOptions { ca_file: self.ca_file, server_name, is_insecure: self.insecure, identity })
    }
}

impl TlsOptions {
    /// A client's side of TLS that notes when the other's certificate ends. Blocks on files. Without `is_resumed` every handshake is
    /// a whole one: a resumed one shows no certificate.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub fn client(&self, noted: Arc<Noted>, is_resumed: bool) -> Result<ClientConfig, TlsError> {
        let provider = provider();
        let judge = match (&self.ca_file, self.is_insecure) {
            (_, true) => None,
            (Some(path), false) => Some(judge_of(path, &provider)?),
            (None, false) => Some(system_judge(&provider)?),
        };
        let witness = Witness { judge, provider: Arc::clone(&provider), name: self.server_name.clone(), noted };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(witness));
        let mut config = match &self.identity {
            Some((cert, key)) => {
                let certificates = certificates(cert)?;
                let pem = read(key)?;
                let key = PrivateKeyDer::from_pem_slice(&pem)
                    .map_err(|_| TlsError::Pem { path: key.clone(), wanted: "private key" })?;
                config.with_client_auth_cert(certificates, key).map_err(TlsError::Unusable)?
            }
            None => config.with_no_client_auth(),
        };
        if !is_resumed {
            config.resumption = Resumption::disabled();
        }
        Ok(config)
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    let none = || TlsError::Pem { path: path.to_owned(), wanted: "certificate" };
    if certificates.is_empty() { Err(none()) } else { Ok(certificates) }
}

fn judge_of(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path)?);
    let judge = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    match judge.build() {
        Ok(judge) => Ok(judge),
        Err(_) => Err(TlsError::Pem { path: path.to_owned(), wanted: "certificate authority" }),
    }
}

/// The system's authorities, read once for all that is checked and scraped: they take memory.
fn system_judge(provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    static SYSTEM: OnceLock<Arc<dyn ServerCertVerifier>> = OnceLock::new();
    if let Some(judge) = SYSTEM.get() {
        return Ok(Arc::clone(judge));
    }
    let judge = rustls_platform_verifier::Verifier::new(Arc::clone(provider)).map_err(TlsError::System)?;
    Ok(Arc::clone(SYSTEM.get_or_init(|| Arc::new(judge))))
}

/// Notes the certificates' end and leaves the judgement to another.
#[derive(Debug)]
struct Witness {
    /// `None`: any certificate will do.
    judge: Option<Arc<dyn ServerCertVerifier>>,
    provider: Arc<CryptoProvider>,
    name: Option<ServerName<'static>>,
    noted: Arc<Noted>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ends = std::iter::once(end_entity).chain(intermediates).filter_map(|der| not_after(der));
        self.noted.certificate_ends(ends.min());
        let name = self.name.as_ref().unwrap_or(server_name);
        match &self.judge {
            Some(judge) => judge.verify_server_cert(end_entity, intermediates, name, ocsp_response, now),
            None => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
