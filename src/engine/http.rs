//! HTTP for health checks and notifications, over any stream: a tunnel of the SSH connection or a TCP
//! connection.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::diagnostic::printable;
use crate::transport::Stream;

/// How much of a body is read for `contains`.
const BODY_LIMIT: usize = 1 << 20;

/// What to get.
pub struct Request<'a> {
    pub url: &'a str,
    pub verify_tls: bool,
    pub ca_pem: Option<&'a str>,
}

/// What came back.
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Response {
    /// Holds the response against what a check wants.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, status: &[u16], contains: Option<&str>) -> Result<String, String> {
        let fine = if status.is_empty() { (200..400).contains(&self.status) } else { status.contains(&self.status) };
        if !fine {
            return Err(format!("status {}", self.status));
        }
        match contains {
            Some(wanted) if !String::from_utf8_lossy(&self.body).contains(wanted) => {
                let start: String = String::from_utf8_lossy(&self.body).chars().take(120).collect();
                Err(format!("the body lacks `{wanted}`; it starts `{}`", printable(&start)))
            }
            _ => Ok(format!("status {}", self.status)),
        }
    }
}

/// Opens a TCP connection from the controller.
///
/// # Errors
/// Why it cannot be opened.
async fn direct(host: String, port: u16) -> Result<Box<dyn Stream>, String> {
    let connecting = tokio::net::TcpStream::connect((host.as_str(), port));
    let stream = tokio::time::timeout(Duration::from_secs(5), connecting).await.map_err(|_| "no answer within 5 s".to_owned())?;
    Ok(Box::new(stream.map_err(|error| error.to_string())?))
}

/// GETs a URL over a stream that `open` makes.
///
/// # Errors
/// Why there is no response.
pub async fn get<F, Open>(request: &Request<'_>, open: Open) -> Result<Response, String>
where
    Open: FnOnce(String, u16) -> F,
    F: Future<Output = Result<Box<dyn Stream>, String>>,
{
    call(request, None, open).await
}

/// POSTs JSON from the controller, with the certificates that its system trusts.
///
/// # Errors
/// Why there is no response.
pub async fn post_json(url: &str, body: String) -> Result<Response, String> {
    call(&Request { url, verify_tls: true, ca_pem: None }, Some(body), direct).await
}

async fn call<F, Open>(request: &Request<'_>, body: Option<String>, open: Open) -> Result<Response, String>
where
    Open: FnOnce(String, u16) -> F,
    F: Future<Output = Result<Box<dyn Stream>, String>>,
{
    let uri: hyper::Uri = request.url.parse().map_err(|error| format!("`{}` is not a URL: {error}", request.url))?;
    let tls = uri.scheme_str() == Some("https");
    let host = uri.host().ok_or("the URL has no host")?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let stream = open(host.clone(), port).await?;
    if tls {
        let config = Arc::new(tls_config(request)?);
        let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
        let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
        exchange(stream, &uri, body).await
    } else {
        exchange(stream, &uri, body).await
    }
}

async fn exchange(stream: impl Stream + 'static, uri: &hyper::Uri, body: Option<String>) -> Result<Response, String> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let authority = uri.authority().map_or("localhost", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let builder = match &body {
        None => hyper::Request::get(path),
        Some(_) => hyper::Request::post(path).header("content-type", "application/json"),
    };
    let request = builder
        .header("host", authority)
        .header("user-agent", "soc-provision")
        .header("accept", "*/*")
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status().as_u16();
    // A body that is too long still has a status; what was read of it is not needed then.
    let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await.map_or_else(|_| Vec::new(), |body| body.to_bytes().to_vec());
    driver.abort();
    Ok(Response { status, body })
}

fn tls_config(request: &Request<'_>) -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    if !request.verify_tls {
        return Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(unverified::AnyCertificate)).with_no_client_auth());
    }
    let mut roots = rustls::RootCertStore::empty();
    let pem = match request.ca_pem {
        Some(pem) => pem.as_bytes().to_vec(),
        None => {
            std::fs::read("/etc/ssl/certs/ca-certificates.crt").map_err(|error| format!("no CA certificates on the controller: {error}"))?
        }
    };
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("a CA certificate: {error:?}"))?;
        // The system's bundle may hold certificates that rustls does not accept; the others count.
        let _ = roots.add(certificate);
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `verify_tls: false`: a health check that asks only whether a service answers.
mod unverified {
    use rustls::DigitallySignedStruct;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    #[derive(Debug)]
    pub(super) struct AnyCertificate;

    impl ServerCertVerifier for AnyCertificate {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_page_is_got_over_any_stream() {
        let (client, mut server) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            let read = server.read(&mut buffer).await.unwrap();
            assert!(String::from_utf8_lossy(&buffer[..read]).starts_with("GET /health?x=1 HTTP/1.1\r\nhost: db:9200\r\n"));
            server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ngreen").await.unwrap();
        });
        let request = Request { url: "http://db:9200/health?x=1", verify_tls: true, ca_pem: None };
        let response = get(&request, |host, port| async move {
            assert_eq!((host.as_str(), port), ("db", 9200));
            Ok(Box::new(client) as Box<dyn Stream>)
        })
        .await
        .unwrap();
        assert_eq!(response.check(&[200], Some("green")), Ok("status 200".into()));
        assert!(response.check(&[200], Some("red")).unwrap_err().contains("lacks `red`"));
        assert_eq!(response.check(&[204], None), Err("status 200".into()));
    }
}
