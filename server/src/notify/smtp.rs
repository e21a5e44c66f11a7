//! Carries a mail to its server: STARTTLS or TLS, login, one message. Never sends a password or a mail unencrypted where
//! the config asks for TLS, and never takes a certificate on trust.

use std::time::Duration;

use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, CertificateStore, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use petrel_agent::error_chain::chain;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::config::{Email, MailTls};
use super::group::Notice;
use super::mail;
use super::sender::SendError;
use super::webhook::{read, secret};

/// Time for one command of the conversation.
const COMMAND_MAX: Duration = Duration::from_secs(20);
/// Ways to log in, the usual ones.
const MECHANISMS: [Mechanism; 2] = [Mechanism::Plain, Mechanism::Login];

/// Sends a notice once.
///
/// # Errors
/// A reply of 5xx is permanent; everything else may go away.
pub async fn send(target: &Email, notice: &Notice, external_url: &str) -> Result<(), SendError> {
    let message = mail::message(target, notice, external_url)?;
    let mut connection = connect(target).await?;
    if target.tls != MailTls::None && !connection.is_encrypted() {
        return Err(SendError::Transient("the connection to the mail server is not encrypted".to_owned()));
    }
    if let Some((user, file)) = &target.login {
        let credentials = Credentials::new(user.clone(), secret(file).await?);
        // A refused login speaks of our password, not of this mail: it may be right again within the day.
        let login = connection.auth(&MECHANISMS, &credentials).await;
        login.map_err(|error| SendError::Transient(format!("login failed: {}", chain(&error))))?;
    }
    connection.send(message.envelope(), &message.formatted()).await.map_err(failed)?;
    // The mail is taken; how the conversation ends no longer matters.
    let _ = connection.quit().await;
    Ok(())
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn failed(error: Error) -> SendError {
    let text = chain(&error);
    if error.is_permanent() { SendError::Permanent(text) } else { SendError::Transient(text) }
}

/// A connection that is as safe as the config asks.
async fn connect(target: &Email) -> Result<AsyncSmtpConnection, SendError> {
    let pem = match (&target.ca_file, target.tls) {
        (Some(file), MailTls::Starttls | MailTls::Tls) => Some(read(file).await?),
        _ => None,
    };
    let error = match open(target, pem.as_deref(), false).await {
        Ok(connection) => return Ok(connection),
        Err(error) => error,
    };
    // What `openssl req -x509` makes is an authority and the server's own certificate in one, which chain building refuses.
    // It is as good as a chain if the server shows the very certificate that stands in `ca_file`.
    let Some(pem) = pem.filter(|_| is_authority_as_server(&error)) else { return Err(failed(error)) };
    let mut connection = open(target, Some(&pem), true).await.map_err(failed)?;
    let shown = connection.peer_certificate().map_err(failed)?;
    let known = CertificateDer::pem_slice_iter(&pem).flatten().any(|known| known.as_ref() == shown);
    if !known {
        connection.abort().await;
        return Err(SendError::Transient("the mail server's certificate is not the one in ca_file".to_owned()));
    }
    Ok(connection)
}

/// Opens a connection. With `pinned`, the caller must compare the certificate before it says anything else; the server has
/// proven in the handshake that it has the key, and its name was checked.
async fn open(target: &Email, pem: Option<&[u8]>, pinned: bool) -> Result<AsyncSmtpConnection, Error> {
    let hello = target.hello.clone().map_or_else(ClientId::default, ClientId::Domain);
    let server = (target.host.as_str(), target.port);
    let from_the_start = if target.tls == MailTls::Tls { Some(parameters(target, pem, pinned)?) } else { None };
    let mut connection =
        AsyncSmtpConnection::connect_tokio1(server, Some(COMMAND_MAX), &hello, from_the_start, None).await?;
    if target.tls == MailTls::Starttls {
        connection.starttls(parameters(target, pem, pinned)?, &hello).await?;
    }
    Ok(connection)
}

fn parameters(target: &Email, pem: Option<&[u8]>, pinned: bool) -> Result<TlsParameters, Error> {
    let mut builder = TlsParameters::builder(target.host.clone()).dangerous_accept_invalid_certs(pinned);
    if let Some(pem) = pem {
        builder = builder.certificate_store(CertificateStore::None).add_root_certificate(Certificate::from_pem(pem)?);
    }
    builder.build_rustls()
}

/// Whether a handshake failed only on the form of the certificate; a wrong name, date or signature is told otherwise.
fn is_authority_as_server(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()).or_else(|| error.downcast_ref());
        if let Some(rustls::Error::InvalidCertificate(reason)) = tls {
            return matches!(reason, rustls::CertificateError::Other(_));
        }
        cause = error.source();
    }
    false
}
