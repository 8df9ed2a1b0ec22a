//! A certificate authority of our own: servers, clients, and clients that believe it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A certificate authority that lives as long as the test.
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    key: String,
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub cert: String,
    /// Its private key, PKCS#8.
    pub key: String,
}

impl TestCa {
    /// A new authority with this name.
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key can be made");
        let pem = params.self_signed(&key).expect("our own parameters are valid").pem();
        let key_pem = key.serialize_pem();
        Self { issuer: Issuer::new(params, key), pem, key: key_pem }
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its private key, PEM: for programs that sign what it says.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// A server's certificate for these names or addresses.
    pub fn server(&self, names: &[&str]) -> Identity {
        self.issue(names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// The same, made now and valid for so many days: what an authority of today would give.
    pub fn server_for(&self, names: &[&str], days: u32) -> Identity {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
        let now = rcgen::date_time_ymd(1970, 1, 1) + now;
        let day = Duration::from_secs(24 * 60 * 60);
        self.issue_with(names, ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.use_authority_key_identifier_extension = true;
            params.not_before = now - day / 24;
            params.not_after = now + day * days;
        })
    }

    /// A client's certificate with this name.
    pub fn client(&self, name: &str) -> Identity {
        self.issue(&[name], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(&self, names: &[&str], usage: ExtendedKeyUsagePurpose) -> Identity {
        self.issue_with(names, usage, |_| {})
    }

    fn issue_with(
        &self,
        names: &[&str],
        usage: ExtendedKeyUsagePurpose,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("test names are valid");
        params.distinguished_name.push(DnType::CommonName, names[0].clone());
        params.extended_key_usages = vec![usage];
        change(&mut params);
        let key = KeyPair::generate().expect("a key can be made");
        let cert = params.signed_by(&key, &self.issuer).expect("our own parameters are valid");
        Identity { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A client that believes this authority.
    pub fn believer(&self) -> TlsClient {
        TlsClient {
            roots: self.roots(),
            name: "localhost".to_owned(),
            alpn: Vec::new(),
            shown: None,
            newest: None,
            remembering: None,
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        for cert in certificates(&self.pem) {
            roots.add(cert).expect("our own authority is valid");
        }
        Arc::new(roots)
    }

    /// A server's side of TLS for an [`Origin`](crate::Origin).
    pub(crate) fn server_config(&self, names: &[&str], alpn: &[&str], ask_for_client: bool) -> ServerConfig {
        let identity = self.server(names);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider speaks the default versions");
        let builder = if ask_for_client {
            let verifier =
                rustls::server::WebPkiClientVerifier::builder_with_provider(self.roots(), provider()).build();
            builder.with_client_cert_verifier(verifier.expect("our own authority is valid"))
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder
            .with_single_cert(certificates(&identity.cert), private_key(&identity.key))
            .expect("certificate and key belong together");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        config
    }
}

/// How a client speaks TLS.
#[derive(Clone)]
pub struct TlsClient {
    roots: Arc<RootCertStore>,
    name: String,
    alpn: Vec<Vec<u8>>,
    shown: Option<Identity>,
    newest: Option<&'static rustls::SupportedProtocolVersion>,
    /// Sessions are kept where a configuration is.
    remembering: Option<Arc<ClientConfig>>,
}

impl TlsClient {
    /// The name sent as SNI and looked for in the certificate.
    #[must_use]
    pub fn server_name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// The protocols offered.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        self
    }

    /// The certificate shown.
    #[must_use]
    pub fn showing(mut self, identity: &Identity) -> Self {
        self.shown = Some(identity.clone());
        self
    }

    /// Speaks TLS 1.2 and nothing newer.
    #[must_use]
    pub fn only_tls12(mut self) -> Self {
        self.newest = Some(&rustls::version::TLS12);
        self
    }

    /// Remembers its sessions, together with its clones, and resumes the latest with every handshake. What else it
    /// does is said before.
    #[must_use]
    pub fn remembering(mut self) -> Self {
        self.remembering = Some(self.config());
        self
    }

    /// Shakes hands over a connected stream.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn handshake(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let config = self.remembering.clone().unwrap_or_else(|| self.config());
        tokio_rustls::TlsConnector::from(config).connect(self.name(), stream).await
    }

    /// What it says first, as bytes: for clients that begin handshakes and do no work for them.
    pub fn hello(&self) -> Vec<u8> {
        let mut hello = Vec::new();
        let mut connection =
            rustls::ClientConnection::new(self.config(), self.name()).expect("our own configuration is valid");
        connection.write_tls(&mut hello).expect("a vector takes every byte");
        hello
    }

    fn name(&self) -> ServerName<'static> {
        ServerName::try_from(self.name.clone()).expect("test names are valid")
    }

    fn config(&self) -> Arc<ClientConfig> {
        let versions: &[&'static rustls::SupportedProtocolVersion] = match &self.newest {
            Some(only) => std::slice::from_ref(only),
            None => rustls::DEFAULT_VERSIONS,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("the provider speaks these versions")
            .with_root_certificates(Arc::clone(&self.roots));
        let mut config = match &self.shown {
            Some(identity) => builder
                .with_client_auth_cert(certificates(&identity.cert), private_key(&identity.key))
                .expect("certificate and key belong together"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        Arc::new(config)
    }

    /// Whether HTTP/2 is offered.
    pub(crate) fn offers_h2(&self) -> bool {
        self.alpn.iter().any(|name| name == b"h2")
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn certificates(pem: &str) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(pem.as_bytes()).map(|cert| cert.expect("our own PEM is valid")).collect()
}

fn private_key(pem: &str) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("our own PEM is valid")
}
