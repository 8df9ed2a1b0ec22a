//! TLS at the edge: certificates by name, stapled OCSP responses, clients' certificates, and new files without a restart.
//!
//! A whole configuration is built and swapped at once, so a connection sees the old files or the new ones and never a
//! mixture. Every worker shares it, so a session begun on one is resumed on any.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::settings::{ClientCertificates, EdgeCertificate, TlsSettings, TlsVersion};
use super::staple::{Staple, StapleFault};
use crate::domain::{Timestamp, time};
use crate::proxy::TlsError;
use crate::proxy::certificate::{crypto, read_authorities, read_pair};

/// What is known about one certificate, for metrics and warnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Where it was read from.
    pub file: PathBuf,
    /// DNS names it is valid for, in lower case; wildcards as `*.example.com`.
    pub names: Vec<String>,
    /// Before this moment it is not valid.
    pub not_before: Timestamp,
    /// After this moment it is not valid.
    pub not_after: Timestamp,
}

impl CertificateInfo {
    /// Its label in metrics: the first name, or the file's where it has none.
    pub fn label(&self) -> String {
        self.names.first().cloned().unwrap_or_else(|| self.file.display().to_string())
    }
}

/// What is wrong with a certificate that is served nevertheless.
///
/// Refusing to start would turn an expired certificate on one name into an outage of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsWarning {
    /// Its time is over.
    Expired {
        /// The file.
        file: PathBuf,
        /// Since when.
        not_after: Timestamp,
    },
    /// Its time has not come.
    NotYetValid {
        /// The file.
        file: PathBuf,
        /// Until when.
        not_before: Timestamp,
    },
    /// It names no server, so that every client refuses it.
    NoNames {
        /// The file.
        file: PathBuf,
    },
    /// Handshakes go on without the OCSP response that is configured for it.
    NotStapled(StapleFault),
}

impl fmt::Display for TlsWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { file, not_after } => {
                write!(f, "the certificate {} expired at {not_after}: clients refuse it; renew it", file.display())
            }
            Self::NotYetValid { file, not_before } => write!(
                f,
                "the certificate {} is not valid before {not_before}: check it and this host's clock",
                file.display()
            ),
            Self::NoNames { file } => write!(
                f,
                "the certificate {} names no server (no DNS name or address as subjectAltName): clients refuse it; \
                 issue it with its names",
                file.display()
            ),
            Self::NotStapled(fault) => write!(f, "no OCSP response is stapled: {fault}"),
        }
    }
}

/// One entry of `tls`, loaded.
#[derive(Debug)]
pub struct EdgeTls {
    settings: TlsSettings,
    live: ArcSwap<Live>,
}

/// What one reading of the files made.
#[derive(Debug)]
struct Live {
    config: Arc<ServerConfig>,
    certificates: Vec<CertificateInfo>,
    has_no_names: Vec<PathBuf>,
    not_stapled: Vec<StapleFault>,
    /// Of sessions without client certificates.
    ticketer: Arc<dyn ProducesTickets>,
}

impl EdgeTls {
    /// Reads the files of `settings`. Blocks on the disk.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first of it.
    pub fn load(settings: TlsSettings) -> Result<Self, Vec<TlsError>> {
        let live = Live::read(&settings, None)?;
        Ok(Self { settings, live: ArcSwap::from_pointee(live) })
    }

    /// As [`load`](Self::load), in place of `before`: sessions begun with that one are resumed, unless clients are
    /// asked for certificates.
    ///
    /// # Errors
    /// Those of [`load`](Self::load); `before` is as it was.
    pub fn load_in_place_of(before: &Self, settings: TlsSettings) -> Result<Self, Vec<TlsError>> {
        let live = Live::read(&settings, Some(&before.live.load()))?;
        Ok(Self { settings, live: ArcSwap::from_pointee(live) })
    }

    /// Reads the files again. Connections from now on see what they hold; those that exist go on. Blocks on the disk.
    ///
    /// # Errors
    /// Everything that is wrong; what was loaded before stays.
    pub fn reload(&self) -> Result<(), Vec<TlsError>> {
        let live = Live::read(&self.settings, Some(&self.live.load()))?;
        self.live.store(Arc::new(live));
        Ok(())
    }

    /// The configuration for the next connection.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.live.load().config)
    }

    /// The entry's name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What is served, in the order of the file.
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        self.live.load().certificates.clone()
    }

    /// What an operator should know at the moment `now`.
    pub fn warnings(&self, now: Timestamp) -> Vec<TlsWarning> {
        let live = self.live.load();
        let nameless = live.has_no_names.iter().map(|file| TlsWarning::NoNames { file: file.clone() });
        let not_stapled = live.not_stapled.iter().cloned().map(TlsWarning::NotStapled);
        let untimely = live.certificates.iter().filter_map(|certificate| untimely(certificate, now));
        untimely.chain(nameless).chain(not_stapled).collect()
    }

    /// The files to watch for changes.
    pub fn files(&self) -> Vec<&Path> {
        let certificates = self.settings.certificates.iter().flat_map(|EdgeCertificate { files, ocsp }| {
            [Some(files.cert.as_path()), Some(files.key.as_path()), ocsp.as_deref()]
        });
        certificates.flatten().chain(client_authority_file(&self.settings)).collect()
    }
}

fn untimely(certificate: &CertificateInfo, now: Timestamp) -> Option<TlsWarning> {
    let CertificateInfo { file, not_before, not_after, .. } = certificate;
    if now > *not_after {
        Some(TlsWarning::Expired { file: file.clone(), not_after: *not_after })
    } else if now < *not_before {
        Some(TlsWarning::NotYetValid { file: file.clone(), not_before: *not_before })
    } else {
        None
    }
}

fn client_authority_file(settings: &TlsSettings) -> Option<&Path> {
    match &settings.client_certificates {
        ClientCertificates::NotAsked => None,
        ClientCertificates::Optional { ca } | ClientCertificates::Required { ca } => Some(ca),
    }
}

impl Live {
    fn read(settings: &TlsSettings, before: Option<&Self>) -> Result<Self, Vec<TlsError>> {
        let crypto = crypto();
        let mut errors = Vec::new();
        let mut certificates = Vec::new();
        let mut has_no_names = Vec::new();
        let mut not_stapled = Vec::new();
        let mut by_name = ByName::default();
        for EdgeCertificate { files, ocsp } in &settings.certificates {
            let loaded = read_pair(files, &crypto)
                .and_then(|pair| describe(&files.cert, &pair.cert[0]).map(|described| (pair, described)));
            match loaded {
                Ok((pair, Described { info, has_names, serial })) => {
                    let staple = ocsp.as_ref().map(|file| Staple::read(file, &serial, time::now())).transpose();
                    let staple = staple.unwrap_or_else(|fault| {
                        not_stapled.push(fault);
                        None
                    });
                    by_name.add(&info.names, Arc::new(Served::new(pair, staple)));
                    if !has_names {
                        has_no_names.push(info.file.clone());
                    }
                    certificates.push(info);
                }
                Err(error) => errors.push(error),
            }
        }
        if settings.certificates.is_empty() {
            errors.push(TlsError::NoCertificates { name: settings.name.clone() });
        }
        let verifier = client_verifier(settings, &crypto).map_err(|error| errors.push(error));
        let (Ok(verifier), true) = (verifier, errors.is_empty()) else { return Err(errors) };
        let ticketer = match before {
            Some(before) => Arc::clone(&before.ticketer),
            None => Ticketer::new().map_err(refused)?,
        };
        let config = build(settings, crypto, verifier, by_name, Arc::clone(&ticketer)).map_err(refused)?;
        let config = Arc::new(config);
        Ok(Self { config, certificates, has_no_names, not_stapled, ticketer })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn refused(error: rustls::Error) -> Vec<TlsError> {
    vec![TlsError::Refused { reason: error.to_string() }]
}

fn build(
    settings: &TlsSettings,
    crypto: Arc<CryptoProvider>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    by_name: ByName,
    ticketer: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[_] = match settings.min_version {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(crypto).with_protocol_versions(versions)?;
    let asks_clients = verifier.is_some();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(by_name));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Clients put what costs more first, and nobody is safer for it.
    config.ignore_client_order = true;
    if asks_clients {
        // A ticket stands in for the certificate its client showed, and the library looks at that no more, nor at the
        // authority that signed it: a client that keeps coming back would outlive its certificate.
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = ticketer;
        // One is what a client that comes back needs; rustls sends two, and each costs a write.
        config.send_tls13_tickets = 1;
    }
    // Tickets hold what a session needs, so nothing is kept here and no lock is shared.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn client_verifier(
    settings: &TlsSettings,
    crypto: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
    let Some(file) = client_authority_file(settings) else { return Ok(None) };
    let authorities = Arc::new(read_authorities(file)?);
    let builder = WebPkiClientVerifier::builder_with_provider(authorities, Arc::clone(crypto));
    let builder = match settings.client_certificates {
        ClientCertificates::Optional { .. } => builder.allow_unauthenticated(),
        ClientCertificates::Required { .. } | ClientCertificates::NotAsked => builder,
    };
    let verifier = builder.build().map_err(|error| TlsError::Refused { reason: error.to_string() })?;
    Ok(Some(verifier))
}

struct Described {
    info: CertificateInfo,
    /// DNS names or addresses.
    has_names: bool,
    /// The content of its INTEGER.
    serial: Vec<u8>,
}

fn describe(file: &Path, leaf: &CertificateDer<'_>) -> Result<Described, TlsError> {
    let bad = || TlsError::BadCertificate { file: file.to_owned() };
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| bad())?;
    let mut names = Vec::new();
    let mut has_addresses = false;
    if let Some(alternatives) = certificate.subject_alternative_name().map_err(|_| bad())? {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(_) => has_addresses = true,
                _ => {}
            }
        }
    }
    let validity = certificate.validity();
    let has_names = has_addresses || !names.is_empty();
    let info = CertificateInfo {
        file: file.to_owned(),
        names,
        not_before: Timestamp::from_unix_seconds(validity.not_before.timestamp()),
        not_after: Timestamp::from_unix_seconds(validity.not_after.timestamp()),
    };
    Ok(Described { info, has_names, serial: certificate.raw_serial().to_vec() })
}

/// A certificate in the shapes it is shown in.
#[derive(Debug)]
pub(super) struct Served {
    bare: Arc<CertifiedKey>,
    stapled: Option<Stapled>,
}

#[derive(Debug)]
struct Stapled {
    pair: Arc<CertifiedKey>,
    until: Option<Timestamp>,
}

impl Served {
    pub(super) fn new(pair: CertifiedKey, staple: Option<Staple>) -> Self {
        let stapled = staple.map(|Staple { response, until }| Stapled {
            pair: Arc::new(CertifiedKey { ocsp: Some(response), ..pair.clone() }),
            until,
        });
        Self { bare: Arc::new(pair), stapled }
    }

    /// With its staple, unless that has expired since it was read.
    pub(super) fn at(&self, now: impl FnOnce() -> Timestamp) -> Arc<CertifiedKey> {
        let shown = match &self.stapled {
            Some(Stapled { pair, until }) if until.is_none_or(|until| now() < until) => pair,
            Some(_) | None => &self.bare,
        };
        Arc::clone(shown)
    }
}

/// Certificates by the name a client asks for (RFC 6066 §3): exactly, by wildcard, else the first of all.
///
/// A name may have several, such as RSA and ECDSA; the first whose key the client can check is taken.
#[derive(Debug, Default)]
struct ByName {
    first: Option<Arc<Served>>,
    exact: HashMap<String, Vec<Arc<Served>>>,
    /// By what follows `*.`, which stands for one label (RFC 6125 §6.4.3).
    wildcard: HashMap<String, Vec<Arc<Served>>>,
}

impl ByName {
    fn add(&mut self, names: &[String], certificate: Arc<Served>) {
        for name in names {
            let (map, name) = match name.strip_prefix("*.") {
                Some(rest) => (&mut self.wildcard, rest),
                None => (&mut self.exact, name.as_str()),
            };
            map.entry(name.to_owned()).or_default().push(Arc::clone(&certificate));
        }
        self.first.get_or_insert(certificate);
    }

    fn find(&self, name: &str) -> Option<&[Arc<Served>]> {
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wildcard).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| {
            if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                self.find(&name.to_ascii_lowercase())
            } else {
                self.find(name)
            }
        });
        let usable =
            |certificate: &&Arc<Served>| certificate.bare.key.choose_scheme(hello.signature_schemes()).is_some();
        let chosen = match named {
            Some(certificates) => certificates.iter().find(usable).or(certificates.first()),
            None => self.first.as_ref(),
        };
        chosen.map(|certificate| certificate.at(time::now))
    }
}
