//! TLS towards upstreams: whom we believe, and how we identify ourselves.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::ServerName;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::certificate::{TlsError, crypto, read_authorities, read_pair};
use super::settings::{Protocol, UpstreamTls};

/// How one upstream is spoken to over TLS. Cheap to clone; sessions are resumed among all clones.
#[derive(Debug, Clone)]
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
    h1_config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl TlsClient {
    /// Reads the files of `settings`. TLS 1.2 and 1.3; ALPN offers what `protocol` speaks, HTTP/2 first where both are.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first of it.
    pub(crate) fn load(settings: &UpstreamTls, protocol: Protocol) -> Result<Self, Vec<TlsError>> {
        let crypto = crypto();
        let mut errors = Vec::new();
        let verifier = note(&mut errors, verifier(settings));
        let identity =
            note(&mut errors, settings.client_certificate.as_ref().map(|files| read_pair(files, &crypto)).transpose());
        let server_name = note(&mut errors, settings.server_name.as_deref().map(parse_name).transpose());
        let (Some(verifier), Some(identity), Some(server_name)) = (verifier, identity, server_name) else {
            return Err(errors);
        };
        let builder = ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()
            .map_err(|error| vec![TlsError::Refused { reason: error.to_string() }])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = match protocol {
            Protocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Protocol::H1 => vec![b"http/1.1".to_vec()],
            Protocol::H2 | Protocol::H2c => vec![b"h2".to_vec()],
        };
        let config = Arc::new(config);
        let h1_config = match protocol {
            Protocol::Auto => {
                let mut config = (*config).clone();
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Arc::new(config)
            }
            Protocol::H1 | Protocol::H2 | Protocol::H2c => Arc::clone(&config),
        };
        Ok(Self { config, h1_config, server_name })
    }

    /// The configuration of connections that speak whatever it speaks.
    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// The configuration of those that must not speak HTTP/2, where both may be spoken.
    pub(crate) fn h1_config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.h1_config)
    }

    /// The name that is checked and sent as SNI to the target `host`, which may be a bracketed IPv6 address.
    ///
    /// # Errors
    /// [`TlsError::BadServerName`] when no name is configured and `host` is none.
    pub(crate) fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => parse_name(host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)),
        }
    }
}

/// What the files of an [`UpstreamTls`] held at one moment.
pub(super) type FilesDigest = [u8; 32];

impl UpstreamTls {
    /// The digest (SHA-256) of everything its files hold, `None` where one of them cannot be read. Blocks on the disk.
    pub(super) fn files_digest(&self) -> Option<FilesDigest> {
        let pair = self.client_certificate.iter().flat_map(|pair| [&pair.cert, &pair.key]);
        let mut digest = Sha256::new();
        for file in self.ca.iter().chain(pair) {
            let content = Zeroizing::new(std::fs::read(file).ok()?);
            digest.update((content.len() as u64).to_be_bytes());
            digest.update(&*content);
        }
        Some(digest.finalize().into())
    }
}

fn parse_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::BadServerName { name: name.to_owned() })
}

fn verifier(settings: &UpstreamTls) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    match &settings.ca {
        Some(file) => {
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(read_authorities(file)?), crypto())
                .build()
                .map_err(|error| TlsError::Refused { reason: error.to_string() })?;
            Ok(verifier)
        }
        None => {
            let verifier = rustls_platform_verifier::Verifier::new(crypto())
                .map_err(|source| TlsError::NoSystemAuthorities { source })?;
            Ok(Arc::new(verifier))
        }
    }
}

fn note<T>(errors: &mut Vec<TlsError>, result: Result<T, TlsError>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}
