//! For tests: a certificate authority in a directory of its own, and handshakes in memory.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SignatureAlgorithm,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, ProtocolVersion, ServerConfig, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::certificate::crypto;
use super::tls::TlsClient;
use super::{CertificateFiles, UpstreamTls};

pub(crate) struct TestCa {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl TestCa {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { dir: tempfile::tempdir().unwrap(), issuer }
    }

    /// A file of the directory, written with `text`.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The file with the authority's certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.write("ca.pem", &self.issuer.pem())
    }

    /// A pair for `names`, in files that begin with `stem`.
    pub(crate) fn pair(&self, stem: &str, names: &[&str]) -> CertificateFiles {
        self.pair_with(stem, names, &PKCS_ECDSA_P256_SHA256, |_| {})
    }

    pub(crate) fn pair_with(
        &self,
        stem: &str,
        names: &[&str],
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        CertificateFiles {
            cert: self.write(&format!("{stem}.crt"), &certificate.pem()),
            key: self.write(&format!("{stem}.key"), &key.serialize_pem()),
        }
    }

    /// A client that believes this authority and shows `identity`.
    pub(crate) fn client(&self, identity: Option<CertificateFiles>) -> Arc<ClientConfig> {
        let settings = UpstreamTls { ca: Some(self.ca()), server_name: None, client_certificate: identity };
        TlsClient::load(&settings, super::Protocol::Auto).unwrap().config()
    }
}

/// A client that believes everything and can check signatures of `schemes`.
pub(crate) fn gullible(schemes: Vec<SignatureScheme>) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(crypto())
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible(schemes)))
        .with_no_client_auth();
    Arc::new(config)
}

pub(crate) fn all_schemes() -> Vec<SignatureScheme> {
    crypto().signature_verification_algorithms.supported_schemes()
}

#[derive(Debug)]
struct Gullible(Vec<SignatureScheme>);

impl ServerCertVerifier for Gullible {
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

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// What the client learned from a handshake.
#[derive(Debug)]
pub(crate) struct Shaken {
    pub(crate) leaf: Vec<u8>,
    pub(crate) alpn: Option<Vec<u8>>,
    pub(crate) version: ProtocolVersion,
    pub(crate) kind: HandshakeKind,
    /// How many certificates the client showed.
    pub(crate) shown: usize,
}

/// A handshake and one byte in both directions, so that a refusal of either side is seen and tickets arrive.
pub(crate) fn handshake(
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    name: &str,
) -> Result<Shaken, std::io::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        stream.write_all(&byte).await?;
        stream.flush().await?;
        Ok::<_, std::io::Error>(stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len))
    };
    let client = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"x").await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        let connection = stream.get_ref().1;
        Ok::<_, std::io::Error>(Shaken {
            leaf: connection.peer_certificates().unwrap()[0].to_vec(),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            version: connection.protocol_version().unwrap(),
            kind: connection.handshake_kind().unwrap(),
            shown: 0,
        })
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (shown, shaken) = runtime.block_on(async { tokio::join!(server, client) });
    let shaken = shaken?;
    Ok(Shaken { shown: shown?, ..shaken })
}
