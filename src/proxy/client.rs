//! What is known about the peer in front: once for each connection, and the client behind it for each request.

use std::cell::Cell;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ipnet::IpNet;

use super::asked::Asked;
use super::headers::{Peer, forwarded_for};
use crate::domain::{Fields, Known};
use crate::reply::Failure;
use crate::telemetry::ListenerLabel;

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
    pub(crate) fn exceeded_by(self, asked: &Asked<'_>) -> Option<Failure> {
        let target = asked.path.len() + asked.query.map_or(0, |query| query.len() + 1);
        if target > self.target_bytes {
            return Some(Failure::TargetTooLong);
        }
        let list: usize = asked.fields.iter().map(|field| field.name.len() + field.value.len() + 32).sum();
        (asked.fields.len() > self.fields || list + target > self.list_bytes).then_some(Failure::HeadersTooLarge)
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
    /// Whether HTTP/2 is spoken on it.
    pub(crate) is_h2: bool,
    /// What a head may be under HTTP/2; under HTTP/1 the framing has seen to it.
    pub(crate) h2_bounds: Option<HeadBounds>,
    /// Requests under way on it.
    pub(crate) in_flight: Rc<Cell<usize>>,
    /// Whether the next request is refused because too much is held already.
    pub(crate) is_overloaded: Cell<bool>,
    draining: Rc<Cell<bool>>,
    listener_leaving: Arc<AtomicBool>,
    /// The peer's address as it stands in `X-Forwarded-For`.
    pub(crate) address: String,
    /// The same as a node of `Forwarded` (RFC 7239 §6).
    pub(crate) forwarded_node: String,
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
        h2_bounds: Option<HeadBounds>,
        in_flight: Rc<Cell<usize>>,
        draining: Rc<Cell<bool>>,
        listener_leaving: Arc<AtomicBool>,
    ) -> Self {
        Self {
            peer,
            listener,
            listener_name,
            is_tls,
            redirect_https,
            is_h2: h2_bounds.is_some(),
            h2_bounds,
            in_flight,
            is_overloaded: Cell::new(false),
            draining,
            listener_leaving,
            address: peer.map_or_else(|| "unknown".to_owned(), |address| address.to_string()),
            forwarded_node: forwarded_for(peer),
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

    /// Whether the peer's forwarding fields are believed.
    pub(crate) fn trust(&self, trusted_proxies: &[IpNet]) -> Peer {
        let listed = self.peer.is_some_and(|peer| trusted_proxies.iter().any(|net| net.contains(&peer)));
        if listed { Peer::Trusted } else { Peer::Untrusted }
    }
}

/// The client's address: the peer, or behind trusted proxies the rightmost hop of `X-Forwarded-For` that is not one. None
/// where that hop is no address: whoever it was, it was not the proxy.
pub(crate) fn client_address(
    peer: Option<IpAddr>,
    trust: Peer,
    fields: Fields<'_>,
    trusted: &[IpNet],
) -> Option<IpAddr> {
    if trust == Peer::Untrusted {
        return peer;
    }
    let mut client = peer;
    let chain: Vec<&[u8]> = fields.all(Known::XForwardedFor).collect();
    let hops = chain.iter().rev().flat_map(|value| value.rsplit(|b| *b == b','));
    for hop in hops {
        let hop = hop.trim_ascii();
        // An empty element of a list is none (RFC 9110 §5.6.1.2).
        if hop.is_empty() {
            continue;
        }
        client = address_of_hop(hop);
        let Some(address) = client else { break };
        if !trusted.iter().any(|net| net.contains(&address)) {
            break;
        }
    }
    client
}

/// The address of a hop, however proxies write it: bare, in brackets, with a port.
fn address_of_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address: Option<IpAddr> = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|hop| hop.ip())),
    };
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_rightmost_hop_that_is_no_proxy() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let peer: Option<IpAddr> = Some("10.0.0.1".parse().unwrap());
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let cases = [
            ("6.6.6.6, 1.2.3.4", address("1.2.3.4")),
            ("1.2.3.4, 10.0.0.9", address("1.2.3.4")),
            ("10.0.0.7, 10.0.0.9", address("10.0.0.7")),
            ("6.6.6.6:4711", address("6.6.6.6")),
            ("1.2.3.4:80, 10.0.0.9:443", address("1.2.3.4")),
            ("2001:db8::1", address("2001:db8::1")),
            ("[2001:db8::1]", address("2001:db8::1")),
            ("[2001:db8::1]:4711, [::ffff:10.0.0.9]:1", address("2001:db8::1")),
            ("1.2.3.4, , 10.0.0.9,", address("1.2.3.4")),
            ("", address("10.0.0.1")),
            // Whoever it is, it is not the proxy.
            ("1.2.3.4, junk", None),
            ("1.2.3.4, unknown, 10.0.0.9", None),
            ("1.2.3.4, _hidden", None),
            ("1.2.3.4, 5.6.7.8:", None),
            ("1.2.3.4, [5.6.7.8]", None),
            ("1.2.3.4, [2001:db8::1", None),
            ("1.2.3.4, 2001:db8::1]:5", None),
            ("1.2.3.4, 5.6.7.8:123456", None),
        ];
        for (sent, expected) in cases {
            let mut fields = crate::domain::OwnedFields::default();
            fields.push(b"X-Forwarded-For", sent.as_bytes());
            assert_eq!(client_address(peer, Peer::Trusted, fields.view(), &trusted), expected, "{sent}");
            assert_eq!(client_address(peer, Peer::Untrusted, fields.view(), &trusted), peer);
        }
    }
}
