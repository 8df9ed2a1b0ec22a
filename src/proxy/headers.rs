//! Header fields on their way through: what is taken away, what is added, in which order (contract §5).
//!
//! The order is the defence: nominated and hop-by-hop fields first, then whatever a client must not say, and our own
//! last, so that nothing a client sends can remove or imitate them.

use std::net::IpAddr;

use http::header::{self, HeaderMap};
use http::{HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::settings::{HeaderSettings, IdentityNames, NamePattern};

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
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// A client cannot use `Connection` to take away what the next server decides by.
const NOT_NOMINABLE: [HeaderName; 4] =
    [header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE, header::AUTHORIZATION];

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

    /// Whether a request may not carry a field of this name to the upstream.
    pub(crate) fn is_refused(&self, name: &str, peer: Peer) -> bool {
        let unusual = name.bytes().any(|b| b == b'_' || b == b'.');
        if unusual && (peer == Peer::Untrusted && self.unusual || self.is_ours(&fold(name))) {
            return true;
        }
        let first = name.bytes().next().unwrap_or_default();
        if !self.interesting[usize::from(first)] {
            return false;
        }
        self.is_ours(name) || peer == Peer::Untrusted && self.untrusted.iter().any(|pattern| pattern.matches(name))
    }

    fn is_ours(&self, folded: &str) -> bool {
        folded.starts_with(RESERVED) || self.folded.iter().any(|ours| ours == folded)
    }

    /// Takes hop-by-hop and refused fields out of a request's fields.
    pub(crate) fn clean_request(&self, headers: &mut HeaderMap, peer: Peer) {
        remove_hop_by_hop(headers);
        let refused: SmallVec<[HeaderName; 8]> =
            headers.keys().filter(|name| self.is_refused(name.as_str(), peer)).cloned().collect();
        for name in refused {
            headers.remove(name);
        }
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

/// Removes hop-by-hop fields and those that `Connection` nominates (RFC 9110 §7.6.1).
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let nominated: SmallVec<[HeaderName; 4]> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
            .filter(|name| !NOT_NOMINABLE.contains(name))
            .collect();
        for name in nominated {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
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
                rules.clean_request(&mut trailers, *peer);
                for name in credentials.iter().chain(&NOT_NOMINABLE) {
                    trailers.remove(name);
                }
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

/// Whether a `Connection` field names `token`.
pub(crate) fn connection_names(headers: &HeaderMap, token: &str) -> bool {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .any(|piece| piece.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The one value of a field that must occur at most once; `Err` when it occurs more often.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a HeaderValue>, ()> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { Err(()) } else { Ok(first) }
}
