//! Upstreams as the whole process shares them: where they are, and how many connections each may have.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use http::HeaderValue;
use rustls_pki_types::ServerName;
use tokio::sync::Semaphore;

use super::certificate::TlsError;
use super::names::Addresses;
use super::settings::{self, Protocol, UpstreamKind, UpstreamSettings};
use super::standing::{Change, Standing};
use super::tls::{FilesDigest, TlsClient};

/// Where one target is and how to speak to it.
pub(crate) struct Endpoint {
    /// What to connect to.
    pub(crate) addresses: Addresses,
    /// TLS, for `https` targets.
    pub(crate) tls: Option<EndpointTls>,
}

/// TLS towards one target.
pub(crate) struct EndpointTls {
    /// Roots, versions, ALPN and our own certificate.
    pub(crate) config: Arc<rustls::ClientConfig>,
    /// The same for connections that must speak HTTP/1.1.
    pub(crate) h1_config: Arc<rustls::ClientConfig>,
    /// The name that is checked and sent as SNI.
    pub(crate) server_name: ServerName<'static>,
}

/// One target, shared by all workers.
pub(crate) struct Target {
    /// Tells pools apart across reloads.
    pub(crate) id: u64,
    /// Its URL as configured, the label of metrics.
    pub(crate) label: String,
    /// Where it is.
    pub(crate) endpoint: Endpoint,
    /// One permit for each connection the process may have to it.
    pub(crate) permits: Arc<Semaphore>,
    /// One for each of them that a request may have whose body is still coming, where no other can share it: some are left
    /// for those that clients do not hold up.
    pub(crate) leaves: Arc<Semaphore>,
    /// Whether it is given requests.
    pub(crate) standing: Standing,
    /// Requests that wait for a permit anywhere in the process.
    pub(crate) waiting: AtomicUsize,
    /// The `Host` it is sent where the configuration sets none and HTTP/2 needs an authority.
    pub(crate) authority: HeaderValue,
}

/// One upstream, shared by all workers.
pub(crate) struct Upstream {
    /// Tells it from those of other configurations.
    pub(crate) id: u64,
    /// As configured.
    pub(crate) settings: UpstreamSettings,
    /// Its targets; empty for the built-in echo.
    pub(crate) targets: Vec<Arc<Target>>,
    /// Their weights.
    pub(crate) weights: Vec<u32>,
    /// What the files of `settings.tls` held when they were read; `None` where that is not known.
    files: Option<FilesDigest>,
}

/// Why an upstream cannot be set up.
#[derive(Debug)]
pub enum UpstreamError {
    /// A target's URL lacks a host, or its name cannot be checked by TLS.
    Target {
        /// The URL.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// Its certificates.
    Tls(Vec<TlsError>),
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target { url, problem } => write!(f, "{url}: {problem}"),
            Self::Tls(errors) => {
                let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&all.join("; "))
            }
        }
    }
}

impl std::error::Error for UpstreamError {}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

fn next_id() -> u64 {
    NEXT_ID.fetch_add(1, Ordering::Relaxed)
}

impl Upstream {
    /// Sets up an upstream. Reads certificate files; opens no connection.
    ///
    /// `previous` is the same-named upstream of the configuration before: where nothing changed about how targets are
    /// spoken to, the contents of certificate files included, those that both have, and with them their open connections
    /// and what is known of them, go on.
    ///
    /// # Errors
    /// A target or certificate that cannot be used.
    pub(crate) fn open(settings: UpstreamSettings, previous: Option<&Self>) -> Result<Self, UpstreamError> {
        // Before the files are loaded: one that is replaced meanwhile differs from this the next time.
        let files = settings.tls.files_digest();
        let previous = previous.filter(|before| {
            files.is_some()
                && before.files == files
                && before.settings.tls == settings.tls
                && before.settings.protocol == settings.protocol
                && before.settings.max_connections == settings.max_connections
        });
        let open = |target: &settings::Target| {
            let same = |(before, _): &(&settings::Target, _)| before.url == target.url;
            let before = previous.and_then(|before| before.settings.targets.iter().zip(&before.targets).find(same));
            match before {
                Some((_, known)) => Ok(Arc::clone(known)),
                None => open_target(&settings, &target.url),
            }
        };
        let targets = match settings.kind {
            UpstreamKind::Echo => Vec::new(),
            UpstreamKind::Network => settings.targets.iter().map(open).collect::<Result<Vec<_>, _>>()?,
        };
        let weights = settings.targets.iter().map(|target| target.weight).collect();
        Ok(Self { id: next_id(), settings, targets, weights, files })
    }

    /// Notes that one of its targets could not be connected to, or broke off before an answer; see [`Standing::failed`].
    pub(crate) fn failed(&self, target: &Target, is_trial: bool, now: Instant) -> Change {
        let is_last = self.targets.iter().all(|other| other.id == target.id || !other.standing.is_in());
        target.standing.failed(&self.settings.ejection, is_trial, is_last, now)
    }
}

fn open_target(settings: &UpstreamSettings, url: &http::Uri) -> Result<Arc<Target>, UpstreamError> {
    let refuse = |problem: &str| UpstreamError::Target { url: url.to_string(), problem: problem.to_owned() };
    let authority = url.authority().ok_or_else(|| refuse("names no host"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let secure = url.scheme() == Some(&http::uri::Scheme::HTTPS);
    let tls = secure
        .then(|| {
            let client = TlsClient::load(&settings.tls, settings.protocol).map_err(UpstreamError::Tls)?;
            let server_name = client.server_name(&host).map_err(|error| UpstreamError::Tls(vec![error]))?;
            Ok(EndpointTls { config: client.config(), h1_config: client.h1_config(), server_name })
        })
        .transpose()?;
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    Ok(Arc::new(Target {
        id: next_id(),
        label: url.to_string().trim_end_matches('/').to_owned(),
        endpoint: Endpoint { addresses: Addresses::new(host, port), tls },
        permits: Arc::new(Semaphore::new(settings.max_connections)),
        leaves: Arc::new(Semaphore::new(settings.max_connections - settings.max_connections / 4)),
        standing: Standing::new(),
        waiting: AtomicUsize::new(0),
        authority: HeaderValue::from_str(authority.as_str()).map_err(|_| refuse("names no host"))?,
    }))
}

impl Target {
    /// Which HTTP a request to this target goes over, as far as that is known before connecting. A tunnel begins in
    /// HTTP/1.1 (RFC 9110 §7.8).
    pub(crate) fn protocol_for(&self, configured: Protocol, is_grpc: bool, wants_tunnel: bool) -> Protocol {
        match configured {
            Protocol::Auto if wants_tunnel => Protocol::H1,
            Protocol::Auto if is_grpc && self.endpoint.tls.is_none() => Protocol::H2c,
            Protocol::Auto | Protocol::H1 | Protocol::H2 | Protocol::H2c => configured,
        }
    }
}
