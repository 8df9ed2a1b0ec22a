//! Asking a target how it is, whether or not there are requests for it.
//!
//! Runs on the control runtime. Owns one target's probes; what they find goes into its standing, like what requests find.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{Request, StatusCode, Uri, Version};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::observe::tell_change;
use super::settings::{HealthCheck, HostPolicy, Protocol};
use super::standing::jittered;
use super::target::{Target, Upstream};
use crate::telemetry::Metrics;

/// Asks for ever, about once every interval.
pub(super) async fn keep_asking(upstream: Arc<Upstream>, target: Arc<Target>, health: HealthCheck, metrics: Metrics) {
    // Those of many targets, and of many gateways, do not ask together.
    tokio::time::sleep(health.interval - jittered(health.interval)).await;
    let (mut passed, mut failed) = (0, 0);
    loop {
        // All connections that it may have are in use: that tells nothing, and one more would be one too many.
        if let Ok(_permit) = target.permits.try_acquire() {
            let asked = tokio::time::timeout(health.timeout, ask(&upstream, &target, &health)).await;
            let change = match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(()) => {
                    (passed, failed) = (passed + 1, 0);
                    (passed >= health.healthy_after).then(|| target.standing.probed(true))
                }
                Err(error) => {
                    tracing::debug!(upstream_target = %target.label, %error, "a probe failed");
                    (passed, failed) = (0, failed + 1);
                    (failed >= health.unhealthy_after).then(|| target.standing.probed(false))
                }
            };
            if let Some(change) = change {
                tell_change(&metrics, &upstream, &target, change);
            }
        }
        tokio::time::sleep(jittered(health.interval)).await;
    }
}

/// Asks once, over a connection of its own, as requests would: with the same TLS and the same HTTP.
async fn ask(upstream: &Upstream, target: &Target, health: &HealthCheck) -> io::Result<()> {
    let endpoint = &target.endpoint;
    let (tcp, _) = endpoint.addresses.connect(health.timeout).await?;
    tcp.set_nodelay(true)?;
    let status = match &endpoint.tls {
        None => match upstream.settings.protocol {
            Protocol::H2c => ask_h2(tcp, upstream, target, health).await?,
            Protocol::Auto | Protocol::H1 | Protocol::H2 => ask_h1(tcp, upstream, target, health).await?,
        },
        Some(tls) => {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
            let stream = connector.connect(tls.server_name.clone(), tcp).await?;
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            match upstream.settings.protocol {
                Protocol::H2 if !is_h2 => return Err(io::Error::other("it does not speak HTTP/2 (ALPN)")),
                _ if is_h2 => ask_h2(stream, upstream, target, health).await?,
                Protocol::Auto | Protocol::H1 | Protocol::H2 | Protocol::H2c => {
                    ask_h1(stream, upstream, target, health).await?
                }
            }
        }
    };
    if status.is_success() || status.is_redirection() {
        Ok(())
    } else {
        Err(io::Error::other(format!("it answers {}", status.as_u16())))
    }
}

async fn ask_h1<S>(stream: S, upstream: &Upstream, target: &Target, health: &HealthCheck) -> io::Result<StatusCode>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let request = request(upstream, target, health, Version::HTTP_11)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let answer = async { sender.send_request(request).await };
    first(answer, connection).await
}

async fn ask_h2<S>(stream: S, upstream: &Upstream, target: &Target, health: &HealthCheck) -> io::Result<StatusCode>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let request = request(upstream, target, health, Version::HTTP_2)?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(io::Error::other)?;
    let answer = async { sender.send_request(request).await };
    first(answer, connection).await
}

/// The status of the answer. The connection is driven until then, and dropped.
async fn first<B>(
    answer: impl Future<Output = hyper::Result<hyper::Response<B>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> io::Result<StatusCode> {
    let ended = async {
        match connection.await {
            Ok(()) => std::future::pending().await,
            Err(error) => Err(io::Error::other(error)),
        }
    };
    tokio::select! {
        biased;
        answer = answer => answer.map(|answer| answer.status()).map_err(io::Error::other),
        ended = ended => ended,
    }
}

fn request(
    upstream: &Upstream,
    target: &Target,
    health: &HealthCheck,
    version: Version,
) -> io::Result<Request<Empty<Bytes>>> {
    let host = match &upstream.settings.host {
        HostPolicy::Set(host) => host,
        HostPolicy::Keep => &target.authority,
    };
    let mut request = Request::builder().version(version);
    if version == Version::HTTP_2 {
        let scheme = if target.endpoint.tls.is_some() { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(host.as_bytes()).path_and_query(&*health.path);
        request = request.uri(uri.build().map_err(io::Error::other)?);
    } else {
        request = request.uri(&*health.path).header(HOST, host);
    }
    request = request.header(USER_AGENT, concat!("portcullis/", env!("CARGO_PKG_VERSION")));
    // The gateway's own credential to the backend may be among them.
    for (name, value) in &upstream.settings.set_headers {
        request = request.header(name, value);
    }
    request.body(Empty::new()).map_err(io::Error::other)
}
