//! Header fields on their way through: what is taken away, what is added, in which order (contract §5).
//!
//! The order is the defence: nominated and hop-by-hop fields first, then whatever a client must not say, and our own
//! last, so that nothing a client sends can remove or imitate them.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use super::settings::{HeaderSettings, IdentityNames, NamePattern};
use crate::domain::{Fields, Known};

/// Which fields are ours, which are not believed; compiled once for each configuration.
pub(crate) struct HeaderRules {
    identity: IdentityNames,
    /// The same, as CGI and its heirs read names: `_` and `.` are `-`.
    folded: [String; 5],
    untrusted: Vec<NamePattern>,
    unusual: bool,
    /// For each first byte of a name, whether any rule can concern it: the common names are waved through.
    interesting: [bool; 256],
}

const RESERVED: &str = "x-portcullis-";

/// Hop-by-hop fields (RFC 9110 §7.6.1, RFC 9112 §9.3) and what framing owns.
#[inline]
pub(crate) const fn is_hop_by_hop(name: Known) -> bool {
    matches!(
        name,
        Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::Te
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Http2Settings
    )
}

/// A client cannot use `Connection` to take away what the next server decides by.
const NOT_NOMINABLE: [Known; 4] = [Known::Host, Known::ContentLength, Known::ContentType, Known::Authorization];

/// Whether `Connection` may nominate a field: nearly all of them only say what becomes of the connection.
#[inline]
pub(crate) fn nominates(fields: Fields<'_>) -> bool {
    fields
        .all(Known::Connection)
        .any(|value| !(value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close")))
}

/// Whether `Connection` says that a field of this name is for this connection alone (RFC 9110 §7.6.1).
pub(crate) fn is_nominated(fields: Fields<'_>, name: &[u8]) -> bool {
    let is_named = fields
        .all(Known::Connection)
        .flat_map(|value| value.split(|b| *b == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(name));
    is_named && !NOT_NOMINABLE.contains(&Known::of(name))
}

/// Whether the fields of a request's peer are believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Peer {
    /// Listed in `trusted_proxies`.
    Trusted,
    /// Anyone else.
    Untrusted,
}

impl HeaderRules {
    /// Compiles the rules.
    pub(crate) fn new(settings: &HeaderSettings) -> Self {
        let mut interesting = [false; 256];
        let mut mark = |name: &str| {
            if let Some(first) = name.bytes().next() {
                interesting[usize::from(first)] = true;
            }
        };
        mark(RESERVED);
        let identity = &settings.identity;
        let names = [&identity.key_id, &identity.owner, &identity.environment, &identity.scopes, &identity.auth];
        let folded = names.map(|name| fold(name.as_str()));
        folded.iter().for_each(|name| mark(name));
        for pattern in &settings.untrusted {
            match pattern {
                NamePattern::Exact(name) | NamePattern::Prefix(name) => mark(name),
                NamePattern::Unusual => {}
            }
        }
        Self {
            identity: settings.identity.clone(),
            folded,
            untrusted: settings.untrusted.clone(),
            unusual: settings.untrusted.contains(&NamePattern::Unusual),
            interesting,
        }
    }

    /// The identity fields' names.
    pub(crate) fn identity(&self) -> &IdentityNames {
        &self.identity
    }

    /// Whether a request may not carry a field of this name, in whatever case, to the upstream. Allocates only for names
    /// that begin like one of ours or one that is not believed.
    #[inline]
    pub(crate) fn is_refused(&self, name: &[u8], peer: Peer) -> bool {
        let is_unusual = memchr::memchr2(b'_', b'.', name).is_some();
        let first = name.first().map_or(0, u8::to_ascii_lowercase);
        (is_unusual || self.interesting[usize::from(first)]) && self.is_refused_surely(name, is_unusual, peer)
    }

    fn is_refused_surely(&self, name: &[u8], is_unusual: bool, peer: Peer) -> bool {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if is_unusual && (peer == Peer::Untrusted && self.unusual || self.is_ours(&fold(&name))) {
            return true;
        }
        self.is_ours(&name) || peer == Peer::Untrusted && self.untrusted.iter().any(|pattern| pattern.matches(&name))
    }

    fn is_ours(&self, folded: &str) -> bool {
        folded.starts_with(RESERVED) || self.folded.iter().any(|ours| ours == folded)
    }
}

fn fold(name: &str) -> String {
    name.replace(['_', '.'], "-")
}

impl NamePattern {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => name == exact,
            Self::Prefix(prefix) => name.starts_with(prefix.as_str()),
            Self::Unusual => name.bytes().any(|b| b == b'_' || b == b'.'),
        }
    }
}

/// What happens to the trailer fields of a request.
#[derive(Clone)]
pub(crate) enum TrailerRule {
    /// They are dropped.
    Drop,
    /// gRPC: they go on, without the names a client must not send.
    Clean {
        /// Which names those are.
        rules: std::sync::Arc<HeaderRules>,
        /// Whether the peer is believed.
        peer: Peer,
        /// Names of the places that carry credentials on this route.
        credentials: SmallVec<[HeaderName; 2]>,
    },
}

impl TrailerRule {
    /// What of `trailers` goes on; `None` when nothing does.
    pub(crate) fn clean(&self, mut trailers: HeaderMap) -> Option<HeaderMap> {
        match self {
            Self::Drop => None,
            Self::Clean { rules, peer, credentials } => {
                let is_refused = |name: &HeaderName| {
                    let known = Known::of(name.as_str().as_bytes());
                    is_hop_by_hop(known)
                        || NOT_NOMINABLE.contains(&known)
                        || credentials.contains(name)
                        || rules.is_refused(name.as_str().as_bytes(), *peer)
                };
                let refused: Vec<HeaderName> = trailers.keys().filter(|name| is_refused(name)).cloned().collect();
                refused.iter().for_each(|name| drop(trailers.remove(name)));
                (!trailers.is_empty()).then_some(trailers)
            }
        }
    }
}

/// A node of `Forwarded` and `X-Forwarded-For` (RFC 7239 §6).
pub(crate) fn forwarded_for(address: Option<IpAddr>) -> String {
    match address {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(v4)) => v4.to_string(),
        Some(IpAddr::V6(v6)) => format!("\"[{v6}]\""),
    }
}
