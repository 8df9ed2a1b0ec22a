//! TLS towards the server: who answers must have a certificate for its name.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::trouble::Trouble;

/// Speaks TLS on a connection to `host`; reads the authorities anew, so that new ones need no restart.
pub(super) async fn connect(stream: TcpStream, host: &str, ca: Option<&Path>) -> Result<TlsStream<TcpStream>, Trouble> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| Trouble::Tls(error.to_string()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let unreadable = |error: String| Trouble::Authorities(ca.map(Path::to_owned), error);
    let verifier: Arc<dyn ServerCertVerifier> = match ca {
        Some(file) => WebPkiServerVerifier::builder_with_provider(
            Arc::new(read_roots(file).map_err(unreadable)?),
            Arc::clone(&provider),
        )
        .build()
        .map_err(|error| unreadable(error.to_string()))?,
        None => {
            let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(&provider));
            Arc::new(verifier.map_err(|error| unreadable(error.to_string()))?)
        }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Trouble::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}

fn read_roots(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| error.to_string())? {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("it holds no certificate in PEM form".to_owned()) } else { Ok(roots) }
}
