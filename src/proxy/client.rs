//! What is known about the peer in front: once for each connection, and the client behind it for each request.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::HeaderMap;
use http::{HeaderName, HeaderValue, Request, Version};
use ipnet::IpNet;

use super::headers::{Peer, forwarded_for, single};
use super::tunnel::PendingTunnel;
use crate::framing::Progress;
use crate::reply::Failure;
use crate::telemetry::ListenerLabel;

/// `X-Forwarded-For`.
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`.
pub(crate) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`.
pub(crate) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `X-Request-Id`.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How large the head of an HTTP/2 request may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadBounds {
    /// Names, values and 32 bytes for each field (RFC 9113 §6.5.2).
    pub(crate) list_bytes: usize,
    /// Fields.
    pub(crate) fields: usize,
    /// Path and query.
    pub(crate) target_bytes: usize,
}

impl HeadBounds {
    /// What is too large about a request.
    pub(crate) fn exceeded_by<B>(self, request: &Request<B>) -> Option<Failure> {
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        if target > self.target_bytes {
            return Some(Failure::TargetTooLong);
        }
        let headers = request.headers();
        let list: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        (headers.len() > self.fields || list + target > self.list_bytes).then_some(Failure::HeadersTooLarge)
    }
}

/// One client connection.
pub(crate) struct ClientConnection {
    /// The peer's address; none over a Unix socket.
    pub(crate) peer: Option<IpAddr>,
    /// Which listener it came through.
    pub(crate) listener: ListenerLabel,
    /// The listener's name, for the log.
    pub(crate) listener_name: Arc<str>,
    /// Whether it is inside TLS.
    pub(crate) is_tls: bool,
    /// Whether every request is answered with a redirect to https.
    pub(crate) redirect_https: bool,
    /// What the framing guard under it sees; none under HTTP/2.
    pub(crate) progress: Option<Rc<Progress>>,
    /// What a head may be under HTTP/2; under HTTP/1 the framing guard has seen to it.
    pub(crate) h2_bounds: Option<HeadBounds>,
    /// An accepted upgrade that waits for the HTTP side to let go of the stream.
    pub(crate) tunnel: RefCell<Option<PendingTunnel>>,
    /// Requests under way on it.
    pub(crate) in_flight: Rc<Cell<usize>>,
    draining: Rc<Cell<bool>>,
    listener_leaving: Arc<AtomicBool>,
    /// The peer's address as field value.
    pub(crate) address_value: HeaderValue,
    forwarded: RefCell<Option<(HeaderValue, HeaderValue)>>,
}

impl ClientConnection {
    /// A connection as the server accepted it.
    #[expect(clippy::too_many_arguments, reason = "one call site, each a fact of the accepted socket")]
    pub(crate) fn new(
        peer: Option<IpAddr>,
        listener: ListenerLabel,
        listener_name: Arc<str>,
        is_tls: bool,
        redirect_https: bool,
        progress: Option<Rc<Progress>>,
        h2_bounds: Option<HeadBounds>,
        in_flight: Rc<Cell<usize>>,
        draining: Rc<Cell<bool>>,
        listener_leaving: Arc<AtomicBool>,
    ) -> Self {
        let text = peer.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        let address_value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self {
            peer,
            listener,
            listener_name,
            is_tls,
            redirect_https,
            progress,
            h2_bounds,
            tunnel: RefCell::default(),
            in_flight,
            draining,
            listener_leaving,
            address_value,
            forwarded: RefCell::default(),
        }
    }

    /// Whether answers should say `Connection: close`: the process drains, or a reload removed the listener.
    pub(crate) fn is_leaving(&self) -> bool {
        self.draining.get() || self.listener_leaving.load(Ordering::Relaxed)
    }

    /// `http` or `https`.
    pub(crate) const fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// The value of `Forwarded` for a request to `host` (RFC 7239 §4); remembered for the next one.
    pub(crate) fn forwarded(&self, host: &HeaderValue) -> HeaderValue {
        if let Some((known, value)) = &*self.forwarded.borrow()
            && known == host
        {
            return value.clone();
        }
        let text = format!(
            "for={};host=\"{}\";proto={}",
            forwarded_for(self.peer),
            host.to_str().unwrap_or(""),
            self.scheme()
        );
        let value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"));
        *self.forwarded.borrow_mut() = Some((host.clone(), value.clone()));
        value
    }

    /// Whether the peer's forwarding fields are believed.
    pub(crate) fn trust(&self, trusted_proxies: &[IpNet]) -> Peer {
        let listed = self.peer.is_some_and(|peer| trusted_proxies.iter().any(|net| net.contains(&peer)));
        if listed { Peer::Trusted } else { Peer::Untrusted }
    }
}

/// The client's address: the peer, or behind trusted proxies the rightmost hop of `X-Forwarded-For` that is not one.
pub(crate) fn client_address(
    peer: Option<IpAddr>,
    trust: Peer,
    headers: &HeaderMap,
    trusted: &[IpNet],
) -> Option<IpAddr> {
    if trust == Peer::Untrusted {
        return peer;
    }
    let mut client = peer;
    let fields: Vec<&HeaderValue> = headers.get_all(&X_FORWARDED_FOR).iter().collect();
    let hops = fields.iter().rev().flat_map(|value| value.as_bytes().rsplit(|b| *b == b','));
    for hop in hops {
        let Some(address) = std::str::from_utf8(hop.trim_ascii()).ok().and_then(|text| text.parse().ok()) else {
            break;
        };
        client = Some(address);
        if !trusted.iter().any(|net| net.contains(&address)) {
            break;
        }
    }
    client
}

/// A request target and its host, in the one way they can be read.
pub(crate) struct Target<'a> {
    /// Host and port as the client said; empty where HTTP/1.0 sent none.
    pub(crate) authority: &'a str,
    /// The path as it came; `*` for the asterisk form.
    pub(crate) path: &'a str,
    /// The query as it came.
    pub(crate) query: Option<&'a str>,
}

/// Reads target and host (RFC 9112 §3.2, RFC 9113 §8.3.1).
///
/// # Errors
/// When host and target disagree, or either has no single reading.
pub(crate) fn read_target<B>(request: &Request<B>) -> Result<Target<'_>, Failure> {
    let refuse = |detail| Failure::BadRequest { detail };
    let host = match single(request.headers(), &http::header::HOST) {
        Ok(value) => {
            value.map(|value| value.to_str().map_err(|_| refuse("The Host field is malformed."))).transpose()?
        }
        Err(()) => return Err(refuse("The request carries more than one Host field.")),
    };
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let authority = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(refuse("Host and request target name different hosts."));
        }
        (Some(authority), _) => authority,
        (None, Some(host)) => host,
        (None, None) if request.version() <= Version::HTTP_10 => "",
        (None, None) => return Err(refuse("The request names no host.")),
    };
    let is_absent = authority.is_empty() && request.version() <= Version::HTTP_11;
    if !is_absent && !is_host_and_port(authority) {
        return Err(refuse("The Host field is malformed."));
    }
    Ok(Target { authority, path: request.uri().path(), query: request.uri().query() })
}

/// `uri-host [ ":" port ]` without user information (RFC 9110 §7.2, RFC 3986 §3.2.2).
fn is_host_and_port(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((inner, after)) => {
                let literal = inner.bytes().all(|b| b.is_ascii_hexdigit() || b == b':' || b == b'.');
                return literal
                    && !inner.is_empty()
                    && (after.is_empty() || after.strip_prefix(':').is_some_and(digits));
            }
            None => return false,
        },
        None => text.split_once(':').map_or((text, ""), |(host, port)| (host, port)),
    };
    let in_name = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(&b);
    !host.is_empty() && host.bytes().all(in_name) && (!text.contains(':') || digits(port))
}

fn digits(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_content_injection_is_refused() {
        for good in ["a", "a.b:80", "[::1]", "[::1]:8443", "127.0.0.1:1", "a:"] {
            assert!(is_host_and_port(good), "{good}");
        }
        for bad in
            ["", ":80", "a/b", "u@h", "a,b", "a b", "a:b", "a:80:90", "[::1", "[x]", "[::1]x", "a#b", "a?b", "a\\b"]
        {
            assert!(!is_host_and_port(bad), "{bad}");
        }
    }

    #[test]
    fn the_client_is_the_rightmost_hop_that_is_no_proxy() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let peer: Option<IpAddr> = Some("10.0.0.1".parse().unwrap());
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let cases = [
            ("6.6.6.6, 1.2.3.4", address("1.2.3.4")),
            ("1.2.3.4, 10.0.0.9", address("1.2.3.4")),
            ("10.0.0.7, 10.0.0.9", address("10.0.0.7")),
            ("1.2.3.4, junk", address("10.0.0.1")),
            ("", address("10.0.0.1")),
        ];
        for (sent, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(X_FORWARDED_FOR, HeaderValue::from_str(sent).unwrap());
            assert_eq!(client_address(peer, Peer::Trusted, &headers, &trusted), expected, "{sent}");
            assert_eq!(client_address(peer, Peer::Untrusted, &headers, &trusted), peer);
        }
    }
}
