//! Upstreams as the whole process shares them: where they are, and how many connections each may have.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use http::HeaderValue;
use rustls_pki_types::ServerName;
use tokio::sync::Semaphore;

use super::certificate::TlsError;
use super::settings::{Protocol, UpstreamKind, UpstreamSettings};
use super::tls::{FilesDigest, TlsClient};

/// Where one target is and how to speak to it.
pub(crate) struct Endpoint {
    /// Name or address to connect to.
    pub(crate) host: String,
    /// TCP port.
    pub(crate) port: u16,
    /// TLS, for `https` targets.
    pub(crate) tls: Option<EndpointTls>,
}

/// TLS towards one target.
pub(crate) struct EndpointTls {
    /// Roots, versions, ALPN and our own certificate.
    pub(crate) config: Arc<rustls::ClientConfig>,
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
    /// Whether the last attempt to connect succeeded.
    pub(crate) answers: AtomicBool,
    /// Requests that wait for a permit anywhere in the process.
    pub(crate) waiting: AtomicUsize,
    /// The `Host` it is sent where the configuration sets none and HTTP/2 needs an authority.
    pub(crate) authority: HeaderValue,
}

/// One upstream, shared by all workers.
pub(crate) struct Upstream {
    /// As configured.
    pub(crate) settings: UpstreamSettings,
    /// Its targets; empty for the built-in echo.
    pub(crate) targets: Vec<Arc<Target>>,
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

static NEXT_TARGET: AtomicU64 = AtomicU64::new(1);

impl Upstream {
    /// Sets up an upstream. Reads certificate files; opens no connection.
    ///
    /// `previous` is the same-named upstream of the configuration before: where nothing changed, the contents of
    /// certificate files included, its targets, and with them their open connections, go on.
    ///
    /// # Errors
    /// A target or certificate that cannot be used.
    pub(crate) fn open(settings: UpstreamSettings, previous: Option<&Self>) -> Result<Self, UpstreamError> {
        // Before the files are loaded: one that is replaced meanwhile differs from this the next time.
        let files = settings.tls.files_digest();
        if let Some(before) = previous
            && files.is_some()
            && before.files == files
            && before.settings.targets == settings.targets
            && before.settings.tls == settings.tls
            && before.settings.protocol == settings.protocol
            && before.settings.max_connections == settings.max_connections
        {
            return Ok(Self { targets: before.targets.clone(), settings, files });
        }
        let targets = match settings.kind {
            UpstreamKind::Echo => Vec::new(),
            UpstreamKind::Network => {
                settings.targets.iter().map(|target| open_target(&settings, &target.url)).collect::<Result<_, _>>()?
            }
        };
        Ok(Self { settings, targets, files })
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
            Ok(EndpointTls { config: client.config(), server_name })
        })
        .transpose()?;
    Ok(Arc::new(Target {
        id: NEXT_TARGET.fetch_add(1, Ordering::Relaxed),
        label: url.to_string().trim_end_matches('/').to_owned(),
        endpoint: Endpoint { host, port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }), tls },
        permits: Arc::new(Semaphore::new(settings.max_connections)),
        answers: AtomicBool::new(true),
        waiting: AtomicUsize::new(0),
        authority: HeaderValue::from_str(authority.as_str()).map_err(|_| refuse("names no host"))?,
    }))
}

impl Target {
    /// Which HTTP a request to this target goes over, as far as that is known before connecting.
    pub(crate) fn protocol_for(&self, configured: Protocol, is_grpc: bool) -> Protocol {
        match configured {
            Protocol::Auto if is_grpc && self.endpoint.tls.is_none() => Protocol::H2c,
            Protocol::Auto | Protocol::H1 | Protocol::H2 | Protocol::H2c => configured,
        }
    }
}
